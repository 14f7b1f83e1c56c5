"""One event loop in a thread of its own, for callers that cannot await."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import wait
from typing import Any, Generic, TypeVar

from .._base.fork import in_forked_child

T = TypeVar("T")

_STOP_S = 2.0
"""Seconds that the end of the process waits for calls that it cancels."""


class BackgroundLoop:
    """An event loop that runs in a daemon thread until it is stopped."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="tracemind-sync-calls", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, in a copy of the caller's context, and return its result.

        What interrupts the wait, a `KeyboardInterrupt` for instance, cancels the coroutine, waits for its end, and is
        raised.

        Raises:
            RuntimeError: the caller is a coroutine of this very loop, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a synchronous model call within an asynchronous one would wait for itself; await it")
        running = _Running(work)
        future = asyncio.run_coroutine_threadsafe(running.run(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self._loop.call_soon_threadsafe(running.cancel)
                wait([future])
            raise

    def stop(self) -> None:
        """Cancel what runs, close the loop's clients, and end the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_S)


class _Running(Generic[T]):
    """A coroutine that can be cancelled, also before it begins."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._is_cancelled = False

    async def run(self) -> T:
        if self._is_cancelled:
            self._work.close()
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        return await self._work

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()


_lock = threading.Lock()
_loop: BackgroundLoop | None = None


def run_in_background(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the process's background loop, and wait for its result."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = BackgroundLoop()
    return _loop.run(work)


@atexit.register
def _stop() -> None:
    if _loop is not None:
        _loop.stop()


def _forget() -> None:
    """In a forked child: its parent's thread did not come along."""
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


in_forked_child(_forget)
