"""Prompts and answers on spans and events, if the user asked to have them recorded.

Secrets are removed first, then the user's function sees each part, then what is too long is cut, part by part, so that
valid JSON of the same shape remains.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from .._base.once import report_fault
from ..ai.llm.message_parts import ChatMessage, InputContent, Part
from . import semconv
from .capture import Redact, is_part_with, plain
from .sanitize import MAX_BYTES, sanitized_json

log = logging.getLogger(__name__)

_SHORTEST = 32
"""Characters of a string below which whole messages are left out instead."""
_FOR_REDACT = 1_000_000
"""Characters of a string that the user's function sees."""
_MAX_NODES = 20_000
"""Values of one part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentOptions:
    """What is recorded of prompts and answers, and where."""

    on_span: bool = False
    """Whether it is on the span, as JSON."""
    on_event: bool = False
    """Whether it is on an event of the logs signal, as structured values."""
    limit: int = MAX_BYTES
    """Bytes of one attribute."""
    redact: Redact | None = None
    """A user's function that sees each part before it is recorded."""

    @property
    def is_captured(self) -> bool:
        """Whether any content is recorded."""
        return self.on_span or self.on_event


NO_CONTENT = ContentOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownContent:
    """The content of one attribute: a list, and the same as JSON."""

    values: list[dict[str, Any]]
    """The messages or parts."""
    text: str
    """Their JSON."""


def shown_content(
    asked: InputContent | None, answered: Sequence[ChatMessage], options: ContentOptions
) -> dict[str, ShownContent]:
    """The content attributes of a call, each redacted and cut to fit; what is empty has none.

    Args:
        asked: what the model is asked, if it is known.
        answered: what it answered, one message for each choice.
        options: what to record.
    """
    found: dict[str, ShownContent | None] = {}
    if asked is not None:
        found[semconv.GEN_AI_SYSTEM_INSTRUCTIONS] = _shown_parts(asked.system_instructions, "system", options)
        found[semconv.GEN_AI_INPUT_MESSAGES] = _shown_messages(asked.messages, options)
        found[semconv.GEN_AI_TOOL_DEFINITIONS] = _shown_parts(asked.tool_definitions, "system", options)
    found[semconv.GEN_AI_OUTPUT_MESSAGES] = _shown_messages(answered, options)
    return {name: shown for name, shown in found.items() if shown is not None}


def _shown_messages(messages: Sequence[ChatMessage], options: ContentOptions) -> ShownContent | None:
    if not messages:
        return None
    return _fitted(_redacted(messages, options.redact), options.limit)


def _shown_parts(parts: tuple[Part, ...], role: str, options: ContentOptions) -> ShownContent | None:
    if not parts:
        return None
    [message] = _redacted((ChatMessage(role=role, parts=parts),), options.redact)
    return _fitted((message,), options.limit, has_messages=False) if message.parts else None


# --- The user's function ---


def _redacted(messages: Sequence[ChatMessage], redact: Redact | None) -> Sequence[ChatMessage]:
    """The messages as the user's function leaves them. Where it fails, the part is not recorded."""
    if redact is None:
        return messages
    return [replace(message, parts=tuple(_kept_parts(message, redact))) for message in messages]


def _kept_parts(message: ChatMessage, redact: Redact) -> Iterator[Part]:
    for part in message.parts:
        try:
            kept = redact(cast("Part", _plain(part, _FOR_REDACT, _MAX_NODES)), message.role)
            if kept is not None and is_part_with("type", kept):
                yield kept
        except Exception:
            report_fault(log, "configure", "redact", is_users=True)


# --- Fitting ---


def _fitted(messages: Sequence[ChatMessage], limit: int, *, has_messages: bool = True) -> ShownContent:
    """The messages, cut until their JSON has at most so many bytes: long strings first, then parts in the middle."""
    for shown in _shorter_and_shorter(messages, limit):
        values = list(map(_message_object, shown))
        listed: list[dict[str, Any]] = values if has_messages else [*shown[0].parts]
        try:
            text = _json(listed)
            size = len(text.encode())
        except UnicodeEncodeError:  # a lone surrogate, which no exporter can encode
            listed = cast("list[dict[str, Any]]", sanitized_json(listed))
            text = _json(listed)
            size = len(text.encode())
        if size <= limit:
            return ShownContent(values=listed, text=text)
    return ShownContent(values=[], text="[]")


def _message_object(message: ChatMessage) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "parts": [*message.parts]}
    return told if message.finish_reason is None else {**told, "finish_reason": message.finish_reason}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _shorter_and_shorter(messages: Sequence[ChatMessage], limit: int) -> Iterator[Sequence[ChatMessage]]:
    length = _fair_length([size for message in messages for part in message.parts for size in _sizes(part)], limit)
    while length > _SHORTEST:
        yield [_cut(message, length, _MAX_NODES) for message in messages]
        length //= 2
    kept, nodes = max(len(messages), *(len(message.parts) for message in messages)), _MAX_NODES
    while kept > 1 or nodes > 1:
        kept, nodes = max(kept // 2, 1), nodes // 4
        yield [_cut(_with_few_parts(message, kept), _SHORTEST, nodes) for message in _few(messages, kept)]


def _fair_length(sizes: list[int], limit: int) -> int:
    """The length to which strings of these lengths are cut, so that together they have at most `limit` characters."""
    left = limit
    for number, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - number)
        if size > share:
            return share
        left -= size
    return limit


def _sizes(value: object) -> Iterator[int]:
    if isinstance(value, str):
        yield len(value)
    elif isinstance(value, Mapping):
        for item in cast("Mapping[str, object]", value).values():
            yield from _sizes(item)
    elif isinstance(value, list | tuple):
        for item in cast("Sequence[object]", value):
            yield from _sizes(item)


def _cut(message: ChatMessage, length: int, nodes: int) -> ChatMessage:
    return replace(message, parts=tuple(cast("Part", _plain(part, length, nodes)) for part in message.parts))


def _few(messages: Sequence[ChatMessage], kept: int) -> list[ChatMessage]:
    """The first message and the last ones, with a message in between that says how many are missing."""
    missing = len(messages) - kept - 1
    if missing < 1:
        return [*messages]
    note = ChatMessage(role="system", parts=(_note(f"{missing} messages left out"),))
    return [messages[0], note, *messages[len(messages) - kept :]]


def _with_few_parts(message: ChatMessage, kept: int) -> ChatMessage:
    missing = len(message.parts) - kept
    if missing < 1:
        return message
    return replace(message, parts=(*message.parts[:kept], _note(f"{missing} parts left out")))


def _note(said: str) -> Part:
    return {"type": "text", "name": "truncated", "content": f"[{said}]"}


def _plain(part: Part, length: int, nodes: int) -> object:
    """A part as plain data without secrets; what can be long is cut."""
    shown = cast("Part", plain(part, text=length, items=nodes, nodes=nodes))
    return {**shown, "type": part["type"]} if "type" in part else shown
