"""OTLP requests for tests that speak to a Collector without an SDK."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

Value = str | bool | int | float | Sequence[str]
SECOND = 1_000_000_000
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA

KEPT: dict[str, Value] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-5",
    "gen_ai.request.max_tokens": 4096,
    "gen_ai.usage.input_tokens": 1234567890123456,
    "gen_ai.usage.output_tokens": 7,
    "gen_ai.usage.cache_read.input_tokens": 3,
    "gen_ai.usage.cost": 0.0125,
    "gen_ai.token.type": "input",
    "llm.token_count.prompt": 5,
    "gen_ai.prompt.name": "greeting",
    "gen_ai.prompt.version": "3",
    "gen_ai.response.id": "chatcmpl-9x8y7z6w5v4u3t2s1r",
    "tracemind.flow.id": "0197f3c2-7d3e-7cc0-98c4-dc0c0c07398f",
    "server.address": "api.openai.com",
    "note": "the task-force-of-the-department asks for basic understanding, npmjs and a secret garden",
}
"""Attributes without a secret and without content, which no overlay changes."""


def any_value(value: Value) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))


def attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def resource(values: Mapping[str, Value] | None = None) -> Resource:
    return Resource(attributes=attributes({"service.name": "test", "service.instance.id": "one", **(values or {})}))


def span(
    values: Mapping[str, Value],
    *,
    name: str = "chat gpt-5",
    events: Mapping[str, Mapping[str, Value]] | None = None,
    error: str | None = None,
    seconds: float = 0.5,
) -> Span:
    """One span, the root of its own trace, that ends now."""
    now = time.time_ns()
    status = Status(code=Status.STATUS_CODE_ERROR, message=error) if error is not None else Status()
    return Span(
        trace_id=secrets.token_bytes(16),
        span_id=secrets.token_bytes(8),
        name=name,
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=now - int(seconds * SECOND),
        end_time_unix_nano=now,
        attributes=attributes(values),
        events=[
            Span.Event(name=event, time_unix_nano=now, attributes=attributes(values))
            for event, values in (events or {}).items()
        ],
        status=status,
    )


def traces(spans: Iterable[Span], of: Mapping[str, Value] | None = None) -> ExportTraceServiceRequest:
    scoped = ScopeSpans(spans=list(spans))
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=resource(of), scope_spans=[scoped])])


def logs(event: str, values: Mapping[str, Value], body: str = "") -> ExportLogsServiceRequest:
    record = LogRecord(
        event_name=event,
        time_unix_nano=time.time_ns(),
        attributes=attributes(values),
        body=AnyValue(string_value=body),
    )
    scoped = ScopeLogs(log_records=[record])
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=resource(), scope_logs=[scoped])])


def metrics(
    cost: float,
    calls: int,
    values: Mapping[str, Value] | None = None,
    *,
    began: int | None = None,
    of: Mapping[str, Value] | None = None,
    temporality: AggregationTemporality.ValueType = CUMULATIVE,
    schema_url: str = "",
) -> ExportMetricsServiceRequest:
    """A counter and a histogram, as the SDK sends them, of a process that began then or now."""
    now = time.time_ns()
    began = began or now
    labels = attributes(values or {})
    counter = Metric(
        name="tracemind.llm.cost",
        unit="USD",
        sum=Sum(
            data_points=[
                NumberDataPoint(as_double=cost, attributes=labels, start_time_unix_nano=began, time_unix_nano=now)
            ],
            aggregation_temporality=temporality,
            is_monotonic=True,
        ),
    )
    durations = Metric(
        name="gen_ai.client.operation.duration",
        unit="s",
        histogram=Histogram(
            data_points=[
                HistogramDataPoint(
                    count=calls,
                    sum=float(calls),
                    bucket_counts=[calls, 0],
                    explicit_bounds=[1.0],
                    attributes=labels,
                    start_time_unix_nano=began,
                    time_unix_nano=now,
                )
            ],
            aggregation_temporality=temporality,
        ),
    )
    return metrics_of([counter, durations], of, schema_url)


def metrics_of(
    each: Iterable[Metric], of: Mapping[str, Value] | None = None, schema_url: str = ""
) -> ExportMetricsServiceRequest:
    """A request with these metrics of one process."""
    scoped = ScopeMetrics(metrics=list(each), schema_url=schema_url)
    return ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(resource=resource(of), scope_metrics=[scoped])]
    )
