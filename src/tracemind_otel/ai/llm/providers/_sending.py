"""One request over HTTP, and its reply; a kept connection that broke costs no attempt.

A finish reason is not the end of a reply. In most formats the usage follows it, some servers send one with every chunk
(Gemini's older models, and proxies that translate), and some send no end mark. So the rest is awaited, for seconds.

This imports the HTTP libraries: `_pool` loads it in a worker thread.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from ....errors import LLMConnectionError
from ..liveness import (
    Beat,
    DeadlinePassedError,
    Patience,
    ProviderSilentError,
    current_beat,
    note_lost_request,
    patience_left_s,
)
from ..resends import current_ledger
from ..types import Shortcut, StreamEvent
from ._faults import transport_error, transport_faults
from ._http import Headers, HttpReply, library_of
from ._loop import PerLoop
from ._reading import Reading
from ._transport import Exchange, current_exchange, new_transports

if TYPE_CHECKING:
    import httpx

_WHOLE_S = 2.0
"""Seconds of silence that end a reply with its finish reason to which nothing is missing."""
_UNCOUNTED_S = 4.0
"""Seconds of silence that end one whose usage may still come."""
_MOST_SILENCES = 2
"""Time for comments and pings alone, in multiples of the silence."""
_MAX_REST_S = 0.25
"""Seconds to wait for the end of a body whose reply has ended, before its connection is dropped."""
_MAX_MORE = 3
"""Further kept connections of a user's client that may be broken before the request fails."""
_MAX_ERROR_S = 5.0
"""Seconds to wait for the body of an error."""
_MAX_ERROR_BYTES = 2**20
"""Bytes of an error's body that are read."""


Sent = tuple[str, Headers, bytes]
"""URL, headers and body of a request."""


class Reply(Protocol):
    """A reply of either library whose head has come. Iterating it yields its body, decompressed, as it comes."""

    head: HttpReply
    """The status and the headers."""
    read: Callable[[], Awaitable[bytes]] | None
    """Waits for the next bytes, in any context, and returns none at the end; `None` if only iterating gives them."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def has_all_come(self) -> bool:
        """Whether the whole body has been received; false where the library does not say."""
        ...

    async def aclose(self) -> None:
        """Close the connection, or return it to the pool if the body has been read."""
        ...


class HttpStream:
    """A reply whose body is still coming: read it, and `finish` it or close it."""

    def __init__(self, reply: Reply, url: str) -> None:
        self._reply, self._url = reply, url
        self._body = aiter(reply)
        self.head = reply.head
        self.aclose = reply.aclose

    async def read(self, reading: Reading) -> None:
        """Read the reply to its end, for a caller who needs no events.

        Raises:
            LLMTimeoutError, LLMResponseError: the body does not come, or cannot be decompressed; a cut is kept instead.
        """
        beat = current_beat()
        try:
            async for data in self._body:
                beat()
                reading.feed(data)
                if reading.is_ending:
                    async for _ in self._tail(reading, beat):
                        pass
                    return
        except transport_faults() as fault:
            reading.end(self._cut_by(fault))
        else:
            reading.end()

    async def events(self, reading: Reading) -> AsyncGenerator[list[StreamEvent]]:
        """The events of the reply as its bytes come, until its end.

        Raises:
            LLMTimeoutError, LLMResponseError: as for `read`.
        """
        beat = current_beat()
        try:
            async for data in self._body:
                beat()
                batch = reading.feed(data)
                if batch:
                    yield batch
                if reading.is_ending:
                    async for more in self._tail(reading, beat):
                        yield more
                    return
            rest = reading.end()
        except transport_faults() as fault:
            rest = reading.end(self._cut_by(fault))
        if rest:
            yield rest

    def shortcut(self, reading: Reading) -> Shortcut | None:
        """A way to read without `events`, between two of its batches; `None` if the reply has none."""
        read = self._reply.read
        return None if read is None else Shortcut(read, reading.feed, lambda: reading.is_ending)

    def _cut_by(self, fault: Exception) -> LLMConnectionError:
        """The error of a reply that a fault cut; raises that of any other fault."""
        error = transport_error(fault, self._url)
        error.__cause__ = fault
        if not isinstance(error, LLMConnectionError):
            raise error from fault
        return error

    async def _tail(self, reading: Reading, beat: Beat) -> AsyncGenerator[list[StreamEvent]]:
        """The rest of a reply that has its finish reason, until its end or until the server is silent."""
        patience = _patience_with(reading)
        try:
            while not reading.is_over:
                with patience:
                    data = await anext(self._body)
                beat()
                if batch := reading.feed(data):
                    yield batch
                    patience.stop()
                    patience = _patience_with(reading)
        except (StopAsyncIteration, ProviderSilentError, DeadlinePassedError):
            if batch := reading.end():
                yield batch
        finally:
            patience.stop()

    async def error(self) -> HttpReply:
        """The reply with as much of its body as comes soon; for an error, whose status alone is an answer."""
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(min(_MAX_ERROR_S, patience_left_s() / 2)):
                async for chunk in self._body:
                    parts.append(chunk)
                    if sum(map(len, parts)) > _MAX_ERROR_BYTES:
                        break
        except transport_faults():
            pass  # a body that breaks off, or never ends, changes no status
        return replace(self.head, body=b"".join(parts))

    async def finish(self) -> None:
        """Keep the connection of a reply that has ended if its body ends now or in a packet of its own right after."""
        if self._reply.has_all_come():
            await self.aclose()
        else:
            rests = _rests.get()
            task = asyncio.get_running_loop().create_task(self._read_rest())
            rests.add(task)
            task.add_done_callback(rests.discard)
            await asyncio.sleep(0)  # after which it is over if everything had come

    async def _read_rest(self) -> None:
        """Read to the body's end and discard it; drop the connection if that takes long."""
        try:
            async with asyncio.timeout(_MAX_REST_S):
                async for _ in self._body:
                    pass
        except transport_faults():  # a TimeoutError among them
            pass  # the reply was whole before, so nothing is lost but the connection
        finally:
            await self.aclose()


