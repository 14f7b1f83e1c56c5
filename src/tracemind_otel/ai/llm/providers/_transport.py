"""The transport of the pools, over a session of aiohttp, which also tells how far a request got on its connection.

httpx's own pool costs the square of its connections. Importing this and loading certificates is slow: `_pool` does both
in a worker thread.
"""

from __future__ import annotations

import contextvars
import inspect
import io
import os
import ssl
import time
import urllib.request
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import certifi

from ..liveness import note_unsent
from ._compression import UndecodableError, decoder_for
from ._faults import native_fault, no_certificates, unusable_proxy
from ._http import Headers, HttpReply
from ._proxies import proxy_for

_KEEP_IDLE_S = 20.0
"""Seconds an idle connection is kept: servers drop theirs after a minute or so."""
_LIMITS: dict[str, Any] = {"max_line_size": 128 * 1024, "max_field_size": 128 * 1024}
"""The longest header that is read, in bytes, and the most headers, which newer releases of aiohttp limit."""
if "max_headers" in inspect.signature(aiohttp.ClientSession.__init__).parameters:
    _LIMITS["max_headers"] = 2048
_LARGE = 2**20
"""Bytes of a body above which aiohttp wants a file."""
_BUSY_S = 1.0
"""Seconds that a connection stays open for sure: servers that close idle ones do so after five or more."""
_MAX_UNBUFFERED = 0x10000
"""Bytes of a body that aiohttp writes in one piece, which a closed connection refuses as a whole."""


def new_transports(origin: str) -> tuple[AiohttpTransport, AiohttpTransport]:
    """Transports to one server, by the environment's proxy: one keeps its connections, one makes new ones each time.

    Args:
        origin: the server, as `scheme://host:port`.

    Raises:
        LLMConnectionError: the environment names certificates that cannot be loaded, or a proxy of another kind.
    """
    proxy = proxy_for(origin, urllib.request.getproxies())
    trusted = _trusted(origin, proxy)
    keeping = AiohttpTransport(trusted, proxy, keepalive_timeout=_KEEP_IDLE_S)
    return keeping, AiohttpTransport(trusted, proxy, force_close=True)


class AiohttpTransport:
    """Sends requests to one server through a session of aiohttp, which its instrumentations see.

    It follows no redirects, keeps no cookies, sets no time-outs, and raises aiohttp's own exceptions.

    Args:
        trusted: the certificates to trust.
        proxy: the URL of the proxy; `None` for none.
        **connections: options of the connector.
    """

    def __init__(self, trusted: ssl.SSLContext, proxy: str | None, **connections: Any) -> None:
        self._trusted, self._proxy, self._connections = trusted, proxy, connections
        self._session: aiohttp.ClientSession | None = None

    async def send(self, url: str, headers: Headers, body: bytes) -> AiohttpReply:
        """Send a request and return when the head of its reply has come."""
        session = self._session or self._new_session()
        reply = await session.request(
            "POST",
            url,
            headers=headers,
            data=_in_turns(body),
            allow_redirects=False,
        )
        return AiohttpReply(reply)

    def _new_session(self) -> aiohttp.ClientSession:
        """Made on first use, since it belongs to the running loop."""
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, ssl=self._trusted, **self._connections),  # a limit of 0 is none
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._proxy,
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,  # `_compression` knows more codings
            **_LIMITS,
        )
        return self._session

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


def _in_turns(body: bytes) -> bytes | io.BytesIO:
    """A body of more than a megabyte as a file, which aiohttp writes piece by piece; of such bytes it warns."""
    return body if len(body) <= _LARGE else io.BytesIO(body)


class AiohttpReply:
    """A reply with its body as the bytes come; those that came before a fault are given before it is raised."""

    def __init__(self, reply: aiohttp.ClientResponse) -> None:
        self._reply = reply
        self.head = HttpReply(reply.status, reply.headers, b"")
        """The status and the headers, which have no body."""
        codings = reply.headers.getall("content-encoding", ())
        self._decoder = decoder_for(",".join(codings)) if codings else None
        self.read: Callable[[], Awaitable[bytes]] | None = reply.content.readany if self._decoder is None else None
        """Waits for the next bytes; `None` if they are compressed. Iterating also gives those that came before a fault.
        """

    def has_all_come(self) -> bool:
        """Whether the whole body has been received, read or not."""
        return self._reply.content.is_eof()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        content = self._reply.content
        data = await content.readany() if content.exception() is None else _left_in(content)
        if not data:
            raise StopAsyncIteration
        if self._decoder is None:
            return data
        try:
            return self._decoder.decompress(data)
        except Exception as error:  # each library has its own
            raise UndecodableError from error

    async def aclose(self) -> None:
        """Close the connection, or return it to the pool if the body has been read."""
        if not self._reply.closed:
            self._reply.release()
            await self._reply.wait_for_close()


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """The bytes left in the buffer of a body that was cut; raises the cause if there are none."""
    error = cast("BaseException", content.exception())
    content.set_exception(cast("Any", None))
    try:
        data = content.read_nowait()
    finally:
        content.set_exception(error)
    if not data:
        raise error
    return data


