"""Sends encoded requests by OTLP over HTTP, with `requests`: its proxies, certificates and credentials."""

from __future__ import annotations

import gzip
import http.client
import ssl
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...errors import ConfigError
from .answers import Answer, Later, Refused, Unknown, http_answer, ignore, secrets_in
from .late_import import late_import
from .otlp_options import USER_AGENT, Compression, OtlpOptions, provided_credentials

_MOST_READ = 64 * 1024
"""Bytes of an answer that are read. An OTLP answer is short; a page of HTML may be long."""

_compress: Mapping[Compression, Callable[[bytes], bytes]] = {
    "none": lambda body: body,
    "gzip": lambda body: gzip.compress(body, compresslevel=6, mtime=0),
    "deflate": lambda body: zlib.compress(body),
}

_parents: list[Any] = []
"""Sessions of the process from which this one was forked, kept so that nothing closes the parent's connections."""


class HttpTransport:
    """Sends each request over a kept connection, which the first one opens.

    Args:
        url: the URL of the receiver, with its path.
        headers: headers of each request, by lower-case name.
        options: time-out, compression, TLS and credentials.
        adapter: an HTTP adapter of `requests` that sends in place of its own.

    Raises:
        ConfigError: `requests` is not installed, or a credential provider gives no session.
    """

    def __init__(self, url: str, headers: Mapping[str, str], options: OtlpOptions, *, adapter: Any = None) -> None:
        try:
            # At once: while a program ends nothing can be imported. The first request would import the last two.
            late_import("requests", "netrc", "encodings.idna")
        except ImportError:
            raise ConfigError(
                "protocol http/protobuf needs the package requests; install it, or use protocol='grpc'"
            ) from None
        encoding = {} if options.compression == "none" else {"content-encoding": options.compression}
        standard = {"content-type": "application/x-protobuf", "user-agent": USER_AGENT}
        self._url = url
        self._headers = standard | encoding | dict(headers)
        self._secrets = secrets_in(headers, url)
        self._options = options
        self._adapter = adapter
        self._session: Any = None
        if options.credential_provider is not None:
            self._session = self._provided(options.credential_provider)

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Answer:
        data = self._data(_compress[self._options.compression](body), on_sending)
        try:
            response = self._opened().post(self._url, data=data, timeout=timeout_s, **self._request_options())
        except Exception as error:
            is_sent = data.is_sent if isinstance(data, _ObservedBody) else not _is_before_sending(error)
            return failure_answer(error, is_sent=is_sent)
        with response:
            # After one such as 103 the real answer still comes here, and the next request must not read it.
            body = _beginning(response) if response.status_code >= 200 else b""
            return http_answer(response.status_code, response.headers, body, self._secrets)

    def _data(self, body: bytes, on_sending: Callable[[], object]) -> bytes | _ObservedBody:
        # A session that is provided may sign the body, and needs bytes.
        if self._options.credential_provider is None and body:
            return _ObservedBody(body, on_sending)
        on_sending()
        return body

    def begin_anew(self) -> None:
        if self._session is not None:
            _parents.append(self._session)
            self._session = None

    def close(self) -> None:
        """Close the kept connection. A request in flight goes on to its end."""
        if self._session is not None:
            self._session.close()

    def _opened(self) -> Any:
        if self._session is None:
            provider = self._options.credential_provider
            self._session = self._new_session() if provider is None else self._provided(provider)
        return self._session

    def _new_session(self) -> Any:
        session = late_import("requests").Session()
        if self._adapter is not None:
            session.mount("http://", self._adapter)
            session.mount("https://", self._adapter)
        return session

    def _provided(self, name: str) -> Any:
        session = provided_credentials(name)
        if not isinstance(session, late_import("requests").Session):
            found = type(session).__name__
            raise ConfigError(f"the credential provider {name!r} makes a {found}; it must make a requests.Session")
        return session

    def _request_options(self) -> dict[str, Any]:
        """Certificates are passed with each request, or those of REQUESTS_CA_BUNDLE would win."""
        options: dict[str, Any] = {"headers": self._headers, "allow_redirects": False, "stream": True}
        if "authorization" in self._headers and self._options.credential_provider is None:
            options["auth"] = _as_it_is  # or a password in a netrc file would take the place of that header
        if self._options.certificate is not None:
            options["verify"] = self._options.certificate
        if self._options.client_certificate is not None:
            key = self._options.client_key
            certificate = self._options.client_certificate
            options["cert"] = certificate if key is None else (certificate, key)
        return options


def _as_it_is(request: Any) -> Any:
    """An authentication that adds nothing to the request."""
    return request


class _ObservedBody:
    """A body that reports when its sending begins, which is after the connection and its TLS are set up."""

    def __init__(self, content: bytes, on_sending: Callable[[], object]) -> None:
        self.is_sent = False
        self._content = content
        self._on_sending = on_sending

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        self.is_sent = True
        self._on_sending()
        yield self._content


def _beginning(response: Any) -> bytes:
    """The beginning of the body; empty if the connection is cut, because the status alone is an answer."""
    try:
        return bytes(response.raw.read(_MOST_READ, decode_content=True))
    except Exception:
        return b""


# --- Failures ---


def failure_answer(error: Exception, *, is_sent: bool) -> Answer:
    """What an exception of `requests` means for a request that was or was not sent before it."""
    reason = _reason(error)
    if is_sent:
        return Unknown(reason)
    is_impossible = type(error).__name__ in ("InvalidURL", "InvalidSchema", "MissingSchema", "InvalidHeader")
    return Refused(f"the request cannot be sent: {reason}") if is_impossible else Later(reason)


def _is_before_sending(error: Exception) -> bool:
    """Whether the exception was raised before anything was sent."""
    urllib3 = late_import("urllib3.exceptions")
    before = (urllib3.NewConnectionError, urllib3.ConnectTimeoutError, urllib3.ProxyError, ssl.SSLCertVerificationError)
    return any(isinstance(cause, before) for cause in causes_of(error))


def _reason(error: BaseException) -> str:
    """What happened, in a few words. The messages of `requests` repeat the URL, whose query may have a key."""
    causes = causes_of(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {cause.verify_message}"
    if any("Timeout" in type(cause).__name__ for cause in causes):
        is_connecting = any("Connect" in type(cause).__name__ for cause in causes)
        return "no connection within the time-out" if is_connecting else "no answer within the time-out"
    if any(isinstance(cause, http.client.RemoteDisconnected) for cause in causes):
        return "the connection was closed before an answer"
    if any(isinstance(cause, http.client.BadStatusLine) for cause in causes):
        return "the answer is not HTTP; if this is a port for gRPC, set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
    strings = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return strings[-1] if strings else type(causes[-1]).__name__


def causes_of(error: BaseException) -> list[BaseException]:
    """An exception and those that it came from: a cause, a `reason`, or an exception among the arguments."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [getattr(each, "reason", None), *each.args, each.__cause__]
    return found