def _patience_with(reading: Reading) -> Patience:
    """At most half of the caller's time-out, so that a complete reply never ends in it."""
    silence_s = min(_WHOLE_S if reading.is_whole else _UNCOUNTED_S, patience_left_s() / 2)
    return Patience(silence_s, silence_s * _MOST_SILENCES)


async def _drop(rests: set[asyncio.Task[None]]) -> None:
    """Drop the connections of bodies whose last bytes are still to come."""
    tasks = list(rests)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_rests: PerLoop[set[asyncio.Task[None]]] = PerLoop(set, _drop)
"""The tasks that read the rest of a body whose reply has ended."""


class HttpSender(abc.ABC):
    """Sends requests; a subclass says through what."""

    @abc.abstractmethod
    async def _exchange(self, sent: Sent, exchange: Exchange, *, again: bool) -> Reply:
        """Send a request and return with the head of its reply; `again`, where a kept connection has lost it."""

    async def open(self, url: str, headers: Headers, body: bytes) -> HttpStream:
        """Send one request and return when its status and headers have come.

        Raises:
            LLMConnectionError, LLMTimeoutError, LLMResponseError: they did not come.
        """
        sent, exchange = (url, headers, body), Exchange()
        current_exchange.set(exchange)
        try:
            return HttpStream(await self._exchange(sent, exchange, again=False), url)
        except transport_faults() as error:
            fault = error
        may_be_billed = exchange.may_be_billed(fault, body)
        ledger = current_ledger() if may_be_billed else None
        if not exchange.broke_unanswered(fault) or not (ledger is None or await ledger.hold_again_soon()):
            raise transport_error(fault, url) from fault
        if may_be_billed and exchange.was_busy:
            note_lost_request()
        try:
            reply = await self._send_again(sent, exchange)
        except BaseException:
            if ledger is not None:
                ledger.presume()
            raise
        if ledger is not None:
            ledger.release()
        return HttpStream(reply, url)

    async def _send_again(self, sent: Sent, exchange: Exchange) -> Reply:
        """On a new connection; a client of the user's may keep more connections that its server has closed."""
        for is_last in (*[False] * _MAX_MORE, True):
            exchange.begin_anew()
            try:
                return await self._exchange(sent, exchange, again=True)
            except transport_faults() as error:
                if is_last or not exchange.broke_unanswered(error):
                    raise transport_error(error, sent[0]) from error
        raise AssertionError


class PooledSender(HttpSender):
    """Sends through transports of the package's own."""

    def __init__(self, origin: str) -> None:
        self._keeping, self._fresh = new_transports(origin)

    async def _exchange(self, sent: Sent, exchange: Exchange, *, again: bool) -> Reply:
        return await (self._fresh if again else self._keeping).send(*sent)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._keeping.aclose()
        await self._fresh.aclose()


class GivenClientSender(HttpSender):
    """Sends through a client that the user made, and that the user closes.

    httpx's own transport reports on a connection by its `trace` extension, and checks a kept one before it uses it, so
    the second sending goes through the same client.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._library = library_of(client)
        self._given = client

    async def _exchange(self, sent: Sent, exchange: Exchange, *, again: bool) -> Reply:
        url, headers, body = sent
        address, extensions = _parsed(self._library.URL, url), {"trace": exchange.on_httpcore}
        request = self._library.Request("POST", address, headers=headers, content=body, extensions=extensions)
        return HttpxReply(await self._given.send(request, stream=True))


class HttpxReply:
    """A reply of httpx or its successor."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.head = HttpReply(response.status_code, response.headers, b"")
        """The status and the headers."""
        self.read: Callable[[], Awaitable[bytes]] | None = None
        """Not given: a client of the user's may run code that looks at the current span."""
        self.aclose = response.aclose

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._response.aiter_bytes()

    def has_all_come(self) -> bool:
        """Whether the body has been read to its end, which is when httpx closes it."""
        return self._response.is_closed


@lru_cache(maxsize=256)
def _parsed(url_class: Callable[[str], httpx.URL], url: str) -> httpx.URL:
    """Parsing a URL costs as much as the headers do."""
    return url_class(url)
