"""Re-exports `tracemind_otel.ai.llm`."""

from __future__ import annotations

from tracemind_otel.ai.llm import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage

__all__ = ["AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"]
