"""Encodes metrics as OTLP: pure functions from what the SDK collected to bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .otlp_request import MAX_REQUEST_BYTES, Item
from .otlp_values import attributes_fields, resource_fields, scope_fields
from .protobuf import (
    MAX_INT64,
    MIN_INT64,
    fixed64,
    fixed64_tag,
    float64,
    length_tag,
    optional_string,
    optional_uint32,
    pack_double,
    pack_sfixed64,
    packed_doubles,
    packed_fixed64,
    prefixed,
    span_id_bytes,
    trace_id_bytes,
    varint,
    varint_tag,
    zigzag,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import Exemplar
    from opentelemetry.sdk.metrics.export import (
        Buckets,
        ExponentialHistogramDataPoint,
        HistogramDataPoint,
        Metric,
        MetricsData,
        NumberDataPoint,
    )

_FRAME_BYTES = 64
"""An upper bound of the tags and lengths around the data points of one metric."""

_METRIC = length_tag(2)
_NAME = length_tag(1)
_DESCRIPTION = length_tag(2)
_UNIT = length_tag(3)
_GAUGE = length_tag(5)
_SUM = length_tag(7)
_HISTOGRAM = length_tag(9)
_EXPONENTIAL_HISTOGRAM = length_tag(10)

_POINT = length_tag(1)
_TEMPORALITY = varint_tag(2)
_MONOTONIC = varint_tag(3) + varint(1)

# Of every data point
_START = fixed64_tag(2)
_TIME = fixed64_tag(3)
# Of a number
_NUMBER_DOUBLE = fixed64_tag(4)
_NUMBER_EXEMPLAR = length_tag(5)
_NUMBER_INT = fixed64_tag(6)
_NUMBER_ATTRIBUTES = length_tag(7)
# Of both histograms
_COUNT = fixed64_tag(4)
_TOTAL = fixed64_tag(5)
# Of a histogram
_BUCKET_COUNTS = length_tag(6)
_BOUNDS = length_tag(7)
_HISTOGRAM_EXEMPLAR = length_tag(8)
_HISTOGRAM_ATTRIBUTES = length_tag(9)
_HISTOGRAM_MIN = fixed64_tag(11)
_HISTOGRAM_MAX = fixed64_tag(12)
# Of an exponential histogram
_EXPONENTIAL_ATTRIBUTES = length_tag(1)
_SCALE = varint_tag(6)
_ZERO_COUNT = fixed64_tag(7)
_POSITIVE = length_tag(8)
_NEGATIVE = length_tag(9)
_FLAGS = varint_tag(10)
_EXPONENTIAL_EXEMPLAR = length_tag(11)
_EXPONENTIAL_MIN = fixed64_tag(12)
_EXPONENTIAL_MAX = fixed64_tag(13)
_BUCKETS_OFFSET = varint_tag(1)
_BUCKETS_COUNTS = length_tag(2)
# Of an exemplar
_EXEMPLAR_TIME = fixed64_tag(2)
_EXEMPLAR_DOUBLE = fixed64_tag(3)
_EXEMPLAR_SPAN_ID = length_tag(4) + varint(8)
_EXEMPLAR_TRACE_ID = length_tag(5) + varint(16)
_EXEMPLAR_INT = fixed64_tag(6)
_EXEMPLAR_ATTRIBUTES = length_tag(7)


def metric_items(data: MetricsData, max_bytes: int = MAX_REQUEST_BYTES) -> list[Item]:
    """Everything that was collected, one item for each metric. Metrics without data points are left out.

    Args:
        data: what the SDK's reader collected.
        max_bytes: the size of a request; a metric that fills more is cut by its data points.
    """
    return [
        item
        for group in data.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
        for item in metric_parts(resource_fields(group.resource), scope_fields(scope.scope), metric, max_bytes)
    ]


def metric_parts(resource: bytes, scope: bytes, metric: Metric, max_bytes: int = MAX_REQUEST_BYTES) -> Iterator[Item]:
    """One metric as items, each as large as a request may be.

    Args:
        resource: the fields `resource` and `schema_url` of ResourceMetrics, encoded.
        scope: the fields `scope` and `schema_url` of ScopeMetrics, encoded.
        metric: what was collected, or anything with the same fields.
        max_bytes: the size of a request.
    """
    names = optional_string(_NAME, metric.name) + optional_string(_DESCRIPTION, metric.description)
    names += optional_string(_UNIT, metric.unit)
    shape = _shape(metric.data)
    points = [_POINT + prefixed(shape.encode(point)) for point in metric.data.data_points]
    for part in _parts(points, max_bytes - len(resource) - len(scope) - len(names) - _FRAME_BYTES):
        data = shape.tag + prefixed(b"".join(part) + shape.properties)
        yield Item(resource, scope, _METRIC + prefixed(names + data), len(part))


def _parts(points: Iterable[bytes], max_bytes: int) -> Iterator[list[bytes]]:
    part, size = list[bytes](), 0
    for point in points:
        if part and size + len(point) > max_bytes:
            yield part
            part, size = [], 0
        part.append(point)
        size += len(point)
    if part:
        yield part


# --- Kinds of metrics ---


@dataclass(frozen=True, slots=True)
class _Shape:
    """How the data of a metric is encoded."""

    tag: bytes
    """The field of Metric that holds the data."""
    encode: Callable[[Any], bytes]
    """Encodes a data point."""
    properties: bytes = b""
    """The fields beside the data points."""


def _shape(data: Any) -> _Shape:
    """By the fields of the data, because the SDK's classes are not imported here."""
    if not hasattr(data, "aggregation_temporality"):
        return _Shape(_GAUGE, _gauge_point)
    temporality = _TEMPORALITY + varint(int(data.aggregation_temporality))
    if hasattr(data, "is_monotonic"):
        return _Shape(_SUM, _sum_point, temporality + (_MONOTONIC if data.is_monotonic else b""))
    if any(hasattr(point, "scale") for point in data.data_points):
        return _Shape(_EXPONENTIAL_HISTOGRAM, _exponential_point, temporality)
    return _Shape(_HISTOGRAM, _histogram_point, temporality)


