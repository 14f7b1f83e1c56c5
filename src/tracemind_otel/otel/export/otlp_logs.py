"""Encodes log records as OTLP: a pure function from a record of the SDK to bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .otlp_request import Item
from .otlp_values import any_value, attributes_fields, resource_fields, scope_fields
from .protobuf import (
    fixed32_tag,
    fixed64,
    fixed64_tag,
    length_tag,
    optional_string,
    optional_uint32,
    pack_fixed32,
    prefixed,
    span_id_bytes,
    trace_id_bytes,
    varint,
    varint_tag,
)

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord

_RECORD = length_tag(2)

_TIME = fixed64_tag(1)
_SEVERITY_NUMBER = varint_tag(2)
_SEVERITY_TEXT = length_tag(3)
_BODY = length_tag(5)
_ATTRIBUTES = length_tag(6)
_DROPPED_ATTRIBUTES = varint_tag(7)
_FLAGS = fixed32_tag(8)
_TRACE_ID = length_tag(9) + varint(16)
_SPAN_ID = length_tag(10) + varint(8)
_OBSERVED_TIME = fixed64_tag(11)
_EVENT_NAME = length_tag(12)


def log_item(record: ReadableLogRecord) -> Item:
    """A log record, encoded. A value that OTLP cannot hold is replaced, so that the record is not lost."""
    fields = _RECORD + prefixed(_log_record(record))
    return Item(resource_fields(record.resource), scope_fields(record.instrumentation_scope), fields)


def _log_record(record: ReadableLogRecord) -> bytes:
    log = record.log_record
    return b"".join(
        (
            _TIME,
            fixed64(log.timestamp),
            _OBSERVED_TIME,
            fixed64(log.observed_timestamp),
            _SEVERITY_NUMBER + varint(log.severity_number.value) if log.severity_number is not None else b"",
            optional_string(_SEVERITY_TEXT, log.severity_text),
            _BODY,
            prefixed(any_value(log.body)),
            attributes_fields(_ATTRIBUTES, log.attributes),
            optional_uint32(_DROPPED_ATTRIBUTES, record.dropped_attributes),
            _FLAGS,
            pack_fixed32(int(log.trace_flags or 0) & 0xFFFFFFFF),
            _TRACE_ID + trace_id_bytes(log.trace_id) if log.trace_id else b"",
            _SPAN_ID + span_id_bytes(log.span_id) if log.span_id else b"",
            optional_string(_EVENT_NAME, log.event_name),
        )
    )
