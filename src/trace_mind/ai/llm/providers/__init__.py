"""Re-exports `tracemind_otel.ai.llm.providers`."""

from __future__ import annotations

from tracemind_otel.ai.llm.providers import FakeLLMClient, OpenAILLMClient

__all__ = ["FakeLLMClient", "OpenAILLMClient"]
