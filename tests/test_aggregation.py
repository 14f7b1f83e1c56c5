"""The lean instruments give what the SDK's own would give."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    InMemoryMetricReader,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import set_span_in_context

from tests.programs import run
from tracemind_otel.ai.llm.types import LLMUsage
from tracemind_otel.otel import semconv
from tracemind_otel.otel.current import meter
from tracemind_otel.otel.instruments import Attributes, MeterInstruments
from tracemind_otel.otel.metrics import AttributeSets, CallMetrics, EndedCall
from tracemind_otel.otel.setup.aggregation import OwnInstruments

SETS = [AttributeSets.of({"gen_ai.request.model": model}) for model in ("a", "b", "c")]

usages = st.builds(
    LLMUsage,
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.none() | st.floats(0, 50),
    cache_read_tokens=st.none() | st.integers(0, 1000),
)


def ended_call(duration_s: float, usage: LLMUsage, failed: bool, retries: int, attributes: AttributeSets) -> EndedCall:
    return EndedCall(duration_s, None if failed else usage, failed, retries, attributes, Context())


calls = st.builds(ended_call, st.floats(0, 200), usages, st.booleans(), st.integers(0, 3), st.sampled_from(SETS))


class Side:
    """One way to measure, with a reader of its own."""

    def __init__(self, *, own: bool, delta: bool) -> None:
        temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        self.reader = InMemoryMetricReader(
            preferred_temporality={Counter: temporality, ObservableCounter: temporality, Histogram: temporality}
        )
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.own = OwnInstruments(meter(self.provider), delta=delta) if own else None
        self.metrics = CallMetrics(self.own or MeterInstruments(meter(self.provider)), "both")

    def collect(self) -> dict[tuple[str, str, frozenset[tuple[str, Any]]], Any]:
        """Every point by metric, unit and attributes, without its times."""
        data = self.reader.get_metrics_data()
        if data is not None and self.own is not None:
            data = self.own.add_histograms(data)
        return {} if data is None else points(data)


def points(data: MetricsData) -> dict[tuple[str, str, frozenset[tuple[str, Any]]], Any]:
    return {
        (metric.name, metric.unit or "", frozenset((point.attributes or {}).items())): essence(point, metric.data)
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def essence(point: object, data: Any) -> object:
    if isinstance(point, NumberDataPoint):
        return data.is_monotonic, pytest.approx(point.value)
    assert isinstance(point, HistogramDataPoint)
    return (
        data.aggregation_temporality,
        point.count,
        pytest.approx(point.sum),
        tuple(point.bucket_counts),
        tuple(point.explicit_bounds),
        point.min,
        point.max,
    )


@pytest.mark.parametrize("delta", [False, True], ids=["cumulative", "delta"])
@given(batches=st.lists(st.lists(calls, min_size=1, max_size=12), min_size=1, max_size=3))
def test_lean_instruments_equal_those_of_the_sdk(delta: bool, batches: Sequence[Sequence[EndedCall]]) -> None:
    """For any calls, in any number of collections, the figures are the same as through the SDK's instruments."""
    sdk, own = Side(own=False, delta=delta), Side(own=True, delta=delta)
    for batch in batches:
        for call in batch:
            sdk.metrics.record(call)
            own.metrics.record(call)
        expected, found = sdk.collect(), own.collect()
        if delta:
            # An observable counter of the SDK repeats a series that did not grow, as zero.
            found = {key: value for key, value in found.items() if key in expected or value[1] != 0}
        assert found == expected


def test_a_failed_call_alone_is_exported() -> None:
    """When all that ever happened is a call that failed, its duration still reaches the exporter."""
    own = Side(own=True, delta=False)
    own.metrics.record(EndedCall(0.2, None, True, 0, SETS[0], Context()))
    names = {name for name, _, _ in own.collect()}
    assert semconv.METRIC_OPERATION_DURATION in names


def test_exemplar_leads_to_the_span() -> None:
    """The duration's point carries the trace and span id of a sampled call."""
    own = Side(own=True, delta=False)
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("call")
    own.metrics.record(EndedCall(0.2, None, True, 0, SETS[0], set_span_in_context(span)))
    assert own.own is not None
    data = own.reader.get_metrics_data()
    assert data is not None
    [point] = [
        point
        for scope in own.own.add_histograms(data).resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == semconv.METRIC_OPERATION_DURATION
        for point in metric.data.data_points
    ]
    assert isinstance(point, HistogramDataPoint)
    assert [exemplar.span_id for exemplar in point.exemplars] == [span.get_span_context().span_id]


def test_too_many_series_go_into_one_that_says_so() -> None:
    """Attributes without end do not eat the memory: after 2,000 series the rest is counted as overflow."""
    own = Side(own=True, delta=False)
    assert own.own is not None
    counter = own.own.counter("test.counter", "1", "")
    for number in range(2100):
        counter.add(1, {"user": number}, Context())
    found = own.collect()
    assert len(found) == 2001
    overflow: Attributes = {"otel.metric.overflow": True}
    assert found["test.counter", "1", frozenset(overflow.items())] == (True, 100)


def test_threads_lose_no_measurement() -> None:
    """Calls that end in several threads at once are all counted."""
    own = Side(own=True, delta=False)
    call = EndedCall(0.2, LLMUsage(10, 5, 15, 0.001), False, 1, SETS[0], Context())

    def work() -> None:
        for _ in range(2000):
            own.metrics.record(call)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = own.collect()
    key = frozenset(SETS[0].plain.items())
    assert found[semconv.METRIC_LLM_RETRIES, "{retry}", key] == (True, 8000)
    assert found[semconv.METRIC_OPERATION_DURATION, "s", key][1] == 8000


FORKS = """
import os
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, NoOpMeter
from tracemind_otel.otel.setup.aggregation import OwnInstruments

own = OwnInstruments(NoOpMeter("test"), delta=False)
counter, histogram = own.counter("c", "1", ""), own.histogram("h", "s", "", [1.0])
counter.add(5, {}, Context())
histogram.record(0.5, {}, Context())
child = os.fork()
if not child:
    empty = not list(counter.observe(CallbackOptions())) and histogram.collect(delta=False, time_ns=1) is None
    os._exit(0 if empty else 1)
assert os.waitpid(child, 0)[1] == 0
assert [each.value for each in counter.observe(CallbackOptions())] == [5]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_counts_for_itself(tmp_path: Path) -> None:
    """It begins with nothing, so that no sum of its parent is sent twice."""
    done = run("-c", FORKS, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_measurement_within_a_measurement() -> None:
    """Garbage that is collected under a lock may end a call, whose measurements must neither wait nor be lost."""
    side = Side(own=True, delta=True)
    assert side.own is not None
    counter, histogram = side.own.counter("c", "1", ""), side.own.histogram("h", "s", "", [1.0])
    attributes: Attributes = {"a": "b"}

    class Striking(dict[str, str | bool | int | float]):
        """Attributes that measure something of their own when they are first looked at, as a collection would."""

        def items(self) -> Any:
            counter.add(1, attributes, Context())
            histogram.record(0.5, attributes, Context())
            return super().items()

    def measure() -> None:
        counter.add(1, Striking(a="b"), Context())
        histogram.record(0.5, Striking(a="b"), Context())

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    metric = histogram.collect(delta=True, time_ns=1)
    assert metric is not None
    (point,) = metric.data.data_points
    assert isinstance(point, HistogramDataPoint)
    assert (point.count, [each.value for each in counter.observe(CallbackOptions())]) == (3, [3])
