"""OpenAI Chat Completions, and the servers that speak it with an accent.

Source: OpenAI API reference, "Create chat completion" (`POST {base}/chat/completions`), as of 2026-11; for the
accents, the documentation of each server.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from ....errors import LLMRequestError, LLMResponseError
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
from ._chat_usage import (
    COUNT_APART,
    HIDE_OUTPUT,
    CostFormat,
    cost_format,
    reported_cost,
    server_at,
    usage_of,
    with_cost_header,
)
from ._client import WireClient
from ._error_bodies import error_body, is_error
from ._http import HttpPool
from ._loop import PerLoop
from ._names import telemetry_name_of
from ._sse import ServerSentEvent
from ._wire_format import (
    DONE,
    StreamedError,
    Wire,
    arguments_of,
    count_of,
    cumulated,
    document_of,
    image_url,
    listed,
    mapped,
    normal_finish,
    outgoing_call,
    refuse_others,
    text_of,
)

if TYPE_CHECKING:
    import httpx

DEFAULT_BASE_URL = "https://api.openai.com/v1"

_FINISH_REASONS: dict[str, FinishReason] = {
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Accent:
    """How a server differs from OpenAI's."""

    provider: str = "openai"
    """The provider's name, for error messages."""
    max_tokens: str = "max_completion_tokens"
    """The name of the field for the most output tokens."""
    seed: str = "seed"
    """The name of the field for the seed."""
    asks_for_usage: bool = True
    """Whether a stream must be asked for its usage (`stream_options`); some refuse to be asked."""
    refuses: frozenset[str] = frozenset({"top_k"})
    """The parameters it has no place for."""
    path: str = "/chat/completions"
    """The path below the base URL."""
    hides_output: bool = False
    """Whether what the total has beyond prompt and completion is known to be output: reasoning, at xAI."""
    counts_apart: bool = False
    """Whether reasoning and citations are counted beside the completion, as Perplexity does."""
    cost: CostFormat | None = None
    """In which form a reply names its cost; `None` where it is not documented in which unit."""


def chat_wire(accent: Accent = Accent()) -> Wire:  # frozen
    """The wire format of Chat Completions in an accent."""
    return Wire(
        path=lambda req, stream: accent.path,
        to_payload=lambda req, stream: to_payload(req, stream=stream, accent=accent),
        from_payload=lambda document, request_id: from_payload(document, request_id=request_id, accent=accent),
        new_reader=lambda: ChatReader(accent),
        with_headers=with_cost_header if accent.cost == "declared" else None,
        with_cost=lambda cost, server: chat_wire(_as_spoken_by(server, replace(accent, cost=cost))),
    )


def _as_spoken_by(server: str, accent: Accent) -> Accent:
    """The accent with what is known of a server's counts."""
    name = server.lower()
    return replace(
        accent,
        provider=server,
        hides_output=accent.hides_output or name in HIDE_OUTPUT,
        counts_apart=accent.counts_apart or name in COUNT_APART,
    )


class ChatClient(WireClient):
    """A client for Chat Completions that stops asking for a stream's usage where the server refuses to be asked."""

    _refuses_stream_options = False

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        silent = replace(req, extra={"stream_options": None, **req.extra})
        try:
            # A refusal comes before any event, so nothing is said twice.
            async with aclosing(super().stream(silent if self._refuses_stream_options else req)) as batches:
                async for batch in batches:
                    yield batch
            return
        except LLMRequestError as error:
            is_known = self._refuses_stream_options or "stream_options" in req.extra
            if is_known or error.status_code not in (400, 422) or "stream_options" not in error.message:
                raise
        self._refuses_stream_options = True
        async with aclosing(super().stream(silent)) as batches:
            async for batch in batches:
                yield batch


