"""`llm_call` and `llm_stream`, and their twins for callers that cannot await."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self, Unpack

from ..ai.llm.types import StreamEvent, TextDelta
from ..call.run import make_call
from ..call.stream import LLMStream
from ..errors import LLMError
from .background import run_in_background
from .llm_result import LLMResult
from .model_calls import recorder_or_default
from .options import CallOptions, CallPlan


async def llm_call(model: str, prompt: str | None = None, **options: Unpack[CallOptions]) -> LLMResult:
    """Call a model: with time-outs and retries, as one span, priced.

    Args:
        model: `provider/model`, for instance `openai/gpt-4o-mini`; or the model alone beside `provider=`.
        prompt: the user's message; `{{ name }}` and `{name}` are replaced from `vars`.
        options: `CallOptions`: `messages`, `system`, `vars`, `temperature`, `max_tokens`, `timeout_ms`,
            `deadline_ms`, `max_retries`, `step`, `client`, `recorder` and the others.

    Returns:
        The reply with its tokens and its cost.

    Raises:
        LLMError: the call failed for good; the class says how, `.result` is the plain result of `run_llm_call`.
        ConfigError: an argument has a value that is not allowed; nothing was sent.
        asyncio.CancelledError: the task was cancelled; the call is recorded as cancelled.

    Example:
        >>> import asyncio
        >>> reply = asyncio.run(llm_call("fake/toy-1", "Say hi to {{ name }}", vars={"name": "Ada"}))
        >>> reply.output_tokens > 0
        True
    """
    plan = CallPlan.of("llm_call", model, prompt, **options)
    recorder = recorder_or_default(plan.recorder)
    result, error = await make_call(("", plan.step_id), plan.cfg, recorder, plan.client, function="llm_call")
    if error is not None:
        error.result = result
        raise error
    return LLMResult.of(result)


def llm_stream(model: str, prompt: str | None = None, **options: Unpack[CallOptions]) -> ResultStream:
    """Call a model and read its reply as it comes. Arguments as of `llm_call`.

    Returns:
        An async iterator of `TextDelta`, `ReasoningDelta`, `ToolCallDelta` and last a `Finish`; use it with
        `async with` where it may not be read to its end. `.result` is there once it has ended.

    Raises:
        ConfigError: an argument has a value that is not allowed.
        LLMError: from the iteration, when the call fails for good; `.result` has the text that came.
    """
    plan = CallPlan.of("llm_stream", model, prompt, **options)
    recorder = recorder_or_default(plan.recorder)
    return ResultStream(LLMStream(("", plan.step_id), plan.cfg, recorder, plan.client))


class ResultStream:
    """A streamed call. Made by `llm_stream`; nothing is sent before the first event is asked for."""

    def __init__(self, stream: LLMStream) -> None:
        self._stream = stream

    @property
    def result(self) -> LLMResult | None:
        """The whole reply, once the stream has ended well or was closed; `None` before, and when the call failed."""
        plain = self._stream.result
        return None if plain is None or plain["status"] != "ok" else LLMResult.of(plain)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            return await anext(self._stream)
        except LLMError as error:
            error.result = self._stream.result
            raise

    async def text_deltas(self) -> AsyncIterator[str]:
        """The pieces of the visible text alone."""
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    async def aclose(self) -> None:
        """Stop reading; what has come is recorded. Closing twice is harmless."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def llm_call_sync(model: str, prompt: str | None = None, **options: Unpack[CallOptions]) -> LLMResult:
    """`llm_call` for callers that cannot await: scripts, Django, Celery, threads.

    It runs on one background loop a process, in the caller's context: flow, ids, budget and span hold. Within a
    running event loop, in a notebook for instance, it is allowed and blocks that loop. `KeyboardInterrupt` cancels
    the call.
    """
    return run_in_background(llm_call(model, prompt, **options))


def llm_stream_sync(model: str, prompt: str | None = None, **options: Unpack[CallOptions]) -> SyncResultStream:
    """`llm_stream` for callers that cannot await: an iterator of the same events, on the loop of `llm_call_sync`."""
    return SyncResultStream(llm_stream(model, prompt, **options))


class SyncResultStream:
    """A streamed call that is read without awaiting. Made by `llm_stream_sync`."""

    def __init__(self, stream: ResultStream) -> None:
        self._stream = stream

    @property
    def result(self) -> LLMResult | None:
        """The whole reply, once the stream has ended well or was closed; `None` before, and when the call failed."""
        return self._stream.result

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        event = run_in_background(_next_or_none(self._stream))
        if event is None:
            raise StopIteration
        return event

    def text_deltas(self) -> Iterator[str]:
        """The pieces of the visible text alone."""
        for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    def close(self) -> None:
        """Stop reading; what has come is recorded. Closing twice is harmless."""
        run_in_background(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def _next_or_none(stream: ResultStream) -> StreamEvent | None:
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return None
