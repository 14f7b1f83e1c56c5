"""The options of `configure()`, and the environment variables that stand in for them.

Time-outs, compression, certificates and batch sizes are read by `otel/export/otlp_options.py`; the other `OTEL_*`
variables, such as service name, resource attributes and sampler, by the SDK.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError
from ..export.otlp_variables import Protocol, Signal, otlp_variable

if TYPE_CHECKING:
    from ..backends.lookup import Presets

log = logging.getLogger(__name__)

_SIGNALS: tuple[Signal, ...] = ("traces", "metrics")
"""The signals that are always set up; `logs` only carries the events with prompts and answers."""
_PORTS: Mapping[Protocol, int] = {"http/protobuf": 4318, "grpc": 4317}
_OTLP_EXPORTERS: Mapping[str, Protocol | None] = {
    "otlp": None,
    "otlp_proto_http": "http/protobuf",
    "otlp_proto_grpc": "grpc",
}
"""Names of the SDK's OTLP exporters, and the protocol that each implies."""

_INSTEAD: Mapping[Signal, str] = {
    "traces": "Pass a tracer_provider",
    "metrics": "Pass a meter_provider",
    "logs": "Set a LoggerProvider",
}
"""What to do where an exporter is wanted that `configure()` does not make."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_ENCODED_VALUE = re.compile(r"[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
"""A value that the SDK can read in a variable. It logs one that it cannot read, the secret included."""
_URL = re.compile(r"[\x21-\x7e]+")
_URL_NEEDED = "it must be a base URL like http://localhost:4318"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Where telemetry goes."""

    endpoint: str | None = None
    """Base URL of an OTLP receiver; `None` for that of the environment, or its default."""
    protocols: Mapping[Signal, Protocol]
    """The transport of OTLP for each signal."""
    headers: Mapping[str, str]
    """Headers of each export, besides those of the environment."""
    file: str | None = None
    """A file that gets the spans as OTLP JSON lines."""
    signals: frozenset[Signal] = frozenset(_SIGNALS)
    """The signals that go to the receiver; none if only a file was asked for."""
    on_console: frozenset[Signal] = frozenset()
    """The signals that are printed on standard output."""
    spool: str | None = None
    """A directory in which spans wait for the receiver; `None` for the memory."""
    presets: Presets | None = None
    """The backends that receive it; `None` where no preset was asked for."""

    @property
    def has_endpoint(self) -> bool:
        """Whether an argument or a variable says where telemetry goes."""
        return any(map(self.endpoint_source, _SIGNALS))

    def signal_endpoint(self, signal: Signal) -> str:
        """The URL for one signal's exporter.

        Raises:
            ConfigError: an environment variable is not a URL; the message names it.
        """
        protocol = self.protocols[signal]
        path = "" if protocol == "grpc" else f"/v1/{signal}"
        if self.endpoint is not None:
            name, url = "endpoint", self.endpoint + path
        else:
            name, value = otlp_variable(signal, "ENDPOINT")
            url = _checked_url(name, value or f"http://localhost:{_PORTS[protocol]}", protocol == "grpc")
            url = url.rstrip("/") + path if name == "OTEL_EXPORTER_OTLP_ENDPOINT" else url
        if protocol == "grpc" and "@" in url:
            raise ConfigError(f"{name} has a user name, which gRPC would log; pass it as a header")
        return url

    def endpoint_source(self, signal: Signal) -> str | None:
        """The argument or the variable that says where one signal goes; `None` for the default."""
        if self.endpoint is not None:
            return "endpoint"
        name, value = otlp_variable(signal, "ENDPOINT")
        return name if value else None

    def signal_headers(self, signal: Signal) -> dict[str, str]:
        """The headers of one signal's exports, the environment's included.

        Raises:
            ConfigError: a variable does not hold headers; the message names it and shows no value.
        """
        needed = {} if self.presets is None else dict(self.presets.headers)
        return needed | _headers_in(*otlp_variable(signal, "HEADERS")) | dict(self.headers)

    def destination(self, signal: Signal) -> str:
        """The URL of one signal for messages, without user name, password and query."""
        url = _without_user(self.signal_endpoint(signal)).partition("?")[0]
        return f"{url} ({hint})" if (hint := self.port_hint(signal)) else url

    def port_hint(self, signal: Signal) -> str | None:
        """A hint at a port that usually speaks the other protocol."""
        here = self.protocols[signal]
        other: Protocol = "http/protobuf" if here == "grpc" else "grpc"
        authority = self.signal_endpoint(signal).rpartition("://")[2].partition("/")[0]
        if not authority.endswith(f":{_PORTS[other]}"):
            return None
        spoken = "gRPC" if other == "grpc" else "HTTP"
        return f"port {_PORTS[other]} speaks {spoken}: pass protocol={other!r}, or port {_PORTS[here]}"


