"""Faults below HTTP as typed errors with a reason in words, the same for each HTTP library."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Generator, Mapping
from urllib.parse import urlsplit

import aiohttp

from ....errors import LLMConnectionError, LLMError, LLMResponseError, LLMTimeoutError
from ._compression import UndecodableError
from ._http import http_libraries


def transport_faults() -> tuple[type[Exception], ...]:
    """The exceptions that the HTTP libraries raise where no whole reply came."""
    own = [fault for library in http_libraries() for fault in (library.HTTPError, library.StreamError)]
    return (*own, aiohttp.ClientError, UndecodableError, OSError, EOFError)


def native_fault(error: BaseException) -> BaseException:
    """The fault of the library that has the connection; httpx's transports raise one of httpx's own from it."""
    return error if isinstance(error, aiohttp.ClientError) else error.__cause__ or error


def transport_error(error: Exception, url: str) -> LLMError:
    """The typed error for a fault of a request to this URL."""
    where = urlsplit(url).netloc
    may_be_billed = not _was_never_sent(error)
    if tls_faults := [each for each in _chain(error) if isinstance(each, ssl.SSLError)]:
        return _tls_error(tls_faults[-1], where, may_be_billed=may_be_billed)
    if (what := _unreadable(error)) is not None:
        # Another request would cost as much and bring the same.
        return LLMResponseError(f"the reply of {where} {what}", retryable=False)
    cause = native_fault(error)
    is_aiohttp = isinstance(cause, aiohttp.ClientError)  # whose adapter for httpx calls most of its faults time-outs
    if isinstance(cause, aiohttp.ServerTimeoutError) or (_is_a(error, "TimeoutException") and not is_aiohttp):
        return LLMTimeoutError(f"no answer from {where} in time", may_be_billed=may_be_billed)
    return _connection_error(error, where, may_be_billed=may_be_billed)


def _connection_error(error: Exception, where: str, *, may_be_billed: bool) -> LLMConnectionError:
    cause = native_fault(error)
    is_retryable = not isinstance(cause, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError)
    reason = _reason(error)
    if isinstance(cause, aiohttp.ClientHttpProxyError):
        status, may_be_billed = cause.status, False
        is_retryable = status >= 500 or status == 429
        hint = "; put its user and password into the proxy's URL" if status == 407 else ""
        reason = f"the proxy refused it with HTTP status {status}{hint}"
    message = f"connection to {where} failed: {reason}"
    return LLMConnectionError(message, retryable=is_retryable, may_be_billed=may_be_billed)


def _unreadable(error: Exception) -> str | None:
    """What is wrong with a reply that came and cannot be read; `None` for any other fault."""
    cause = native_fault(error)
    if isinstance(error, UndecodableError) or _is_a(error, "DecodingError"):
        return "cannot be read: its body is not compressed as its content-encoding says"
    is_http = isinstance(cause, aiohttp.ClientResponseError | aiohttp.http.HttpProcessingError)
    if is_http and not isinstance(cause, aiohttp.ClientHttpProxyError):
        return "is not valid HTTP"
    is_httpx_protocol = _is_a(error, "RemoteProtocolError") and not str(error).startswith(_BREAKS)
    return "is not valid HTTP" if is_httpx_protocol else None


_BREAKS = ("Server disconnected", "peer closed connection", "<ConnectionTerminated")
"""httpx has one class for a reply that broke off and for one that is not HTTP; only its message tells them apart."""


def _is_a(error: BaseException, name: str) -> bool:
    return isinstance(error, tuple(getattr(library, name) for library in http_libraries()))


def _was_never_sent(error: Exception) -> bool:
    """Whether no connection was made, so that no byte of the request left."""
    cause = native_fault(error)
    if isinstance(cause, aiohttp.ClientError):
        return isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    is_httpx_own = cause is error or type(cause).__module__.startswith("httpcore")
    return is_httpx_own and any(_is_a(error, name) for name in ("ConnectError", "ConnectTimeout", "PoolTimeout"))


def _chain(error: BaseException) -> Generator[BaseException]:
    inner: BaseException | None = error
    while inner is not None:
        yield inner
        inner = inner.__cause__ or inner.__context__


# --- Reasons. Never an exception's own text, which may hold a URL or a header

_NO_HTTP_ADDRESS = "the address is not one of HTTP; check base_url"
_CUT = "the server closed it in the middle of the reply"
_UNANSWERED = "the server closed it before it answered"
_BY_NAME: Mapping[str, str] = {
    "ClientPayloadError": _CUT,
    "ServerDisconnectedError": _UNANSWERED,
    "ClientConnectionResetError": "the server closed it before the request was sent",
    "UnsupportedProtocol": _NO_HTTP_ADDRESS,
    "InvalidURL": _NO_HTTP_ADDRESS,
    "NonHttpUrlClientError": _NO_HTTP_ADDRESS,
    "LocalProtocolError": "the request cannot be sent as HTTP",
    "ReadError": "the server closed it while the reply was awaited",
    "WriteError": "the server closed it while the request was sent",
    "CloseError": "the server closed it",
    "StreamError": "it was closed before the reply was read",
    "ConnectError": "the server cannot be reached",
    "ProxyError": "the proxy refused it",
    "TimeoutException": "no answer in time",
    "ServerTimeoutError": "no answer in time",
    "EOFError": _CUT,
    "ClientConnectionError": "it was closed",
    "OSError": "it was closed",
}


def _reason(error: BaseException) -> str:
    """The operating system's word where there is one, else what the class of the error means."""
    for each in _chain(error):
        if isinstance(each, socket.gaierror) or type(each).__name__ == "ClientConnectorDNSError":
            return "the name of the host cannot be resolved; check base_url and the network"
        number = getattr(each, "errno", None)
        if isinstance(number, int) and number > 0:
            is_proxy = any(isinstance(every, aiohttp.ClientProxyConnectionError) for every in _chain(error))
            return ("the proxy cannot be reached: " if is_proxy else "") + os.strerror(number)
    if _is_a(error, "RemoteProtocolError"):
        return _CUT if str(error).startswith("peer closed connection") else _UNANSWERED
    classes = (*type(native_fault(error)).__mro__, *type(error).__mro__)
    return next((_BY_NAME[each.__name__] for each in classes if each.__name__ in _BY_NAME), "it broke")


