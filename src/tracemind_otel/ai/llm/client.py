"""The client every provider implements."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self

from ...errors import ConfigError
from .types import LLMRequest, LLMResponse, LLMUsage, StreamEvent

__all__ = ["AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"]


class AsyncLLMClient(abc.ABC):
    """A model provider, seen through one coroutine. Retries, time-outs and telemetry are the step's."""

    provider_name: str
    """The provider's name: the key of the price table, and `gen_ai.provider.name` unless that is set."""
    telemetry_name: str | None = None
    """`gen_ai.provider.name`, where the conventions spell it otherwise than `provider_name`."""
    operation: str = "chat"
    """`gen_ai.operation.name` of a call."""
    server_address: str | None = None
    """Host name of the provider's server; `None` when there is none."""
    server_port: int | None = None
    """Port of the provider's server; `None` when there is none."""

    default_max_tokens: int | None = None
    """Most output tokens that it asks for where a request sets none; `None` when it leaves that to the provider."""
    reports_cost: bool = False
    """Whether its replies name what they cost: then a budget admits a call whose price it does not know."""

    def for_model(self, model: str) -> AsyncLLMClient:
        """The client that serves a model: this one, unless a model decides which format is spoken."""
        return self

    @abc.abstractmethod
    async def complete(self, req: LLMRequest) -> LLMResponse:
        """Make one attempt and return the whole reply.

        Raises:
            tracemind_otel.errors.LLMError: the attempt failed; the class says whether to repeat it.
        """
        ...

    def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        """Make one attempt and yield the reply as it comes, in batches of what came together.

        The last event is a `Finish` with the whole reply. To a step the first may be a `StreamOpened`, by which a
        stream that ends early keeps what was reported before. Closing the generator closes the connection.

        Raises:
            tracemind_otel.errors.ConfigError: this client cannot stream.
            tracemind_otel.errors.LLMError: the attempt failed, or the stream was cut, which is never a success.
        """
        raise ConfigError(f"provider {self.provider_name!r} cannot stream: its client has no stream()")

    async def aclose(self) -> None:
        """Release what the client holds; closing twice is harmless."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
