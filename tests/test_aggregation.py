"""The package's own instruments and reader export what the SDK's would."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import set_span_in_context

from tests.programs import clean_environment, run
from tests.servers.otlp_sink import Post, Sink
from tests.servers.otlp_sink import sink as sink
from tracemind_otel.otel.current import meter
from tracemind_otel.otel.export.delivery_stats import MetricsDeliveryStats
from tracemind_otel.otel.instruments import NO_SPAN, Attributes, Instruments
from tracemind_otel.otel.setup.aggregation import MAX_SERIES, OwnInstruments
from tracemind_otel.otel.setup.delivery import WatchedExporter
from tracemind_otel.otel.setup.metric_reader import OwnReader

TEMPORALITIES = pytest.mark.parametrize("is_delta", [False, True], ids=["cumulative", "delta"])
RESOURCE = Resource({"service.name": "test"})
BOUNDARIES = (0.0, 1.0, 10.0, 1e6)


class Kept(MetricExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[MetricsData] = []
        self.was_instrumented = False

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.batches.append(metrics_data)
        self.was_instrumented |= is_instrumentation_enabled()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """There is nothing to close."""


def preference(*, is_delta: bool) -> dict[type, AggregationTemporality]:
    return dict.fromkeys((Counter, Histogram, ObservableCounter), AggregationTemporality.DELTA) if is_delta else {}


class Side:
    """One way to measure: the instruments of the package's metrics, and those that an application makes itself."""

    def __init__(self, provider: MeterProvider, instruments: Instruments) -> None:
        self.provider = provider
        self.began_ns: list[int] = []
        seconds, marks = "s", "of the same name"
        self.counters = [instruments.create_counter("c", "1", ""), instruments.create_counter("c", seconds, marks)]
        self.counters.append(instruments.create_counter("c", "1", ""))  # again the first
        self.histograms = [
            instruments.create_histogram(name, seconds, "", explicit_bucket_boundaries_advisory=BOUNDARIES)
            for name in ("h", "c")
        ]
        theirs = provider.get_meter("theirs", "1.0")
        self.their_counter = theirs.create_counter("their.counter", "1")
        self.their_total = 0
        theirs.create_observable_counter("their.total", [self._observe])

    def _observe(self, options: CallbackOptions) -> Sequence[Observation]:
        return [Observation(self.their_total, {"a": 1})] if self.their_total else []

    def measure(self, kind: int, amount: float, attributes: Attributes, context: Context) -> None:
        """Measure with one of the instruments."""
        if kind < 3:
            self.counters[kind].add(amount, attributes, NO_SPAN)
        elif kind < 5:
            self.histograms[kind - 3].record(amount, attributes, context)
        else:
            self.their_counter.add(amount, attributes, NO_SPAN)
            self.their_total += 1

    def collect(self) -> Mapping[object, object]:
        """Everything that is exported now, in a form that can be compared."""
        self.began_ns.append(time.time_ns())
        data = self._collect()
        return {} if data is None else self._comparable(data)

    def _collect(self) -> MetricsData | None:
        raise NotImplementedError

    def _comparable(self, data: MetricsData) -> Mapping[object, object]:
        return {
            (
                tuple(sorted(resource.resource.attributes.items())),
                scope.scope,
                scope.schema_url,
                (metric.name, metric.unit, metric.description, type(metric.data)),
                frozenset((name, type(value), value) for name, value in (point.attributes or {}).items()),
            ): (*self._essence(point), *kind(metric.data))
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    def _essence(self, point: Any) -> Sequence[object]:
        """The figures, the exemplars, and the interval in which the point began."""
        assert self.began_ns[-1] <= point.time_unix_nano <= time.time_ns()
        interval = bisect_right(self.began_ns, point.start_time_unix_nano)
        exemplars = [(e.filtered_attributes, e.value, e.span_id, e.trace_id) for e in point.exemplars]
        if isinstance(point, NumberDataPoint):
            return interval, exemplars, type(point.value), pytest.approx(point.value)
        assert isinstance(point, HistogramDataPoint)
        figures = (point.count, type(point.sum), pytest.approx(point.sum), point.min, point.max)
        return interval, exemplars, *figures, tuple(point.bucket_counts), tuple(point.explicit_bounds)


def kind(data: Any) -> Sequence[object]:
    return data.aggregation_temporality, getattr(data, "is_monotonic", None)


class SdkSide(Side):
    """The SDK's instruments and reader."""

    def __init__(self, *, is_delta: bool) -> None:
        self.reader = InMemoryMetricReader(preference(is_delta=is_delta))
        provider = MeterProvider([self.reader], RESOURCE, shutdown_on_exit=False)
        super().__init__(provider, meter(provider))

    def _collect(self) -> MetricsData | None:
        return self.reader.get_metrics_data()


class OwnSide(Side):
    """The package's, as `configure()` builds them."""

    def __init__(self, *, is_delta: bool) -> None:
        self.exporter = Kept()
        watched = WatchedExporter(lambda: self.exporter, MetricsDeliveryStats("a test"), count=lambda _: 1)
        self.reader = OwnReader(watched, RESOURCE, float("inf"), 10.0, preference(is_delta=is_delta))
        provider = MeterProvider([self.reader], RESOURCE, shutdown_on_exit=False)
        self.reader.start()
        super().__init__(provider, self.reader.instruments)

    def _collect(self) -> MetricsData | None:
        self.exporter.batches.clear()
        self.reader.force_flush()
        return self.exporter.batches[0] if self.exporter.batches else None


def contexts() -> list[Context]:
    sampled = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("sampled")
    left_out = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test").start_span("left out")
    return [NO_SPAN, set_span_in_context(sampled), set_span_in_context(left_out)]


ALIKE = [1, True, 1.0, 0, False, 0.0, "1", "True", ""]
hostile_values = st.one_of(
    st.sampled_from(ALIKE),
    st.text(st.characters(), max_size=4),
    st.sampled_from(["\ud800", "a\0b", "long" * 20_000, 2**70, -(2**70), float("nan"), float("inf")]),
    st.integers(),
    st.floats(),
)
attribute_sets = st.lists(
    st.dictionaries(st.sampled_from(["a", "b", "\udfff"]), hostile_values, max_size=2), min_size=1, max_size=5
)
amounts = st.one_of(
    st.integers(0, 2**40),
    st.floats(0, 1e9),
    st.sampled_from([0, 0.0, 1, 1.0, -1, -0.5, float("nan"), float("inf"), float("-inf")]),
)
measurements = st.tuples(st.integers(0, 5), amounts, st.integers(0, 4), st.booleans(), st.integers(0, 2))


@TEMPORALITIES
@example(sets=[{"a": value} for value in ALIKE], rounds=[[(0, 1, number, True, 0) for number in range(len(ALIKE))]])
@given(sets=attribute_sets, rounds=st.lists(st.lists(measurements, max_size=12), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine takes its time to make them
def test_own_instruments_equal_those_of_the_sdk(
    is_delta: bool, sets: list[Attributes], rounds: list[list[tuple[int, float, int, bool, int]]]
) -> None:
    """For any measurements, in any number of exports, every point has the same figures, exemplars and interval.

    Series come and go, attributes are hostile, some amounts are none, two instruments share a name, and the application
    measures by instruments of its own. Counters are measured without a span, as our metrics do.
    """
    sdk, own, spans = SdkSide(is_delta=is_delta), OwnSide(is_delta=is_delta), contexts()
    for measured in rounds:
        for instrument, amount, number, is_copy, span in measured:
            attributes = sets[number % len(sets)]
            for side in (sdk, own):
                side.measure(instrument, amount, dict(attributes) if is_copy else attributes, spans[span])
        assert own.collect() == sdk.collect()


@TEMPORALITIES
def test_too_many_series_go_into_one_that_says_so(is_delta: bool) -> None:
    """Unlimited attribute values do not fill the memory: after 2,000 series the rest counts as overflow."""
    own = OwnInstruments(is_delta=is_delta)
    counter = own.create_counter("c", "1", "")
    for number in range(MAX_SERIES + 100):
        counter.add(1, {"user": number}, NO_SPAN)
    points = sums(own)
    assert len(points) == MAX_SERIES + 1
    assert points["otel.metric.overflow", True] == 100
    counter.add(1, {"user": "new"}, NO_SPAN)
    # In delta temporality, where the series of an interval are done with, there is room again.
    assert sums(own).get(("user", "new")) == (1 if is_delta else None)


def sums(own: OwnInstruments) -> dict[tuple[str, object], int | float]:
    """The sums of a counter by the first attribute."""
    exported = own.collect()
    assert exported is not None
    return {
        next(iter((point.attributes or {}).items())): point.value
        for point in exported.metrics[0].data.data_points
        if isinstance(point, NumberDataPoint)
    }


@pytest.mark.soak
def test_threads_lose_no_measurement() -> None:
    """Every measurement counts, though several threads measure while another exports again and again."""
    own = OwnSide(is_delta=True)
    exported = list[float]()

    def work() -> None:
        for _ in range(2000):
            own.measure(0, 1, {"a": "b"}, NO_SPAN)

    def counted() -> float:
        own.reader.force_flush()
        return sum(
            point.value
            for batch in own.exporter.batches
            for scope in batch.resource_metrics[0].scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint)
        )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        exported.append(counted())
    assert exported == sorted(exported)
    assert counted() == 8000


@pytest.mark.soak
def test_a_measurement_within_a_measurement() -> None:
    """A finalizer or signal handler may measure during a measurement: it neither waits nor is lost."""
    own = OwnInstruments(is_delta=True)
    counter, histogram = (
        own.create_counter("c", "1", ""),
        own.create_histogram("h", "s", "", explicit_bucket_boundaries_advisory=[1.0]),
    )
    attributes: Attributes = {"a": "b"}

    class Striking(dict[str, str | bool | int | float]):
        """Attributes that take a measurement when they are first read, as a finalizer might."""

        def items(self) -> Any:
            counter.add(1, attributes, NO_SPAN)
            histogram.record(0.5, attributes, NO_SPAN)
            return super().items()

    def measure() -> None:
        counter.add(1, Striking(a="b"), NO_SPAN)
        histogram.record(0.5, Striking(a="b"), NO_SPAN)

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    exported = own.collect()
    assert exported is not None
    sums, counts = (metric.data.data_points for metric in exported.metrics)
    assert [point.value for point in sums if isinstance(point, NumberDataPoint)] == [3]
    assert [point.count for point in counts if isinstance(point, HistogramDataPoint)] == [3]


def test_an_export_is_no_request_of_the_application() -> None:
    """Instrumented HTTP clients make no spans for exports."""
    own = OwnSide(is_delta=False)
    own.measure(0, 1, {}, NO_SPAN)
    own.collect()
    assert not own.exporter.was_instrumented
    assert is_instrumentation_enabled()


# --- Forks ---

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
MAY_FORK = ("-W", "ignore::DeprecationWarning")
"""Newer Pythons warn of forks in a process with threads."""
DELTA = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}

PROGRAM = """
import asyncio, os, sys, threading, time
import tracemind_otel as tm
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient

telemetry = tm.configure(endpoint=sys.argv[1])
step = tm.LLMCallConfig("fake", "toy-1", "hi")

def call():
    client = FakeLLMClient(0, usage=LLMUsage(10, 5, 15, 0.25))
    asyncio.run(tm.run_llm_call("f", "s", step, telemetry.recorder, client=client))

def fork(run):
    child = os.fork()
    if not child:
        try:
            run()
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
        os._exit(0)
    return child

def calls_and_flushes():
    call()
    assert telemetry.flush(20)
    call()
    assert telemetry.flush(20)
"""


@forks
@pytest.mark.parametrize("environment", [{}, DELTA], ids=["cumulative", "delta"])
def test_a_forked_child_counts_for_itself(tmp_path: Path, sink: Sink, environment: Mapping[str, str]) -> None:
    """In both temporalities a child exports its own sums, never its parent's and never a negative one."""
    done = run(
        *MAY_FORK,
        "-c",
        PROGRAM
        + """
call()
call()
assert telemetry.flush()
call()
children = [fork(calls_and_flushes) for _ in range(2)]
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
telemetry.shutdown()
""",
        sink.url,
        directory=tmp_path,
        environment=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = [[0.25, 0.25], [0.25, 0.25], [0.5, 0.25]] if environment else [[0.25, 0.5], [0.25, 0.5], [0.5, 0.75]]
    assert sorted(sink.counters("tracemind.llm.cost").values()) == expected


@forks
def test_a_child_forked_during_an_export(tmp_path: Path, sink: Sink) -> None:
    """A child that is forked while the parent waits for the receiver exports its own sums."""
    arrived, released = threading.Event(), threading.Event()

    def hold_first(post: Post) -> None:
        if post.path == "/v1/metrics" and not arrived.is_set():
            arrived.set()
            assert released.wait(60)

    sink.hold = hold_first
    program = """
call()
threading.Thread(target=telemetry.flush, args=(60,)).start()
assert sys.stdin.readline()
print(os.waitpid(fork(calls_and_flushes), 0)[1], flush=True)
"""
    with subprocess.Popen(
        [sys.executable, *MAY_FORK, "-c", PROGRAM + program, sink.url],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert arrived.wait(60)
            process.stdin.write("fork\n")
            process.stdin.flush()
            ended = process.stdout.readline()
        finally:
            released.set()
    assert ended == "0\n"
    assert sorted(sink.counters("tracemind.llm.cost").values())[-1] == [0.25, 0.5]


@forks
def test_children_of_a_busy_parent(tmp_path: Path, sink: Sink) -> None:
    """A child works although other threads of its parent measure or export at the fork."""
    done = run(
        *MAY_FORK,
        "-c",
        PROGRAM
        + """
busy = threading.Event()

def measure():
    while not busy.is_set():
        call()

threads = [threading.Thread(target=measure, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(15):
    child = fork(calls_and_flushes)
    assert os.waitpid(child, 0)[1] == 0
busy.set()
for thread in threads:
    thread.join()
assert telemetry.shutdown()
""",
        sink.url,
        directory=tmp_path,
        environment={"OTEL_METRIC_EXPORT_INTERVAL": "5"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    ends = sorted(values[-1] for values in sink.counters("tracemind.llm.cost").values())
    assert ends[:-1] == [0.5] * 15
    assert ends[-1] > 0.5


@forks
def test_a_callback_that_waits_for_the_thread_that_forks(tmp_path: Path, sink: Sink) -> None:
    """A fork under a lock does not hang, though an observable instrument's callback takes the same lock."""
    done = run(
        *MAY_FORK,
        "-c",
        PROGRAM
        + """
processes, collecting = threading.Lock(), threading.Event()

def observe(options):
    collecting.set()
    with processes:
        return []

telemetry.meter_provider.get_meter("theirs").create_observable_gauge("processes", [observe])
flush = threading.Thread(target=telemetry.flush)
with processes:
    flush.start()
    assert collecting.wait(20)
    child = fork(call)
    assert os.waitpid(child, 0)[1] == 0
flush.join()
call()
assert telemetry.shutdown()
""",
        sink.url,
        directory=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sink.counter("tracemind.llm.cost") == 0.25


@forks
def test_instruments_of_others_after_a_fork(tmp_path: Path, sink: Sink) -> None:
    """In a child, the SDK's instruments start with the parent's sum, or at zero after `configure()`."""
    program = """
def count(telemetry, amount):
    telemetry.meter_provider.get_meter("other").create_counter("other").add(amount)
    assert telemetry.flush(20)

def counts_anew():
    count(tm.configure(endpoint=sys.argv[1]), 1)

count(telemetry, 3)
children = [fork(lambda: count(telemetry, 1)), fork(counts_anew)]
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""
    done = run(*MAY_FORK, "-c", PROGRAM + program, sink.url, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *others = sorted(values[-1] for values in sink.counters("other").values())
    assert (first, others[-1]) == (1, 4)
