"""Our own instruments: a small aggregation in the SDK's data model.

The SDK cleans, copies, sorts and hashes the attributes of every measurement, which costs more than the span. Ours are
built once and never change, so a series is found by the identity of its attributes. The exported data equal what the
SDK's instruments would export.

Only `configure()` imports this module, because it needs the SDK.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache, partial
from math import inf
from typing import Any, Generic, TypeVar, cast

from opentelemetry.context import Context
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    Metric,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, get_current_span

from ..._base.fork import hold_over_fork
from ..._base.once import Once
from ..._version import __version__
from ..export.kept_sums import Identity, KeptSums, Slot
from ..export.otlp_values import scope_fields
from ..instruments import NO_SPAN, SCOPE_NAME, Attributes
from ..metrics import metrics_schema_url
from ..semconv import METRIC_OPERATION_DURATION
from .series import Distribution, Total

log = logging.getLogger(__name__)

MAX_SERIES = 2000
"""Series of one instrument (the specification's default); all further attributes share one overflow series."""

_OVERFLOW: Attributes = {"otel.metric.overflow": True}
_INVALID = Once()

_lock = threading.RLock()
"""Held while a measurement is added, and while an instrument is read. Re-entrant: a finalizer or a signal handler may
measure during a measurement. A thread that forks holds it too, so no child inherits a half-written series."""

hold_over_fork(_lock)


S = TypeVar("S", Total, Distribution)


class _Instrument(Generic[S]):
    """The series of one instrument, by the identity of their attributes, and by name, value and type of each."""

    def __init__(
        self, new_series: Callable[[Attributes, int], S], data: Callable[..., Any], temporality: AggregationTemporality
    ) -> None:
        self._new_series: Callable[[Attributes, int], S] = new_series
        self._data = partial(data, aggregation_temporality=temporality)
        self._is_delta = temporality is AggregationTemporality.DELTA
        self.new_slot: Callable[[Attributes], Slot] | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was measured."""
        self._by_value: dict[frozenset[tuple[str, type, object]], S] = {}
        self._by_identity: dict[int, S] = {}
        self._kept: list[Attributes] = []

    def collect(self, time_ns: int) -> Any:
        """The data of the metric, or `None`. In delta temporality a new interval begins."""
        with _lock:
            series = [*self._by_value.values()]
            points = [each.point(time_ns) for each in series if not (self._is_delta and each.is_idle)]
            if self._is_delta and len(series) > MAX_SERIES:
                self.begin_anew()
            elif self._is_delta:
                for each in series:
                    each.restart(time_ns)
        return self._data(data_points=points) if points else None

    def stop_keeping(self) -> None:
        """Keep the sums in this process only."""
        self.new_slot = None
        for series in self._by_value.values():
            series.slot = None

    @property
    def has_series(self) -> bool:
        """Whether anything was ever measured."""
        return bool(self._by_value)

    def _find(self, attributes: Attributes) -> S:
        """The series of equal attributes, a new one if need be."""
        key, named = _key(attributes), attributes
        if key not in self._by_value and len(self._by_value) >= MAX_SERIES:
            key, named = _key(_OVERFLOW), _OVERFLOW
        if key not in self._by_value:
            self._by_value[key] = self._new_series(named, time.time_ns())
        if len(self._kept) >= 2 * MAX_SERIES:
            self._by_identity, self._kept = {}, []
        self._kept.append(attributes)  # An object that is kept shares its identity with no other.
        series = self._by_identity[id(attributes)] = self._by_value[key]
        return series


def _key(attributes: Attributes) -> frozenset[tuple[str, type, object]]:
    return frozenset((name, type(value), value) for name, value in attributes.items())


def _ignore(amount: float) -> None:
    """Warn of a measurement that is not added; the SDK does not add it either."""
    if _INVALID.is_new(str(amount)):
        log.warning("A measurement of %s is ignored: it must be a finite number of at least 0", amount)


class OwnCounter(_Instrument[Total]):
    """A counter without exemplars: those of duration and cost lead to the same traces."""

    def __init__(self, temporality: AggregationTemporality) -> None:
        super().__init__(Total, partial(Sum, is_monotonic=True), temporality)

    def add(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        if not 0 <= amount < inf:
            _ignore(amount)
            return
        with _lock:
            series = self._by_identity.get(id(attributes)) or self._find(attributes)
            series.value += amount
            series.is_idle = False
            if self.new_slot is not None:
                slot = series.slot = series.slot or self.new_slot(series.attributes)
                slot.write_total(series.started_ns, series.value)


class OwnHistogram(_Instrument[Distribution]):
    """A histogram with exemplars."""

    def __init__(self, boundaries: Sequence[float], temporality: AggregationTemporality) -> None:
        self.boundaries = tuple(boundaries)
        super().__init__(partial(Distribution, self.boundaries), Histogram, temporality)

    def record(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        if not 0 <= amount < inf:
            _ignore(amount)
            return
        bucket = bisect_left(self.boundaries, amount)
        exemplar = None if context is NO_SPAN else _sampled(amount, context)
        with _lock:
            series = self._by_identity.get(id(attributes)) or self._find(attributes)
            count = series.bucket_counts[bucket] = series.bucket_counts[bucket] + 1
            series.total += amount
            if amount < series.minimum:
                series.minimum = amount
            if amount > series.maximum:
                series.maximum = amount
            if exemplar is not None:
                series.exemplars[bucket] = exemplar
            if self.new_slot is not None:
                slot = series.slot = series.slot or self.new_slot(series.attributes)
                slot.write_bucket(series.started_ns, series.total, series.minimum, series.maximum, bucket, count)


def _sampled(amount: int | float, context: Context) -> tuple[int | float, int, SpanContext] | None:
    span = get_current_span(context).get_span_context()
    return (amount, time.time_ns(), span) if span.trace_flags.sampled else None


class OwnInstruments:
    """The instruments of one pipeline.

    Args:
        is_delta: whether sums begin again after each export.
        sums: keeps the sums where they outlive this process.
    """

    def __init__(self, *, is_delta: bool, sums: KeptSums | None = None) -> None:
        self._temporality = AggregationTemporality.DELTA if is_delta else AggregationTemporality.CUMULATIVE
        self._is_delta = is_delta
        self._sums = sums
        self._collected: list[str] = []
        self._made: dict[tuple[type, str, str, str], Any] = {}

    def create_counter(self, name: str, unit: str = "", description: str = "") -> OwnCounter:
        key = (OwnCounter, name, unit, description)
        counter = self._made.get(key) or self._made.setdefault(key, OwnCounter(self._temporality))
        counter.new_slot = self._slots(name, unit, description)
        return cast("OwnCounter", counter)

    def create_histogram(
        self, name: str, unit: str = "", description: str = "", *, explicit_bucket_boundaries_advisory: Sequence[float]
    ) -> OwnHistogram:
        new = OwnHistogram(explicit_bucket_boundaries_advisory, self._temporality)
        histogram = self._made.setdefault((OwnHistogram, name, unit, description), new)
        histogram.new_slot = self._slots(name, unit, description, histogram.boundaries)
        return cast("OwnHistogram", histogram)

    def _slots(
        self, name: str, unit: str, description: str, boundaries: Sequence[float] | None = None
    ) -> Callable[[Attributes], Slot] | None:
        """Makes a slot for each series of an instrument; `None` if no sums are kept."""
        sums = self._sums
        if sums is None:
            return None

        def new_slot(attributes: Attributes) -> Slot:
            identity = Identity(name, unit, description, self._is_delta, attributes, boundaries)
            measured = {name for (_, name, *_), instrument in self._made.items() if instrument.has_series}
            return sums.slot(identity, _encoded_scope(_schema_url(measured)))

        return new_slot

    def begin_anew(self) -> None:
        """Forget what was measured: in a forked child it is the parent's."""
        self._collected = []
        for instrument in self._made.values():
            instrument.begin_anew()

    def collect(self) -> ScopeMetrics | None:
        """What was measured; `None` when there is nothing to export."""
        if self._sums is None or not self._is_delta:
            return self._collect()
        with _lock:  # over all instruments, so that every sum is in one interval
            self._collected = self._sums.begin_interval()
            return self._collect()

    def _collect(self) -> ScopeMetrics | None:
        time_ns = time.time_ns()
        metrics = [
            Metric(name, description, unit, data)
            for (_, name, unit, description), instrument in [*self._made.items()]
            if (data := instrument.collect(time_ns)) is not None
        ]
        schema_url = _schema_url({metric.name for metric in metrics})
        return ScopeMetrics(_scope(schema_url), metrics, schema_url or "") if metrics else None

    def exported(self) -> None:
        """Note that what was collected has arrived, or is kept elsewhere. Sums that begin again are not kept longer."""
        if self._sums is not None and self._is_delta:
            collected, self._collected = self._collected, []
            self._sums.forget(collected)

    def end(self, *, is_exported: bool) -> None:
        """Keep nothing more where it outlives this process.

        Args:
            is_exported: whether the last export has arrived; if not, the next process makes up for it.
        """
        if self._sums is not None:
            with _lock:
                for instrument in self._made.values():
                    instrument.stop_keeping()
                sums, self._sums = self._sums, None
                last = sums.begin_interval()
            if is_exported and not self._is_delta:
                sums.forget(last)
            sums.close()


def _schema_url(measured: Collection[str]) -> str | None:
    return metrics_schema_url(needs_todays=METRIC_OPERATION_DURATION in measured)


def _scope(schema_url: str | None) -> InstrumentationScope:
    return InstrumentationScope(SCOPE_NAME, __version__, schema_url)


@lru_cache(maxsize=2)
def _encoded_scope(schema_url: str | None) -> bytes:
    return scope_fields(_scope(schema_url))
