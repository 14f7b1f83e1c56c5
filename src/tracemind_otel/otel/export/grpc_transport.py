"""Sends encoded requests by OTLP over gRPC, as raw bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ...errors import ConfigError
from .answers import Answer, Later, Unknown, delivered, grpc_answer, ignore, secrets_in
from .late_import import late_import
from .otlp_options import USER_AGENT, OtlpOptions, provided_credentials
from .otlp_variables import Signal

_METHODS: Mapping[Signal, str] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

_parents: list[Any] = []
"""Channels of the process from which this one was forked, kept so that nothing closes the parent's connections."""


class GrpcTransport:
    """Sends each request over a channel, which the first one opens.

    Args:
        signal: what is sent.
        url: the URL of the receiver, or its host and port.
        headers: metadata of each request, by lower-case name.
        options: compression, TLS and credentials.

    Raises:
        ConfigError: gRPC is not installed, or a credential provider gives no credentials.
    """

    def __init__(self, signal: Signal, url: str, headers: Mapping[str, str], options: OtlpOptions) -> None:
        try:
            late_import("grpc")  # at once: while a program ends nothing can be imported
        except ImportError:
            raise ConfigError(
                "protocol grpc needs the package grpcio; install it, or use protocol='http/protobuf'"
            ) from None
        self._method = _METHODS[signal]
        self._target = urlsplit(url).netloc if "://" in url else url
        self._metadata = tuple(headers.items())
        self._secrets = secrets_in(headers)
        self._options = options
        self._channel: Any = None
        self._credentials: Any = None
        if options.is_secure and options.credential_provider is not None:
            self._credentials = self._provided(options.credential_provider)

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Answer:
        try:
            export = self._opened().unary_unary(self._method, request_serializer=None, response_deserializer=None)
            on_sending()
            answer = export(body, timeout=timeout_s, metadata=self._metadata)
        except Exception as error:
            return self._failure(error)
        return delivered(answer, is_json=False, secrets=self._secrets)

    def begin_anew(self) -> None:
        if self._channel is not None:
            _parents.append(self._channel)
            self._channel = None

    def close(self) -> None:
        """Close the channel, which also ends a request in flight."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _failure(self, error: Any) -> Answer:
        if not isinstance(error, late_import("grpc").RpcError):  # before anything was sent: the channel was closed
            return Later(f"the request cannot be sent: {type(error).__name__}")
        code: str = error.code().name
        if code == "CANCELLED" and self._channel is None:
            return Unknown("no answer before the end", code=code)
        if code == "UNAVAILABLE":
            self.close()  # or the channel tries to connect again only after a wait of its own, of up to two minutes
        trailing: dict[str, bytes | str] = dict(error.trailing_metadata() or ())
        return grpc_answer(code, error.details() or "", trailing, self._secrets, self._options.retryable_codes)

    def _opened(self) -> Any:
        if self._channel is None:
            grpc: Any = late_import("grpc")
            options = [("grpc.primary_user_agent", USER_AGENT)]
            compression = grpc.Compression.Gzip if self._options.compression == "gzip" else None
            if self._options.is_secure:
                credentials = self._credentials or self._read_credentials(grpc)
                self._channel = grpc.secure_channel(self._target, credentials, options, compression)
            else:
                self._channel = grpc.insecure_channel(self._target, options, compression)
        return self._channel

    def _read_credentials(self, grpc: Any) -> Any:
        options = self._options
        files = (options.certificate, options.client_key, options.client_certificate)
        self._credentials = grpc.ssl_channel_credentials(*map(_content, files))
        return self._credentials

    def _provided(self, name: str) -> Any:
        credentials = provided_credentials(name)
        if not isinstance(credentials, late_import("grpc").ChannelCredentials):
            found = type(credentials).__name__
            raise ConfigError(f"the credential provider {name!r} makes a {found}; it must make ChannelCredentials")
        return credentials


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
