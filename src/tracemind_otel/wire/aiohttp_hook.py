"""The hook of aiohttp: `ClientSession._request`, which every request passes. No public method is passed by all."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from .._base.once import report_fault
from ..ai.llm.providers._http import OWN_AGENT
from ..errors import BudgetExceededError, LLMConnectionError, LLMError, LLMTimeoutError
from . import observation
from .instances import Hook
from .observation import Attempt
from .tap import Tap

log = logging.getLogger(__name__)

_OWN_HEADER = ("user-agent", OWN_AGENT)


def _request(request: Any, library: ModuleType, hosts: Mapping[str, str] | None = None) -> Any:
    @functools.wraps(request)
    async def request_and_see(self: Any, method: str, url: Any, **options: Any) -> Any:
        if _is_own(options):
            return await request(self, method, url, **options)
        if observation.needs_prices_first():
            await observation.until_priceable()
        attempt = _attempt(self, method, url, options, library, hosts)
        if attempt is None:
            return await request(self, method, url, **options)
        await attempt.ask_soon()
        try:
            with attempt.active():
                response = await request(self, method, url, **options)
                await _until_priceable(response)
        except BaseException as error:
            _raised(attempt, error, library)
            raise
        await _answered(attempt, response, library)
        return response

    return request_and_see


def _is_own(options: Mapping[str, Any]) -> bool:
    """Whether a client of this package sends it, which has a tuple of headers; told here in a tenth of the time."""
    headers = options.get("headers")
    return isinstance(headers, tuple) and _OWN_HEADER in headers


async def _until_priceable(response: Any) -> None:
    try:
        await observation.until_priceable()
    except BaseException:  # cancelled meanwhile, so that nobody gets the response
        response.close()
        raise


def _attempt(
    session: Any,
    method: str,
    url: Any,
    options: Mapping[str, Any],
    library: ModuleType,
    hosts: Mapping[str, str] | None,
) -> Attempt | None:
    try:
        if method.upper() != "POST":
            return None
        whole = library.client.URL(str(url))
        if not whole.is_absolute() and (base := getattr(session, "_base_url", None)) is not None:
            whole = base.join(whole)
        if not observation.is_seen(whole.raw_path, always=hosts is not None) or whole.host is None:
            return None
        headers = {**dict(session.headers), **dict(options.get("headers") or {})}
        named = {str(name).lower(): str(value) for name, value in headers.items()}
        body = _body_in(options)
        return observation.begin(whole.host, whole.port, whole.raw_path, str(whole), body, named, hosts)
    except BudgetExceededError:
        raise
    except Exception:
        report_fault(log, "aiohttp", "request")
        return None


def _body_in(options: Mapping[str, Any]) -> bytes | None:
    document, data = options.get("json"), options.get("data")
    if document is not None:
        return json.dumps(document, default=str).encode("utf-8", "surrogatepass")
    if isinstance(data, str):
        return data.encode("utf-8", "surrogatepass")
    return bytes(data) if isinstance(data, bytes | bytearray) else None


def _raised(attempt: Attempt, error: Any, library: Any) -> None:
    if isinstance(error, library.ClientResponseError) and error.status >= 400:
        # The session was asked to raise for an error status; the body is gone.
        attempt.rejected(error.status, _lower(error.headers), b"")
    else:
        attempt.raised(error, _error_of(error, library))


def _error_of(error: BaseException, library: ModuleType) -> LLMError | None:
    """Our error for a fault of the transport, by the class alone; `None` for anything else."""
    if isinstance(error, TimeoutError):  # aiohttp's own are of this kind
        return LLMTimeoutError("no answer in time")
    if isinstance(error, library.ClientError | OSError):
        return LLMConnectionError(f"the connection failed ({type(error).__name__})")
    return None


def _lower(headers: Any) -> dict[str, str]:
    named: dict[Any, Any] = dict(headers or {})
    return {str(name).lower(): str(value) for name, value in named.items()}


async def _answered(attempt: Attempt, response: Any, library: ModuleType) -> None:
    try:
        headers = _lower(response.headers)
        if not 200 <= response.status < 300:
            attempt.rejected(response.status, headers, b"")
            return
        response.content = TappedReader(
            response.content, attempt.answered(response.status, headers, is_decoded=True), library
        )
    except Exception:
        report_fault(log, "aiohttp", "read")
        attempt.lost()


class TappedReader:
    """Stands for the reader of one response, and shows the tap what is read, however it is read.

    Args:
        inner: the response's own reader.
        tap: reads along.
        library: aiohttp.
    """

    def __init__(self, inner: Any, tap: Tap, library: ModuleType) -> None:
        self._inner = inner
        self._tap = tap
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def _seen(self, reading: Any) -> Any:
        try:
            data: Any = await reading
        except Exception as error:
            self._tap.end(_error_of(error, self._library) or LLMError(f"reading failed ({type(error).__name__})"))
            raise
        except BaseException:
            self._tap.cancel()
            raise
        self._show(data[0] if _is_pair(data) else data)
        return data

    def _show(self, data: bytes) -> None:
        if data:
            self._tap.feed(data)
        if self._inner.at_eof():
            self._tap.end()

    async def read(self, n: int = -1) -> Any:
        """As the reader's."""
        return await self._seen(self._inner.read(n))

    async def readany(self) -> Any:
        """As the reader's."""
        return await self._seen(self._inner.readany())

    async def readline(self, *args: Any, **options: Any) -> Any:
        """As the reader's."""
        return await self._seen(self._inner.readline(*args, **options))

    async def readuntil(self, *args: Any, **options: Any) -> Any:
        """As the reader's."""
        return await self._seen(self._inner.readuntil(*args, **options))

    async def readexactly(self, n: int) -> Any:
        """As the reader's."""
        return await self._seen(self._inner.readexactly(n))

    async def readchunk(self) -> Any:
        """As the reader's."""
        return await self._seen(self._inner.readchunk())

    def read_nowait(self, n: int = -1) -> Any:
        """As the reader's."""
        data = self._inner.read_nowait(n)
        self._show(data)
        return data

    def __aiter__(self) -> Any:
        return _Pieces(self.readline)

    def iter_chunked(self, n: int) -> Any:
        """As the reader's."""
        return _Pieces(functools.partial(self.read, n))

    def iter_any(self) -> Any:
        """As the reader's."""
        return _Pieces(self.readany)

    def iter_chunks(self) -> Any:
        """As the reader's."""
        return _Chunks(self.readchunk)

    def __del__(self) -> None:
        self._tap.abandon()


def _is_pair(data: object) -> bool:
    return isinstance(data, tuple)


class _Pieces:
    """Pieces until an empty one, as aiohttp's own iterators give them."""

    def __init__(self, read: Any) -> None:
        self._read = read

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        piece = await self._read()
        if piece == b"":
            raise StopAsyncIteration
        return piece


class _Chunks(_Pieces):
    """Pairs of a piece and whether a chunk of the transfer ends with it."""

    async def __anext__(self) -> Any:
        pair = await self._read()
        if pair == (b"", False):
            raise StopAsyncIteration
        return pair


HOOK = Hook((("ClientSession", "_request", _request),))