def export_config(
    *,
    endpoint: str | None,
    protocol: str | None,
    headers: Mapping[str, str] | None,
    file: str | os.PathLike[str] | None,
    preset: str | None = None,
    spool: str | os.PathLike[str] | None = None,
    has_events: bool = False,
) -> ExportConfig:
    """Check the arguments and fill in the environment.

    Raises:
        ConfigError: an argument or a variable has a value that is not allowed; the message names it.
    """
    signals: tuple[Signal, ...] = (*_SIGNALS, "logs") if has_events else _SIGNALS
    exporters: dict[Signal, set[str]] = {signal: _exporters(signal) for signal in signals}
    has_endpoint = endpoint is not None or any(otlp_variable(signal, "ENDPOINT")[1] for signal in _SIGNALS)
    is_file_alone = file is not None and not has_endpoint
    presets = _presets(preset)
    if presets is not None and not presets.takes_metrics and not _metrics_are_asked_for():
        exporters["metrics"] -= _OTLP_EXPORTERS.keys()
    config = ExportConfig(
        endpoint=None if endpoint is None else _base_url(endpoint),
        protocols={signal: _protocol(protocol, signal, exporters[signal]) for signal in signals},
        headers={} if headers is None else _headers(headers),
        file=None if file is None else _path("file", file),
        spool=_spool(spool),
        signals=frozenset(s for s, names in exporters.items() if names & _OTLP_EXPORTERS.keys() and not is_file_alone),
        on_console=frozenset(signal for signal, names in exporters.items() if "console" in names),
        presets=presets,
    )
    _warn_of_protocol(config)
    return config


def _presets(argument: object) -> Presets | None:
    """The presets that are asked for. Who asks for none does not load the table of backends."""
    if argument is None and not os.getenv("TRACEMIND_PRESET"):
        return None
    from ..backends.lookup import chosen_presets

    return chosen_presets(argument)


