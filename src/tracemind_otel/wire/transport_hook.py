"""The hook of httpx's transports: what the hook of `send` does not see.

Inside an attempt it notes the repetitions that a transport makes by itself. A request that comes to a transport past
that hook, by a `send` that somebody took before it was wrapped, is a call of its own.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .._base.once import report_fault
from ..errors import LLMError
from . import observation
from .instances import unwrap_on_class, wrap_on_class
from .observation import Attempt
from .recognition import may_be_call
from .tap import Said, error_of

log = logging.getLogger(__name__)

_SYNC, _ASYNC = "handle_request", "handle_async_request"
_METHODS = (
    ("HTTPTransport", _SYNC),
    ("AsyncHTTPTransport", _ASYNC),
    ("MockTransport", _SYNC),
    ("MockTransport", _ASYNC),
)


@dataclass(frozen=True, slots=True)
class Sight:
    """What the hook of `send` knows to do with requests and responses of a library."""

    begin: Callable[[Any], Attempt | None]
    """Begins an attempt, if the request is a model call."""
    error_of: Callable[[BaseException], LLMError | None]
    """Our error for a fault of the transport."""
    answered: Callable[[Attempt, Any], None]
    """Reads a response along whose body is not read yet."""
    answered_async: Callable[[Attempt, Any], None]
    """The same for a body that is read asynchronously."""


def patch(library: ModuleType, sight: Sight) -> None:
    """Wrap the methods of the transports."""
    for owner, name in _METHODS:
        make = _sync_handle if name == _SYNC else _async_handle
        wrap_on_class(getattr(library, owner), name, functools.partial(make, sight=sight))


def unpatch(library: ModuleType) -> None:
    """Put the methods back that are still ours; one that somebody has wrapped since passes every request through."""
    for owner, name in _METHODS:
        unwrap_on_class(getattr(library, owner), name)


def _sync_handle(handle: Any, sight: Sight) -> Any:
    @functools.wraps(handle)
    def handle_and_see(self: Any, request: Any) -> Any:
        if (attempt := observation.current_attempt()) is not None:
            return _sent_inside(attempt, self, request)
        if (attempt := sight.begin(request)) is None:
            return handle(self, request)
        attempt.ask_blocking()
        try:
            with attempt.active():
                response = handle(self, request)
                observation.make_priceable()
        except BaseException as error:
            attempt.raised(error, sight.error_of(error))
            raise
        sight.answered(attempt, response)
        return response

    def _sent_inside(attempt: Attempt, transport: Any, request: Any) -> Any:
        if not _is_call(request):
            return handle(transport, request)
        attempt.sent_by_transport()
        attempt.ask_blocking()
        try:
            response = handle(transport, request)
        except Exception as error:
            _raised(attempt, sight.error_of(error))
            raise
        _answered(attempt, response)
        return response

    return handle_and_see


def _async_handle(handle: Any, sight: Sight) -> Any:
    @functools.wraps(handle)
    async def handle_and_see(self: Any, request: Any) -> Any:
        if (attempt := observation.current_attempt()) is not None:
            return await _sent_inside(attempt, self, request)
        if (attempt := sight.begin(request)) is None:
            return await handle(self, request)
        await attempt.ask_soon()
        try:
            with attempt.active():
                response = await handle(self, request)
        except BaseException as error:
            attempt.raised(error, sight.error_of(error))
            raise
        sight.answered_async(attempt, response)
        return response

    async def _sent_inside(attempt: Attempt, transport: Any, request: Any) -> Any:
        if not _is_call(request):
            return await handle(transport, request)
        attempt.sent_by_transport()
        await attempt.ask_soon()
        try:
            response = await handle(transport, request)
        except Exception as error:
            _raised(attempt, sight.error_of(error))
            raise
        _answered(attempt, response)
        return response

    return handle_and_see


def _is_call(request: Any) -> bool:
    """Whether it is the call's own request, and not that of an authentication, which has another path."""
    try:
        return request.method == "POST" and may_be_call(request.url.path)
    except Exception:
        report_fault(log, "transport", "send")
        return False


def _raised(attempt: Attempt, error: LLMError | None) -> None:
    if error is not None:
        attempt.failed_in_transport(error)


def _answered(attempt: Attempt, response: Any) -> None:
    """Note a status that is usually repeated. Not the body, which is nobody's to read here, nor a challenge (401)."""
    try:
        if observation.is_usually_repeated(response.status_code):
            attempt.failed_in_transport(error_of(response.status_code, response.headers, b"", Said()))
    except Exception:
        report_fault(log, "transport", "read")
