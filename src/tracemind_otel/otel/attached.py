"""OpenTelemetry's context, current in a `with` block."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry.context import Context


class Attached(AbstractContextManager[object]):
    """Makes a context current, for a body that runs in one task."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = otel_context.attach(self._context)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
