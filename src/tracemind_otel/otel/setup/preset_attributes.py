"""What presets add to a span, and how it differs in what is sent. Loaded only where a preset is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, Span

from ..._base.once import report_fault
from ...flows.totals import AttributeValue
from .. import semconv
from ..backends.backend import Backend
from ..backends.derived import SpanFacts, span_type
from ..backends.lookup import Presets
from ..backends.readings import additions, kept
from ..genai_spans import attributes_of
from ..instruments import is_ours
from ..sanitize import encodable
from ..span_names import attempt_name_with_reason
from .preset_spans import Around

log = logging.getLogger(__name__)

AsSent = Callable[[ReadableSpan], ReadableSpan]
"""Gives an ended span as one destination gets it. The span itself, which all destinations share, stays as it is."""
_NOWHERE = Around(None, None)


class PresetAttributes:
    """Adds to a span what the backends read.

    Args:
        backends: what the presets are for.
    """

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._adds = tuple(added for backend in backends for added in backend.adds)

    def __call__(self, span: Span, around: Around) -> None:
        facts = _facts(span, around)
        if facts is not None:
            span.set_attributes(encodable(additions(facts, self._adds)))


def as_sent(presets: Presets) -> AsSent | None:
    """How spans differ in what is sent to the address of these presets; `None` where they do not."""
    if presets.leaves_out or presets.adds_when_sent or presets.names_reasons:
        return partial(_as_sent, presets)
    return None


def _as_sent(presets: Presets, span: ReadableSpan) -> ReadableSpan:
    attributes = attributes_of(span)
    added = _added(presets, span) if presets.adds_when_sent else {}
    left = kept(attributes, presets.leaves_out)
    name = _name_with_reason(span.name, attributes) if presets.names_reasons else span.name
    if not added and name == span.name and len(left) == len(attributes):
        return span
    return _SentSpan(span, name, {**left, **encodable(added)})


def _added(presets: Presets, span: ReadableSpan) -> dict[str, AttributeValue]:
    """What is added to a span as it is sent. A row of another package may raise, which costs no span."""
    try:
        facts = _facts(span)
        return {} if facts is None else additions(facts, presets.adds_when_sent)
    except Exception:
        report_fault(log, "configure", "preset")
        return {}


def _facts(span: ReadableSpan, around: Around = _NOWHERE) -> SpanFacts | None:
    """What is known of a span; `None` of one that no preset touches."""
    attributes = attributes_of(span)
    found = span_type(attributes, is_ours=is_ours(span))
    if found is None:
        return None
    return SpanFacts(
        type=found,
        attributes=attributes,
        started_ns=span.start_time or 0,
        workflow=around.workflow,
        agent=around.agent,
    )


def _name_with_reason(name: str, attributes: Mapping[str, Any]) -> str:
    """The name of an attempt that failed without an HTTP status has the reason; all other names stay."""
    number = attributes.get(semconv.TRACEMIND_RETRY_ATTEMPT)
    if number is None or semconv.HTTP_RESPONSE_STATUS_CODE in attributes:
        return name
    reason = attributes.get(semconv.TRACEMIND_RETRY_REASON, attributes.get(semconv.ERROR_TYPE))
    return name if reason is None else attempt_name_with_reason(number, reason)


class _SentSpan(ReadableSpan):
    """An ended span under another name, or with other attributes.

    Args:
        span: the span.
        name: its name in what is sent.
        attributes: its attributes there.
    """

    def __init__(self, span: ReadableSpan, name: str, attributes: Mapping[str, Any]) -> None:
        super().__init__(
            name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=attributes,
            events=span.events,
            links=span.links,
            kind=span.kind,
            status=span.status,
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._span = span

    @property
    def dropped_attributes(self) -> int:
        return self._span.dropped_attributes

    @property
    def dropped_events(self) -> int:
        return self._span.dropped_events

    @property
    def dropped_links(self) -> int:
        return self._span.dropped_links
