"""Anthropic's Messages.

Source: Anthropic API reference, "Messages" (`POST {base}/v1/messages`) and "Streaming messages", with
`anthropic-version: 2023-06-01`, as of 2026-11.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from ....errors import ConfigError, LLMResponseError
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
from ._assembly import Block, Blocks, ending_of, incoming_calls, joined, usage_beside_cache
from ._conversation import answered_call, effort_of, image_bytes, object_arguments, only_text, settings_of, split_system
from ._error_bodies import ErrorBody, error_body
from ._sse import ServerSentEvent
from ._wire_format import (
    DONE,
    StreamedError,
    WireFormat,
    arguments_of,
    count_of,
    cumulated,
    document_of,
    listed,
    mapped,
    part_of,
    text_of,
)
from .presets import Preset

DEFAULT_MAX_TOKENS = 4096
"""The limit of output tokens where the request sets none: the API requires one, and every model allows this."""

_VERSION = "2023-06-01"
"""With the version after it (2026-10-21), the API rejects temperature, top_p and top_k even at their default values."""

_FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "refusal": "content_filter",
}
"""`pause_turn` is missing on purpose: the reply has not ended, and is sent back to be continued."""

# --- Request

_PARAMETERS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_tokens",
    "stop": "stop_sequences",
}
_EFFORTS = {effort: {"output_config": {"effort": effort}} for effort in ("low", "medium", "high", "xhigh", "max")}


def to_payload(req: LLMRequest, stream: bool = False) -> dict[str, Any]:
    """The body of the request."""
    settings = settings_of(req, "anthropic", _PARAMETERS, "reasoning_effort")
    effort = effort_of(req, "anthropic", _EFFORTS)
    if effort and "output_config" in req.extra:
        raise ConfigError("reasoning_effort: extra has an output_config, which replaces it; put the effort in there")
    streaming = {"stream": True} if stream else {}
    default = {"model": req.model, "max_tokens": DEFAULT_MAX_TOKENS}
    return {**default, **_said(req), **settings, **effort, **streaming, **req.extra}


def _said(req: LLMRequest) -> dict[str, Any]:
    """The fields `messages` and `system`. System messages at the beginning join the system text; later ones stay."""
    if not req.messages and req.system is None:
        return {"messages": [{"role": "user", "content": req.prompt}]}
    texts, rest = split_system(req, "anthropic", allows_later=True)
    system = texts[0] if len(texts) == 1 else [_text_block(text) for text in texts]
    return {"messages": _messages(rest), **({"system": system} if texts else {})}


def _messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages. Results of parallel calls share one, because the next message must answer every call."""
    said: list[dict[str, Any]] = []
    for is_result, group in itertools.groupby(messages, lambda message: message.role == "tool"):
        if is_result:
            said.append({"role": "user", "content": [_tool_result(message) for message in group]})
        else:
            said += [_message(message) for message in group]
    return said


def _message(message: Message) -> dict[str, Any]:
    if message.role == "user":
        return {"role": "user", "content": _content(message.content)}
    text = only_text(message, "anthropic")
    if not message.tool_calls:
        return {"role": message.role, "content": text if message.role == "system" else _content(message.content)}
    # The API rejects an empty text block.
    blocks = [_text_block(text)] if text else []
    return {"role": "assistant", "content": [*blocks, *(_tool_use(call) for call in message.tool_calls)]}


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": object_arguments(call, "anthropic")}


def _tool_result(message: Message) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": answered_call(message), "content": _content(message.content)}


