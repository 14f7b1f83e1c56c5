"""Clients by provider name."""

from __future__ import annotations

import asyncio

from ..ai.llm import providers
from ..ai.llm.client import AsyncLLMClient


class LLMClientFactory:
    """Makes clients by provider name."""

    @staticmethod
    def make(provider: str, *, api_key: str | None = None, base_url: str | None = None) -> AsyncLLMClient:
        """The client for a provider. Inside an event loop it is reused, and closed when the loop ends.

        Raises:
            UnknownProviderError: no such provider; the message lists those there are.
        """
        return providers.make(provider, api_key=api_key, base_url=base_url)

    @staticmethod
    def register(name: str, factory: providers.ClientFactory) -> None:
        """Add a provider, or replace one: `factory(*, api_key=None, base_url=None)` returns an `AsyncLLMClient`."""
        providers.register(name, factory)

    @staticmethod
    def names() -> list[str]:
        """The providers that are registered, sorted."""
        return providers.names()


async def client_for(provider: str) -> AsyncLLMClient:
    """The client for a provider; plug-ins are looked for on disk, so not on the event loop."""
    if not providers.is_known(provider):
        await asyncio.to_thread(providers.load_plugins)
    return providers.make(provider)
