"""A span processor that sees the start and the end of each span. It needs the SDK: the fixture imports it."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor


class SpanWatch:
    """The spans that started and ended while it watched, with a clock that only these move."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticks = 0
        self.started: dict[int, tuple[int, ReadableSpan]] = {}
        """The tick of each start and the span, by its id, in the order of the starts."""
        self.ended: dict[int, tuple[int, ReadableSpan]] = {}
        """The tick of each end and the span as it ended, by its id."""

    def note(self, span: ReadableSpan, seen: dict[int, tuple[int, ReadableSpan]]) -> None:
        """Note a start or an end."""
        if span.context is None:
            return
        with self._lock:
            self._ticks += 1
            seen[span.context.span_id] = (self._ticks, span)

    def unended(self) -> list[ReadableSpan]:
        """The spans that have not ended, in the order of their start."""
        with self._lock:
            return [span for span_id, (_, span) in self.started.items() if span_id not in self.ended]


class SpanRelay(SpanProcessor):
    """Tells the watch of the running test: a provider may outlive it, and a processor cannot be taken from it."""

    def __init__(self) -> None:
        self.watch: SpanWatch | None = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if self.watch is not None:
            self.watch.note(span, self.watch.started)

    def on_end(self, span: ReadableSpan) -> None:
        watch = self.watch
        if watch is not None and span.context is not None and span.context.span_id in watch.started:
            watch.note(span, watch.ended)


_relays: weakref.WeakKeyDictionary[Any, SpanRelay] = weakref.WeakKeyDictionary()


def relay_of(provider: Any) -> SpanRelay | None:
    """The relay of a provider, added on first use; `None` for one that takes no processor."""
    if not hasattr(provider, "add_span_processor"):
        return None
    if provider not in _relays:
        relay = _relays[provider] = SpanRelay()
        provider.add_span_processor(relay)
    return _relays[provider]
