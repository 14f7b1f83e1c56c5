"""The options of `configure()`, and every environment variable that is read for them.

The SDK and its exporters read the rest of the standard `OTEL_*` variables themselves: service name, resource
attributes, sampler, time-outs, compression, certificates, batch sizes, `OTEL_SDK_DISABLED`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

from ...errors import ConfigError

log = logging.getLogger(__name__)

Protocol = Literal["http/protobuf", "grpc"]
"""How OTLP travels."""

Signal = Literal["traces", "metrics"]
"""What is exported."""

PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_PROTOCOL"
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
ENDPOINT_VARIABLES = (
    ENDPOINT_VARIABLE,
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
HEADERS_VARIABLE = "OTEL_EXPORTER_OTLP_HEADERS"
DISABLED_VARIABLE = "OTEL_SDK_DISABLED"

_PROTOCOLS: dict[str, Protocol] = {"http/protobuf": "http/protobuf", "grpc": "grpc"}
_PORTS: Mapping[Protocol, int] = {"http/protobuf": 4318, "grpc": 4317}
_SIGNALS: tuple[Signal, ...] = ("traces", "metrics")
_SIGNAL_PATHS = ("/v1/traces", "/v1/metrics")
_OTLP_EXPORTERS: Mapping[str, Protocol | None] = {
    "otlp": None,
    "otlp_proto_http": "http/protobuf",
    "otlp_proto_grpc": "grpc",
}
"""Names of the SDK's OTLP exporters, and the protocol that each implies."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_ENCODED_VALUE = re.compile(r"[\x20\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")
"""What the SDK reads in a variable; it logs what it cannot read, the secret included."""
_URL = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Where telemetry goes."""

    endpoint: str | None = None
    """Base URL of an OTLP receiver; `None` leaves it to the environment and its default."""
    protocols: Mapping[Signal, Protocol]
    """How OTLP travels, for each signal."""
    headers: Mapping[str, str]
    """Headers of each export, besides those of the environment."""
    file: str | None = None
    """A file that gets the spans as OTLP JSON lines."""
    signals: frozenset[Signal] = frozenset(("traces", "metrics"))
    """What goes to the receiver: nothing when a file is all that was asked for."""
    on_console: frozenset[Signal] = frozenset()
    """What is printed on standard output."""

    @property
    def has_endpoint(self) -> bool:
        """Whether somebody said where telemetry goes."""
        return self.endpoint is not None or any(map(os.getenv, ENDPOINT_VARIABLES))

    def signal_endpoint(self, signal: Signal) -> str:
        """The URL for one signal's exporter.

        Raises:
            ConfigError: an environment variable holds no URL; the message names it.
        """
        own_variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        is_grpc = self.protocols[signal] == "grpc"
        if self.endpoint is not None:
            name, url = "endpoint", self._with_path(self.endpoint, signal)
        elif own := os.getenv(own_variable):
            name, url = own_variable, _checked_url(own_variable, own, scheme_is_optional=is_grpc)
        elif base := os.getenv(ENDPOINT_VARIABLE):
            checked = _checked_url(ENDPOINT_VARIABLE, base, scheme_is_optional=is_grpc)
            name, url = ENDPOINT_VARIABLE, self._with_path(checked.rstrip("/"), signal)
        else:
            return self._with_path(f"http://localhost:{_PORTS[self.protocols[signal]]}", signal)
        if is_grpc and "@" in url:
            raise ConfigError(f"{name} has a user name, which gRPC would log; pass it as a header")
        return url

    def signal_headers(self, signal: Signal) -> dict[str, str]:
        """The headers of one signal's exports, the environment's included.

        Raises:
            ConfigError: a variable holds something else than headers; the message names it and shows no value.
        """
        own_variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS"
        variable = own_variable if os.getenv(own_variable) else HEADERS_VARIABLE
        return _headers_in(variable, os.getenv(variable, "")) | dict(self.headers)

    def destination(self, signal: Signal) -> str:
        """Where one signal goes, for a person: no user name, no password, no query."""
        url = _without_user(self.signal_endpoint(signal)).partition("?")[0]
        return f"{url} ({hint})" if (hint := self.port_hint(signal)) else url

    def port_hint(self, signal: Signal) -> str | None:
        """What to say about a port that usually speaks the other protocol."""
        other: Protocol = "grpc" if self.protocols[signal] == "http/protobuf" else "http/protobuf"
        if not _authority(self.signal_endpoint(signal)).endswith(f":{_PORTS[other]}"):
            return None
        spoken = "gRPC" if other == "grpc" else "HTTP"
        return (
            f"port {_PORTS[other]} speaks {spoken}: pass protocol={other!r}, or port {_PORTS[self.protocols[signal]]}"
        )

    def _with_path(self, base: str, signal: Signal) -> str:
        return base if self.protocols[signal] == "grpc" else f"{base}/v1/{signal}"


def export_config(
    *,
    endpoint: str | None,
    protocol: str | None,
    headers: Mapping[str, str] | None,
    file: str | os.PathLike[str] | None,
) -> ExportConfig:
    """Check the arguments and fill in the environment.

    Raises:
        ConfigError: an argument or a variable has a value that is not allowed; the message names it.
    """
    exporters: dict[Signal, set[str]] = {signal: _exporters(signal) for signal in _SIGNALS}
    is_file_alone = file is not None and endpoint is None and not any(map(os.getenv, ENDPOINT_VARIABLES))
    return ExportConfig(
        endpoint=None if endpoint is None else _base_url(endpoint),
        protocols={signal: _protocol(protocol, signal, exporters[signal]) for signal in _SIGNALS},
        headers=_headers(headers),
        file=None if file is None else _path(file),
        signals=frozenset(s for s, names in exporters.items() if names & _OTLP_EXPORTERS.keys() and not is_file_alone),
        on_console=frozenset(signal for signal, names in exporters.items() if "console" in names),
    )


def _exporters(signal: Signal) -> set[str]:
    """The exporters that the standard variable names, as far as we make them; what is left out is logged."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = {name.strip().lower() for name in (os.getenv(variable) or "otlp").split(",")} - {"", "none"}
    made = names & {*_OTLP_EXPORTERS, "console"}
    if names != made:
        left_out = ", ".join(sorted(names - made))
        provider = "tracer_provider" if signal == "traces" else "meter_provider"
        log.warning(
            "%s names %s, which configure() does not make: no %s go there. Pass a %s of your own that has it",
            variable, left_out, signal, provider,
        )  # fmt: skip
    return made


