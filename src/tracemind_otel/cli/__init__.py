"""The command line: `tracemind-otel demo`, `view` and `doctor`."""

from __future__ import annotations

from .main import main

__all__ = ["main"]
