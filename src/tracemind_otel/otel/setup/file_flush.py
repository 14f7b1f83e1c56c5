"""Writes the file of `configure(file=...)` at the end of each outermost flow, so that `view` sees the flow at once.

Only `configure()` imports this module, because it needs the SDK.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from ..instruments import is_ours
from ..semconv import GEN_AI_OPERATION_NAME, INVOKE_WORKFLOW


class FlushAtFlowEnd(SpanProcessor):
    """Flushes when a flow ends that no other span of this process contains.

    Args:
        flush: writes what is queued, and blocks until it is written. On an event loop another thread calls it.
    """

    def __init__(self, flush: Callable[[], object]) -> None:
        self._flush = flush
        self._thread: threading.Thread | None = None
        self._told = threading.Event()

    def on_end(self, span: ReadableSpan) -> None:
        """Flush if it was such a flow."""
        is_outermost = span.parent is None or span.parent.is_remote
        if is_outermost and is_ours(span) and (span.attributes or {}).get(GEN_AI_OPERATION_NAME) == INVOKE_WORKFLOW:
            if _is_on_event_loop():
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


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
