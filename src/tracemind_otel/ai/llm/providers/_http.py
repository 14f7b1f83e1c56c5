"""HTTP, shared by the providers: one request, one whole reply, typed errors.

`httpx`'s API over the aiohttp transport: httpx's own pool costs O(n²) in pooled connections. Importing both
and making a TLS context takes a few hundred milliseconds, so it happens in a worker thread on first use.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import SplitResult, urlsplit

from ...._version import __version__
from ....errors import ConfigError, LLMConnectionError, LLMError, LLMResponseError, LLMTimeoutError
from ._loop import PerLoop

if TYPE_CHECKING:
    import httpx

_KEEP_IDLE_S = 20.0
"""Seconds an idle connection is kept: servers drop theirs after a minute or so, and a reused dead one costs a retry."""

Headers = Sequence[tuple[bytes, bytes]]
"""Header names and values, as they are sent."""

_MAX_URLS = 256
_REQUEST_ID_HEADERS = (
    "apim-request-id",
    "x-request-id",
    "request-id",
    "mistral-correlation-id",
    "x-debug-trace-id",
    "x-generation-id",
    "x-ms-request-id",
)
"""Azure's own comes first, since it sends two."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """One whole reply."""

    status_code: int
    """The HTTP status."""
    headers: Mapping[str, str]
    """The headers; names in any case find them."""
    body: bytes
    """The body, decompressed."""

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request, whatever header it comes in."""
        return next((value for name in _REQUEST_ID_HEADERS if (value := self.headers.get(name))), None)


class HttpStream:
    """A reply whose body is still coming. Close it, or read it to its end."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status_code = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The body as it comes, decompressed.

        Raises:
            LLMConnectionError, LLMTimeoutError, LLMResponseError: the body was cut or cannot be decompressed.
        """
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except _transport_faults() as error:
            raise _transport_error(error, self._response.request.url) from error

    async def whole(self) -> HttpReply:
        """The whole reply, for one that is an error."""
        body = b"".join([chunk async for chunk in self.chunks()])
        return HttpReply(self.status_code, self.headers, body)

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._response.aclose()


class HttpSender(Protocol):
    """The seam to the HTTP library."""

    async def post(self, url: str, headers: Headers, body: bytes) -> HttpReply:
        """Send one request and read the whole reply, whatever its status.

        Raises:
            LLMConnectionError, LLMTimeoutError, LLMResponseError: no whole reply came.
        """
        ...

    async def open(self, url: str, headers: Headers, body: bytes) -> HttpStream:
        """Send one request and return when its status and headers have come.

        Raises:
            LLMConnectionError, LLMTimeoutError, LLMResponseError: they did not come.
        """
        ...


class HttpPool:
    """The clients of one event loop, one for each base URL."""

    def __init__(self) -> None:
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._making = asyncio.Lock()

    async def client(self, base_url: str) -> httpx.AsyncClient:
        """The client for a base URL, made on first use."""
        client = self._clients.get(base_url)
        if client is None:
            async with self._making:
                client = self._clients.get(base_url)
                if client is None:
                    client = self._clients[base_url] = await asyncio.to_thread(_new_client)
        return client

    async def aclose(self) -> None:
        """Close every client."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()


_tls_context: ssl.SSLContext | None = None


def _new_client() -> httpx.AsyncClient:
    """Imports and TLS set-up, hence for a worker thread."""
    import httpx
    from httpx_aiohttp import HttpxAiohttpClient

    global _tls_context
    if _tls_context is None:
        _tls_context = httpx.create_ssl_context()
    # 0 is aiohttp's "no limit"; None would leave its limit of 100 in place.
    limits = httpx.Limits(max_connections=0, max_keepalive_connections=None, keepalive_expiry=_KEEP_IDLE_S)
    return HttpxAiohttpClient(verify=_tls_context, limits=limits, timeout=None)


shared_pools: PerLoop[HttpPool] = PerLoop(HttpPool, HttpPool.aclose)
"""The pools behind the clients that `LLMClientFactory` hands out."""


