"""A streamed reply of Chat Completions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from ..types import LLMResponse, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from ._assembly import CallPieces
from ._chat_reply import asked_tool, from_payload, old_call, reasoning_of, split_content
from ._dialect import OPENAI, Dialect
from ._error_bodies import error_body, is_error
from ._sse import ServerSentEvent
from ._wire_format import DONE, StreamedError, count_of, cumulated, document_of, listed, mapped, text_of

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


class ChatReader:
    """Puts a streamed completion together. Only the first choice is streamed out; the others are in `raw`."""

    def __init__(self, dialect: Dialect = OPENAI) -> None:
        self._dialect = dialect
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
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
        reader = self if index == 0 else self._others.setdefault(index, ChatReader(self._dialect))
        deltas = reader._delta(mapped(choice.get("delta")))
        if logprobs := mapped(choice.get("logprobs")):
            reader._logprobs.append(logprobs)
        return deltas if index == 0 else ()

    def _delta(self, delta: Mapping[str, Any]) -> Sequence[StreamEvent]:
        content = delta.get("content")
        deltas: list[StreamEvent] = []
        text, thought = split_content(content)
        if thought := reasoning_of(delta) or thought:
            self._reasoning.append(thought)
            self._reasoning_name = "reasoning" if "reasoning" in delta else "reasoning_content"
            deltas.append(ReasoningDelta(thought))
        if text:
            self._text.append(text)
            deltas.append(TextDelta(text))
        if refusal := text_of(delta.get("refusal")):
            self._refusal.append(refusal)
        deltas.extend(self._call_delta(call) for call in listed(delta.get("tool_calls")) or old_call(delta))
        if not _READ_HERE.issuperset(delta):
            self._more.append({name: value for name, value in delta.items() if name not in _READ_HERE})
        return deltas

    def _call_delta(self, call: Mapping[str, Any]) -> ToolCallDelta:
        call_id = text_of(call.get("id"))
        name, arguments, is_custom = asked_tool(call)
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
    def _is_another(pieces: CallPieces, wire_index: int | None, call_id: str | None, name: str | None) -> bool:
        if wire_index is None:
            return bool(call_id) or bool(name and pieces.name)
        return bool(name and pieces.name and call_id and pieces.id and call_id != pieces.id)

    @property
    def _next_index(self) -> int:
        return max(self._calls, default=-1) + 1

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
