"""The step `ai.llm_call`, streamed: typed events as they come, and one span however the stream ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.pricing import price_now, warm_up
from ..ai.llm.tokens import CharacterTokenizer, Tokenizer
from ..ai.llm.types import Finish, LLMResponse, LLMUsage, ReasoningDelta, StreamEvent, TextDelta
from ..errors import ConfigError, LLMConnectionError, LLMError
from ..runtime.recorder import Recorder
from .call import Call
from .config import LLMCallConfig
from .factory import client_for


def stream_llm_call(
    flow_id: str,
    step_id: str,
    cfg: LLMCallConfig,
    recorder: Recorder,
    *,
    client: AsyncLLMClient | None = None,
    tokenizer: Tokenizer | None = None,
) -> LLMStream:
    """Call a model and read its reply as it comes.

    The result is an async iterator of events (`TextDelta`, `ReasoningDelta`, `ToolCallDelta`, and last a `Finish`
    with the whole reply) and an async context manager, which is the sure way to close a stream that is not read to
    its end. Attempts are repeated until the first event has come, never after it. The span is current while the
    provider is waited for, never in the code between two events.

    Args:
        flow_id: the flow's id, for telemetry; need not be unique.
        step_id: the step's id, for telemetry; need not be unique.
        cfg: what to call and how; `timeout_ms` holds for each wait, `deadline_ms` for the whole stream.
        recorder: what records the call; one that raises is logged and does no harm.
        client: a client of your own; the default is `LLMClientFactory.make(cfg.provider)`.
        tokenizer: counts the tokens of a stream that is not read to its end; the default is a rule of thumb.

    Raises:
        ConfigError: neither prompt nor template nor messages; an unknown provider or a parameter that it has no
            place for raises it from the first event.
        LLMError: from the iteration, when the call fails for good; `LLMStream.result` has the text that came.
    """
    return LLMStream((flow_id, step_id), cfg, recorder, client, tokenizer or CharacterTokenizer())


class LLMStream:
    """A streamed call. Made by `stream_llm_call`; nothing is sent before the first event is asked for."""

    result: dict[str, Any] | None
    """The step's result, once the stream has ended, as `run_llm_call` would have returned it."""

    def __init__(
        self,
        ids: tuple[str, str],
        cfg: LLMCallConfig,
        recorder: Recorder,
        client: AsyncLLMClient | None,
        tokenizer: Tokenizer,
    ) -> None:
        self.result = None
        self._ids, self._cfg, self._recorder, self._client = ids, cfg, recorder, client
        self._request = cfg.request()
        self._tokenizer = tokenizer
        self._call: Call | None = None
        self._batches: AsyncGenerator[Sequence[StreamEvent]] | None = None
        self._ready: deque[StreamEvent] = deque()
        self._is_over = False
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._last_chunk_s: float | None = None
        self._chunk_gaps_s: list[float] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        while not self._ready:
            if self._is_over:
                raise StopAsyncIteration
            await self._fill()
        return self._ready.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading. What has come is recorded, with its tokens estimated; closing twice is harmless."""
        self._stop_early()
        await self._close_batches()

    def __del__(self) -> None:
        # Dropped without a close: the event loop closes the generator, and with it the connection.
        if getattr(self, "_call", None) is not None:
            self._stop_early()

    async def _fill(self) -> None:
        """Wait for what comes next. Whatever goes wrong here ends the call."""
        call = self._call or await self._begin()
        try:
            if self._batches is None:
                batch = await call.with_retries(lambda: self._first(call))
            else:
                batch = await self._next(call, self._batches)
            await self._take(call, batch)
        except LLMError as error:
            self._fail(call, error)
            await self._close_batches()
            raise
        except ConfigError as error:
            self._is_over = True
            call.refused(error)
            raise
        except BaseException:
            self._interrupt(call)
            await self._close_batches()
            raise

    async def _begin(self) -> Call:
        client = self._client if self._client is not None else await client_for(self._cfg.provider)
        self._call = Call(self._ids, self._cfg, self._request, client, self._recorder, is_stream=True)
        return self._call

    async def _first(self, call: Call) -> Sequence[StreamEvent]:
        """One attempt: open the stream and wait for its first events."""
        batches = call.client.stream(self._request)
        try:
            batch = await self._next(call, batches)
        except BaseException:
            await batches.aclose()
            raise
        self._batches = batches
        warm_up(call.client.provider_name, self._cfg.model)
        return batch

    async def _next(self, call: Call, batches: AsyncGenerator[Sequence[StreamEvent]]) -> Sequence[StreamEvent]:
        try:
            return await call.provider(batches.__anext__)
        except StopAsyncIteration:
            raise LLMConnectionError("the stream ended without its last event") from None

    async def _take(self, call: Call, batch: Sequence[StreamEvent]) -> None:
        self._note_chunk(call)
        for event in batch:
            if isinstance(event, TextDelta):
                self._text.append(event.text)
            elif isinstance(event, ReasoningDelta):
                self._reasoning.append(event.text)
            elif isinstance(event, Finish):
                event = await self._finish(call, event.response)  # with its price
            self._ready.append(event)

    def _note_chunk(self, call: Call) -> None:
        now = time.perf_counter()
        if self._last_chunk_s is None:
            call.handle.first_chunk()
        else:
            self._chunk_gaps_s.append(now - self._last_chunk_s)
        self._last_chunk_s = now

    async def _finish(self, call: Call, response: LLMResponse) -> Finish:
        ended_ns = time.time_ns()
        if not response.usage.is_known:
            response = replace(response, usage=self._estimated())
        usage = await call.priced(response)
        self._is_over = True
        self.result = call.succeeded(response, usage, ended_ns=ended_ns, chunk_gaps_s=tuple(self._chunk_gaps_s))
        return Finish(replace(response, usage=usage))

    def _fail(self, call: Call, error: LLMError) -> None:
        self._is_over = True
        if self._last_chunk_s is None:
            self.result = call.failed(error)
            return
        usage = self._estimated_and_priced(call)
        self.result = call.failed(error, usage=usage, chunk_gaps_s=tuple(self._chunk_gaps_s))
        self.result |= {"text": "".join(self._text), "usage": dict(vars(usage))}

    def _interrupt(self, call: Call) -> None:
        self._is_over = True
        usage = None if self._last_chunk_s is None else self._estimated_and_priced(call)
        self.result = call.interrupted(None, usage=usage, chunk_gaps_s=tuple(self._chunk_gaps_s))

    def _stop_early(self) -> None:
        """Closed or dropped before the end: no error, since the reader wanted no more."""
        call, self._is_over = self._call, True
        if call is None or call.has_ended:
            return
        usage = LLMUsage() if self._last_chunk_s is None else self._estimated_and_priced(call)
        partial = LLMResponse("".join(self._text), usage, reasoning="".join(self._reasoning) or None)
        gaps = tuple(self._chunk_gaps_s)
        self.result = call.succeeded(partial, usage, closed_early=True, chunk_gaps_s=gaps) | {"closed_early": True}

    def _estimated(self) -> LLMUsage:
        """What has been consumed, by the tokenizer's count."""
        model = self._cfg.model
        prompt = self._tokenizer.count(self._request.said, model)
        reasoning = self._tokenizer.count("".join(self._reasoning), model)
        completion = reasoning + self._tokenizer.count("".join(self._text), model)
        return LLMUsage(prompt, completion, prompt + completion, estimated=True)

    def _estimated_and_priced(self, call: Call) -> LLMUsage:
        usage = self._estimated()
        priced = price_now(call.client.provider_name, (self._cfg.model,), usage, at=datetime.now(UTC))
        return usage if priced is None else usage.with_cost(priced.cost_usd, priced.source)

    async def _close_batches(self) -> None:
        batches, self._batches = self._batches, None
        if batches is not None:
            await batches.aclose()