# --- Data points ---


def _gauge_point(point: NumberDataPoint) -> bytes:
    return (
        attributes_fields(_NUMBER_ATTRIBUTES, point.attributes)
        + _TIME
        + fixed64(point.time_unix_nano)
        + _number(_NUMBER_INT, _NUMBER_DOUBLE, point.value)
        + _exemplars(_NUMBER_EXEMPLAR, point.exemplars)
    )


def _sum_point(point: NumberDataPoint) -> bytes:
    return _START + fixed64(point.start_time_unix_nano) + _gauge_point(point)


def _histogram_point(point: HistogramDataPoint) -> bytes:
    return (
        attributes_fields(_HISTOGRAM_ATTRIBUTES, point.attributes)
        + _summary(point)
        + _packed(_BUCKET_COUNTS, packed_fixed64(point.bucket_counts))
        + _packed(_BOUNDS, packed_doubles(point.explicit_bounds))
        + _optional_double(_HISTOGRAM_MIN, point.min)
        + _optional_double(_HISTOGRAM_MAX, point.max)
        + _exemplars(_HISTOGRAM_EXEMPLAR, point.exemplars)
    )


def _exponential_point(point: ExponentialHistogramDataPoint) -> bytes:
    return (
        attributes_fields(_EXPONENTIAL_ATTRIBUTES, point.attributes)
        + _summary(point)
        + _SCALE
        + zigzag(point.scale)
        + _ZERO_COUNT
        + fixed64(point.zero_count)
        + _buckets(_POSITIVE, point.positive)
        + _buckets(_NEGATIVE, point.negative)
        + optional_uint32(_FLAGS, point.flags)
        + _optional_double(_EXPONENTIAL_MIN, point.min)
        + _optional_double(_EXPONENTIAL_MAX, point.max)
        + _exemplars(_EXPONENTIAL_EXEMPLAR, point.exemplars)
    )


def _summary(point: HistogramDataPoint | ExponentialHistogramDataPoint) -> bytes:
    """The fields that both histograms have: times, count and sum."""
    times = _START + fixed64(point.start_time_unix_nano) + _TIME + fixed64(point.time_unix_nano)
    return times + _COUNT + fixed64(point.count) + _optional_double(_TOTAL, point.sum)


def _buckets(tag: bytes, buckets: Buckets) -> bytes:
    if not buckets.bucket_counts:
        return b""
    counts = _packed(_BUCKETS_COUNTS, b"".join(map(varint, buckets.bucket_counts)))
    return tag + prefixed(_BUCKETS_OFFSET + zigzag(buckets.offset) + counts)


def _exemplars(tag: bytes, exemplars: Iterable[Exemplar]) -> bytes:
    return b"".join([tag + prefixed(_exemplar(exemplar)) for exemplar in exemplars])


def _exemplar(exemplar: Exemplar) -> bytes:
    span = b""
    if exemplar.span_id is not None and exemplar.trace_id is not None:
        span = _EXEMPLAR_SPAN_ID + span_id_bytes(exemplar.span_id)
        span += _EXEMPLAR_TRACE_ID + trace_id_bytes(exemplar.trace_id)
    value = _number(_EXEMPLAR_INT, _EXEMPLAR_DOUBLE, exemplar.value)
    time = _EXEMPLAR_TIME + fixed64(exemplar.time_unix_nano)
    return span + time + value + attributes_fields(_EXEMPLAR_ATTRIBUTES, exemplar.filtered_attributes)


# --- Numbers ---


def _number(int_tag: bytes, double_tag: bytes, value: float) -> bytes:
    """An integer as such, if it has at most 64 bits; anything else as a double."""
    if isinstance(value, int) and MIN_INT64 <= value <= MAX_INT64:
        return int_tag + pack_sfixed64(value)
    return double_tag + _double(value)


def _double(value: float) -> bytes:
    return pack_double(float64(value))


def _optional_double(tag: bytes, value: float | None) -> bytes:
    return b"" if value is None else tag + _double(value)


def _packed(tag: bytes, numbers: bytes) -> bytes:
    """Repeated numbers as one field; nothing if there are none."""
    return tag + prefixed(numbers) if numbers else b""