def _protocol(argument: object, signal: Signal, exporters: set[str]) -> Protocol:
    implied = next(filter(None, (_OTLP_EXPORTERS.get(name) for name in sorted(exporters))), None)
    own_variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    variables = [(name, os.getenv(name)) for name in (own_variable, PROTOCOL_VARIABLE)]
    named = [("protocol", argument), (f"OTEL_{signal.upper()}_EXPORTER", implied), *variables]
    name, value = next(((name, value) for name, value in named if value), ("protocol", "http/protobuf"))
    if not isinstance(value, str) or value.strip() not in _PROTOCOLS:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(_PROTOCOLS)}")
    return _PROTOCOLS[value.strip()]


def _path(file: str | os.PathLike[str]) -> str:
    try:
        path = os.fspath(file)
    except TypeError:
        path = None
    if not isinstance(path, str) or not path:
        raise ConfigError(f"file is {type(cast('object', file)).__name__}; it must be the path of a file")
    return path


# --- Headers ---


def _headers(headers: object) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigError(f"headers is {type(headers).__name__}; it must be a mapping of names to values")
    return dict(_header("headers", *item) for item in cast("Mapping[object, object]", headers).items())


def _headers_in(variable: str, text: str) -> dict[str, str]:
    """The headers in an environment variable: `name=value` pairs, joined by commas, with URL-encoded values."""
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    for number, entry in enumerate(entries, start=1):
        if "=" not in entry or not _ENCODED_VALUE.fullmatch(entry.partition("=")[2]):
            raise ConfigError(f"{variable}: entry {number} is not name=value with a URL-encoded value; it is not shown")
    pairs = [entry.split("=", 1) for entry in entries]
    return dict(_header(variable, name, value if " " in value else unquote(value)) for name, value in pairs)


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
        raise ConfigError(f"endpoint is {type(value).__name__}; it must be a base URL like http://localhost:4318")
    endpoint = _checked_url("endpoint", value).rstrip("/")
    if "?" in endpoint or "#" in endpoint:
        raise ConfigError("endpoint has a query, but paths are added to it; pass a key as a header")
    for path in _SIGNAL_PATHS:
        endpoint = endpoint.removesuffix(path)
    return endpoint


def _checked_url(name: str, value: str, *, scheme_is_optional: bool = False) -> str:
    url = value.strip()
    needed = "it must be a base URL like http://localhost:4318"
    if url and not _URL.fullmatch(url):
        raise ConfigError(f"{name} has a space, a line break or a non-ASCII letter, which no URL has; {needed}")
    with_scheme = f"//{url}" if scheme_is_optional and "://" not in url else url
    try:
        parts = urlsplit(with_scheme)
        is_known = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        raise ConfigError(f"{name} has a host or a port that cannot be read; {needed}") from None
    if not is_known or parts.scheme not in ("http", "https", *([""] if with_scheme != url else [])):
        raise ConfigError(f"{name} is {_without_user(url).partition('?')[0]!r}; {needed}")
    return url


def _without_user(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _authority(url: str) -> str:
    return url.rpartition("://")[2].partition("/")[0]


# --- Metrics ---


def temporality_preference() -> str:
    """What `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` says, in lower case."""
    return os.getenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower()


def histograms_are_exponential() -> bool:
    """Whether `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION` asks for exponential histograms."""
    aggregation = os.getenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "")
    return aggregation.strip().lower() == "base2_exponential_bucket_histogram"


def own_instruments_fit() -> bool:
    """Whether our instruments do what the SDK's would: not when a variable asks for other exemplars or histograms."""
    exemplars = os.getenv("OTEL_METRICS_EXEMPLAR_FILTER", "").strip().lower()
    return exemplars in ("", "trace_based") and not histograms_are_exponential()


def seconds_in(variable: str, default_ms: float) -> float:
    """The seconds that a variable gives in milliseconds; `inf` is allowed.

    Raises:
        ConfigError: it is no positive number.
    """
    value = os.getenv(variable) or default_ms
    try:
        milliseconds = float(value)
    except ValueError:
        milliseconds = 0.0
    if not milliseconds > 0:
        raise ConfigError(f"{variable} is {value!r}; it must be a positive number of milliseconds")
    return milliseconds / 1000


def sdk_is_disabled() -> bool:
    """Whether `OTEL_SDK_DISABLED` switches telemetry off."""
    return os.getenv(DISABLED_VARIABLE, "").strip().lower() == "true"
