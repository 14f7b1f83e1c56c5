"""The span processors of the pipeline. Only `configure()` imports this module, because it needs the SDK."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from ..._base.waiting import is_on_event_loop
from ...flows.correlation import NO_CORRELATION, current_correlation
from ..attributes import correlation_attributes
from ..export.delivery_stats import DeliveryStats
from ..instruments import is_ours
from ..semconv import GEN_AI_OPERATION_NAME, INVOKE_WORKFLOW


class CountingProcessor(BatchSpanProcessor):
    """Counts the sampled spans on their way to an exporter."""

    def __init__(self, exporter: Any, stats: DeliveryStats) -> None:
        super().__init__(exporter)
        self._delivery_stats = stats

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self._delivery_stats.accept(1)
        super().on_end(span)


class FlowIds(SpanProcessor):
    """Puts the ids of a flow on the spans of other libraries: of HTTP clients, databases, queues."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        ids = current_correlation()
        if ids is not NO_CORRELATION and not is_ours(span):  # ours have them already
            own = span.attributes or {}
            span.set_attributes({name: value for name, value in correlation_attributes(ids).items() if name not in own})


class AtFlowEnd(SpanProcessor):
    """Acts when a flow ends that no other span of this process contains.

    Args:
        action: must not block.
    """

    def __init__(self, action: Callable[[], object] | None = None) -> None:
        self.action = action

    def on_end(self, span: ReadableSpan) -> None:
        if self.action is not None and _is_outermost_flow(span):
            self.action()


class FlushAtFlowEnd(AtFlowEnd):
    """Flushes at the end of such a flow, so that `view` sees it at once.

    Args:
        flush: writes what is queued, and blocks until it is written. On an event loop another thread calls it.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        super().__init__(self._flush_without_blocking)
        self._flush = flush
        self._thread: threading.Thread | None = None
        self._told = threading.Event()

    def _flush_without_blocking(self) -> None:
        if is_on_event_loop():
            self._tell_thread()
        else:
            self._flush()

    def _tell_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():  # a forked child has none
            self._told = threading.Event()
            self._thread = threading.Thread(target=self._run, args=(self._told,), name="tracemind-file", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter ends, which flushes
                return
        self._told.set()

    def _run(self, told: threading.Event) -> None:
        while told.wait():
            told.clear()
            self._flush()


def _is_outermost_flow(span: ReadableSpan) -> bool:
    is_outermost = span.parent is None or span.parent.is_remote
    return is_outermost and is_ours(span) and (span.attributes or {}).get(GEN_AI_OPERATION_NAME) == INVOKE_WORKFLOW
