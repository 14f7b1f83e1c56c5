"""What requests and replies are made of, and checks of a base URL and a key; without an HTTP library."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...._version import __version__
from ....errors import ConfigError

Headers = Sequence[tuple[str, str]]
"""Header names and values, as they are sent."""

OWN_AGENT = f"tracemind-otel/{__version__}"
"""The `user-agent` of every request, by which the hooks of HTTP libraries know them."""

JSON_HEADERS: Headers = (
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate"),
    ("content-type", "application/json"),
    ("user-agent", OWN_AGENT),
)
"""The headers of every request."""

_REQUEST_ID_HEADERS = (
    "apim-request-id",
    "x-request-id",
    "request-id",
    "mistral-correlation-id",
    "x-debug-trace-id",
    "x-generation-id",
    "x-ms-request-id",
    "x-litellm-call-id",
    "x-amzn-requestid",
)
"""Azure's own comes first, since it sends two."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """One whole reply."""

    status_code: int
    """The HTTP status."""
    headers: Mapping[str, str]
    """The headers, by names in any case."""
    body: bytes
    """The body, decompressed."""

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request, from the first of the known headers."""
        names = self.headers.keys()  # httpx compares each name that it gets with all that came
        return next((value for name in _REQUEST_ID_HEADERS if name in names and (value := self.headers[name])), None)


def http_libraries() -> list[ModuleType]:
    """Those of httpx and its successor that are loaded.

    One that another thread is still loading cannot have failed yet; both define `__all__` last.
    """
    loaded = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return [library for library in loaded if library is not None and hasattr(library, "__all__")]


def library_of(client: object) -> Any:
    """The library that a client comes from.

    Raises:
        ConfigError: it comes from neither.
    """
    for library in http_libraries():
        if isinstance(client, library.AsyncClient):
            return library
    kind = f"{type(client).__module__.partition('.')[0]}.{type(client).__qualname__}"
    raise ConfigError(f"http_client is of the kind {kind}; it must be an httpx.AsyncClient (or an httpx2.AsyncClient)")


def base_url_of(field: str, value: str) -> tuple[str, SplitResult]:
    """Check a base URL; returns it without a trailing slash, and its parts.

    Raises:
        ConfigError: it is not an http or https URL, or holds what may be a key.
    """
    try:
        parts = urlsplit(value.strip())
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port or the brackets
        parts, is_valid = SplitResult("", "", "", "", ""), False
    if not is_valid:
        raise ConfigError(f"{field} must be an http:// or https:// URL with a host, like https://api.example.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(f"{field} must not hold a user, a password or a query; pass the key as api_key")
    return parts.geturl().rstrip("/"), parts


def key_of(field: str, value: str | None) -> str | None:
    """Check a key without ever showing it; `None` when there is none.

    Raises:
        ConfigError: it holds a character that no HTTP header can carry.
    """
    key = (value or "").strip()
    for position, character in enumerate(key):
        if not "!" <= character <= "~":
            raise ConfigError(f"{field}: the character at position {position} cannot be sent in an HTTP header")
    return key or None
