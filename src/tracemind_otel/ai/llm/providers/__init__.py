"""The providers, and the registry that makes their clients by name."""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Unpack

from ....errors import ConfigError, UnknownProviderError
from ..client import AsyncLLMClient
from . import anthropic, azure_openai, bedrock, cohere, gemini, ollama, openai_responses, vertex
from ._loop import PerLoop
from ._options import ClientOptions, given_options, key_of_options, options_taken_by
from ._pool import shared_pools
from .fake import FakeLLMClient
from .openai import OpenAILLMClient
from .presets import PRESETS, Preset

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint


__all__ = ["FakeLLMClient", "OpenAILLMClient"]

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "tracemind_otel.providers"
"""The entry-point group in which other distributions name their client factories."""


class ClientFactory(Protocol):
    """Makes a client; an `AsyncLLMClient` class with these two options is one.

    It gets those of the other `ClientOptions` that it has a parameter for.
    """

    def __call__(self, *, api_key: str | None = None, base_url: str | None = None) -> AsyncLLMClient:
        """Make a client; `None` leaves a value to the provider's environment variables."""
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    factory: Callable[..., AsyncLLMClient]
    environment: tuple[str, ...] = ()
    """Variables the factory reads; a client is made anew when one of them has changed."""
    options: frozenset[str] = frozenset()
    """The options that it takes in addition to key and base URL."""


def _fake(*, api_key: str | None = None, base_url: str | None = None) -> AsyncLLMClient:
    for name, value in (("api_key", api_key), ("base_url", base_url)):
        if value is not None:
            raise ConfigError(f"{name}: the fake provider takes none")
    return FakeLLMClient()


def _vertex(*, api_key: str | None = None, **options: Any) -> AsyncLLMClient:
    if api_key is not None:
        raise ConfigError("api_key: provider 'vertex' takes none; pass token=, a function that gives an access token")
    return vertex.VertexLLMClient(**options)


_PRESETS = (*PRESETS, openai_responses.PRESET, anthropic.PRESET, gemini.PRESET, cohere.PRESET)


def _pooled(
    make_client: Callable[..., AsyncLLMClient], environment: tuple[str, ...], options: frozenset[str]
) -> _Entry:
    """A built-in provider; its clients share their connections."""
    return _Entry(functools.partial(make_client, pools=shared_pools), environment, options)


def _preset_entry(preset: Preset) -> _Entry:
    return _pooled(preset.client, preset.environment, _COMMON if preset.wire.with_cost is None else _COSTING)


_HTTP = frozenset({"http_client"})
_COMMON = _HTTP | {"provider_name"}
_COSTING = _COMMON | {"cost_unit"}
_AZURE = _COSTING | {"api_version"}

_entries: dict[str, _Entry] = {
    "fake": _Entry(_fake),
    "local": _Entry(_fake),
    "openai": _pooled(
        functools.partial(OpenAILLMClient, timeout_s=None), ("OPENAI_API_KEY", "OPENAI_BASE_URL"), _COSTING
    ),
    "azure_openai": _pooled(azure_openai.azure_client, azure_openai.ENVIRONMENT, _AZURE),
    "azure_openai_responses": _pooled(azure_openai.azure_responses_client, azure_openai.ENVIRONMENT, _AZURE),
    "ollama": _pooled(ollama.ollama_client, ollama.PRESET.environment, _COMMON),
    "vertex": _pooled(_vertex, vertex.ENVIRONMENT, _HTTP | {"project", "location", "token"}),
    "bedrock": _pooled(bedrock.BedrockLLMClient, bedrock.ENVIRONMENT, _HTTP | {"region"}),
    **{preset.name: _preset_entry(preset) for preset in _PRESETS},
}
_adding = threading.Lock()
_plugins_are_loaded = False


