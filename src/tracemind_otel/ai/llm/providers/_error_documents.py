"""What the bytes of an error reply hold: JSON in whatever wrapping, a page, or plain text."""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, cast

from ._sse import EventDecoder

_GZIP = b"\x1f\x8b"
_MOST_BYTES = 65536
"""So much of a body is unpacked and read."""
_MOST_SAID = 5
"""So many entries of a list of faults are told."""
_DEEPEST = 6
"""So deep errors stand inside errors."""
_WORDS = ("message", "Message", "msg", "error_message", "errorMessage", "status_msg", "detail", "error_description")
_INSIDE = ("error", "errors", "exception", "base_resp", "fault")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_XML_MESSAGE = re.compile(r"<message>([^<]*)</message>", re.IGNORECASE)


def document_in(body: bytes) -> object:
    """The JSON document that a body holds, bare, behind `data:` or line by line; else its text; `None` for nothing."""
    text = _text_in(body).strip()
    if (found := parsed(text)) is not None:
        return found
    if text.startswith('"') or text == "null":
        return _scalar(text)
    candidates = [document for document in (*_events(text), *_lines(text)) if document is not None]
    speaking = (document for document in candidates if words_of(document))
    return next(speaking, candidates[0] if candidates else text or None)


def _scalar(text: str) -> object:
    """A body that is one JSON string, or null."""
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text


def _text_in(body: bytes) -> str:
    if body.startswith(_GZIP):
        body = _unpacked(body)
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return body.decode("utf-16", "replace")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A body that breaks off within a character is UTF-8 all the same.
        return body.decode("utf-8-sig", "replace") if error.end >= len(body) - 1 else body.decode("latin-1")


def _unpacked(body: bytes) -> bytes:
    """Gzip that somebody forgot to declare; what cannot be unpacked tells nothing."""
    try:
        return zlib.decompressobj(wbits=31).decompress(body, _MOST_BYTES)
    except zlib.error:
        return b""


def parsed(text: str) -> dict[str, Any] | list[Any] | None:
    """The object or the list that a text is as JSON; `None` for any other."""
    if not text.startswith(("{", "[")):
        return None
    try:
        return cast("dict[str, Any] | list[Any]", json.loads(text, strict=False))
    except (ValueError, RecursionError):
        return None


def _events(text: str) -> Iterator[dict[str, Any] | list[Any] | None]:
    decoder = EventDecoder()
    for event in (*decoder.feed(text.encode("utf-8", "replace")), *decoder.end()):
        said = event.data.decode("utf-8", "replace").strip()
        yield parsed(said)


def _lines(text: str) -> Iterator[dict[str, Any] | list[Any] | None]:
    return (parsed(line.strip()) for line in text.splitlines()[:_MOST_SAID])


def words_of(value: object, depth: int = 0) -> str | None:
    """What a document says for a person, wherever it stands; `None` where it says nothing."""
    if depth > _DEEPEST:
        return None
    if isinstance(value, str):
        return _words_of_text(value.strip(), depth)
    if isinstance(value, list):
        said = [words_of(each, depth + 1) for each in cast("list[object]", value)[:_MOST_SAID]]
        return "; ".join(dict.fromkeys(filter(None, said))) or None
    return _words_of_fields(cast("dict[str, Any]", value), depth) if isinstance(value, dict) else None


def _words_of_text(text: str, depth: int) -> str | None:
    if text.startswith("<"):
        return _title_of(text)
    inner = parsed(text)
    return (words_of(inner, depth + 1) if inner is not None else None) or text or None


def _title_of(page: str) -> str | None:
    found = _TITLE.search(page[:_MOST_BYTES]) or _XML_MESSAGE.search(page[:_MOST_BYTES])
    return " ".join(html.unescape(found[1]).split()) or None if found else None


def _words_of_fields(fields: dict[str, Any], depth: int) -> str | None:
    first = words_of(fields["error"], depth + 1) if isinstance(fields.get("error"), dict | list) else None
    said = first or next(filter(None, (words_of(fields.get(name), depth + 1) for name in _WORDS)), None)
    said = said or next(filter(None, (words_of(fields.get(name), depth + 1) for name in _INSIDE)), None)
    said = said or _words_by_field(fields.get("errors"), depth)
    behind = _words_from_upstream(fields, depth)
    told = ": ".join(dict.fromkeys(filter(None, (_place_of(fields), _title_field(fields), said, behind))))
    return told if said or behind or _title_field(fields) else None


def _words_by_field(errors: object, depth: int) -> str | None:
    """Faults under the names of the fields that have them, as Rails and Laravel tell them."""
    if not isinstance(errors, dict):
        return None
    named = list(cast("dict[str, object]", errors).items())[:_MOST_SAID]
    lists = [(name, cast("object", each)) for name, each in named if isinstance(each, list)]
    said = [f"{name}: {words}" for name, each in lists if (words := words_of(each, depth + 1))]
    return "; ".join(said) or None


def _title_field(fields: dict[str, Any]) -> str | None:
    """The title of a problem (RFC 9457)."""
    title = fields.get("title")
    return title.strip() or None if isinstance(title, str) else None


def _words_from_upstream(fields: dict[str, Any], depth: int) -> str | None:
    """What the provider behind a gateway said, as OpenRouter passes it on."""
    metadata = fields.get("metadata")
    return words_of(cast("dict[str, Any]", metadata).get("raw"), depth + 1) if isinstance(metadata, dict) else None


def _place_of(fields: dict[str, Any]) -> str | None:
    """Where in the request a fault is, as FastAPI and pydantic tell it."""
    place = fields.get("loc")
    if not isinstance(place, list) or not 0 < len(cast("list[object]", place)) < 20:
        return None
    return ".".join(str(part) for part in cast("list[object]", place))


def fields_of(document: object, depth: int = 0) -> dict[str, Any]:
    """The fields of an error, the inner ones before the outer ones."""
    if depth > _DEEPEST:
        return {}
    if isinstance(document, str):
        return fields_of(parsed(document.strip()), depth + 1)
    if isinstance(document, list):
        objects = (cast("object", each) for each in cast("list[object]", document) if isinstance(each, dict))
        return fields_of(next(objects, None), depth + 1)
    if not isinstance(document, dict):
        return {}
    outer = cast("dict[str, Any]", document)
    inside = (outer.get(name) for name in ("error", "detail", "message", "errors"))
    inner = next(filter(None, (fields_of(each, depth + 1) for each in inside)), dict[str, Any]())
    return {**outer, **inner} if "loc" not in inner else outer
