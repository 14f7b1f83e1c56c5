"""The runtime's own counters, limits and breaker states as OpenTelemetry instruments, read when they are exported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final
from weakref import WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from ..._base.once import report_fault
from ..._version import __version__
from ...otel import semconv
from ...otel.current import configured_providers
from .shapes import SCOPE

log = logging.getLogger(__name__)

Snapshot = Callable[[], Mapping[str, Mapping[str, Any]]]
"""`tm.obs.counters.metrics.snapshot`."""

COUNTERS: Final[Mapping[str, tuple[str, str]]] = {
    "flows_started_total": ("{run}", "Runs of flows that began"),
    "flows_finished_total": ("{run}", "Runs of flows that ended, by status"),
    "pipeline_steps_total": ("{step}", "Steps of pipelines, by status"),
    "service_requests_total": ("{request}", "Requests of services"),
    "tm_audit_guard_blocked_total": ("{request}", "Requests that a guard blocked"),
    "tm_breaker_trips_total": ("{request}", "Requests that a circuit breaker rejected"),
    "tm_dlq_total": ("{task}", "Tasks that were given up, by reason"),
    "tm_govern_budget_exceeded_total": ("{request}", "Requests rejected because a limit of tokens or cost was reached"),
    "tm_govern_qps_limited_total": ("{request}", "Requests rejected because of their rate"),
    "tm_plan_failures_total": ("{plan}", "Plans that failed"),
    "tm_plan_requests_total": ("{plan}", "Plans asked for"),
    "tm_plan_retries_total": ("{retry}", "Attempts at plans that were repeated"),
    "tm_plan_steps_executed_total": ("{step}", "Steps of plans that ran"),
    "tm_queue_acked_total": ("{task}", "Tasks of the work queue that were done"),
    "tm_queue_enqueued_total": ("{task}", "Tasks put into the work queue"),
    "tm_queue_idempo_hits_total": ("{task}", "Tasks answered by the result of an earlier one"),
    "tm_queue_nacked_total": ("{task}", "Tasks of the work queue that failed"),
    "tm_queue_redelivered_total": ("{task}", "Tasks put back into the work queue for another attempt"),
    "tm_reflect_failures_total": ("{reflection}", "Reflections that failed"),
    "tm_reflect_requests_total": ("{reflection}", "Reflections asked for"),
    "tm_retries_total": ("{retry}", "Attempts at tasks that were repeated"),
    "tm_tuner_select_total": ("{selection}", "Arms that a tuner selected"),
}
"""Counters of the runtime, with their units."""

GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "flows_deferred_pending": ("{run}", "Deferred runs that wait"),
    "tm_breaker_state": ("{state}", "State of a circuit breaker: 0 closed, 0.5 half open, 1 open"),
    "tm_govern_budget_usage": ("{usage}", "Tokens or USD used within the window of a limit, by kind"),
    "tm_govern_current_concurrency": ("{run}", "Runs in progress"),
    "tm_plan_last_duration_ms": ("ms", "Duration of the last plan"),
    "tm_queue_depth": ("{task}", "Tasks in the work queue"),
    "tm_queue_inflight": ("{task}", "Tasks that workers have in hand"),
    "tm_queue_lag_seconds": ("s", "Age of the oldest task that is ready"),
    "tm_reflect_last_duration_ms": ("ms", "Duration of the last reflection"),
    "tm_tuner_reward_sum": ("{reward}", "Sum of rewards"),
    "tm_workers_live": ("{process}", "Worker processes that run"),
}
"""Gauges of the runtime, with their units. A unit of `1` would make them ratios in Prometheus."""


class RuntimeMetrics:
    """The instruments; each reads the runtime's registry whenever metrics are collected."""

    def __init__(self, is_on: Callable[[], bool]) -> None:
        self._is_on = is_on
        self._snapshot: Snapshot | None = None
        self._latest: MeterProvider | None = None
        self._observed: WeakSet[MeterProvider] = WeakSet()

    def read_from(self, snapshot: Snapshot) -> None:
        """The runtime has been imported; its metrics are what this returns."""
        self._snapshot = snapshot
        self.observe()

    def observe(self) -> None:
        """Make the instruments where the provider of metrics is another than before: `configure()` may come late."""
        provider = configured_providers().meter_provider or metrics.get_meter_provider()
        if provider is self._latest or self._snapshot is None:
            return
        self._latest = provider
        # The API's placeholder hands its instruments on to no provider but the global one, if that is ever set.
        if provider in self._observed or type(provider).__module__.startswith("opentelemetry.metrics"):
            return
        self._observed.add(provider)
        try:
            self._make_instruments()
        except Exception:
            report_fault(log, "TraceMindInstrumentor", "observe")

    def _make_instruments(self) -> None:
        made = metrics.get_meter(SCOPE, __version__, meter_provider=self._latest, schema_url=semconv.SCHEMA_URL)
        for name, (unit, description) in COUNTERS.items():
            made.create_observable_counter(metric_name(name), [self._reader("counters", name)], unit, description)
        for name, (unit, description) in GAUGES.items():
            made.create_observable_gauge(metric_name(name), [self._reader("gauges", name)], unit, description)

    def _reader(self, kind: str, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(options: CallbackOptions) -> Iterator[Observation]:
            if self._snapshot is not None and self._is_on():
                for labels, value in self._snapshot().get(kind, {}).get(name, ()):
                    yield Observation(value, dict(labels))

        return read


def metric_name(name: str) -> str:
    """The instrument of a metric of the runtime: `tracemind.runtime.` with the words that say what it measures."""
    return semconv.RUNTIME_METRICS + name.removeprefix("tm_").removesuffix("_total")
