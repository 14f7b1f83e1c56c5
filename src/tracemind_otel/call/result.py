"""The plain results of a call: dicts that can be stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard, cast

from ..ai.llm.types import LLMResponse, LLMUsage, ToolCall
from ..errors import BudgetExceededError, LLMError
from .config import LLMCallConfig

Result = dict[str, Any]


def ok_result(cfg: LLMCallConfig, response: LLMResponse, usage: LLMUsage, retries: int) -> Result:
    """The result of a reply."""
    return {
        "status": "ok",
        **partial_result(response, usage),
        **_call(cfg, retries),
        "finish_reasons": list(response.finish_reasons),
        "finish_reason": response.finish_reason,
        "reasoning": response.reasoning,
        "refusal": response.refusal,
        "tool_calls": [_plain_call(call) for call in response.tool_calls],
        "request_id": response.request_id,
    }


def error_result(cfg: LLMCallConfig, error: LLMError, retries: int) -> Result:
    """The result of a call that failed."""
    return {
        "status": "error",
        "reason": error.message,
        "error_type": error.error_type,
        **_call(cfg, retries),
        "status_code": error.status_code,
        "code": error.code,
        "request_id": error.request_id,
        "retry_after_s": error.retry_after_s,
        "retryable": error.retryable,
        **({"budget": _budget_of(error)} if isinstance(error, BudgetExceededError) else {}),
    }


def cancelled_result(cfg: LLMCallConfig, response: LLMResponse | None, usage: LLMUsage | None, retries: int) -> Result:
    """The result of a cancelled call, with the part of its reply that came."""
    ended = {"status": "error", "reason": "cancelled", "cancelled": True}
    return {**ended, **_call(cfg, retries), **partial_result(response, usage)}


def partial_result(response: LLMResponse | None, usage: LLMUsage | None) -> Result:
    """The fields of a result for a reply that is not whole."""
    if response is None or usage is None:
        return {}
    return {
        "text": response.text,
        "usage": usage.as_dict(),
        "response_id": response.response_id,
        "response_model": response.response_model,
        "service_tier": response.service_tier,
    }


def is_response(reply: object) -> TypeGuard[LLMResponse]:
    """Whether a reply has the types of its signature; that of a third party's client may not."""
    return (
        isinstance(reply, LLMResponse)
        and isinstance(cast("object", reply.usage), LLMUsage)
        and isinstance(cast("object", reply.text), str)
        and isinstance(cast("object", reply.finish_reasons), tuple | list)
        and isinstance(cast("object", reply.tool_calls), tuple | list)
        and all(isinstance(cast("object", call), ToolCall) for call in reply.tool_calls)
    )


def _call(cfg: LLMCallConfig, retries: int) -> Result:
    return {"provider": cfg.provider, "model": cfg.model, "retries": retries}


def _plain_call(call: ToolCall) -> Result:
    arguments = dict(call.arguments) if isinstance(call.arguments, Mapping) else call.arguments
    return {"id": call.id, "name": call.name, "arguments": arguments}


def _budget_of(error: BudgetExceededError) -> Result:
    figures = {"kind": error.kind, "limit": error.limit, "spent": error.spent, "spent_on": dict(error.spent_on)}
    when = {} if error.retry_after_s is None else {"retry_after_s": error.retry_after_s}
    return {"name": error.budget, **figures, **when}