def _content(content: str | Sequence[Text | Image]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [_text_block(part.text) if isinstance(part, Text) else _image_block(part) for part in content]


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_block(image: Image) -> dict[str, Any]:
    """An image. The API fetches only http URLs, so a data URL is sent as its bytes."""
    given = image_bytes(image, "anthropic")
    if given is None:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    return {"type": "image", "source": {"type": "base64", "media_type": given[0], "data": given[1]}}


# --- Whole reply


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply as an `LLMResponse`. Text blocks are joined; tools that the server runs itself are not tool calls.

    Raises:
        LLMResponseError: there is no list of content blocks; an empty one is a reply.
    """
    content = document.get("content")
    if not isinstance(content, list):
        raise LLMResponseError("the reply has no content", request_id=request_id)
    blocks = listed(cast("list[object]", content))
    calls = incoming_calls((block for block in blocks if block.get("type") == "tool_use"), "id", "input")
    usage = mapped(document.get("usage"))
    tier = text_of(usage.get("service_tier"))  # `batch` is no tier but a way of processing
    return LLMResponse(
        text=_of_kind(blocks, "text"),
        usage=usage_of(usage),
        raw=document,
        reasoning=_of_kind(blocks, "thinking") or None,
        refusal=_refusal(mapped(document.get("stop_details"))),
        response_id=text_of(document.get("id")),
        response_model=text_of(document.get("model")),
        service_tier=None if tier == "batch" else tier,
        price_conditions=conditions_of(usage),
        request_id=request_id,
        **ending_of(_FINISH_REASONS, text_of(document.get("stop_reason")), calls),
    )


def _of_kind(blocks: Iterable[Mapping[str, Any]], kind: str) -> str:
    """The text of all blocks of a kind; the field that holds it has the kind's name."""
    return joined((block for block in blocks if block.get("type") == kind), kind)


def _refusal(details: Mapping[str, Any]) -> str | None:
    if details.get("type") != "refusal":
        return None
    return text_of(details.get("explanation")) or text_of(details.get("category"))


def usage_of(usage: Mapping[str, Any]) -> LLMUsage:
    """Tokens as reported, and the tools that the server ran."""
    usage = _with_compaction(usage)
    lifetimes, tools = mapped(usage.get("cache_creation")), mapped(usage.get("server_tool_use"))
    completion = count_of(usage.get("output_tokens"))
    return usage_beside_cache(
        usage.get("input_tokens"),
        completion,
        count_of(usage.get("cache_read_input_tokens")),
        _written(usage),
        {age: lifetimes.get(f"ephemeral_{age}_input_tokens") for age in ("5m", "1h")},
        reasoning_tokens=part_of(mapped(usage.get("output_tokens_details")).get("thinking_tokens"), completion or 0),
        web_searches=count_of(tools.get("web_search_requests")),
        code_executions=count_of(tools.get("code_execution_requests")),
    )


def _with_compaction(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    """The usage including compaction, which is billed but counted only in its own iterations."""
    compactions = [each for each in listed(usage.get("iterations")) if each.get("type") == "compaction"]
    for compaction in compactions:
        usage = {**usage, **_added(usage, compaction, _BILLED)}
        lifetimes = mapped(usage.get("cache_creation"))
        usage["cache_creation"] = _added(lifetimes, mapped(compaction.get("cache_creation")), _LIFETIMES)
    return usage


_BILLED = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_LIFETIMES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")


def _added(one: Mapping[str, Any], other: Mapping[str, Any], names: Iterable[str]) -> dict[str, int]:
    """The sums of both objects' counts; a count that neither has is left out."""
    counts = {name: (count_of(one.get(name)), count_of(other.get(name))) for name in names}
    return {name: (a or 0) + (b or 0) for name, (a, b) in counts.items() if a is not None or b is not None}


_GEOS_AT_LIST_PRICE = ("global", "not_available")
"""Places of inference without a surcharge; models that cannot be told a place report the second."""


def conditions_of(usage: Mapping[str, Any]) -> dict[str, str]:
    """What changes the price, by the keys of `genai-prices`; `standard` changes nothing.

    The table has no key for three of them, which therefore mark the cost as partial: the place of inference (1.1 times
    the price in the US), an advisor (its tokens are billed at its own model's prices and counted apart), and a fallback
    credit (a retry is billed as if the conversation had always been on its model).
    """
    speed, geo = text_of(usage.get("speed")), text_of(usage.get("inference_geo"))
    has_advisor = any(each.get("type") == "advisor_message" for each in listed(usage.get("iterations")))
    credit = mapped(mapped(usage.get("fallback_credit")).get("status")).get("type")
    conditions = {
        "speed": None if speed == "standard" else speed,
        "processing": "batch" if usage.get("service_tier") == "batch" else None,
        "inference_geo": None if geo in _GEOS_AT_LIST_PRICE else geo,
        "iterations": "advisor_message" if has_advisor else None,
        "fallback_credit": "redeemed" if credit == "redeemed" else None,
    }
    return _present(conditions)


def _written(usage: Mapping[str, Any]) -> int | None:
    """The tokens written to the cache; the sum by time to live where that is all there is, or is larger."""
    parts = _added(mapped(usage.get("cache_creation")), {}, _LIFETIMES)
    written = count_of(usage.get("cache_creation_input_tokens"))
    return max(sum(parts.values()), written or 0) if parts else written


# --- Errors


def errors_of(document: object) -> ErrorBody:
    """Read an error body: `{type: "error", error: {type, message, details: {error_code}}, request_id}`."""
    fields = mapped(document)
    if fields.get("type") == "message_start":  # its `message` is the beginning of the reply
        document = fields = {name: value for name, value in fields.items() if name != "message"}
    body = error_body(document)
    details = mapped(mapped(fields.get("error")).get("details"))
    return replace(body, code=text_of(details.get("error_code")) or body.code)


# --- Stream

_PIECES = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
}
"""The field of each kind of piece, named like the field of the block that it adds to."""


def _whole(block: Block) -> dict[str, Any]:
    """The block as it is in a whole reply."""
    # Without a start the pieces say which kind of block it is.
    whole = {"type": next(iter(block.pieces), None), **block.start}
    for name, said in block.joined().items():
        if name != "arguments":
            whole[name] = said
        elif said.strip():
            whole["input"] = arguments_of(said)
    if block.citations:
        whole["citations"] = [*listed(whole.get("citations")), *block.citations]
    return whole


class MessagesReader:
    """Builds the document of a whole reply from the events of a stream.

    So the same code reads both, and `raw` has the thinking blocks with their signatures, which a tool loop must send
    back unchanged.
    """

    is_complete = has_ended = False

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._blocks = Blocks()

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if event.data.rstrip() == DONE:  # not part of the format, but sent by proxies that translate
            self.has_ended = self.is_complete
            return ()
        if event.name == "ping":
            return ()
        document = document_of(event)
        kind = document.get("type")
        if kind == "error" or event.name == "error" or mapped(document.get("error")):
            raise StreamedError(errors_of(document))
        if kind == "content_block_delta":
            return _piece(self._blocks.at(document.get("index")), mapped(document.get("delta")))
        if kind == "content_block_start":
            return self._begin_block(document)
        if kind == "content_block_stop":
            return self._end_block(document)
        self._note(kind, document)
        return ()

    def _note(self, kind: object, document: Mapping[str, Any]) -> None:
        """Note what comes outside the content; unknown kinds are ignored."""
        if kind == "message_start":
            message = mapped(document.get("message"))
            self._head.update({**message, "stop_reason": None})
            self._merge_usage(message)
        elif kind == "message_delta":
            self._head.update(_present(mapped(document.get("delta"))))
            self._merge_usage(document)
            self.is_complete = text_of(self._head.get("stop_reason")) is not None
        elif kind == "message_stop":
            self.is_complete = self.has_ended = True

    def _merge_usage(self, document: Mapping[str, Any]) -> None:
        """Merge counts. They are cumulative, so they are not added up, and a zero or a null takes nothing back."""
        self._usage = cumulated(self._usage, _present(mapped(document.get("usage"))))

    def _begin_block(self, document: Mapping[str, Any]) -> Sequence[StreamEvent]:
        block = self._blocks.at(document.get("index"))
        start = block.start = mapped(document.get("content_block"))
        kind = str(start.get("type"))
        if kind == "tool_use":
            return self._blocks.begin_call(block, start.get("id"), start.get("name"))
        return block.add(kind, start.get(kind))

    def _end_block(self, document: Mapping[str, Any]) -> Sequence[StreamEvent]:
        """Pass on arguments that came whole with the block's start, as some servers send them."""
        block = self._blocks.at(document.get("index"))
        given = block.start.get("input")
        if block.call_index is None or not given or "arguments" in block.pieces:
            return ()
        return (ToolCallDelta(block.call_index, None, None, json.dumps(given)),)

    def response(self, request_id: str | None) -> LLMResponse:
        content = [_whole(block) for block in self._blocks.in_order()]
        document = {**self._head, "content": content, "usage": self._usage}
        reply = from_payload(document, request_id)
        return reply if self.is_complete else replace(reply, usage=_without_output(reply.usage))


def _piece(block: Block, delta: Mapping[str, Any]) -> Sequence[StreamEvent]:
    kind = str(delta.get("type"))
    if kind == "citations_delta":
        block.citations.append(delta.get("citation"))
    if kind == "input_json_delta":
        return block.add("arguments", delta.get("partial_json"))
    name = _PIECES.get(kind)
    return block.add(name, delta.get(name)) if name else ()


def _without_output(usage: LLMUsage) -> LLMUsage:
    """The input alone: the count of output at the start of a stream says nothing about what follows."""
    return replace(usage, completion_tokens=None, total_tokens=None, reasoning_tokens=None)


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


MESSAGES = WireFormat(
    path=lambda req, stream: "/v1/messages",
    to_payload=to_payload,
    from_payload=from_payload,
    new_reader=MessagesReader,
    errors_of=errors_of,
    default_max_tokens=DEFAULT_MAX_TOKENS,
)
"""The wire format."""

PRESET = Preset(
    name="anthropic",
    wire=MESSAGES,
    base_url="https://api.anthropic.com",
    key_variables=("ANTHROPIC_API_KEY",),
    url_variables=("ANTHROPIC_BASE_URL",),
    key_header="x-api-key",
    headers=(("anthropic-version", _VERSION),),
)
"""Anthropic."""
