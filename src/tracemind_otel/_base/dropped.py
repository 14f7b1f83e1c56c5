"""Streams and generators that are dropped before their end.

A finalizer interrupts any code, even code that holds a lock of an SDK. It only queues the function that ends what was
dropped. The event loop drains the queue, or the next call, the exporter's thread or the exit of the process.

Python throws `GeneratorExit` in finalizers and for an explicit `close()` alike, so what it ends is queued as well.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import time
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from .fork import in_forked_child
from .once import report_fault

log = logging.getLogger(__name__)


class Unread(Protocol):
    """A body whose consumer may drop it before its end."""

    @property
    def name(self) -> str:
        """What a warning calls it."""
        ...

    def close(self, ended_ns: int | None = None) -> None:
        """End it as one that was not read to its end."""
        ...


_queue: deque[Callable[[], object]] = deque()
_open: set[Unread] = set()
"""Bodies that have begun. The exit ends them, because a finalizer that runs later can export nothing."""


def opened(body: Unread) -> None:
    """Note that a body has begun."""
    _open.add(body)


def ended(body: Unread) -> bool:
    """Note that a body has ended; returns whether to report it, which this process does once and its forks never."""
    try:
        _open.remove(body)
    except KeyError:
        return False
    return True


def drop(body: Unread, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Queue the end of an open body for the event loop that reads it, and warn; for `__del__`."""
    if ended(body):
        end_later(partial(body.close, time.time_ns()), loop)
        warnings.warn(f"{body.name} was dropped before its end; close it", ResourceWarning, stacklevel=3)


def end_later(end: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Queue a function; the given loop, else the running one, drains the queue in its next turn."""
    _queue.append(end)
    try:
        (loop or asyncio.get_running_loop()).call_soon_threadsafe(end_dropped)
    except RuntimeError:
        pass  # no loop runs, or it is closed: the next call or the exit drains the queue


def keep_variables() -> None:
    """Keep the values of all context variables until the queue is drained, before one is changed in a finalizer.

    Python 3.11 collects garbage in the middle of `ContextVar.set`, which would go on with values that were freed.
    """
    context = contextvars.copy_context()
    _queue.append(lambda: context)


def interrupt(end: Callable[[int], object], cause: BaseException) -> None:
    """End what an exception interrupts: at once, or later if its coroutine is being closed.

    `end` ends it as cancelled, at a time in nanoseconds since the epoch.
    """
    ending = partial(end, time.time_ns())
    if isinstance(cause, GeneratorExit):
        end_later(ending)
    else:
        ending()


def end_dropped() -> None:
    """Drain the queue; never called in a finalizer."""
    while _queue:
        try:
            end = _queue.popleft()
        except IndexError:
            return  # another thread took it
        _end(end)


def _end(end: Callable[[], object]) -> None:
    try:
        end()
    except Exception:
        report_fault(log, "dropped", "end")


def end_dropped_at_exit() -> None:
    """End at exit what is open, before the exit handlers that are already registered, such as a provider's."""
    atexit.unregister(_end_everything)
    atexit.register(_end_everything)


def _end_everything() -> None:
    end_dropped()
    for body in tuple(_open):
        if ended(body):
            _end(partial(body.close, time.time_ns()))


in_forked_child(_queue.clear)
in_forked_child(_open.clear)
