"""Amazon Bedrock: Converse and ConverseStream, signed by botocore or with a Bedrock API key.

Source: Amazon Bedrock Runtime API reference, "Converse" (`POST {base}/model/{modelId}/converse`) and "ConverseStream",
and the `application/vnd.amazon.eventstream` encoding, as of 2026-11.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import itertools
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack
from urllib.parse import quote

from ....errors import ConfigError, LLMAuthenticationError, LLMResponseError
from ..types import FinishReason, Image, LLMRequest, LLMResponse, LLMUsage, Message, StreamEvent, Text, ToolCall
from ._assembly import Block, Blocks, ending_of, incoming_calls, joined, message_in, usage_beside_cache
from ._client import Sending, WireClient
from ._conversation import answered_call, image_bytes, merged, object_arguments, settings_of, split_system
from ._error_bodies import error_body
from ._error_documents import document_in, words_of
from ._http import Headers
from ._sse import ServerSentEvent
from ._wire_format import StreamedError, WireFormat, arguments_of, count_of, document_of, listed, mapped, text_of

ENVIRONMENT = (
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_BEARER_TOKEN_BEDROCK",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)
"""A client is made anew when one of these variables changes; botocore reads more for profiles and roles."""

_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+){2,4}")
_MISSING = "provider 'bedrock' needs botocore: pip install 'tracemind-otel[bedrock]'"
_NO_CREDENTIALS = (
    "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile in AWS_PROFILE, "
    "or pass a Bedrock API key as api_key"
)


def _botocore(name: str) -> Any:
    """A module of botocore, which has no types. Slow to import, so the first time is in a worker thread."""
    return importlib.import_module(f"botocore.{name}")


# --- Request

_PARAMETERS = {"max_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP", "stop": "stopSequences"}
_IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}


def to_payload(req: LLMRequest, _stream: bool = False) -> dict[str, Any]:
    """The body of the request."""
    system, rest = split_system(req, "bedrock")
    payload: dict[str, Any] = {"messages": _messages(rest)}
    if system:
        payload["system"] = [{"text": text} for text in system]
    if settings := settings_of(req, "bedrock", _PARAMETERS):
        payload["inferenceConfig"] = settings
    return merged(payload, req.extra)


def _messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The messages. Roles must alternate, so consecutive messages of one role are one; a tool's result is a user's."""
    grouped = itertools.groupby(messages, lambda message: "assistant" if message.role == "assistant" else "user")
    return [{"role": role, "content": list(itertools.chain(*map(_blocks, group)))} for role, group in grouped]


def _blocks(message: Message) -> list[dict[str, Any]]:
    content = _content(message.content)
    if message.role != "tool":
        return [*content, *(_tool_use(call) for call in message.tool_calls)]
    return [{"toolResult": {"toolUseId": answered_call(message), "content": content or [{"text": ""}]}}]


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": call.id, "name": call.name, "input": object_arguments(call, "bedrock")}}


def _content(content: str | Sequence[Text | Image]) -> list[dict[str, Any]]:
    """The blocks, without empty texts, which the API rejects."""
    parts: Sequence[Text | Image] = (Text(content),) if isinstance(content, str) else content
    return [_block(part) for part in parts if isinstance(part, Image) or part.text]


def _block(part: Text | Image) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"text": part.text}
    given = image_bytes(part, "bedrock")
    if given is None:
        raise ConfigError("messages: bedrock fetches no images by URL; pass the image's data")
    media_type, data = given
    if media_type not in _IMAGE_FORMATS:
        raise ConfigError(f"messages: an image of type {media_type!r}; bedrock takes {', '.join(_IMAGE_FORMATS)}")
    return {"image": {"format": _IMAGE_FORMATS[media_type], "source": {"bytes": data}}}


# --- Whole reply

