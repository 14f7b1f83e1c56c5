"""The published path of the step `ai.llm_call`: it lives in `tracemind_otel.call`."""

from __future__ import annotations

from ..call.clients import LLMClientFactory
from ..call.config import STEP_TYPE, LLMCallConfig, apply_vars
from ..call.stream import LLMStream
from ..front.model_calls import run_llm_call, stream_llm_call

__all__ = [
    "STEP_TYPE",
    "LLMCallConfig",
    "LLMClientFactory",
    "LLMStream",
    "apply_vars",
    "run_llm_call",
    "stream_llm_call",
]
