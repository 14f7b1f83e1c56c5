"""One request on its connection: whether the connection was a kept one, and how far the request got."""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

_MAX_UNBUFFERED = 0x10000
"""Up to here aiohttp writes a body in one piece, which a closed connection refuses as a whole."""


@dataclass(slots=True)
class Exchange:
    """One request on its connection."""

    is_kept: bool = False
    """Whether the connection had carried a request before."""
    is_new: bool = False
    """Whether a connection was made for it."""
    is_written: bool = True
    """Whether the writing of the body may have begun."""
    is_answered: bool = False
    """Whether the head of a reply has come, where the library says so; aiohttp raises another error then."""
    has_all_come: Callable[[], bool] = field(default=bool)
    """Returns whether the whole body has been received, read or not; false where the library does not say."""

    def begin_anew(self) -> None:
        """Reset for sending the same request again on another connection."""
        self.is_kept = self.is_new = self.is_answered = False
        self.is_written = True

    def broke_unanswered(self, error: BaseException) -> bool:
        """Whether a kept connection broke before any byte of the reply came."""
        return self.is_kept and not self.is_answered and _is_break(error.__cause__ or error)

    def may_be_billed(self, error: BaseException, body: bytes) -> bool:
        """Whether the server may have read the request."""
        return self.is_written and not (len(body) <= _MAX_UNBUFFERED and _was_refused(error))

    async def on_httpcore(self, name: str, _info: object) -> None:
        """httpx's `trace` extension."""
        if name.startswith("connection.connect_"):
            self.is_new = True
        elif name.endswith(".send_request_headers.started"):
            self.is_kept, self.is_written = not self.is_new, False
        elif name.endswith(".send_request_body.started"):
            self.is_written = True
        elif name.endswith(".receive_response_headers.complete"):
            self.is_answered = True


_current: contextvars.ContextVar[Exchange | None] = contextvars.ContextVar("tracemind_exchange", default=None)


def begin() -> Exchange:
    """Watch the request that this task sends next."""
    exchange = Exchange()
    _current.set(exchange)
    return exchange


def current_exchange() -> Exchange | None:
    """The request that this task sent last."""
    return _current.get()


@lru_cache(maxsize=1)
def watching_connector() -> type[aiohttp.TCPConnector]:
    """aiohttp's connector, which also notes whether a connection is kept. aiohttp's tracing costs 40 µs a call."""
    import aiohttp

    class WatchingConnector(aiohttp.TCPConnector):
        """Remembers the connections that it gave out."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
            self.given_out: weakref.WeakSet[object] = weakref.WeakSet()

        async def connect(self, *args: Any, **options: Any) -> Any:
            connection = await super().connect(*args, **options)
            protocol, exchange = connection.protocol, _current.get()
            if protocol not in self.given_out:
                self.given_out.add(protocol)
            elif exchange is not None:
                exchange.is_kept = True
            return connection

    return WatchingConnector


def _is_break(cause: BaseException) -> bool:
    """By aiohttp's own classes, and by the names of those that httpx and its successor have in common."""
    import aiohttp

    if isinstance(cause, aiohttp.ServerDisconnectedError):
        return isinstance(cause.message, str)  # else it is the part of a head that came
    if isinstance(cause, aiohttp.ClientConnectionError):
        return not isinstance(cause, aiohttp.ServerTimeoutError | aiohttp.ClientConnectorError)
    names = {each.__name__ for each in type(cause).__mro__}
    if "RemoteProtocolError" in names:
        return str(cause).startswith("Server disconnected without")
    return bool(names & {"ReadError", "WriteError"})


def _was_refused(error: BaseException | None) -> bool:
    import aiohttp

    return error is not None and (
        isinstance(error, aiohttp.ClientConnectionResetError) or _was_refused(error.__cause__)
    )
