"""A streamed call: typed events as they come, and one span however the stream ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Self, TypeGuard, cast

from .._base.dropped import drop, ended, interrupt, opened
from .._base.waiting import Wait
from ..ai.llm.client import AsyncLLMClient
from ..ai.llm.pricing import warm_up
from ..ai.llm.types import Finish, ReasoningDelta, StreamEvent, StreamOpened, TextDelta, ToolCallDelta
from ..errors import ConfigError, LLMError, LLMResponseError
from ..recording.port import Recorder
from .clients import client_for, running_loop
from .config import LLMCallConfig
from .estimate import CharacterTokenizer, Tokenizer
from .lifecycle import Call
from .received import Received
from .result import is_response

log = logging.getLogger(__name__)


class _State(Enum):
    """The life of a stream. The first end counts."""

    OPEN = auto()
    """More may come."""
    OVER = auto()
    """The reply is whole, or the call has failed or was cancelled."""
    CLOSED = auto()
    """The reader closed the stream."""


class _ClosedError(Exception):
    """The stream was closed while a task waited for its next event."""


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
        self._state = _State.OPEN
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches: AsyncGenerator[Sequence[StreamEvent]] | None = None
        self._ready: deque[StreamEvent] = deque()
        self._lock = asyncio.Lock()
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
        if self._move_to(_State.CLOSED):
            self._wait.end(_ClosedError())
            if self._received is not None:
                self._received.close()
        self._ready.clear()
        async with self._lock:
            await self._close_batches()

    def __del__(self) -> None:
        received: Received | None = getattr(self, "_received", None)
        if received is not None:
            drop(received, self._loop)  # the loop closes the batches, and with them the connection

    @property
    def _is_open(self) -> bool:
        return self._state is _State.OPEN

    def _move_to(self, state: _State) -> bool:
        """End the stream, unless it has ended; returns whether its call is to be ended."""
        if not self._is_open:
            return False
        self._state = state
        return self._received is None or ended(self._received)

    async def _fill(self) -> None:
        """Wait for the next events; one task at a time."""
        await self._lock.acquire()  # `async with` would take two coroutines more for each batch
        try:
            if self._loop is None:
                self._loop = running_loop("stream_llm_call")
            if self._is_open and not self._ready:  # another task may have read, or closed it
                await self._wait.wait(self._read)
        except Exception:
            if self._state is not _State.CLOSED:
                raise
        finally:
            self._lock.release()

    async def _read(self) -> None:
        """Read one batch. Any error here ends the call."""
        received = self._received or await self._begin()
        call = received.call
        try:
            if self._batches is None:
                await call.reserve()
                batch = await call.attempts.until_success(lambda: self._first(received))
            else:
                batch = await call.attempts.ask_in_turns(self._batches.__anext__)
            if not _is_batch(batch):  # a client of a third party may yield anything
                client = type(call.target.client).__name__
                raise LLMResponseError(f"{client}.stream yielded no sequence of events", retryable=False)
            await self._take(received, batch)
        except LLMError as error:
            self._fail(received, error)
            raise
        except ConfigError as error:
            if self._move_to(_State.OVER):
                call.misused(error, was_sent=received.has_begun)
            raise
        except Exception as error:
            fault = call.as_llm_error(error)
            self._fail(received, fault)
            raise fault from error
        except BaseException as cause:
            if isinstance(cause, GeneratorExit):
                self._batches = None  # the loop closes them: nothing can be awaited here
            if self._move_to(_State.OVER):
                interrupt(received.interrupted, cause)
            raise
        finally:
            if not self._is_open:
                await self._close_batches()

    def _fail(self, received: Received, error: LLMError) -> None:
        if self._move_to(_State.OVER):
            received.failed(error)

    async def _begin(self) -> Received:
        client = self._client if self._client is not None else await client_for(self._cfg.provider)
        call = Call(self._ids, self._cfg, self._request, client, self._recorder, is_stream=True)
        self._received = Received(call, self._tokenizer)
        opened(self._received)
        return self._received

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
        received.so_far = None
        batches = self._batches = received.call.target.client.stream(self._request)
        batch = await anext(batches)
        if not _is_opening(batch):
            return batch
        received.so_far = batch[0].so_far
        return await anext(batches)

    async def _take(self, received: Received, batch: Sequence[StreamEvent]) -> None:
        if not self._is_open:
            return  # closed at the moment when the batch came
        received.note_chunk(batch)
        last = batch[-1] if batch else None
        deltas = batch[:-1] if isinstance(last, Finish) else batch
        received.events += deltas
        self._ready += deltas
        if isinstance(last, Finish):
            ended_ns = time.time_ns()
            response = received.whole(last.response)
            usage = await received.call.account.priced(response)
            if self._move_to(_State.OVER):
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


def _is_batch(batch: object) -> TypeGuard[Sequence[StreamEvent]]:
    """Whether a batch is a sequence of deltas that may end with a `Finish`; compares sets of types, for speed."""
    if not isinstance(batch, Sequence):
        return False
    events = cast("Sequence[object]", batch)
    if set(map(type, events)) <= _DELTAS:
        return True
    *deltas, last = events
    return set(map(type, deltas)) <= _DELTAS and isinstance(last, Finish) and is_response(last.response)
