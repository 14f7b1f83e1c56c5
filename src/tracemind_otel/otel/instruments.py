"""The instruments of our metrics: OpenTelemetry's, or leaner ones of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

SCOPE_NAME = "tracemind_otel"
"""The name of our instrumentation scope."""


def is_ours(span: object) -> bool:
    """Whether our tracer made this span of the SDK."""
    return getattr(getattr(span, "instrumentation_scope", None), "name", None) == SCOPE_NAME


NO_SPAN = set_span_in_context(INVALID_SPAN, Context())
"""The context of measurements without an exemplar. The SDK takes an empty context for the current one."""

Attributes = dict[str, str | bool | int | float]


class Counter(Protocol):
    """A sum that only grows."""

    def add(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        """Add to the series of these attributes."""


class Histogram(Protocol):
    """A distribution."""

    def record(self, amount: int | float, attributes: Attributes, context: Context) -> None:
        """Add a measurement to the series of these attributes; the context's span becomes its exemplar."""


class Instruments(Protocol):
    """Makes instruments, as a meter of OpenTelemetry does."""

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Counter:
        """Make a counter, or return the one of that name, unit and description."""
        ...

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",
        *,
        explicit_bucket_boundaries_advisory: Sequence[float],
    ) -> Histogram:
        """Make a histogram, or return the one of that name, unit and description."""
        ...