def _trusted(origin: str, proxy: str | None) -> ssl.SSLContext:
    proxy_scheme = urlsplit(proxy).scheme if proxy else "http"
    if proxy_scheme not in ("http", "https"):
        raise unusable_proxy(proxy_scheme)
    if "https" not in (urlsplit(origin).scheme, proxy_scheme):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no one, and is never used
    try:
        return _from_environment(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    except OSError as error:
        raise no_certificates(error) from error


@lru_cache(maxsize=4)
def _from_environment(cert_file: str | None, cert_dir: str | None) -> ssl.SSLContext:
    """The certificates that httpx trusts, too. Loading them takes tens of milliseconds."""
    if cert_file or not cert_dir:
        return ssl.create_default_context(cafile=cert_file or certifi.where())
    return ssl.create_default_context(capath=cert_dir)


@dataclass(slots=True)
class Exchange:
    """How far one request got on its connection."""

    is_kept: bool = False
    """Whether the connection had carried a request before."""
    was_busy: bool = False
    """Whether that was shortly before: a server does not close such a connection for being idle."""
    is_new: bool = False
    """Whether a connection was made for it."""
    is_written: bool = True
    """Whether the writing of the body may have begun."""
    is_answered: bool = False
    """Whether the head of a reply has come, where the library says so; aiohttp raises another error then."""

    def begin_anew(self) -> None:
        """Reset for sending the same request again on another connection."""
        self.is_kept = self.was_busy = self.is_new = self.is_answered = False
        self.is_written = True

    def broke_unanswered(self, error: Exception) -> bool:
        """Whether a kept connection broke before any byte of the reply came."""
        return self.is_kept and not self.is_answered and _is_break(native_fault(error))

    def may_be_billed(self, error: BaseException, body: bytes) -> bool:
        """Whether the server may have read the request."""
        return self.is_written and not (len(body) <= _MAX_UNBUFFERED and _was_refused(error))

    async def on_httpcore(self, name: str, _info: object) -> None:
        """httpx's `trace` extension."""
        if name.startswith("connection.connect_"):
            self.is_new = True
            note_unsent(is_unsent=True)
        elif name.endswith(".send_request_headers.started"):
            self.is_kept, self.is_written = not self.is_new, False
            note_unsent(is_unsent=False)
        elif name.endswith(".send_request_body.started"):
            self.is_written = True
        elif name.endswith(".receive_response_headers.complete"):
            self.is_answered = True


current_exchange: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("tracemind_exchange", default=None)
"""The request that this task sent last."""


def _is_break(cause: BaseException) -> bool:
    """Whether a connection broke: by aiohttp's classes, and by the names that httpx and its successor share."""
    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return isinstance(cause.message, str)  # else it is the part of a head that came
    if isinstance(cause, aiohttp.ClientConnectionError):
        return not isinstance(cause, aiohttp.ServerTimeoutError | aiohttp.ClientConnectorError)
    names = {each.__name__ for each in type(cause).__mro__}
    if "RemoteProtocolError" in names:
        return str(cause).startswith("Server disconnected without")
    return bool(names & {"ReadError", "WriteError"})


def _was_refused(error: BaseException | None) -> bool:
    return error is not None and (
        isinstance(error, aiohttp.ClientConnectionResetError) or _was_refused(error.__cause__)
    )


class _Connector(aiohttp.TCPConnector):
    """Tells an exchange that its connection is a kept one, and the call around that it waits for a connection.

    aiohttp's tracing would cost 40 µs a call.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        self._given_out: weakref.WeakKeyDictionary[object, float] = weakref.WeakKeyDictionary()
        """When each connection carried its last request."""

    async def connect(self, *args: Any, **options: Any) -> Any:
        note_unsent(is_unsent=True)
        connection: Any = await super().connect(*args, **options)
        note_unsent(is_unsent=False)
        protocol, exchange = connection.protocol, current_exchange.get()
        last, now = self._given_out.get(protocol), time.monotonic()
        self._given_out[protocol] = now
        if last is not None and exchange is not None:
            exchange.is_kept, exchange.was_busy = True, now - last < _BUSY_S
        return connection
