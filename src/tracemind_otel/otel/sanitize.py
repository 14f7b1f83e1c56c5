"""Strings that any exporter can encode and any backend can store.

OTLP is UTF-8: a lone surrogate in one span makes a whole batch fail to encode. Many backends reject NUL, and a string
of megabytes fills a request that other spans need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

V = TypeVar("V")

MAX_BYTES = 64 * 1024
"""Bytes of one string in UTF-8."""

_REPLACEMENT = "\ufffd"


def sanitized(text: str) -> str:
    """The string without NUL and lone surrogates, and not too long; the same object if there is nothing to do."""
    if len(text) <= MAX_BYTES and "\0" not in text and text.isascii():
        return text
    whole = text[: MAX_BYTES + 1].replace("\0", _REPLACEMENT)
    # UTF-16 makes one character of a surrogate pair, so that only lone surrogates are replaced.
    readable = whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    encoded = readable.encode()
    return readable if len(encoded) <= MAX_BYTES else encoded[: MAX_BYTES - 3].decode("utf-8", "ignore") + "…"


def encodable(attributes: Mapping[str, V]) -> Mapping[str, V]:
    """The attributes, sanitized if one of their values needs it; names are not checked, so they must be ours."""
    value: Any
    for value in attributes.values():  # the usual values without a call for each: there are thirty to a span
        if type(value) is str:
            if value.isascii() and "\0" not in value and len(value) <= MAX_BYTES:
                continue
        elif type(value) is float or (type(value) is int and -(2**63) <= value < 2**63):
            continue
        if not _is_storable(value):
            return sanitized_attributes(attributes)
    return attributes


def _is_storable(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_BYTES and value.isascii() and "\0" not in value
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, float) or (isinstance(value, tuple) and all(map(_is_storable, cast("Any", value))))


def sanitized_attributes(attributes: Mapping[str, V] | None) -> dict[str, V]:
    """The attributes with sanitized names and values, also in lists."""
    return {sanitized(name): cast("V", _sanitized_value(value)) for name, value in (attributes or {}).items()}


def _sanitized_value(value: Any) -> object:
    if isinstance(value, str):
        return sanitized(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return tuple(_sanitized_value(item) for item in cast("Sequence[object]", value))
    if isinstance(value, Mapping):
        return sanitized_attributes(cast("Mapping[str, object]", value))
    is_too_large = isinstance(value, int) and not -(2**63) <= value < 2**63
    return str(value) if is_too_large else value


def sanitized_json(value: object) -> object:
    """Plain JSON data with sanitized strings, keys included."""
    if isinstance(value, str):
        return sanitized(value)
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return {sanitized(name): sanitized_json(item) for name, item in items}
    if isinstance(value, list):
        return [sanitized_json(item) for item in cast("list[object]", value)]
    return value
