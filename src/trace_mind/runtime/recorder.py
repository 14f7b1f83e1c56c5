"""Re-exports `tracemind_otel.runtime.recorder`."""

from __future__ import annotations

from tracemind_otel.runtime.recorder import Recorder

__all__ = ["Recorder"]
