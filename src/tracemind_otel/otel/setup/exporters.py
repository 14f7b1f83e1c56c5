"""The file of spans, and what exporters of the SDK need of a batch.

Only `configure()` imports this module, because it needs the SDK.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Link, Status

from ...errors import ConfigError
from ..sanitize import sanitized, sanitized_attributes


def file_exporter(path: str) -> SpanExporter:
    """Appends spans to a file as OTLP JSON lines."""
    from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter

    try:
        return FileSpanExporter(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"file {path!r} cannot be written: {reason}") from error


def point_count(data: MetricsData) -> int:
    """The number of data points in collected metrics."""
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)


def mended_spans(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """The spans, with values replaced that OTLP cannot hold. Only spans of other libraries have such values."""
    return [span if _is_storable_span(span) else _mended_span(span) for span in spans]


def _is_storable_span(span: ReadableSpan) -> bool:
    values: tuple[object, ...] = (
        span.name,
        span.status.description or "",
        span.attributes or {},
        *((event.name, event.attributes or {}) for event in span.events),
        *(link.attributes or {} for link in span.links),
    )
    return _is_storable(values)


def _is_storable(value: object) -> bool:
    """Whether strings have no lone surrogate, and integers at most 64 bits."""
    if isinstance(value, str):
        return value.isascii() or value.encode(errors="ignore").decode() == value
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return all(_is_storable(name) and _is_storable(item) for name, item in items)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return all(map(_is_storable, cast("Sequence[object]", value)))
    return True


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
