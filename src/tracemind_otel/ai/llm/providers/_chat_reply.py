"""The replies of Chat Completions, whole and streamed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from ....errors import LLMResponseError
from ..types import FinishReason, LLMResponse, LLMUsage, ReasoningDelta, StreamEvent, TextDelta, ToolCall, ToolCallDelta
from ._assembly import CallPieces, joined, made_call
from ._chat_usage import reported_cost, usage_of
from ._dialect import OPENAI, Dialect
from ._error_bodies import error_body, is_error
from ._sse import ServerSentEvent
from ._wire_format import DONE, StreamedError, count_of, cumulated, document_of, listed, mapped, normal_finish, text_of

# --- Whole

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
        finish_reason=normal_finish(_FINISH_REASONS, first_reason, calls_tools=bool(calls)),
        reasoning=_reasoning_of(message) or thought or None,
        refusal=text_of(message.get("refusal")),
        tool_calls=calls,
        response_id=text_of(document.get("id")),
        response_model=model,
        service_tier=text_of(document.get("service_tier")),
        price_conditions=_conditions_of(usage),
        request_id=request_id,
        reported_cost=reported_cost(usage, dialect.cost, dialect.provider),
    )


def figures_of(document: Mapping[str, Any], *, request_id: str | None = None, dialect: Dialect = OPENAI) -> LLMResponse:
    """The same without texts, calls and the document: what telemetry records, in half the time.

    Raises:
        LLMResponseError: there are no choices.
    """
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise LLMResponseError("the reply has no choices", request_id=request_id)
    usage, model = mapped(document.get("usage")), text_of(document.get("model"))
    reasons = [text_of(mapped(choice).get("finish_reason")) for choice in cast("list[object]", choices)]
    return LLMResponse(
        "",
        _usage_of(usage, model, dialect),
        finish_reasons=tuple(filter(None, reasons)),
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
            thinking = part.get("thinking")
            thought += thinking if isinstance(thinking, str) else joined(listed(thinking), "text")
        else:
            text += text_of(part.get("text")) or ""
    return text, thought


def _reasoning_of(message: Mapping[str, Any]) -> str | None:
    return text_of(message.get("reasoning_content")) or text_of(message.get("reasoning"))


def _asked_tool(call: Mapping[str, Any]) -> tuple[str | None, object, bool]:
    """The tool's name, what it gets, and whether that is free text (`type: custom`) and no JSON."""
    custom = mapped(call.get("custom"))
    if custom:
        return text_of(custom.get("name")), custom.get("input"), True
    function = mapped(call.get("function"))
    return text_of(function.get("name")), function.get("arguments"), False


def _incoming_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    return [
        made_call(text_of(call.get("id")) or f"call_{number}", name, arguments, is_custom=is_custom)
        for number, call in enumerate(listed(message.get("tool_calls")) or _old_call(message))
        for name, arguments, is_custom in (_asked_tool(call),)
        if name
    ]


_UNREPORTED = LLMUsage(None, None, None)


def _usage_of(usage: Mapping[str, Any], model: str | None, dialect: Dialect) -> LLMUsage:
    if not usage:
        return _UNREPORTED  # of every stream, until its usage comes
    is_gemini = (model or "").rpartition("/")[2].startswith("gemini")
    return usage_of(usage, hides_output=dialect.hides_output or is_gemini, counts_apart=dialect.counts_apart)


def _conditions_of(usage: Mapping[str, Any]) -> dict[str, str]:
    """What changes the price: Perplexity's search, and the speed that a proxy passes on from Anthropic."""
    return {
        name: value
        for name in ("search_type", "speed")
        if name in usage and (value := text_of(usage[name])) is not None and value != "standard"
    }


