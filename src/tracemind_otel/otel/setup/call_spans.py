"""The spans of our model calls on the provider that `configure()` makes: cheap to fill, and made when they end.

The SDK's span checks and copies each attribute and takes a lock for each change, which costs more than all the rest of
a call's telemetry. Ours are checked already. The provider goes back to the SDK's spans as soon as somebody adds a span
processor, which may expect them, or limits spans by a variable. Only `configure()` imports this module.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..._version import __version__
from ..instruments import SCOPE_NAME
from ..semconv import EXCEPTION_EVENT, EXCEPTION_MESSAGE, EXCEPTION_STACKTRACE, EXCEPTION_TYPE, SCHEMA_URL

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes, AttributeValue

log = logging.getLogger(__name__)

_ONLY_IN_SDK = ("OTEL_SPAN_", "OTEL_ATTRIBUTE_", "OTEL_EVENT_", "OTEL_LINK_", OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED)
"""Variables, by their beginnings, that only the SDK's spans obey."""
_MAX_ITEMS = 128
"""Attributes, events and links of a span (the specification's default)."""
_SCOPE = InstrumentationScope(SCOPE_NAME, __version__, SCHEMA_URL)
_PLAIN = frozenset({str, int, float, bool})
"""Types that the SDK takes as they are; so it does tuples of strings."""


class CallTracerProvider(TracerProvider):
    """The SDK's provider, which also makes the spans of our model calls."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource=resource, shutdown_on_exit=False)
        self._makes_call_spans = not any(name.startswith(_ONLY_IN_SDK) for name in os.environ)
        self._own_tracer = self.get_tracer(SCOPE_NAME, __version__, SCHEMA_URL)

    def add_own_processor(self, processor: SpanProcessor) -> None:
        """Add a processor that takes any span."""
        super().add_span_processor(processor)

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self._makes_call_spans = False
        super().add_span_processor(span_processor)

    def start_call_span(self, name: str, attributes: Mapping[str, Any], start_ns: int) -> Span:
        """Start a CLIENT span in the current context.

        Args:
            name: its name.
            attributes: its first attributes, whose values OTLP can hold.
            start_ns: its start, in nanoseconds since the epoch.
        """
        tracer = self._own_tracer
        if self._makes_call_spans and isinstance(tracer, Tracer):
            return _started(tracer, name, attributes, start_ns)
        return tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=start_ns)


def _started(tracer: Tracer, name: str, attributes: Mapping[str, Any], start_ns: int) -> Span:
    """What the SDK's tracer does, with a `CallSpan`."""
    current = trace.get_current_span().get_span_context()
    parent = current if current.is_valid else None
    ids = tracer.id_generator
    trace_id = ids.generate_trace_id() if parent is None else parent.trace_id
    sampled: Any = tracer.sampler.should_sample(None, trace_id, name, SpanKind.CLIENT, attributes, ())
    flags = TraceFlags.SAMPLED if sampled.decision.is_sampled() else TraceFlags.DEFAULT
    if ids.is_trace_id_random() if parent is None else parent.trace_flags.random_trace_id:
        flags |= TraceFlags.RANDOM_TRACE_ID
    context = SpanContext(trace_id, ids.generate_span_id(), False, TraceFlags(flags), sampled.trace_state)
    if not sampled.decision.is_recording():
        return trace.NonRecordingSpan(context)
    span = CallSpan(tracer, name, context, parent)
    span.attributes, span.start_time = dict(sampled.attributes or {}), start_ns
    tracer.span_processor.on_start(cast("Any", span))
    return span


class CallSpan(Span):
    """A CLIENT span that is kept as plain data until it ends. It can be read like a span of the SDK."""

    kind = SpanKind.CLIENT
    links: Sequence[Link] = ()
    dropped_attributes = dropped_events = dropped_links = 0  # counted when it ends

    def __init__(self, tracer: Tracer, name: str, context: SpanContext, parent: SpanContext | None) -> None:
        self._tracer = tracer
        self.name, self.context, self.parent = name, context, parent
        self.attributes: MutableMapping[str, Any] = {}
        self.start_time = 0
        self.end_time: int | None = None
        self.status = Status(StatusCode.UNSET)
        self.events: Sequence[Event] = ()
        self.resource, self.instrumentation_scope = tracer.resource, _SCOPE

    def get_span_context(self) -> SpanContext:
        return self.context

    def is_recording(self) -> bool:
        return self.end_time is None

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        if not self._may_change():
            return
        has_room = len(self.attributes) + len(attributes) <= _MAX_ITEMS
        if has_room and "" not in attributes and _are_plain(attributes.values()):
            self.attributes.update(attributes)
        else:
            for name, value in attributes.items():
                self.set_attribute(name, value)

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        if not self._may_change():
            return
        if not isinstance(self.attributes, BoundedAttributes):
            self.attributes = BoundedAttributes(_MAX_ITEMS, self.attributes, immutable=False)
        self.attributes[key] = value

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        if not self._may_change():
            return
        if not isinstance(self.events, BoundedList):
            self.events = BoundedList(_MAX_ITEMS)
        self.events.append(Event(name, BoundedAttributes(_MAX_ITEMS, attributes), timestamp))

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        if not self._may_change():
            return
        if not isinstance(self.links, BoundedList):
            self.links = BoundedList(_MAX_ITEMS)
        self.links.append(Link(context, BoundedAttributes(_MAX_ITEMS, attributes)))

    def update_name(self, name: str) -> None:
        if self._may_change():
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        told = status if isinstance(status, Status) else Status(status, description)
        is_final = self.status.status_code is StatusCode.OK or told.status_code is StatusCode.UNSET
        if not is_final and self._may_change():
            self.status = told

    def record_exception(
        self, exception: BaseException, attributes: Attributes = None, timestamp: Any = None, escaped: bool = False
    ) -> None:
        module, name = type(exception).__module__, type(exception).__qualname__
        described = {
            EXCEPTION_TYPE: name if module == "builtins" else f"{module}.{name}",
            EXCEPTION_MESSAGE: str(exception),
            EXCEPTION_STACKTRACE: "".join(traceback.format_exception(exception)),
            "exception.escaped": str(escaped),
        }
        self.add_event(EXCEPTION_EVENT, {**described, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        if not self._may_change():
            return
        self.end_time = time.time_ns() if end_time is None else end_time
        self._tracer.span_processor.on_end(self._readable())

    def to_json(self, indent: int | None = 4) -> str:
        """The span as the SDK's console exporter writes it."""
        written: str = self._readable().to_json(indent)
        return written

    def _readable(self) -> ReadableSpan:
        return ReadableSpan(
            *(self.name, self.context, self.parent, self.resource, self.attributes, self.events, self.links),
            kind=self.kind,
            status=self.status,
            start_time=self.start_time,
            end_time=self.end_time,
            instrumentation_scope=_SCOPE,
        )

    def _may_change(self) -> bool:
        if self.end_time is not None:
            log.warning("The span %s has ended and cannot be changed", self.name)
        return self.end_time is None


def _are_plain(values: Collection[object]) -> bool:
    others = set(map(type, values)) - _PLAIN
    tuples = [cast("tuple[object, ...]", value) for value in values if type(value) is tuple] if others else ()
    return others <= {tuple} and all(type(item) is str for value in tuples for item in value)
