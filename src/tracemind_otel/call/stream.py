"""The step `ai.llm_call`, streamed: typed events as they come, and one span however the stream ends."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self, TypeGuard, cast

from .._base.dropped import hand_over
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.pricing import warm_up
from ..ai.llm.tokens import CharacterTokenizer, Tokenizer
from ..ai.llm.types import (
    Finish,
    LLMResponse,
    LLMUsage,
    ReasoningDelta,
    StreamEvent,
    StreamOpened,
    TextDelta,
    ToolCallDelta,
)
from ..errors import ConfigError, LLMConnectionError, LLMError, LLMResponseError
from ..recording.port import Recorder
from .clients import client_for
from .config import LLMCallConfig
from .lifecycle import Call
from .result import is_response, partial_result

log = logging.getLogger(__name__)


class _State(Enum):
    """Where a stream is. What ended it first decides."""

    OPEN = auto()
    """More may come."""
    OVER = auto()
    """It came to its end, or failed."""
    CLOSED = auto()
    """Its reader wanted no more."""


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
        cfg: what to call and how; `timeout_ms` bounds the provider's silence, `deadline_ms` the whole stream.
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches: AsyncGenerator[Sequence[StreamEvent]] | None = None
        self._ready: deque[StreamEvent] = deque()
        self._state = _State.OPEN
        self._came: list[StreamEvent] = []
        self._so_far: Callable[[], LLMResponse] | None = None
        self._response_model: str | None = None
        self._reply: LLMResponse | None = None
        self._reading = asyncio.Lock()
        self._reader: asyncio.Task[Any] | None = None
        self._last_chunk_s: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        while not self._ready:
            if not self._is_open:
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
        call: Call | None = getattr(self, "_call", None)
        if call is None or call.has_ended:
            return
        self._batches = None  # the event loop closes it, and with it the connection
        end = functools.partial(self._stop_early, time.time_ns())
        hand_over(f"the stream of {call.target.name}", end, self._loop)

    async def _fill(self) -> None:
        """Wait for what comes next; one task at a time."""
        async with self._reading:
            if self._ready or not self._is_open:
                return  # by another task, meanwhile
            call = self._call or await self._begin()
            reader = self._reader = asyncio.current_task()
            try:
                await self._read(call)
            except asyncio.CancelledError:
                # `aclose` ends the call before it cancels; any other cancellation finds the call ended as cancelled.
                if self._state is not _State.CLOSED or reader is None or reader.uncancel():
                    raise
            finally:
                self._reader = None

    async def _read(self, call: Call) -> None:
        """Read one batch. Whatever goes wrong here ends the call."""
        try:
            if self._batches is None:
                await call.reserve()
                batch = await call.attempts.until_success(lambda: self._first(call))
            else:
                batch = await self._checked(call, self._batches.__anext__)
            await self._take(call, batch)
        except LLMError as error:
            self._fail(call, error)
            raise
        except ConfigError as error:
            self._state = _State.OVER
            call.misused(error, was_sent=self._last_chunk_s is not None)
            raise
        except Exception as error:
            fault = call.as_llm_error(error)
            self._fail(call, fault)
            raise fault from error
        except BaseException:
            self._interrupt(call)
            raise
        finally:
            if not self._is_open:
                await self._close_batches()

    async def _begin(self) -> Call:
        client = self._client if self._client is not None else await client_for(self._cfg.provider)
        self._loop = asyncio.get_running_loop()
        self._call = Call(self._ids, self._cfg, self._request, client, self._recorder, is_stream=True)
        return self._call

    async def _first(self, call: Call) -> Sequence[StreamEvent]:
        """One attempt: open the stream and wait for its first events."""
        try:
            batch = await self._checked(call, lambda: self._open(call))
        except BaseException:
            await self._close_batches()
            raise
        warm_up(call.target.provider_name, self._cfg.model)
        return batch

    async def _open(self, call: Call) -> Sequence[StreamEvent]:
        self._so_far = None
        batches = self._batches = call.target.client.stream(self._request)
        batch = await anext(batches)
        if not _is_opening(batch):
            return batch
        self._so_far = batch[0].so_far
        return await anext(batches)

    async def _checked(self, call: Call, work: Callable[[], Awaitable[object]]) -> Sequence[StreamEvent]:
        """The next batch; what a client of a third party yields need not be what its signature says."""
        try:
            batch = await call.attempts.ask_in_turns(work)
        except StopAsyncIteration:
            raise LLMConnectionError("the stream ended without its last event") from None
        if _is_batch(batch):
            return batch
        client = type(call.target.client).__name__
        raise LLMResponseError(f"{client}.stream yielded no sequence of events", retryable=False)

    async def _take(self, call: Call, batch: Sequence[StreamEvent]) -> None:
        self._note_chunk(call, batch)
        last = batch[-1] if batch else None
        deltas = batch[:-1] if isinstance(last, Finish) else batch
        self._came += deltas
        self._ready += deltas
        if isinstance(last, Finish):
            self._ready.append(await self._finish(call, last.response))  # with its price

    def _note_chunk(self, call: Call, batch: Sequence[StreamEvent]) -> None:
        """A batch is a chunk if it brings anything; the end alone is one only where nothing else came."""
        if self._last_chunk_s is not None and (not batch or isinstance(batch[0], Finish)):
            return
        now = time.perf_counter()
        if self._last_chunk_s is None:
            call.handle.first_chunk()
            self._note_model(call)
        else:
            call.handle.next_chunk(now - self._last_chunk_s, self._response_model)
        self._last_chunk_s = now

    def _note_model(self, call: Call) -> None:
        """Which model answers; its price is looked for, lest the stream ends where nothing can be awaited."""
        reported = self._reported(call)
        if reported is not None and reported.response_model is not None:
            self._response_model = reported.response_model
            warm_up(call.target.provider_name, reported.response_model)

    async def _finish(self, call: Call, response: LLMResponse) -> Finish:
        ended_ns = time.time_ns()
        if not response.usage.sanitized().is_known:
            response = replace(response, usage=self._filled(response))
        self._reply = response
        usage = await call.account.priced(response)
        self._state = _State.OVER
        self.result = call.succeeded(response, usage, ended_ns=ended_ns)
        return Finish(replace(response, usage=usage))

    def _fail(self, call: Call, error: LLMError) -> None:
        self._state = _State.OVER
        partial = self._partial(call)
        usage = None if partial is None else call.account.priced_now(partial)
        self.result = call.failed(error, also=partial_result(partial, usage), response=partial, usage=usage)

    def _interrupt(self, call: Call) -> None:
        """Cancelled, or worse: what came is told, and what it used."""
        if self._is_open:
            self._state = _State.OVER
        if not call.has_ended:
            self.result = call.interrupted(self._reply or self._partial(call))

    def _stop_early(self, ended_ns: int | None = None) -> None:
        """Closed or dropped before the end: no error, since the reader wanted no more."""
        call, self._state = self._call, _State.CLOSED
        if call is None or call.has_ended:
            return
        partial = self._partial(call) or LLMResponse("", LLMUsage())
        also = {"closed_early": True}
        usage = call.account.priced_now(partial)
        self.result = call.succeeded(partial, usage, also=also, closed_early=True, ended_ns=ended_ns)

    def _partial(self, call: Call) -> LLMResponse | None:
        """The reply as far as it came, its missing counts estimated; `None` where nothing came."""
        reported = self._reported(call)
        if self._last_chunk_s is None and (reported is None or not reported.usage.sanitized().is_known):
            return reported
        said = reported or LLMResponse("", LLMUsage(None, None, None))
        reply = replace(said, text=self._text, reasoning=self._reasoning or None)
        return replace(reply, usage=self._filled(reply))

    def _reported(self, call: Call) -> LLMResponse | None:
        """What the provider has said so far, by the client's word; one that fails at it does no harm."""
        if self._so_far is None:
            return None
        try:
            reply = self._so_far()
        except Exception as error:
            log.warning("%s: what came before the end is not known: %s", call.target.name, type(error).__name__)
            return None
        return reply if is_response(reply) else None

    @property
    def _is_open(self) -> bool:
        return self._state is _State.OPEN

    @property
    def _text(self) -> str:
        return "".join(event.text for event in self._came if isinstance(event, TextDelta))

    @property
    def _reasoning(self) -> str:
        return "".join(event.text for event in self._came if isinstance(event, ReasoningDelta))

    def _filled(self, reply: LLMResponse) -> LLMUsage:
        """The reported usage; what it lacks is estimated by the tokenizer's count."""
        usage = reply.usage.sanitized()
        prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage.is_known else (None, None)
        if prompt is not None and completion is not None:
            return usage
        prompt = self._count(self._request.all_text) if prompt is None else prompt
        completion = self._estimated_output(reply) if completion is None else completion
        total = prompt + completion
        return replace(usage, prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, estimated=True)

    def _estimated_output(self, reply: LLMResponse) -> int:
        arguments = "".join(event.arguments for event in self._came if isinstance(event, ToolCallDelta))
        return sum(map(self._count, (self._text or reply.text, self._reasoning, arguments)))

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

    async def _close_batches(self) -> None:
        """Close the connection; a client that fails at it does no harm to what came before."""
        batches, self._batches = self._batches, None
        if batches is None or self._call is None:
            return
        try:
            await self._call.attempts.close(batches)
        except Exception as error:
            # Without its text, which may hold the prompt.
            log.warning(
                "%s/%s: closing the stream failed: %s", self._cfg.provider, self._cfg.model, type(error).__name__
            )


def _is_opening(batch: object) -> TypeGuard[Sequence[StreamOpened]]:
    """Whether it says no more than that the stream has begun."""
    return (
        isinstance(batch, tuple) and len(cast("tuple[object, ...]", batch)) == 1 and isinstance(batch[0], StreamOpened)
    )


def _is_batch(batch: object) -> TypeGuard[Sequence[StreamEvent]]:
    """Whether it is a sequence of deltas, and last perhaps a `Finish`; kinds are compared, not each event."""
    if not isinstance(batch, Sequence):
        return False
    events = cast("Sequence[object]", batch)
    if set(map(type, events)) <= _DELTAS:
        return True
    *deltas, last = events
    return set(map(type, deltas)) <= _DELTAS and isinstance(last, Finish) and is_response(last.response)
