"""The sums that killed processes left in files, to be exported by the next process."""

from __future__ import annotations

import json
import logging
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast
from zlib import crc32

from .kept_sums import COUNT, HEAD, IDENTITY, MAGIC, START, Identity, sums_files
from .otlp_metrics import metric_parts
from .otlp_request import Item
from .process_directory import ProcessDirectory, orphaned, regular_file

log = logging.getLogger(__name__)

_DELTA, _CUMULATIVE = 1, 2
"""The temporalities as OTLP numbers them."""


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


_Point: TypeAlias = _NumberPoint | _HistogramPoint


@dataclass(frozen=True, slots=True)
class _Sum:
    data_points: list[_Point]
    aggregation_temporality: int
    is_monotonic: bool = True


@dataclass(frozen=True, slots=True)
class _Histogram:
    data_points: list[_Point]
    aggregation_temporality: int


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    unit: str
    description: str
    data: _Sum | _Histogram


@dataclass(frozen=True, slots=True)
class LeftSums:
    """The last sums of a process that has ended. They are this process's to export."""

    items: list[Item]
    """The metrics, encoded."""
    directory: ProcessDirectory
    """Where they are kept, which belongs to this process now."""

    def settle(self) -> None:
        """Delete them, because they were exported."""
        self.directory.remove()

    def give_back(self) -> None:
        """Leave them to the next process."""
        self.directory.release()


def left_sums(root: str) -> Iterator[LeftSums]:
    """The last sums of each process that was killed, or whose last export failed. No other process gets them."""
    for directory in orphaned(os.path.abspath(root)):
        try:
            items = _items(sums_files(directory.path))
        except OSError as error:
            log.warning("Metrics in %s, of a process that ended, cannot be read: %s", directory.path, error)
            directory.release()
            continue
        left = LeftSums(items, directory)
        if items:
            yield left
        else:
            left.settle()


def _items(paths: Iterable[str]) -> list[Item]:
    """The metrics in these files, an item for each."""
    metrics: dict[tuple[object, ...], _Metric] = {}
    resource = scope = b""
    for path in paths:
        with open(path, "rb", opener=regular_file) as file:
            data = file.read()
        magic, *lengths, checksum = START.unpack_from(data.ljust(START.size, b"\0"))
        middle, end = START.size + lengths[0], START.size + sum(lengths)
        if magic != MAGIC or crc32(data[START.size : end]) != checksum:
            log.warning("File %s of metrics is damaged: its sums are lost", path)
            continue
        resource, scope = data[START.size : middle], data[middle:end]
        for identity, point in _series(data, end, path):
            kind = (identity.name, identity.unit, identity.description, identity.boundaries is None, identity.is_delta)
            if kind not in metrics:
                metrics[kind] = _Metric(identity.name, identity.unit, identity.description, _empty(identity))
            metrics[kind].data.data_points.append(point)
    # They have the attributes of the SDK's metrics, which are all that the encoder reads.
    return [item for metric in metrics.values() for item in metric_parts(resource, scope, cast("Any", metric))]


def _empty(identity: Identity) -> _Sum | _Histogram:
    temporality = _DELTA if identity.is_delta else _CUMULATIVE
    return _Sum([], temporality) if identity.boundaries is None else _Histogram([], temporality)


def _series(data: bytes, offset: int, path: str) -> Iterator[tuple[Identity, _Point]]:
    while offset + IDENTITY.size <= len(data):
        length, buckets, checksum = IDENTITY.unpack_from(data, offset)
        if not length:
            return
        heads = offset + IDENTITY.size + length
        encoded = data[offset + IDENTITY.size : heads]
        counts = heads + 2 * HEAD.size
        if crc32(encoded, buckets) != checksum or counts + buckets * COUNT.size > len(data):
            log.warning("File %s of metrics is damaged: the sums from byte %d on are lost", path, offset)
            return
        identity = Identity(*json.loads(encoded))
        point = _point(identity, data, heads, [*struct.unpack_from(f"<{buckets}Q", data, counts)])
        if point is not None:
            yield identity, point
        offset = counts + buckets * COUNT.size


class _Head(NamedTuple):
    """The numbers of a series as they were written; the same number before and after tells that all of them were."""

    number: int
    started_ns: int
    time_ns: int
    is_int: int
    total: float
    minimum: float
    maximum: float
    bucket: int
    bucket_count: int
    number_after: int


def _point(identity: Identity, data: bytes, heads: int, counts: list[int]) -> _Point | None:
    """The data point of a series; `None` if nothing was measured."""
    written = [_Head(*HEAD.unpack_from(data, offset)) for offset in (heads, heads + HEAD.size)]
    head = max((each for each in written if each.number == each.number_after), default=None)
    if head is None or not head.number:
        return None
    total = int(head.total) if head.is_int else head.total
    if identity.boundaries is None:
        return _NumberPoint(identity.attributes, head.started_ns, head.time_ns, total)
    if head.bucket < len(counts):
        counts[head.bucket] = head.bucket_count  # stored after the head, so perhaps not stored any more
    return _HistogramPoint(
        identity.attributes,
        head.started_ns,
        head.time_ns,
        sum(counts),
        total,
        counts,
        identity.boundaries,
        head.minimum,
        head.maximum,
    )
