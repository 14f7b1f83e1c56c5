"""Which model providers have a key here, by the names of the variables."""

from __future__ import annotations

import asyncio
import os

from ...ai.llm import providers
from ...errors import LLMError
from .evidence import ProviderKeys

_KEY_WORDS = ("KEY", "TOKEN")
"""Parts of the names of variables that hold keys."""


def provider_keys() -> tuple[ProviderKeys, ...]:
    """The providers whose keys are set, each with what keeps its client from being made."""
    return tuple(asyncio.run(_provider_keys()))


async def _provider_keys() -> list[ProviderKeys]:
    await asyncio.to_thread(providers.load_plugins)
    found = list[ProviderKeys]()
    for name in providers.names():
        variables = tuple(filter(_holds_key, providers.environment_of(name)))
        if variables:
            found.append(ProviderKeys(provider=name, variables=variables, fault=_fault(name)))
    return found


def _holds_key(variable: str) -> bool:
    return any(word in variable for word in _KEY_WORDS) and bool(os.getenv(variable))


def _fault(name: str) -> str | None:
    """Why no client can be made. Making one opens no connection; the loop closes it at its end."""
    try:
        providers.make(name)
    except (LLMError, ValueError) as error:
        return str(error)
    return None
