"""OpenAI Responses.

Source: OpenAI API reference, "Create a model response" (`POST {base}/responses`) and its streaming events, as of
2026-11. There is no finish reason on the wire: a reply has a status and, where it is incomplete, a reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ....errors import LLMResponseError, LLMServerError
from ..types import (
    FinishReason,
    Image,
    LLMRequest,
    LLMResponse,
    LLMUsage,
    Message,
    StreamEvent,
    Text,
    ToolCall,
    ToolCallDelta,
)
from ._assembly import Block, CallPieces, joined
from ._chat_usage import reported_cost, server_tools, with_cost_header
from ._chat_usage import usage_of as counted
from ._conversation import answered_call, image_url, only_text, reject_misplaced, settings_of
from ._dialect import Dialect
from ._error_bodies import ErrorBody, error_body, named_status
from ._sse import ServerSentEvent
from ._wire_format import (
    DONE,
    StreamedError,
    WireFormat,
    arguments_text,
    count_of,
    document_of,
    listed,
    mapped,
    normal_finish,
    text_of,
)
from .presets import Preset

_PARAMETERS = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_output_tokens"}

_FINISH_REASONS: dict[str, FinishReason] = {
    "completed": "stop",
    "max_output_tokens": "length",
    "content_filter": "content_filter",
    "failed": "error",
}

_BETWEEN_THOUGHTS = "\n\n"
"""Between the parts of a reasoning summary, each of which is a paragraph with a heading."""


# --- Request


def to_payload(req: LLMRequest, stream: bool = False) -> dict[str, Any]:
    """The body of the request."""
    settings = settings_of(req, "openai_responses", _PARAMETERS, "reasoning_effort")
    payload: dict[str, Any] = {"model": req.model, "input": _input(req), **settings}
    if req.system is not None:
        payload["instructions"] = req.system
    if req.reasoning_effort is not None:
        payload["reasoning"] = {"effort": req.reasoning_effort}
    if stream:
        payload["stream"] = True
    payload.update(req.extra)
    return payload


def _input(req: LLMRequest) -> str | list[dict[str, Any]]:
    if not req.messages:
        return req.prompt
    calls = [call for message in req.messages for call in message.tool_calls]
    custom = frozenset(call.id for call in calls if call.kind == "custom")
    return [item for message in req.conversation for item in _items(message, custom)]


def _items(message: Message, custom: frozenset[str]) -> list[dict[str, Any]]:
    """The items of one message: its text, and each tool call. `custom` has the ids of the calls of custom tools."""
    if message.role == "tool":
        return [_tool_result(message, custom)]
    reject_misplaced(message, "openai_responses")
    calls = [_outgoing_call(call) for call in message.tool_calls]
    if calls and not message.content:
        return calls
    return [{"role": message.role, "content": _content(message)}, *calls]


def _tool_result(message: Message, custom: frozenset[str]) -> dict[str, Any]:
    call_id = answered_call(message)
    kind = "custom_tool_call_output" if call_id in custom else "function_call_output"
    return {"type": kind, "call_id": call_id, "output": _content(message)}


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    if message.role == "assistant":
        return only_text(message, "openai_responses")
    return [_part(part) for part in message.content]


def _part(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    return {"type": "input_image", "image_url": image_url(part)}


def _outgoing_call(call: ToolCall) -> dict[str, Any]:
    if call.kind == "custom":
        return {"type": "custom_tool_call", "call_id": call.id, "name": call.name, "input": call.arguments}
    arguments = arguments_text(call.arguments)
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}


# --- Whole reply


OPENAIS = Dialect(provider="openai_responses")
"""OpenAI's own server. Only the provider and the cost of a dialect apply to this format."""


