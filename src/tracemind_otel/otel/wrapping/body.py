"""One run of a decorated function, and of a body that goes on after its call returned."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CodeType
from typing import Any, Protocol, Self, cast

from ..._base.dropped import Unread, drop, end_dropped, end_later, ended, opened


class SpanScope(Unread, Protocol):
    """One run of a decorated function. None of its methods raises."""

    def enter(self) -> None:
        """Make it current in the context of here and now."""
        ...

    def leave(self) -> None:
        """Put that context back, unless another one is current by now."""
        ...

    def item(self, value: object) -> None:
        """Note a value that the body of a generator yielded."""
        ...

    def end(self, exc: BaseException | None, result: object = None, *, ended_ns: int | None = None) -> None:
        """End the run with what its body raised or returned.

        Args:
            exc: what it raised.
            result: what it returned.
            ended_ns: the end, in nanoseconds since the epoch; the default is now.
        """
        ...


Start = Callable[[tuple[Any, ...], dict[str, Any]], SpanScope]
"""Starts a run for the arguments of a call; leaves the context as it is, and does not raise."""


class Body:
    """The run of a body that goes on after its call returned.

    Args:
        run: the run.
        context: the context of the body.
        is_closed_by_loop: whether `GeneratorExit` comes from a task only, because an event loop closes what is dropped.
    """

    __slots__ = ("_is_closed_by_loop", "_run", "context")

    def __init__(self, run: SpanScope, context: Context, *, is_closed_by_loop: bool = False) -> None:
        self._run: SpanScope | None = run
        self._is_closed_by_loop = is_closed_by_loop
        self.context = context
        opened(run)

    @classmethod
    def starting(cls, run: SpanScope, *, is_closed_by_loop: bool = False) -> Self:
        """A body that begins here and now."""
        context = copy_context()
        context.run(run.enter)
        return cls(run, context, is_closed_by_loop=is_closed_by_loop)

    def leave(self) -> None:
        """Put the context back."""
        if self._run is not None:
            self._run.leave()

    def item(self, value: object) -> None:
        """Note a value that it yielded."""
        if self._run is not None:
            self._run.item(value)

    def finish(self, result: object, *, is_closing: bool) -> None:
        """End it after it returned, by itself or because it was closed."""
        self.end(GeneratorExit() if is_closing else None, result)

    def end(self, exc: BaseException | None, result: object = None) -> None:
        """End it with what it raised or returned; the first end counts."""
        run, self._run = self._run, None
        if run is None or not ended(run):
            return
        if self._is_closed_by_loop and isinstance(exc, GeneratorExit):
            run.close()
        else:
            end_scope(run, exc, result)

    def __del__(self) -> None:
        # No event loop was left to close it.
        if self._run is not None:
            drop(self._run)


def end_scope(run: SpanScope, exc: BaseException | None, result: object = None) -> None:
    """End a run with what its body raised or returned; `GeneratorExit` means that the body was closed."""
    if isinstance(exc, GeneratorExit):
        end_later(functools.partial(run.close, time.time_ns()))
    else:
        end_dropped()
        run.end(exc, result)


def abandon(run: SpanScope) -> None:
    """Leave the run of a coroutine that was closed, and end it later: a finalizer may have closed it."""
    run.leave()
    end_later(functools.partial(run.end, GeneratorExit(), ended_ns=time.time_ns()))


def end_call(run: SpanScope, exc: BaseException | None, result: object = None) -> None:
    """Leave and end the run of a function with what it raised or returned."""
    run.leave()
    end_dropped()
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
