"""`wrap()`: see the model calls of one client only."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import TypeVar, cast

from ..errors import ConfigError
from ..flows.totals import before_flow_ends
from . import observation
from .instrument import HOOKS, named_hosts

C = TypeVar("C")

_MAX_DEPTH = 5
"""Attributes on the way from an SDK's object to its HTTP client: no SDK has more than four."""
_MAX_OBJECTS = 5_000
"""Objects that are looked at: an SDK's client has a few hundred."""


def wrap(client: C, *, hosts: Mapping[str, str] | None = None) -> C:
    """See the model calls of one client, where `instrument()` would see all.

    Give it an HTTP client (httpx, httpx2, requests, aiohttp), or an SDK's client that holds one: those that it holds
    now are wrapped. Other objects that share the same HTTP client are seen with it. A client that opens its HTTP
    clients later, as google-genai's does for async calls over aiohttp, needs `instrument()`. `uninstrument()` does not
    undo it.

    Args:
        client: the client.
        hosts: the provider of each of your own hosts, as in `instrument()`.

    Returns:
        The same client.

    Raises:
        ConfigError: no HTTP client was found in it, or `hosts` is wrong.

    Example:
        client = tm.wrap(OpenAI())
    """
    known = {name.lower(): provider for name, provider in named_hosts(hosts).items()}
    libraries = {name: sys.modules[name] for name in HOOKS if name in sys.modules}
    found = False
    for held in _held_by(client):
        found |= any(HOOKS[name].wrap(held, library, known) for name, library in libraries.items())
    if not found:
        raise ConfigError(
            f"wrap() found no HTTP client of httpx, httpx2, requests, aiohttp or botocore in this "
            f"{type(client).__name__}: pass the HTTP client itself, or call instrument(), which sees all clients"
        )
    before_flow_ends(observation.settle_in)
    return client


def _held_by(client: object) -> Iterator[object]:
    """The client and what it holds, the nearest first."""
    seen: set[int] = set()
    waiting: deque[tuple[object, int]] = deque([(client, 0)])
    while waiting and len(seen) < _MAX_OBJECTS:
        held, depth = waiting.popleft()
        if id(held) in seen:
            continue
        seen.add(id(held))
        yield held
        if depth < _MAX_DEPTH and not _is_http_client(held):
            waiting.extend((inner, depth + 1) for inner in _inside(held))


def _is_http_client(held: object) -> bool:
    """Whether the search ends here: what is inside an HTTP client is its own business."""
    return type(held).__module__.partition(".")[0] in HOOKS


def _inside(held: object) -> Iterable[object]:
    """What an object has as attributes or entries. No property runs."""
    if isinstance(held, type | ModuleType):
        return ()
    values: list[object] = list(getattr(held, "__dict__", {}).values())
    if isinstance(held, dict):
        values += cast("dict[object, object]", held).values()
    elif isinstance(held, list | tuple):
        values += cast("list[object]", held)
    return [value for value in values if not isinstance(value, str | bytes | int | float | None)]