class HttpxSender:
    """Sends through an httpx client; subclasses say which."""

    def __init__(self) -> None:
        self._urls: dict[str, httpx.URL] = {}

    async def _client(self) -> httpx.AsyncClient:
        raise NotImplementedError

    async def post(self, url: str, headers: Headers, body: bytes) -> HttpReply:
        response = await self._send(url, headers, body, stream=False)
        return HttpReply(response.status_code, response.headers, response.content)

    async def open(self, url: str, headers: Headers, body: bytes) -> HttpStream:
        return HttpStream(await self._send(url, headers, body, stream=True))

    async def _send(self, url: str, headers: Headers, body: bytes, *, stream: bool) -> httpx.Response:
        client = await self._client()
        request = self._request(url, headers, body)
        try:
            return await client.send(request, stream=stream)
        except _transport_faults() as error:
            raise _transport_error(error, request.url) from error

    def _request(self, url: str, headers: Headers, body: bytes) -> httpx.Request:
        """Parsed URLs are kept: parsing costs as much as the headers do."""
        import httpx

        parsed = self._urls.get(url)
        if parsed is None:
            if len(self._urls) >= _MAX_URLS:
                self._urls = {}
            parsed = self._urls[url] = httpx.URL(url)
        return httpx.Request("POST", parsed, headers=headers, content=body)


class PooledSender(HttpxSender):
    """Sends through the running loop's pool."""

    def __init__(self, pools: PerLoop[HttpPool], base_url: str) -> None:
        super().__init__()
        self._pools = pools
        self._base_url = base_url

    async def _client(self) -> httpx.AsyncClient:
        return await self._pools.get().client(self._base_url)


class GivenClientSender(HttpxSender):
    """Sends through a client that the user made, and that the user closes."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._given = client

    async def _client(self) -> httpx.AsyncClient:
        return self._given


def _transport_faults() -> tuple[type[Exception], ...]:
    import aiohttp
    import httpx

    return (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, OSError, EOFError)


def _transport_error(error: Exception, url: httpx.URL) -> LLMError:
    """Classified by cause: the aiohttp transport gives one and the same httpx error for many faults."""
    import aiohttp
    import httpx

    cause = error.__cause__ or error
    where = url.host if url.port is None else f"{url.host}:{url.port}"
    if isinstance(error, httpx.DecodingError) or isinstance(
        cause, aiohttp.ClientResponseError | aiohttp.http.HttpProcessingError
    ):
        return LLMResponseError(f"the reply of {where} is not valid HTTP: {type(cause).__name__}")
    is_other_fault = isinstance(cause, aiohttp.ClientError) and not isinstance(cause, aiohttp.ServerTimeoutError)
    may_be_billed = not _was_never_sent(error, cause)
    if isinstance(error, httpx.TimeoutException) and not is_other_fault:
        return LLMTimeoutError(f"no answer from {where} in time", may_be_billed=may_be_billed)
    message = f"connection to {where} failed: {_reason(cause)}"
    is_retryable = not isinstance(cause, aiohttp.ClientSSLError)
    return LLMConnectionError(message, retryable=is_retryable, may_be_billed=may_be_billed)


def _was_never_sent(error: Exception, cause: BaseException) -> bool:
    """Whether no connection was made, so that no byte of the request left."""
    import aiohttp
    import httpx

    if isinstance(cause, aiohttp.ClientError):
        return isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    is_httpx_own = cause is error or type(cause).__module__.startswith("httpcore")
    return is_httpx_own and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _reason(cause: BaseException) -> str:
    """The operating system's word where there is one; never the exception's text, which may hold a URL or a header."""
    inner: BaseException | None = cause
    while inner is not None:
        number = getattr(inner, "errno", None)
        if isinstance(number, int) and number > 0:
            return os.strerror(number)
        inner = inner.__cause__ or inner.__context__
    return type(cause).__name__


def base_url_of(field: str, value: str) -> tuple[str, SplitResult]:
    """Check a base URL; returns it without a trailing slash, and its parts.

    Raises:
        ConfigError: it is not an http or https URL, or holds what may be a key.
    """
    parts = urlsplit(value.strip())
    try:
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        port_is_valid = False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_valid:
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
