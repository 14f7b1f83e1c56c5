"""The shared state of this process, from its URL."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit

from ...errors import ConfigError
from .state_client import FLUSH_S, LEASE_S, TIMEOUT_S, StateClient
from .state_port import SharedState

_FORMS = "sqlite:///relative/file, sqlite:////absolute/file, redis://host:6379/0, rediss://host:6379/0 or valkey://..."

_current: StateClient | None = None


def current_state() -> StateClient | None:
    """The shared state of this process; `None` where there is none."""
    return _current


def use_state(client: StateClient | None) -> None:
    """Make this the shared state of this process; the one before delivers its settlements and is closed."""
    global _current
    before, _current = _current, client
    if before is not None and before is not client:
        before.close()
    if client is not None:
        client.start()


def flush_state(timeout_s: float = FLUSH_S) -> bool:
    """Deliver what was spent to the shared state, before the process ends; returns whether all was delivered.

    A state that is away is not waited for.
    """
    client = _current
    return client is None or client.flush(0.0 if client.is_away else min(timeout_s, FLUSH_S))


def state_at(url: str | None, *, timeout_s: float = TIMEOUT_S, lease_s: float = LEASE_S) -> StateClient | None:
    """The shared state at a URL, else at that of `TRACEMIND_STATE`; it connects with the first call.

    Raises:
        ConfigError: the URL has no form that is known; its message does not repeat the URL, which may have a password.
    """
    field = "TRACEMIND_STATE" if url is None else "state"
    value = cast("object", os.getenv("TRACEMIND_STATE") or None if url is None else url)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{field} is {type(value).__name__}; it must be a URL such as {_FORMS}")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ConfigError(f"{field} is no URL; it must be one such as {_FORMS}") from None
    if parts.scheme == "sqlite":
        return _sqlite(field, parts, timeout_s, lease_s)
    if parts.scheme in ("redis", "rediss", "valkey", "valkeys") and parts.hostname:
        where = f"{parts.scheme}://{parts.hostname}:{port or 6379}{parts.path}"
        return StateClient(_redis(value, timeout_s), where, timeout_s=timeout_s, lease_s=lease_s)
    raise ConfigError(f"{field} names no state that is known; it must be a URL such as {_FORMS}")


def _sqlite(field: str, parts: SplitResult, timeout_s: float, lease_s: float) -> StateClient:
    path = unquote(parts.path)[1:]
    if parts.netloc or not path:
        raise ConfigError(f"{field} names no file; write it as sqlite:///relative/file or sqlite:////absolute/file")
    path = os.path.abspath(path)
    if not os.path.isdir(os.path.dirname(path)):
        raise ConfigError(f"{field} names a file in {os.path.dirname(path)!r}, which is no directory; make it first")

    def connect() -> SharedState:
        from .sqlite_state import SqliteState

        return SqliteState(path, timeout_s=timeout_s)

    return StateClient(connect, path, timeout_s=timeout_s, lease_s=lease_s)


def _redis(url: str, timeout_s: float) -> Callable[[], SharedState]:
    try:
        from .redis_state import RedisState
    except ImportError:
        raise ConfigError(
            "state is a Redis server, but its client is missing: pip install 'tracemind-otel[redis]'"
        ) from None
    return lambda: RedisState(url, timeout_s=timeout_s)
