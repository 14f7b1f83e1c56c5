"""Re-exports `tracemind_otel.ai.llm.providers.fake`."""

from __future__ import annotations

from tracemind_otel.ai.llm.providers.fake import FakeLLMClient

__all__ = ["FakeLLMClient"]
