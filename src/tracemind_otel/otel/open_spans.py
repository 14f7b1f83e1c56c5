"""The spans that are open, so that a model call that several nested spans report is counted once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from opentelemetry.trace import Span, SpanContext

from .._base.fork import in_forked_child

_MAX_IDS = 4096
_MAX_OPEN = 65_536
"""Spans that are never ended stay open; the oldest are forgotten."""
_Key = tuple[int, int]


class OpenSpan:
    """A span that is open, and those around it."""

    __slots__ = ("has_told", "is_call", "is_counted", "parent")

    def __init__(self, parent: OpenSpan | None) -> None:
        self.parent = parent
        self.is_call = False
        """Whether it was a model call's at its start."""
        self.is_counted = False
        """Whether its call was counted, by itself or by a span below."""
        self.has_told = False
        """Whether the span itself was counted."""

    def count(self) -> None:
        """Note that the call of this span is counted; the spans around it report the same call."""
        self.has_told = True
        for span in self._upwards():
            span.is_counted = True

    @property
    def is_told(self) -> bool:
        """Whether the call was counted: here, below, or by a span around it that ended first."""
        return self.is_counted or any(span.has_told for span in self._upwards())

    @property
    def is_inside_call(self) -> bool:
        """Whether a span around it is a model call's, which will tell how the call ended."""
        return self.parent is not None and any(span.is_call for span in self.parent._upwards())

    def _upwards(self) -> Iterator[OpenSpan]:
        span: OpenSpan | None = self
        while span is not None:
            yield span
            span = span.parent


_open: dict[_Key, OpenSpan] = {}
_ids: dict[str, None] = {}
_lock = threading.Lock()


def open_span(context: SpanContext, parent: SpanContext) -> OpenSpan:
    """Note that a span begins."""
    made = OpenSpan(_open.get(_key(parent)))
    with _lock:
        if len(_open) >= _MAX_OPEN:
            del _open[next(iter(_open))]
        _open[_key(context)] = made
    return made


def close_span(context: SpanContext) -> None:
    """Note that a span has ended."""
    with _lock:
        _open.pop(_key(context), None)


def count_call_of(span: Span) -> None:
    """Note that the call of a span is counted by other means than the span."""
    found = _open.get(_key(span.get_span_context()))
    if found is not None:
        found.count()


def is_new_reply(response_id: str) -> bool:
    """Whether no call with this id of a reply was counted; the last few thousand are kept."""
    with _lock:
        if response_id in _ids:
            return False
        if len(_ids) >= _MAX_IDS:
            del _ids[next(iter(_ids))]
        _ids[response_id] = None
        return True


def _key(context: SpanContext) -> _Key:
    return context.trace_id, context.span_id


def _begin_anew() -> None:
    global _lock
    _lock = threading.Lock()
    _open.clear()


in_forked_child(_begin_anew)
