"""What a receiver's answer to a request means for the items in it. Pure functions; the transports call them."""

from __future__ import annotations

import math
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from ...ai.llm.scrub import scrub
from .otlp_response import error_message, partial_success, retry_delay_in_status_s, retry_delay_s


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver took the request."""

    rejected: int = 0
    """Items of it that the receiver rejected. They are lost: it would reject them again."""
    message: str = ""
    """Why it rejected them, or a warning, in the receiver's words; without secrets."""


@dataclass(frozen=True, slots=True)
class _NotTaken:
    reason: str
    """What happened, in words; without secrets."""
    code: str = field(default="", kw_only=True)
    """The status code of gRPC; empty over HTTP, and if there was no answer."""


@dataclass(frozen=True, slots=True)
class Later(_NotTaken):
    """The receiver did not take the request, and may take it later."""

    after_s: float | None = None
    """Seconds that the receiver asks to wait before the next attempt."""


@dataclass(frozen=True, slots=True)
class Unknown(_NotTaken):
    """The request was sent, and nobody knows whether it was taken."""

    after_s: float | None = None
    """Seconds that the receiver asks to wait before the next attempt."""


@dataclass(frozen=True, slots=True)
class TooLarge(_NotTaken):
    """The receiver takes no request of this size."""


@dataclass(frozen=True, slots=True)
class Refused(_NotTaken):
    """The receiver will never take this request."""


Answer: TypeAlias = Delivered | Later | Unknown | TooLarge | Refused


def ignore() -> None:
    """Do nothing."""


class Transport(Protocol):
    """Sends requests to one receiver. One thread sends; any thread closes."""

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Answer:
        """Make one attempt, which raises nothing.

        Args:
            body: the encoded request.
            timeout_s: seconds to wait for a connection, and again for the answer.
            on_sending: called as soon as the receiver may get a part of the request.
        """
        ...

    def begin_anew(self) -> None:
        """In a forked child: the next attempt gets a connection of its own, and the parent's stays open."""
        ...

    def close(self) -> None:
        """Close the connection, and cut short the request in flight where that is possible."""
        ...


def secrets_in(headers: Mapping[str, str], url: str = "") -> frozenset[str]:
    """What must not be repeated of a request.

    It is each value of the headers, what follows a scheme such as `Bearer`, and the password of the URL, also as the
    header in which it is sent.
    """
    parts = {part for value in headers.values() for part in (value, value.rpartition(" ")[2])}
    address = urlsplit(url)
    if address.password:
        user, password = unquote(address.username or ""), unquote(address.password)
        parts |= {password, address.password, b64encode(f"{user}:{password}".encode()).decode()}
    return frozenset(filter(None, parts))


def delivered(body: bytes, *, is_json: bool, secrets: Iterable[str] = ()) -> Delivered:
    """What the body of a success says: a receiver may take a request and reject a part of it."""
    rejected, message = partial_success(body, is_json=is_json)
    return Delivered(rejected, _said(message, secrets))


# --- HTTP ---

_GATEWAY_STATUSES = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
"""A proxy sent the request on, and got no answer to it."""
_LATER_STATUSES = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_HINTS: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "the key in the headers is probably missing or wrong",
    HTTPStatus.FORBIDDEN: "the key in the headers is probably missing or wrong",
    HTTPStatus.NOT_FOUND: "no OTLP receiver has this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "no OTLP receiver has this path",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "the proxy wants a user name and a password in its URL",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "the receiver takes no protobuf, or not this compression",
}


def http_answer(status: int, headers: Mapping[str, str], body: bytes, secrets: Iterable[str] = ()) -> Answer:
    """What an HTTP response means.

    Args:
        status: its status.
        headers: its headers, whose names may have any case if the mapping ignores it.
        body: its beginning.
        secrets: strings that no message may repeat.
    """
    content_type = headers.get("content-type", "").lower()
    if status < 200:
        return Unknown(f"the answer is {_named(status)}, which another one should follow")
    if status < 300:
        if _is_page(content_type, body):
            return Refused(f"the answer is {status} with a page of HTML, so no OTLP receiver is there")
        return delivered(body, is_json="json" in content_type, secrets=secrets)
    if status < 400:
        return Refused(f"the answer is {status}, a redirect, which is not followed")
    if status in _LATER_STATUSES:
        return Later(_named(status), retry_after_s(headers.get("retry-after")))
    if status in _GATEWAY_STATUSES:
        return Unknown(_named(status), retry_after_s(headers.get("retry-after")))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge(_named(status))
    is_otlp = "json" in content_type or "protobuf" in content_type
    message = error_message(body, is_json="json" in content_type) if is_otlp else ""
    return Refused(": ".join(filter(None, (_named(status), _HINTS.get(status), _said(message, secrets)))))


def retry_after_s(value: str | None) -> float | None:
    """The seconds that a `Retry-After` header asks to wait, given in seconds or as a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _is_page(content_type: str, body: bytes) -> bool:
    return "html" in content_type or body[:64].lstrip().lower().startswith((b"<!doctype", b"<html"))


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _said(message: str, secrets: Iterable[str]) -> str:
    return scrub(" ".join(message.split()), secrets=secrets)


# --- gRPC ---

RETRYABLE_CODES = frozenset({
    "ABORTED", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "OUT_OF_RANGE", "RESOURCE_EXHAUSTED", "UNAVAILABLE",
})  # fmt: skip
"""The codes after which OTLP's exporters try again."""
_KEY_CODES = ("UNAUTHENTICATED", "PERMISSION_DENIED")
_SENT_CODES = ("CANCELLED", "DEADLINE_EXCEEDED")
"""Codes of a request that was given up after it was sent."""
_NOT_CONNECTED = ("failed to connect", "errors resolving", "dns resolution failed")
_CONNECTING = re.compile(r"^failed to connect to all addresses; last error: (?:[A-Z_]+: )?")
_CUT = ("socket closed", "stream removed", "reset", "goaway", "broken pipe", "end of tcp stream", "ping timeout")
"""How gRPC says that a connection was cut under a request. It gives the same code as a receiver that is busy."""


def grpc_answer(
    code: str,
    details: str,
    trailing: Mapping[str, bytes | str],
    secrets: Iterable[str] = (),
    retryable: frozenset[str] = RETRYABLE_CODES,
) -> Answer:
    """What a gRPC status other than OK means.

    Args:
        code: the name of the status.
        details: its message.
        trailing: the trailing metadata, which may ask for a wait.
        secrets: strings that no message may repeat.
        retryable: the codes after which the request may be sent again.
    """
    said = _said(_CONNECTING.sub("", details), secrets)
    reason = f"{code}: {said}" if said else code
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in details.lower():
        return TooLarge(reason, code=code)
    if code in retryable:
        is_sent = code in _SENT_CODES or (code == "UNAVAILABLE" and _is_cut(details.lower()))
        return (Unknown if is_sent else Later)(reason, _asked_delay_s(trailing), code=code)
    if code in _KEY_CODES:
        return Refused(f"{reason}; the key in the headers is probably missing or wrong", code=code)
    return Refused(reason, code=code)


def _is_cut(details: str) -> bool:
    return not details.startswith(_NOT_CONNECTED) and any(sign in details for sign in _CUT)


def _asked_delay_s(trailing: Mapping[str, bytes | str]) -> float | None:
    info, status = trailing.get("google.rpc.retryinfo-bin"), trailing.get("grpc-status-details-bin")
    delay_s = retry_delay_s(info) if isinstance(info, bytes) else None
    return retry_delay_in_status_s(status) if delay_s is None and isinstance(status, bytes) else delay_s
