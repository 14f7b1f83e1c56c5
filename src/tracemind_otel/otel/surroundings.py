"""What surrounds a piece of code: the current span, the flow, the ids, the budget, the step."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry.trace import SpanContext, get_current_span

from .._base.context import set_here, surrounding_values
from .attributes import attach


class Surroundings:
    """What surrounds the code that makes it, for work that another task does.

    No other context variable goes along: what the application keeps in them is left as it is.
    """

    __slots__ = ("_context", "_values")

    def __init__(self) -> None:
        self._context = otel_context.get_current()
        self._values = surrounding_values()

    @property
    def span_context(self) -> SpanContext:
        """The span that is current there; invalid where none is."""
        return get_current_span(self._context).get_span_context()

    @contextmanager
    def entered(self) -> Generator[None]:
        """A block that these surround, in the place of its own."""
        settings = [set_here(var, value) for var, value in self._values]
        settings.append(attach(self._context))
        try:
            yield
        finally:
            for setting in reversed(settings):
                setting.undo()