def _old_call(delta: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The old single `function_call`; some servers send an empty one with every reply."""
    function = mapped(delta.get("function_call"))
    is_empty = not text_of(function.get("name")) and not function.get("arguments")
    return [] if is_empty else [{"index": 0, "function": function}]


# --- Streamed

_HEAD = ("id", "model", "service_tier")
_TELLING_HEAD = 2
"""How much of the head is looked for in plain text too: most streams have an id and a model, and no tier."""
_HALVES = ("prompt_tokens", "completion_tokens")
_READ_HERE = frozenset({"role", "content", "tool_calls", "function_call", "obfuscation"})
"""The fields of a delta that have a place of their own here; all others are merged for the whole message."""


class ChatReader:
    """Puts a streamed completion together. Only the first choice is streamed out; the others are in `raw`."""

    def __init__(self, dialect: Dialect = OPENAI) -> None:
        self._dialect = dialect
        self._text: list[str] = []
        self._calls: dict[int, CallPieces] = {}
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
        reader = self if index == 0 else self._others.setdefault(index, ChatReader(self._dialect))
        deltas = reader._delta(mapped(choice.get("delta")))
        if logprobs := mapped(choice.get("logprobs")):
            reader._logprobs.append(logprobs)
        return deltas if index == 0 else ()

    def _delta(self, delta: Mapping[str, Any]) -> Sequence[StreamEvent]:
        deltas: list[StreamEvent] = []
        text, thought = split_content(delta.get("content"))
        if thought and not _reasoning_of(delta):
            delta = {**delta, "reasoning_content": thought}
        if thought := _reasoning_of(delta) or "":
            deltas.append(ReasoningDelta(thought))
        if text:
            self._text.append(text)
            deltas.append(TextDelta(text))
        deltas.extend(self._call_delta(call) for call in listed(delta.get("tool_calls")) or _old_call(delta))
        if not _READ_HERE.issuperset(delta):
            self._more.append(delta)
        return deltas

    def _call_delta(self, call: Mapping[str, Any]) -> ToolCallDelta:
        call_id = text_of(call.get("id"))
        name, arguments, is_custom = _asked_tool(call)
        index = self._index_of(count_of(call.get("index")), call_id, name)
        pieces = self._calls.setdefault(index, CallPieces())
        is_first = pieces.name is None
        pieces.id = pieces.id or call_id
        pieces.name = pieces.name or name
        pieces.is_custom = pieces.is_custom or is_custom
        piece = arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        return pieces.delta(index, piece, is_first=is_first)

    def _index_of(self, wire_index: int | None, call_id: str | None, name: str | None) -> int:
        """The call that a piece belongs to: of its index, else of its id, else the latest one.

        A name begins a new call where the id is another one, or where neither index nor id says which call it is:
        some servers give every call the index 0, or none.
        """
        if wire_index is None and call_id:
            known = next((index for index, pieces in self._calls.items() if pieces.id == call_id), None)
            if known is not None:
                return known
        latest = self._latest.get(wire_index)
        if latest is None or self._is_another(self._calls[latest], wire_index, call_id, name):
            following = max(self._calls, default=-1) + 1
            latest = following if wire_index is None or wire_index in self._calls else wire_index
        self._latest[wire_index] = self._latest[None] = latest
        return latest

    @staticmethod
    def _is_another(pieces: CallPieces, wire_index: int | None, call_id: str | None, name: str | None) -> bool:
        if wire_index is None:
            return bool(call_id) or bool(name and pieces.name)
        return bool(name and pieces.name and call_id and pieces.id and call_id != pieces.id)

    def response(self, request_id: str | None) -> LLMResponse:
        return from_payload(self._raw(), request_id=request_id, dialect=self._dialect)

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
        return {**choice, "logprobs": _merged(self._logprobs)} if self._logprobs else choice

    def _message(self) -> dict[str, Any]:
        more = {name: value for name, value in _merged(self._more).items() if name not in _READ_HERE}
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._text) or None, **more}
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


_NAMES = frozenset({"id", "type", "name", "format"})
"""The strings that say which thing a piece belongs to, and do not go on."""


def _merged(pieces: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The pieces of one thing, put together field by field; a null says nothing."""
    found: dict[str, list[Any]] = {}
    for piece in pieces:
        for name, value in piece.items():
            found.setdefault(name, []).extend(() if value is None else (value,))
    return {name: _whole(name, values) for name, values in found.items()}


def _whole(name: str, values: Sequence[Any]) -> object:
    """Strings and lists go on, objects are merged, and of anything else the last holds."""
    if not values:
        return None
    if name not in _NAMES and all(isinstance(value, str) for value in values):
        return "".join(values)
    if all(isinstance(value, list) for value in values):
        return list(itertools.chain.from_iterable(values))
    if all(isinstance(value, dict) for value in values):
        return _merged(values)
    return values[-1]
