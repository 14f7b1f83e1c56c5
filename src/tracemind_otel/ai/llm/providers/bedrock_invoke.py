"""Amazon Bedrock's InvokeModel: the model's own format in Bedrock's envelope. Only read: our own calls use Converse.

Source: Amazon Bedrock Runtime API reference, "InvokeModel" and "InvokeModelWithResponseStream", and the user guide's
"Inference request parameters and response fields for foundation models", as of 2026-11.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..types import LLMResponse, LLMUsage, StreamEvent
from . import anthropic, embeddings
from ._assembly import usage_of_parts
from ._sse import ServerSentEvent
from ._wire_format import (
    StreamDecoder,
    StreamedError,
    StreamReader,
    WireFormat,
    count_of,
    document_of,
    listed,
    mapped,
    text_of,
)
from .bedrock import CONVERSE, ConverseReader, FrameDecoder
from .openai import chat_wire

_METRICS = "amazon-bedrock-invocationMetrics"
"""The counts that Bedrock adds to the last event of every model's stream."""
_CHAT = chat_wire()

# --- Whole reply


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply of any model: Claude's, Nova's and OpenAI's in full, of any other the counts and the ending."""
    if document.get("type") == "message":
        return anthropic.from_payload(document, request_id)
    if "message" in mapped(document.get("output")):
        return CONVERSE.from_payload(document, request_id)
    if "choices" in document:
        return _CHAT.from_payload(document, request_id)
    return _of_other_model(document, request_id)


def _of_other_model(document: Mapping[str, Any], request_id: str | None) -> LLMResponse:
    """Llama's and Titan's names of things; what has other names is left to the headers."""
    result = next(iter(listed(document.get("results"))), document)
    reason = text_of(document.get("stop_reason")) or text_of(result.get("completionReason"))
    prompt = count_of(document.get("prompt_token_count", document.get("inputTextTokenCount")))
    completion = count_of(document.get("generation_token_count", result.get("tokenCount")))
    return LLMResponse(
        text=text_of(document.get("generation")) or text_of(result.get("outputText")) or "",
        usage=usage_of_parts(prompt, completion),
        raw=document,
        finish_reasons=(reason,) if reason else (),
        request_id=request_id,
    )


def with_headers(response: LLMResponse, headers: Mapping[str, str]) -> LLMResponse:
    """The reply with the counts of its headers, where its body has none."""
    if response.usage.is_whole:
        return response
    counted = usage_of_parts(_number(headers, "input"), _number(headers, "output"))
    return replace(response, usage=counted) if counted.is_known else response


def _number(headers: Mapping[str, str], half: str) -> int | None:
    said = headers.get(f"x-amzn-bedrock-{half}-token-count", "")
    return count_of(int(said)) if said.isascii() and said.isdecimal() and len(said) < 20 else None


# --- Stream


class ChunkDecoder:
    """Takes the model's own events out of the frames around them."""

    def __init__(self) -> None:
        self._frames: StreamDecoder = FrameDecoder()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete now."""
        return [_inner(event) for event in self._frames.feed(data)]

    def end(self) -> list[ServerSentEvent]:
        """Nothing: an incomplete frame is no event."""
        return []


def _inner(event: ServerSentEvent) -> ServerSentEvent:
    if event.name != "chunk":
        return event
    try:
        return ServerSentEvent("", base64.b64decode(text_of(document_of(event).get("bytes")) or "", validate=True))
    except binascii.Error:
        return ServerSentEvent("", b"")


class InvokeReader:
    """Reads a stream in the model's own format, which its first event shows."""

    def __init__(self) -> None:
        self._inner: StreamReader | None = None
        self._counts: LLMUsage | None = None

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        document = document_of(event)
        if event.name == "error":
            raise StreamedError(CONVERSE.errors_of(document))
        if metrics := mapped(document.get(_METRICS)):
            counts = metrics.get("inputTokenCount"), metrics.get("outputTokenCount")
            self._counts = usage_of_parts(*map(count_of, counts))
        if self._inner is None:
            self._inner = _reader_for(document)
        if isinstance(self._inner, ConverseReader):
            return self._feed_converse(document)
        return self._inner.feed(event)

    def _feed_converse(self, document: Mapping[str, Any]) -> list[StreamEvent]:
        """Nova's events are Converse's, with their name as the only key."""
        added: list[StreamEvent] = []
        for name, inner in document.items():
            if name != _METRICS and self._inner is not None:
                added += self._inner.feed(ServerSentEvent(name, json.dumps(inner).encode()))
        return added

    @property
    def is_complete(self) -> bool:
        """Whether the model has said why it stopped, or the counts came, which come last."""
        return self._counts is not None or (self._inner is not None and self._inner.is_complete)

    @property
    def has_ended(self) -> bool:
        """Whether the counts came, or the format's own end."""
        return self._counts is not None or (self._inner is not None and self._inner.has_ended)

    def response(self, request_id: str | None) -> LLMResponse:
        reply = (self._inner or _OtherReader()).response(request_id)
        if self._counts is None or reply.usage.is_whole:
            return reply
        return replace(reply, usage=self._counts)


def _reader_for(document: Mapping[str, Any]) -> StreamReader:
    if "type" in document:
        return anthropic.MessagesReader()
    if "choices" in document:
        return _CHAT.new_reader()
    if any(name.startswith(("message", "contentBlock")) for name in document):
        return ConverseReader()
    return _OtherReader()


class _OtherReader:
    """Keeps the last value of each field, which has the counts and the ending."""

    is_complete = has_ended = False

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        self._last.update({name: value for name, value in document_of(event).items() if value is not None})
        self.is_complete = any(text_of(self._last.get(name)) for name in ("stop_reason", "completionReason"))
        return ()

    def response(self, request_id: str | None) -> LLMResponse:
        return _of_other_model(self._last, request_id)


INVOKE = WireFormat(
    path=CONVERSE.path,
    to_payload=CONVERSE.to_payload,
    from_payload=from_payload,
    new_reader=InvokeReader,
    new_decoder=ChunkDecoder,
    with_headers=with_headers,
)
"""The wire format. Its `path` and `to_payload` are Converse's, since nothing sends in it."""


def _embeddings_with_headers(response: LLMResponse, headers: Mapping[str, str]) -> LLMResponse:
    if response.usage.is_known:
        return response
    return replace(response, usage=embeddings.usage_of_input(_number(headers, "input")))


EMBED = replace(embeddings.TITAN, with_headers=_embeddings_with_headers)
"""Embeddings by InvokeModel: Titan's body has the count, of Cohere's models the header."""