class OpenAILLMClient(ChatClient):
    """Chat Completions over httpx.

    Args:
        api_key: the key; the default is `OPENAI_API_KEY`. A server with a base URL of its own may need none.
        base_url: the default is `OPENAI_BASE_URL`, else OpenAI's.
        timeout_s: seconds without a byte in one `complete`; `None` leaves the time to the caller, as the step does.
        provider_name: whose server it is, where it is not OpenAI's: that one's prices hold. `openai` says that a proxy
            stands in front of OpenAI's own, which takes `max_completion_tokens`.
        cost_unit: the currency of the cost in the replies, which is believed only where it is `USD`.
        http_client: an httpx client to send with, httpx's own transport for instance; you close it yourself.
        pools: where pooled connections live; the default is a pool of this client's own, closed by `aclose`.

    Raises:
        ConfigError: the key or the base URL cannot be used; the message names the field.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float | None = 30.0,
        *,
        provider_name: str | None = None,
        cost_unit: str | None = None,
        http_client: httpx.AsyncClient | None = None,
        pools: PerLoop[HttpPool] | None = None,
    ) -> None:
        chosen_url = base_url or os.getenv("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        needs_key = chosen_url.rstrip("/") == DEFAULT_BASE_URL
        accent = _accent_of(chosen_url, provider_name, cost_unit)
        super().__init__(
            chat_wire(accent),
            provider_name=provider_name or "openai",
            telemetry_name=telemetry_name_of(provider_name) if provider_name else None,
            base_url=chosen_url,
            key=api_key or os.getenv("OPENAI_API_KEY"),
            key_hint="OPENAI_API_KEY is not set: set it, or pass api_key" if needs_key else None,
            timeout_s=timeout_s,
            http_client=http_client,
            pools=pools,
        )
        self.reports_cost = accent.cost is not None


def _accent_of(base_url: str, provider_name: str | None, cost_unit: str | None) -> Accent:
    """OpenAI's own server takes `max_completion_tokens` alone; of the servers of others most know only `max_tokens`."""
    server = server_at(base_url) or provider_name or "openai"
    accent = _as_spoken_by(server, Accent(cost=cost_format(server, cost_unit)))
    is_openais = "openai" in (provider_name, server_at(base_url))
    return accent if is_openais else replace(accent, max_tokens="max_tokens")


# --- Request


_PARAMETERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "reasoning_effort", "top_k")
_ALL_PARAMETERS = frozenset({*_PARAMETERS, "max_tokens", "stop", "seed"})


def to_payload(req: LLMRequest, *, stream: bool = False, accent: Accent = Accent()) -> dict[str, Any]:
    """The body of the request."""
    if any(getattr(req, name) not in (None, ()) for name in accent.refuses):
        refuse_others(req, provider=accent.provider, supported=_ALL_PARAMETERS - accent.refuses)
    payload: dict[str, Any] = {"model": req.model, "messages": _messages(req)}
    for name in _PARAMETERS:
        value = getattr(req, name)
        if value is not None:
            payload[name] = value
    if req.max_tokens is not None and "max_completion_tokens" not in req.extra:
        payload[accent.max_tokens] = req.max_tokens
    if req.stop:
        payload["stop"] = list(req.stop)
    if req.seed is not None:
        payload[accent.seed] = req.seed
    if stream:
        payload["stream"] = True
        if accent.asks_for_usage:
            payload["stream_options"] = {"include_usage": True}
    payload.update(req.extra)
    if stream and payload.get("stream_options", ...) is None:
        # The user turns it off, for a server that refuses the very field.
        del payload["stream_options"]
    return payload


def _messages(req: LLMRequest) -> list[dict[str, Any]]:
    if not req.messages and req.system is None:
        return [{"role": "user", "content": req.prompt}]
    system = [] if req.system is None else [{"role": "system", "content": req.system}]
    return [*system, *(_message(message) for message in req.conversation)]


def _message(message: Message) -> dict[str, Any]:
    said: dict[str, Any] = {"role": message.role, "content": _content(message.content)}
    if message.tool_calls:
        said["tool_calls"] = [outgoing_call(call) for call in message.tool_calls]
        said["content"] = said["content"] or None
    if message.tool_call_id is not None:
        said["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        said["name"] = message.name
    return said


def _content(content: str | Sequence[Text | Image]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "image_url", "image_url": {"url": image_url(part)}}
        for part in content
    ]


# --- Whole reply


