"""Re-exports `tracemind_otel.ai.llm.client`."""

from __future__ import annotations

from tracemind_otel.ai.llm.client import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage

__all__ = ["AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"]
