"""Passes things from many threads to one function, also from code that interrupts that function."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Intake(Generic[T]):
    """Passes what is put in to a function, one at a time and in order.

    A thread waits while another one is in the function. A finalizer or a signal handler may interrupt that very thread,
    and cannot wait: the code that it interrupted passes on what it puts in.

    Args:
        admit: gets what was put in; never two of them at the same time.
    """

    def __init__(self, admit: Callable[[T], object]) -> None:
        self._admit = admit
        self._lock = threading.RLock()
        self._is_busy = False
        self._arrived = deque[T]()

    def put(self, thing: T) -> None:
        """Pass this on, after what was put in before."""
        self._arrived.append(thing)
        self.drain()

    @contextmanager
    def held(self) -> Generator[None]:
        """A block during which nothing is passed on; the end of the block passes on what arrived meanwhile."""
        self.drain()
        with self._lock:
            self._is_busy = True
            try:
                yield
            finally:
                self._is_busy = False
        self.drain()

    def drain(self) -> None:
        """Pass on what has arrived, and look again when done, so that nothing is left to a later call."""
        while self._arrived:
            with self._lock:
                if self._is_busy:  # in this thread, since the lock is free: it drains at its end
                    return
                self._is_busy = True
                try:
                    while self._arrived:
                        self._admit(self._arrived.popleft())
                finally:
                    self._is_busy = False
