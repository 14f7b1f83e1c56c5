"""The shared state of this process, from its URL."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from ...errors import ConfigError
from .state_client import FLUSH_S, LEASE_S, TIMEOUT_S, StateClient
from .state_port import SharedState

_FILES = "sqlite:///relative/file or sqlite:////absolute/file"

_FORMS = "sqlite:///relative/file, sqlite:////absolute/file, redis://host:6379/0, rediss://host:6379/0 or valkey://..."

_SERVERS = ("redis", "rediss", "valkey", "valkeys")

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
        ConfigError: the URL has an unknown form; the message does not repeat the URL, which may have a password.
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
        raise ConfigError(f"{field} is not a URL; write it as {_FORMS}") from None
    if parts.fragment or (parts.scheme in _SERVERS and not re.fullmatch(r"(/[0-9]*)?", parts.path)):
        raise ConfigError(
            f"{field} has a path or a fragment that is not the number of a database; write it as {_FORMS}. "
            "In a user or a password, write /, ?, # and @ as %2F, %3F, %23 and %40"
        )
    parts, options = _split_options(field, parts, _Options(timeout_s, lease_s))
    if parts.scheme == "sqlite":
        if not value[len("sqlite:") :].startswith("///"):
            raise ConfigError(f"{field} has fewer than three slashes after sqlite:; write it as {_FILES}")
        return _sqlite(field, parts, options)
    if parts.scheme in _SERVERS and parts.hostname:
        where = f"{parts.scheme}://{parts.hostname}:{port or 6379}{parts.path}"
        return _client(_redis(field, urlunsplit(parts), options.timeout_s), where, options)
    raise ConfigError(f"{field} is not the URL of a state; write it as {_FORMS}")


@dataclass(frozen=True, slots=True)
class _Options:
    """The parameters of a state's URL that are ours."""

    timeout_s: float
    """`timeout`: the most seconds that a call waits for the state."""
    lease_s: float
    """`lease`: seconds after which what a killed process has reserved counts as spent."""


_RANGES = {"timeout": (0.01, 60.0), "lease": (1.0, 86_400.0)}
"""The least and the most seconds of each parameter."""


def _split_options(field: str, parts: SplitResult, options: _Options) -> tuple[SplitResult, _Options]:
    """The URL without our parameters, and these."""
    others: list[tuple[str, str]] = []
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in _RANGES:
            options = replace(options, **{f"{name}_s": _seconds(field, name, value)})
        elif not value:  # the client would ignore it
            raise ConfigError(f"{field} has a parameter without a value; give it one, or leave it out")
        else:
            others.append((name, value))
    return parts._replace(query=urlencode(others)), options


def _seconds(field: str, name: str, value: str) -> float:
    least, most = _RANGES[name]
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not least <= seconds <= most:
        raise ConfigError(f"{field} has {name}={value!r}; it must be {least:g} to {most:g} seconds")
    return seconds


def _client(connect: Callable[[], SharedState], where: str, options: _Options) -> StateClient:
    return StateClient(connect, where, timeout_s=options.timeout_s, lease_s=options.lease_s)


def _sqlite(field: str, parts: SplitResult, options: _Options) -> StateClient:
    path = unquote(parts.path)[1:]
    if not path:
        raise ConfigError(f"{field} names no file; write it as {_FILES}")
    if parts.query:
        raise ConfigError(f"{field} has an unsupported parameter; a SQLite file has only timeout and lease")
    path = os.path.abspath(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise ConfigError(f"{field} names a file in {folder!r}, which is not a directory; create it first")

    def connect() -> SharedState:
        from .sqlite_state import SqliteState

        return SqliteState(path, timeout_s=options.timeout_s)

    return _client(connect, path, options)


def _redis(field: str, url: str, timeout_s: float) -> Callable[[], SharedState]:
    try:
        from .redis_state import RedisState, knows_options_of
    except ImportError:
        raise ConfigError(
            f"{field} is a Redis server, but its client is missing: pip install 'tracemind-otel[redis]'"
        ) from None
    if not knows_options_of(url):
        raise ConfigError(
            f"{field} has an unsupported parameter or value; there are timeout, lease, and the parameters of redis-py"
        )
    return lambda: RedisState(url, timeout_s=timeout_s)
