"""Lean instruments for the pipeline that `configure()` makes.

The SDK cleans, copies, sorts and hashes the attributes of every measurement, which costs more than the span. Ours
are built once and never change, so here a series is found by the identity of its attributes. Counters are read by
the SDK through observable counters; histograms, for which it has no such door, take the places that they hold in what
its reader exports. Both arrive as the SDK's own would.
"""

from __future__ import annotations

import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.trace import SpanContext, get_current_span

from ..._base.fork import in_forked_child
from ..instruments import SCOPE_NAME, Attributes

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import Exemplar
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricsData, ScopeMetrics

_MAX_SERIES = 2000
"""As the SDK's own limit; what comes after goes into one series that says so."""
_OVERFLOW: Attributes = {"otel.metric.overflow": True}

S = TypeVar("S")


class _SeriesTable(Generic[S]):
    """Series by their attributes: found by identity, told apart by value. Call with the lock held."""

    def __init__(self) -> None:
        self._by_identity: dict[int, tuple[Attributes, S]] = {}
        self._by_value: dict[frozenset[tuple[str, object]], tuple[Attributes, S]] = {}

    def find(self, attributes: Attributes) -> S | None:
        """The series of these attributes, if they were seen before. They are kept, so their identity stays theirs."""
        found = self._by_identity.get(id(attributes))
        return None if found is None else found[1]

    def put(self, attributes: Attributes, new: S) -> S:
        """The series of equal attributes, else the new one."""
        key = frozenset(attributes.items())
        if key not in self._by_value and len(self._by_value) >= _MAX_SERIES:
            attributes, key = _OVERFLOW, frozenset(_OVERFLOW.items())
        held = self._by_value.setdefault(key, (attributes, new))
        if len(self._by_identity) >= 2 * _MAX_SERIES:
            self._by_identity = {}
        self._by_identity[id(attributes)] = (attributes, held[1])
        return held[1]

    def items(self) -> list[tuple[Attributes, S]]:
        """All series with their attributes."""
        return list(self._by_value.values())


class _Sum:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | float = 0


