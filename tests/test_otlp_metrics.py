"""Our own encoding of metrics says what the official one says, and a metric that is too large is cut."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import (
    AlwaysOnExemplarFilter,
    Counter,
    Exemplar,
    Histogram,
    MeterProvider,
)
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from tests.otlp_strategies import ATTRIBUTES, INT64, RESOURCES, SCOPES, TIMES
from tracemind_otel.otel.export.otlp_metrics import metric_items
from tracemind_otel.otel.export.otlp_request import Item, request_body

many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parsed(items: Iterable[Item]) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    request.ParseFromString(request_body(items))
    return request


def as_bytes(request: ExportMetricsServiceRequest) -> bytes:
    """For comparing: two messages with NaN are never equal."""
    return bytes(request.SerializeToString(deterministic=True))


# --- Everything that the SDK's classes hold ---

NUMBERS = INT64 | st.floats()
COUNTS = st.integers(0, 2**64 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
EXEMPLARS = st.lists(
    st.builds(
        Exemplar,
        st.none() | ATTRIBUTES,
        NUMBERS,
        TIMES,
        st.none() | st.integers(0, 2**64 - 1),
        st.none() | st.integers(0, 2**128 - 1),
    ),
    max_size=2,
)
NUMBER_POINTS = st.builds(sdk.NumberDataPoint, st.none() | ATTRIBUTES, TIMES, TIMES, NUMBERS, EXEMPLARS)
HISTOGRAM_POINTS = st.builds(
    sdk.HistogramDataPoint,
    attributes=st.none() | ATTRIBUTES,
    start_time_unix_nano=TIMES,
    time_unix_nano=TIMES,
    count=COUNTS,
    sum=NUMBERS,
    bucket_counts=st.lists(COUNTS, max_size=4),
    explicit_bounds=st.lists(st.floats() | INT32, max_size=4),
    min=st.none() | NUMBERS,
    max=st.none() | NUMBERS,
    exemplars=EXEMPLARS,
)
BUCKETS = st.builds(sdk.Buckets, INT32, st.lists(COUNTS, max_size=4))
EXPONENTIAL_POINTS = st.builds(
    sdk.ExponentialHistogramDataPoint,
    attributes=st.none() | ATTRIBUTES,
    start_time_unix_nano=TIMES,
    time_unix_nano=TIMES,
    count=COUNTS,
    sum=NUMBERS,
    scale=INT32,
    zero_count=COUNTS,
    positive=BUCKETS,
    negative=BUCKETS,
    flags=st.integers(0, 2**32 - 1),
    min=st.none() | NUMBERS,
    max=st.none() | NUMBERS,
    exemplars=EXEMPLARS,
)


def points_of(points: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(points, min_size=1, max_size=3)


TEMPORALITIES = st.sampled_from(sdk.AggregationTemporality)
DATA: st.SearchStrategy[Any] = st.one_of(
    st.builds(sdk.Gauge, points_of(NUMBER_POINTS)),
    st.builds(sdk.Sum, points_of(NUMBER_POINTS), TEMPORALITIES, st.booleans()),
    st.builds(sdk.Histogram, points_of(HISTOGRAM_POINTS), TEMPORALITIES),
    st.builds(sdk.ExponentialHistogram, points_of(EXPONENTIAL_POINTS), TEMPORALITIES),
)
METRICS = st.builds(sdk.Metric, st.text(), st.none() | st.text(), st.none() | st.text(), DATA)


@st.composite
def collected(draw: st.DrawFn) -> sdk.MetricsData:
    """Metrics of one or two scopes and resources."""

    def scope(name: str) -> sdk.ScopeMetrics:
        drawn = draw(SCOPES)
        scope = InstrumentationScope(name, drawn.version, drawn.schema_url, drawn.attributes)
        return sdk.ScopeMetrics(scope, draw(st.lists(METRICS, min_size=1, max_size=2)), "")

    def group(name: str) -> sdk.ResourceMetrics:
        drawn = draw(RESOURCES)
        resource = Resource({**drawn.attributes, "service.name": name}, drawn.schema_url)
        return sdk.ResourceMetrics(resource, [scope(each) for each in "ab"[: draw(st.integers(1, 2))]], "")

    return sdk.MetricsData([group(each) for each in "ab"[: draw(st.integers(1, 2))]])


@many
@given(collected())
def test_metrics_say_the_same(data: sdk.MetricsData) -> None:
    """Whatever was collected, a receiver reads the same from our bytes as from those of the stock exporter."""
    items = metric_items(data)
    scopes = [scope for group in data.resource_metrics for scope in group.scope_metrics]
    metrics = [metric for scope in scopes for metric in scope.metrics]

    assert as_bytes(parsed(items)) == as_bytes(encode_metrics(data))
    assert [item.count for item in items] == [len(metric.data.data_points) for metric in metrics]


# --- What real instruments collect ---


def observed(_: CallbackOptions) -> list[Observation]:
    return [Observation(3, {"a": 1}), Observation(2.5)]


@pytest.mark.parametrize("temporality", [sdk.AggregationTemporality.DELTA, sdk.AggregationTemporality.CUMULATIVE])
def test_real_instruments_say_the_same(temporality: sdk.AggregationTemporality) -> None:
    """Counters, gauges and both histograms of the SDK, with exemplars and what a view filtered out, say the same."""
    kinds: dict[type, sdk.AggregationTemporality] = {Counter: temporality, Histogram: temporality}
    reader = sdk.InMemoryMetricReader(preferred_temporality=kinds)
    provider = MeterProvider(
        [reader],
        Resource({"service.name": "shop"}, "https://example.org/schema"),
        exemplar_filter=AlwaysOnExemplarFilter(),
        views=[
            View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation()),
            View(instrument_name="filtered", attribute_keys={"kept"}),
        ],
        shutdown_on_exit=False,
    )
    meter = provider.get_meter("one", "1.0", "https://example.org/one", {"scope": "a"})
    span = NonRecordingSpan(SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))
    context = trace.set_span_in_context(span)
    for amount in (0, 1, 2.5, -3.5, 1e9):
        meter.create_up_down_counter("up_down").add(amount, {"sign": amount < 0}, context)
        meter.create_histogram("exponential", "s").record(amount, {"a": "b"}, context)
        meter.create_histogram("filtered", "s", "Seconds").record(amount, {"kept": 1, "dropped": "x"}, context)
        meter.create_gauge("gauge").set(amount)
    provider.get_meter("two").create_counter("counter", "{call}").add(2**40, {"list": ["a", "b"]}, context)
    meter.create_observable_counter("observed", [observed])
    data = reader.get_metrics_data()
    provider.shutdown()

    assert data is not None
    items = metric_items(data)
    assert parsed(items) == encode_metrics(data)
    assert len(items) == 6
    assert b"dropped" in request_body(items)  # an exemplar has what the view filtered out


# --- Sizes, and what cannot be encoded ---

SOME = Resource({"service.name": "shop"})


def sums(points: list[sdk.NumberDataPoint]) -> sdk.MetricsData:
    metric = sdk.Metric("calls", "Calls", "1", sdk.Sum(points, sdk.AggregationTemporality.DELTA, True))
    scope = sdk.ScopeMetrics(InstrumentationScope("scope"), [metric], "")
    return sdk.MetricsData([sdk.ResourceMetrics(SOME, [scope], "")])


def point(value: Any, **attributes: Any) -> sdk.NumberDataPoint:
    return sdk.NumberDataPoint(attributes, 1, 2, value, [Exemplar(attributes, value, 2)])


@pytest.mark.parametrize("max_bytes", [1, 2_000, 10_000, 100_000])
def test_a_metric_that_is_too_large_is_cut_by_points(max_bytes: int) -> None:
    """Each part is a metric of its own with its name, unit and temporality, and together they have every point."""
    data = sums([point(number, words="x" * (number % 7 * 100)) for number in range(200)])
    items = metric_items(data, max_bytes)

    sizes = [len(request_body([item])) for item in items]
    assert all(size <= max_bytes or item.count == 1 for size, item in zip(sizes, items, strict=True))
    assert sum(item.count for item in items) == 200
    assert len(items) == {1: 200, 100_000: 2}.get(max_bytes, len(items))
    values = list[int]()
    for item in items:
        metric = parsed([item]).resource_metrics[0].scope_metrics[0].metrics[0]
        assert (metric.name, metric.unit, metric.sum.is_monotonic) == ("calls", "1", True)
        assert metric.sum.aggregation_temporality == metric.sum.aggregation_temporality.__class__(1)
        values += [each.as_int for each in metric.sum.data_points]
    assert values == [*range(200)]


def test_a_metric_without_points_is_left_out() -> None:
    """Nothing is sent where nothing was measured."""
    assert metric_items(sums([])) == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2**70, float(2**70)), (-(2**63) - 1, float(-(2**63))), (10**400, float("inf")), (True, 1)],
    ids=["large", "small", "beyond a double", "bool"],
)
def test_a_number_that_otlp_lacks_costs_no_metric(value: int, expected: float) -> None:
    """A sum that has grown over 64 bits arrives as the nearest double, and a bool as an integer."""
    assert parsed(metric_items(sums([point(value)]))) == encode_metrics(sums([point(expected)]))


def test_a_histogram_that_otlp_lacks_costs_no_metric() -> None:
    """A bound beyond a double is infinite, and a count that is not one of 64 bits is the nearest."""

    def histogram(counts: list[int], bounds: list[float], total: float) -> sdk.MetricsData:
        points = [sdk.HistogramDataPoint({}, 1, 2, counts[0], total, counts, bounds, total, total)]
        metric = sdk.Metric("calls", "", "", sdk.Histogram(points, sdk.AggregationTemporality.DELTA))
        scope = sdk.ScopeMetrics(InstrumentationScope("scope"), [metric], "")
        return sdk.MetricsData([sdk.ResourceMetrics(SOME, [scope], "")])

    hostile = histogram([2**64, -1, 3], [10**400, 1], 10**400)
    mended = histogram([2**64 - 1, 0, 3], [float("inf"), 1], float("inf"))
    assert parsed(metric_items(hostile)) == encode_metrics(mended)


def test_hostile_attributes_are_mended() -> None:
    """A lone surrogate in a label of a point or of an exemplar is replaced."""
    hostile, mended = sums([point(1, model="a\ud800")]), sums([point(1, model="a\ufffd")])
    assert parsed(metric_items(hostile)) == encode_metrics(mended)
