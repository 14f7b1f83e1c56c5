"""Cohere Chat, version 2.

Source: Cohere API reference, "Chat (v2)" (`POST {base}/v2/chat`), as of 2026-11, and the types of its Python SDK 7.3.
A reply does not name its model, so it is priced by the model that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ....errors import ConfigError, LLMResponseError
from ..types import (
    FinishReason,
    Image,
    LLMRequest,
    LLMResponse,
    LLMUsage,
    Message,
    ReasoningDelta,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from ._error_bodies import error_body
from ._preset import Preset
from ._sse import ServerSentEvent
from ._wire_format import (
    DONE,
    StreamedError,
    WireFormat,
    arguments_of,
    count_of,
    document_of,
    image_url,
    listed,
    mapped,
    normal_finish,
    outgoing_call,
    part_of,
    text_of,
)

_FINISH_REASONS: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_call",
    "ERROR_TOXIC": "content_filter",
    "ERROR": "error",
    "TIMEOUT": "error",
}
_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "p",
    "top_k": "k",
    "max_tokens": "max_tokens",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}


# --- Request


def to_payload(req: LLMRequest, stream: bool) -> dict[str, Any]:
    """The body of the request.

    Raises:
        ConfigError: an effort of reasoning other than none, an image without data and URL, or a tool's result
            that has an image or names no call.
    """
    payload: dict[str, Any] = {"model": req.model, "messages": _messages(req), "stream": stream}
    for ours, theirs in _PARAMETERS.items():
        value = getattr(req, ours)
        if value is not None:
            payload[theirs] = value
    if req.stop:
        payload["stop_sequences"] = list(req.stop)
    if req.reasoning_effort is not None:
        payload["thinking"] = _thinking(req.reasoning_effort)
    payload.update(req.extra)
    return payload


def _thinking(effort: str) -> dict[str, Any]:
    """Cohere knows a budget of tokens and no levels; only `none` says the same in both."""
    if effort != "none":
        raise ConfigError(
            f"reasoning_effort: cohere takes none, not {effort}; it has no levels. Use extra to send thinking, "
            'like {"type": "enabled", "token_budget": 1000}'
        )
    return {"type": "disabled"}


def _messages(req: LLMRequest) -> list[dict[str, Any]]:
    system = [] if req.system is None else [{"role": "system", "content": req.system}]
    return [*system, *(_message(message) for message in req.conversation)]


def _message(message: Message) -> dict[str, Any]:
    """A tool's name has no field here, and needs none: the id of the call stands for it."""
    said: dict[str, Any] = {"role": message.role}
    if message.content or not message.tool_calls:
        said["content"] = _content(message)
    if message.tool_calls:
        said["tool_calls"] = [outgoing_call(call) for call in message.tool_calls]
    if message.role == "tool":
        if message.tool_call_id is None:
            raise ConfigError("messages: cohere needs tool_call_id in a tool's message")
        said["tool_call_id"] = message.tool_call_id
    return said


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    if message.role == "tool" and any(isinstance(part, Image) for part in message.content):
        raise ConfigError("messages: cohere takes no images in a tool's message")
    return [_part(part) for part in message.content]


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if part.data is None and not part.url:
        raise ConfigError("messages: an image needs a url or data")
    return {"type": "image_url", "image_url": {"url": image_url(part)}}


# --- Whole reply


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply in the normal form; the plan before tool calls counts as reasoning.

    Raises:
        LLMResponseError: there is no message.
    """
    if not isinstance(document.get("message"), dict):
        raise LLMResponseError("the reply has no message", request_id=request_id)
    message = mapped(document.get("message"))
    text, thought = _split_content(message.get("content"))
    calls = tuple(_incoming_calls(message))
    reason = text_of(document.get("finish_reason"))
    return LLMResponse(
        text,
        usage_of(mapped(document.get("usage"))),
        document,
        finish_reasons=(reason,) if reason else (),
        finish_reason=normal_finish(_FINISH_REASONS, reason, calls_tools=bool(calls)),
        reasoning=thought + (text_of(message.get("tool_plan")) or "") or None,
        tool_calls=calls,
        response_id=text_of(document.get("id")),
        request_id=request_id,
    )


def _split_content(content: object) -> tuple[str, str]:
    """Text and reasoning of the content's blocks."""
    if isinstance(content, str):
        return content, ""
    blocks = listed(content)
    text = "".join(text_of(block.get("text")) or "" for block in blocks)
    return text, "".join(text_of(block.get("thinking")) or "" for block in blocks)


def _incoming_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    return [
        ToolCall(text_of(call.get("id")) or f"call_{number}", name, arguments_of(function.get("arguments")))
        for number, call in enumerate(listed(message.get("tool_calls")))
        if (name := text_of((function := mapped(call.get("function"))).get("name")))
    ]


