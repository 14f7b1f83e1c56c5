"""Re-exports `tracemind_otel.ai.llm.providers.openai`."""

from __future__ import annotations

from tracemind_otel.ai.llm.providers.openai import OpenAILLMClient

__all__ = ["OpenAILLMClient"]
