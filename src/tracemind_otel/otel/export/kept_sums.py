"""The sums of a process in mapped files, which outlive it.

A measurement is stored in the mapped memory at once, without a system call, and the page cache survives `kill -9`. The
next process exports the last sums of the killed one, under that one's resource and start times. Exemplars are not kept.

A series has a slot of a file: its identity, two heads, and the counts of its buckets. Measurements are written to the
two heads in turn, each between two copies of its number; a head that was interrupted has two different numbers, and
then the other one counts. A head also says what the count of its bucket becomes, because that is stored after it.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import mmap
import os
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from .process_directory import ProcessDirectory, orphaned
from .protobuf import float64

log = logging.getLogger(__name__)

_FIRST_FILE, _FILE = 32 * 1024, 256 * 1024
"""Bytes of the first file of an interval, for about a hundred series, and of each further one."""
_MAX_LEFT = 1000
"""Directories of processes whose sums nobody has exported; beyond that the oldest is deleted."""
_PREFIX = "sums-"

MAGIC = b"TMSUMS_1"
START = struct.Struct("<8sIII")
"""The beginning of a file: what it is, the lengths of resource and scope, and their checksum."""
IDENTITY = struct.Struct("<III")
"""The beginning of a slot: the length of its identity, the number of its buckets, and a checksum."""
HEAD = struct.Struct("<QQQQdddQQQ")
"""Number, start, time, whether the sum is an integer, sum, minimum, maximum, bucket, its count, number."""
COUNT = struct.Struct("<Q")
"""The measurements of a bucket."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a series: no other has the same."""

    name: str
    """The instrument's name, such as `tracemind.llm.cost`."""
    unit: str
    """The instrument's unit, in UCUM."""
    description: str
    """The instrument's description."""
    is_delta: bool
    """Whether the sum begins again after each export."""
    attributes: Mapping[str, Any]
    """The attributes of the measurements that it sums up."""
    boundaries: Sequence[float] | None
    """The upper bounds of its buckets; `None` for a counter."""


class Slot:
    """Where the numbers of one series are kept."""

    __slots__ = ("_counts", "_heads", "_memory", "_number")

    def __init__(self, memory: mmap.mmap | bytearray, heads: int) -> None:
        self._memory = memory
        self._heads = (heads, heads + HEAD.size)
        self._counts = heads + 2 * HEAD.size
        self._number = 0

    def write_total(self, started_ns: int, total: float) -> None:
        """Keep the sum of a counter."""
        self._write_head(started_ns, total, 0.0, 0.0, 0, 0)

    def write_bucket(
        self, started_ns: int, total: float, minimum: float, maximum: float, bucket: int, count: int
    ) -> None:
        """Keep the numbers of a histogram, of whose buckets one has a new count."""
        self._write_head(started_ns, total, minimum, maximum, bucket, count)
        COUNT.pack_into(self._memory, self._counts + COUNT.size * bucket, count)

    def _write_head(self, started_ns: int, total: float, low: float, high: float, bucket: int, count: int) -> None:
        number = self._number = self._number + 1
        is_int, place = type(total) is int, self._heads[number & 1]
        try:
            HEAD.pack_into(
                self._memory, place, number, started_ns, time.time_ns(), is_int, total, low, high, bucket, count, number
            )
        except struct.error:  # an integer beyond the range of a double
            self._write_head(started_ns, float64(total), float64(low), float64(high), bucket, count)


