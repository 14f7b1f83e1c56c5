"""The providers, and the registry that makes their clients by name."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Hashable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack

from ....errors import ConfigError, UnknownProviderError
from ..client import AsyncLLMClient
from . import anthropic, azure_openai, bedrock, cohere, gemini, ollama, openai_responses, vertex
from ._loop import PerLoop
from ._pool import shared_pools
from .fake import FakeLLMClient
from .openai import OpenAILLMClient
from .presets import PRESETS

if TYPE_CHECKING:
    import httpx

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


class ClientOptions(TypedDict, total=False):
    """The options of a client in addition to key and base URL; `None` counts as left out."""

    provider_name: str | None
    """The provider whose prices apply and which the span names, where it did not invent the format."""
    cost_unit: str | None
    """The currency of the cost in the replies of a server that speaks OpenAI's formats; only `USD` is believed."""
    api_version: str | None
    """The version of the server's API (Azure)."""
    http_client: httpx.AsyncClient | None
    """An httpx client to send with; you close it yourself."""
    project: str | None
    """The Google Cloud project (Vertex)."""
    location: str | None
    """The Google Cloud location (Vertex)."""
    token: vertex.TokenCallback | None
    """Gives an access token for each request (Vertex)."""
    region: str | None
    """The AWS region (Bedrock)."""


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


def _pooled(
    make_client: Callable[..., AsyncLLMClient], environment: tuple[str, ...], options: frozenset[str]
) -> _Entry:
    """A built-in provider; its clients share their connections."""
    return _Entry(functools.partial(make_client, pools=shared_pools), environment, options)


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
    **{
        preset.name: _pooled(preset.client, preset.environment, _COMMON if preset.wire.with_cost is None else _COSTING)
        for preset in (*PRESETS, openai_responses.PRESET, anthropic.PRESET, gemini.PRESET, cohere.PRESET)
    },
}
_adding = threading.Lock()
_plugins_are_loaded = False


def register(name: str, factory: ClientFactory) -> None:
    """Add a provider, or replace one: `factory(*, api_key=None, base_url=None)` returns an `AsyncLLMClient`.

    Raises:
        ConfigError: the name is empty, or the factory cannot be called with `api_key` and `base_url`.
    """
    global _entries
    if not name.strip():
        raise ConfigError(f"provider name {name!r} is empty")
    if not callable(factory):
        raise ConfigError(f"provider {name!r}: the factory {factory!r} cannot be called")
    signature = inspect.signature(factory)
    try:
        signature.bind(api_key=None, base_url=None)
    except TypeError:
        raise ConfigError(f"provider {name!r}: the factory must take api_key= and base_url=") from None
    entry = _Entry(factory, options=_options_taken_by(signature))
    with _adding:  # in a new table, since other threads may be looking through the old one
        _entries = {**_entries, name.strip().lower(): entry}


def _options_taken_by(signature: inspect.Signature) -> frozenset[str]:
    """The options that a factory has a parameter for."""
    options, parameters = frozenset(ClientOptions.__annotations__), signature.parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return options
    by_name = (parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY)
    return options.intersection(by_name)


_stand_in: Callable[[str], AsyncLLMClient] | None = None


@contextlib.contextmanager
def replaced(make_client: Callable[[str], AsyncLLMClient]) -> Generator[None]:
    """Let a function of the provider's name make every client, of providers added meanwhile too: for tests."""
    global _stand_in
    before, _stand_in = _stand_in, make_client
    try:
        yield
    finally:
        _stand_in = before


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
        if point.name.lower() in _entries:
            continue
        try:
            register(point.name, point.load())
        except Exception as error:  # which keeps no other provider from working
            kind = type(error).__name__
            log.warning("provider %r (%s) cannot be loaded: %s: %s", point.name, point.value, kind, error)
    _plugins_are_loaded = True


def names() -> list[str]:
    """The providers that are registered, sorted."""
    return sorted(_entries)


def environment_of(name: str) -> tuple[str, ...]:
    """The environment variables that a registered provider reads."""
    return _entries[name].environment


@dataclass(frozen=True, slots=True)
class _Recent:
    client: AsyncLLMClient
    entries: Mapping[str, _Entry]
    """The table of providers at that time; a provider may have been replaced since."""
    until: float
    """The time until which the environment is not read again, by `time.monotonic`."""


class _Clients:
    """The clients of one event loop."""

    def __init__(self) -> None:
        self.made: dict[Hashable, tuple[AsyncLLMClient, Mapping[str, object]]] = {}
        """By what they were made from, with their options: the ids of these are in the key, and must stay theirs."""
        self.recent: dict[str, _Recent] = {}
        """The one that a provider's name alone stood for lately."""


async def _close_all(clients: _Clients) -> None:
    for client, _ in clients.made.values():
        try:
            await client.aclose()
        except Exception:
            log.exception("closing %s failed", type(client).__name__)


_clients: PerLoop[_Clients] = PerLoop(_Clients, _close_all)
_RECENT_S = 1.0
"""Seconds for which calls use the client that the environment asked for when it was read last."""


def for_call(provider: str) -> AsyncLLMClient:
    """The client for a call that only names its provider; reads the environment once a second, not for each call.

    Raises:
        UnknownProviderError, ConfigError: as `make`.
    """
    if _stand_in is not None:
        return make(provider)
    recent, now = _clients.get().recent, time.monotonic()
    found = recent.get(provider)
    if found is None or found.entries is not _entries or now > found.until:
        found = recent[provider] = _Recent(make(provider), _entries, now + _RECENT_S)
    return found.client


def read_environment_again() -> None:
    """Let the next call in this event loop read the environment, where a new key may be: the last one was rejected."""
    _clients.get().recent.clear()


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
        ConfigError: an option is empty, or the provider does not take it; the message says which do.
    """
    entry = _find(provider)
    given: dict[str, Any] = {name: value for name, value in sorted(options.items()) if value is not None}
    for option, value in given.items():
        _check_option(option, value, provider, entry)
    if _stand_in is not None:
        return _stand_in(given.get("provider_name") or provider.strip().lower())
    try:
        clients = _clients.get().made
    except RuntimeError:  # no loop is running
        return entry.factory(api_key=api_key, base_url=base_url, **given)
    environment = tuple(os.environ.get(variable) for variable in entry.environment)
    key = (entry, api_key, base_url, *((name, _key_of(value)) for name, value in given.items()), environment)
    if key not in clients:
        clients[key] = entry.factory(api_key=api_key, base_url=base_url, **given), given
    return clients[key][0]


def _check_option(option: str, value: object, provider: str, entry: _Entry) -> None:
    if isinstance(value, str) and not value.strip():
        raise ConfigError(f"{option} is empty; leave it out, or set it")
    if option not in entry.options:
        takers = [known for known in names() if option in _entries[known].options]
        who = f"those that do are {', '.join(takers)}" if takers else "no provider does"
        raise ConfigError(f"{option}: provider {provider!r} does not take it; {who}")


def _key_of(value: object) -> Hashable:
    """Strings and bound methods are compared by equality, anything else by identity."""
    return value if isinstance(value, str | MethodType) else id(value)


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