class OwnCounter:
    """A counter that the SDK reads when it collects."""

    def __init__(self) -> None:
        # Re-entrant: a stream dropped unread ends its call in a garbage collection, which may strike while it is held.
        self._lock = threading.RLock()
        self._series: _SeriesTable[_Sum] = _SeriesTable()

    def add(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        """Add to the series of these attributes."""
        with self._lock:
            series = self._series.find(attributes) or self._series.put(attributes, _Sum())
            series.value += amount

    def begin_anew(self) -> None:
        """In a forked child: what was added is its parent's, and another thread of that may have held the lock."""
        self._lock, self._series = threading.RLock(), _SeriesTable()

    def observe(self, options: CallbackOptions) -> Iterable[Observation]:
        """What an observable counter of the SDK asks for."""
        with self._lock:
            return [Observation(series.value, attributes) for attributes, series in self._series.items()]


class _Distribution:
    __slots__ = ("bucket_counts", "exemplars", "maximum", "minimum", "started_ns", "total")

    def __init__(self, buckets: int, started_ns: int) -> None:
        self.bucket_counts = [0] * buckets
        self.total: int | float = 0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.started_ns = started_ns
        self.exemplars: dict[int, _Sample] = {}


@dataclass(frozen=True, slots=True)
class _Sample:
    """The last measurement in a bucket that belongs to a sampled span."""

    amount: int | float
    time_ns: int
    span: SpanContext


class OwnHistogram:
    """A histogram that adds itself to what is exported."""

    def __init__(self, name: str, unit: str, description: str, boundaries: Sequence[float]) -> None:
        self._name, self._unit, self._description = name, unit, description
        self._boundaries = tuple(boundaries)
        self._lock = threading.RLock()  # as a counter's
        self._series: _SeriesTable[_Distribution] = _SeriesTable()
        self._collected_ns: int | None = None

    def record(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        """Add a measurement to the series of these attributes; the context's span becomes its exemplar."""
        bucket = bisect_left(self._boundaries, amount)
        span = get_current_span(context).get_span_context() if context else None
        with self._lock:
            series = self._series.find(attributes) or self._new_series(attributes)
            series.bucket_counts[bucket] += 1
            series.total += amount
            if amount < series.minimum:
                series.minimum = amount
            if amount > series.maximum:
                series.maximum = amount
            if span is not None and span.trace_flags.sampled:
                series.exemplars[bucket] = _Sample(amount, time.time_ns(), span)

    def begin_anew(self) -> None:
        """As a counter's."""
        self._lock, self._series = threading.RLock(), _SeriesTable()

    def stand_in(self, options: CallbackOptions) -> Iterable[Observation]:
        """A point in this metric's place, so that the SDK exports what it would else take for nothing."""
        return [Observation(0)] if self._series.items() else []

    def _new_series(self, attributes: Attributes) -> _Distribution:
        started_ns = self._collected_ns or time.time_ns()
        return self._series.put(attributes, _Distribution(len(self._boundaries) + 1, started_ns))

    def collect(self, *, delta: bool, time_ns: int) -> Metric | None:
        """The metric as the SDK would export it; `None` when there is nothing. Delta begins anew."""
        fresh: _SeriesTable[_Distribution] = _SeriesTable()
        with self._lock:
            table = self._series
            if delta:
                self._series, self._collected_ns = fresh, time_ns
            points = [self._point(attributes, series, time_ns) for attributes, series in table.items()]
        return self._metric(points, delta=delta) if points else None

    def _metric(self, points: list[HistogramDataPoint], *, delta: bool) -> Metric:
        from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, Metric

        temporality = AggregationTemporality.DELTA if delta else AggregationTemporality.CUMULATIVE
        return Metric(self._name, self._description, self._unit, Histogram(points, temporality))

    def _point(self, attributes: Attributes, series: _Distribution, time_ns: int) -> HistogramDataPoint:
        from opentelemetry.sdk.metrics.export import HistogramDataPoint

        exemplars, series.exemplars = series.exemplars, {}
        return HistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=series.started_ns,
            time_unix_nano=time_ns,
            count=sum(series.bucket_counts),
            sum=series.total,
            bucket_counts=tuple(series.bucket_counts),
            explicit_bounds=self._boundaries,
            min=series.minimum,
            max=series.maximum,
            exemplars=[_exemplar(sample) for sample in exemplars.values()],
        )


def _exemplar(sample: _Sample) -> Exemplar:
    from opentelemetry.sdk.metrics import Exemplar

    return Exemplar({}, sample.amount, sample.time_ns, sample.span.span_id, sample.span.trace_id)


class OwnInstruments:
    """The lean instruments of one pipeline; made once for it, since observable counters cannot be made twice."""

    def __init__(self, meter: Meter, *, delta: bool) -> None:
        self._meter = meter
        self._delta = delta
        self._counters: dict[str, OwnCounter] = {}
        self._histograms: dict[str, OwnHistogram] = {}
        _made.add(self)

    def begin_anew(self) -> None:
        """In a forked child: its sums are its own."""
        for counter in self._counters.values():
            counter.begin_anew()
        for histogram in self._histograms.values():
            histogram.begin_anew()

    def counter(self, name: str, unit: str, description: str) -> OwnCounter:
        """The counter of that name."""
        if name not in self._counters:
            self._counters[name] = counter = OwnCounter()
            self._meter.create_observable_counter(name, [counter.observe], unit, description)
        return self._counters[name]

    def histogram(self, name: str, unit: str, description: str, boundaries: Sequence[float]) -> OwnHistogram:
        """The histogram of that name."""
        if name not in self._histograms:
            self._histograms[name] = histogram = OwnHistogram(name, unit, description, boundaries)
            self._meter.create_observable_up_down_counter(name, [histogram.stand_in], unit, description)
        return self._histograms[name]

    def add_histograms(self, data: MetricsData) -> MetricsData:
        """What the SDK's reader exports, with our histograms in their places."""
        from opentelemetry.sdk.metrics.export import MetricsData

        return MetricsData(
            [replace(part, scope_metrics=self._added(part.scope_metrics)) for part in data.resource_metrics]
        )

    def _added(self, scopes: Sequence[ScopeMetrics]) -> list[ScopeMetrics]:
        return [
            replace(scope, metrics=[*self._real(scope.metrics)]) if scope.scope.name == SCOPE_NAME else scope
            for scope in scopes
        ]

    def _real(self, metrics: Sequence[Metric]) -> Iterator[Metric]:
        time_ns = time.time_ns()
        for metric in metrics:
            histogram = self._histograms.get(metric.name)
            if histogram is None:
                yield metric
            elif (collected := histogram.collect(delta=self._delta, time_ns=time_ns)) is not None:
                yield collected


_made: weakref.WeakSet[OwnInstruments] = weakref.WeakSet()


def _begin_anew() -> None:
    for instruments in _made:
        instruments.begin_anew()


in_forked_child(_begin_anew)