def _metrics_are_asked_for() -> bool:
    """Whether a variable sends metrics somewhere, also where the presets' backends take none."""
    return bool(os.getenv("OTEL_METRICS_EXPORTER") or os.getenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"))


def _warn_of_protocol(config: ExportConfig) -> None:
    if config.presets is None or config.protocols["traces"] != "grpc" or "traces" not in config.signals:
        return
    for backend in config.presets.backends:
        if backend.is_http_only:
            log.warning(
                "preset %s: %s takes OTLP over HTTP only. Pass protocol='http/protobuf', unless the endpoint is a "
                "Collector that sends there",
                backend.name,
                backend.title,
            )


def _exporters(signal: Signal) -> set[str]:
    """The exporters that the standard variable names, without those that we do not make, which are logged."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = {name.strip().lower() for name in (os.getenv(variable) or "otlp").split(",")} - {"", "none"}
    made = names & {*_OTLP_EXPORTERS, "console"}
    if names != made:
        left_out = ", ".join(sorted(names - made))
        log.warning(
            "%s names %s, which configure() does not make: no %s go there. %s of your own that has it",
            variable, left_out, signal, _INSTEAD[signal],
        )  # fmt: skip
    return made


def _protocol(argument: object, signal: Signal, exporters: set[str]) -> Protocol:
    implied = next(filter(None, (_OTLP_EXPORTERS.get(name) for name in sorted(exporters))), None)
    exporter = f"OTEL_{signal.upper()}_EXPORTER"
    named = [("protocol", argument), (exporter, implied), otlp_variable(signal, "PROTOCOL")]
    name, value = next(((name, value) for name, value in named if value), ("protocol", "http/protobuf"))
    if not isinstance(value, str) or value.strip() not in _PORTS:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(_PORTS)}")
    return cast("Protocol", value.strip())


def _path(name: str, value: object) -> str:
    path: object = None
    with suppress(TypeError):
        path = os.fspath(cast("str", value))
    if not isinstance(path, str) or not path:
        kind = "directory" if name == "spool" else "file"
        found = "empty" if path == "" else type(value).__name__
        raise ConfigError(f"{name} is {found}; it must be the path of a {kind}")
    return path


def _spool(argument: object) -> str | None:
    """The directory, absolute, since the process and its children may change theirs."""
    value = os.getenv("TRACEMIND_SPOOL_DIR") or None if argument is None else argument
    return None if value is None else os.path.abspath(_path("spool", value))


# --- Headers ---


def _headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ConfigError(f"headers is {type(headers).__name__}; it must be a mapping of names to values")
    return dict(_header("headers", *item) for item in cast("Mapping[object, object]", headers).items())


def _headers_in(variable: str, text: str) -> dict[str, str]:
    """The headers in an environment variable: `name=value` pairs, joined by commas, with URL-encoded values."""
    pairs = [entry.strip().partition("=") for entry in text.split(",") if entry.strip()]
    for number, (_, separator, value) in enumerate(pairs, start=1):
        if not separator or not _ENCODED_VALUE.fullmatch(value):
            raise ConfigError(f"{variable}: entry {number} is not name=value with a URL-encoded value; it is not shown")
    return dict(_header(variable, name, value if " " in value else unquote(value)) for name, _, value in pairs)


def _header(where: str, name: object, value: object) -> tuple[str, str]:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name.strip()):
        raise ConfigError(f"{where}: a name has a character that a header's name cannot have; it is not shown")
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {name.strip()} is {type(value).__name__}; it must be a string")
    if not _HEADER_VALUE.fullmatch(value.strip()):
        raise ConfigError(
            f"{where}: {name.strip()} has a character that a header cannot carry, a line break or a non-ASCII letter; "
            "its value is not shown"
        )
    return name.strip().lower(), value.strip()


# --- Endpoints ---


def _base_url(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"endpoint is {type(value).__name__}; {_URL_NEEDED}")
    endpoint = _checked_url("endpoint", value).rstrip("/")
    if "?" in endpoint or "#" in endpoint:
        raise ConfigError("endpoint has a query, but paths are added to it; pass a key as a header")
    return endpoint.removesuffix("/v1/traces").removesuffix("/v1/metrics")


def _checked_url(name: str, value: str, scheme_is_optional: bool = False) -> str:
    url = value.strip()
    if url and not _URL.fullmatch(url):
        raise ConfigError(f"{name} has a space, a line break or a non-ASCII letter, which no URL has; {_URL_NEEDED}")
    lacks_scheme = scheme_is_optional and "://" not in url
    try:
        parts = urlsplit(f"//{url}" if lacks_scheme else url)
        is_known = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ConfigError(f"{name} has a host or a port that cannot be read; {_URL_NEEDED}") from None
    if not is_known or not (lacks_scheme or parts.scheme in ("http", "https")):
        raise ConfigError(f"{name} is {_without_user(url).partition('?')[0]!r}; {_URL_NEEDED}")
    return url


def _without_user(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


# --- The SDK's variables ---


def variable(name: str) -> str:
    """The value of a variable whose case does not matter, in lower case; empty if it is not set."""
    return os.getenv(name, "").strip().lower()


def sdk_is_disabled() -> bool:
    """Whether `OTEL_SDK_DISABLED` switches telemetry off."""
    return variable("OTEL_SDK_DISABLED") == "true"


def sees_sdk_calls() -> bool:
    """Whether `configure()` may record the model calls of other SDKs, by `TRACEMIND_INSTRUMENT`.

    Raises:
        ConfigError: the variable is neither `true` nor `false`.
    """
    return _is_on("TRACEMIND_INSTRUMENT", default=True)


def syncs_spool() -> bool:
    """Whether a span is on the disk before it counts as kept, by `TRACEMIND_SPOOL_FSYNC`.

    Raises:
        ConfigError: the variable is neither `true` nor `false`.
    """
    return _is_on("TRACEMIND_SPOOL_FSYNC", default=False)


def _is_on(name: str, *, default: bool) -> bool:
    value = variable(name)
    if value not in ("", "true", "false"):
        raise ConfigError(f"{name} is {value!r}; it must be true or false")
    return value == "true" if value else default


def seconds_in(variable: str, default_ms: float) -> float:
    """The seconds that a variable gives in milliseconds; `inf` is allowed.

    Raises:
        ConfigError: it is not a positive number.
    """
    value = os.getenv(variable) or default_ms
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = 0.0
    if not milliseconds > 0:
        raise ConfigError(f"{variable} is {value!r}; it must be a positive number of milliseconds")
    return milliseconds / 1000
