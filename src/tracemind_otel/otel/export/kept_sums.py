"""The sums of a process in mapped files, which outlive it, and those that killed processes left.

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from .otlp_metrics import metric_parts
from .otlp_request import Item
from .process_directory import ProcessDirectory, orphaned, regular_file
from .protobuf import float64

log = logging.getLogger(__name__)

_FIRST_FILE, _FILE = 32 * 1024, 256 * 1024
"""Bytes of the first file of an interval, for about a hundred series, and of each further one."""
_MAX_LEFT = 1000
"""Directories of processes whose sums nobody has exported; beyond that the oldest is deleted."""
_PREFIX = "sums-"
_MAGIC = b"TMSUMS_1"
_START = struct.Struct("<8sIII")
"""What a file begins with: what it is, the lengths of resource and scope, and their checksum."""
_IDENTITY = struct.Struct("<III")
"""What a slot begins with: the length of its identity, the number of its buckets, and a checksum."""
_HEAD = struct.Struct("<QQQQdddQQQ")
"""Number, start, time, whether the sum is an integer, sum, minimum, maximum, bucket, its count, number."""
_COUNT = struct.Struct("<Q")

_DELTA, _CUMULATIVE = 1, 2
"""The temporalities as OTLP numbers them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a series from all others."""

    name: str
    """The name of its instrument."""
    unit: str
    """The unit of its instrument."""
    description: str
    """The description of its instrument."""
    is_delta: bool
    """Whether it begins again after each export."""
    attributes: Mapping[str, Any]
    """Its attributes."""
    boundaries: Sequence[float] | None
    """The upper bounds of its buckets; `None` for a counter."""


class Slot:
    """Where the numbers of one series are kept."""

    __slots__ = ("_counts", "_heads", "_memory", "_number")

    def __init__(self, memory: mmap.mmap | bytearray, heads: int) -> None:
        self._memory = memory
        self._heads = (heads, heads + _HEAD.size)
        self._counts = heads + 2 * _HEAD.size
        self._number = 0

    def write_total(self, started_ns: int, total: float) -> None:
        """Keep the sum of a counter."""
        self._write_head(started_ns, total, 0.0, 0.0, 0, 0)

    def write_bucket(
        self, started_ns: int, total: float, minimum: float, maximum: float, bucket: int, count: int
    ) -> None:
        """Keep the numbers of a histogram, of whose buckets one has a new count."""
        self._write_head(started_ns, total, minimum, maximum, bucket, count)
        _COUNT.pack_into(self._memory, self._counts + _COUNT.size * bucket, count)

    def _write_head(self, started_ns: int, total: float, low: float, high: float, bucket: int, count: int) -> None:
        number = self._number = self._number + 1
        is_int, place = type(total) is int, self._heads[number & 1]
        try:
            _HEAD.pack_into(
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
        """A place for a new series. If the disk has none, which is said once, it is a place in memory.

        Args:
            identity: what tells the series from others.
            scope: the fields `scope` and `schema_url` of ScopeMetrics, encoded; the newest holds for all series.
        """
        encoded = json.dumps([getattr(identity, name) for name in Identity.__slots__], default=str).encode()
        buckets = 0 if identity.boundaries is None else len(identity.boundaries) + 1
        heads = _IDENTITY.size + len(encoded)
        size = heads + 2 * _HEAD.size + buckets * _COUNT.size
        try:
            memory = self._room(size, scope)
        except OSError as error:
            self._report(error)
            return Slot(bytearray(size), heads)
        start, self._used = self._used, self._used + size
        memory[start + _IDENTITY.size : start + heads] = encoded
        _IDENTITY.pack_into(memory, start, len(encoded), buckets, crc32(encoded, buckets))
        return Slot(memory, start + heads)

    def _room(self, size: int, scope: bytes) -> mmap.mmap:
        """A file with so much room."""
        if self._memory is None or scope != self._scope or self._used + size > len(self._memory):
            shared = self._resource + scope
            beginning = _START.pack(_MAGIC, len(self._resource), len(scope), crc32(shared)) + shared
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
            if _files(self._directory.path):
                self._directory.release()
            else:
                self._directory.remove()
            self._directory = None


# --- What others left ---


@dataclass(frozen=True, slots=True)
class _NumberPoint:
    attributes: Mapping[str, Any]
    start_time_unix_nano: int
    time_unix_nano: int
    value: float
    exemplars: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class _HistogramPoint:
    attributes: Mapping[str, Any]
    start_time_unix_nano: int
    time_unix_nano: int
    count: int
    sum: float
    bucket_counts: Sequence[int]
    explicit_bounds: Sequence[float]
    min: float
    max: float
    exemplars: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class _Sum:
    data_points: list[Any]
    aggregation_temporality: int
    is_monotonic: bool = True


@dataclass(frozen=True, slots=True)
class _Histogram:
    data_points: list[Any]
    aggregation_temporality: int


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    unit: str
    description: str
    data: Any


@dataclass(slots=True)
class LeftSums:
    """The last sums of a process that has ended. They are this process's to export."""

    items: list[Item] = field(default_factory=list[Item])
    """The metrics, encoded."""
    _directory: ProcessDirectory | None = None

    def settle(self) -> None:
        """Delete them, because they were exported."""
        if self._directory is not None:
            self._directory.remove()

    def give_back(self) -> None:
        """Leave them to the next process."""
        if self._directory is not None:
            self._directory.release()


