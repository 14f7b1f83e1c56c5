"""Helpers of several test modules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from genai_prices.data_snapshot import DataSnapshot
from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from tracemind_otel import step
from tracemind_otel.testing import Captured as Captured
from tracemind_otel.testing import captured as captured

Point = NumberDataPoint | HistogramDataPoint
UseSnapshot = Callable[[DataSnapshot], None]
"""Sets the table of prices for one test: the fixture `use_snapshot`."""


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    """A span's attributes."""
    return span.attributes or {}


def events(span: ReadableSpan, name: str) -> list[Mapping[str, Any]]:
    """The attributes of a span's events of one name, in order."""
    return [event.attributes or {} for event in span.events if event.name == name]


def calls(spans: Iterable[ReadableSpan]) -> list[ReadableSpan]:
    """The spans of model calls, in order; a call that was retried also has one for each of its attempts."""
    return [span for span in spans if span.kind is SpanKind.CLIENT]


NEXT_CALL = "the next call"


def next_call() -> None:
    """Make a call, before which everything that was closed or dropped has ended."""
    step(name=NEXT_CALL)(lambda: None)()
