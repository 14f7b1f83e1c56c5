"""Re-exports `tracemind_otel.ai.llm.types`."""

from __future__ import annotations

from tracemind_otel.ai.llm.types import LLMRequest, LLMResponse, LLMUsage

__all__ = ["LLMRequest", "LLMResponse", "LLMUsage"]
