"""The httpx transports of the pools, over aiohttp. Imports and TLS set-up are slow, hence for a worker thread."""

from __future__ import annotations

import inspect
import os
import ssl
import threading
import urllib.request
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._body import response_class
from ._exchange import watching_connector
from ._faults import no_certificates, unusable_proxy
from ._proxies import proxy_for

if TYPE_CHECKING:
    import aiohttp
    import httpx

_KEEP_IDLE_S = 20.0
"""Seconds an idle connection is kept: servers drop theirs after a minute or so."""
_MAX_HEADER = 128 * 1024
"""Bytes of the longest header that is read."""
_MAX_HEADERS = 2048

_importing = threading.Lock()
"""Threads that import one package at the same time may see it half initialized."""


def new_transport(base_url: str, *, keeps_connections: bool) -> httpx.AsyncBaseTransport:
    """A transport to one server, with the proxy that the environment has for it.

    Raises:
        LLMConnectionError: the environment names certificates that cannot be loaded, or a proxy of another kind.
    """
    with _importing:
        from httpx_aiohttp import AiohttpTransport
    proxy = proxy_for(base_url, urllib.request.getproxies())
    trusted = _trusted(base_url, proxy)

    def session() -> aiohttp.ClientSession:
        return _new_session(trusted, proxy, keeps_connections=keeps_connections)

    return AiohttpTransport(verify=trusted, trust_env=False, client=session)


def _new_session(trusted: ssl.SSLContext, proxy: str | None, *, keeps_connections: bool) -> aiohttp.ClientSession:
    """A session of the running loop. A limit of 0 is none."""
    import aiohttp

    if keeps_connections:
        connector = watching_connector()(limit=0, ssl=trusted, keepalive_timeout=_KEEP_IDLE_S)
    else:
        connector = watching_connector()(limit=0, ssl=trusted, force_close=True)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
        response_class=response_class(),
        max_line_size=_MAX_HEADER,
        max_field_size=_MAX_HEADER,
        **_most_headers(),
    )


@lru_cache(maxsize=1)
def _most_headers() -> dict[str, Any]:
    """Newer releases of aiohttp limit the number of headers."""
    import aiohttp

    takes_limit = "max_headers" in inspect.signature(aiohttp.ClientSession.__init__).parameters
    return {"max_headers": _MAX_HEADERS} if takes_limit else {}


def _trusted(base_url: str, proxy: str | None) -> ssl.SSLContext:
    proxy_scheme = urlsplit(proxy).scheme if proxy else "http"
    if proxy_scheme not in ("http", "https"):
        raise unusable_proxy(proxy_scheme)
    if "https" not in (urlsplit(base_url).scheme, proxy_scheme):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts no one, and is never used
    try:
        return _from_environment(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    except OSError as error:
        raise no_certificates(error) from error


@lru_cache(maxsize=4)
def _from_environment(_cert_file: str | None, _cert_dir: str | None) -> ssl.SSLContext:
    """Loading the certificates takes tens of milliseconds."""
    import httpx

    return httpx.create_ssl_context()
