"""The hook of httpx and of its successor httpx2: their clients' `send`."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from types import ModuleType
from typing import Any, cast

from .._base.once import report_fault
from ..errors import BudgetExceededError, LLMConnectionError, LLMError, LLMTimeoutError
from . import observation, transport_hook
from .instances import Hook
from .observation import Attempt
from .tap import Tap
from .transport_hook import Sight

log = logging.getLogger(__name__)


def _sight(library: ModuleType) -> Sight:
    return Sight(
        begin=functools.partial(_attempt, hosts=None),
        error_of=functools.partial(_error_of, library=library),
        answered=functools.partial(_answered, tap=functools.partial(_SyncTap.of, library)),
        answered_async=functools.partial(_answered, tap=functools.partial(_AsyncTap.of, library)),
    )


def _sync_send(send: Any, library: ModuleType, hosts: Mapping[str, str] | None = None) -> Any:
    @functools.wraps(send)
    def send_and_see(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = _attempt(request, hosts)
        if attempt is None:
            return send(self, request, *args, **kwargs)
        attempt.ask_blocking()
        try:
            with attempt.active():
                response = send(self, request, *args, **kwargs)
                observation.make_priceable()
        except BaseException as error:
            attempt.raised(error, _error_of(error, library))
            raise
        _answered(attempt, response, tap=functools.partial(_SyncTap.of, library))
        return response

    return send_and_see


def _async_send(send: Any, library: ModuleType, hosts: Mapping[str, str] | None = None) -> Any:
    @functools.wraps(send)
    async def send_and_see(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if observation.needs_prices_first():
            await observation.until_priceable()
        attempt = _attempt(request, hosts)
        if attempt is None:
            return await send(self, request, *args, **kwargs)
        await attempt.ask_soon()
        try:
            with attempt.active():
                response = await send(self, request, *args, **kwargs)
                await _until_priceable(response)
        except BaseException as error:
            attempt.raised(error, _error_of(error, library))
            raise
        _answered(attempt, response, tap=functools.partial(_AsyncTap.of, library))
        return response

    return send_and_see


async def _until_priceable(response: Any) -> None:
    try:
        await observation.until_priceable()
    except BaseException:  # cancelled meanwhile, so that nobody gets the response
        await response.aclose()
        raise


def _attempt(request: Any, hosts: Mapping[str, str] | None) -> Attempt | None:
    try:
        if request.method != "POST":
            return None
        url = request.url
        path = url.raw_path.partition(b"?")[0].decode("ascii", "replace")
        if not observation.is_seen(path, always=hosts is not None):
            return None
        return observation.begin(url.host, url.port, path, url, _body_of(request), request.headers, hosts)
    except BudgetExceededError:
        raise
    except Exception:
        report_fault(log, "httpx", "send")
        return None


def _body_of(request: Any) -> bytes | None:
    try:
        return cast("bytes", request.content)
    except Exception:  # RequestNotRead: an iterator or a multipart body
        return None


def _error_of(error: BaseException, library: ModuleType) -> LLMError | None:
    """Our error for a fault of the transport, by the class alone; `None` for anything else."""
    if isinstance(error, library.TimeoutException | TimeoutError):
        return LLMTimeoutError("no answer in time")
    if isinstance(error, library.TransportError | OSError):
        return LLMConnectionError(f"the connection failed ({type(error).__name__})")
    return None


def _answered(attempt: Attempt, response: Any, *, tap: Any) -> None:
    """Read the response along; it is closed where `send`, an event hook or a mock has read it already."""
    try:
        body = response.content if response.is_closed and response.is_stream_consumed else None
        if not 200 <= response.status_code < 300:
            attempt.rejected(response.status_code, response.headers, body or b"")
            return
        if body is None:
            reader = attempt.answered(response.status_code, response.headers, is_decoded=False)
            response.stream = tap(response.stream, reader)
        else:  # a hook of the user may have read a stream already
            attempt.answered_whole(response.status_code, response.headers, body)
    except Exception:
        report_fault(log, "httpx", "read")
        attempt.lost()


def _cut(tap: Tap, error: BaseException, library: ModuleType) -> None:
    """Reading ended in an error; what is no `Exception` is a cancellation by asyncio, trio or the user."""
    if isinstance(error, Exception):
        tap.end(_error_of(error, library) or LLMError(f"reading failed ({type(error).__name__})"))
    else:
        tap.cancel()


class _Forwarding:
    """Has whatever the stream has that it stands for."""

    _inner: Any
    _tap: Tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __del__(self) -> None:
        self._tap.abandon()


class _SyncTap(_Forwarding):
    @classmethod
    def of(cls, library: ModuleType, inner: Any, tap: Tap) -> Any:
        """A stream of the library's own type, which it checks."""
        made = _stream_type(cast("Any", cls), library.SyncByteStream)()
        made._inner, made._tap, made._library = inner, tap, library
        return made

    def __iter__(self) -> Iterator[bytes]:
        tap, library = self._tap, self._library
        try:
            for data in self._inner:
                tap.feed(data)
                yield data
        except GeneratorExit:
            raise
        except BaseException as error:
            _cut(tap, error, library)
            raise
        else:
            tap.end()

    def close(self) -> None:
        """Close the stream, and end a call that was not read to its end."""
        try:
            self._inner.close()
        finally:
            self._tap.close()


class _AsyncTap(_Forwarding):
    @classmethod
    def of(cls, library: ModuleType, inner: Any, tap: Tap) -> Any:
        """A stream of the library's own type, which it checks."""
        made = _stream_type(cast("Any", cls), library.AsyncByteStream)()
        made._inner, made._tap, made._library = inner, tap, library
        return made

    async def __aiter__(self) -> AsyncIterator[bytes]:
        tap, library = self._tap, self._library
        try:
            async for data in self._inner:
                tap.feed(data)
                yield data
        except GeneratorExit:
            raise
        except BaseException as error:
            _cut(tap, error, library)
            raise
        else:
            tap.end()

    async def aclose(self) -> None:
        """Close the stream, and end a call that was not read to its end."""
        try:
            await self._inner.aclose()
        finally:
            self._tap.close()


@functools.lru_cache(maxsize=8)
def _stream_type(tap: Any, base: Any) -> Any:
    return type(tap.__name__, (tap, base), {})


def _patch_transports(library: ModuleType) -> None:
    transport_hook.patch(library, _sight(library))


HOOK = Hook(
    (("Client", "send", _sync_send), ("AsyncClient", "send", _async_send)),
    patch_below=_patch_transports,
    unpatch_below=transport_hook.unpatch,
)
