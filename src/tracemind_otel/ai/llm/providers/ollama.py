"""Ollama's own API.

Source: Ollama API documentation, "Generate a chat completion" (`POST {base}/api/chat`), as of 2026-11, and the
types of its Python SDK 0.6. A stream is a JSON document a line. There are no ids, and no tool call needs one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Unpack
from urllib.parse import urlsplit

from ....errors import ConfigError
from ..types import FinishReason, Image, LLMRequest, LLMResponse, LLMUsage, Message, StreamEvent, ToolCall
from ._assembly import Block, call_delta, ending_of, function_calls, message_in, usage_of_parts
from ._client import Sending, WireClient
from ._conversation import (
    effort_of,
    image_bytes,
    merged,
    object_arguments,
    reject_misplaced,
    settings_of,
    with_tool_names,
)
from ._error_bodies import error_body
from ._sse import JsonLinesDecoder, ServerSentEvent
from ._wire_format import StreamedError, WireFormat, count_of, document_of, mapped, text_of
from .presets import Preset

_DEFAULT_PORT = 11434
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared with, never bound
"""Addresses that a server listens on but no client can reach, and the address that reaches it."""

_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "load": "error", "unload": "error"}
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "num_predict",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "stop": "stop",
}
_EFFORTS = {effort: {"think": effort != "none" and effort} for effort in ("none", "low", "medium", "high")}


# --- Request


def to_payload(req: LLMRequest, stream: bool) -> dict[str, Any]:
    """The body of the request; `extra` wins, and its `options` are merged with ours."""
    effort = effort_of(req, "ollama", _EFFORTS, ". Use extra to send think anyway")
    payload = {"model": req.model, "messages": _messages(req), "stream": stream, **effort}
    if options := settings_of(req, "ollama", _OPTIONS, "reasoning_effort"):
        payload["options"] = options
    return merged(payload, req.extra)


def _messages(req: LLMRequest) -> list[dict[str, Any]]:
    system = [] if req.system is None else [{"role": "system", "content": req.system}]
    return [*system, *(_message(message, name) for message, name in with_tool_names(req.conversation, "ollama"))]


def _message(message: Message, tool_name: str) -> dict[str, Any]:
    """A message. A tool's result has no id; the tool's name alone says which call it answers."""
    reject_misplaced(message, "ollama")
    said: dict[str, Any] = {"role": message.role, "content": message.text}
    parts = () if isinstance(message.content, str) else message.content
    if images := [_image(part) for part in parts if isinstance(part, Image)]:
        said["images"] = images
    if message.tool_calls:
        said["tool_calls"] = [_outgoing_call(call) for call in message.tool_calls]
    if message.role == "tool":
        said["tool_name"] = tool_name
    return said


def _image(image: Image) -> str:
    given = image_bytes(image, "ollama")
    if given is None:
        raise ConfigError("messages: ollama fetches no images by URL; pass the image's data")
    return given[1]


def _outgoing_call(call: ToolCall) -> dict[str, Any]:
    return {"function": {"name": call.name, "arguments": object_arguments(call, "ollama")}}


# --- Whole reply


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply as an `LLMResponse`."""
    message = message_in(document, request_id)
    return LLMResponse(
        text_of(message.get("content")) or "",
        usage_of(document),
        document,
        reasoning=text_of(message.get("thinking")),
        response_model=text_of(document.get("model")),
        request_id=request_id,
        **ending_of(_FINISH_REASONS, text_of(document.get("done_reason")), function_calls(message)),
    )


def usage_of(document: Mapping[str, Any]) -> LLMUsage:
    """The counts in the reply; that of the prompt is missing where all of it was cached."""
    return usage_of_parts(count_of(document.get("prompt_eval_count")), count_of(document.get("eval_count")))


# --- Stream


class OllamaReader:
    """Builds the document of a whole reply from the lines of a stream, in which tool calls come whole."""

    is_complete = has_ended = False

    def __init__(self) -> None:
        self._said = Block()
        self._calls: list[ToolCall] = []
        self._model: str | None = None
        self._last: Mapping[str, Any] = {}

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        document = document_of(event)
        if document.get("error"):
            raise StreamedError(error_body(document))
        self._model = self._model or text_of(document.get("model"))
        if document.get("done") is True:
            self._last = document
            self.is_complete = self.has_ended = True
        return self._deltas(mapped(document.get("message")))

    def _deltas(self, message: Mapping[str, Any]) -> list[StreamEvent]:
        thought = self._said.add("thinking", message.get("thinking"))
        deltas = [*thought, *self._said.add("text", message.get("content"))]
        for call in function_calls(message, len(self._calls)):
            deltas.append(call_delta(len(self._calls), call))
            self._calls.append(call)
        return deltas

    def response(self, request_id: str | None) -> LLMResponse:
        said = self._said.joined()
        message: dict[str, Any] = {"role": "assistant", "content": said.pop("text", ""), **said}
        if self._calls:
            message["tool_calls"] = [
                {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}} for call in self._calls
            ]
        return from_payload({**self._last, "model": self._model, "message": message}, request_id)


# --- Provider

PRESET = Preset(
    name="ollama",
    wire=WireFormat(
        path=lambda req, stream: "/api/chat",
        to_payload=to_payload,
        from_payload=from_payload,
        new_reader=OllamaReader,
        new_decoder=JsonLinesDecoder,
    ),
    base_url=f"http://localhost:{_DEFAULT_PORT}",
    key_variables=("OLLAMA_API_KEY",),
    url_variables=("OLLAMA_HOST",),
    needs_key=False,
)
"""Ollama as data; `ollama_client` reads `OLLAMA_HOST` as Ollama does."""


def ollama_client(
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    provider_name: str | None = None,
    **sending: Unpack[Sending],
) -> WireClient:
    """A client for Ollama; the base URL may be any spelling of a host that `OLLAMA_HOST` takes.

    Raises:
        ConfigError: the host cannot be used.
    """
    host = (base_url or os.getenv("OLLAMA_HOST") or "").strip()
    url = server_url(host) if host else None
    return PRESET.client(api_key, url, provider_name=provider_name, **sending)


def server_url(host: str) -> str:
    """The base URL for a host as Ollama spells it.

    Without a scheme it is plain HTTP, and port 11434 unless it says another; an address that a server listens
    on (`0.0.0.0`) is reached by loopback.

    Raises:
        ConfigError: the host or its port cannot be read.
    """
    has_scheme = "://" in host
    if host.count(":") > 1 and not has_scheme and "[" not in host:
        host = f"[{host}]"
    try:
        parts = urlsplit(host if has_scheme else f"http://{host}")
        port = parts.port or (None if has_scheme else _DEFAULT_PORT)
    except ValueError:
        raise ConfigError("OLLAMA_HOST or base_url: the host or its port cannot be read") from None
    if parts.username or parts.password or not (parts.hostname or parts.netloc.startswith(":")):
        return parts.geturl()  # rejected where every base URL is checked, with the reason
    name = parts.hostname or "127.0.0.1"
    name = _UNSPECIFIED.get(name, f"[{name}]" if ":" in name else name)
    return parts._replace(netloc=name if port is None else f"{name}:{port}").geturl()
