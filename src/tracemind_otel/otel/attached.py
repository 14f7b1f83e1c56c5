"""OpenTelemetry's context, current in a `with` block."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from .._base.context import Setting


def attach(context: Context) -> Setting:
    """Make a context current until the setting is undone."""
    return Setting(otel_context.attach(context), context)


class Attached(AbstractContextManager[object]):
    """Makes a context current, for a body that runs in one task."""

    __slots__ = ("_context", "_setting")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._setting = attach(self._context)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._setting.undo()