def from_payload(
    document: Mapping[str, Any], *, request_id: str | None = None, accent: Accent = Accent()
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
    text, thought = _split_content(message.get("content"))
    calls = tuple(_incoming_calls(message))
    raw_reasons = tuple(reason for choice in choices if (reason := text_of(choice.get("finish_reason"))))
    first_reason = text_of(choices[0].get("finish_reason"))
    return LLMResponse(
        text=text,
        usage=_used(usage, model, accent),
        raw=document,
        finish_reasons=raw_reasons,
        finish_reason=normal_finish(_FINISH_REASONS, first_reason, calls_tools=bool(calls)),
        reasoning=_reasoning(message) or thought or None,
        refusal=text_of(message.get("refusal")),
        tool_calls=calls,
        response_id=text_of(document.get("id")),
        response_model=model,
        service_tier=text_of(document.get("service_tier")),
        price_conditions=_conditions(usage),
        request_id=request_id,
        reported_cost=reported_cost(usage, accent.cost, accent.provider),
    )


def _split_content(content: object) -> tuple[str, str]:
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


def _reasoning(message: Mapping[str, Any]) -> str | None:
    return text_of(message.get("reasoning_content")) or text_of(message.get("reasoning"))


def _asked(call: Mapping[str, Any]) -> tuple[str | None, object, bool]:
    """The tool's name, what it gets, and whether that is free text (`type: custom`) and no JSON."""
    custom = mapped(call.get("custom"))
    if custom:
        return text_of(custom.get("name")), custom.get("input"), True
    function = mapped(call.get("function"))
    return text_of(function.get("name")), function.get("arguments"), False


def _made_call(call_id: str, name: str, arguments: object, *, is_custom: bool) -> ToolCall:
    if is_custom:
        return ToolCall(call_id, name, arguments if isinstance(arguments, str) else "", kind="custom")
    return ToolCall(call_id, name, arguments_of(arguments))


def _incoming_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    calls = [
        _made_call(text_of(call.get("id")) or f"call_{number}", name, arguments, is_custom=is_custom)
        for number, call in enumerate(listed(message.get("tool_calls")))
        for name, arguments, is_custom in (_asked(call),)
        if name
    ]
    old = mapped(message.get("function_call"))
    if not calls and (name := text_of(old.get("name"))):
        return [ToolCall("call_0", name, arguments_of(old.get("arguments")))]
    return calls


_UNREPORTED = LLMUsage(None, None, None)


def _used(usage: Mapping[str, Any], model: str | None, accent: Accent) -> LLMUsage:
    if not usage:
        return _UNREPORTED  # of every stream, until its usage comes
    is_gemini = bool(model) and str(model).rpartition("/")[2].startswith("gemini")
    return usage_of(usage, hides_output=accent.hides_output or is_gemini, counts_apart=accent.counts_apart)


def _conditions(usage: Mapping[str, Any]) -> dict[str, str]:
    """What changes the price: Perplexity's search, and the speed that a proxy passes on from Anthropic."""
    found = {name: text_of(usage.get(name)) for name in ("search_type", "speed")}
    return {name: value for name, value in found.items() if value is not None and value != "standard"}


# --- Stream


_HEAD = ("id", "model", "service_tier")
_TELLING_HEAD = 2
"""How much of the head is looked for in plain text too: most streams have an id and a model, and no tier."""
_HALVES = ("prompt_tokens", "completion_tokens")
_READ_HERE = frozenset(
    {"role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls", "function_call", "obfuscation"}
)
"""The fields of a delta that have a place of their own here; all others are joined for `raw` alone."""


def _joined(pieces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The pieces of one thing: lists and texts go on, objects are joined field by field, anything else is replaced."""
    whole: dict[str, Any] = {}
    for piece in pieces:
        for name, value in piece.items():
            whole[name] = _with_piece(whole.get(name), value, goes_on=name not in _NAMES)
    return whole


def _with_piece(known: object, piece: object, *, goes_on: bool) -> object:
    if isinstance(piece, list):
        return [*(cast("list[object]", known) if isinstance(known, list) else ()), *cast("list[object]", piece)]
    if isinstance(known, str) and isinstance(piece, str) and goes_on:
        return known + piece
    if isinstance(known, dict) and isinstance(piece, dict):
        return _joined((mapped(known), mapped(piece)))  # pyright: ignore[reportUnknownArgumentType]
    return known if piece is None else piece  # pyright: ignore[reportUnknownVariableType]


_NAMES = frozenset({"id", "type", "name", "format"})
"""The texts that say which thing it is, and do not go on."""


@dataclass(slots=True)
class _CallPieces:
    id: str | None = None
    name: str | None = None
    arguments: list[str] = field(default_factory=list[str])
    is_custom: bool = False

    def whole(self, index: int) -> ToolCall:
        """The call, once all its pieces have come."""
        arguments = "".join(self.arguments)
        return _made_call(self.id or f"call_{index}", self.name or "", arguments, is_custom=self.is_custom)

    def document(self, index: int) -> dict[str, Any]:
        """The call as a whole reply has it: its arguments are the text that came."""
        kind = "custom" if self.is_custom else "function"
        asked = {"name": self.name, "input" if self.is_custom else "arguments": "".join(self.arguments)}
        return {"id": self.id or f"call_{index}", "type": kind, kind: asked}


class ChatReader:
    """Puts a streamed completion together. Only the first choice is streamed out; the others are in `raw`."""

    def __init__(self, accent: Accent = Accent()) -> None:
        self._accent = accent
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, _CallPieces] = {}
        self._latest: dict[int | None, int] = {}
        self._begun: set[int] = set()
        self._reasons: dict[int, str] = {}
        self._usage: Mapping[str, Any] = {}
        self._head: dict[str, str] = {}
        self._others: dict[int, ChatReader] = {}
        self._first: Mapping[str, Any] = {}
        self._document: Mapping[str, Any] = {}
        self._more: list[Mapping[str, Any]] = []
        self._logprobs: list[Mapping[str, Any]] = []
        self._reasoning_name = "reasoning_content"
        self._has_begun = False
        self._is_done = False

    @property
    def is_complete(self) -> bool:
        return self._is_done or (bool(self._reasons) and self._begun <= self._reasons.keys())

    @property
    def has_ended(self) -> bool:
        return self._is_done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        document = event.document
        if document is None:
            if event.data.rstrip() == DONE:
                self._is_done = True
                return ()
            document = document_of(event)
        if self._has_begun and event.name != "error" and (text := _plain_text(document)) is not None:
            self._document = document
            self._text.append(text)
            return (TextDelta(text),)
        return self._feed_any(document, event.name)

    def _feed_any(self, document: Mapping[str, Any], event_name: str) -> Sequence[StreamEvent]:
        """A chunk that may bring anything."""
        if document.get("error") or event_name == "error" or document.get("object") == "error":
            raise StreamedError(error_body(document))
        self._document = document
        if len(self._head) < len(_HEAD):
            self._note_head(document)
        # It may come in one chunk, in all, or beside the choices.
        if usage := mapped(document.get("usage")) or mapped(mapped(document.get("x_groq")).get("usage")):
            self._note_usage(usage)
        if document.get("object") == "chat.completion.done":
            self._is_done = True  # Perplexity's end mark
        choices = listed(document.get("choices"))
        if not choices and not usage and is_error(body := error_body(document)):
            raise StreamedError(body)  # MiniMax's `base_resp`
        if len(choices) == 1:
            return self._choice(choices[0])
        return [delta for choice in choices for delta in self._choice(choice)]

    def _note_usage(self, usage: Mapping[str, Any]) -> None:
        """Counts are cumulative. A total beside a half that was kept is the total of less."""
        is_half = sum(bool(self._usage.get(half) and not usage.get(half)) for half in _HALVES) == 1
        self._usage = {**cumulated(self._usage, usage), **({"total_tokens": None} if is_half else {})}

    def _note_head(self, document: Mapping[str, Any]) -> None:
        """Azure's first chunk has neither id nor model."""
        self._first = self._first or document
        for name in _HEAD:
            if name not in self._head and (value := text_of(document.get(name))):
                self._head[name] = value

    def _choice(self, choice: Mapping[str, Any]) -> Sequence[StreamEvent]:
        index = count_of(choice.get("index")) or 0
        self._begun.add(index)
        self._has_begun = len(self._head) >= _TELLING_HEAD and 0 in self._begun
        if reason := text_of(choice.get("finish_reason")):
            self._reasons[index] = reason
        if usage := mapped(choice.get("usage")):
            self._note_usage(usage)  # Moonshot's place
        reader = self if index == 0 else self._others.setdefault(index, ChatReader(self._accent))
        deltas = reader._delta(mapped(choice.get("delta")))
        if logprobs := mapped(choice.get("logprobs")):
            reader._logprobs.append(logprobs)
        return deltas if index == 0 else ()

    def _delta(self, delta: Mapping[str, Any]) -> Sequence[StreamEvent]:
        content = delta.get("content")
        deltas: list[StreamEvent] = []
        text, thought = _split_content(content)
        if thought := _reasoning(delta) or thought:
            self._reasoning.append(thought)
            self._reasoning_name = "reasoning" if "reasoning" in delta else "reasoning_content"
            deltas.append(ReasoningDelta(thought))
        if text:
            self._text.append(text)
            deltas.append(TextDelta(text))
        if refusal := text_of(delta.get("refusal")):
            self._refusal.append(refusal)
        deltas.extend(self._call_delta(call) for call in listed(delta.get("tool_calls")) or _old_call(delta))
        if not _READ_HERE.issuperset(delta):
            self._more.append({name: value for name, value in delta.items() if name not in _READ_HERE})
        return deltas

    def _call_delta(self, call: Mapping[str, Any]) -> ToolCallDelta:
        call_id = text_of(call.get("id"))
        name, arguments, is_custom = _asked(call)
        index = self._index_of(count_of(call.get("index")), call_id, name)
        pieces = self._calls.setdefault(index, _CallPieces())
        is_first = pieces.name is None
        pieces.id = pieces.id or call_id
        pieces.name = pieces.name or name
        pieces.is_custom = pieces.is_custom or is_custom
        piece = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        pieces.arguments.append(piece)
        return ToolCallDelta(index, pieces.id if is_first else None, pieces.name if is_first else None, piece)

    def _index_of(self, wire_index: int | None, call_id: str | None, name: str | None) -> int:
        """The call that a piece belongs to: of its index, else of its id, else the latest one.

        A name begins a new call where the id is another one, or where neither index nor id says which call it is:
        some servers give every call the index 0, or none.
        """
        if wire_index is None and (known := self._known(call_id)) is not None:
            return known
        latest = self._latest.get(wire_index)
        if latest is None or self._is_another(self._calls[latest], wire_index, call_id, name):
            latest = wire_index if wire_index is not None and wire_index not in self._calls else self._next_index
        self._latest[wire_index] = self._latest[None] = latest
        return latest

    def _known(self, call_id: str | None) -> int | None:
        return next((index for index, pieces in self._calls.items() if call_id and pieces.id == call_id), None)

    @staticmethod
    def _is_another(pieces: _CallPieces, wire_index: int | None, call_id: str | None, name: str | None) -> bool:
        if wire_index is None:
            return bool(call_id) or bool(name and pieces.name)
        return bool(name and pieces.name and call_id and pieces.id and call_id != pieces.id)

    @property
    def _next_index(self) -> int:
        return max(self._calls, default=-1) + 1

    def response(self, request_id: str | None) -> LLMResponse:
        calls, model = self._whole_calls(), self._head.get("model")
        return LLMResponse(
            "".join(self._text),
            _used(self._usage, model, self._accent),
            self._raw(),
            finish_reasons=tuple(reason for _, reason in sorted(self._reasons.items())),
            finish_reason=normal_finish(_FINISH_REASONS, self._reasons.get(0), calls_tools=bool(calls)),
            reasoning="".join(self._reasoning) or None,
            refusal="".join(self._refusal) or None,
            tool_calls=calls,
            response_id=self._head.get("id"),
            response_model=model,
            service_tier=self._head.get("service_tier"),
            price_conditions=_conditions(self._usage),
            request_id=request_id,
            reported_cost=reported_cost(self._usage, self._accent.cost, self._accent.provider),
        )

    def _whole_calls(self) -> tuple[ToolCall, ...]:
        return tuple(pieces.whole(index) for index, pieces in sorted(self._calls.items()) if pieces.name)

    def _raw(self) -> dict[str, Any]:
        """The document that a whole reply would have been."""
        readers = sorted({0: self, **self._others}.items())
        choices = [reader._whole_choice(index, self._reasons.get(index)) for index, reader in readers]
        said = {name: value for name, value in self._document.items() if value is not None}
        raw = {**self._first, **said, **self._head}
        raw |= {"object": "chat.completion", "choices": choices, "usage": self._usage}
        return {name: value for name, value in raw.items() if name != "obfuscation"}

    def _whole_choice(self, index: int, reason: str | None) -> dict[str, Any]:
        choice = {"index": index, "message": self._message(), "finish_reason": reason}
        return {**choice, "logprobs": _joined(self._logprobs)} if self._logprobs else choice

    def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._text) or None, **_joined(self._more)}
        if self._reasoning:
            message[self._reasoning_name] = "".join(self._reasoning)
        if self._refusal:
            message["refusal"] = "".join(self._refusal)
        if calls := [pieces.document(index) for index, pieces in sorted(self._calls.items()) if pieces.name]:
            message["tool_calls"] = calls
        return message


def _plain_text(document: Any) -> str | None:
    """The text of a chunk that brings nothing else, as nearly every chunk does; `None` for any other."""
    try:
        (choice,) = document["choices"]
        delta = choice["delta"]
        text = delta["content"]
    except (KeyError, TypeError, ValueError):
        return None
    if len(delta) > 1 or choice.get("index") != 0 or choice.get("finish_reason") or choice.get("logprobs"):
        return None
    if document.get("usage") or document.get("error") or "x_groq" in document:
        return None
    return text if isinstance(text, str) and text else None


def _old_call(delta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The old single `function_call`; some servers send an empty one with every reply."""
    function = mapped(delta.get("function_call"))
    is_empty = not text_of(function.get("name")) and not function.get("arguments")
    return [] if is_empty else [{"index": 0, "function": function}]
