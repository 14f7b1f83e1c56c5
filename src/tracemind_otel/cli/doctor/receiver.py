"""Sends an empty export to each receiver, by the exporters that `configure()` makes."""

from __future__ import annotations

import email.utils
import logging
import os
import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ...ai.llm.scrub import scrub
from ...errors import ConfigError
from ...otel.export.delivery_stats import DeliveryStats
from ...otel.setup.settings import ExportConfig, Signal
from .spoken import Spoken, spoken_at

_TIMEOUT_S = 5.0
"""Seconds that a receiver gets for an empty export."""
_EXPORTERS = "opentelemetry.exporter"
"""The logger of all exporters of the SDK."""


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
    """Why no exporter could be made."""
    status: int | None = None
    """The status of the HTTP answer; `None` without one, and over gRPC."""
    content_type: str = ""
    """The media type of the HTTP answer."""
    clock_ahead_s: float | None = None
    """Seconds by which this clock is ahead of the receiver's; `None` where it does not tell its time."""
    code: str = ""
    """The status code of gRPC; empty over HTTP."""
    said: str = ""
    """What the client or the receiver said about a failure, without secrets."""
    error: Exception | None = None
    """What the HTTP client raised."""
    wants_tls: bool = False
    """Whether the exporter uses TLS."""
    spoken: Spoken | None = None
    """What the port speaks; asked when the export failed."""


def ask_receivers(config: ExportConfig, signals: Iterable[Signal], timeout_s: float = _TIMEOUT_S) -> list[Reply]:
    """Ask the receiver of each of these signals, all at the same time; each gets `timeout_s` seconds."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes faults to stderr, which are findings here
    with _heard() as listener, ThreadPoolExecutor(2) as threads:
        return list(threads.map(partial(_ask, config, listener, timeout_s), sorted(signals)))


def _ask(config: ExportConfig, listener: _Listener, timeout_s: float, signal: Signal) -> Reply:
    try:
        url = config.signal_endpoint(signal)
        reply = Reply(
            signal=signal,
            url=_shown(url),
            receiver=_receiver(url),
            timeout_s=timeout_s,
            header_names=tuple(sorted(config.signal_headers(signal))),
            wants_tls=_wants_tls(url),
        )
    except ConfigError as error:
        return Reply(signal=signal, url="", receiver="", rejection=error)
    reply = _export(config, listener, reply)
    if reply.taken or reply.rejection is not None:
        return reply
    return replace(reply, spoken=spoken_at(*_address(url), timeout_s=timeout_s / 3))


def _receiver(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.partition('/')[0].rpartition('@')[2]}"


def _shown(url: str) -> str:
    _, slash, path = url.rpartition("://")[2].partition("/")
    return f"{_receiver(url)}{slash}{path.partition('?')[0]}"


def _wants_tls(url: str) -> bool:
    """A gRPC endpoint may have no scheme; the SDK's exporter then reads a variable."""
    if "://" in url:
        return url.startswith("https://")
    return os.getenv("OTEL_EXPORTER_OTLP_INSECURE", "").lower() != "true"


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url if "://" in url else f"//{url}")
    default = 80 if parts.scheme == "http" else 443
    return parts.hostname or "", parts.port or default


# --- The export


class _Observed:
    """What the client of one exporter saw at its first attempt, after which it stops the exporter."""

    def __init__(self) -> None:
        self.response: Any = None
        self.error: Exception | None = None
        self.code = ""
        self.said = ""
        self.exporter: Any = None

    def stop(self) -> None:
        """Let the first attempt be the last."""
        if self.exporter is not None:
            exporter, self.exporter = self.exporter, None
            exporter.shutdown()


