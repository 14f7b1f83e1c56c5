"""HTTP for all providers: one request, one reply, typed errors.

It is httpx's API over the aiohttp transport, since the cost of httpx's own pool grows with the square of its
connections. Importing both and making a TLS context takes a few hundred milliseconds, so a worker thread does it once.
"""

from __future__ import annotations

import abc
import asyncio
import atexit
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, urlsplit

from ...._version import __version__
from ....errors import ConfigError, LLMError
from ..liveness import patience_left_s
from ..resends import NO_LEDGER, current_ledger
from ._exchange import Exchange, begin
from ._faults import http_libraries, kind_of, transport_error, transport_faults
from ._loop import PerLoop
from ._session import new_transport

if TYPE_CHECKING:
    import httpx

Headers = Sequence[tuple[bytes, bytes]]
"""Header names and values, as they are sent."""

_MAX_URLS = 256
_MAX_REST_S = 0.25
"""Seconds to wait for the end of a body whose reply has ended, before its connection is dropped."""
_MAX_MORE = 3
"""Further kept connections of a user's client that may be broken before the request fails."""
_MAX_ERROR_S = 5.0
"""Seconds to wait for the body of an error."""
_MAX_ERROR_BYTES = 2**20
"""Bytes of an error's body that are read."""
_REQUEST_ID_HEADERS = (
    "apim-request-id",
    "x-request-id",
    "request-id",
    "mistral-correlation-id",
    "x-debug-trace-id",
    "x-generation-id",
    "x-ms-request-id",
    "x-litellm-call-id",
    "x-amzn-requestid",
)
"""Azure's own comes first, since it sends two."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """One whole reply."""

    status_code: int
    """The HTTP status."""
    headers: Mapping[str, str]
    """The headers, by names in any case."""
    body: bytes
    """The body, decompressed."""

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request, in whichever header it comes."""
        return next((value for name in _REQUEST_ID_HEADERS if (value := self.headers.get(name))), None)


class HttpStream:
    """A reply whose body is still coming: read it to its end, `finish` it at the reply's end mark, or close it.

    Reading the body raises one of `transport_faults()` where it is cut or cannot be decompressed.
    """

    def __init__(self, response: httpx.Response, has_all_come: Callable[[], bool]) -> None:
        self._response = response
        self._has_all_come = has_all_come
        self.body = response.aiter_bytes()
        self.head = HttpReply(response.status_code, response.headers, b"")

    def fault(self, error: Exception) -> LLMError:
        """The typed error for what reading the body raised."""
        fault = transport_error(error, self._response.request.url)
        fault.__cause__ = error
        return fault

    async def error(self) -> HttpReply:
        """The reply with as much of its body as comes soon; for an error, whose status alone is an answer."""
        parts: list[bytes] = []
        with suppress(*transport_faults()):  # a body that breaks off, or never ends, changes no status
            async with asyncio.timeout(min(_MAX_ERROR_S, patience_left_s() / 2)):
                async for chunk in self.body:
                    parts.append(chunk)
                    if sum(map(len, parts)) > _MAX_ERROR_BYTES:
                        break
        return replace(self.head, body=b"".join(parts))

    async def finish(self) -> None:
        """Keep the connection of a reply whose end mark has come if the body ends now or soon. Waits for nothing.

        Most bodies end with the mark, or in a packet of their own right after it.
        """
        if self._has_all_come():
            await self.aclose()
        elif not self._response.is_closed:
            rests = _rests.get()
            task = asyncio.get_running_loop().create_task(self._read_rest())
            rests.add(task)
            task.add_done_callback(rests.discard)
            await asyncio.sleep(0)  # after which it is over if everything had come

    async def _read_rest(self) -> None:
        """Read to the body's end and discard it; drop the connection if that takes long."""
        try:
            async with asyncio.timeout(_MAX_REST_S):
                async for _ in self.body:
                    pass
        except transport_faults():  # a TimeoutError among them
            pass  # the reply was whole before, so nothing is lost but the connection
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._response.aclose()


async def _drop(rests: set[asyncio.Task[None]]) -> None:
    """Drop the connections of bodies whose last bytes are still to come."""
    tasks = list(rests)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


_rests: PerLoop[set[asyncio.Task[None]]] = PerLoop(set, _drop)
"""The tasks that read the rest of a body whose reply has ended."""


