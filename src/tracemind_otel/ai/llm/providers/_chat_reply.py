"""A whole reply of Chat Completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ....errors import LLMResponseError
from ..types import FinishReason, LLMResponse, LLMUsage, ToolCall
from ._chat_usage import reported_cost, usage_of
from ._dialect import OPENAI, Dialect
from ._wire_format import arguments_of, listed, mapped, normal_finish, text_of

FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "model_length": "length",
    "tool_calls": "tool_call",
    "function_call": "tool_call",
    "content_filter": "content_filter",
    "error": "error",
    "insufficient_system_resource": "error",
}


def from_payload(
    document: Mapping[str, Any], *, request_id: str | None = None, dialect: Dialect = OPENAI
) -> LLMResponse:
    """The reply in the normal form. Empty strings count as absent, since some servers send them for null.

    Raises:
        LLMResponseError: there are no choices.
    """
    raw_choices = document.get("choices")
    if not isinstance(raw_choices, list) or not raw_choices:
        raise LLMResponseError("the reply has no choices", request_id=request_id)
    choices = [mapped(choice) for choice in cast("list[object]", raw_choices)]
    message, usage = mapped(choices[0].get("message")), mapped(document.get("usage"))
    model = text_of(document.get("model"))
    text, thought = split_content(message.get("content"))
    calls = tuple(_incoming_calls(message))
    raw_reasons = tuple(reason for choice in choices if (reason := text_of(choice.get("finish_reason"))))
    first_reason = text_of(choices[0].get("finish_reason"))
    return LLMResponse(
        text=text,
        usage=_usage_of(usage, model, dialect),
        raw=document,
        finish_reasons=raw_reasons,
        finish_reason=normal_finish(FINISH_REASONS, first_reason, calls_tools=bool(calls)),
        reasoning=reasoning_of(message) or thought or None,
        refusal=text_of(message.get("refusal")),
        tool_calls=calls,
        response_id=text_of(document.get("id")),
        response_model=model,
        service_tier=text_of(document.get("service_tier")),
        price_conditions=_conditions_of(usage),
        request_id=request_id,
        reported_cost=reported_cost(usage, dialect.cost, dialect.provider),
    )


def split_content(content: object) -> tuple[str, str]:
    """Text and reasoning: content is a string, null beside tool calls, or a list of parts (Mistral's thinking)."""
    if isinstance(content, str):
        return content, ""
    text, thought = "", ""
    for part in listed(content):
        if part.get("type") == "thinking":
            thought += _thinking(part.get("thinking"))
        else:
            text += text_of(part.get("text")) or ""
    return text, thought


def _thinking(thinking: object) -> str:
    if isinstance(thinking, str):
        return thinking
    return "".join(text_of(part.get("text")) or "" for part in listed(thinking))


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    return text_of(message.get("reasoning_content")) or text_of(message.get("reasoning"))


def asked_tool(call: Mapping[str, Any]) -> tuple[str | None, object, bool]:
    """The tool's name, what it gets, and whether that is free text (`type: custom`) and no JSON."""
    custom = mapped(call.get("custom"))
    if custom:
        return text_of(custom.get("name")), custom.get("input"), True
    function = mapped(call.get("function"))
    return text_of(function.get("name")), function.get("arguments"), False


def made_call(call_id: str, name: str, arguments: object, *, is_custom: bool) -> ToolCall:
    if is_custom:
        return ToolCall(call_id, name, arguments if isinstance(arguments, str) else "", kind="custom")
    return ToolCall(call_id, name, arguments_of(arguments))


def _incoming_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    return [
        made_call(text_of(call.get("id")) or f"call_{number}", name, arguments, is_custom=is_custom)
        for number, call in enumerate(listed(message.get("tool_calls")) or old_call(message))
        for name, arguments, is_custom in (asked_tool(call),)
        if name
    ]


_UNREPORTED = LLMUsage(None, None, None)


def _usage_of(usage: Mapping[str, Any], model: str | None, dialect: Dialect) -> LLMUsage:
    if not usage:
        return _UNREPORTED  # of every stream, until its usage comes
    is_gemini = bool(model) and str(model).rpartition("/")[2].startswith("gemini")
    return usage_of(usage, hides_output=dialect.hides_output or is_gemini, counts_apart=dialect.counts_apart)


def _conditions_of(usage: Mapping[str, Any]) -> dict[str, str]:
    """What changes the price: Perplexity's search, and the speed that a proxy passes on from Anthropic."""
    found = {name: text_of(usage.get(name)) for name in ("search_type", "speed")}
    return {name: value for name, value in found.items() if value is not None and value != "standard"}


def old_call(delta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The old single `function_call`; some servers send an empty one with every reply."""
    function = mapped(delta.get("function_call"))
    is_empty = not text_of(function.get("name")) and not function.get("arguments")
    return [] if is_empty else [{"index": 0, "function": function}]
