"""The spans of a process that have started and not ended, in files that outlive it.

Each start has a slot of a file, and the end of its span makes the slot free again, so the files grow only with the
number of spans that are open at the same time. A file's slots have one size; a start goes into the smallest that fits.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

from .otlp_request import Item
from .process_directory import regular_file

PREFIX = "started-"

_SMALLEST, _LARGEST = 1024, 64 * 1024
_SIZES = tuple(1 << power for power in range(_SMALLEST.bit_length() - 1, _LARGEST.bit_length()))

_CHECKSUM = struct.Struct("<BI")
"""Whether the span is open, and the checksum of all that follows."""
_FIELDS = struct.Struct("<8sQIII")
"""Id of the span, nanoseconds since the epoch, and the lengths of resource, scope and record."""
_FRAME = _CHECKSUM.size + _FIELDS.size


class Started(NamedTuple):
    """The start of a span."""

    item: Item
    """The span as it started."""
    time_ns: int
    """When it started, in nanoseconds since the epoch."""


def span_id_of(record: bytes) -> bytes:
    """The id of an encoded span: the field after the trace id, which is the first."""
    start = 2
    while record[start - 1] & 0x80:  # the length of the record
        start += 1
    is_span = record[start : start + 2] == b"\x0a\x10" and record[start + 18 : start + 20] == b"\x12\x08"
    return record[start + 20 : start + 28] if is_span else b""


class StartedSpans:
    """Writes down which spans are open.

    Args:
        directory: where the files are.
        max_bytes: bytes of the files at most; starts beyond that are not kept.
    """

    def __init__(self, directory: str, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._files: dict[int, int] = {}
        self._slots: dict[int, int] = dict.fromkeys(_SIZES, 0)
        self._free: dict[int, list[int]] = {size: [] for size in _SIZES}
        self._places: dict[bytes, tuple[int, int]] = {}
        self.byte_size = 0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, span_id: bytes, item: Item, time_ns: int) -> str:
        """Write down a start; returns why it is not, if so."""
        shared = (item.resource, item.scope, item.record)
        fields = _FIELDS.pack(span_id, time_ns, *map(len, shared))
        body = b"".join((fields, *shared))
        size = next((size for size in _SIZES if size >= len(body) + _CHECKSUM.size), None)
        if size is None:
            return "a span has more than 64 KiB when it starts"
        if span_id in self._places:
            return ""
        if not self._free[size]:
            if self.byte_size + size > self._max_bytes:
                return f"{len(self._places)} spans are open at the same time, which is too many"
            self._free[size].append(self._slots[size] * size)
            self._slots[size] += 1
            self.byte_size += size
        offset = self._free[size][-1]
        data = _CHECKSUM.pack(1, crc32(body)) + body
        if os.pwrite(self._file(size), data, offset) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._free[size].pop()
        self._places[span_id] = (size, offset)
        return ""

    def end(self, span_id: bytes) -> None:
        """Free the slot of a span that has ended."""
        place = self._places.pop(span_id, None)
        if place is not None:
            size, offset = place
            self._free[size].append(offset)
            os.pwrite(self._file(size), b"\0", offset)

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, size: int) -> int:
        if size not in self._files:
            path = os.path.join(self._directory, f"{PREFIX}{size}")
            self._files[size] = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        return self._files[size]


def read_started(directory: str) -> dict[bytes, Started]:
    """The spans that were open when a process ended, by their ids."""
    return {
        span_id: started
        for name in sorted(os.listdir(directory))
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).isdecimal()
        for span_id, started in _read_file(os.path.join(directory, name), int(name.removeprefix(PREFIX)))
    }


def _read_file(path: str, size: int) -> Iterator[tuple[bytes, Started]]:
    with open(path, "rb", opener=regular_file) as file:
        while slot := file.read(size):
            if len(slot) < _FRAME:
                return
            is_open, checksum = _CHECKSUM.unpack_from(slot)
            span_id, time_ns, *lengths = _FIELDS.unpack_from(slot, _CHECKSUM.size)
            end = _FRAME + sum(lengths)
            if is_open and end <= len(slot) and crc32(slot[_CHECKSUM.size : end]) == checksum:
                first, second = _FRAME + lengths[0], _FRAME + lengths[0] + lengths[1]
                yield span_id, Started(Item(slot[_FRAME:first], slot[first:second], slot[second:end]), time_ns)
