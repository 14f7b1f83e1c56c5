"""Our `ai.llm_call` as a step of the runtime: its parameters, its result and its error codes.

A recipe names it as the `run` of a step:

    hooks: {run: tracemind_otel.integrations.trace_mind.llm_call_step}
    config: {provider: openai, model: gpt-4o-mini, template: "Summarize {{ text }}"}
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from ...call.config import STEP_TYPE, LLMCallConfig
from ...call.run import make_call
from ...errors import (
    BudgetExceededError,
    ConfigError,
    LLMError,
    LLMRateLimitError,
    LLMStatusError,
    LLMTimeoutError,
)
from ...front.model_calls import recorder_or_default
from .run_scope import failure_in

Payload = dict[str, Any]
_NOTHING: Mapping[str, Any] = {}

_OF_A_CALL: Final = frozenset(
    {
        *("text", "usage", "response_id", "response_model", "service_tier", "finish_reasons", "finish_reason"),
        *("reasoning", "refusal", "tool_calls", "request_id", "retries", "reason", "error_type", "status_code"),
        *("code", "provider_code", "retry_after_s", "retryable", "budget"),
    }
)
"""Keys of the last call's result, which the next call's result replaces as a whole."""

_NAME = re.compile(r"\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*\}\}")


async def llm_call_step(
    ctx: Mapping[str, Any], state: Any = None, *, flow_id: str | None = None, step_id: str | None = None
) -> Payload:
    """Call a model as a step of a flow.

    The parameters are the step's `config`: the fields of `LLMCallConfig`. A `template` may name what is in `vars` or in
    the flow's state as `{{ name }}`; a `prompt` is sent as it is. Without a state, as the runtime's own step is called,
    the first argument has the parameters.

    Returns:
        The flow's state with the result of the call: `status`, `text`, `usage` and more; or `status: error` with the
        runtime's `code` and a `reason`. `cost_usd` and `total_tokens` are sums over the calls of the run, which the
        runtime's own limits and records read.

    Raises:
        asyncio.CancelledError: the task of the step is being cancelled.
    """
    if state is None and "config" not in ctx:
        return await _payload(ctx, {}, flow_id or "", step_id or STEP_TYPE)
    config = cast("Mapping[str, Any]", ctx["config"])
    around = cast("Mapping[str, Any]", state) if isinstance(state, Mapping) else _NOTHING
    if failure_in(around) is not None and _missing(config, around):
        return dict(around)  # the failure of an earlier step, whose result this one needs
    payload = await _payload(config, around, str(ctx.get("run_id") or ""), str(ctx.get("step") or STEP_TYPE))
    kept = {name: value for name, value in around.items() if name not in _OF_A_CALL}
    return {**kept, **payload, **_sums(around, payload)}


def register_llm_call(name: str = STEP_TYPE) -> None:
    """Put the step into the runtime's step registry, in the place of a step of that name.

    Raises:
        ModuleNotFoundError: trace-mind is not installed.
    """
    registry = importlib.import_module("tm.flow.step_registry").step_registry
    registry.unregister(name)
    registry.register(name, llm_call_step)


def error_code(error: LLMError) -> str:
    """The runtime's code for an error: it repeats all but `BAD_REQUEST` and the cancelled."""
    if isinstance(error, LLMTimeoutError):
        return "RUN_TIMEOUT"
    if isinstance(error, LLMRateLimitError):
        return "RATE_LIMIT"
    is_final = isinstance(error, BudgetExceededError | LLMStatusError) and not error.retryable
    return "BAD_REQUEST" if is_final else "PROVIDER_ERROR"


async def _payload(parameters: Mapping[str, Any], state: Mapping[str, Any], flow_id: str, step_id: str) -> Payload:
    try:
        config = _config(parameters, state)
        result, error = await make_call(
            (flow_id, step_id), config, recorder_or_default(None), None, function="llm_call_step"
        )
    except ConfigError as mistake:
        return _error("BAD_REQUEST", str(mistake))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancels the worker: let out, this would end it, and with it the runtime.
        return _error("RUN_CANCELLED", "the call was cancelled")
    if error is None:
        return result
    return {**result, "code": error_code(error), "provider_code": error.code}


def _error(code: str, reason: str) -> Payload:
    return {"status": "error", "code": code, "reason": reason}


def _config(parameters: Mapping[str, Any], state: Mapping[str, Any]) -> LLMCallConfig:
    given = {name: value for name, value in parameters.items() if value is not None}
    if given.get("template") is not None:
        missing = _missing(given, state)
        if missing:
            raise ConfigError(f"{STEP_TYPE}: the template names {missing[0]!r}, which neither vars nor the state has")
        given["vars"] = _variables(given, state)
    return LLMCallConfig.from_mapping(given)


def _variables(parameters: Mapping[str, Any], state: Mapping[str, Any]) -> Mapping[str, Any]:
    own: object = parameters.get("vars") or _NOTHING
    if not isinstance(own, Mapping):
        raise ConfigError(f"{STEP_TYPE}: vars is {type(own).__name__}; it must be a mapping or absent")
    return {**state, **cast("Mapping[str, Any]", own)}


def _missing(parameters: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """The names in the template that have no value."""
    template: object = parameters.get("template")
    names = _NAME.findall(template) if isinstance(template, str) else []
    return [name for name in names if name not in _variables(parameters, state)]


def _sums(before: Mapping[str, Any], payload: Payload) -> dict[str, float | int]:
    """What the calls of the run cost and used so far; without what nobody knows."""
    usage: Mapping[str, Any] = payload.get("usage") or _NOTHING
    sums: dict[str, float | int] = {}
    for name in ("cost_usd", "total_tokens"):
        known: list[float | int] = [each for each in (before.get(name), usage.get(name)) if each is not None]
        if known:
            sums[name] = sum(known)
    return sums
