"""Lets presets add to each span just before its end.

An ended span cannot be changed, so `end` is wrapped on the span itself, as in `span_prices`. Only `configure()` imports
this module, because it needs the SDK.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import SpanKind

from ..._base.once import report_fault
from ...flows.agents import current_agent
from ...flows.totals import current_flow

log = logging.getLogger(__name__)


class Around(NamedTuple):
    """In what a span began."""

    workflow: str | None
    """The name of the innermost flow."""
    agent: str | None
    """The name of the innermost agent."""


Add = Callable[[Span, Around], None]
"""Adds attributes to a span."""
_KINDS = frozenset({SpanKind.CLIENT, SpanKind.INTERNAL})


class PresetSpans(SpanProcessor):
    """Must stand before `SpanPrices`, whose `end` then adds the cost before ours looks for it."""

    def __init__(self) -> None:
        self.add: Add | None = None
        """Adds what the presets add; without it, spans are left alone."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self.add is not None and span.kind in _KINDS:
            flow, agent = current_flow(), current_agent()
            around = Around(None if flow is None else flow.name, None if agent is None else agent.name)
            ending = _Ending(span, self.add, around, span.end)
            span.end = ending.end  # type: ignore[method-assign]


class _Ending:
    """The end of a span.

    Args:
        span: the span.
        add: adds what the presets add.
        around: the flow and the agent around the span.
        end: the SDK's own end.
    """

    def __init__(self, span: Span, add: Add, around: Around, end: Callable[..., None]) -> None:
        self._span, self._add, self._around = span, add, around
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
                self._add(self._span, self._around)
        except Exception:
            report_fault(log, "configure", "preset")
        end(ended_ns)
