"""One run of a decorated function, and of a body that goes on after its call returned."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from types import CodeType
from typing import Any, Protocol, Self, cast

from ..._base.dropped import end_outside_collector, hand_over


class SpanScope(Protocol):
    """One run of a decorated function. None of its methods raises."""

    @property
    def name(self) -> str:
        """What runs, for a warning."""
        ...

    def enter(self) -> None:
        """Make it current in the context of here and now."""
        ...

    def leave(self) -> None:
        """Put that context back, where it is still the one."""
        ...

    def item(self, value: object) -> None:
        """A generator's body yielded a value."""
        ...

    def end(self, exc: BaseException | None, result: object = None, *, ended_ns: int | None = None) -> None:
        """The body is over, with what it raised or returned.

        Args:
            exc: what it raised.
            result: what it returned.
            ended_ns: when, in nanoseconds since the epoch; now by default.
        """
        ...

    def close(self, ended_ns: int | None = None) -> None:
        """The body is over because its consumer wanted no more; told instead of `end`."""
        ...


Start = Callable[[tuple[Any, ...], dict[str, Any]], SpanScope]
"""Starts a run for the arguments of a call; leaves the context as it is, and does not raise."""


class Body:
    """The run of a body that goes on after its call returned."""

    __slots__ = ("_run", "context")

    def __init__(self, run: SpanScope, context: Context) -> None:
        self._run: SpanScope | None = run
        self.context = context

    @classmethod
    def starting(cls, run: SpanScope) -> Self:
        """A body that begins here and now."""
        context = copy_context()
        context.run(run.enter)
        return cls(run, context)

    def leave(self) -> None:
        """Put the context back."""
        if self._run is not None:
            self._run.leave()

    def item(self, value: object) -> None:
        """It yielded a value."""
        if self._run is not None:
            self._run.item(value)

    def finish(self, result: object, *, is_closing: bool) -> None:
        """It returned, of its own accord or because it was closed."""
        self.end(GeneratorExit() if is_closing else None, result)

    def end(self, exc: BaseException | None, result: object = None) -> None:
        """It is over, with what it raised or returned; a second end is none."""
        run, self._run = self._run, None
        if run is not None:
            end_scope(run, exc, result)

    def __del__(self) -> None:
        # Dropped in the middle, where no event loop was left to close it.
        run, self._run = self._run, None
        if run is not None:
            hand_over(run.name, partial(run.close, time.time_ns()))


def end_scope(run: SpanScope, exc: BaseException | None, result: object = None) -> None:
    """End a run that an exception may have left; what leaves a generator that is closed closes the run."""
    if isinstance(exc, GeneratorExit):
        end_outside_collector(run.name, partial(run.close, time.time_ns()))
    else:
        run.end(exc, result)


def leave_block(run: SpanScope, exc: BaseException | None) -> None:
    """End the run of a `with` block."""
    run.leave()
    end_scope(run, exc)


def code_of(function: object) -> object:
    """The code of a function, or of what a `functools.partial` is a part of; `None` of anything else."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    return getattr(function, "__code__", None)


def is_iterable_coroutine(code: object) -> bool:
    """Whether it is a generator's code that `types.coroutine` made awaitable."""
    return isinstance(code, CodeType) and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)
