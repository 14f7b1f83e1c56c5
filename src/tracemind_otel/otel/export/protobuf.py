"""The wire format of protobuf: varints, tags and fields. Pure functions from values to bytes, which never fail."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from ..sanitize import sanitized

MAX_INT64 = 2**63 - 1
MIN_INT64 = -(2**63)
MAX_UINT64 = 2**64 - 1
_MAX_UINT32 = 2**32 - 1
_MAX_UINT128 = 2**128 - 1

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

pack_fixed32 = struct.Struct("<I").pack
_pack_fixed64 = struct.Struct("<Q").pack
pack_sfixed64 = struct.Struct("<q").pack
pack_double = struct.Struct("<d").pack


def _encoded_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL_VARINTS = tuple(map(_encoded_varint, range(1024)))
"""The varints of most lengths and counts, by value."""


def varint(value: int) -> bytes:
    """An integer of up to 64 bits, with or without a sign."""
    return _SMALL_VARINTS[value] if 0 <= value < 1024 else _encoded_varint(value & MAX_UINT64)


def zigzag(value: int) -> bytes:
    """A `sint32` or `sint64`: small absolute values take few bytes."""
    return varint(value << 1 ^ value >> 63)


def varint_tag(field: int) -> bytes:
    """The tag of an integer, a bool or an enum."""
    return varint(field << 3 | _VARINT)


def fixed64_tag(field: int) -> bytes:
    """The tag of a double or of an integer of eight bytes."""
    return varint(field << 3 | _FIXED64)


def fixed32_tag(field: int) -> bytes:
    """The tag of an integer of four bytes."""
    return varint(field << 3 | _FIXED32)


def length_tag(field: int) -> bytes:
    """The tag of a string, bytes, a message or packed numbers."""
    return varint(field << 3 | _LENGTH)


def prefixed(value: bytes) -> bytes:
    """The value after its length, as it follows its tag."""
    length = len(value)
    return (_SMALL_VARINTS[length] if length < 1024 else _encoded_varint(length)) + value


def without_prefix(field: bytes, tag: bytes) -> bytes:
    """The value of a field that begins with its tag and its length."""
    start = len(tag)
    while field[start] > 0x7F:
        start += 1
    return field[start + 1 :]


def utf8(text: Any) -> bytes:
    """A string in UTF-8, without lone surrogates; any other value as a string."""
    try:
        encoded: bytes = text.encode()
    except (AttributeError, UnicodeEncodeError):
        return sanitized(as_string(text)).encode()
    return encoded


def as_string(value: object) -> str:
    """Any value as a string: telemetry holds what users gave it, and must not fail."""
    try:
        return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    except Exception:  # an integer of more digits than Python prints, or a class of a user
        return f"<{type(value).__name__}>"


def optional_string(tag: bytes, text: object) -> bytes:
    """A string as a field; nothing if it is empty or `None`."""
    return tag + prefixed(utf8(text)) if text else b""


def optional_uint32(tag: bytes, value: int) -> bytes:
    """A count as a field; nothing if it is zero."""
    return tag + varint(min(value, _MAX_UINT32)) if value > 0 else b""


def fixed64(value: Any) -> bytes:
    """A time or a count in eight bytes: cut to the nearest that fits, and 0 if it is no number."""
    try:
        return _pack_fixed64(value)
    except struct.error:
        return _pack_fixed64(_uint64(value))


def _uint64(value: Any) -> int:
    try:
        return min(max(int(value), 0), MAX_UINT64)
    except (OverflowError, TypeError, ValueError):
        return 0


def packed_fixed64(values: Sequence[int]) -> bytes:
    """Counts of eight bytes each, without a tag between them."""
    try:
        return struct.pack(f"<{len(values)}Q", *values)
    except struct.error:
        return b"".join(map(fixed64, values))


def packed_doubles(values: Sequence[float]) -> bytes:
    """Doubles without a tag between them."""
    try:
        return struct.pack(f"<{len(values)}d", *values)
    except (OverflowError, struct.error):
        return b"".join(pack_double(float64(value)) for value in values)


def float64(value: Any) -> float:
    """A double: an integer beyond its range is infinite, and what is no number is not a number."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan


def trace_id_bytes(trace_id: int) -> bytes:
    """A trace id in sixteen bytes."""
    return (trace_id & _MAX_UINT128).to_bytes(16, "big")


def span_id_bytes(span_id: int) -> bytes:
    """A span id in eight bytes."""
    return (span_id & MAX_UINT64).to_bytes(8, "big")
