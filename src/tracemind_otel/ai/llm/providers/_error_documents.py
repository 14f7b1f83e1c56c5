"""Error replies, read from bytes: JSON in any wrapping, a page of HTML or XML, or plain text."""

from __future__ import annotations

import html
import json
import re
import zlib
from itertools import chain
from typing import Any, cast

from ._sse import EventDecoder

_GZIP = b"\x1f\x8b"
_MAX_BYTES = 65536
"""Bytes of a body that are unpacked and searched."""
_MAX_ENTRIES = 5
"""Entries of a list of errors that the message repeats."""
_MAX_DEPTH = 6
"""Depth to which errors inside errors are followed."""
_MESSAGES = ("message", "msg", "errormessage", "errormsg", "errmsg", "statusmessage", "statusmsg", "faultstring")
_DETAILS = ("detail", "errordescription", "description", "reason", "cause", "messages")
_ERRORS = ("error", "errors", "err", "exception", "fault", "info", "baseresp", "responsemetadata")
_SAYING = (*_MESSAGES, *_DETAILS, *_ERRORS)
"""Fields with the message, as a string or further in: the most telling first, spelled as by `_plain_names`."""
_AROUND = ("details", "data", "response", "result", "body", "status")
"""Fields that may have an error inside. A string in them is a status, or a part of the reply."""
_BY_FIELD = ("errors", "message", "detail")
"""Fields that may map the names of wrong fields to messages, as Rails and Laravel do."""
_ECHOES = ("role", "content", "input", "prompt")
"""Fields by which an object is known as the request's own, or as a message of the reply."""
_NO_WORD = re.compile("[-_]")
_PAGE = re.compile(r"\A<|<(?:!doctype|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>|<message>([^<]*)</message>", re.IGNORECASE | re.DOTALL)


def document_in(body: bytes) -> object:
    """The JSON document in a body: bare, in an event, on a line, after a label. Else its text; `None` if empty."""
    text = _text_in(body).strip()
    if (found := parsed(text, begins_with=("{", "[", '"'))) is not None or text == "null":
        return found
    decoder = EventDecoder()
    came = (*decoder.feed(text.encode("utf-8", "replace")), *decoder.end())
    events = list(filter(None, (event.data.decode("utf-8", "replace").strip() for event in came)))
    wrapped = (*events, *text.splitlines()[:_MAX_ENTRIES], text[text.find("{") :])
    documents = [document for each in wrapped if (document := parsed(each.strip())) is not None]
    speaking = (document for document in documents if words_of(document))
    return next(iter((*speaking, *documents, *events, text))) or None


def _text_in(body: bytes) -> str:
    if body.startswith(_GZIP):  # not declared, so HTTP left it packed
        try:
            body = zlib.decompressobj(wbits=31).decompress(body, _MAX_BYTES)
        except zlib.error:
            return ""
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return body.decode("utf-16", "replace")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A body that breaks off within a character is UTF-8 all the same.
        return body.decode("utf-8-sig", "replace") if error.end >= len(body) - 1 else body.decode("latin-1")


def parsed(text: str, begins_with: tuple[str, ...] = ("{", "[")) -> object:
    """The JSON value of a string that begins like an object or a list; `None` for any other."""
    if not text.startswith(begins_with):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def words_of(value: object, depth: int = 0) -> str | None:
    """The message of a document, searched at any depth; `None` if it has none."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return _words_of_text(value.strip(), depth)
    if isinstance(value, list):
        said = [words_of(each, depth + 1) for each in cast("list[object]", value)[:_MAX_ENTRIES]]
        return "; ".join(dict.fromkeys(filter(None, said))) or None
    return _words_of_fields(cast("dict[str, Any]", value), depth) if isinstance(value, dict) else None


def _words_of_text(text: str, depth: int) -> str | None:
    if page := _PAGE.search(text):
        found = _TITLE.search(text, page.start(), page.start() + _MAX_BYTES)
        title = html.unescape(found[1] or found[2] or "").split() if found else []
        return " ".join(filter(None, (text[: page.start()].strip(), *title))) or None
    inner = parsed(text)
    return (words_of(inner, depth + 1) if inner is not None else None) or text or None


def _words_of_fields(fields: dict[str, Any], depth: int) -> str | None:
    title = fields.get("title")  # of a problem (RFC 9457)
    metadata = fields.get("metadata")  # in which OpenRouter passes on what the provider behind it said
    upstream = cast("dict[str, Any]", metadata).get("raw") if isinstance(metadata, dict) else None
    said = (title.strip() if isinstance(title, str) else None, _said_in(fields, depth), words_of(upstream, depth + 1))
    told = dict.fromkeys(filter(None, (_place_of(fields), *said)))
    return ": ".join(told) if any(said) else None


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
    """The fields by names in lower case and in one word: `errorMessage` and `error_message` are `errormessage`."""
    return {_NO_WORD.sub("", name).lower(): value for name, value in reversed(fields.items()) if value is not None}


def _words_by_field(faults: object, depth: int) -> str | None:
    if not isinstance(faults, dict) or any(name in faults for name in _ECHOES):
        return None
    named = list(cast("dict[str, object]", faults).items())[:_MAX_ENTRIES]
    told = [(name, cast("object", each)) for name, each in named if isinstance(each, list | str)]
    return "; ".join(f"{name}: {words}" for name, each in told if (words := words_of(each, depth + 1))) or None


def _place_of(fields: dict[str, Any]) -> str | None:
    """Where in the request a fault is, as FastAPI and pydantic name it."""
    place = fields.get("loc")
    parts = cast("list[object]", place) if isinstance(place, list) else []
    return ".".join(map(str, parts)) if len(parts) < 20 else None


def fields_of(document: object, depth: int = 0) -> dict[str, Any]:
    """The fields of an error by their plain names; an inner field goes before an outer one."""
    if depth > _MAX_DEPTH:
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
