"""One run of a decorated function, and of a body that goes on after the call that began it."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from ..._base.dropped import Unread, drop, end_dropped, end_later, ended, opened


class SpanScope(Unread, Protocol):
    """One run of a decorated function. None of its methods raises."""

    def enter(self) -> None:
        """Make it current in the context of the caller."""

    def leave(self) -> None:
        """Restore the context as it was before `enter`, unless another one is current by now."""

    def item(self, value: object) -> None:
        """Note a value that the body of a generator yielded."""

    def end(self, exc: BaseException | None, result: object = None, *, ended_ns: int | None = None) -> None:
        """End the run.

        Args:
            exc: what its body raised.
            result: what its body returned.
            ended_ns: the end, in nanoseconds since the epoch; the default is now.
        """


Start = Callable[[tuple[Any, ...], dict[str, Any]], SpanScope]
"""Starts a run for the arguments of a call; leaves the context as it is, and does not raise."""


Ready = Callable[[Any], Awaitable[None]]
"""What a run waits for before its body begins, where it can be awaited; the body does not begin if it raises."""


class Body:
    """The run of a body that goes on after the call that began it: of a generator, or of a `with` block.

    Args:
        run: the run.
        is_closed_by_loop: whether an event loop closes the body if it is dropped. `GeneratorExit` then never comes
            from a finalizer, and the run may end at once.
    """

    __slots__ = ("_is_closed_by_loop", "_run")

    def __init__(self, run: SpanScope, *, is_closed_by_loop: bool = False) -> None:
        self._run: SpanScope | None = run
        self._is_closed_by_loop = is_closed_by_loop
        opened(run)

    def end(self, exc: BaseException | None, result: object = None) -> None:
        """End the run with what the body raised or returned; the first end counts.

        `GeneratorExit` means that the body was closed, perhaps by a finalizer.
        """
        run, self._run = self._run, None
        if run is None or not ended(run):
            return
        if not isinstance(exc, GeneratorExit):
            end_dropped()
            run.end(exc, result)
        elif self._is_closed_by_loop:
            run.close()
        else:
            end_later(functools.partial(run.close, time.time_ns()))

    def leave(self, exc: BaseException | None) -> None:
        """Restore the context, then end the run."""
        if self._run is not None:
            self._run.leave()
        self.end(exc)

    def __del__(self) -> None:
        # No event loop was left to close it.
        if self._run is not None:
            drop(self._run)


def abandon(run: SpanScope) -> None:
    """Leave the run of a coroutine that was closed, and end it later: a finalizer may have closed it."""
    run.leave()
    end_later(functools.partial(run.end, GeneratorExit(), ended_ns=time.time_ns()))


def end_call(run: SpanScope, exc: BaseException | None, result: object = None) -> None:
    """Leave and end the run of a function with what it raised or returned."""
    run.leave()
    end_dropped()
    run.end(exc, result)


def code_of(function: object) -> object:
    """The code of a function, or of the function inside a `functools.partial`; `None` for anything else."""
    while isinstance(function, functools.partial):
        function = cast("functools.partial[object]", function).func
    return getattr(function, "__code__", None)