def _export(config: ExportConfig, listener: _Listener, reply: Reply) -> Reply:
    from ...otel.setup.exporters import otlp_exporter

    observed, stats = _Observed(), DeliveryStats(reply.url)
    secrets = config.signal_headers(reply.signal).values()
    with listener.listening(observed):
        try:
            adapter = _adapter(observed)
            exporter: Any = otlp_exporter(config, reply.signal, stats, adapter=adapter, timeout=reply.timeout_s)
        except Exception as error:
            return replace(reply, rejection=_as_config_error(error))
        observed.exporter = exporter
        result: Any = exporter.export(_nothing(reply.signal))
        taken = result.name == "SUCCESS"
        observed.stop()
    seen = replace(reply, taken=taken, code=observed.code, error=observed.error)
    seen = replace(seen, said=scrub(" ".join(observed.said.split()), secrets=secrets))
    return seen if observed.response is None else _with_response(seen, observed.response)


def _as_config_error(error: Exception) -> ConfigError:
    """`configure()` says the same of what the SDK raises."""
    if isinstance(error, ConfigError):
        return error
    return ConfigError(f"the OpenTelemetry exporter rejects the value of a variable OTEL_EXPORTER_OTLP_*: {error}")


def _nothing(signal: Signal) -> Any:
    """A batch without anything in it."""
    from opentelemetry.sdk.metrics.export import MetricsData

    return [] if signal == "traces" else MetricsData(resource_metrics=[])


def _adapter(observed: _Observed) -> Any:
    """Sends a request as `requests` does, and keeps the first answer or fault."""
    from requests.adapters import HTTPAdapter

    class ObservedAdapter(HTTPAdapter):
        def send(self, *args: Any, **kwargs: Any) -> Any:
            if observed.error is not None:  # the exporter tries a second time at once
                raise observed.error
            try:
                observed.response = super().send(*args, **kwargs)
            except Exception as error:
                observed.error, observed.said = error, str(error)
                raise
            finally:
                observed.stop()
            return observed.response

    return ObservedAdapter()


class _Listener:
    """Hears what each thread's exporter logs, before any filter: the gRPC exporter tells its status code only so."""

    def __init__(self) -> None:
        self._observed = dict[int, _Observed]()

    @contextmanager
    def listening(self, observed: _Observed) -> Generator[None]:
        """What this thread logs now is about this export."""
        self._observed[threading.get_ident()] = observed
        try:
            yield
        finally:
            del self._observed[threading.get_ident()]

    def hear(self, record: logging.LogRecord) -> None:
        """Keep the first fault of an export, and stop the exporter."""
        observed = self._observed.get(record.thread or 0)
        if observed is None or not record.name.startswith(_EXPORTERS) or record.levelno < logging.WARNING:
            return
        arguments: tuple[Any, ...] = record.args if isinstance(record.args, tuple) else ()
        code = next((each.name for each in arguments if type(each).__name__ == "StatusCode"), "")
        if code and not observed.code:
            observed.code, observed.said = code, str(arguments[-1])
            observed.stop()
        elif not observed.said:
            observed.said = record.getMessage()


@contextmanager
def _heard() -> Generator[_Listener]:
    """A listener to every log record; those of exporters are not printed meanwhile."""
    listener, log, make = _Listener(), logging.getLogger(_EXPORTERS), logging.getLogRecordFactory()

    def make_and_hear(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        listener.hear(record)
        return record

    silent = logging.NullHandler()
    log.addHandler(silent)
    propagated, log.propagate = log.propagate, False
    logging.setLogRecordFactory(make_and_hear)
    try:
        yield listener
    finally:
        logging.setLogRecordFactory(make)
        log.propagate = propagated
        log.removeHandler(silent)


def _with_response(reply: Reply, response: Any) -> Reply:
    sent_at = email.utils.parsedate_tz(response.headers.get("date", ""))
    ahead_s = None if sent_at is None else time.time() - email.utils.mktime_tz(sent_at)
    return replace(
        reply,
        status=response.status_code,
        content_type=response.headers.get("content-type", ""),
        clock_ahead_s=ahead_s,
    )
