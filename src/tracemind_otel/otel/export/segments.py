"""The files of a disk spool: records, appended one after the other.

A segment begins with a header: what it is, when it was made, and the position up to which its items are settled. After
that come records. A resource or a scope is a record of its own, which items name by its number, so that a segment can
be read without any other.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from zlib import crc32

from .batches import Batch, BatchBuilder
from .otlp_request import Item
from .process_directory import regular_file
from .segment_records import ITEM, SHARED, Damage, Entry, entries, framed

SUFFIX = ".spool"

_MAGIC = b"TMSPOOL1"
_HEADER = struct.Struct("<8sQ")
_POSITION = struct.Struct("<II")
"""The settled position, and the checksum of its four bytes."""
_RECORDS = 32
"""The offset of the first record."""

_MAX_SHARED = 60_000
"""Resources and scopes of a segment, which are numbered in two bytes."""

_READ_AHEAD = 64 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """Items that were read from a segment."""

    batch: Batch | None
    """The items; `None` if what was read has none."""
    end: int
    """Offset after what was read."""
    damaged: int
    """Bytes among it that were no record."""


@dataclass(slots=True, eq=False)
class Segment:
    """One file of a disk spool: what of it waits, and what is being sent."""

    path: str
    """The file."""
    size: int = _RECORDS
    """Bytes of whole records, with the header."""
    kept: int = 0
    """Spans that are neither settled nor lost."""
    waiting: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Where items wait: ranges of bytes, in order."""
    taken: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """Where items lie that are being read or sent."""
    is_sealed: bool = False
    """Whether nothing is appended any more."""
    _shared: dict[int, bytes] = field(default_factory=dict[int, bytes])
    _numbers: dict[bytes, int] = field(default_factory=dict[bytes, int])
    _appended: int | None = None
    """The descriptor that appends."""
    _opened: int | None = None
    """The descriptor that reads, and writes the position."""

    # --- Writing ---

    @classmethod
    def create(cls, path: str) -> Segment:
        """A new file, which only this user reads."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
        segment = cls(path)
        segment._appended = os.open(path, flags, 0o600)
        header = _HEADER.pack(_MAGIC, time.time_ns()) + _position(_RECORDS)
        try:
            _write(segment._appended, header.ljust(_RECORDS, b"\0"))
        except BaseException:
            segment.seal()
            os.unlink(path)
            raise
        return segment

    @property
    def is_full(self) -> bool:
        """Whether no further resource or scope can be numbered."""
        return len(self._numbers) >= _MAX_SHARED

    def append(self, item: Item, time_ns: int, *, fsync: bool = False) -> int:
        """Write an item to the file; returns the bytes written. After an error the segment is sealed."""
        if self._appended is None:
            raise ValueError(f"{self.path} is sealed")
        frames, numbers = list[bytes](), dict[bytes, int]()
        resource = self._number(item.resource, time_ns, frames, numbers)
        scope = self._number(item.scope, time_ns, frames, numbers)
        frame = framed(ITEM, resource, scope, item.count, time_ns, item.record)
        data = b"".join((*frames, frame)) if frames else frame
        try:
            _write(self._appended, data)
            if fsync:
                os.fsync(self._appended)
        except BaseException:
            self._cut()
            raise
        self._numbers.update(numbers)
        self._shared.update((number, shared) for shared, number in numbers.items())
        self._extend(len(data), item.count)
        return len(data)

    def _number(self, shared: bytes, time_ns: int, frames: list[bytes], numbers: dict[bytes, int]) -> int:
        """The number of a resource or scope; a new one is added to what is written."""
        number = self._numbers.get(shared, numbers.get(shared))
        if number is None:
            number = numbers[shared] = len(self._numbers) + len(numbers)
            frames.append(framed(SHARED, number, 0, 0, time_ns, shared))
        return number

    def _extend(self, byte_size: int, count: int) -> None:
        start, self.size = self.size, self.size + byte_size
        if self.waiting and self.waiting[-1][1] == start:
            start = self.waiting.pop()[0]
        self.waiting.append((start, self.size))
        self.kept += count

    def _cut(self) -> None:
        """Cut off what was written in part, and append nothing more."""
        try:
            if self._appended is not None:
                os.ftruncate(self._appended, self.size)
        except OSError:
            pass  # the error that led here is raised; a reader finds that the rest is no record
        self.seal()

    def seal(self) -> None:
        """Append nothing more."""
        self.is_sealed = True
        # Forgotten before it is closed: a child that is forked in between would close it again.
        descriptor, self._appended = self._appended, None
        if descriptor is not None:
            os.close(descriptor)

    # --- Reading ---

    @classmethod
    def load(cls, path: str, seen: Callable[[Entry], object]) -> tuple[Segment, list[Damage], int]:
        """Read the segment of a process that has ended.

        Args:
            path: the file.
            seen: gets each item, those that are settled too.

        Returns:
            The segment, what of it is damaged, and when it was made, in nanoseconds since the epoch.
        """
        with open(path, "rb", opener=regular_file) as file:
            data = file.read()
        segment = cls(path, size=len(data), is_sealed=True)
        magic, made_ns = _HEADER.unpack_from(data.ljust(_RECORDS, b"\0"))
        is_whole = magic == _MAGIC
        settled = _settled(data) if is_whole else _RECORDS
        damages = list[Damage]() if is_whole or not data else [Damage(0, min(_RECORDS, len(data)))]
        for entry in entries(data[_RECORDS:], _RECORDS):
            if isinstance(entry, Damage):
                damages.append(entry)
            elif entry.kind == SHARED:
                segment._shared[entry.resource] = entry.payload
            elif entry.resource not in segment._shared or entry.scope not in segment._shared:
                damages.append(Damage(entry.start, entry.end))
            else:
                seen(entry)
                if entry.start >= settled:
                    segment._admit(entry)
        return segment, damages, made_ns if is_whole else 0

    def _admit(self, entry: Entry) -> None:
        start = entry.start
        if self.waiting and self.waiting[-1][1] == start:
            start = self.waiting.pop()[0]
        self.waiting.append((start, entry.end))
        self.kept += entry.spans

    def item(self, entry: Entry) -> Item:
        """The item of a record."""
        return Item(self._shared[entry.resource], self._shared[entry.scope], entry.payload, entry.spans)

    def read(self, start: int, end: int, max_bytes: int, max_items: int) -> Reading:
        """The first items of a range that fit into one request, at least one if there are any.

        Raises:
            OSError: the file cannot be read now. One that is gone, or on a broken disk, is read as damaged.
        """
        ahead = min(end, start + max_bytes + _READ_AHEAD)
        try:
            reading = self._read(start, ahead, max_bytes, max_items, is_cut=ahead < end)
            return reading if reading is not None else self._read(start, end, max_bytes, max_items) or _lost(start, end)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EIO):
                return _lost(start, end)
            raise

    def _read(self, start: int, end: int, max_bytes: int, max_items: int, *, is_cut: bool = False) -> Reading | None:
        """Read a range; `None` if it is cut inside its first item."""
        data = os.pread(self._descriptor(), end - start, start)
        builder, damaged, read = BatchBuilder(max_bytes, max_items), 0, start
        for entry in entries(data, start):
            if isinstance(entry, Damage):
                if is_cut and entry.end == end:
                    batch = builder.batch()
                    return None if batch is None else Reading(batch, read, damaged)
                damaged += entry.end - entry.start
            elif entry.kind == ITEM and not builder.add(self.item(entry)):
                return Reading(builder.batch(), read, damaged)
            read = entry.end
        return Reading(builder.batch(), end, damaged + end - start - len(data))

    def _descriptor(self) -> int:
        if self._opened is None:
            try:
                self._opened = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno not in (errno.EROFS, errno.EACCES):
                    raise
                self._opened = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        return self._opened

    # --- What waits, and what is settled ---

    @property
    def is_done(self) -> bool:
        """Whether the file can be deleted."""
        return self.is_sealed and not self.waiting and not self.taken

    def begin_taking(self) -> tuple[int, int]:
        """The first range that waits; the segment is not dropped while it is read."""
        self.taken.append(self.waiting[0])
        return self.waiting[0]

    def stop_taking(self, wanted: tuple[int, int]) -> None:
        """Note that nothing was read of that range."""
        self.taken.remove(wanted)

    def end_taking(self, wanted: tuple[int, int], reading: Reading) -> tuple[int, int]:
        """Note what was read of that range; returns the range of the items."""
        start, end = wanted[0], reading.end
        self.taken.remove(wanted)
        # An append may have made the range longer meanwhile.
        _, still = self.waiting.pop(0)
        if end < still:
            self.waiting.insert(0, (end, still))
        if reading.batch is not None:
            self.taken.append((start, end))
        return start, end

    def give_back(self, taken: tuple[int, int]) -> None:
        """Let the items of a range wait again."""
        self.taken.remove(taken)
        insort(self.waiting, taken)

    def settle(self, taken: tuple[int, int], count: int) -> None:
        """Note that the items of a range are settled."""
        self.taken.remove(taken)
        self.kept -= count

    def write_position(self, *, fsync: bool = False) -> None:
        """Write down up to where everything is settled, so that no other process sends it again."""
        first = min((start for start, _ in (*self.waiting, *self.taken)), default=self.size)
        descriptor = self._descriptor()
        os.pwrite(descriptor, _position(first), _HEADER.size)  # in place, so that a full disk has room for it
        if fsync:
            os.fsync(descriptor)

    # --- The end ---

    def move(self, directory: str, name: str | None = None) -> None:
        """Move the file to another directory of the same spool."""
        path = os.path.join(directory, name or os.path.basename(self.path))
        if os.path.lexists(path):
            path = os.path.join(directory, segment_name())
        os.rename(self.path, path)
        self.path = path

    def close(self) -> None:
        """Close the file."""
        self.seal()
        descriptor, self._opened = self._opened, None
        if descriptor is not None:
            os.close(descriptor)

    def delete(self) -> None:
        """Delete the file."""
        self.close()
        os.unlink(self.path)


def segment_name() -> str:
    """The name of a new segment; names sort by age, also beside those of other processes."""
    return f"{time.time_ns():019d}-{os.getpid()}{SUFFIX}"


def _write(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    if written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _position(offset: int) -> bytes:
    return _POSITION.pack(offset, crc32(offset.to_bytes(4, "little")))


def _settled(data: bytes) -> int:
    """The settled position in a header; if it is damaged, nothing counts as settled."""
    if len(data) < _RECORDS:
        return _RECORDS
    offset, checksum = _POSITION.unpack_from(data, _HEADER.size)
    return offset if checksum == crc32(offset.to_bytes(4, "little")) else _RECORDS


def _lost(start: int, end: int) -> Reading:
    return Reading(None, end, end - start)
