"""The hook of requests: its session's `send`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from .._base.once import report_fault
from ..errors import BudgetExceededError, LLMConnectionError, LLMError, LLMTimeoutError
from . import observation
from .instances import Hook
from .observation import Attempt
from .tapped_body import TappedBody

log = logging.getLogger(__name__)


def _send(send: Any, library: ModuleType, hosts: Mapping[str, str] | None = None) -> Any:
    @functools.wraps(send)
    def send_and_see(self: Any, request: Any, **kwargs: Any) -> Any:
        attempt = _attempt(request, hosts)
        if attempt is None:
            return send(self, request, **kwargs)
        attempt.ask_blocking()
        try:
            with attempt.active():
                response = send(self, request, **kwargs)
                observation.make_priceable()
        except BaseException as error:
            attempt.raised(error, _error_of(error, library))
            raise
        _answered(attempt, response, is_stream=bool(kwargs.get("stream", getattr(self, "stream", False))))
        return response

    return send_and_see


def _attempt(request: Any, hosts: Mapping[str, str] | None) -> Attempt | None:
    try:
        url = str(request.url)
        if request.method != "POST" or not observation.is_seen(url.partition("?")[0], always=hosts is not None):
            return None
        parts = urlsplit(url)
        host, body = parts.hostname or "", _body_of(request)
        return observation.begin(host, parts.port, parts.path, url, body, request.headers, hosts)
    except BudgetExceededError:
        raise
    except Exception:
        report_fault(log, "requests", "send")
        return None


def _body_of(request: Any) -> bytes | None:
    """The body as it is sent; `None` for a file or a generator, which is read only once."""
    body = request.body
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, bytes | bytearray) else None


def _error_of(error: BaseException, library: ModuleType) -> LLMError | None:
    """Our error for a fault of the transport, by the class alone; `None` for anything else."""
    faults = library.exceptions
    if isinstance(error, faults.Timeout | TimeoutError):
        return LLMTimeoutError("no answer in time")
    if isinstance(error, faults.ConnectionError | faults.ChunkedEncodingError | ConnectionError):
        return LLMConnectionError(f"the connection failed ({type(error).__name__})")
    return None


def _answered(attempt: Attempt, response: Any, *, is_stream: bool) -> None:
    """Read along. requests decompresses what it hands on."""
    try:
        if not 200 <= response.status_code < 300:
            attempt.rejected(response.status_code, response.headers, b"" if is_stream else response.content)
            return
        tap = attempt.answered(response.status_code, response.headers, is_decoded=True)
        if is_stream:
            response.raw = TappedBody(response.raw, tap)
        else:
            tap.feed(response.content)
            tap.end()
    except Exception:
        report_fault(log, "requests", "read")
        attempt.lost()


HOOK = Hook((("Session", "send", _send),))
