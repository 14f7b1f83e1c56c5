"""See what the model calls in your flows did, why they were retried, and what they cost.

Names are loaded on first use, so that importing the package loads neither an SDK nor an HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._base.context import carry_context
    from ._version import __version__
    from .ai.llm.client import AsyncLLMClient
    from .ai.llm.pricing import Price, estimate_cost, set_prices
    from .ai.llm.types import (
        Finish,
        Image,
        LLMRequest,
        LLMResponse,
        LLMUsage,
        Message,
        ReasoningDelta,
        Text,
        TextDelta,
        ToolCall,
        ToolCallDelta,
    )
    from .call.clients import LLMClientFactory
    from .call.config import LLMCallConfig, apply_vars
    from .call.stream import LLMStream
    from .errors import (
        BudgetExceededError,
        ConfigError,
        LLMAuthenticationError,
        LLMClientError,
        LLMConnectionError,
        LLMError,
        LLMNotFoundError,
        LLMQuotaError,
        LLMRateLimitError,
        LLMRequestError,
        LLMResponseError,
        LLMServerError,
        LLMStatusError,
        LLMTimeoutError,
        TraceMindError,
        UnknownProviderError,
    )
    from .flows.totals import FlowRun, FlowTotals, current_flow
    from .front.calls import (
        ResultStream,
        SyncResultStream,
        llm_call,
        llm_call_sync,
        llm_stream,
        llm_stream_sync,
    )
    from .front.configure import configure
    from .front.llm_result import LLMResult
    from .front.model_calls import run_llm_call, stream_llm_call
    from .otel.attributes import using_attributes
    from .otel.budget_scope import budget
    from .otel.decorators import agent, flow, step, tool
    from .otel.logs import LogContextFilter
    from .otel.propagation import continue_trace, inject_context
    from .otel.recorder import OTelRecorder
    from .otel.setup.spool_processor import SpoolSpanProcessor
    from .otel.setup.telemetry import Telemetry
    from .recording.port import Recorder
    from .recording.recorders import CompositeRecorder, InMemoryRecorder
    from .wire.call_span import llm_call_span
    from .wire.instrument import instrument, uninstrument
    from .wire.wrap_client import wrap

__all__ = [
    "AsyncLLMClient",
    "BudgetExceededError",
    "CompositeRecorder",
    "ConfigError",
    "Finish",
    "FlowRun",
    "FlowTotals",
    "Image",
    "InMemoryRecorder",
    "LLMAuthenticationError",
    "LLMCallConfig",
    "LLMClientError",
    "LLMClientFactory",
    "LLMConnectionError",
    "LLMError",
    "LLMNotFoundError",
    "LLMQuotaError",
    "LLMRateLimitError",
    "LLMRequest",
    "LLMRequestError",
    "LLMResponse",
    "LLMResponseError",
    "LLMResult",
    "LLMServerError",
    "LLMStatusError",
    "LLMStream",
    "LLMTimeoutError",
    "LLMUsage",
    "LogContextFilter",
    "Message",
    "OTelRecorder",
    "Price",
    "ReasoningDelta",
    "Recorder",
    "ResultStream",
    "SpoolSpanProcessor",
    "SyncResultStream",
    "Telemetry",
    "Text",
    "TextDelta",
    "ToolCall",
    "ToolCallDelta",
    "TraceMindError",
    "UnknownProviderError",
    "__version__",
    "agent",
    "apply_vars",
    "budget",
    "carry_context",
    "configure",
    "continue_trace",
    "current_flow",
    "estimate_cost",
    "flow",
    "inject_context",
    "instrument",
    "llm_call",
    "llm_call_span",
    "llm_call_sync",
    "llm_stream",
    "llm_stream_sync",
    "run_llm_call",
    "set_prices",
    "step",
    "stream_llm_call",
    "tool",
    "uninstrument",
    "using_attributes",
    "wrap",
]

_MODULES = {
    "_base.context": ("carry_context",),
    "_version": ("__version__",),
    "ai.llm.client": ("AsyncLLMClient",),
    "ai.llm.pricing": ("Price", "estimate_cost", "set_prices"),
    "ai.llm.types": (
        "Finish",
        "Image",
        "LLMRequest",
        "LLMResponse",
        "LLMUsage",
        "Message",
        "ReasoningDelta",
        "Text",
        "TextDelta",
        "ToolCall",
        "ToolCallDelta",
    ),
    "call.clients": ("LLMClientFactory",),
    "call.config": ("LLMCallConfig", "apply_vars"),
    "call.stream": ("LLMStream",),
    "errors": (
        "BudgetExceededError",
        "ConfigError",
        "LLMAuthenticationError",
        "LLMClientError",
        "LLMConnectionError",
        "LLMError",
        "LLMNotFoundError",
        "LLMQuotaError",
        "LLMRateLimitError",
        "LLMRequestError",
        "LLMResponseError",
        "LLMServerError",
        "LLMStatusError",
        "LLMTimeoutError",
        "TraceMindError",
        "UnknownProviderError",
    ),
    "front.calls": (
        "ResultStream",
        "SyncResultStream",
        "llm_call",
        "llm_call_sync",
        "llm_stream",
        "llm_stream_sync",
    ),
    "front.configure": ("configure",),
    "front.llm_result": ("LLMResult",),
    "front.model_calls": ("run_llm_call", "stream_llm_call"),
    "flows.totals": ("FlowRun", "FlowTotals", "current_flow"),
    "otel.attributes": ("using_attributes",),
    "otel.budget_scope": ("budget",),
    "otel.decorators": ("agent", "flow", "step", "tool"),
    "otel.logs": ("LogContextFilter",),
    "otel.propagation": ("continue_trace", "inject_context"),
    "otel.recorder": ("OTelRecorder",),
    "otel.setup.spool_processor": ("SpoolSpanProcessor",),
    "otel.setup.telemetry": ("Telemetry",),
    "recording.port": ("Recorder",),
    "wire.call_span": ("llm_call_span",),
    "wire.instrument": ("instrument", "uninstrument"),
    "wire.wrap_client": ("wrap",),
    "recording.recorders": ("CompositeRecorder", "InMemoryRecorder"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
