"""The exporters of `configure()`, and what becomes of their answers and of batches that no receiver would take.

The SDK and the exporters are imported inside functions.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ...errors import ConfigError
from ..sanitize import sanitized, sanitized_attributes
from .settings import ExportConfig, Signal

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

MAX_REQUEST_BYTES = 4_000_000
"""Bytes of one request of spans: gRPC receivers take 4 MiB unless they were told otherwise."""
_FIXED_BYTES = 256
"""More than the ids, times and flags of a span or a link take."""
_FRAME_BYTES = 24
"""More than the tags and lengths around a value take, or a number with them."""
_MAX_POINTS = 2000
"""Data points in one request of metrics, of which each is up to 2 kB."""
_CREDENTIALS_VARIABLES = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_METRICS_CREDENTIAL_PROVIDER",
)


def file_exporter(path: str) -> SpanExporter:
    """Appends spans to a file as OTLP JSON lines."""
    from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter

    try:
        return FileSpanExporter(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"file {path!r} cannot be written: {reason}") from error


def span_exporter(config: ExportConfig) -> SpanExporter:
    """Sends spans by OTLP."""
    if config.protocols["traces"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(**_options(config, "traces"))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(**_options(config, "traces"), session=_session())


def metric_exporter(config: ExportConfig) -> MetricExporter:
    """Sends metrics by OTLP."""
    if config.protocols["metrics"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter(**_options(config, "metrics"), max_export_batch_size=_MAX_POINTS)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return HttpExporter(**_options(config, "metrics"), max_export_batch_size=_MAX_POINTS, session=_session())


def _options(config: ExportConfig, signal: Signal) -> dict[str, Any]:
    return {"endpoint": config.signal_endpoint(signal), "headers": config.signal_headers(signal)}


# --- Answers ---


class NotTakenError(Exception):
    """A receiver gave an answer that OTLP does not know, so it has not taken the data."""


def _session() -> Any:
    """A session that raises where an answer is no OTLP; `None` where a credential provider has one of its own."""
    if any(map(os.getenv, _CREDENTIALS_VARIABLES)):
        return None
    session: Any = importlib.import_module("requests").Session()
    session.hooks["response"].append(_check_answer)
    return session


def _check_answer(response: Any, **_: object) -> None:
    """The exporter takes a redirect, which it does not follow, and any page of HTML for a success."""
    start = response.content[:64].lstrip().lower()
    is_page = "html" in response.headers.get("content-type", "") or start.startswith((b"<!doctype", b"<html"))
    if 300 <= response.status_code < 400:
        raise NotTakenError(f"the answer is {response.status_code}, a redirect, which is not followed")
    if response.status_code < 300 and is_page:
        raise NotTakenError("the answer is a page of HTML, so no OTLP receiver is there")


# --- Batches ---


def in_requests(spans: Sequence[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    """A batch cut so that each part is one request that a receiver takes.

    A span that cannot be encoded, which only another library can have made, is mended and goes alone.
    """
    part, part_size = list["ReadableSpan"](), 0
    for span in spans:
        try:
            size = _most_bytes_of(span)
        except (OverflowError, UnicodeEncodeError):
            yield [_mended(span)]
            continue
        if part and part_size + size > MAX_REQUEST_BYTES:
            yield part
            part, part_size = [], 0
        part.append(span)
        part_size += size
    yield part


def _most_bytes_of(span: ReadableSpan) -> int:
    """At most so many bytes of a request, counted at a fraction of what encoding it costs.

    Raises:
        OverflowError: a whole number of more than 64 bits.
        UnicodeEncodeError: a string that is no UTF-8.
    """
    said = _most_bytes(span.name) + _most_bytes(span.status.description or "") + _most_bytes_in(span.attributes)
    events = sum(_most_bytes(event.name) + _most_bytes_in(event.attributes) for event in span.events)
    return _FIXED_BYTES + said + events + sum(_FIXED_BYTES + _most_bytes_in(link.attributes) for link in span.links)


def _most_bytes_in(attributes: Mapping[str, Any] | None) -> int:
    return sum(_most_bytes(name) + _most_bytes(value) for name, value in (attributes or {}).items())


def _most_bytes(value: object) -> int:
    """With its tags and lengths."""
    if isinstance(value, str):
        return _FRAME_BYTES + (len(value) if value.isascii() else len(value.encode()))
    if isinstance(value, bytes):
        return _FRAME_BYTES + len(value)
    if isinstance(value, Sequence):
        return _FRAME_BYTES + sum(map(_most_bytes, cast("Sequence[object]", value)))
    if isinstance(value, int):
        value.to_bytes(8, signed=True)  # as OTLP has it
    return _FRAME_BYTES


def _mended(span: ReadableSpan) -> ReadableSpan:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import Status

    return ReadableSpan(
        sanitized(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=sanitized_attributes(span.attributes or {}),
        events=[Event(sanitized(e.name), sanitized_attributes(e.attributes or {}), e.timestamp) for e in span.events],
        links=span.links,
        kind=span.kind,
        status=Status(span.status.status_code, sanitized(span.status.description or "") or None),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
