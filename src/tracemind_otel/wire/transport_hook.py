"""The hook of httpx's transports: repetitions that a transport makes by itself, which `send` does not see.

It does nothing outside an attempt that the hook of `send` has begun.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .._base.once import report_fault
from ..errors import BudgetExceededError, LLMError
from . import observation
from .observation import Attempt
from .tap import error_of

log = logging.getLogger(__name__)

ErrorOf = Callable[[BaseException, ModuleType], LLMError | None]


def patch(library: ModuleType, error_in: ErrorOf) -> None:
    """Wrap the methods of both transports; one that is wrapped already stays as it is."""
    sync, own_async = library.HTTPTransport, library.AsyncHTTPTransport
    if not hasattr(sync.handle_request, "__tracemind__"):
        sync.handle_request = _sync_handle(sync.handle_request, library, error_in)
    if not hasattr(own_async.handle_async_request, "__tracemind__"):
        own_async.handle_async_request = _async_handle(own_async.handle_async_request, library, error_in)


def unpatch(library: ModuleType) -> None:
    """Put the methods back that are still ours; one that somebody has wrapped since passes every request through."""
    sync, own_async = library.HTTPTransport, library.AsyncHTTPTransport
    if hasattr(sync.handle_request, "__tracemind__"):
        sync.handle_request = sync.handle_request.__wrapped__
    if hasattr(own_async.handle_async_request, "__tracemind__"):
        own_async.handle_async_request = own_async.handle_async_request.__wrapped__


def _sync_handle(handle: Any, library: ModuleType, error_in: ErrorOf) -> Any:
    @functools.wraps(handle)
    def handle_and_see(self: Any, request: Any) -> Any:
        attempt = observation.current_attempt()
        if attempt is None:
            return handle(self, request)
        _sent(attempt)
        try:
            response = handle(self, request)
        except Exception as error:
            _raised(attempt, error_in(error, library))
            raise
        _answered(attempt, response)
        return response

    handle_and_see.__tracemind__ = True  # type: ignore[attr-defined]
    return handle_and_see


def _async_handle(handle: Any, library: ModuleType, error_in: ErrorOf) -> Any:
    @functools.wraps(handle)
    async def handle_and_see(self: Any, request: Any) -> Any:
        attempt = observation.current_attempt()
        if attempt is None:
            return await handle(self, request)
        _sent(attempt)
        try:
            response = await handle(self, request)
        except Exception as error:
            _raised(attempt, error_in(error, library))
            raise
        _answered(attempt, response)
        return response

    handle_and_see.__tracemind__ = True  # type: ignore[attr-defined]
    return handle_and_see


def _sent(attempt: Attempt) -> None:
    try:
        attempt.sent_by_transport()
    except BudgetExceededError:
        raise
    except Exception:
        report_fault(log, "transport", "send")


def _raised(attempt: Attempt, error: LLMError | None) -> None:
    if error is not None:
        attempt.failed_in_transport(error)


def _answered(attempt: Attempt, response: Any) -> None:
    """Note a status that is usually repeated. Not the body, which is nobody's to read here, nor a challenge (401)."""
    try:
        if observation.is_usually_repeated(response.status_code):
            attempt.failed_in_transport(error_of(response.status_code, response.headers, b"", ""))
    except Exception:
        report_fault(log, "transport", "read")
