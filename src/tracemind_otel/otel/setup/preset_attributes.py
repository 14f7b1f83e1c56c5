"""What presets add to a span and leave out of what is sent. Loaded only where a preset is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, Span

from ..backends.backend import Backend
from ..backends.derived import SpanFacts, span_type
from ..backends.readings import additions, kept
from ..genai_spans import attributes_of
from ..instruments import is_ours
from ..sanitize import encodable


class PresetAttributes:
    """Adds to a span what the backends read.

    Args:
        backends: what the presets are for.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = backends

    def __call__(self, span: Span, workflow: str | None) -> None:
        attributes = attributes_of(span)
        found = span_type(attributes, is_ours=is_ours(span))
        if found is None:
            return
        facts = SpanFacts(type=found, attributes=attributes, started_ns=span.start_time or 0, workflow=workflow)
        span.set_attributes(encodable(additions(facts, self._backends)))


def without(spans: Sequence[ReadableSpan], leaves_out: tuple[str, ...]) -> Sequence[ReadableSpan]:
    """The spans as one destination gets them: without the attributes whose names begin so."""
    return [_without(span, leaves_out) for span in spans]


def _without(span: ReadableSpan, leaves_out: tuple[str, ...]) -> ReadableSpan:
    return ReadableSpan(
        span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=kept(span.attributes or {}, leaves_out),
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
