"""The transport of one signal, over HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .answers import Transport
from .grpc_transport import GrpcTransport
from .http_transport import HttpTransport
from .otlp_options import OtlpOptions
from .otlp_variables import Protocol, Signal


def make_transport(
    signal: Signal,
    protocol: Protocol,
    url: str,
    headers: Mapping[str, str],
    options: OtlpOptions,
    *,
    adapter: Any = None,
) -> Transport:
    """Make the transport of one signal, which connects when it first sends.

    Args:
        signal: what is sent.
        protocol: over which protocol.
        url: the URL of the receiver, over HTTP with its path.
        headers: headers of each request, by lower-case name.
        options: time-out, compression, TLS and credentials, as `otlp_options` reads them.
        adapter: over HTTP, an adapter of `requests` that sends in place of its own.

    Raises:
        ConfigError: what it needs is not installed, or a credential provider fails.
    """
    if protocol == "grpc":
        return GrpcTransport(signal, url, headers, options)
    return HttpTransport(url, headers, options, adapter=adapter)
