"""Streams and generators that were dropped before their end: their finalizers hand the end over, and it runs later.

A finalizer runs in the middle of anything: of an SDK's own code too, whose locks this thread may hold. So it only
appends to a queue. The event loop empties it, or the next call, an exporter's thread or the exit of the process.

A generator gets `GeneratorExit` from its consumer's `close()` and from the garbage collector alike. Only the second
is a finalizer, and Python tells when it collects.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable

from .fork import in_forked_child
from .once import report_fault

log = logging.getLogger(__name__)

_ends: deque[Callable[[], object]] = deque()


def hand_over(what: str, end: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Keep an end for later, and warn.

    Args:
        what: what was dropped, for the warning.
        end: ends it; its faults are logged.
        loop: the event loop that it belongs to; the default is the one that runs in this thread.
    """
    _ends.append(end)
    try:
        (loop or asyncio.get_running_loop()).call_soon_threadsafe(end_dropped)
    except RuntimeError:
        pass  # no loop runs here, or it is closed: somebody else empties the queue
    warnings.warn(f"{what} was dropped before its end; close it", ResourceWarning, stacklevel=2)


def is_collecting() -> bool:
    """Whether the garbage collector runs in this thread, so that this is part of a finalizer."""
    return _collecting_thread == threading.get_ident()


def end_outside_collector(what: str, end: Callable[[], object]) -> None:
    """End something that `GeneratorExit` has left: at once, or later if the garbage collector threw it."""
    if is_collecting():
        hand_over(what, end)
    else:
        end()


def end_dropped() -> None:
    """End everything that was handed over. Any thread may do this, outside of finalizers."""
    while _ends:
        try:
            end = _ends.popleft()
        except IndexError:
            return  # another thread took it
        try:
            end()
        except Exception:
            report_fault(log, "dropped", "end")


def end_dropped_at_exit() -> None:
    """Empty the queue at exit, before everything that was registered until now: before the providers shut down."""
    atexit.unregister(end_dropped)
    atexit.register(end_dropped)


_collecting_thread: int | None = None


def _note_collection(phase: str, info: object) -> None:
    global _collecting_thread
    _collecting_thread = threading.get_ident() if phase == "start" else None


gc.callbacks.append(_note_collection)
in_forked_child(_ends.clear)