_FINISH_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply as an `LLMResponse`. Text blocks are joined; tools that the server runs itself are not tool calls."""
    blocks = listed(message_in(mapped(document.get("output")), request_id).get("content"))
    calls = incoming_calls(filter(_is_call, (mapped(block.get("toolUse")) for block in blocks)), "toolUseId", "input")
    latency = text_of(mapped(document.get("performanceConfig")).get("latency"))
    return LLMResponse(
        text="".join(map(_said, blocks)),
        usage=usage_of(mapped(document.get("usage"))),
        raw=document,
        reasoning="".join(map(_thought, blocks)) or None,
        service_tier=text_of(mapped(document.get("serviceTier")).get("type")),
        price_conditions={"speed": latency} if latency not in (None, "standard") else {},
        request_id=request_id,
        **ending_of(_FINISH_REASONS, text_of(document.get("stopReason")), calls),
    )


def _said(block: Mapping[str, Any]) -> str:
    return joined((block, *listed(mapped(block.get("citationsContent")).get("content"))), "text")


def _thought(block: Mapping[str, Any]) -> str:
    return text_of(mapped(mapped(block.get("reasoningContent")).get("reasoningText")).get("text")) or ""


def _is_call(use: Mapping[str, Any]) -> bool:
    return text_of(use.get("name")) is not None and use.get("type") != "server_tool_use"


def usage_of(usage: Mapping[str, Any]) -> LLMUsage:
    """Tokens as reported; the stated total may leave out what the cache read and wrote."""
    return usage_beside_cache(
        usage.get("inputTokens"),
        usage.get("outputTokens"),
        count_of(usage.get("cacheReadInputTokens")),
        count_of(usage.get("cacheWriteInputTokens")),
        {detail.get("ttl"): detail.get("inputTokens") for detail in listed(usage.get("cacheDetails"))},
        stated_total=count_of(usage.get("totalTokens")),
    )


# --- Stream

_MARK = "metadata"
"""The event that comes last, with the usage."""


class FrameDecoder:
    """Cuts an AWS event stream into events; an exception becomes an `error` event in the shape of an error body."""

    def __init__(self) -> None:
        self._buffer = _botocore("eventstream").EventStreamBuffer()

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events that are complete now.

        Raises:
            LLMResponseError: the bytes are not frames, or are damaged.
        """
        self._buffer.add_data(data)
        try:
            return [_event_of(frame.headers, frame.payload) for frame in self._buffer]
        except _botocore("eventstream").ParserError as error:
            raise LLMResponseError(f"a frame of the event stream is damaged: {type(error).__name__}") from None

    def end(self) -> list[ServerSentEvent]:
        """Nothing: an incomplete frame is no event."""
        return []


def _event_of(headers: Mapping[str, Any], payload: bytes) -> ServerSentEvent:
    kind = headers.get(":message-type", "event")
    if kind == "event":
        return ServerSentEvent(str(headers.get(":event-type", "")), payload or b"{}")
    name = headers.get(":exception-type") or headers.get(":error-code") or kind
    message = headers.get(":error-message") or words_of(document_in(payload))
    return ServerSentEvent("error", json.dumps({"__type": name, "message": message}).encode())


def _whole(block: Block) -> dict[str, Any]:
    """The block as it is in a whole reply."""
    said = block.joined()
    if block.start:
        return {"toolUse": {**block.start, "input": arguments_of(said.get("arguments"))}}
    if "redactedContent" in said:
        return {"reasoningContent": {"redactedContent": said["redactedContent"]}}
    if thought := {to: said[name] for name, to in _THOUGHT.items() if name in said}:
        return {"reasoningContent": {"reasoningText": thought}}
    text = {"text": said.get("text", "")}
    return {"citationsContent": {"content": [text], "citations": block.citations}} if block.citations else text


_THOUGHT = {"thinking": "text", "signature": "signature"}


class ConverseReader:
    """Builds the document of a whole reply from the events of a stream."""

    is_complete = has_ended = False

    def __init__(self) -> None:
        self._tail: dict[str, Any] = {}
        self._blocks = Blocks()
        self._has_mark = False

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        document = document_of(event)
        if event.name == "error":
            raise StreamedError(error_body(document))
        if event.name == "contentBlockDelta":
            return _piece(self._blocks.at(document.get("contentBlockIndex")), mapped(document.get("delta")))
        if event.name == "contentBlockStart":
            return self._begin(document)
        if event.name in ("messageStop", _MARK):
            self._tail.update({name: value for name, value in document.items() if value is not None})
            self._has_mark |= event.name == _MARK
            self.is_complete = text_of(self._tail.get("stopReason")) is not None
            self.has_ended = self._has_mark and self.is_complete
        return ()

    def _begin(self, document: Mapping[str, Any]) -> Sequence[StreamEvent]:
        block = self._blocks.at(document.get("contentBlockIndex"))
        use = block.start = mapped(mapped(document.get("start")).get("toolUse"))
        return self._blocks.begin_call(block, use.get("toolUseId"), use.get("name")) if _is_call(use) else ()

    def response(self, request_id: str | None) -> LLMResponse:
        message = {"role": "assistant", "content": [_whole(block) for block in self._blocks.in_order()]}
        return from_payload({"output": {"message": message}, **self._tail}, request_id)


