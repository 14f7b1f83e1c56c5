"""The options of `configure()`, and every environment variable that is read for them.

The SDK and its exporters read the rest of the standard `OTEL_*` variables themselves: service name, resource
attributes, sampler, headers, time-outs, compression, certificates, batch sizes, `OTEL_SDK_DISABLED`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import urlsplit

from ...errors import ConfigError

Protocol = Literal["http/protobuf", "grpc"]
"""How OTLP travels."""

Signal = Literal["traces", "metrics"]
"""What is exported."""

PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_PROTOCOL"
ENDPOINT_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
DISABLED_VARIABLE = "OTEL_SDK_DISABLED"

_EXPLICIT = "explicit_bucket_histogram"
_PROTOCOLS: dict[str, Protocol] = {"http/protobuf": "http/protobuf", "grpc": "grpc"}
_DEFAULT_ENDPOINTS = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}
_SIGNALS: tuple[Signal, ...] = ("traces", "metrics")
_SIGNAL_PATHS = ("/v1/traces", "/v1/metrics")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Where telemetry goes."""

    endpoint: str | None = None
    """Base URL of an OTLP receiver; `None` leaves it to `OTEL_EXPORTER_OTLP_ENDPOINT` and its default."""
    protocols: Mapping[Signal, Protocol]
    """How OTLP travels, for each signal."""
    headers: Mapping[str, str] | None = None
    """Headers of each export; `None` leaves them to `OTEL_EXPORTER_OTLP_HEADERS`."""
    file: str | None = None
    """A file that gets the spans as OTLP JSON lines."""
    signals: frozenset[Signal] = frozenset(("traces", "metrics"))
    """What goes to the receiver: nothing when a file is all that was asked for."""

    @property
    def has_endpoint(self) -> bool:
        """Whether somebody said where telemetry goes."""
        return self.endpoint is not None or any(map(os.getenv, ENDPOINT_VARIABLES))

    def signal_endpoint(self, signal: Signal) -> str | None:
        """The endpoint to give to one signal's exporter; `None` leaves it to the environment."""
        return None if self.endpoint is None else self._with_path(self.endpoint, signal)

    def destination(self, signal: Signal) -> str:
        """Where one signal goes, for a person; without a user name or password."""
        own_variable = os.getenv(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        if self.endpoint is None and own_variable:
            return _without_user(own_variable)
        base = self.endpoint or os.getenv("OTEL_EXPORTER_OTLP_ENDPOINT") or _DEFAULT_ENDPOINTS[self.protocols[signal]]
        return _without_user(self._with_path(base.rstrip("/"), signal))

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
    return ExportConfig(
        endpoint=None if endpoint is None else _endpoint(endpoint),
        protocols={signal: _protocol(protocol, signal) for signal in _SIGNALS},
        headers=_headers(headers),
        file=None if file is None else os.fspath(file),
        signals=_signals(is_file_alone=file is not None and endpoint is None),
    )


def _signals(*, is_file_alone: bool) -> frozenset[Signal]:
    switched_on = frozenset[Signal](signal for signal in _SIGNALS if _exporter_is_on(signal))
    is_wanted = not is_file_alone or any(map(os.getenv, ENDPOINT_VARIABLES))
    return switched_on if is_wanted else frozenset[Signal]()


def _headers(headers: object) -> Mapping[str, str] | None:
    if headers is None or isinstance(headers, Mapping):
        return cast("Mapping[str, str] | None", headers)
    raise ConfigError(f"headers is {type(headers).__name__}; it must be a mapping of names to values")


def _protocol(argument: str | None, signal: Signal) -> Protocol:
    own_variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    named = [("protocol", argument), *((name, os.getenv(name)) for name in (own_variable, PROTOCOL_VARIABLE))]
    name, value = next(((name, value) for name, value in named if value), ("protocol", "http/protobuf"))
    value = value.strip()
    if value not in _PROTOCOLS:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(_PROTOCOLS)}")
    return _PROTOCOLS[value]


def _endpoint(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"endpoint is {value!r}; it must be a base URL like http://localhost:4318")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"endpoint is {_without_user(value)!r}; it must be a base URL like http://localhost:4318")
    endpoint = value.rstrip("/")
    for path in _SIGNAL_PATHS:
        endpoint = endpoint.removesuffix(path)
    return endpoint


def _without_user(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _exporter_is_on(signal: Signal) -> bool:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    value = (os.getenv(variable) or "otlp").strip().lower()
    if value not in ("otlp", "none"):
        raise ConfigError(
            f"{variable} is {value!r}; configure() offers otlp or none. Pass a provider of your own instead"
        )
    return value == "otlp"


def histograms_are_delta() -> bool:
    """What `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` means for histograms (OTLP exporter specification)."""
    return os.getenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "").strip().lower() in ("delta", "lowmemory")


def lean_instruments_fit() -> bool:
    """Whether our own histograms do what the SDK's would: not when its variables ask for others."""
    exemplars = os.getenv("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based").strip().lower()
    aggregation = os.getenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", _EXPLICIT).strip().lower()
    return exemplars in ("", "trace_based") and aggregation in ("", _EXPLICIT)


def sdk_is_disabled() -> bool:
    """Whether `OTEL_SDK_DISABLED` switches telemetry off."""
    return os.getenv(DISABLED_VARIABLE, "").strip().lower() == "true"
