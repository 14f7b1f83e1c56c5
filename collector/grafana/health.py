"""Whether the Collector receives, keeps and delivers, and how much the applications send."""

from __future__ import annotations

from .model import Dashboard, Panel, Query, Row, Variable
from .panels import stat
from .promql import exact, or_zero, sum_by

_VARIABLE = Variable("collector", "instance", "Collector", "otelcol_process_uptime")
_IN = '{instance=~"$collector"}'
_SCRAPED = '{job="collector"}'


def _gained(counter: str, window: str) -> str:
    return exact(f"otelcol_{counter}", window, _IN)


def _sum(window: str, *counters: str) -> str:
    """The sum of several counters, each of which may be absent."""
    return " + ".join(f"({or_zero(f'sum {_gained(counter, window)}')})" for counter in counters)


_NOT_RECEIVED = ("receiver_refused_spans", "receiver_failed_spans")
_NOT_RECEIVED_POINTS = ("receiver_refused_metric_points", "receiver_failed_metric_points")
_NOT_SENT = ("exporter_send_failed_spans", "exporter_enqueue_failed_spans")

_FIGURES = Row(
    "Last hour",
    (
        stat(
            "Endpoints that do not answer",
            or_zero(f"count(up{_SCRAPED} == 0)"),
            "Pages of the Collector that Prometheus cannot read now. Not filtered by Collector.",
            warn_from=1,
        ),
        stat("Spans accepted", f"sum {_gained('receiver_accepted_spans', '1h')}", "Spans that the Collector accepted."),
        stat(
            "Metric points accepted",
            f"sum {_gained('receiver_accepted_metric_points', '1h')}",
            "Points of metrics that the Collector accepted: one for each series and export.",
        ),
        stat(
            "Spans and points rejected",
            _sum("1h", *_NOT_RECEIVED, *_NOT_RECEIVED_POINTS),
            "What the Collector did not accept, for example because of its memory limit. The sender keeps it and sends "
            "it again, so rejected is not lost.",
            warn_from=1,
        ),
        stat(
            "Spans not delivered",
            _sum("1h", *_NOT_SENT),
            "Spans for which an exporter gave up are lost at its destination. Spans that found a queue full are lost "
            "too behind tail sampling; otherwise the sender sends them again.",
            warn_from=1,
        ),
        stat(
            "Fullest queue",
            f"max(otelcol_exporter_queue_size{_IN} / otelcol_exporter_queue_capacity{_IN})",
            "Above 80 % the alert CollectorQueueNearFull fires.",
            unit="percentunit",
            warn_from=0.8,
        ),
    ),
)


def _flow_of(title: str, labels: tuple[str, ...], counters: tuple[tuple[str, str], ...], description: str) -> Panel:
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    queries = tuple(Query(sum_by(labels, _gained(counter, "15m")), f"{what} {legend}") for what, counter in counters)
    return Panel(title, queries, f"Each point counts the 15 minutes before it: do not add points up. {description}")


_FLOW_ROW = Row(
    "In and out",
    (
        _flow_of(
            "Spans received",
            ("receiver", "transport"),
            (
                ("accepted", "receiver_accepted_spans"),
                ("refused", "receiver_refused_spans"),
                ("failed", "receiver_failed_spans"),
            ),
            "Refused: a later part of the Collector did not take them. Failed: the request was wrong.",
        ),
        _flow_of(
            "Spans sent",
            ("exporter",),
            (
                ("sent", "exporter_sent_spans"),
                ("given up", "exporter_send_failed_spans"),
                ("queue full", "exporter_enqueue_failed_spans"),
            ),
            "Given up is lost at that destination. Queue full is lost behind tail sampling; else the sender repeats.",
        ),
        _flow_of(
            "Metric points received",
            ("receiver", "transport"),
            (
                ("accepted", "receiver_accepted_metric_points"),
                ("refused", "receiver_refused_metric_points"),
                ("failed", "receiver_failed_metric_points"),
            ),
            "One point for each series and export.",
        ),
        _flow_of(
            "Metric points sent",
            ("exporter",),
            (("sent", "exporter_sent_metric_points"), ("given up", "exporter_send_failed_metric_points")),
            "For the exporter `prometheus`, sent means shown at /metrics.",
        ),
    ),
)

_PROCESS_ROW = Row(
    "Queues, memory and series",
    (
        Panel(
            "Queues",
            (
                Query(
                    f"otelcol_exporter_queue_size{_IN} / otelcol_exporter_queue_capacity{_IN}",
                    "{{exporter}} {{instance}}",
                ),
            ),
            "What waits for a destination, by what the queue can hold. A full queue rejects or drops.",
            unit="percentunit",
            maximum=1,
            warn_from=0.8,
        ),
        Panel(
            "Memory",
            (
                Query(f"otelcol_process_memory_rss{_IN}", "resident {{instance}}"),
                Query(f"otelcol_process_runtime_heap_alloc_bytes{_IN}", "heap {{instance}}"),
            ),
            "The Collector rejects data from 100 MiB below TRACEMIND_COLLECTOR_MEMORY_MIB on.",
            unit="bytes",
        ),
        Panel(
            "CPU",
            (Query(f"{sum_by(('instance',), _gained('process_cpu_seconds', '15m'))} / 900", "{{instance}}"),),
            "Cores that were busy, a mean of the 15 minutes before each point.",
            unit="none",
        ),
        Panel(
            "Series of each scrape",
            (Query(f"scrape_samples_scraped{_SCRAPED}", "{{instance}}"),),
            "Series that one scrape reads. The applications' page grows with processes, models, flows and named "
            "attributes. Not filtered by Collector.",
        ),
        Panel(
            "Processes that send metrics, by job",
            (Query("sum by (job) (job:llm_processes:count)", "{{job}}"),),
            "The Collector shows the last metrics of a process for an hour after its end. Not filtered by Collector.",
        ),
        Panel(
            "Time since the start of the Collector",
            (Query(f"otelcol_process_uptime{_IN}", "{{instance}}"),),
            "A drop to zero is a restart: what was in a queue in memory is lost.",
            unit="s",
        ),
    ),
)

COLLECTOR = Dashboard(
    uid="tracemind-collector",
    title="OpenTelemetry Collector",
    description="Whether the Collector receives, keeps and delivers, and how much the applications send.",
    variables=(_VARIABLE,),
    rows=(_FIGURES, _FLOW_ROW, _PROCESS_ROW),
)
