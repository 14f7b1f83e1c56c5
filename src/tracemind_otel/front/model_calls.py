"""The published functions of the step `ai.llm_call`: `run_llm_call` and `stream_llm_call`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..ai.llm.client import AsyncLLMClient
from ..call.config import LLMCallConfig
from ..call.estimate import Tokenizer
from ..call.run import make_call
from ..call.stream import LLMStream
from ..recording.port import Recorder


async def run_llm_call(
    flow_id: str,
    step_id: str,
    cfg: LLMCallConfig,
    recorder: Recorder | None = None,
    *,
    client: AsyncLLMClient | None = None,
) -> dict[str, Any]:
    """Call a model; repeat what is worth repeating; record it once; return a plain result.

    Args:
        flow_id: the flow's id, for telemetry; need not be unique.
        step_id: the step's id, for telemetry; need not be unique.
        cfg: what to call and how.
        recorder: what records the call; the default is the one that follows `configure()`. One that raises is logged
            and does no harm.
        client: a client of your own; the default is `LLMClientFactory.make(cfg.provider)`.

    Returns:
        `{"status": "ok", "text", "usage": {...}, "provider", "model", ...}`, or
        `{"status": "error", "reason", "error_type", "provider", "model", ...}`: faults at run time are
        returned, never raised. Every value is plain, so the result can be stored as JSON.

    Raises:
        ConfigError: neither prompt nor template nor messages, an unknown provider, or a parameter that the
            provider does not support: the caller's mistake, a `ValueError`. Also where no asyncio loop runs, as
            under trio.
        asyncio.CancelledError: the task was cancelled; the call is recorded as cancelled.
    """
    result, _ = await make_call((flow_id, step_id), cfg, recorder_or_default(recorder), client)
    return result


def stream_llm_call(
    flow_id: str,
    step_id: str,
    cfg: LLMCallConfig,
    recorder: Recorder | None = None,
    *,
    client: AsyncLLMClient | None = None,
    tokenizer: Tokenizer | None = None,
) -> LLMStream:
    """Call a model and read its reply as it comes.

    The result is an async iterator of events (`TextDelta`, `ReasoningDelta`, `ToolCallDelta`, and last a `Finish`
    with the whole reply) and an async context manager, which is the sure way to close a stream that is not read to
    its end. Attempts are repeated until the first event has come, never after it. The span is current while the
    provider is waited for, never in the code between two events.

    Args:
        flow_id: the flow's id, for telemetry; need not be unique.
        step_id: the step's id, for telemetry; need not be unique.
        cfg: what to call and how; `timeout_ms` bounds the provider's silence, `deadline_ms` the whole stream.
        recorder: what records the call; the default is the one that follows `configure()`. One that raises is logged
            and does no harm.
        client: a client of your own; the default is `LLMClientFactory.make(cfg.provider)`.
        tokenizer: counts the tokens of a stream that is not read to its end; the default is a rule of thumb.

    Raises:
        ConfigError: neither prompt nor template nor messages; an unknown provider or a parameter that it does
            not support raises it from the first event.
        LLMError: from the iteration, when the call fails for good; `LLMStream.result` has the text that came.
    """
    return LLMStream((flow_id, step_id), cfg, recorder_or_default(recorder), client, tokenizer)


def recorder_or_default(recorder: Recorder | None) -> Recorder:
    """The recorder that was given, else the one that follows `configure()`."""
    return _default_recorder() if recorder is None else recorder


@lru_cache(maxsize=1)
def _default_recorder() -> Recorder:
    # Imported when it is needed: a program with a recorder of its own needs no OpenTelemetry.
    from ..otel.recorder import OTelRecorder

    return OTelRecorder()
