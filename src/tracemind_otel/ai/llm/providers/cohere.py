"""Cohere Chat, version 2.

Source: Cohere API reference, "Chat (v2)" (`POST {base}/v2/chat`), as of 2026-11, and the types of its Python SDK 7.3.
A reply does not name its model, so it is priced by the model that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..types import FinishReason, LLMRequest, LLMResponse, LLMUsage, Message, StreamEvent
from ._assembly import Block, CallPieces, ending_of, function_calls, message_in, usage_of_parts
from ._chat_reply import split_content
from ._conversation import answered_call, effort_of, only_text, reject_misplaced, settings_of
from ._error_bodies import error_body
from ._sse import ServerSentEvent
from ._wire_format import DONE, StreamedError, WireFormat, count_of, document_of, mapped, part_of, text_of
from .openai import outgoing_message
from .presets import Preset

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
    "stop": "stop_sequences",
}
_EFFORTS = {"none": {"thinking": {"type": "disabled"}}}
_EFFORT_HINT = '; it has no levels. Use extra to send thinking, like {"type": "enabled", "token_budget": 1000}'
"""Cohere has a budget of tokens and no levels; only `none` means the same in both."""


# --- Request


def to_payload(req: LLMRequest, stream: bool) -> dict[str, Any]:
    """The body of the request."""
    settings = settings_of(req, "cohere", _PARAMETERS, "reasoning_effort")
    effort = effort_of(req, "cohere", _EFFORTS, _EFFORT_HINT)
    return {"model": req.model, "messages": _messages(req), "stream": stream, **settings, **effort, **req.extra}


def _messages(req: LLMRequest) -> list[dict[str, Any]]:
    system = [] if req.system is None else [{"role": "system", "content": req.system}]
    return [*system, *(_message(message) for message in req.conversation)]


def _message(message: Message) -> dict[str, Any]:
    """A message as in Chat Completions, without the tool's name: the id of the call stands for it."""
    reject_misplaced(message, "cohere")
    said = {name: value for name, value in outgoing_message(message).items() if name != "name" and value is not None}
    if message.role == "tool":
        only_text(message, "cohere")
        said["tool_call_id"] = answered_call(message)
    return said


# --- Whole reply


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply as an `LLMResponse`; the plan before tool calls counts as reasoning."""
    message = message_in(document, request_id)
    text, thought = split_content(message.get("content"))
    return LLMResponse(
        text,
        usage_of(mapped(document.get("usage"))),
        document,
        reasoning=thought + (text_of(message.get("tool_plan")) or "") or None,
        response_id=text_of(document.get("id")),
        request_id=request_id,
        **ending_of(_FINISH_REASONS, text_of(document.get("finish_reason")), function_calls(message)),
    )


def usage_of(usage: Mapping[str, Any]) -> LLMUsage:
    """The tokens that were used, and the billable ones, which make the price.

    Used tokens include Cohere's own template, which nobody pays for (505 against 10 in one recorded call), and
    `cached_tokens` is a part of them. Where only billable ones are reported, they are what there is.
    """
    billed, used = mapped(usage.get("billed_units")), mapped(usage.get("tokens"))
    prompt = _first_count(used.get("input_tokens"), billed.get("input_tokens"))
    completion = _first_count(used.get("output_tokens"), billed.get("output_tokens"))
    return usage_of_parts(
        prompt,
        completion,
        cache_read_tokens=part_of(usage.get("cached_tokens"), prompt or 0),
        reasoning_tokens=part_of(used.get("reasoning_tokens"), completion or 0),
        rerank_searches=count_of(billed.get("search_units")),
        billed_input_tokens=count_of(billed.get("input_tokens")),
        billed_output_tokens=count_of(billed.get("output_tokens")),
    )


def _first_count(*values: object) -> int | None:
    return next((count for value in values if (count := count_of(value)) is not None), None)


# --- Stream


class CohereReader:
    """Builds the document of a whole reply from the events of a stream, each of which adds a `delta.message`."""

    is_complete = has_ended = False

    def __init__(self) -> None:
        self._said = Block()
        self._calls: dict[int, CallPieces] = {}
        self._head: dict[str, Any] = {}

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if event.data.rstrip() == DONE:
            self.is_complete = self.has_ended = True
            return ()
        document = document_of(event)
        if document.get("error"):
            raise StreamedError(error_body(document))
        kind, delta = text_of(document.get("type")) or event.name, mapped(document.get("delta"))
        if kind == "message-start":
            self._head["id"] = document.get("id")
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
        self._head.update(finish_reason=reason, usage=delta.get("usage"))
        self.is_complete = self.has_ended = True

    def _content(self, message: Mapping[str, Any]) -> list[StreamEvent]:
        content = mapped(message.get("content"))
        thought = self._said.add("thinking", content.get("thinking") or message.get("tool_plan"))
        return [*thought, *self._said.add("text", content.get("text"))]

    def _call(self, at: int | None, message: Mapping[str, Any]) -> list[StreamEvent]:
        """A start has id and name, later pieces the arguments; without an index they belong to the last call."""
        call = mapped(message.get("tool_calls"))
        function = mapped(call.get("function"))
        name, arguments = text_of(function.get("name")), text_of(function.get("arguments")) or ""
        index = at if at is not None else len(self._calls) - (name is None)
        is_first = index not in self._calls
        if is_first:
            if name is None:
                return []
            self._calls[index] = CallPieces(text_of(call.get("id")) or f"call_{index}", name)
        return [self._calls[index].delta(index, arguments, is_first=is_first)]

    def response(self, request_id: str | None) -> LLMResponse:
        content = [{"type": kind, kind: said} for kind, said in self._said.joined().items()]
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self._calls:
            message["tool_calls"] = [pieces.document(index) for index, pieces in sorted(self._calls.items())]
        return from_payload({**self._head, "message": message}, request_id)


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
