"""The provider-agnostic client and its data."""

from __future__ import annotations

from .client import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage

__all__ = ["AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"]
