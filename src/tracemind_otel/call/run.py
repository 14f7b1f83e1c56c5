"""The step `ai.llm_call`: one call to any provider, with time-outs, retries, tokens and cost."""

from __future__ import annotations

import time
from typing import Any, cast

from .._base.dropped import interrupt
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.types import LLMResponse
from ..errors import ConfigError, LLMError, LLMResponseError
from ..recording.port import Recorder
from .clients import client_for, running_loop
from .config import LLMCallConfig
from .lifecycle import Call
from .result import is_response, partial_result
from .target import CallTarget


async def run_llm_call(
    flow_id: str,
    step_id: str,
    cfg: LLMCallConfig,
    recorder: Recorder,
    *,
    client: AsyncLLMClient | None = None,
) -> dict[str, Any]:
    """Call a model; repeat what is worth repeating; record it once; return a plain result.

    Args:
        flow_id: the flow's id, for telemetry; need not be unique.
        step_id: the step's id, for telemetry; need not be unique.
        cfg: what to call and how.
        recorder: what records the call; one that raises is logged and does no harm.
        client: a client of your own; the default is `LLMClientFactory.make(cfg.provider)`.

    Returns:
        `{"status": "ok", "text", "usage": {...}, "provider", "model", ...}`, or
        `{"status": "error", "reason", "error_type", "provider", "model", ...}`: faults at run time are
        returned, never raised. Every value is plain, so the result can be stored as JSON.

    Raises:
        ConfigError: neither prompt nor template nor messages, an unknown provider, or a parameter that the
            provider has no place for: the caller's mistake, a `ValueError`. Also where no asyncio loop runs, as
            under trio.
        asyncio.CancelledError: the task was cancelled; the call is recorded as cancelled.
    """
    running_loop("run_llm_call")
    request = cfg.request()
    if client is not None and not isinstance(cast("object", client), AsyncLLMClient):
        raise ConfigError(f"client is {type(client).__name__}; it must be an AsyncLLMClient")
    llm = client if client is not None else await client_for(cfg.provider)
    call = Call((flow_id, step_id), cfg, request, llm, recorder)
    try:
        await call.reserve()
        response = await call.attempts.until_success(lambda: call.attempts.ask_provider(lambda: _complete(call.target)))
        call.reply = response
        ended_ns = time.time_ns()
        return call.succeeded(response, await call.account.priced(response), ended_ns=ended_ns)
    except LLMError as error:
        return await _failed(call, error)
    except ConfigError as error:
        call.misused(error)
        raise
    except Exception as error:
        return call.broke(error)
    except BaseException as cause:
        interrupt(call, cause)
        raise


async def _failed(call: Call, error: LLMError) -> dict[str, Any]:
    """End in an error; what the provider said of its reply, and may charge for, is told all the same."""
    reply: object = error.reply
    if not is_response(reply):
        return call.failed(error)
    call.reply = reply
    try:
        usage = await call.account.priced(reply)
    except BaseException as cause:
        interrupt(call, cause)
        raise
    return call.failed(error, also=partial_result(reply, usage), response=reply, usage=usage)


async def _complete(target: CallTarget) -> LLMResponse:
    """One reply; what a client of a third party returns need not be what its signature says."""
    reply: object = await target.client.complete(target.request)
    if is_response(reply):
        return reply
    raise LLMResponseError(f"{type(target.client).__name__}.complete returned no whole LLMResponse", retryable=False)