# --- TLS


def _tls_error(fault: ssl.SSLError, where: str, *, may_be_billed: bool) -> LLMConnectionError:
    """The error for the innermost fault, which is Python's own."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        reason = fault.verify_message or "it does not belong to the host"
        return _unsent(f"the certificate of {where} is not trusted: {reason.rstrip('.')}{_trust_hint()}")
    if isinstance(fault, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return LLMConnectionError(f"connection to {where} failed: the server closed it", may_be_billed=may_be_billed)
    reason = (fault.reason or "handshake failure").replace("_", " ").lower()
    return LLMConnectionError(f"TLS with {where} failed: {reason}", retryable=False, may_be_billed=may_be_billed)


def _trust_hint() -> str:
    """What the environment says about certificates to trust, and whether that file is there."""
    for name, is_there in (("SSL_CERT_FILE", os.path.isfile), ("SSL_CERT_DIR", os.path.isdir)):
        if path := os.environ.get(name):
            return f" ({name} is {path}" + (")" if is_there(path) else ", which does not exist)")
    return " (SSL_CERT_FILE can name a file of further certificates to trust)"


def no_certificates(error: OSError) -> LLMConnectionError:
    """The error where the certificates to trust cannot be loaded."""
    reason = "there is no certificate in it" if isinstance(error, ssl.SSLError) else os.strerror(error.errno or 0)
    return _unsent(f"the certificates to trust cannot be loaded: {reason}{_trust_hint()}")


def unusable_proxy(scheme: str) -> LLMConnectionError:
    """The error for a proxy of a kind that the transport does not support."""
    return _unsent(
        f"the environment names a {scheme}:// proxy, which is not supported: "
        "name an http:// proxy, add the host to NO_PROXY, or pass http_client=httpx.AsyncClient(proxy=...)"
    )


def _unsent(message: str) -> LLMConnectionError:
    """No request was sent, and none would be another time."""
    return LLMConnectionError(message, retryable=False, may_be_billed=False)
