"""What the metrics are written to: OpenTelemetry's instruments, or lean ones of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

SCOPE_NAME = "tracemind_otel"
"""The name of our instrumentation scope."""


def is_ours(span: object) -> bool:
    """Whether a span of the SDK was made by us."""
    return getattr(getattr(span, "instrumentation_scope", None), "name", None) == SCOPE_NAME


NO_SPAN = set_span_in_context(INVALID_SPAN, Context())
"""The context of measurements without an exemplar. The SDK takes an empty context for the current one."""

Attributes = dict[str, str | bool | int | float]


class Counter(Protocol):
    """A sum that only grows."""

    def add(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        """Add to the series of these attributes."""
        ...


class Histogram(Protocol):
    """A distribution."""

    def record(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        """Add a measurement to the series of these attributes; the context's span becomes its exemplar."""
        ...


class Instruments(Protocol):
    """Makes instruments."""

    def counter(self, name: str, unit: str, description: str) -> Counter:
        """A counter."""
        ...

    def histogram(self, name: str, unit: str, description: str, boundaries: Sequence[float]) -> Histogram:
        """A histogram with these boundaries; the SDK's own suit none of what we measure."""
        ...


class MeterInstruments:
    """The instruments of an OpenTelemetry meter, whosever provider it comes from."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def counter(self, name: str, unit: str, description: str) -> Counter:
        return self._meter.create_counter(name, unit, description)

    def histogram(self, name: str, unit: str, description: str, boundaries: Sequence[float]) -> Histogram:
        return self._meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=list(boundaries)
        )
