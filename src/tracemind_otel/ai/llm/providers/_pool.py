"""What sends the requests of one event loop; it imports the HTTP libraries in a worker thread, since they are slow."""

from __future__ import annotations

import asyncio
import atexit
import threading
from typing import TYPE_CHECKING

from ._loop import PerLoop

if TYPE_CHECKING:
    import httpx

    from ._sending import GivenClientSender, PooledSender

_importing = threading.Lock()
"""Threads that import one package at the same time may see it half initialized."""


class HttpPool:
    """The senders of one event loop, one for each server."""

    def __init__(self) -> None:
        self._senders: dict[str, PooledSender] = {}
        self._making = asyncio.Lock()

    async def sender(self, origin: str) -> PooledSender:
        """The sender for a server, given as `scheme://host:port`; made on first use.

        Raises:
            LLMConnectionError: the environment's certificates or proxy cannot be used.
        """
        if (sender := self._senders.get(origin)) is not None:
            return sender
        async with self._making:
            if origin not in self._senders:
                self._senders[origin] = await asyncio.to_thread(_pooled_sender, origin)
            return self._senders[origin]

    async def aclose(self) -> None:
        """Close every sender."""
        senders, self._senders = list(self._senders.values()), {}
        for sender in senders:
            await sender.aclose()

    def abandon(self) -> None:
        """Drop every sender of a loop that is closed, on which nothing can be awaited."""
        closing = self.aclose()
        try:
            closing.send(None)
        except (StopIteration, RuntimeError):
            pass  # it has finished, or needs the loop
        finally:
            closing.close()


def new_pools() -> PerLoop[HttpPool]:
    """A pool for each event loop."""
    return PerLoop(HttpPool, HttpPool.aclose, HttpPool.abandon)


shared_pools = new_pools()
"""The pools behind the clients that `LLMClientFactory` hands out."""
atexit.register(shared_pools.drop_closed)


def _pooled_sender(origin: str) -> PooledSender:
    with _importing:
        from ._sending import PooledSender
    return PooledSender(origin)


def given_sender(client: httpx.AsyncClient) -> GivenClientSender:
    """What sends through a client of the user's; call it in a worker thread."""
    with _importing:
        from ._sending import GivenClientSender
    return GivenClientSender(client)
