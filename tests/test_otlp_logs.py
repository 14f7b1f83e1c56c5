"""Our own encoding of log records says what the official one says."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import NonRecordingSpan, SpanContext

from tests.otlp_strategies import ATTRIBUTES, CONTEXTS, RESOURCES, SCOPES, TIMES, VALUES
from tracemind_otel.otel.export.otlp_logs import log_item
from tracemind_otel.otel.export.otlp_request import request_body


@st.composite
def records(draw: st.DrawFn) -> ReadableLogRecord:
    """A record in a span or outside, with attributes that a limit may have cut."""
    context = draw(st.none() | CONTEXTS)
    attributes: Any = draw(st.none() | ATTRIBUTES)
    body: Any = draw(VALUES)
    bounded: Any = BoundedAttributes(draw(st.integers(0, 3)), attributes) if draw(st.booleans()) else attributes
    record = LogRecord(
        timestamp=draw(st.none() | TIMES),
        observed_timestamp=draw(TIMES),
        context=trace.set_span_in_context(NonRecordingSpan(context or SpanContext(0, 0, is_remote=False))),
        severity_text=draw(st.none() | st.text()),
        severity_number=draw(st.none() | st.sampled_from(SeverityNumber)),
        body=body,
        attributes=bounded,
        event_name=draw(st.none() | st.text()),
    )
    return ReadableLogRecord(record, draw(RESOURCES), draw(st.none() | SCOPES))


def parsed(record: ReadableLogRecord) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    request.ParseFromString(request_body([log_item(record)]))
    return request


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records())
def test_a_log_record_says_the_same(record: ReadableLogRecord) -> None:
    """Whatever a record holds, a receiver reads the same from our bytes as from those of the stock exporter."""
    expected = encode_logs([record])
    assert parsed(record).SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)


def test_a_body_that_cannot_be_encoded_is_mended() -> None:
    """A lone surrogate is replaced, and a body of another class arrives as a string."""
    for body, expected in (("a\ud800", "a\ufffd"), ({"k": {3}}, {"k": "{3}"})):
        mended: Any = expected
        hostile: Any = body
        record, plain = (LogRecord(timestamp=1, observed_timestamp=2, body=each) for each in (hostile, mended))
        assert parsed(ReadableLogRecord(record, Resource({}))) == encode_logs([ReadableLogRecord(plain, Resource({}))])
