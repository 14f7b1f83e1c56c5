"""A streamed call: typed events as they come, and one span however the stream ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any, Self, TypeGuard, cast

from .._base.dropped import drop, ended, interrupt, opened
from .._base.waiting import Wait
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.pricing import warm_up
from ..ai.llm.types import Finish, ReasoningDelta, Shortcut, StreamEvent, StreamOpened, TextDelta, ToolCallDelta
from ..errors import ConfigError, LLMError, LLMResponseError
from ..recording.port import Recorder
from .clients import client_for, running_loop
from .config import LLMCallConfig
from .estimate import CharacterTokenizer, Tokenizer
from .lifecycle import Call
from .received import Received
from .result import is_response

log = logging.getLogger(__name__)


class _ClosedError(Exception):
    """The stream was closed while a task waited for its next event."""


_SEQUENCES = (list, tuple, Sequence)
"""Lists and tuples first, because checking for them takes a tenth of the time."""
_DELTAS: frozenset[type] = frozenset({TextDelta, ReasoningDelta, ToolCallDelta})


class LLMStream:
    """A streamed call. Made by `stream_llm_call`; nothing is sent before the first event is asked for."""

    def __init__(
        self,
        ids: tuple[str, str],
        cfg: LLMCallConfig,
        recorder: Recorder,
        client: AsyncLLMClient | None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self._received: Received | None = None
        self._ids, self._cfg, self._recorder, self._client = ids, cfg, recorder, client
        self._request = cfg.request()
        self._tokenizer = tokenizer or CharacterTokenizer()
        self._is_open = True
        """Whether more may come: the reply is not whole, and the call neither failed, nor cancelled, nor closed."""
        self._is_closed = False
        """Whether the reader closed the stream before it had ended."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches: AsyncGenerator[Sequence[StreamEvent]] | None = None
        self._ready: deque[StreamEvent] = deque()
        self._shortcut: Shortcut | None = None
        self._is_reading = False
        self._idle: asyncio.Event | None = None
        """Set when no task reads any more; made by the first task that waits for that."""
        self._wait = Wait()

    @property
    def result(self) -> dict[str, Any] | None:
        """The step's result, once the stream has ended, as `run_llm_call` would have returned it."""
        return None if self._received is None else self._received.call.result

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

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading and record what has come, with its tokens estimated; closing twice is harmless.

        For a task that waits for the next event, the stream ends.
        """
        if self._is_open:
            self._is_closed = True
            self._end_wait(_ClosedError())
            if self._end() and self._received is not None:
                self._received.close()
        self._ready.clear()
        await self._until_idle()
        await self._close_batches()

    def __del__(self) -> None:
        received: Received | None = getattr(self, "_received", None)
        if received is not None:
            drop(received, self._loop)  # the loop closes the batches, and with them the connection

    def _end(self) -> bool:
        """End the stream; the first end counts. Returns whether its call is to be ended."""
        was_open, self._is_open = self._is_open, False
        return was_open and (self._received is None or ended(self._received))

    def _end_wait(self, error: Exception) -> None:
        """End what the reading task waits for."""
        if not self._wait.end(error) and self._received is not None:
            self._received.call.attempts.end_wait(error)

    async def _until_idle(self) -> None:
        """Wait until no task reads."""
        while self._is_reading:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    def _stop_reading(self) -> None:
        self._is_reading = False
        if self._idle is not None:
            self._idle.set()
            self._idle = None

    async def _fill(self) -> None:
        """Wait for the next events; one task at a time. Any error here ends the call."""
        if self._is_reading:
            await self._until_idle()
            if self._ready or not self._is_open:
                return  # the other task has read, or the stream was closed
        self._is_reading = True
        try:
            received = self._received
            if received is None or self._batches is None:
                self._loop = running_loop("stream_llm_call")
                with self._wait:
                    received, batch = await self._begin()
            elif self._shortcut is not None:
                events = await received.call.attempts.take_shortcut(self._shortcut)
                if events is None:
                    self._shortcut = None
                else:
                    self._deliver(received, events)
                return
            else:
                batch = await received.call.attempts.ask_in_turns(self._batches.__anext__)
            events, last = _parts_of(batch, received.call.target.client)
            if events or not received.has_begun:
                self._deliver(received, events)
            if last is not None and self._is_open:
                with self._wait:
                    await self._finish(received, last)
        except Exception as error:
            fault = self._failed(error)
            if fault is error:
                raise
            if fault is not None:
                raise fault from error
        except BaseException as cause:
            self._interrupted(cause)
            raise
        finally:
            if not self._is_open:
                await self._close_batches()
            self._stop_reading()

    def _failed(self, error: Exception) -> Exception | None:
        """End the call in an error; returns what to raise, `None` where the stream was closed meanwhile."""
        received = self._received
        if self._is_closed:
            return None
        if received is None:
            return error  # no call has begun
        if isinstance(error, ConfigError):
            if self._end():
                received.call.misused(error, was_sent=received.has_begun)
            return error
        fault = error if isinstance(error, LLMError) else received.call.as_llm_error(error)
        if self._end():
            received.failed(fault)
        return fault

    def _interrupted(self, cause: BaseException) -> None:
        """End the call as cancelled."""
        if isinstance(cause, GeneratorExit):
            self._batches = None  # the loop closes them: nothing can be awaited here
        if self._received is not None and self._end():
            interrupt(self._received.interrupted, cause)

    async def _begin(self) -> tuple[Received, Sequence[StreamEvent]]:
        """Begin the call; returns its first events."""
        client = self._client if self._client is not None else await client_for(self._cfg.provider)
        call = Call(self._ids, self._cfg, self._request, client, self._recorder, is_stream=True)
        received = self._received = Received(call, self._tokenizer)
        opened(received)
        await call.reserve()
        return received, await call.attempts.until_success(lambda: self._first(received))

    async def _first(self, received: Received) -> Sequence[StreamEvent]:
        """One attempt: open the stream and wait for its first events."""
        try:
            batch = await received.call.attempts.ask_in_turns(lambda: self._open(received))
        except GeneratorExit:
            raise  # nothing can be awaited here
        except BaseException:
            await self._close_batches()
            raise
        warm_up(received.call.target.provider_name, self._cfg.model)
        return batch

    async def _open(self, received: Received) -> Sequence[StreamEvent]:
        received.so_far = self._shortcut = None
        batches = self._batches = received.call.target.client.stream(self._request)
        batch = await anext(batches)
        if not _is_opening(batch):
            return batch
        received.so_far, self._shortcut = batch[0].so_far, batch[0].shortcut
        return await anext(batches)

    def _deliver(self, received: Received, events: Sequence[StreamEvent]) -> None:
        """Make events ready to be read, unless the stream was closed at the moment when they came."""
        if self._is_open:
            received.note_chunk()
            received.events += events
            self._ready += events

    async def _finish(self, received: Received, last: Finish) -> None:
        """End the call with the whole reply, priced."""
        ended_ns = time.time_ns()
        response = received.whole(last.response)
        usage = await received.call.account.priced(response)
        if self._end():
            received.call.succeeded(response, usage, ended_ns=ended_ns)
            self._ready.append(Finish(replace(response, usage=usage)))

    async def _close_batches(self) -> None:
        """Close the connection; a client that fails to close it does no harm to what came before."""
        batches, self._batches = self._batches, None
        if batches is None or self._received is None:
            return
        try:
            await self._received.call.attempts.close(batches)
        except Exception as error:
            # The error's message may hold the prompt.
            log.warning("%s: closing the stream failed: %s", self._received.call.target.name, type(error).__name__)


def _is_opening(batch: object) -> TypeGuard[Sequence[StreamOpened]]:
    """Whether a batch only says that the stream has begun."""
    return isinstance(batch, tuple) and [type(event) for event in cast("tuple[object, ...]", batch)] == [StreamOpened]


def _parts_of(batch: object, client: AsyncLLMClient) -> tuple[Sequence[StreamEvent], Finish | None]:
    """The deltas of a batch and the `Finish` that may follow them.

    Raises:
        LLMResponseError: it is no batch; a client of a third party may yield anything.
    """
    if isinstance(batch, _SEQUENCES):
        events = cast("Sequence[StreamEvent]", batch)
        if _are_deltas(events):
            return events, None
        *deltas, last = events
        if _are_deltas(deltas) and isinstance(last, Finish) and is_response(last.response):
            return deltas, last
    raise LLMResponseError(f"{type(client).__name__}.stream yielded no sequence of events", retryable=False)


def _are_deltas(events: Sequence[StreamEvent]) -> bool:
    return type(events[0]) in _DELTAS if len(events) == 1 else _DELTAS.issuperset(map(type, events))
