"""One value per event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value per event loop, made on first use and closed when the loop ends. Thread-safe.

    `asyncio.run` closes the async generators that were started under it, so one that waits at a `yield` runs our
    clean-up. A value whose loop was closed without that can no longer be closed: the next loop abandons it.
    """

    def __init__(
        self,
        make: Callable[[], T],
        close: Callable[[T], Awaitable[None]],
        abandon: Callable[[T], None] | None = None,
    ) -> None:
        self._make = make
        self._close = close
        self._abandon = abandon
        # Re-entrant: a finalizer that the garbage collector runs while it is held may ask for a value.
        self._lock = threading.RLock()
        self._values: dict[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None]]] = {}

    def get(self) -> T:
        """The running loop's value."""
        loop = asyncio.get_running_loop()
        with self._lock:
            held = self._values.get(loop)
        return self._new(loop) if held is None else held[0]

    def _new(self, loop: asyncio.AbstractEventLoop) -> T:
        """Only the thread that runs a loop makes its value, so it is made once."""
        self.drop_closed()
        value = self._make()
        held = (value, self._closing_with(loop, value))
        with self._lock:
            self._values[loop] = held
        return value

    def drop_closed(self) -> None:
        """Drop the values of loops that were closed without closing theirs."""
        with self._lock:
            closed = [loop for loop in self._values if loop.is_closed()]
            dropped = [self._values.pop(loop) for loop in closed]
        if self._abandon is not None:
            for value, _ in dropped:
                self._abandon(value)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held for any loop."""
        return not self._values

    async def aclose(self) -> None:
        """Close the running loop's value now; the next `get` makes a new one."""
        with self._lock:
            held = self._values.get(asyncio.get_running_loop())
        if held is not None:
            await held[1].aclose()

    def _closing_with(self, loop: asyncio.AbstractEventLoop, value: T) -> AsyncGenerator[None]:
        async def wait_for_the_end() -> AsyncGenerator[None]:
            try:
                yield
            finally:
                with self._lock:
                    self._values.pop(loop, None)
                await self._close(value)

        generator = wait_for_the_end()
        try:
            # Nothing is awaited before the yield, so one step starts it, without a task.
            generator.__anext__().__await__().send(None)
        except StopIteration:
            pass
        return generator