class HttpPool:
    """The transports of one event loop, for each base URL one, and one that keeps no connection."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, bool], httpx.AsyncBaseTransport] = {}
        self._making = asyncio.Lock()

    async def transport(self, base_url: str, *, keeps_connections: bool = True) -> httpx.AsyncBaseTransport:
        """The transport for a base URL, made on first use. One that keeps no connection makes a new one each time.

        Raises:
            LLMConnectionError: the environment's certificates or proxy cannot be used.
        """
        key = (base_url, keeps_connections)
        if (transport := self._transports.get(key)) is not None:
            return transport
        async with self._making:
            if key not in self._transports:
                self._transports[key] = await asyncio.to_thread(
                    new_transport, base_url, keeps_connections=keeps_connections
                )
            return self._transports[key]

    async def aclose(self) -> None:
        """Close every transport."""
        transports, self._transports = list(self._transports.values()), {}
        for transport in transports:
            await transport.aclose()

    def abandon(self) -> None:
        """Drop every transport of a loop that is closed, on which nothing can be awaited."""
        closing = self.aclose()
        try:
            closing.send(None)
        except (StopIteration, RuntimeError):
            pass  # it has finished, or needs the loop
        finally:
            closing.close()


shared_pools: PerLoop[HttpPool] = PerLoop(HttpPool, HttpPool.aclose, HttpPool.abandon)
"""The pools behind the clients that `LLMClientFactory` hands out."""
atexit.register(shared_pools.drop_closed)


class HttpSender(abc.ABC):
    """Sends requests by httpx's API; a subclass says through what."""

    @abc.abstractmethod
    async def _request(self, url: str, headers: Headers, body: bytes, exchange: Exchange) -> httpx.Request:
        """Make a request."""

    @abc.abstractmethod
    async def _exchange(self, request: httpx.Request, *, again: bool) -> httpx.Response:
        """Send a request and return with the head of its reply; `again`, where a kept connection has lost it."""

    async def open(self, url: str, headers: Headers, body: bytes) -> HttpStream:
        """Send one request and return when its status and headers have come.

        Raises:
            LLMConnectionError, LLMTimeoutError, LLMResponseError: they did not come.
        """
        exchange = begin()
        request = await self._request(url, headers, body, exchange)
        try:
            response = await self._exchange(request, again=False)
        except transport_faults() as error:
            fault = error
        else:
            return HttpStream(response, exchange.has_all_come)
        may_be_billed = exchange.may_be_billed(fault, body)
        ledger = current_ledger() if may_be_billed else NO_LEDGER
        if not exchange.broke_unanswered(fault) or not ledger.hold_again():
            raise transport_error(fault, request.url) from fault
        try:
            response = await self._send_again(request, exchange)
        except BaseException:
            ledger.presume()
            raise
        ledger.release()
        return HttpStream(response, exchange.has_all_come)

    async def _send_again(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        """On a new connection; a client of the user's may keep more connections that its server has closed."""
        for is_last in (*[False] * _MAX_MORE, True):
            exchange.begin_anew()
            try:
                return await self._exchange(request, again=True)
            except transport_faults() as error:
                if is_last or not exchange.broke_unanswered(error):
                    raise transport_error(error, request.url) from error
        raise AssertionError


class PooledSender(HttpSender):
    """Sends through the running loop's pool."""

    def __init__(self, pools: PerLoop[HttpPool], base_url: str) -> None:
        self._pools = pools
        self._base_url = base_url

    async def _exchange(self, request: httpx.Request, *, again: bool) -> httpx.Response:
        """Straight through the transport: a client would add cookies, redirects and the like."""
        transport = await self._pools.get().transport(self._base_url, keeps_connections=not again)
        return await transport.handle_async_request(request)

    async def _request(self, url: str, headers: Headers, body: bytes, exchange: Exchange) -> httpx.Request:
        await self._pools.get().transport(self._base_url)  # which imports what is slow to import, in a worker thread
        import httpx

        return httpx.Request("POST", _parsed(httpx.URL, url), headers=headers, content=body)


class GivenClientSender(HttpSender):
    """Sends through a client that the user made, and that the user closes.

    httpx's own transport reports on a connection by its `trace` extension, and checks a kept one before it uses it, so
    the second sending goes through the same client.

    Args:
        client: an `httpx.AsyncClient`, or its successor's.

    Raises:
        ConfigError: it is something else.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._library = _library_of(client)
        self._given = client

    async def _exchange(self, request: httpx.Request, *, again: bool) -> httpx.Response:
        return await self._given.send(request, stream=True)

    async def _request(self, url: str, headers: Headers, body: bytes, exchange: Exchange) -> httpx.Request:
        library, extensions = self._library, {"trace": exchange.on_httpcore}
        address = _parsed(library.URL, url)
        return cast(
            "httpx.Request", library.Request("POST", address, headers=headers, content=body, extensions=extensions)
        )


def _library_of(client: object) -> Any:
    """The library of a client, which has been loaded to make it."""
    for library in http_libraries():
        if isinstance(client, library.AsyncClient):
            return library
    raise ConfigError(
        f"http_client is of the kind {kind_of(client)}; it must be an httpx.AsyncClient (or an httpx2.AsyncClient)"
    )


@lru_cache(maxsize=_MAX_URLS)
def _parsed(url_class: type[httpx.URL], url: str) -> httpx.URL:
    """Parsing a URL costs as much as the headers do."""
    return url_class(url)


def base_url_of(field: str, value: str) -> tuple[str, SplitResult]:
    """Check a base URL; returns it without a trailing slash, and its parts.

    Raises:
        ConfigError: it is not an http or https URL, or holds what may be a key.
    """
    try:
        parts = urlsplit(value.strip())
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port or the brackets
        parts, is_valid = SplitResult("", "", "", "", ""), False
    if not is_valid:
        raise ConfigError(f"{field} must be an http:// or https:// URL with a host, like https://api.example.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{field} must not hold a user, a password or a query; pass the key as api_key")
    return parts.geturl().rstrip("/"), parts


def key_of(field: str, value: str | None) -> str | None:
    """Check a key without ever showing it; `None` when there is none.

    Raises:
        ConfigError: it holds a character that no HTTP header can carry.
    """
    key = (value or "").strip()
    for position, character in enumerate(key):
        if not "!" <= character <= "~":
            raise ConfigError(f"{field}: the character at position {position} cannot be sent in an HTTP header")
    return key or None


def json_headers(extra: Headers = ()) -> Headers:
    """The headers of a JSON request."""
    return (
        (b"accept", b"application/json"),
        (b"accept-encoding", b"gzip, deflate"),
        (b"content-type", b"application/json"),
        (b"user-agent", f"tracemind-otel/{__version__}".encode()),
        *extra,
    )