class KeptSums:
    """Keeps the sums of this process where another one finds them.

    Not thread-safe: the caller holds the lock of its instruments.

    Args:
        root: where the directories of the processes are; all of them export to the same receiver.
        resource: the fields `resource` and `schema_url` of ResourceMetrics, encoded.
    """

    def __init__(self, root: str, resource: bytes) -> None:
        self.root = os.path.abspath(root)
        self.has_failed = False
        """Whether there was no room for a series, so that not all sums outlive this process."""
        self.begin_anew(resource)

    def begin_anew(self, resource: bytes) -> None:
        """Begin without any series; in a forked child the parent keeps its own."""
        self._resource = resource
        self._scope: bytes = b""
        self._directory: ProcessDirectory | None = None
        self._made = 0
        self._memory: mmap.mmap | None = None
        self._used = 0
        self._interval = list[str]()

    def slot(self, identity: Identity, scope: bytes) -> Slot:
        """A place for a new series: in a file, or in memory if the disk has no room, which is logged once.

        Args:
            identity: the identity of the series.
            scope: the fields `scope` and `schema_url` of ScopeMetrics, encoded; the newest holds for all series.
        """
        encoded = json.dumps([getattr(identity, name) for name in Identity.__slots__], default=str).encode()
        buckets = 0 if identity.boundaries is None else len(identity.boundaries) + 1
        heads = IDENTITY.size + len(encoded)
        size = heads + 2 * HEAD.size + buckets * COUNT.size
        try:
            memory = self._room(size, scope)
        except OSError as error:
            self._report(error)
            return Slot(bytearray(size), heads)
        start, self._used = self._used, self._used + size
        memory[start + IDENTITY.size : start + heads] = encoded
        IDENTITY.pack_into(memory, start, len(encoded), buckets, crc32(encoded, buckets))
        return Slot(memory, start + heads)

    def _room(self, size: int, scope: bytes) -> mmap.mmap:
        """The memory of a file with so many bytes left; a new file if need be."""
        if self._memory is None or scope != self._scope or self._used + size > len(self._memory):
            shared = self._resource + scope
            beginning = START.pack(MAGIC, len(self._resource), len(scope), crc32(shared)) + shared
            usual = _FILE if self._interval else _FIRST_FILE
            self._memory = self._next_file(beginning, max(usual, len(beginning) + size))
            self._scope, self._used = scope, len(beginning)
        return self._memory

    def _next_file(self, beginning: bytes, size: int) -> mmap.mmap:
        if self._directory is None:
            _delete_oldest(self.root)
            self._directory = ProcessDirectory.create(self.root)
        self._made += 1
        path = os.path.join(self._directory.path, f"{_PREFIX}{self._made:08d}")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        try:
            # Written, not only made longer: on a full disk a store into a hole would end the process.
            if os.write(descriptor, beginning.ljust(size, b"\0")) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            memory = mmap.mmap(descriptor, size)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        self._interval.append(path)
        return memory

    def _report(self, error: OSError) -> None:
        if not self.has_failed:
            self.has_failed = True
            log.warning(
                "Metrics are not kept in %s (%s): if this process is killed, what it measured since its last export is "
                "lost. Make room, or name another directory by configure(spool=...) or TRACEMIND_SPOOL_DIR",
                self.root,
                error,
            )

    def begin_interval(self) -> list[str]:
        """Begin without any series, because all sums begin again; returns the files of the sums until now."""
        interval, self._interval = self._interval, []
        self._memory = None
        return interval

    def forget(self, interval: Iterable[str]) -> None:
        """Delete the files of an interval, because its sums were exported."""
        for path in interval:
            os.unlink(path)

    def close(self) -> None:
        """Leave to the next process what was not forgotten."""
        if self._directory is not None:
            if sums_files(self._directory.path):
                self._directory.release()
            else:
                self._directory.remove()
            self._directory = None


def sums_files(directory: str) -> list[str]:
    """The files of sums in the directory of a process, oldest first."""
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.startswith(_PREFIX)]


def _delete_oldest(root: str) -> None:
    """Delete what nobody could export for so long that too many have left something."""
    excess = len(os.listdir(root)) - _MAX_LEFT if os.path.isdir(root) else 0
    if excess > 0:
        log.warning("Metrics of %d processes that were killed are deleted in %s: %d are kept", excess, root, _MAX_LEFT)
        for directory in itertools.islice(orphaned(root), excess):
            directory.remove()
