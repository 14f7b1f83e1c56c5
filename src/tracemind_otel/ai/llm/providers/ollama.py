"""Ollama's own API.

Source: Ollama API documentation, "Generate a chat completion" (`POST {base}/api/chat`), as of 2026-11, and the
types of its Python SDK 0.6. A stream is a JSON document a line. There are no ids, and no tool call needs one.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
from ._client import WireClient
from ._error_bodies import error_body
from ._http import HttpPool
from ._loop import PerLoop
from ._preset import Preset
from ._sse import JsonLinesDecoder, ServerSentEvent
from ._wire_format import (
    StreamedError,
    WireFormat,
    arguments_of,
    count_of,
    document_of,
    listed,
    mapped,
    normal_finish,
    text_of,
)

if TYPE_CHECKING:
    import httpx

_DEFAULT_PORT = 11434
_UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared with, never bound
"""Addresses a server listens on and no client can reach, and where that server is reached."""

_FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "load": "error", "unload": "error"}
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "num_predict",
    "seed": "seed",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
}
_EFFORTS: dict[str, bool | str] = {"none": False, "low": "low", "medium": "medium", "high": "high"}


# --- Request


def to_payload(req: LLMRequest, stream: bool) -> dict[str, Any]:
    """The body of the request. `options` of `extra` are added to ours, each one winning over its namesake.

    Raises:
        ConfigError: an image by URL, a tool's result without the tool's name, or an effort that Ollama lacks.
    """
    payload: dict[str, Any] = {"model": req.model, "messages": _messages(req), "stream": stream}
    options = _options(req)
    if options:
        payload["options"] = options
    if req.reasoning_effort is not None:
        payload["think"] = _think(req.reasoning_effort)
    payload.update(req.extra)
    if given := mapped(req.extra.get("options")):
        payload["options"] = {**options, **given}
    return payload


def _options(req: LLMRequest) -> dict[str, Any]:
    values = {theirs: getattr(req, ours) for ours, theirs in _OPTIONS.items()}
    options = {name: value for name, value in values.items() if value is not None}
    if req.stop:
        options["stop"] = list(req.stop)
    return options


def _think(effort: str) -> bool | str:
    if effort not in _EFFORTS:
        raise ConfigError(
            f"reasoning_effort: ollama takes {', '.join(_EFFORTS)}, not {effort}. Use extra to send think anyway"
        )
    return _EFFORTS[effort]


def _messages(req: LLMRequest) -> list[dict[str, Any]]:
    system = [] if req.system is None else [{"role": "system", "content": req.system}]
    names = {call.id: call.name for message in req.messages for call in message.tool_calls}
    return [*system, *(_message(message, names) for message in req.conversation)]


def _message(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": message.text}
    if images := _images(message.content):
        said["images"] = images
    if message.tool_calls:
        said["tool_calls"] = [_outgoing_call(call) for call in message.tool_calls]
    if message.role == "tool":
        said["tool_name"] = _tool_name(message, names)
    return said


def _tool_name(message: Message, names: Mapping[str, str]) -> str:
    """Ollama knows calls by their tool's name only."""
    name = message.name or names.get(message.tool_call_id or "")
    if not name:
        raise ConfigError("messages: ollama needs the tool's name in a tool's message; set name")
    return name


def _images(content: str | Sequence[Text | Image]) -> list[str]:
    if isinstance(content, str):
        return []
    return [_image(part) for part in content if isinstance(part, Image)]


def _image(image: Image) -> str:
    if image.data is None:
        raise ConfigError("messages: ollama fetches no images by URL; give the image's data")
    return base64.b64encode(image.data).decode()


def _outgoing_call(call: ToolCall) -> dict[str, Any]:
    arguments = arguments_of(call.arguments) if isinstance(call.arguments, str) else call.arguments
    if isinstance(arguments, str):
        raise ConfigError("messages: ollama takes a tool call's arguments as a JSON object only")
    return {"function": {"name": call.name, "arguments": dict(arguments)}}


# --- Whole reply


def from_payload(document: Mapping[str, Any], request_id: str | None = None) -> LLMResponse:
    """The reply in the normal form.

    Raises:
        LLMResponseError: there is no message.
    """
    if not isinstance(document.get("message"), dict):
        raise LLMResponseError("the reply has no message", request_id=request_id)
    message = mapped(document.get("message"))
    calls = tuple(incoming_calls(message, 0))
    reason = text_of(document.get("done_reason"))
    return LLMResponse(
        text_of(message.get("content")) or "",
        usage_of(document),
        document,
        finish_reasons=(reason,) if reason else (),
        finish_reason=normal_finish(_FINISH_REASONS, reason, calls_tools=bool(calls)),
        reasoning=text_of(message.get("thinking")),
        tool_calls=calls,
        response_model=text_of(document.get("model")),
        request_id=request_id,
    )


