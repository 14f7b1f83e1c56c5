"""A wait that other code can end, and what a cancellation is."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast


class Wait:
    """A block that waits and that other code can end with an error; one object serves many blocks, one after the other.

    Like `asyncio.timeout`, it cancels the waiting task and takes back only its own cancellation. It takes a quarter of
    the time, and in Python 3.11 `asyncio.timeout` fails in a task that has outlived a cancellation.

    Example:
        >>> wait = Wait()
        >>> async def work():
        ...     asyncio.get_running_loop().call_soon(wait.end, ConnectionError("the other side has left"))
        ...     with wait:
        ...         await asyncio.Event().wait()
        >>> asyncio.run(work())
        Traceback (most recent call last):
        ConnectionError: the other side has left
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        """The running loop, where it is known: to look for it costs a system call in Python 3.11."""
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelling = 0
        """How often the task had been cancelled when the wait began."""
        self._error: Exception | None = None

    def __enter__(self) -> None:
        self._waiting = task = cast("asyncio.Task[Any]", asyncio.current_task(self._loop))
        self._cancelling = task.cancelling()

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        task, self._waiting = self._waiting, None
        if self._error is None or task is None:
            return
        error, self._error = self._error, None
        was_cancelled = task.uncancel() > self._cancelling  # by other code too
        if isinstance(exc, asyncio.CancelledError) and not was_cancelled:
            raise error from exc

    def end(self, error: Exception) -> bool:
        """End the wait with this error; the first error counts. Returns whether a wait went on."""
        if self._waiting is None:
            return False
        if self._error is None:
            self._error = error
            self._waiting.cancel()
        return True


def is_cancellation(exc: BaseException) -> bool:
    """Whether asyncio or trio cancelled what raised this, or its coroutine was closed; a group, if all of it is one."""
    if isinstance(exc, BaseExceptionGroup):
        return all(map(is_cancellation, cast("BaseExceptionGroup[BaseException]", exc).exceptions))
    trio: Any = sys.modules.get("trio")
    return isinstance(exc, asyncio.CancelledError | GeneratorExit) or (
        trio is not None and isinstance(exc, trio.Cancelled)
    )


def is_on_trio() -> bool:
    """Whether this is a task of trio."""
    trio: Any = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def is_on_event_loop() -> bool:
    """Whether an asyncio loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
