"""The exporters of `configure()`, how they read answers, and how a batch is cut into requests.

Only `configure()` imports this module, because it needs the SDK. An exporter is loaded when it is made.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from opentelemetry.sdk.metrics.export import (
    DataPointT,
    ExponentialHistogramDataPoint,
    Metric,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Link, Status

from ...ai.llm.scrub import scrub
from ...errors import ConfigError
from ..export.delivery_stats import DeliveryStats
from ..sanitize import sanitized, sanitized_attributes
from .settings import ExportConfig, Signal

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_REQUEST_BYTES = 4_000_000
"""Bytes of one request; the default limit of gRPC receivers is 4 MiB."""
_FIXED_BYTES = 256
"""An upper bound of the ids, times and flags of a span, a link, a data point or an exemplar."""
_FRAME_BYTES = 24
"""An upper bound of a number, or of the tags and lengths around another value."""
_MAX_BUCKETS = 320
"""Buckets of an exponential histogram in the SDK, at most."""
_CREDENTIALS_VARIABLES = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_METRICS_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_LOGS_CREDENTIAL_PROVIDER",
)
_OTLP = "opentelemetry.exporter.otlp.proto"
_EXPORTERS: Mapping[Signal, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_RESPONSES: Mapping[Signal, tuple[str, str, str]] = {
    "traces": ("trace.v1.trace_service_pb2", "ExportTraceServiceResponse", "rejected_spans"),
    "metrics": ("metrics.v1.metrics_service_pb2", "ExportMetricsServiceResponse", "rejected_data_points"),
    "logs": ("logs.v1.logs_service_pb2", "ExportLogsServiceResponse", "rejected_log_records"),
}


def file_exporter(path: str) -> SpanExporter:
    """Appends spans to a file as OTLP JSON lines."""
    from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter

    try:
        return FileSpanExporter(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"file {path!r} cannot be written: {reason}") from error


def otlp_exporter(
    config: ExportConfig, signal: Signal, stats: DeliveryStats, *, adapter: Any = None, **options: Any
) -> Any:
    """Sends spans or metrics by OTLP; what a receiver rejects of a request that it takes is counted.

    Over gRPC it is not: the exporter drops the answer, and has no public way to read it.

    Args:
        config: where to, how, and with which headers.
        signal: what is sent.
        stats: counts what is rejected.
        adapter: an HTTP adapter of `requests` that sends each request in place of its own.
        **options: further options of the SDK's exporter.
    """
    headers = config.signal_headers(signal)
    options |= {"endpoint": config.signal_endpoint(signal), "headers": headers}
    package = "grpc"
    if config.protocols[signal] == "http/protobuf":
        package = "http"
        options["session"] = session = _session(partial(_count_rejected, signal, stats, headers.values()))
        if adapter is not None and session is not None:
            session.mount("http://", adapter)
            session.mount("https://", adapter)
    module, name = _EXPORTERS[signal]
    return getattr(importlib.import_module(f"{_OTLP}.{package}.{module}"), name)(**options)


# --- Answers ---


class NotTakenError(Exception):
    """The answer is not one of OTLP, so the data did not arrive."""


def _session(count_rejected: Callable[[Any], None]) -> Any:
    """A session that reads each answer; `None` where a credential provider has one of its own."""
    if any(map(os.getenv, _CREDENTIALS_VARIABLES)):
        return None
    from requests import Session  # an installation for gRPC alone has no `requests`

    # Or the first request imports it, and a child that is forked meanwhile waits for that import for ever.
    importlib.import_module("netrc")

    class ExporterSession(Session):
        """Uses the certificates of the exporter, where it has any, before those of REQUESTS_CA_BUNDLE."""

        def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
            return super().merge_environment_settings(url, proxies, stream, verify or self.verify, cert)

    session = ExporterSession()

    def check(response: Any, **_: object) -> None:
        _check_answer(response)
        if response.status_code == 200 and response.content:
            count_rejected(response)

    session.hooks["response"].append(check)
    return session


def _check_answer(response: Any) -> None:
    """Reject what the exporter takes for a success: a redirect, which it does not follow, and a page of HTML."""
    start = response.content[:64].lstrip().lower()
    is_page = "html" in response.headers.get("content-type", "") or start.startswith((b"<!doctype", b"<html"))
    if 300 <= response.status_code < 400:
        raise NotTakenError(f"the answer is {response.status_code}, a redirect, which is not followed")
    if response.status_code < 300 and is_page:
        raise NotTakenError("the answer is a page of HTML, so no OTLP receiver is there")


def _count_rejected(signal: Signal, stats: DeliveryStats, secrets: Iterable[str], response: Any) -> None:
    """Read `partial_success`: a receiver may answer 200 and reject a part of the request."""
    module, name, field = _RESPONSES[signal]
    answer = getattr(importlib.import_module(f"opentelemetry.proto.collector.{module}"), name)()
    try:
        if "json" in response.headers.get("content-type", ""):
            json_format: Any = importlib.import_module("google.protobuf.json_format")
            json_format.Parse(response.content, answer, ignore_unknown_fields=True)
        else:
            answer.ParseFromString(response.content)
    except Exception as error:
        log.debug("The answer to an export of %s cannot be read: %s", signal, type(error).__name__)
        return
    rejected, message = getattr(answer.partial_success, field), answer.partial_success.error_message
    if rejected > 0 or message:
        stats.reject(rejected, scrub(" ".join(message.split()), secrets=secrets))


# --- Batches ---


def span_requests(spans: Sequence[ReadableSpan]) -> Iterator[tuple[list[ReadableSpan], int]]:
    """A batch cut into requests, each small enough for a receiver, with the number of spans in each.

    A span that cannot be encoded, which only another library can have made, is mended.
    """
    for part in _cut(spans, _bytes_of_span, _mended_span):
        yield [*part.values()], len(part)


def metric_requests(data: MetricsData) -> Iterator[tuple[MetricsData, int]]:
    """The same for metrics, with the number of data points."""
    for part in _cut(_points(data), _bytes_of_point, _mended_point):
        yield _with_points(data, part), len(part)


def _cut(items: Sequence[T], bytes_of: Callable[[T], int], mended: Callable[[T], T]) -> Iterator[dict[int, T]]:
    """Parts of the items, mended where they cannot be encoded, by the identity of the original."""
    part, part_size = dict[int, T](), 0
    for original in items:
        item = original
        try:
            size = bytes_of(item)
        except (OverflowError, UnicodeEncodeError):
            item = mended(item)
            size = bytes_of(item)
        if part and part_size + size > MAX_REQUEST_BYTES:
            yield part
            part, part_size = {}, 0
        part[id(original)] = item
        part_size += size
    yield part


def _bytes_of_span(span: ReadableSpan) -> int:
    """An upper bound of the encoded size, at a fraction of what encoding costs."""
    size = _bytes_of(span.name) + _bytes_of(span.status.description or "") + _bytes_in(span.attributes)
    events = sum(_bytes_of(event.name) + _bytes_in(event.attributes) for event in span.events)
    return _FIXED_BYTES + size + events + sum(_FIXED_BYTES + _bytes_in(link.attributes) for link in span.links)


def _mended_span(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        sanitized(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=sanitized_attributes(span.attributes),
        events=[
            Event(sanitized(event.name), sanitized_attributes(event.attributes), event.timestamp)
            for event in span.events
        ],
        links=[Link(link.context, sanitized_attributes(link.attributes)) for link in span.links],
        kind=span.kind,
        status=Status(span.status.status_code, sanitized(span.status.description or "") or None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _mended_point(point: DataPointT) -> DataPointT:
    exemplars = [
        replace(each, filtered_attributes=sanitized_attributes(each.filtered_attributes)) for each in point.exemplars
    ]
    return replace(point, attributes=sanitized_attributes(point.attributes), exemplars=exemplars)


def _bytes_of_point(point: DataPointT) -> int:
    is_exponential = isinstance(point, ExponentialHistogramDataPoint)
    buckets = _MAX_BUCKETS if is_exponential else len(getattr(point, "bucket_counts", ()))
    exemplars = sum(_FIXED_BYTES + _bytes_in(exemplar.filtered_attributes) for exemplar in point.exemplars)
    return _FIXED_BYTES + _bytes_in(point.attributes) + _FRAME_BYTES * buckets + exemplars


def _points(data: MetricsData) -> list[DataPointT]:
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return [point for scope in scopes for metric in scope.metrics for point in metric.data.data_points]


def _with_points(data: MetricsData, points: Mapping[int, DataPointT]) -> MetricsData:
    """The metrics with these data points in the place of their originals, and without all others."""

    def metric_with_points(metric: Metric) -> Metric:
        chosen = [points[id(each)] for each in metric.data.data_points if id(each) in points]
        return replace(metric, data=replace(cast("Any", metric.data), data_points=chosen))

    def scope_with_points(scope: ScopeMetrics) -> ScopeMetrics:
        metrics = map(metric_with_points, scope.metrics)
        return replace(scope, metrics=[metric for metric in metrics if metric.data.data_points])

    return MetricsData(
        [
            replace(resource, scope_metrics=[*map(scope_with_points, resource.scope_metrics)])
            for resource in data.resource_metrics
        ]
    )


def _bytes_in(attributes: Mapping[str, Any] | None) -> int:
    return sum(_bytes_of(name) + _bytes_of(value) for name, value in (attributes or {}).items())


def _bytes_of(value: object) -> int:
    """An upper bound, with tags and lengths.

    Raises:
        OverflowError: an integer of more than 64 bits.
        UnicodeEncodeError: a string with a lone surrogate.
    """
    if isinstance(value, str):
        return _FRAME_BYTES + (len(value) if value.isascii() else len(value.encode()))
    if isinstance(value, bytes):
        return _FRAME_BYTES + len(value)
    if isinstance(value, Mapping):
        return _FRAME_BYTES + _bytes_in(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence):
        return _FRAME_BYTES + sum(map(_bytes_of, cast("Sequence[object]", value)))
    if isinstance(value, int):
        value.to_bytes(8, signed=True)  # as OTLP has it
    return _FRAME_BYTES