def usage_of(usage: Mapping[str, Any]) -> LLMUsage:
    """The tokens that were used; the billable ones beside them make the price.

    Used tokens include Cohere's own template, which nobody pays for (505 against 10 in one recorded call), and
    `cached_tokens` is a part of them. Where only billable ones are reported, they are what there is.
    """
    billed, used = mapped(usage.get("billed_units")), mapped(usage.get("tokens"))
    prompt = _first_count(used.get("input_tokens"), billed.get("input_tokens"))
    completion = _first_count(used.get("output_tokens"), billed.get("output_tokens"))
    return LLMUsage(
        prompt,
        completion,
        None if prompt is None or completion is None else prompt + completion,
        cache_read_tokens=part_of(usage.get("cached_tokens"), prompt or 0),
        reasoning_tokens=part_of(used.get("reasoning_tokens"), completion or 0),
        rerank_searches=count_of(billed.get("search_units")),
        billed_input_tokens=count_of(billed.get("input_tokens")),
        billed_output_tokens=count_of(billed.get("output_tokens")),
    )


def _first_count(*values: object) -> int | None:
    return next((count for value in values if (count := count_of(value)) is not None), None)


# --- Stream


@dataclass(slots=True)
class _CallPieces:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list[str])


class CohereReader:
    """Puts a streamed reply together; what its events add stands under `delta.message`."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _CallPieces] = {}
        self._id: str | None = None
        self._reason: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._is_done = False

    @property
    def is_complete(self) -> bool:
        return self._is_done

    @property
    def has_ended(self) -> bool:
        return self._is_done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if event.data.rstrip() == DONE:
            self._is_done = True
            return ()
        document = document_of(event)
        if document.get("error"):
            raise StreamedError(error_body(document))
        kind, delta = text_of(document.get("type")) or event.name, mapped(document.get("delta"))
        if kind == "message-start":
            self._id = text_of(document.get("id")) or self._id
        elif kind == "message-end":
            self._end(delta)
        elif kind in ("tool-call-start", "tool-call-delta"):
            return self._call(count_of(document.get("index")), mapped(delta.get("message")))
        elif kind in ("content-start", "content-delta", "tool-plan-delta"):
            return self._content(mapped(delta.get("message")))
        return ()

    def _end(self, delta: Mapping[str, Any]) -> None:
        reason, error = text_of(delta.get("finish_reason")), delta.get("error")
        if error or reason == "ERROR":
            raise StreamedError(replace(error_body({"error": error}), type=reason or "ERROR"))
        self._is_done = True
        self._reason = reason
        self._usage = mapped(delta.get("usage")) or self._usage

    def _content(self, message: Mapping[str, Any]) -> list[StreamEvent]:
        content, deltas = mapped(message.get("content")), list[StreamEvent]()
        if thought := text_of(content.get("thinking")) or text_of(message.get("tool_plan")):
            self._reasoning.append(thought)
            deltas.append(ReasoningDelta(thought))
        if text := text_of(content.get("text")):
            self._text.append(text)
            deltas.append(TextDelta(text))
        return deltas

    def _call(self, at: int | None, message: Mapping[str, Any]) -> list[StreamEvent]:
        """A start carries id and name, the pieces after it arguments; without an index they are of the last call."""
        call = mapped(message.get("tool_calls"))
        function = mapped(call.get("function"))
        name, arguments = text_of(function.get("name")), text_of(function.get("arguments")) or ""
        index = at if at is not None else len(self._calls) - (name is None)
        pieces, is_first = self._calls.get(index), False
        if pieces is None:
            if name is None:
                return []
            is_first = True
            pieces = self._calls[index] = _CallPieces(text_of(call.get("id")) or f"call_{index}", name)
        pieces.arguments.append(arguments)
        return [ToolCallDelta(index, pieces.id if is_first else None, pieces.name if is_first else None, arguments)]

    def _raw(self, calls: Sequence[ToolCall]) -> dict[str, Any]:
        """The document that a whole reply would have been."""
        content = [
            {"type": kind, kind: "".join(pieces)}
            for kind, pieces in (("thinking", self._reasoning), ("text", self._text))
            if pieces
        ]
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if calls:
            message["tool_calls"] = [outgoing_call(call) for call in calls]
        return {"id": self._id, "message": message, "finish_reason": self._reason, "usage": dict(self._usage)}

    def response(self, request_id: str | None) -> LLMResponse:
        calls = tuple(
            ToolCall(pieces.id, pieces.name, arguments_of("".join(pieces.arguments)))
            for _, pieces in sorted(self._calls.items())
        )
        return LLMResponse(
            "".join(self._text),
            usage_of(self._usage),
            self._raw(calls),
            finish_reasons=(self._reason,) if self._reason else (),
            finish_reason=normal_finish(_FINISH_REASONS, self._reason, calls_tools=bool(calls)),
            reasoning="".join(self._reasoning) or None,
            tool_calls=calls,
            response_id=self._id,
            request_id=request_id,
        )


# --- Provider

PRESET = Preset(
    name="cohere",
    wire=WireFormat(
        path=lambda req, stream: "/v2/chat",
        to_payload=to_payload,
        from_payload=from_payload,
        new_reader=CohereReader,
    ),
    base_url="https://api.cohere.com",
    key_variables=("CO_API_KEY", "COHERE_API_KEY"),
    url_variables=("CO_API_URL",),
)
"""Cohere as data."""