def from_payload(document: Mapping[str, Any], request_id: str | None = None, server: Dialect = OPENAIS) -> LLMResponse:
    """The reply as an `LLMResponse`.

    Raises:
        LLMServerError: its status is `failed`.
        LLMResponseError: it has no output, or is not finished.
    """
    reply = _response_of(document, request_id, server)
    _raise_unfinished(document, reply)
    if document.get("status") == "failed":
        code = errors_of(document).code
        raise LLMServerError("the response has failed", code=code, request_id=request_id, reply=reply)
    if not isinstance(document.get("output"), list):
        raise LLMResponseError("the reply has no output", request_id=request_id)
    return reply


_UNFINISHED = {
    "queued": "it runs in the background; ask for it by its id later, or leave out extra['background']",
    "in_progress": "it runs in the background; ask for it by its id later, or leave out extra['background']",
    "cancelled": "it was cancelled; send the request again",
}
"""The statuses of a response without a result, and what to do."""


_RUNNING = ("queued", "in_progress")


def _raise_unfinished(document: Mapping[str, Any], reply: LLMResponse | None = None) -> None:
    status = text_of(document.get("status"))
    if status in _UNFINISHED:
        named = f"the response {text_of(document.get('id')) or ''} is {status}".replace("  ", " ")
        request_id = None if reply is None else reply.request_id
        message = f"{named}: {_UNFINISHED[status]}"
        raise LLMResponseError(message, request_id=request_id, retryable=False, reply=reply)


def _response_of(
    document: Mapping[str, Any], request_id: str | None, server: Dialect, said: Mapping[str, Any] | None = None
) -> LLMResponse:
    """The reply as an `LLMResponse`; `said` replaces what its output says."""
    output, usage = listed(document.get("output")), mapped(document.get("usage"))
    fields: dict[str, Any] = {"text": "", **(_said(output) if said is None else said)}
    status = text_of(document.get("status"))
    why = text_of(mapped(document.get("incomplete_details")).get("reason")) if status == "incomplete" else None
    reason = why or status
    calls_tools = status in ("completed", None) and "tool_calls" in fields
    return LLMResponse(
        **fields,
        usage=usage_of(usage, output),
        raw=document,
        finish_reasons=(reason,) if reason else (),
        finish_reason=normal_finish(_FINISH_REASONS, reason, calls_tools=calls_tools),
        response_id=text_of(document.get("id")),
        response_model=text_of(document.get("model")),
        service_tier=text_of(document.get("service_tier")),
        request_id=request_id,
        reported_cost=reported_cost(usage, server.cost, server.provider),
    )


def _said(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the output says, as the fields of an `LLMResponse` that are not empty; other items are ignored."""
    parts = [part for item in items if item.get("type") == "message" for part in listed(item.get("content"))]
    thoughts = [thought for item in items if item.get("type") == "reasoning" for thought in _thoughts(item)]
    fields = {
        "text": joined((part for part in parts if part.get("type") == "output_text"), "text"),
        "refusal": joined((part for part in parts if part.get("type") == "refusal"), "refusal"),
        "reasoning": _BETWEEN_THOUGHTS.join(thoughts),
        "tool_calls": _calls_of(_call_in(item) for item in items if text_of(item.get("type")) in _CALL_TYPES),
    }
    return _present(fields)


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _thoughts(item: Mapping[str, Any]) -> list[str]:
    parts = [*listed(item.get("summary")), *listed(item.get("content"))]
    return [text for part in parts if (text := text_of(part.get("text")))]


_CALL_TYPES = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that call a tool of the caller's, and the field that has the arguments."""


def _call_in(item: Mapping[str, Any]) -> CallPieces:
    kind = str(item.get("type"))
    said = item.get(_CALL_TYPES.get(kind, "arguments"))
    text = said if isinstance(said, str) else json.dumps(said) if said else ""
    is_custom = kind == "custom_tool_call"
    return CallPieces(text_of(item.get("call_id")), text_of(item.get("name")), [text] if text else [], is_custom)


def _calls_of(calls: Iterable[CallPieces]) -> tuple[ToolCall, ...]:
    return tuple(call.whole(number) for number, call in enumerate(calls) if call.name)


_TOOL_ITEMS = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
}
"""The items of tools that the provider ran, and the field of `LLMUsage` that counts each."""


