"""Replies in the hands of other code, in the normal form: SDK objects, dicts, and the pieces of streams."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from .._base.once import report_fault
from ..ai.llm.providers._sse import ServerSentEvent
from ..ai.llm.providers._wire_format import StreamReader, WireFormat
from ..ai.llm.providers.bedrock import CONVERSE
from ..ai.llm.types import Finish, LLMResponse, LLMUsage
from .recognition import wire_at

log = logging.getLogger(__name__)

_MAX_DEPTH = 32
"""Levels of an object that are looked at; no reply is as deep."""
_ANTHROPIC = frozenset(
    {
        *("message_start", "message_delta", "message_stop", "ping"),
        *("content_block_start", "content_block_delta", "content_block_stop"),
    }
)
_COHERE = frozenset(
    {
        *("message-start", "content-start", "content-delta", "content-end", "message-end"),
        *("tool-plan-delta", "tool-call-start", "tool-call-delta", "tool-call-end", "citation-start", "citation-end"),
    }
)
_CONVERSE = frozenset(
    {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"}
)
"""The events of streams, by the word that tells them."""


def reply_in(value: object, provider: str) -> LLMResponse | None:
    """The reply in what a call returned; `None` where nothing in it is understood.

    Args:
        value: an SDK's object, a dict, or one of our own types.
        provider: the provider that answered, whose way of counting applies.
    """
    if (own := _own_reply(value)) is not None:
        return own
    document = _document_in(value)
    wire = _wire_of(document, provider)
    if wire is None:
        return None
    try:
        return wire.from_payload(document, None)
    except Exception:
        report_fault(log, type(value).__name__, "usage")
        return None


def _own_reply(value: object) -> LLMResponse | None:
    if isinstance(value, Finish):
        value = value.response
    if isinstance(value, LLMUsage):
        return LLMResponse("", value)
    return value if isinstance(value, LLMResponse) else None


class PiecesOfReply:
    """Puts a reply together from the pieces that an SDK hands out.

    Args:
        provider: the provider that answers.
    """

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._reader: StreamReader | None = None
        self._own: LLMResponse | None = None
        self._is_off = False

    def feed(self, piece: object) -> None:
        """Read a piece; never raises."""
        if self._is_off:
            return
        try:
            self._feed(piece)
        except Exception:
            self._is_off = True
            report_fault(log, type(piece).__name__, "usage")

    def _feed(self, piece: object) -> None:
        if isinstance(piece, str | bytes):
            return
        if (own := _own_reply(piece)) is not None:
            self._own = own
            return
        document = _document_in(piece)
        if self._reader is None:
            wire = _wire_of(document, self._provider)
            if wire is None:
                return
            self._reader = wire.new_reader()
        for event in _events_in(document):
            self._reader.feed(event)

    def reply(self) -> LLMResponse | None:
        """The reply as far as it has come; `None` where no piece was understood."""
        if self._own is not None or self._reader is None:
            return self._own
        try:
            return self._reader.response(None)
        except Exception:
            report_fault(log, type(self._reader).__name__, "response")
            return None


def _events_in(document: Mapping[str, Any]) -> Iterator[ServerSentEvent]:
    if document.keys() & _CONVERSE and "type" not in document:
        for name, inner in document.items():
            if name in _CONVERSE and isinstance(inner, dict):
                yield ServerSentEvent(name, b"", cast("dict[str, Any]", inner))
        return
    kind = document.get("type")
    yield ServerSentEvent(kind if isinstance(kind, str) else "message", b"", document)


def _wire_of(document: Mapping[str, Any], provider: str) -> WireFormat | None:
    """The format of a document, by the words that only it has."""
    kind = document.get("type")
    if "choices" in document:
        return wire_at("/chat/completions", provider)
    if isinstance(document.get("output"), list) or (isinstance(kind, str) and kind.startswith("response.")):
        return wire_at("/responses", provider)
    if "candidates" in document or "usageMetadata" in document:
        return wire_at(":generateContent", provider)
    if kind in _ANTHROPIC or (kind == "message" and "content" in document):
        return wire_at("/v1/messages", provider)
    if kind in _COHERE or "billed_units" in _object_at(document, "usage"):
        return wire_at("/v2/chat", provider)
    if "done" in document and "model" in document:
        return wire_at("/api/chat", provider)
    if (document.keys() & _CONVERSE and kind is None) or "inputTokens" in _object_at(document, "usage"):
        return CONVERSE
    return None


def _object_at(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _document_in(value: object) -> dict[str, Any]:
    """An object as the JSON that it came from; empty where it is none."""
    plain = _plain(value, _MAX_DEPTH)
    if not isinstance(plain, dict):
        return {}
    document = cast("dict[str, Any]", plain)
    # Google's SDKs name the fields of their JSON as Python does.
    return cast("dict[str, Any]", _camel(document)) if _is_googles(document) else document


def _is_googles(document: Mapping[str, Any]) -> bool:
    return "usage_metadata" in document and ("candidates" in document or "prompt_feedback" in document)


def _camel(value: object) -> object:
    if isinstance(value, list):
        return [_camel(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    return {_camel_name(name): _camel(item) for name, item in cast("dict[str, object]", value).items()}


def _camel_name(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def _plain(value: object, depth: int) -> object:
    """The value as dicts, lists and scalars; what has no such form is left out."""
    if value is None or isinstance(value, str | int | float | bool):
        return getattr(value, "value", value)  # the members of an enumeration of strings have one
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {name: _plain(item, depth - 1) for name, item in items if isinstance(name, str)}
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in cast("list[object]", value)]
    dumped = _dumped(value)
    return None if dumped is None else _plain(dumped, depth - 1)


def _dumped(value: object) -> object:
    """What an object says that it is made of."""
    for method, options in (("model_dump", {"mode": "json", "exclude_none": True}), ("to_dict", {})):
        dump = getattr(type(value), method, None)
        if callable(dump):
            return _called(dump, value, options)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, bytes | bytearray | type) or callable(value):
        return None
    found: object = getattr(value, "__dict__", None)
    if not isinstance(found, dict):
        return None
    return {name: item for name, item in cast("dict[str, object]", found).items() if not name.startswith("_")}


def _called(dump: Callable[..., object], value: object, options: dict[str, Any]) -> object:
    try:
        return dump(value, **options)
    except TypeError:  # another signature
        return dump(value)
