"""The records of which a segment consists, each with a checksum, and how they are found beside damaged bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

ITEM, SHARED = 1, 2
"""Kinds of records: an item, and a resource or scope."""

_MARKER = b"\xf5TM"
"""What each record begins with, so that reading goes on after a damaged one."""
_CHECKSUM = struct.Struct("<I")
_FIELDS = struct.Struct("<IBHHIQ")
"""Length of the payload, kind, resource, scope, count, nanoseconds since the epoch."""
_FRAME = len(_MARKER) + _CHECKSUM.size + _FIELDS.size


class Entry(NamedTuple):
    """A record of a segment."""

    start: int
    """Offset of its first byte."""
    end: int
    """Offset after its last byte."""
    kind: int
    """Whether it is an item, or a resource or scope."""
    resource: int
    """The number of its resource; of a resource or scope, its own number."""
    scope: int
    """The number of its scope."""
    spans: int
    """The spans in it."""
    time_ns: int
    """When it was written."""
    payload: bytes
    """The item's record, or the resource or scope."""


class Damage(NamedTuple):
    """Bytes of a segment that are no record."""

    start: int
    """Offset of the first byte."""
    end: int
    """Offset after the last byte."""


def framed(kind: int, resource: int, scope: int, count: int, time_ns: int, payload: bytes) -> bytes:
    """A record as its bytes in a segment; the arguments are the fields of `Entry`."""
    fields = _FIELDS.pack(len(payload), kind, resource, scope, count, time_ns)
    return b"".join((_MARKER, _CHECKSUM.pack(crc32(payload, crc32(fields))), fields, payload))


def entries(data: bytes, base: int) -> Iterator[Entry | Damage]:
    """The records in these bytes of a segment, and what lies between them.

    Args:
        data: bytes that begin at a record.
        base: offset of the first byte in the segment.
    """
    offset = 0
    while offset < len(data):
        entry = _entry(data, offset, base)
        if entry is None:
            following = _following(data, offset + 1)
            yield Damage(base + offset, base + following)
            offset = following
        else:
            yield entry
            offset = entry.end - base


def _entry(data: bytes, offset: int, base: int) -> Entry | None:
    """The record at this offset, if there is one and it is whole."""
    start = offset + _FRAME
    if start > len(data) or not data.startswith(_MARKER, offset):
        return None
    length, kind, resource, scope, count, time_ns = _FIELDS.unpack_from(data, start - _FIELDS.size)
    end = start + length
    if end > len(data) or kind not in (ITEM, SHARED):
        return None
    payload = data[start:end]
    (checksum,) = _CHECKSUM.unpack_from(data, offset + len(_MARKER))
    if crc32(payload, crc32(data[start - _FIELDS.size : start])) != checksum:
        return None
    return Entry(base + offset, base + end, kind, resource, scope, count, time_ns, payload)


def _following(data: bytes, offset: int) -> int:
    """Where the next whole record begins, else the end."""
    while (offset := data.find(_MARKER, offset)) >= 0:
        if _entry(data, offset, 0) is not None:
            return offset
        offset += 1
    return len(data)
