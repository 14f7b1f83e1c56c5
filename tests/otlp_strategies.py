"""What the SDK can hold, made by hypothesis: attributes, resources, scopes and spans."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
TIMES = st.integers(0, 2**64 - 1)
COUNTS = st.none() | st.integers(0, 3)
SCALARS = st.none() | st.booleans() | INT64 | st.integers(0, 5000) | st.floats() | st.text() | st.binary()
KEYS: st.SearchStrategy[str] = st.text(min_size=1) | st.sampled_from(["gen_ai.request.model", "server.address", "n"])


def _nested(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arrays = st.lists(values, max_size=4)
    return arrays | arrays.map(tuple) | st.dictionaries(KEYS, values, max_size=4)


VALUES = st.recursive(SCALARS, _nested, max_leaves=8) | st.sampled_from(["fake", "toy-1", 1, True, 1.0, 0, False, 0.0])
"""Every AnyValue; equal values of different types are frequent, because what is kept must not mix them up."""
ATTRIBUTES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(KEYS, VALUES, max_size=6)

_NAMES = st.sampled_from("abcde")
_STATES = st.dictionaries(_NAMES, st.text("xyz", min_size=1, max_size=3), max_size=3).map(
    lambda entries: TraceState([*entries.items()])
)
CONTEXTS = st.builds(
    SpanContext,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.just(TraceFlags(TraceFlags.SAMPLED)),
    trace_state=_STATES,
)
LINKS = st.builds(Link, CONTEXTS, ATTRIBUTES)
STATUSES = st.builds(Status, st.just(StatusCode.ERROR), st.none() | st.text()) | st.sampled_from(
    [Status(StatusCode.OK), Status(StatusCode.UNSET)]
)
RESOURCES = st.builds(Resource, ATTRIBUTES, st.none() | st.text())
SCOPES = st.builds(InstrumentationScope, st.text(min_size=1), st.none() | st.text(), st.none() | st.text(), ATTRIBUTES)
_LIMITS = st.builds(
    SpanLimits,
    max_span_attributes=COUNTS,
    max_events=COUNTS,
    max_links=COUNTS,
    max_event_attributes=COUNTS,
    max_link_attributes=COUNTS,
    max_span_attribute_length=st.none() | st.integers(1, 8),
)


class _Ids(IdGenerator):
    """Ids that hypothesis chose."""

    def __init__(self, context: SpanContext) -> None:
        self._context = context

    def generate_span_id(self) -> int:
        return self._context.span_id

    def generate_trace_id(self) -> int:
        return self._context.trace_id


@st.composite
def spans(draw: st.DrawFn, is_ended: st.SearchStrategy[bool]) -> ReadableSpan:
    """A span that the SDK made, with limits that it may have exceeded."""
    provider = TracerProvider(
        resource=draw(RESOURCES),
        span_limits=draw(_LIMITS),
        id_generator=_Ids(draw(CONTEXTS)),
        shutdown_on_exit=False,
    )
    scope = draw(SCOPES)
    tracer = provider.get_tracer(scope.name, scope.version, schema_url=scope.schema_url, attributes=scope.attributes)
    parent = draw(st.none() | CONTEXTS)
    span = tracer.start_span(
        draw(st.text()),
        context=trace.set_span_in_context(NonRecordingSpan(parent)) if parent else None,
        kind=draw(st.sampled_from(SpanKind)),
        attributes=draw(ATTRIBUTES),
        links=draw(st.lists(LINKS, max_size=4)),
        start_time=draw(TIMES),
    )
    for key, value in draw(ATTRIBUTES).items():
        span.set_attribute(key, value)
    for name, attributes, time in draw(st.lists(st.tuples(st.text(), ATTRIBUTES, TIMES), max_size=4)):
        span.add_event(name, attributes, time)
    span.set_status(draw(STATUSES))
    if draw(is_ended):
        span.end(draw(TIMES))
    assert isinstance(span, ReadableSpan)
    return span


def readable_spans(**given: st.SearchStrategy[Any]) -> st.SearchStrategy[ReadableSpan]:
    """A span that another library made, with the given parts in the place of usual ones."""
    usual: dict[str, st.SearchStrategy[Any]] = {
        "name": st.text(),
        "context": CONTEXTS,
        "parent": st.none() | CONTEXTS,
        "resource": RESOURCES,
        "instrumentation_scope": st.none() | SCOPES,
        "start_time": st.none() | TIMES,
        "end_time": st.none() | TIMES,
    }
    return st.builds(ReadableSpan, **{**usual, **given})
