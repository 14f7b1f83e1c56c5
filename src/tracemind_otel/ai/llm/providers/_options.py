"""The options of `LLMClientFactory.make`, and which of them a factory takes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any, TypedDict

from ....errors import ConfigError

if TYPE_CHECKING:
    import httpx

TokenCallback = Callable[[], str | Awaitable[str]]
"""Gives an access token that is still valid. One that is not async runs in a worker thread."""


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
    token: TokenCallback | None
    """Gives an access token for each request (Vertex)."""
    region: str | None
    """The AWS region (Bedrock)."""


_NAMES = frozenset(ClientOptions.__annotations__)


def options_taken_by(factory: Callable[..., object]) -> frozenset[str]:
    """The options that a factory has a parameter for."""
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return _NAMES
    return _NAMES.intersection(
        parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY
    )


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set, in the order of their names.

    Raises:
        ConfigError: one of them is an empty string.
    """
    given = {name: value for name, value in sorted(options.items()) if value is not None}
    for name, value in given.items():
        if isinstance(value, str) and not value.strip():
            raise ConfigError(f"{name} is empty; leave it out, or set it")
    return given


class Same:
    """One object in a key, compared by identity; the reference keeps its `id` from being reused."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def key_of_options(options: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """The options as a key: strings and bound methods by equality, anything else by identity."""
    return tuple(
        (name, value if isinstance(value, str | MethodType) else Same(value)) for name, value in options.items()
    )
