"""Re-exports `tracemind_otel.steps.ai_llm_call`."""

from __future__ import annotations

from tracemind_otel.steps.ai_llm_call import LLMCallConfig, LLMClientFactory, apply_vars, run_llm_call

__all__ = ["LLMCallConfig", "LLMClientFactory", "apply_vars", "run_llm_call"]
