"""Things of which every event loop needs its own."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value per event loop, made on first use and closed when the loop ends.

    `asyncio.run` closes the async generators that were started under it, so one that waits in a `yield` is
    the hook for our own clean-up. Several `asyncio.run` in one process each get a value of their own.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._values: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[T, AsyncGenerator[None]]]
        self._values = weakref.WeakKeyDictionary()

    def get(self) -> T:
        """The running loop's value."""
        loop = asyncio.get_running_loop()
        held = self._values.get(loop)
        if held is None:
            self._drop_closed()
            value = self._make()
            self._values[loop] = held = (value, self._closing_with(loop, value))
        return held[0]

    def _drop_closed(self) -> None:
        """Loops that were closed without closing their generators would be kept for ever by these."""
        for loop in [loop for loop in self._values if loop.is_closed()]:
            del self._values[loop]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held for any loop."""
        return not self._values

    async def aclose(self) -> None:
        """Close the running loop's value now; the next `get` makes a new one."""
        held = self._values.get(asyncio.get_running_loop())
        if held is not None:
            await held[1].aclose()

    def _closing_with(self, loop: asyncio.AbstractEventLoop, value: T) -> AsyncGenerator[None]:
        async def wait_for_the_end() -> AsyncGenerator[None]:
            try:
                yield
            finally:
                self._values.pop(loop, None)
                await self._close(value)

        generator = wait_for_the_end()
        try:
            # Nothing is awaited before the yield, so one step starts it, without a task.
            generator.__anext__().__await__().send(None)
        except StopIteration:
            pass
        return generator