def left_sums(root: str) -> Iterator[LeftSums]:
    """The last sums of each process that was killed, or whose last export failed. No other process gets them."""
    for directory in orphaned(os.path.abspath(root)):
        try:
            items = _items(_files(directory.path))
        except OSError as error:
            log.warning("Metrics in %s, of a process that ended, cannot be read: %s", directory.path, error)
            directory.release()
            continue
        left = LeftSums(items, directory)
        if items:
            yield left
        else:
            left.settle()


def _delete_oldest(root: str) -> None:
    """Delete what nobody could export for so long that too many have left something."""
    excess = len(os.listdir(root)) - _MAX_LEFT if os.path.isdir(root) else 0
    if excess > 0:
        log.warning("Metrics of %d processes that were killed are deleted in %s: %d are kept", excess, root, _MAX_LEFT)
        for directory in itertools.islice(orphaned(root), excess):
            directory.remove()


def _files(directory: str) -> list[str]:
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.startswith(_PREFIX)]


def _items(paths: Iterable[str]) -> list[Item]:
    """The metrics in these files, an item for each."""
    metrics: dict[tuple[object, ...], Any] = {}
    resource = scope = b""
    for path in paths:
        with open(path, "rb", opener=regular_file) as file:
            data = file.read()
        magic, *lengths, checksum = _START.unpack_from(data.ljust(_START.size, b"\0"))
        middle, end = _START.size + lengths[0], _START.size + sum(lengths)
        if magic != _MAGIC or crc32(data[_START.size : end]) != checksum:
            log.warning("File %s of metrics is damaged: its sums are lost", path)
            continue
        resource, scope = data[_START.size : middle], data[middle:end]
        for identity, point in _series(data, end, path):
            kind = (identity.name, identity.unit, identity.description, identity.boundaries is None, identity.is_delta)
            if kind not in metrics:
                metrics[kind] = _Metric(identity.name, identity.unit, identity.description, _empty(identity))
            metrics[kind].data.data_points.append(point)
    return [item for metric in metrics.values() for item in metric_parts(resource, scope, metric)]


def _empty(identity: Identity) -> _Sum | _Histogram:
    temporality = _DELTA if identity.is_delta else _CUMULATIVE
    return _Sum([], temporality) if identity.boundaries is None else _Histogram([], temporality)


def _series(data: bytes, offset: int, path: str) -> Iterator[tuple[Identity, Any]]:
    while offset + _IDENTITY.size <= len(data):
        length, buckets, checksum = _IDENTITY.unpack_from(data, offset)
        if not length:
            return
        heads = offset + _IDENTITY.size + length
        encoded = data[offset + _IDENTITY.size : heads]
        counts = heads + 2 * _HEAD.size
        if crc32(encoded, buckets) != checksum or counts + buckets * _COUNT.size > len(data):
            log.warning("File %s of metrics is damaged: the sums from byte %d on are lost", path, offset)
            return
        identity = Identity(*json.loads(encoded))
        point = _point(identity, data, heads, [*struct.unpack_from(f"<{buckets}Q", data, counts)])
        if point is not None:
            yield identity, point
        offset = counts + buckets * _COUNT.size


def _point(identity: Identity, data: bytes, heads: int, counts: list[int]) -> Any:
    """The data point of a series; `None` if nothing was measured."""
    written = [_HEAD.unpack_from(data, heads), _HEAD.unpack_from(data, heads + _HEAD.size)]
    number, started_ns, time_ns, is_int, total, minimum, maximum, bucket, count, _ = max(
        (head for head in written if head[0] == head[-1]), default=(0,) * 10
    )
    if not number:
        return None
    value = int(total) if is_int else total
    if identity.boundaries is None:
        return _NumberPoint(identity.attributes, started_ns, time_ns, value)
    if bucket < len(counts):
        counts[bucket] = count  # which the process may not have stored any more
    return _HistogramPoint(
        identity.attributes,
        started_ns,
        time_ns,
        sum(counts),
        value,
        counts,
        identity.boundaries,
        minimum,
        maximum,
    )
