"""The reader that exports what the SDK's instruments and our own measured.

The SDK's periodic reader knows only the SDK's instruments, and in a child that was forked during an export it never
exports again: its lock stays locked. Only `configure()` imports this module, because it needs the SDK.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import inf, isinf
from typing import Any, Protocol, cast

from opentelemetry.context import attach, detach, set_value
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricReader,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.view import Aggregation
from opentelemetry.sdk.resources import Resource, ServiceInstanceIdResourceDetector

from ..._base.fork import hold_over_fork
from ..._base.once import report_fault
from ..export.kept_sums import KeptSums
from ..export.left_sums import LeftSums, left_sums
from ..export.otlp_request import Item
from ..export.otlp_values import resource_fields
from ..export.sender import SUPPRESSED
from .aggregation import OwnInstruments

log = logging.getLogger(__name__)

_FRESH_S = 5.0
"""Seconds after an export in which the end of a flow causes no other."""

_collecting = threading.RLock()
"""Held while the SDK collects under its own locks. A thread that forks holds it too, so those locks are free in the
child. Re-entrant: a callback of an observable instrument may fork."""

# A callback may wait for a lock of the application that the forking thread holds.
hold_over_fork(_collecting, timeout_s=1.0)


class MetricExporter(Protocol):
    """Sends what a reader collected."""

    def export(self, data: MetricsData, /, *, timeout_millis: float, kept_points: int = 0) -> object:
        """Send one batch; `kept_points` of its data points are kept on disk until they arrive."""
        ...

    def force_flush(self, timeout_millis: float) -> bool:
        """Send what waits; returns whether it has arrived."""
        ...

    def shutdown(self) -> object:
        """Stop, and cut short a wait for the receiver."""
        ...


class ItemsExporter(MetricExporter, Protocol):
    """One that also sends what is encoded already."""

    def export_items(self, items: list[Item], /, *, timeout_millis: float) -> bool:
        """Send one batch; returns whether nothing of it is to be sent again."""
        ...


@contextmanager
def _suppressed() -> Generator[None]:
    """A block that makes no spans."""
    token = attach(set_value(SUPPRESSED, True))
    try:
        yield
    finally:
        detach(token)


class OwnReader(MetricReader):
    """Exports what the SDK's instruments and our own measured: at each interval, at a flush, and at the end.

    Args:
        exporter: gets one batch at a time.
        resource: that of the metrics.
        interval_s: seconds between two exports; `inf` leaves them to `force_flush` and `shutdown`.
        timeout_s: seconds that callbacks of observable instruments may take.
        temporality: the temporality of the SDK's kinds of instruments; cumulative by default.
        aggregation: the aggregation of the SDK's kinds of instruments; the SDK's choice by default.
        sums_in: the directory in which our own sums are kept, and in which those of killed processes are looked for;
            it needs an `ItemsExporter`.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        resource: Resource,
        interval_s: float,
        timeout_s: float,
        temporality: Mapping[type, AggregationTemporality] | None = None,
        aggregation: Mapping[type, Aggregation] | None = None,
        *,
        sums_in: str | None = None,
    ) -> None:
        super().__init__(dict(temporality or {}), dict(aggregation or {}))
        self._sums = None if sums_in is None else KeptSums(sums_in, resource_fields(resource))
        self.instruments = OwnInstruments(is_delta=bool(temporality), sums=self._sums)
        self._exporter = exporter
        self._resource = resource
        self._interval_s = None if isinf(interval_s) else interval_s
        self._timeout_s = timeout_s
        self._received: MetricsData | None = None
        self._thread: threading.Thread | None = None
        self._exported_at = -inf
        self._has_arrived = True
        self._own_points = 0

    def start(self) -> None:
        """Begin to export; the reader must belong to a provider."""
        self._exporting = threading.Lock()
        self._woken = threading.Event()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="tracemind-metrics", daemon=True)
        self._thread.start()

    def begin_anew(self) -> None:
        """In a forked child: the thread, its locks and all sums are the parent's."""
        self._resource = self._resource.merge(ServiceInstanceIdResourceDetector().detect())
        self.instruments.begin_anew()
        if self._sums is not None:
            self._sums.begin_anew(resource_fields(self._resource))
        self.start()

    def export_soon(self) -> None:
        """Export in the reader's own thread, unless the last export is fresh."""
        if time.monotonic() - self._exported_at > _FRESH_S:
            self._woken.set()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Export now; returns whether the exporter keeps nothing that has not arrived."""
        deadline = time.monotonic() + timeout_millis / 1000
        self._export(timeout_millis / 1000)
        return self._exporter.force_flush(max(deadline - time.monotonic(), 0.0) * 1000)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Export a last time, and stop."""
        if self._thread is not None:
            self._is_stopped = True
            self._woken.set()
            self._thread.join(timeout_millis / 1000)
        self._exporter.shutdown()

    def _run(self) -> None:
        is_last = False
        self._export_left()
        while not is_last:
            self._woken.wait(self._interval_s)
            self._woken.clear()
            is_last = self._is_stopped
            try:
                self._export(self._timeout_s)
            except Exception:
                report_fault(log, "metrics", "export")
            if self._has_arrived and not is_last:
                self._export_left()
        self.instruments.end(is_exported=self._has_arrived)

    def _export(self, timeout_s: float) -> None:
        with _suppressed(), self._exporting:
            self._exported_at = time.monotonic()
            data = self._collect_all(timeout_s)
            if data is None:
                return
            self._has_arrived = False
            kept = {} if self._sums is None or self._sums.has_failed else {"kept_points": self._own_points}
            result = self._exporter.export(data, timeout_millis=timeout_s * 1000, **kept)
            self._has_arrived = result is True or getattr(result, "name", "") == "SUCCESS"
            if self._has_arrived:
                self.instruments.exported()

    def _export_left(self) -> None:
        """Export the last sums of processes that were killed. What does not arrive stays for the next time."""
        try:
            with _suppressed(), self._exporting:
                for left in () if self._sums is None else left_sums(self._sums.root):
                    if not self._export_once(left):
                        return
        except Exception:
            report_fault(log, "metrics", "export_left")

    def _export_once(self, left: LeftSums) -> bool:
        exporter, has_arrived = cast("ItemsExporter", self._exporter), False
        try:
            has_arrived = exporter.export_items(left.items, timeout_millis=self._timeout_s * 1000)
        finally:
            if has_arrived:
                left.settle()
            else:
                left.give_back()
        return has_arrived

    def _collect_all(self, timeout_s: float) -> MetricsData | None:
        with _collecting:
            self._received = None
            self.collect(timeout_s * 1000)
            theirs, ours = self._received, self.instruments.collect()
        self._own_points = 0 if ours is None else sum(len(metric.data.data_points) for metric in ours.metrics)
        return theirs if ours is None else self._merged(theirs, ours)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._received = metrics_data

    def _merged(self, theirs: MetricsData | None, ours: ScopeMetrics) -> MetricsData:
        if theirs is None:
            return MetricsData([ResourceMetrics(self._resource, [ours], self._resource.schema_url)])
        first, *others = theirs.resource_metrics
        return MetricsData([replace(first, scope_metrics=[*first.scope_metrics, ours]), *others])
