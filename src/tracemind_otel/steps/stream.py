"""The step `ai.llm_call`, streamed: typed events as they come, and one span however the stream ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeGuard, cast

from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.pricing import warm_up
from ..ai.llm.tokens import CharacterTokenizer, Tokenizer
from ..ai.llm.types import (
    Finish,
    LLMResponse,
    LLMUsage,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from ..errors import ConfigError, LLMConnectionError, LLMError, LLMResponseError
from ..runtime.recorder import Recorder
from .call import Call, is_response
from .config import LLMCallConfig
from .factory import client_for

log = logging.getLogger(__name__)

_DELTAS: frozenset[type] = frozenset({TextDelta, ReasoningDelta, ToolCallDelta})


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
        self._is_closed = False
        self._came: list[StreamEvent] = []
        self._reply: LLMResponse | None = None
        self._reading = asyncio.Lock()
        self._reader: asyncio.Task[Any] | None = None
        self._last_chunk_s: float | None = None

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
        """Stop reading. What has come is recorded, with its tokens estimated; closing twice is harmless.

        A task that waits for the next event meanwhile finds the stream ended.
        """
        reader = None if self._call is None or self._call.has_ended else self._reader
        self._stop_early()
        self._ready.clear()
        if reader is not None:
            reader.cancel()  # taken back in `_fill`
        async with self._reading:
            await self._close_batches()

    def __del__(self) -> None:
        # Dropped without a close: the event loop closes the generator, and with it the connection.
        if getattr(self, "_call", None) is not None:
            self._stop_early()

    async def _fill(self) -> None:
        """Wait for what comes next; one task at a time."""
        async with self._reading:
            if self._ready or self._is_over:
                return  # by another task, meanwhile
            call = self._call or await self._begin()
            reader = self._reader = asyncio.current_task()
            try:
                await self._read(call)
            except asyncio.CancelledError:
                # `aclose` ends the call before it cancels; any other cancellation finds the call ended as cancelled.
                if not self._is_closed or reader is None or reader.uncancel():
                    raise
            finally:
                self._reader = None

    async def _read(self, call: Call) -> None:
        """Read one batch. Whatever goes wrong here ends the call."""
        try:
            if self._batches is None:
                await call.reserve()
                batch = await call.with_retries(lambda: self._first(call))
            else:
                batch = await self._next(call, self._batches)
            await self._take(call, batch)
        except LLMError as error:
            self._fail(call, error)
            raise
        except ConfigError as error:
            self._is_over = True
            call.refused(error, was_sent=self._last_chunk_s is not None)
            raise
        except Exception as error:
            fault = call.as_llm_error(error)
            self._fail(call, fault)
            raise fault from error
        except BaseException:
            self._interrupt(call)
            raise
        finally:
            if self._is_over:
                await self._close_batches()

    async def _begin(self) -> Call:
        client = self._client if self._client is not None else await client_for(self._cfg.provider)
        self._call = Call(self._ids, self._cfg, self._request, client, self._recorder, is_stream=True)
        return self._call

    async def _first(self, call: Call) -> Sequence[StreamEvent]:
        """One attempt: open the stream and wait for its first events."""
        try:
            batch = await self._checked(call, lambda: self._open(call))
        except BaseException:
            await self._close_batches()
            raise
        warm_up(call.provider_name, self._cfg.model)
        return batch

    async def _open(self, call: Call) -> Sequence[StreamEvent]:
        self._batches = call.client.stream(self._request)
        return await anext(self._batches)

    async def _next(self, call: Call, batches: AsyncGenerator[Sequence[StreamEvent]]) -> Sequence[StreamEvent]:
        return await self._checked(call, batches.__anext__)

    async def _checked(self, call: Call, work: Callable[[], Awaitable[object]]) -> Sequence[StreamEvent]:
        """The next batch; what a client of a third party yields need not be what its signature says."""
        try:
            batch = await call.provider(work)
        except StopAsyncIteration:
            raise LLMConnectionError("the stream ended without its last event") from None
        if _is_batch(batch):
            return batch
        raise LLMResponseError(f"{type(call.client).__name__}.stream yielded no sequence of events", retryable=False)

    async def _take(self, call: Call, batch: Sequence[StreamEvent]) -> None:
        self._note_chunk(call, batch)
        end = next((event for event in batch[-1:] if isinstance(event, Finish)), None)
        deltas = batch if end is None else batch[:-1]
        self._came += deltas
        self._ready += deltas
        if end is not None:
            self._ready.append(await self._finish(call, end.response))  # with its price

    def _note_chunk(self, call: Call, batch: Sequence[StreamEvent]) -> None:
        """A batch is a chunk if it brings anything; the end alone is one only where nothing else came."""
        if self._last_chunk_s is not None and (not batch or isinstance(batch[0], Finish)):
            return
        now = time.perf_counter()
        if self._last_chunk_s is None:
            call.handle.first_chunk()
        else:
            call.handle.next_chunk(now - self._last_chunk_s, None)
        self._last_chunk_s = now

    async def _finish(self, call: Call, response: LLMResponse) -> Finish:
        ended_ns = time.time_ns()
        usage = response.usage.sound()
        if not usage.is_known:
            counted = self._estimated(response)
            usage = replace(counted, cost_usd=usage.cost_usd, cost_source=usage.cost_source)
            response = replace(response, usage=usage)
        self._reply = response
        usage = await call.priced(response)
        self._is_over = True
        self.result = call.succeeded(response, usage, ended_ns=ended_ns)
        return Finish(replace(response, usage=usage))

    def _fail(self, call: Call, error: LLMError) -> None:
        self._is_over = True
        if self._last_chunk_s is None:
            self.result = call.failed(error)
            return
        usage = self._estimated_and_priced(call)
        partial = {"text": self._text, "usage": usage.as_dict()}
        self.result = call.failed(error, also=partial, usage=usage)

    def _interrupt(self, call: Call) -> None:
        """Cancelled, or worse: what came is told, and what it used, estimated unless the whole reply had come."""
        self._is_over = True
        if call.has_ended:
            return
        usage = None if self._last_chunk_s is None else self._estimated_and_priced(call)
        if self._reply is not None:
            usage = call.priced_now(self._reply.usage)
        self.result = call.interrupted(self._reply, usage=usage)

    def _stop_early(self) -> None:
        """Closed or dropped before the end: no error, since the reader wanted no more."""
        call, self._is_over, self._is_closed = self._call, True, True
        if call is None or call.has_ended:
            return
        usage = LLMUsage() if self._last_chunk_s is None else self._estimated_and_priced(call)
        partial = LLMResponse(self._text, usage, reasoning=self._reasoning or None)
        also = {"closed_early": True}
        self.result = call.succeeded(partial, usage, also=also, closed_early=True)

    @property
    def _text(self) -> str:
        return "".join(event.text for event in self._came if isinstance(event, TextDelta))

    @property
    def _reasoning(self) -> str:
        return "".join(event.text for event in self._came if isinstance(event, ReasoningDelta))

    def _estimated(self, reply: LLMResponse | None = None) -> LLMUsage:
        """What has been consumed, by the tokenizer's count."""
        text = self._text or (reply.text if reply is not None else "")
        prompt = self._count(self._request.said)
        arguments = "".join(event.arguments for event in self._came if isinstance(event, ToolCallDelta))
        completion = sum(map(self._count, (text, self._reasoning, arguments)))
        return LLMUsage(prompt, completion, prompt + completion, estimated=True)

    def _count(self, text: str) -> int:
        """A tokenizer of the user's that fails does no harm to the call."""
        try:
            return max(0, int(self._tokenizer.count(text, self._cfg.model)))
        except Exception as error:
            log.warning(
                "%s failed (%s); tokens are estimated by a rule of thumb",
                type(self._tokenizer).__name__,
                type(error).__name__,
            )
            return CharacterTokenizer().count(text, self._cfg.model)

    def _estimated_and_priced(self, call: Call) -> LLMUsage:
        return call.priced_now(self._estimated())

    async def _close_batches(self) -> None:
        """Close the connection; a client that fails at it does no harm to what came before."""
        batches, self._batches = self._batches, None
        if batches is None:
            return
        try:
            await batches.aclose()
        except Exception as error:
            # Without its text, which may hold the prompt.
            log.warning(
                "%s/%s: closing the stream failed: %s", self._cfg.provider, self._cfg.model, type(error).__name__
            )


def _is_batch(batch: object) -> TypeGuard[Sequence[StreamEvent]]:
    """Whether it is a sequence of deltas, and last perhaps a `Finish`; kinds are compared, not each event."""
    if not isinstance(batch, Sequence):
        return False
    *deltas, last = cast("Sequence[object]", batch) or (TextDelta(""),)
    is_end = isinstance(last, Finish) and is_response(last.response)
    return set(map(type, deltas)) <= _DELTAS and (type(last) in _DELTAS or is_end)