_AS_CHAT = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}
"""The names of counts in this format and in Chat Completions."""


def usage_of(usage: Mapping[str, Any], output: Sequence[Mapping[str, Any]] = ()) -> LLMUsage:
    """Tokens and tools as reported; a subset never exceeds its whole, whatever the server says."""
    tools = {**_tools_in(output), **_invocations(usage), **server_tools(usage)}
    return counted({**usage, **{_AS_CHAT[name]: usage[name] for name in _AS_CHAT.keys() & usage.keys()}}, tools=tools)


def _tools_in(output: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The provider's own tools in the output. Of a web search only the search is charged, not the pages it opens."""
    counts: dict[str, Any] = {}
    for item in output:
        field_name = _TOOL_ITEMS.get(str(item.get("type")))
        if field_name is not None and mapped(item.get("action")).get("type") in (None, "search"):
            counts[field_name] = counts.get(field_name, 0) + 1
    return counts


def _invocations(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Perplexity's count of searches."""
    search = mapped(mapped(usage.get("tool_calls_details")).get("search_web"))
    count = count_of(search.get("invocation"))
    return {} if count is None else {"web_searches": count}


# --- Errors


def errors_of(document: object) -> ErrorBody:
    """Read an error: a body, an `error` event, or a response that has failed.

    A failure inside a success has no HTTP status of its own, and whether to repeat it is told by its code alone;
    so its class is that of the status that the API sends with that code. HTTP's own status is never replaced.
    """
    body = error_body(document)
    implied = named_status(body) or (400 if body.code else 500)
    # In a flat `error` event the type is the event's.
    return replace(body, type=None if body.type == "error" else body.type, implied_status=implied)


# --- Stream


_ENDS = {"response.completed": "completed", "response.incomplete": "incomplete"}
_FAILURES = ("error", "response.failed")


class ResponsesReader:
    """Puts a streamed response together.

    The last event holds the whole response, which counts. Where a gateway leaves its output empty, the streamed pieces
    count, and without these the finished items.
    """

    is_complete = has_ended = False

    def __init__(self, server: Dialect = OPENAIS) -> None:
        self._server = server
        self._said = Block()
        self._thought: tuple[object, ...] | None = None
        self._calls: dict[object, CallPieces] = {}
        self._done_items: list[Mapping[str, Any]] = []
        self._response: Mapping[str, Any] = {}

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if event.data.rstrip() == DONE:
            # Not part of this format; a gateway that sends it has sent the real end before.
            return ()
        document = document_of(event)
        kind = text_of(document.get("type")) or event.name
        delta = document.get("delta")
        if isinstance(delta, str) and delta and kind not in _FAILURES:
            return self._delta(kind, delta, document)
        response = mapped(document.get("response"))
        self._response = response or self._response  # what has failed may be billed too
        self._raise_failure(kind, document, response)
        if kind in _ENDS:
            self._end(_ENDS[kind])
        if kind in ("response.output_item.added", "response.output_item.done"):
            return self._item(document, is_done=kind.endswith("done"))
        return ()

    @staticmethod
    def _raise_failure(kind: str, document: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        if kind == "response.cancelled" or response.get("status") == "cancelled":
            _raise_unfinished({**response, "status": "cancelled"})
        if response.get("error") or response.get("status") == "failed":
            raise StreamedError(errors_of(response))
        if document.get("error") or kind in _FAILURES:
            raise StreamedError(errors_of(document))

    def _end(self, status: str) -> None:
        self.is_complete = self.has_ended = True
        if not text_of(self._response.get("status")) or self._response.get("status") == "in_progress":
            self._response = {**self._response, "status": status}

    def _delta(self, kind: str, piece: str, document: Mapping[str, Any]) -> Sequence[StreamEvent]:
        if kind == "response.output_text.delta":
            return self._said.add("text", piece)
        if kind == "response.refusal.delta":
            return self._said.add("refusal", piece)
        if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            return self._reasoning_delta(kind, piece, document)
        if kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            return (self._call_delta(document, CallPieces(arguments=[piece])),)
        return ()

    def _reasoning_delta(self, kind: str, piece: str, document: Mapping[str, Any]) -> Sequence[StreamEvent]:
        position = document.get("summary_index", document.get("content_index"))
        thought = (kind, _item_key(document), count_of(position))
        if self._thought not in (None, thought):
            piece = _BETWEEN_THOUGHTS + piece
        self._thought = thought
        return self._said.add("thinking", piece)

    def _item(self, document: Mapping[str, Any], *, is_done: bool) -> Sequence[StreamEvent]:
        item = mapped(document.get("item"))
        if is_done:
            self._done_items.append(item)
        if text_of(item.get("type")) not in _CALL_TYPES:
            return ()
        call, key = _call_in(item), _item_key(document)
        known = self._calls.get(key)
        if known is not None and (known.arguments or not call.arguments):
            return ()
        return (self._call_delta(document, call),)

    def _call_delta(self, document: Mapping[str, Any], added: CallPieces) -> ToolCallDelta:
        key = _item_key(document)
        is_first = key not in self._calls
        if is_first:
            self._calls[key] = CallPieces(added.id, added.name, is_custom=added.is_custom)
        index = list(self._calls).index(key)
        return self._calls[key].delta(index, "".join(added.arguments), is_first=is_first)

    def response(self, request_id: str | None) -> LLMResponse:
        pieces = self._said.joined()
        streamed = {"reasoning": pieces.pop("thinking", None), "tool_calls": _calls_of(self._calls.values()), **pieces}
        said = {**_said(self._done_items), **_present(streamed), **_said(listed(self._response.get("output")))}
        # The status of an unfinished response says nothing about its end.
        document = self._response if self.is_complete else {**self._response, "status": None}
        if not document.get("output"):
            document = {**document, "output": self._done_items or _items_of(said)}
        return _response_of(document, request_id, self._server, said)


def _items_of(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The output that a whole reply would have had, where the server left it out."""
    kinds = (("output_text", "text"), ("refusal", "refusal"))
    parts = [{"type": kind, name: said[name]} for kind, name in kinds if name in said]
    message = [{"type": "message", "role": "assistant", "content": parts}] if parts else []
    return [*message, *map(_outgoing_call, said.get("tool_calls", ()))]


def _item_key(document: Mapping[str, Any]) -> object:
    """The item that an event belongs to: its position, or its id where a gateway leaves the position out."""
    position = count_of(document.get("output_index"))
    if position is not None:
        return position
    return text_of(document.get("item_id")) or text_of(mapped(document.get("item")).get("id"))


def responses_wire(server: Dialect = OPENAIS, path: str = "/responses", *, runs_on: bool = False) -> WireFormat:
    """The wire format of Responses, as one server speaks it at a path below the base URL.

    Args:
        server: the server.
        path: the path.
        runs_on: whether a response that runs on in the background is a reply, which has no usage yet, and no failure.
    """
    return WireFormat(
        path=lambda req, stream: path,
        to_payload=to_payload,
        from_payload=lambda document, request_id: (
            _response_of({**document, "status": None}, request_id, server)
            if runs_on and document.get("status") in _RUNNING
            else from_payload(document, request_id, server)
        ),
        new_reader=lambda: ResponsesReader(server),
        errors_of=errors_of,
        failed_reply=lambda document, request_id: _response_of(document, request_id, server),
        with_headers=with_cost_header if server.cost == "declared" else None,
        with_cost=lambda cost, provider: responses_wire(Dialect(provider=provider, cost=cost), path, runs_on=runs_on),
        reports_cost=server.cost is not None,
    )


PRESET = Preset(
    name="openai_responses",
    wire=responses_wire(),
    base_url="https://api.openai.com/v1",
    key_variables=("OPENAI_API_KEY",),
    url_variables=("OPENAI_BASE_URL",),
)
"""OpenAI's own server; others that speak the format are reached by their base URL."""
