"""How telemetry is sent: what the standard variables say, for all signals or for one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Literal
from urllib.parse import urlsplit

from ..._version import __version__
from ...errors import ConfigError
from .answers import RETRYABLE_CODES
from .otlp_variables import Protocol, Signal, otlp_variable

Compression = Literal["none", "gzip", "deflate"]

USER_AGENT = f"tracemind-otel/{__version__}"
"""The product that sends, as every request names it."""

_DEFAULT_TIMEOUT_S = 10.0
_COMPRESSIONS: dict[Protocol, tuple[Compression, ...]] = {
    "http/protobuf": ("none", "gzip", "deflate"),
    "grpc": ("none", "gzip"),
}
_PROVIDERS = "opentelemetry_otlp_credential_provider"
"""The group of entry points whose functions make a session of `requests`, or credentials of gRPC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OtlpOptions:
    """How one signal is sent to its receiver."""

    timeout_s: float
    """Seconds to wait for a connection, and again for the answer."""
    compression: Compression
    """How the body is compressed."""
    is_secure: bool
    """Whether the connection has TLS."""
    certificate: str | None
    """A file with the certificates of the authorities that are trusted; `None` for those of the system."""
    client_key: str | None
    """A file with the client's private key."""
    client_certificate: str | None
    """A file with the client's certificate, for a receiver that asks for one."""
    credential_provider: str | None
    """The name of an entry point that makes the session or the credentials."""
    retryable_codes: frozenset[str]
    """The gRPC codes after which a request is sent again."""


def otlp_options(signal: Signal, protocol: Protocol, url: str) -> OtlpOptions:
    """Read the variables of one signal, as the exporters of OpenTelemetry for Python read them.

    Raises:
        ConfigError: a variable has a value that is not allowed, or names a file that cannot be read.
    """
    is_secure = _is_secure(signal, protocol, url)
    transport = "HTTP" if protocol == "http/protobuf" else "GRPC"
    return OtlpOptions(
        timeout_s=_timeout_s(*otlp_variable(signal, "TIMEOUT")),
        compression=_compression(protocol, *otlp_variable(signal, "COMPRESSION")),
        is_secure=is_secure,
        certificate=_file(signal, "CERTIFICATE") if is_secure else None,
        client_key=_file(signal, "CLIENT_KEY") if is_secure else None,
        client_certificate=_file(signal, "CLIENT_CERTIFICATE") if is_secure else None,
        credential_provider=otlp_variable(
            signal, "CREDENTIAL_PROVIDER", f"OTEL_PYTHON_EXPORTER_OTLP_{transport}"
        )[1] or None,
        retryable_codes=_retryable_codes("OTEL_PYTHON_EXPORTER_OTLP_GRPC_RETRYABLE_ERROR_CODES"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOptions:
    """When a batch is sent."""

    delay_s: float
    """Seconds after which a batch is sent that is not full."""
    max_items: int
    """Items that make a batch full."""


def batch_options(signal: Signal) -> BatchOptions:
    """Read the variables of batches. The limit of the queue is only checked: the spool has one in bytes.

    Metrics have none: their reader has an interval of its own.

    Raises:
        ConfigError: a variable has a value that is not allowed.
    """
    if signal == "metrics":
        return BatchOptions(delay_s=1.0, max_items=512)
    prefix, delay_ms = ("OTEL_BSP", 5000) if signal == "traces" else ("OTEL_BLRP", 1000)
    batch, queue = f"{prefix}_MAX_EXPORT_BATCH_SIZE", f"{prefix}_MAX_QUEUE_SIZE"
    max_items, max_queue = _positive(batch, 512), _positive(queue, 2048)
    if max_items > max_queue:
        raise ConfigError(f"{batch} is {max_items}; it must not be larger than {queue}, which is {max_queue}")
    return BatchOptions(delay_s=_positive(f"{prefix}_SCHEDULE_DELAY", delay_ms) / 1000, max_items=max_items)


def _positive(name: str, default: int) -> int:
    value = os.getenv(name, "").strip()
    if value and (not value.isdecimal() or int(value) == 0):
        raise ConfigError(f"{name} is {value!r}; it must be a positive whole number")
    return int(value or default)


def provided_credentials(name: str) -> Any:
    """What the credential provider of this name makes.

    Raises:
        ConfigError: no package that is installed has a provider of this name, or it fails.
    """
    found = [*entry_points(group=_PROVIDERS, name=name)]
    if not found:
        raise ConfigError(
            f"the credential provider {name!r}, which a variable names, is not installed; install its package, "
            f"which has an entry point of this name in the group {_PROVIDERS}"
        )
    try:
        return found[0].load()()
    except Exception as error:
        raise ConfigError(f"the credential provider {name!r} fails with {type(error).__name__}") from error


def _is_secure(signal: Signal, protocol: Protocol, url: str) -> bool:
    scheme = urlsplit(url).scheme if "://" in url else ""
    if protocol == "http/protobuf" or scheme == "https":
        return scheme == "https"
    insecure = otlp_variable(signal, "INSECURE")[1].lower()
    return insecure != "true" if insecure else scheme != "http"


def _timeout_s(name: str, value: str) -> float:
    """Seconds, although the specification has milliseconds: so do the exporters of OpenTelemetry for Python."""
    try:
        timeout_s = float(value or _DEFAULT_TIMEOUT_S)
    except ValueError:
        timeout_s = 0.0
    if not 0 < timeout_s < float("inf"):
        raise ConfigError(f"{name} is {value!r}; it must be a positive number of seconds")
    return timeout_s


def _compression(protocol: Protocol, name: str, value: str) -> Compression:
    allowed = _COMPRESSIONS[protocol]
    for compression in allowed:
        if compression == (value.lower() or "none"):
            return compression
    raise ConfigError(f"{name} is {value!r}; over {protocol} it must be one of {', '.join(allowed)}")


def _file(signal: Signal, option: str) -> str | None:
    name, path = otlp_variable(signal, option)
    if not path:
        return None
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise ConfigError(f"{name} is {path!r}, which cannot be read: {error.strerror}") from error


def _retryable_codes(name: str) -> frozenset[str]:
    return frozenset(filter(None, (code.strip().upper() for code in os.getenv(name, "").split(",")))) or RETRYABLE_CODES
