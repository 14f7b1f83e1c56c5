"""Streams and generators that are dropped before their end.

A finalizer interrupts any code, also code that holds a lock of an SDK. So a finalizer only queues a record, and the
event loop drains the queue, or the next call, the exporter's thread or the exit of the process.

Python throws `GeneratorExit` for an explicit `close()` and in finalizers alike, so what it ends goes through the queue
too.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import logging
import time
import warnings
from collections import deque
from dataclasses import dataclass
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


class Record(Protocol):
    """What a finalizer leaves behind."""

    def end(self) -> None:
        """End what was dropped."""
        ...


@dataclass(frozen=True, slots=True)
class Dropped:
    """A body that was not read to its end."""

    body: Unread
    """What to end."""
    ended_ns: int
    """When it was dropped, in nanoseconds since the epoch."""

    def end(self) -> None:
        """End the body."""
        self.body.close(self.ended_ns)


class Waiting(Protocol):
    """A call that waits, and whose coroutine may be closed meanwhile."""

    def interrupted(self, ended_ns: int | None = None) -> None:
        """End it as cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class _Abandoned:
    """A call whose coroutine was closed while it waited."""

    call: Waiting
    """What to end."""
    ended_ns: int
    """When the coroutine was closed, in nanoseconds since the epoch."""

    def end(self) -> None:
        """End the call."""
        self.call.interrupted(self.ended_ns)


_records: deque[Record] = deque()
_open: set[Unread] = set()
"""Bodies that have begun. The exit ends them, since no finalizer that runs after it can export anything."""


def opened(body: Unread) -> None:
    """Note that a body has begun."""
    _open.add(body)


def ended(body: Unread) -> bool:
    """Note that a body has ended.

    Returns:
        Whether that is for this process to tell, and the first time: what was opened before a fork is the parent's.
    """
    try:
        _open.remove(body)
    except KeyError:
        return False
    return True


def drop(body: Unread, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Queue the end of an open body and warn; for `__del__`.

    Args:
        body: what was dropped.
        loop: the event loop that reads it; the default is the running one.
    """
    if ended(body):
        hand_over(Dropped(body, time.time_ns()), loop)
        warnings.warn(f"{body.name} was dropped before its end; close it", ResourceWarning, stacklevel=3)


def hand_over(record: Record, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Queue a record; the running loop, or the one given, drains the queue in its next turn."""
    _records.append(record)
    try:
        (loop or asyncio.get_running_loop()).call_soon_threadsafe(end_dropped)
    except RuntimeError:
        pass  # no loop runs, or it is closed: the next call or the exit drains the queue


@dataclass(frozen=True, slots=True)
class _Kept:
    """Values of context variables that interrupted code may still read."""

    context: contextvars.Context
    """Holds them."""

    def end(self) -> None:
        """Let them go."""


def keep_variables() -> None:
    """Keep the values of all context variables until the queue is drained, before one is changed in a finalizer.

    Python 3.11 collects garbage in the middle of `ContextVar.set`, which would go on with values that were freed.
    """
    _records.append(_Kept(contextvars.copy_context()))


def interrupt(call: Waiting, cause: BaseException) -> None:
    """End a call that an exception interrupts: at once, or later if its coroutine is being closed."""
    if isinstance(cause, GeneratorExit):
        hand_over(_Abandoned(call, time.time_ns()))
    else:
        call.interrupted()


def end_dropped() -> None:
    """Drain the queue; never called in a finalizer."""
    while _records:
        try:
            record = _records.popleft()
        except IndexError:
            return  # another thread took it
        _end(record)


def _end(record: Record) -> None:
    try:
        record.end()
    except Exception:
        report_fault(log, "dropped", "end")


def end_dropped_at_exit() -> None:
    """End at exit whatever is open; before the exit handlers that are registered now, such as a provider's."""
    atexit.unregister(_end_everything)
    atexit.register(_end_everything)


def _end_everything() -> None:
    end_dropped()
    for body in tuple(_open):
        if ended(body):
            _end(Dropped(body, time.time_ns()))


in_forked_child(_records.clear)
in_forked_child(_open.clear)
