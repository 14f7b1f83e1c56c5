"""The hook of botocore, and with it of boto3: `URLLib3Session.send`, which every attempt of every service passes."""

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
        _answered(attempt, response, library, is_stream=bool(getattr(request, "stream_output", False)))
        return response

    return send_and_see


def _attempt(request: Any, hosts: Mapping[str, str] | None) -> Attempt | None:
    try:
        url = str(request.url)
        if request.method != "POST" or not observation.is_seen(url.partition("?")[0], always=hosts is not None):
            return None
        parts = urlsplit(url)
        body = request.body
        sent = bytes(body) if isinstance(body, bytes | bytearray) else None
        headers = _lower(request.headers)
        return observation.begin(parts.hostname or "", parts.port, parts.path, url, sent, headers, hosts)
    except BudgetExceededError:
        raise
    except Exception:
        report_fault(log, "botocore", "send")
        return None


def _lower(headers: Any) -> dict[str, str]:
    """The headers by lower-case name; botocore has some as bytes."""
    return {str(name).lower(): value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in headers.items()}  # fmt: skip


def _error_of(error: BaseException, library: ModuleType) -> LLMError | None:
    """Our error for a fault of the transport, by the class alone; `None` for anything else."""
    if isinstance(error, library.ConnectTimeoutError | library.ReadTimeoutError | TimeoutError):
        return LLMTimeoutError("no answer in time")
    no_connection = library.EndpointConnectionError | library.ProxyConnectionError | library.SSLError
    if isinstance(error, no_connection | library.HTTPClientError | OSError):
        return LLMConnectionError(f"the connection failed ({type(error).__name__})")
    return None


def _answered(attempt: Attempt, response: Any, library: ModuleType, *, is_stream: bool) -> None:
    try:
        headers = _lower(response.headers)
        if not 200 <= response.status_code < 300:
            attempt.rejected(response.status_code, headers, b"" if is_stream else response.content)
            return
        # A body that is handed on is read after botocore's last attempt.
        tap = attempt.answered(response.status_code, headers, is_decoded=False, is_repeated=not is_stream)
        if is_stream:
            response.raw = TappedBody(response.raw, tap)
        else:
            tap.feed(response.content)
            tap.end()
    except Exception:
        report_fault(log, "botocore", "read")
        attempt.lost()


HOOK = Hook((("URLLib3Session", "send", _send),))