def incoming_calls(message: Mapping[str, Any], first: int) -> list[ToolCall]:
    """The calls in a message; ids, which most versions lack, are made up by counting from `first`."""
    named = [
        (call, function, name)
        for call in listed(message.get("tool_calls"))
        if (name := text_of((function := mapped(call.get("function"))).get("name")))
    ]
    return [
        ToolCall(text_of(call.get("id")) or f"call_{number}", name, arguments_of(function.get("arguments")))
        for number, (call, function, name) in enumerate(named, first)
    ]


def usage_of(document: Mapping[str, Any]) -> LLMUsage:
    """The counts, which stand in the reply itself; the prompt's is left out where all of it was cached."""
    prompt = count_of(document.get("prompt_eval_count"))
    completion = count_of(document.get("eval_count"))
    return LLMUsage(prompt, completion, None if prompt is None or completion is None else prompt + completion)


# --- Stream


class OllamaReader:
    """Puts a streamed reply together: pieces of text line by line, tool calls whole, the counts in the last line."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []
        self._model: str | None = None
        self._last: Mapping[str, Any] = {}

    @property
    def is_complete(self) -> bool:
        return bool(self._last)

    @property
    def has_ended(self) -> bool:
        return bool(self._last)

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        document = document_of(event)
        if document.get("error"):
            raise StreamedError(error_body(document))
        self._model = self._model or text_of(document.get("model"))
        if document.get("done") is True:
            self._last = document
        return self._deltas(mapped(document.get("message")))

    def _deltas(self, message: Mapping[str, Any]) -> list[StreamEvent]:
        deltas: list[StreamEvent] = []
        if thought := text_of(message.get("thinking")):
            self._reasoning.append(thought)
            deltas.append(ReasoningDelta(thought))
        if text := text_of(message.get("content")):
            self._text.append(text)
            deltas.append(TextDelta(text))
        for call in incoming_calls(message, len(self._calls)):
            deltas.append(_call_delta(len(self._calls), call))
            self._calls.append(call)
        return deltas

    def _raw(self) -> dict[str, Any]:
        """The document that a whole reply would have been."""
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._text)}
        if self._reasoning:
            message["thinking"] = "".join(self._reasoning)
        if self._calls:
            message["tool_calls"] = [_outgoing(call) for call in self._calls]
        return {"model": self._model, **self._last, "message": message}

    def response(self, request_id: str | None) -> LLMResponse:
        reason = text_of(self._last.get("done_reason"))
        return LLMResponse(
            "".join(self._text),
            usage_of(self._last),
            self._raw(),
            finish_reasons=(reason,) if reason else (),
            finish_reason=normal_finish(_FINISH_REASONS, reason, calls_tools=bool(self._calls)),
            reasoning="".join(self._reasoning) or None,
            tool_calls=tuple(self._calls),
            response_model=self._model,
            request_id=request_id,
        )


def _outgoing(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}


def _call_delta(index: int, call: ToolCall) -> ToolCallDelta:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(dict(call.arguments))
    return ToolCallDelta(index, call.id, call.name, arguments)


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
    http_client: httpx.AsyncClient | None = None,
    pools: PerLoop[HttpPool] | None = None,
) -> WireClient:
    """A client for Ollama, with the spellings of a host that `OLLAMA_HOST` may have.

    Raises:
        ConfigError: the host cannot be used.
    """
    host = (base_url or os.getenv("OLLAMA_HOST") or "").strip()
    url = server_url(host) if host else None
    return PRESET.client(api_key, url, provider_name=provider_name, http_client=http_client, pools=pools)


def server_url(host: str) -> str:
    """The base URL for a host as Ollama spells it.

    Without a scheme it is plain HTTP, and port 11434 unless it says another; an address that a server listens
    on (`0.0.0.0`) is reached by loopback.

    Raises:
        ConfigError: the host or its port is none.
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
        return parts.geturl()  # refused, with the reason, where every base URL is checked
    name = parts.hostname or "127.0.0.1"
    name = _UNSPECIFIED.get(name, f"[{name}]" if ":" in name else name)
    return parts._replace(netloc=name if port is None else f"{name}:{port}").geturl()
