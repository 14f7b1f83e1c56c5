"""Encodes spans as OTLP: pure functions from a span of the SDK to bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from .otlp_request import Item
from .otlp_values import Attributes, attributes_fields, resource_fields, scope_fields
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
    utf8,
    varint,
    varint_tag,
    without_prefix,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event, ReadableSpan

_SPAN = length_tag(2)

_TRACE_ID = length_tag(1) + varint(16)
_SPAN_ID = length_tag(2) + varint(8)
_TRACE_STATE = length_tag(3)
_PARENT_SPAN_ID = length_tag(4) + varint(8)
_NAME = length_tag(5)
_KIND = varint_tag(6)
_START = fixed64_tag(7)
_END = fixed64_tag(8)
_ATTRIBUTES = length_tag(9)
_DROPPED_ATTRIBUTES = varint_tag(10)
_EVENT = length_tag(11)
_DROPPED_EVENTS = varint_tag(12)
_LINK = length_tag(13)
_DROPPED_LINKS = varint_tag(14)
_STATUS = length_tag(15)
_FLAGS = fixed32_tag(16)

_EVENT_TIME = fixed64_tag(1)
_EVENT_NAME = length_tag(2)
_EVENT_ATTRIBUTES = length_tag(3)
_EVENT_DROPPED_ATTRIBUTES = varint_tag(4)

_LINK_ATTRIBUTES = length_tag(4)
_LINK_DROPPED_ATTRIBUTES = varint_tag(5)
_LINK_FLAGS = fixed32_tag(6)

_STATUS_MESSAGE = length_tag(2)
_STATUS_CODE = varint_tag(3)

_KINDS = {kind: _KIND + varint(kind.value + 1) for kind in SpanKind}
_CODES = {code: _STATUS_CODE + varint(code.value) for code in StatusCode}
_STATUSES = {code: _STATUS + prefixed(encoded) for code, encoded in _CODES.items()}
"""The field of a status without a description."""
_IS_LOCAL = pack_fixed32(0x100)
"""The flags of a context that is known to be local."""
_IS_REMOTE = pack_fixed32(0x300)
"""The flags of a context that is known to be remote."""


def span_item(span: ReadableSpan) -> Item:
    """A span that has ended, encoded. A value that OTLP cannot hold is replaced, so that the span is not lost."""
    return Item(resource_fields(span.resource), scope_fields(span.instrumentation_scope), _SPAN + prefixed(_span(span)))


def interrupted_item(start: Item, end_ns: int, attributes: Attributes, reason: str) -> Item:
    """A span that never ended, as an ended one that failed.

    Protobuf takes the last of two values of a field, joins repeated fields and merges messages, so what is
    missing is appended.

    Args:
        start: the item of a span that had not ended.
        end_ns: the time of its end, in nanoseconds since 1970.
        attributes: added to those that it had at its start.
        reason: the description of its status.
    """
    span = without_prefix(start.record, _SPAN)
    end = (
        _END + fixed64(end_ns) + attributes_fields(_ATTRIBUTES, attributes) + _status(Status(StatusCode.ERROR, reason))
    )
    return replace(start, record=_SPAN + prefixed(span + end))


def _span(span: ReadableSpan) -> bytes:
    context = cast("SpanContext", span.get_span_context())
    return b"".join(
        [
            _TRACE_ID,
            trace_id_bytes(context.trace_id),
            _SPAN_ID,
            span_id_bytes(context.span_id),
            _trace_state(context.trace_state),
            _parent(span.parent),
            _NAME,
            prefixed(utf8(span.name)),
            _KINDS.get(span.kind, b""),
            _START,
            fixed64(span.start_time),
            _END,
            fixed64(span.end_time),
            attributes_fields(_ATTRIBUTES, span.attributes),
            optional_uint32(_DROPPED_ATTRIBUTES, span.dropped_attributes),
            *map(_event, span.events),
            optional_uint32(_DROPPED_EVENTS, span.dropped_events),
            *map(_link, span.links),
            optional_uint32(_DROPPED_LINKS, span.dropped_links),
            _status(span.status),
        ]
    )


def _trace_state(state: TraceState | None) -> bytes:
    return optional_string(_TRACE_STATE, ",".join(f"{key}={value}" for key, value in state.items())) if state else b""


def _parent(parent: SpanContext | None) -> bytes:
    """The fields `parent_span_id` and `flags`, which are those of the parent."""
    if parent is None:
        return _FLAGS + _IS_LOCAL
    return _PARENT_SPAN_ID + span_id_bytes(parent.span_id) + _FLAGS + _flags(parent)


def _flags(context: SpanContext) -> bytes:
    return _IS_REMOTE if context.is_remote else _IS_LOCAL


def _event(event: Event) -> bytes:
    time_and_name = _EVENT_TIME + fixed64(event.timestamp) + _EVENT_NAME + prefixed(utf8(event.name))
    attributes = attributes_fields(_EVENT_ATTRIBUTES, event.attributes)
    dropped = optional_uint32(_EVENT_DROPPED_ATTRIBUTES, event.dropped_attributes)
    return _EVENT + prefixed(time_and_name + attributes + dropped)


def _link(link: Link) -> bytes:
    context = link.context
    ids = _TRACE_ID + trace_id_bytes(context.trace_id) + _SPAN_ID + span_id_bytes(context.span_id)
    attributes = attributes_fields(_LINK_ATTRIBUTES, link.attributes)
    dropped = optional_uint32(_LINK_DROPPED_ATTRIBUTES, link.dropped_attributes)
    return _LINK + prefixed(ids + attributes + dropped + _LINK_FLAGS + _flags(context))


def _status(status: Status | None) -> bytes:
    if status is None:
        return b""
    code, description = status.status_code, status.description
    if not description and code in _STATUSES:
        return _STATUSES[code]
    return _STATUS + prefixed(optional_string(_STATUS_MESSAGE, description) + _CODES.get(code, b""))
