"""Clients by provider name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from ..ai.llm import providers
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.types import LLMRequest, LLMResponse, StreamEvent
from ..errors import ConfigError, LLMClientError, LLMError


class LLMClientFactory:
    """Makes clients by provider name."""

    make = staticmethod(providers.make)
    register = staticmethod(providers.register)
    names = staticmethod(providers.names)


def running_loop(function: str) -> asyncio.AbstractEventLoop:
    """The running asyncio loop.

    Raises:
        ConfigError: no loop runs, as under trio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            f"{function} needs an asyncio event loop, and none is running here; "
            "under trio or anyio, start the program with anyio.run(main, backend='asyncio') or asyncio.run(main())"
        ) from None


async def client_for(provider: str) -> AsyncLLMClient:
    """The client for a provider. Plug-ins are searched for on disk, so not on the event loop.

    A fault that is not the caller's mistake becomes the error of the client's calls, so that they have a span.
    """
    try:
        if not providers.is_known(provider):
            await asyncio.to_thread(providers.load_plugins)
        return providers.for_call(provider)
    except ConfigError:
        raise
    except LLMError as error:
        return _UnmadeClient(provider, error)
    except Exception as error:
        said = f"the client cannot be made: {type(error).__name__}: {error}"
        fault = LLMClientError(said, may_be_billed=False)
        fault.__cause__ = error
        return _UnmadeClient(provider, fault)


class _UnmadeClient(AsyncLLMClient):
    """Raises from each call the error for which a client could not be made."""

    def __init__(self, provider: str, error: LLMError) -> None:
        self.provider_name = provider
        self._error = error

    async def complete(self, req: LLMRequest) -> LLMResponse:
        raise self._error

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        raise self._error
        yield ()