def _piece(block: Block, delta: Mapping[str, Any]) -> Sequence[StreamEvent]:
    if citation := mapped(delta.get("citation")):
        block.citations.append(citation)
    if text := block.add("text", delta.get("text")):
        return text
    if arguments := block.add("arguments", mapped(delta.get("toolUse")).get("input")):
        return arguments
    thought = mapped(delta.get("reasoningContent"))
    block.add("signature", thought.get("signature"))
    block.add("redactedContent", thought.get("redactedContent"))
    return block.add("thinking", thought.get("text"))


CONVERSE = WireFormat(
    # The model's id is one segment, so that the slash of an ARN is encoded.
    path=lambda req, stream: f"/model/{quote(req.model, safe=':')}/{'converse-stream' if stream else 'converse'}",
    to_payload=to_payload,
    from_payload=from_payload,
    new_reader=ConverseReader,
    new_decoder=FrameDecoder,
)
"""The wire format."""

# --- Client


class BedrockLLMClient(WireClient):
    """Models on Amazon Bedrock.

    Args:
        region: the AWS region; the default is `AWS_REGION`, else `AWS_DEFAULT_REGION`.
        api_key: a Bedrock API key; the default is `AWS_BEARER_TOKEN_BEDROCK`. Without one, requests are signed with
            the credentials that botocore finds: environment, profile, role.
        base_url: the default is the region's.
        **sending: how it sends.

    Raises:
        ConfigError: botocore is not installed, or the region, the key or the base URL is missing or cannot be used.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        **sending: Unpack[Sending],
    ) -> None:
        if importlib.util.find_spec("botocore") is None:
            raise ConfigError(_MISSING)
        self._region = _region_of(region)
        self._found: Any = None
        self._finding = threading.Lock()
        self._token: str | None = None
        domain = "amazonaws.com.cn" if self._region.startswith("cn-") else "amazonaws.com"
        super().__init__(
            CONVERSE,
            provider_name="bedrock",
            base_url=base_url or f"https://bedrock-runtime.{self._region}.{domain}",
            key=api_key or os.getenv("AWS_BEARER_TOKEN_BEDROCK"),
            **sending,
        )

    async def _headers_for(self, url: str, body: bytes) -> Headers:
        signed = await asyncio.to_thread(self._signature, url, body)
        # Whole replies are JSON and streams are frames, whatever `accept` says.
        return (*(header for header in self._headers if header[0] != "accept"), *signed)

    def _secret(self) -> str | None:
        return self._key or self._token

    def _signature(self, url: str, body: bytes) -> Headers:
        """The headers that sign a request; none where it has a key. Blocks."""
        _botocore("eventstream")  # the decoder's, which is slow to import
        if self._key is not None:
            return ()
        credentials = self._credentials()
        self._token = credentials.token
        content_type = {"content-type": "application/json"}
        request = _botocore("awsrequest").AWSRequest(method="POST", url=url, data=body, headers=content_type)
        _botocore("auth").SigV4Auth(credentials, "bedrock", self._region).add_auth(request)
        signed = ((name.lower(), value) for name, value in request.headers.items())
        return tuple(header for header in signed if header[0] != "content-type")

    def _credentials(self) -> Any:
        """Credentials that are valid now; those of a role are renewed by botocore."""
        try:
            with self._finding:
                self._found = self._found or _botocore("session").Session().get_credentials()
                current = self._found and self._found.get_frozen_credentials()
        except _botocore("exceptions").BotoCoreError as error:
            raise LLMAuthenticationError(f"no AWS credentials were found: {type(error).__name__}") from error
        if not current:
            raise LLMAuthenticationError(_NO_CREDENTIALS)
        return current


def _region_of(region: str | None) -> str:
    found = (region or os.getenv("AWS_REGION") or os.getenv("AWS_DEFAULT_REGION") or "").strip()
    if not _REGION.fullmatch(found):
        raise ConfigError("region must be an AWS region like eu-central-1: pass it, or set AWS_REGION")
    return found
