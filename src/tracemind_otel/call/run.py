"""One call to any provider, with time-outs, retries, tokens and cost."""

from __future__ import annotations

import time
from typing import cast

from .._base.dropped import interrupt
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.types import LLMResponse
from ..errors import ConfigError, LLMError, LLMResponseError
from ..recording.port import Recorder
from .clients import client_for, running_loop
from .config import CallTarget, LLMCallConfig
from .lifecycle import Call
from .result import Result, is_response, partial_result


async def make_call(
    ids: tuple[str, str],
    cfg: LLMCallConfig,
    recorder: Recorder,
    client: AsyncLLMClient | None,
    *,
    function: str = "run_llm_call",
) -> tuple[Result, LLMError | None]:
    """Call a model, as `run_llm_call` and `llm_call` describe; `function` is the one that was called, for messages.

    Returns:
        The plain result, and the error of a call that failed.
    """
    running_loop(function)
    request = cfg.request()
    if client is not None and not isinstance(cast("object", client), AsyncLLMClient):
        raise ConfigError(f"client is {type(client).__name__}; it must be an AsyncLLMClient")
    llm = client if client is not None else await client_for(cfg.provider)
    call = Call(ids, cfg, request, llm, recorder)
    return await _result_of(call), call.error


async def _result_of(call: Call) -> Result:
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
        interrupt(call.interrupted, cause)
        raise


async def _failed(call: Call, error: LLMError) -> Result:
    """End in an error, with the part of the reply that came, because the provider may charge for it."""
    reply: object = error.reply
    if not is_response(reply):
        return call.failed(error)
    call.reply = reply
    try:
        usage = await call.account.priced(reply)
    except BaseException as cause:
        interrupt(call.interrupted, cause)
        raise
    return call.failed(error, also=partial_result(reply, usage), response=reply, usage=usage)


async def _complete(target: CallTarget) -> LLMResponse:
    """One reply; a third party's client may return something else than its signature says."""
    reply: object = await target.client.complete(target.request)
    if is_response(reply):
        return reply
    raise LLMResponseError(f"{type(target.client).__name__}.complete returned no whole LLMResponse", retryable=False)
