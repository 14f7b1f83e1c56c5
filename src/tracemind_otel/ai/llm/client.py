"""The client every provider implements."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Sequence
from typing import Self

from ...errors import ConfigError
from .types import LLMRequest, LLMResponse, LLMUsage, StreamEvent

__all__ = ["AsyncLLMClient", "LLMRequest", "LLMResponse", "LLMUsage"]


class AsyncLLMClient(abc.ABC):
    """A client of one provider. The step adds retries, time-outs and telemetry."""

    provider_name: str
    """The provider's name: the key of the price table, and `gen_ai.provider.name` unless that is set."""
    telemetry_name: str | None = None
    """`gen_ai.provider.name`, if the conventions spell it differently from `provider_name`."""
    operation: str = "chat"
    """`gen_ai.operation.name` of a call."""
    server_address: str | None = None
    """Host name of the provider's server; `None` when there is none."""
    server_port: int | None = None
    """Port of the provider's server; `None` when there is none."""

    default_max_tokens: int | None = None
    """The limit of output tokens for a request without one; `None` to leave it to the provider."""
    reports_cost: bool = False
    """Whether replies name their cost, so that a budget admits calls of unknown price."""

    def for_model(self, model: str) -> AsyncLLMClient:
        """The client for a model: this one, unless the model decides the wire format."""
        return self

    @abc.abstractmethod
    async def complete(self, req: LLMRequest) -> LLMResponse:
        """Make one attempt and return the whole reply.

        Raises:
            tracemind_otel.errors.LLMError: the attempt failed; the class says whether to repeat it.
        """
        ...

    def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        """Make one attempt and yield the reply as it arrives, in batches of events that arrive together.

        The last event is a `Finish` with the whole reply. The first one may be a `StreamOpened`, which lets a stream
        that ends early keep what was reported before. Closing the generator closes the connection.

        Raises:
            tracemind_otel.errors.ConfigError: this client cannot stream.
            tracemind_otel.errors.LLMError: the attempt failed, or the stream was cut before its end.
        """
        raise ConfigError(f"provider {self.provider_name!r} cannot stream: its client has no stream(); use complete()")

    async def aclose(self) -> None:
        """Release what the client holds; closing twice is harmless."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