def register(name: str, factory: ClientFactory) -> None:
    """Add a provider, or replace one: `factory(*, api_key=None, base_url=None)` returns an `AsyncLLMClient`.

    Raises:
        ConfigError: the name is empty, or the factory cannot be called with `api_key` and `base_url`.
    """
    if not name.strip():
        raise ConfigError(f"provider name {name!r} is empty")
    if not callable(factory):
        raise ConfigError(f"provider {name!r}: the factory {factory!r} cannot be called")
    try:
        inspect.signature(factory).bind(api_key=None, base_url=None)
    except TypeError:
        raise ConfigError(f"provider {name!r}: the factory must take api_key= and base_url=") from None
    _add(name.strip().lower(), _Entry(factory, options=options_taken_by(factory)))


def _add(name: str, entry: _Entry) -> None:
    """In a new table: other threads may be looking through the old one."""
    global _entries
    with _adding:
        _entries = {**_entries, name: entry}


def is_known(name: str) -> bool:
    """Whether a provider of that name can be made without looking for plug-ins."""
    return name.strip().lower() in _entries or _plugins_are_loaded


def load_plugins() -> None:
    """Register what other distributions offer. Reads their metadata from disk, so not on the event loop.

    A name that is registered already keeps its factory.
    """
    # Costs some 20 ms, which nobody without plug-ins should pay at import.
    from importlib.metadata import entry_points

    global _plugins_are_loaded
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name.lower() not in _entries:
            _load(point)
    _plugins_are_loaded = True


def _load(point: EntryPoint) -> None:
    """One plug-in that cannot be loaded keeps no other provider from working."""
    try:
        register(point.name, point.load())
    except Exception as error:
        log.warning("provider %r (%s) cannot be loaded: %s: %s", point.name, point.value, type(error).__name__, error)


def names() -> list[str]:
    """The providers that are registered, sorted."""
    return sorted(_entries)


def environment_of(name: str) -> tuple[str, ...]:
    """The environment variables that a registered provider reads."""
    return _entries[name].environment


_ClientKey = tuple[_Entry, str | None, str | None, tuple[tuple[str, object], ...], tuple[str | None, ...]]


async def _close_all(clients: dict[_ClientKey, AsyncLLMClient]) -> None:
    for client in clients.values():
        try:
            await client.aclose()
        except Exception:
            log.exception("closing %s failed", type(client).__name__)


_clients: PerLoop[dict[_ClientKey, AsyncLLMClient]] = PerLoop(dict, _close_all)


def make(
    provider: str, *, api_key: str | None = None, base_url: str | None = None, **options: Unpack[ClientOptions]
) -> AsyncLLMClient:
    """The client for a provider. Inside an event loop it is reused, and closed when the loop ends.

    Outside a loop every call makes a client, which the caller must close.

    Args:
        provider: the provider's name.
        api_key: the key; the default is in the provider's environment variables.
        base_url: the server; the default is in the provider's environment variables, else the provider's own.
        options: the other `ClientOptions` that the provider takes.

    Raises:
        UnknownProviderError: no such provider; the message lists those there are.
        ConfigError: the provider does not take an option; the message says which do.
    """
    entry = _find(provider)
    given = given_options(options)
    _reject_others(provider, entry, given)
    if not _in_loop():
        return entry.factory(api_key=api_key, base_url=base_url, **given)
    clients = _clients.get()
    environment = tuple(os.environ.get(variable) for variable in entry.environment)
    key = (entry, api_key, base_url, key_of_options(given), environment)
    if key not in clients:
        clients[key] = entry.factory(api_key=api_key, base_url=base_url, **given)
    return clients[key]


def _reject_others(name: str, entry: _Entry, options: dict[str, Any]) -> None:
    for option in options:
        if option not in entry.options:
            takers = [known for known in names() if option in _entries[known].options]
            who = f"those that do are {', '.join(takers)}" if takers else "no provider does"
            raise ConfigError(f"{option}: provider {name!r} does not take it; {who}")


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _find(name: str) -> _Entry:
    key = (name or "").strip().lower()
    if key not in _entries and not _plugins_are_loaded:
        load_plugins()
    if key in _entries:
        return _entries[key]
    close = difflib.get_close_matches(key, _entries, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise UnknownProviderError(
        f"Unsupported LLM provider: {name!r}{hint} Known are {', '.join(names())}; "
        f"add one with LLMClientFactory.register or the entry-point group {ENTRY_POINT_GROUP!r}"
    )
