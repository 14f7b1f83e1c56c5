"""The runtime's own counters, limits and breaker states as OpenTelemetry instruments, read when they are exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from ...otel import semconv

Snapshot = Callable[[], Mapping[str, Mapping[str, Any]]]
"""`tm.obs.counters.metrics.snapshot`."""

COUNTERS: Final[Mapping[str, str]] = {
    "flows_started_total": "Runs of flows that began",
    "flows_finished_total": "Runs of flows that ended, by status",
    "pipeline_steps_total": "Steps of pipelines, by status",
    "service_requests_total": "Requests of services",
    "tm_audit_guard_blocked_total": "Requests that a guard blocked",
    "tm_breaker_trips_total": "Requests that a circuit breaker rejected",
    "tm_govern_budget_exceeded_total": "Requests rejected because a limit of tokens or cost was reached",
    "tm_govern_qps_limited_total": "Requests rejected because of their rate",
    "tm_plan_failures_total": "Plans that failed",
    "tm_plan_requests_total": "Plans asked for",
    "tm_plan_retries_total": "Attempts at plans that were repeated",
    "tm_plan_steps_executed_total": "Steps of plans that ran",
    "tm_reflect_failures_total": "Reflections that failed",
    "tm_reflect_requests_total": "Reflections asked for",
    "tm_tuner_select_total": "Arms that a tuner selected",
}
"""Counters of the runtime."""

GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    "flows_deferred_pending": ("{run}", "Deferred runs that wait"),
    "tm_breaker_state": ("1", "State of a circuit breaker: 0 closed, 0.5 half open, 1 open"),
    "tm_govern_budget_usage": ("1", "Tokens or USD used within the window of a limit"),
    "tm_govern_current_concurrency": ("{run}", "Runs in progress"),
    "tm_plan_last_duration_ms": ("ms", "Duration of the last plan"),
    "tm_reflect_last_duration_ms": ("ms", "Duration of the last reflection"),
    "tm_tuner_reward_sum": ("1", "Sum of rewards"),
}
"""Gauges of the runtime, with their units."""


def observe(meter: Meter, snapshot: Snapshot, is_on: Callable[[], bool]) -> None:
    """Make the instruments; each reads the runtime's registry whenever metrics are collected, while `is_on`."""
    for name, description in COUNTERS.items():
        meter.create_observable_counter(
            metric_name(name), [_reader(snapshot, "counters", name, is_on)], "1", description
        )
    for name, (unit, description) in GAUGES.items():
        meter.create_observable_gauge(metric_name(name), [_reader(snapshot, "gauges", name, is_on)], unit, description)


def metric_name(name: str) -> str:
    """The instrument of a metric of the runtime: `tracemind.runtime.` with the words that say what it measures."""
    return semconv.RUNTIME_METRICS + name.removeprefix("tm_").removesuffix("_total")


def _reader(
    snapshot: Snapshot, kind: str, name: str, is_on: Callable[[], bool]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(options: CallbackOptions) -> Iterator[Observation]:
        if is_on():
            for labels, value in snapshot().get(kind, {}).get(name, ()):
                yield Observation(value, dict(labels))

    return read
