"""What the bytes of an error reply hold: JSON in whatever wrapping, a page, or plain text."""

from __future__ import annotations

import html
import json
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

from ._sse import EventDecoder

_GZIP = b"\x1f\x8b"
_MOST_BYTES = 65536
"""So much of a body is unpacked and read."""
_MOST_SAID = 5
"""So many entries of a list of faults are told."""
_DEEPEST = 6
"""So deep errors stand inside errors."""
_SAYING = (
    "message",
    "msg",
    "errormessage",
    "errormsg",
    "errmsg",
    "statusmessage",
    "statusmsg",
    "faultstring",
    "detail",
    "errordescription",
    "description",
    "reason",
    "cause",
    "messages",
    "error",
    "errors",
    "err",
    "exception",
    "fault",
    "info",
    "baseresp",
    "responsemetadata",
)
"""Fields that say what is wrong, in a string or further in: those that say most first, spelt as `_plain_names` does."""
_AROUND = ("details", "data", "response", "result", "body", "status")
"""Fields that may have an error inside. A string in them is a status, or a part of the reply."""
_BY_FIELD = ("errors", "message", "detail")
"""Fields that may hold faults under the names of the fields they are about, as Rails and Laravel tell them."""
_ECHOES = ("role", "content", "input", "prompt")
"""Fields that tell an object is what was sent, or a message of the reply."""
_NO_WORD = re.compile("[-_]")
_PAGE = re.compile(r"\A<|<(?:!doctype|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_XML_MESSAGE = re.compile(r"<message>([^<]*)</message>", re.IGNORECASE)


def document_in(body: bytes) -> object:
    """The JSON document in a body: bare, in an event, on a line, behind a label. Else its text; `None` for nothing."""
    text = _text_in(body).strip()
    if (found := parsed(text)) is not None:
        return found
    if text.startswith('"') or text == "null":
        return _scalar(text)
    events = [said for said in _events_in(text) if said]
    wrapped = (*events, *text.splitlines()[:_MOST_SAID], text[text.find("{") :])
    documents = [document for each in wrapped if (document := parsed(each.strip())) is not None]
    speaking = (document for document in documents if words_of(document))
    return next(iter((*speaking, *documents, *events, text))) or None


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


def _events_in(text: str) -> Iterator[str]:
    decoder = EventDecoder()
    for event in (*decoder.feed(text.encode("utf-8", "replace")), *decoder.end()):
        yield event.data.decode("utf-8", "replace").strip()


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
    if page := _PAGE.search(text):
        return " ".join(filter(None, (text[: page.start()].strip(), _title_of(text[page.start() :])))) or None
    inner = parsed(text)
    return (words_of(inner, depth + 1) if inner is not None else None) or text or None


def _title_of(page: str) -> str | None:
    found = _TITLE.search(page[:_MOST_BYTES]) or _XML_MESSAGE.search(page[:_MOST_BYTES])
    return " ".join(html.unescape(found[1]).split()) or None if found else None


def _words_of_fields(fields: dict[str, Any], depth: int) -> str | None:
    title, said, behind = _title_field(fields), _said_in(fields, depth), _words_from_upstream(fields, depth)
    told = ": ".join(dict.fromkeys(filter(None, (_place_of(fields), title, said, behind))))
    return told if title or said or behind else None


def _said_in(fields: dict[str, Any], depth: int) -> str | None:
    named = _plain_names(fields)
    places = dict.fromkeys((*_SAYING, *_inside(named)))
    # A string in `error` may be no more than a name; an object in it says most.
    if isinstance(named.get("error"), dict | list):
        places = {"error": None, **places}
    said = (words_of(named.get(name), depth + 1) for name in places)
    by_field = (_words_by_field(named.get(name), depth) for name in _BY_FIELD)
    return next(filter(None, chain(said, by_field)), None)


def _inside(named: dict[str, Any]) -> list[str]:
    return [name for name in _AROUND if isinstance(named.get(name), dict | list)]


def _plain_names(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields by names in lower case and in one word: `errorMessage` is `error_message`."""
    return {_NO_WORD.sub("", name).lower(): value for name, value in reversed(fields.items()) if value is not None}


def _words_by_field(faults: object, depth: int) -> str | None:
    if not isinstance(faults, dict) or any(name in faults for name in _ECHOES):
        return None
    named = list(cast("dict[str, object]", faults).items())[:_MOST_SAID]
    told = [(name, cast("object", each)) for name, each in named if isinstance(each, list | str)]
    said = [f"{name}: {words}" for name, each in told if (words := words_of(each, depth + 1))]
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
    """The fields of an error, spelt as `_plain_names` does, the inner ones before the outer ones."""
    if depth > _DEEPEST:
        return {}
    if isinstance(document, str):
        return fields_of(parsed(document.strip()), depth + 1)
    if isinstance(document, list):
        objects = (cast("object", each) for each in cast("list[object]", document) if isinstance(each, dict))
        return fields_of(next(objects, None), depth + 1)
    if not isinstance(document, dict):
        return {}
    outer = _plain_names(cast("dict[str, Any]", document))
    speaking = (name for name in _inside(outer) if words_of(outer[name], depth + 1))
    inside = (fields_of(outer.get(name), depth + 1) for name in ("error", *_SAYING, *speaking))
    inner = next(filter(None, inside), dict[str, Any]())
    return {**outer, **inner} if "loc" not in inner else outer
