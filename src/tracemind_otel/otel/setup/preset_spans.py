"""Adds to each span, just before its end, what the backends of the presets read.

An ended span cannot be changed, so `end` is wrapped on the span itself, as in `span_prices`. Only `configure()` imports
this module, because it needs the SDK.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanKind

from ..._base.once import report_fault
from ...flows.totals import current_flow
from ..backends.backend import Backend
from ..backends.derived import SpanFacts, span_type
from ..backends.readings import additions, kept
from ..genai_spans import attributes_of
from ..instruments import is_ours
from ..sanitize import encodable

log = logging.getLogger(__name__)

_KINDS = frozenset({SpanKind.CLIENT, SpanKind.INTERNAL})


class PresetSpans(SpanProcessor):
    """Must stand before `SpanPrices`, whose `end` then adds the cost before ours looks for it."""

    def __init__(self) -> None:
        self.backends: Sequence[Backend] = ()
        """The backends of the presets; without any, spans are left alone."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self.backends and span.kind in _KINDS:
            flow = current_flow()
            ending = _Ending(span, self.backends, None if flow is None else flow.name, span.end)
            span.end = ending.end  # type: ignore[method-assign]


class _Ending:
    """The end of a span.

    Args:
        span: the span.
        backends: what the presets are for.
        workflow: the name of the flow around the span.
        end: the SDK's own end.
    """

    def __init__(self, span: Span, backends: Sequence[Backend], workflow: str | None, end: Callable[..., None]) -> None:
        self._span, self._backends, self._workflow = span, backends, workflow
        self._end: Callable[..., None] | None = end

    def end(self, end_time: int | None = None) -> None:
        """End the span, with what the presets add."""
        end, self._end = self._end, None
        if end is None:
            return
        vars(self._span).pop("end", None)
        ended_ns = time.time_ns() if end_time is None else end_time
        try:
            if self._span.is_recording():
                self._add()
        except Exception:
            report_fault(log, "configure", "preset")
        end(ended_ns)

    def _add(self) -> None:
        attributes = attributes_of(self._span)
        found = span_type(attributes, is_ours=is_ours(self._span))
        if found is None:
            return
        facts = SpanFacts(
            type=found, attributes=attributes, started_ns=self._span.start_time or 0, workflow=self._workflow
        )
        self._span.set_attributes(encodable(additions(facts, self._backends)))


def without(spans: Sequence[ReadableSpan], leaves_out: tuple[str, ...]) -> Sequence[ReadableSpan]:
    """The spans as one destination gets them: without the attributes whose names begin so."""
    return [_without(span, leaves_out) for span in spans] if leaves_out else spans


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
