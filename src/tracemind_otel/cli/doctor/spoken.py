"""What a port speaks: TLS or plain, HTTP/1.1 or HTTP/2. Asked without OTLP, to tell why an export failed."""

from __future__ import annotations

import socket
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass

_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The connection preface of HTTP/2 with an empty SETTINGS frame (RFC 9113, 3.4)."""
_ANSWER_BYTES = 4096
_SETTINGS = 4
"""The type of the frame that an HTTP/2 server sends first."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a port speaks."""

    refusal: str | None = None
    """Why no connection could be made; `None` when one was."""
    tls: bool = False
    """Whether it speaks TLS."""
    http1: bool = False
    """Whether it answers HTTP/1.1."""
    http2: bool = False
    """Whether it answers HTTP/2, which gRPC needs."""


@dataclass(frozen=True, slots=True)
class _Port:
    host: str
    number: int
    timeout_s: float
    """Seconds for each connection and for each answer."""

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.number), timeout=self.timeout_s)


def spoken_at(host: str, number: int, *, timeout_s: float) -> Spoken:
    """Connect to a port and listen to what it answers; each of three questions gets `timeout_s` seconds."""
    port = _Port(host, number, timeout_s)
    try:
        port.connect().close()
    except OSError as error:
        return Spoken(refusal=_reason(error, timeout_s))
    is_tls = _speaks_tls(port)
    request = f"POST /v1/traces HTTP/1.1\r\nHost: {host}:{number}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return Spoken(
        tls=is_tls,
        http1=_answer(port, request.encode(), "http/1.1" if is_tls else None).startswith(b"HTTP/1."),
        http2=_begins_http2(_answer(port, _HTTP2_GREETING, "h2" if is_tls else None)),
    )


def _reason(error: OSError, timeout_s: float) -> str:
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout_s:.2g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens on that port"
    return error.strerror or type(error).__name__


def _speaks_tls(port: _Port) -> bool:
    with suppress(OSError, ValueError), closing(port.connect()) as plain, _wrapped(plain, port.host, "h2", "http/1.1"):
        return True
    return False


def _wrapped(plain: socket.socket, host: str, *protocols: str) -> ssl.SSLSocket:
    """Trusts any certificate: whether it can be trusted is seen by the export itself, and nothing secret is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([*protocols])
    return context.wrap_socket(plain, server_hostname=host)


def _answer(port: _Port, request: bytes, tls_protocol: str | None) -> bytes:
    """The first bytes of an answer; none where there is no answer."""
    with suppress(OSError, ValueError), closing(port.connect()) as plain:
        connection = plain if tls_protocol is None else _wrapped(plain, port.host, tls_protocol)
        with closing(connection):
            connection.sendall(request)
            return connection.recv(_ANSWER_BYTES)
    return b""


def _begins_http2(answer: bytes) -> bool:
    """Whether it is a frame of SETTINGS: three bytes of length, then the type."""
    return len(answer) >= 4 and not answer.startswith(b"HTTP") and answer[3] == _SETTINGS
