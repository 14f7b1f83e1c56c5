"""Sends an empty export to each receiver, by the transports that `configure()` uses."""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ...errors import ConfigError
from ...otel.export.answers import Delivered
from ...otel.export.otlp_variables import Signal
from ...otel.setup.settings import ExportConfig
from .spoken import Spoken, spoken_at

_TIMEOUT_S = 5.0
"""Seconds that a receiver gets for an empty export."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The outcome of an empty export of one signal."""

    signal: Signal
    """What was exported."""
    url: str
    """Where to, without user name and query."""
    receiver: str
    """The part of it that names the host and the port."""
    timeout_s: float = _TIMEOUT_S
    """Seconds that it had for an answer."""
    header_names: tuple[str, ...] = ()
    """The headers that were sent, by name."""
    taken: bool = False
    """Whether the receiver took it."""
    rejection: ConfigError | None = None
    """Why nothing could be sent."""
    status: int | None = None
    """The status of the HTTP answer; `None` without one, and over gRPC."""
    content_type: str = ""
    """The media type of the HTTP answer."""
    clock_ahead_s: float | None = None
    """Seconds by which this clock is ahead of the receiver's; `None` where it does not tell its time."""
    code: str = ""
    """The status code of gRPC; empty over HTTP."""
    said: str = ""
    """Why it was not taken, in words; without secrets."""
    error: Exception | None = None
    """What the HTTP client raised."""
    wants_tls: bool = False
    """Whether the export uses TLS."""
    spoken: Spoken | None = None
    """What the port speaks; asked when the export failed."""


def ask_receivers(config: ExportConfig, signals: Iterable[Signal], timeout_s: float = _TIMEOUT_S) -> list[Reply]:
    """Ask the receiver of each of these signals, all at the same time; each gets `timeout_s` seconds."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes faults to stderr, which are findings here
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(partial(_ask, config, timeout_s), sorted(signals)))


def _ask(config: ExportConfig, timeout_s: float, signal: Signal) -> Reply:
    try:
        url = config.signal_endpoint(signal)
        reply = Reply(
            signal=signal,
            url=_shown(url),
            receiver=_receiver(url),
            timeout_s=timeout_s,
            header_names=tuple(sorted(config.signal_headers(signal))),
        )
    except ConfigError as error:
        return Reply(signal=signal, url="", receiver="", rejection=error)
    reply = _export(config, reply)
    if reply.taken or reply.rejection is not None:
        return reply
    return replace(reply, spoken=spoken_at(*_address(url), timeout_s=timeout_s / 3))


def _receiver(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.partition('/')[0].rpartition('@')[2]}"


def _shown(url: str) -> str:
    _, slash, path = url.rpartition("://")[2].partition("/")
    return f"{_receiver(url)}{slash}{path.partition('?')[0]}"


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url if "://" in url else f"//{url}")
    default = 80 if parts.scheme == "http" else 443
    return parts.hostname or "", parts.port or default


# --- The export


def _export(config: ExportConfig, reply: Reply) -> Reply:
    from ...otel.setup.receivers import receiver_transport

    adapter = _adapter() if config.protocols[reply.signal] == "http/protobuf" else None
    try:
        transport, options = receiver_transport(config, reply.signal, adapter=adapter)
    except ConfigError as error:
        return replace(reply, rejection=error)
    answer = transport.send(b"", reply.timeout_s)  # a request without any span or metric in it
    transport.close()
    reply = replace(reply, wants_tls=options.is_secure, taken=isinstance(answer, Delivered))
    if not isinstance(answer, Delivered):
        reply = replace(reply, said=answer.reason, code=answer.code)
    return reply if adapter is None else _with_response(reply, adapter)


def _adapter() -> Any:
    """Sends a request as `requests` does, and keeps the response or what the client raised."""
    try:
        from requests.adapters import HTTPAdapter
    except ImportError:
        return None  # the transport says so

    class ObservedAdapter(HTTPAdapter):
        response: Any = None
        error: Exception | None = None

        def send(self, *args: Any, **kwargs: Any) -> Any:
            try:
                self.response = super().send(*args, **kwargs)
            except Exception as error:
                self.error = error
                raise
            return self.response

    return ObservedAdapter()


def _with_response(reply: Reply, adapter: Any) -> Reply:
    if adapter.response is None:
        return replace(reply, error=adapter.error)
    headers = adapter.response.headers
    sent_at = email.utils.parsedate_tz(headers.get("date", ""))
    return replace(
        reply,
        status=adapter.response.status_code,
        content_type=headers.get("content-type", ""),
        clock_ahead_s=None if sent_at is None else time.time() - email.utils.mktime_tz(sent_at),
    )
