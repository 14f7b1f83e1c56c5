"""A streamed call gives typed events, and exactly one span however it ends."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

import tracemind_otel as tm
from tests.programs import run
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes, calls, events
from tracemind_otel import (
    AsyncLLMClient,
    ConfigError,
    Finish,
    LLMCallConfig,
    LLMClientError,
    LLMConnectionError,
    LLMError,
    LLMRequest,
    LLMResponse,
    LLMResponseError,
    LLMServerError,
    LLMStream,
    LLMTimeoutError,
    LLMUsage,
    Recorder,
    TextDelta,
    flow,
    run_llm_call,
    set_prices,
    stream_llm_call,
)
from tracemind_otel.ai.llm.providers import FakeLLMClient, OpenAILLMClient
from tracemind_otel.ai.llm.types import ReasoningDelta, StreamEvent, ToolCallDelta
from tracemind_otel.errors import UnknownProviderError
from tracemind_otel.recording.port import StepHandle, StepStart

PROMPT = "Tell me everything about the secret plan of tomorrow"
CALL = "chat toy-1"
TTFC = "gen_ai.client.operation.time_to_first_chunk"
GAPS = "gen_ai.client.operation.time_per_output_chunk"
USAGE = LLMUsage(11, 7, 18)
STREAMING = Path(__file__).parents[1] / "examples" / "streaming.py"


@pytest.fixture(autouse=True)
def no_noise(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No stream leaves a warning of OpenTelemetry or asyncio, or an unraisable exception."""
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    gc.freeze()  # only what the test itself leaves is to be collected: all else would take a second each time
    with caplog.at_level(logging.DEBUG):
        yield
    gc.collect()
    gc.unfreeze()
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in lines if record.name.startswith(("asyncio", "opentelemetry"))] == []
    assert "detach" not in caplog.text
    assert unraisable == []


class Scripted(AsyncLLMClient):
    """A third-party client: each attempt yields its batches, raises its exceptions, and hangs at `None`."""

    provider_name = "fake"

    def __init__(self, *attempts: Sequence[object]) -> None:
        self.attempts = list(attempts)
        self.opened = 0
        self.closed = 0
        self.waiting = asyncio.Event()

    async def complete(self, req: LLMRequest) -> LLMResponse:
        raise NotImplementedError

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        attempt = self.attempts[min(self.opened, len(self.attempts) - 1)]
        self.opened += 1
        try:
            for step in attempt:
                if step is None:
                    self.waiting.set()
                    await asyncio.Event().wait()
                elif isinstance(step, BaseException):
                    raise step
                else:
                    yield step  # type: ignore[misc]  # what a test wants, even where it is no batch
        finally:
            self.closed += 1


def text(piece: str) -> tuple[StreamEvent, ...]:
    return (TextDelta(piece),)


def finish(said: str = "one two", usage: LLMUsage = USAGE) -> tuple[StreamEvent, ...]:
    return (Finish(LLMResponse(said, usage, finish_reasons=("stop",), finish_reason="stop")),)


WHOLE = (text("one "), text("two"), finish())


def stream_of(capture: Captured, client: AsyncLLMClient, **options: Any) -> LLMStream:
    config = LLMCallConfig("fake", "toy-1", prompt=PROMPT, **_once(options))
    return stream_llm_call("flow", "step", config, capture.recorder(), client=client)


def _once(options: dict[str, Any]) -> dict[str, Any]:
    return {"max_retries": 0, **options}


async def read(stream: LLMStream) -> list[StreamEvent]:
    return [event async for event in stream]


def only_span(capture: Captured) -> ReadableSpan:
    """The span of the call, which is the only one but for those of its attempts."""
    [span] = calls(capture.spans)
    assert span.name == CALL
    return span


def assert_cancelled(span: ReadableSpan) -> None:
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)["tracemind.cancelled"] is True
    assert "error.type" not in attributes(span)


def assert_closed_early(span: ReadableSpan) -> None:
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)["tracemind.stream.closed_early"] is True
    assert attributes(span)["tracemind.usage.estimated"] is True
    assert "tracemind.cancelled" not in attributes(span)
    assert "error.type" not in attributes(span)


def assert_failed(span: ReadableSpan, error_type: str) -> None:
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == error_type
    assert PROMPT not in span.to_json()


def histogram(capture: Captured, name: str) -> HistogramDataPoint | None:
    points = [point for point in capture.points(name) if isinstance(point, HistogramDataPoint)]
    assert len(points) <= 1
    return points[0] if points else None


# --- Read to the end


async def test_a_stream_read_to_its_end(capture: Captured) -> None:
    """Events come in order, the priced Finish last; the span has a whole reply's attributes, and the stream's."""
    client = Scripted(WHOLE)
    stream = stream_of(capture, client)
    found = await read(stream)
    assert found[:2] == [TextDelta("one "), TextDelta("two")]
    last = found[2]
    assert isinstance(last, Finish)
    assert (last.response.usage.total_tokens, last.response.usage.cost_usd) == (18, 0.0)
    span = only_span(capture)
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)["gen_ai.request.stream"] is True
    assert 0 < attributes(span)["gen_ai.response.time_to_first_chunk"] < 10
    assert attributes(span)["gen_ai.usage.input_tokens"] == 11
    assert attributes(span)["gen_ai.response.finish_reasons"] == ("stop",)
    for absent in ("tracemind.stream.closed_early", "tracemind.usage.estimated", "tracemind.cancelled", "error.type"):
        assert absent not in attributes(span)
    assert client.closed == 1, "the connection is not left to the garbage collector"


async def test_the_result_is_that_of_the_whole_call() -> None:
    """`result` is what `run_llm_call` returns for the same reply."""
    config = LLMCallConfig("fake", "toy-1", prompt=PROMPT)
    stream = stream_llm_call("flow", "step", config, Recorder(), client=FakeLLMClient(0))
    assert stream.result is None
    await read(stream)
    assert stream.result == await run_llm_call("flow", "step", config, Recorder(), client=FakeLLMClient(0))


async def test_after_its_end_a_stream_gives_nothing_more(capture: Captured) -> None:
    """Reading and closing again is harmless, and ends no second span."""
    stream = stream_of(capture, Scripted(WHOLE))
    await read(stream)
    assert await read(stream) == []
    await stream.aclose()
    only_span(capture)


async def test_nothing_is_sent_before_the_first_event_is_asked_for(capture: Captured) -> None:
    """Making, entering and closing a stream neither calls the client nor begins a span."""
    client = Scripted(WHOLE)
    async with stream_of(capture, client):
        await asyncio.sleep(0)
    assert (client.opened, capture.spans) == (0, [])


async def test_closed_before_the_first_event_it_stays_closed(capture: Captured) -> None:
    """A stream that was closed before it was read gives no events."""
    client = Scripted(WHOLE)
    stream = stream_of(capture, client)
    await stream.aclose()
    assert await read(stream) == []
    assert (client.opened, capture.spans, stream.result) == (0, [], None)


async def test_reasoning_and_tool_calls_are_passed_on(capture: Captured) -> None:
    """Every kind of event reaches the reader, and unreported tokens are estimated from all of them."""
    deltas: tuple[StreamEvent, ...] = (ReasoningDelta("x" * 40), ToolCallDelta(0, "c1", "look", "y" * 20))
    stream = stream_of(capture, Scripted((deltas, None)))
    async with stream:
        assert [await anext(stream), await anext(stream)] == list(deltas)
    assert attributes(only_span(capture))["gen_ai.usage.output_tokens"] == 15


@pytest.mark.parametrize("pieces", [("one ", "two"), ()], ids=["deltas", "finish-only"])
async def test_a_reply_without_usage_is_estimated(capture: Captured, pieces: Sequence[str]) -> None:
    """Unreported tokens are estimated and marked on span and result, and are not in the metric."""
    stream = stream_of(capture, Scripted((*map(text, pieces), finish("one two", LLMUsage()))))
    await read(stream)
    assert attributes(only_span(capture))["tracemind.usage.estimated"] is True
    assert stream.result is not None
    assert stream.result["usage"]["completion_tokens"] == 2
    assert stream.result["usage"]["estimated"] is True
    assert capture.points("gen_ai.client.token.usage") == []


async def test_a_tokenizer_of_the_users_counts(capture: Captured) -> None:
    """The user's tokenizer makes the estimate."""

    class Words:
        def count(self, text: str, model: str) -> int:
            assert model == "toy-1"
            return len(text.split())

    config = LLMCallConfig("fake", "toy-1", prompt="a b c")
    client = Scripted((text("one two three four"), None))
    async with stream_llm_call("f", "s", config, capture.recorder(), client=client, tokenizer=Words()) as stream:
        await anext(stream)
    found = attributes(only_span(capture))
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (3, 4)


async def test_a_tokenizer_that_fails_breaks_nothing(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """When the tokenizer raises, the default estimate is used, the log says so, and the span ends."""

    class Broken:
        def count(self, text: str, model: str) -> int:
            raise RuntimeError(text)

    config = LLMCallConfig("fake", "toy-1", prompt=PROMPT)
    client = Scripted((text("12345678"), None))
    async with stream_llm_call("f", "s", config, capture.recorder(), client=client, tokenizer=Broken()) as stream:
        await anext(stream)
    assert_closed_early(only_span(capture))
    assert attributes(only_span(capture))["gen_ai.usage.output_tokens"] == 2
    assert "Broken failed (RuntimeError)" in caplog.text
    assert PROMPT not in caplog.text


# --- The reader stops early


async def test_break_inside_async_with(capture: Captured) -> None:
    """Leaving the block closes the connection and ends the span, with the text so far and its estimated tokens."""
    client = Scripted((text("12345678"), text("never read"), finish()))
    stream = stream_of(capture, client)
    async with stream:
        async for _ in stream:
            break
    assert client.closed == 1
    assert_closed_early(only_span(capture))
    assert attributes(only_span(capture))["gen_ai.usage.output_tokens"] == 2
    assert stream.result is not None
    assert (stream.result["status"], stream.result["text"]) == ("ok", "12345678")
    assert stream.result["closed_early"] is True


@pytest.mark.soak
async def test_break_without_a_close(capture: Captured) -> None:
    """A dropped stream gives a warning; the loop ends its span and closes the connection."""
    client = Scripted((text("one"), text("two"), finish()))

    async def consume() -> None:
        async for _ in stream_of(capture, client):
            break

    with pytest.warns(ResourceWarning, match="fake/toy-1 was dropped before its end"):
        await consume()
        gc.collect()
    assert capture.spans == []
    for _ in range(3):
        await asyncio.sleep(0)
    assert_closed_early(only_span(capture))
    assert client.closed == 1


@pytest.mark.soak
def test_a_stream_that_outlives_its_loop(capture: Captured) -> None:
    """A stream that is dropped after its loop has ended gives a warning, and the next call ends its span."""
    held: list[LLMStream] = []

    async def consume() -> None:
        held.append(stream_of(capture, Scripted((text("one"), None))))
        await anext(held[0])

    asyncio.run(consume())
    assert capture.spans == []
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        held.clear()
        gc.collect()
    tm.step(name="the next call")(lambda: None)()
    assert_closed_early(capture.span(CALL))


@pytest.mark.soak
async def test_aclose_in_the_middle_and_again(capture: Captured) -> None:
    """A second close is harmless, and events that were not read are dropped."""
    client = Scripted(((TextDelta("a"), TextDelta("b"), TextDelta("c")), None))
    stream = stream_of(capture, client)
    assert await anext(stream) == TextDelta("a")
    await stream.aclose()
    await stream.aclose()
    assert await read(stream) == []
    assert client.closed == 1
    assert_closed_early(only_span(capture))


async def test_stopped_at_the_finish_is_not_early(capture: Captured) -> None:
    """A reader that stops at Finish has read the whole reply."""
    async with stream_of(capture, Scripted(WHOLE)) as stream:
        async for event in stream:
            if isinstance(event, Finish):
                break
    assert "tracemind.stream.closed_early" not in attributes(only_span(capture))
    assert attributes(only_span(capture))["gen_ai.usage.output_tokens"] == 7


@pytest.mark.soak
async def test_an_exception_of_the_readers_closes_the_stream(capture: Captured) -> None:
    """An exception of the reader is no error of the call."""

    async def consume() -> None:
        async with stream_of(capture, Scripted((text("one"), None))) as stream:
            async for _ in stream:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await consume()
    assert_closed_early(only_span(capture))


@pytest.mark.soak
@pytest.mark.parametrize("before", [(), (text("one"),)], ids=["first", "next"])
async def test_closed_by_another_task_while_one_waits(
    capture: Captured, before: tuple[tuple[StreamEvent, ...], ...]
) -> None:
    """The waiting task sees the stream end, is not cancelled, and the connection is closed."""
    client = Scripted((*before, None))
    stream = stream_of(capture, client)
    reader = asyncio.create_task(read(stream))
    await client.waiting.wait()
    await stream.aclose()
    assert client.closed == 1
    assert await reader == [event for batch in before for event in batch]
    assert reader.cancelling() == 0
    span = only_span(capture)
    assert attributes(span)["tracemind.stream.closed_early"] is True
    assert "tracemind.cancelled" not in attributes(span)


@pytest.mark.soak
async def test_closed_while_it_waits_for_the_next_attempt(capture: Captured) -> None:
    """A close ends the wait of half a minute at once."""
    stream = stream_of(capture, FakeLLMClient(0, script=["503 retry-after=30"]), max_retries=1)
    reader = asyncio.create_task(read(stream))
    for _ in range(5):
        await asyncio.sleep(0)
    await stream.aclose()
    assert await asyncio.wait_for(reader, 10) == []
    assert attributes(only_span(capture))["tracemind.stream.closed_early"] is True


@pytest.mark.soak
async def test_closed_and_cancelled_at_once(capture: Captured) -> None:
    """A cancellation of the reader is never swallowed, whether it comes before or after the close."""
    for is_close_first in (True, False):
        client = Scripted((text("one"), None))
        stream = stream_of(capture, client)
        reader = asyncio.create_task(read(stream))
        await client.waiting.wait()
        closer = asyncio.create_task(stream.aclose())
        if is_close_first:
            await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await closer
        assert client.closed == 1


@pytest.mark.soak
async def test_the_closing_is_cancelled(capture: Captured) -> None:
    """When the closing task is cancelled, the reader sees the stream end, and the connection is closed."""

    class SlowToClose(Scripted):
        async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
            try:
                yield text("one")
                self.waiting.set()
                await asyncio.Event().wait()
            finally:
                await may_close.wait()
                self.closed += 1

    client, may_close = SlowToClose(), asyncio.Event()
    stream = stream_of(capture, client)
    reader = asyncio.create_task(read(stream))
    await client.waiting.wait()
    closer = asyncio.create_task(stream.aclose())
    await asyncio.sleep(0)
    closer.cancel()
    may_close.set()
    with pytest.raises(asyncio.CancelledError):
        await closer
    assert await reader == list(text("one"))
    assert client.closed == 1
    assert_closed_early(only_span(capture))


@pytest.mark.soak
async def test_closed_when_a_time_out_of_the_readers_fires(capture: Captured) -> None:
    """The reader's `asyncio.timeout` works though the stream is closed at the same moment."""
    client = Scripted((text("one"), None))
    stream = stream_of(capture, client)
    ends = list[str]()

    async def reader() -> None:
        try:
            async with asyncio.timeout(None) as limit:
                limits.set_result(limit)
                await read(stream)
            ends.append("read")
        except TimeoutError:
            ends.append("timed out")

    limits: asyncio.Future[asyncio.Timeout] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        group.create_task(reader())
        await client.waiting.wait()
        (await limits).reschedule(0)
        await stream.aclose()
    assert ends == ["timed out"]
    assert client.closed == 1


@pytest.mark.soak
async def test_closed_when_the_provider_is_silent_for_too_long(capture: Captured) -> None:
    """A stream that is closed at the moment of its time-out counts as closed early."""
    client = Scripted((text("one"), None))
    stream = stream_of(capture, client, timeout_ms=20)
    reader = asyncio.create_task(read(stream))
    await client.waiting.wait()
    loop = asyncio.get_running_loop()
    is_due_at = loop.time() + 0.03
    while loop.time() < is_due_at:
        pass  # the timer fires in the next turn of the loop
    await stream.aclose()
    assert await reader == list(text("one"))
    assert_closed_early(only_span(capture))


@pytest.mark.soak
async def test_closed_while_a_task_reads_that_has_outlived_a_cancellation(capture: Captured) -> None:
    """A close is no cancellation for a reader that has caught one before."""
    client = Scripted((text("one"), None))
    stream = stream_of(capture, client)

    async def outlives() -> list[StreamEvent]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await read(stream)
        return []

    reader = asyncio.create_task(outlives())
    await asyncio.sleep(0)
    reader.cancel()
    await client.waiting.wait()
    await stream.aclose()
    assert await reader == list(text("one"))
    assert reader.cancelling() == 1


@pytest.mark.soak
async def test_two_readers_share_a_stream(capture: Captured) -> None:
    """Two tasks that read a stream get each event once."""
    client = FakeLLMClient(1, chunks=["a", "b", "c", "d"], chunk_gap_ms=1)
    stream = stream_of(capture, client)
    found = await asyncio.gather(read(stream), read(stream))
    pieces = [event.text for events in found for event in events if isinstance(event, TextDelta)]
    assert sorted(pieces) == ["a", "b", "c", "d"]
    assert sum(isinstance(event, Finish) for events in found for event in events) == 1
    assert "error.type" not in attributes(only_span(capture))


@pytest.mark.soak
async def test_a_client_that_fails_at_its_close(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """An exception at a client's close is logged without its message, and raised nowhere."""

    class Clumsy(Scripted):
        async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
            try:
                yield text("one")
                yield text("two")
            finally:
                raise RuntimeError(req.prompt)

    async with stream_of(capture, Clumsy()) as stream:
        await anext(stream)
    assert_closed_early(only_span(capture))
    assert "closing the stream failed: RuntimeError" in caplog.text
    assert PROMPT not in caplog.text


# --- Cancelled


@pytest.mark.soak
@pytest.mark.parametrize("before", [(), (text("12345678"),)], ids=["first", "next"])
async def test_the_task_is_cancelled_while_it_waits(
    capture: Captured, before: tuple[tuple[StreamEvent, ...], ...]
) -> None:
    """The call is recorded as cancelled with its text so far, and the cancellation reaches the caller."""
    client = Scripted((*before, None))
    stream = stream_of(capture, client)
    reader = asyncio.create_task(read(stream))
    await client.waiting.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert_cancelled(only_span(capture))
    assert attributes(only_span(capture)).get("tracemind.usage.estimated") is (True if before else None)
    assert client.closed == 1
    assert stream.result is not None
    assert stream.result["cancelled"] is True


@pytest.mark.soak
async def test_a_timeout_around_the_stream_is_a_cancellation(capture: Captured) -> None:
    """The reader's `asyncio.timeout` ends the stream like any cancellation."""
    client = Scripted((text("one"), None))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await read(stream_of(capture, client))
    assert_cancelled(only_span(capture))


@pytest.mark.soak
async def test_cancelled_between_two_attempts(capture: Captured) -> None:
    """A cancellation ends the stream during the wait for the next attempt."""
    stream = stream_of(capture, FakeLLMClient(0, script=["503 retry-after=30"]), max_retries=1)
    reader = asyncio.create_task(read(stream))
    for _ in range(5):
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert_cancelled(only_span(capture))
    assert len(events(only_span(capture), "tracemind.retry")) == 1


@pytest.mark.soak
async def test_cancelled_while_it_is_priced(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is cancelled during pricing has its reported tokens, not an estimate."""
    started = asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("tracemind_otel.call.accounting.price_reply", never)
    reader = asyncio.create_task(read(stream_of(capture, Scripted(WHOLE))))
    await started.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert_cancelled(only_span(capture))
    assert attributes(only_span(capture))["gen_ai.usage.output_tokens"] == 7
    assert "tracemind.usage.estimated" not in attributes(only_span(capture))


class Interrupt(BaseException):
    """An exception of a signal handler; `KeyboardInterrupt` itself would end the test run."""


@pytest.mark.soak
@pytest.mark.parametrize("before", [(), (text("one"),)], ids=["first", "next"])
async def test_an_interrupt_ends_the_span(capture: Captured, before: tuple[tuple[StreamEvent, ...], ...]) -> None:
    """An exception that is no `Exception` reaches the caller, and leaves no open span."""
    client = Scripted((*before, Interrupt()))
    with pytest.raises(Interrupt):
        await read(stream_of(capture, client))
    assert_cancelled(only_span(capture))
    assert client.closed == 1


# --- Failed


async def test_failures_before_the_first_event_are_repeated(capture: Captured) -> None:
    """Failures before the first event are retried; the span has each retry as an event, and no error."""
    client = FakeLLMClient(0, script=["503 retry-after=0.001", "429 retry-after=0.001"], chunks=["a", "b"])
    found = await read(stream_of(capture, client, max_retries=2))
    assert found[:-1] == [TextDelta("a"), TextDelta("b")]
    span = only_span(capture)
    assert [event["tracemind.retry.reason"] for event in events(span, "tracemind.retry")] == [
        "server_error",
        "rate_limit",
    ]
    assert attributes(span)["tracemind.retry.count"] == 2
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes(span)


async def test_a_failure_for_good_before_the_first_event(capture: Captured) -> None:
    """After the last attempt, its error is raised; there is no partial text and no usage."""
    stream = stream_of(capture, FakeLLMClient(0, script=["503 retry-after=0.001"] * 2), max_retries=1)
    with pytest.raises(LLMServerError):
        await read(stream)
    assert_failed(only_span(capture), "503")
    assert attributes(only_span(capture))["http.response.status_code"] == 503
    assert "gen_ai.response.time_to_first_chunk" not in attributes(only_span(capture))
    assert stream.result is not None
    assert (stream.result["status"], stream.result["status_code"]) == ("error", 503)
    assert "text" not in stream.result


@pytest.mark.parametrize("entry", ["cut after=2", "503 after=2", "connection after=1"])
async def test_a_failure_after_the_first_event_is_not_repeated(capture: Captured, entry: str) -> None:
    """After the first event a failure is raised, and `result` has the text and its estimated usage."""
    after = int(entry[-1])
    client = FakeLLMClient(0, script=[entry], chunks=["abcd", "efgh", "ijkl"])
    stream = stream_of(capture, client, max_retries=2)
    found = [await anext(stream) for _ in range(after)]
    with pytest.raises(LLMError):
        await anext(stream)
    assert found == [TextDelta("abcd"), TextDelta("efgh")][:after]
    span = only_span(capture)
    assert span.status.status_code is StatusCode.ERROR
    assert events(span, "tracemind.retry") == []
    assert attributes(span)["tracemind.usage.estimated"] is True
    assert attributes(span)["gen_ai.usage.output_tokens"] == after
    assert stream.result is not None
    assert (stream.result["status"], stream.result["text"]) == ("error", "abcdefgh"[: 4 * after])
    assert stream.result["usage"]["estimated"] is True
    assert await read(stream) == []


@pytest.mark.parametrize("after", [0, 1], ids=["first", "next"])
async def test_a_timeout_while_waiting(capture: Captured, after: int) -> None:
    """`timeout_ms` limits each wait: for the first event, and between two events."""
    client = FakeLLMClient(0, script=[f"timeout after={after}"], chunks=["a", "b"])
    with pytest.raises(LLMTimeoutError, match=r"timeout after 0\.02s"):
        await read(stream_of(capture, client, timeout_ms=20))
    assert_failed(only_span(capture), "timeout")


async def test_a_long_stream_of_short_waits_is_no_timeout(capture: Captured) -> None:
    """A stream of twenty short waits may take longer than `timeout_ms`."""
    client = FakeLLMClient(0, chunks=["a"] * 20, chunk_gap_ms=10)
    assert len(await read(stream_of(capture, client, timeout_ms=150))) == 21


async def test_the_deadline_is_for_the_whole_stream(capture: Captured) -> None:
    """`deadline_ms` ends a stream, however short each wait is."""
    client = FakeLLMClient(0, chunks=["a"] * 1000, chunk_gap_ms=2)
    stream = stream_of(capture, client, deadline_ms=30)
    with pytest.raises(LLMTimeoutError, match="deadline of 30 ms exceeded"):
        await read(stream)
    assert_failed(only_span(capture), "timeout")
    assert stream.result is not None
    assert stream.result["retryable"] is False


@pytest.mark.parametrize("before", [(), (text("one"),)], ids=["first", "next"])
async def test_an_exception_of_a_foreign_client(
    capture: Captured, caplog: pytest.LogCaptureFixture, before: tuple[tuple[StreamEvent, ...], ...]
) -> None:
    """A third-party client's exception becomes a typed error without the prompt."""
    client = Scripted((*before, RuntimeError(f"cannot send {PROMPT}")))
    stream = stream_of(capture, client)
    with pytest.raises(LLMClientError) as caught:
        await read(stream)
    assert PROMPT not in str(caught.value)
    assert PROMPT not in json.dumps(stream.result)
    assert PROMPT not in caplog.text
    assert_failed(only_span(capture), "RuntimeError")


async def test_a_stream_that_ends_without_finish(capture: Captured) -> None:
    """A stream without a Finish was cut, and is never a success."""
    with pytest.raises(LLMConnectionError, match="without its last event"):
        await read(stream_of(capture, Scripted((text("one"),))))
    assert_failed(only_span(capture), "LLMConnectionError")


async def test_a_stream_without_any_event_is_repeated(capture: Captured) -> None:
    """A stream that ends without an event is retried."""
    client = Scripted((), WHOLE)
    config = {"max_retries": 1}
    assert len(await read(stream_of(capture, client, **config))) == 3
    assert (client.opened, client.closed) == (2, 2)
    assert [event["tracemind.retry.reason"] for event in events(only_span(capture), "tracemind.retry")] == [
        "connection"
    ]


NO_REPLY: Any = "none"


@pytest.mark.parametrize(
    "batch",
    [TextDelta("bare"), 7, "text", ("text",), (Finish(NO_REPLY),)],
    ids=["event", "number", "str", "strs", "reply"],
)
async def test_a_client_that_yields_nonsense(capture: Captured, batch: object) -> None:
    """A batch of the wrong type is an error of the call."""
    client = Scripted((batch,))
    with pytest.raises(LLMResponseError, match="yielded no sequence of events"):
        await read(stream_of(capture, client, max_retries=2))
    assert client.opened == client.closed == 1
    assert_failed(only_span(capture), "LLMResponseError")


class Whole(AsyncLLMClient):
    """A client that cannot stream."""

    provider_name = "whole"

    async def complete(self, req: LLMRequest) -> LLMResponse:
        return LLMResponse("whole", USAGE)


async def test_a_client_that_cannot_stream(capture: Captured) -> None:
    """A client that cannot stream raises a ConfigError, and the span ends once, with an error."""
    stream = stream_of(capture, Whole())
    with pytest.raises(ConfigError, match="'whole' cannot stream"):
        await read(stream)
    assert await read(stream) == []
    assert_failed(only_span(capture), "ConfigError")


@pytest.mark.parametrize("error", [RuntimeError(PROMPT), OSError(PROMPT)], ids=lambda error: type(error).__name__)
async def test_a_client_whose_stream_raises_at_once(capture: Captured, error: Exception) -> None:
    """A `stream` that is no generator and raises fails the call like any other."""

    class Plain(Whole):
        def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
            raise error

    with pytest.raises(LLMClientError):
        await read(stream_of(capture, Plain()))
    assert_failed(only_span(capture), type(error).__name__)


async def test_an_unknown_provider_is_the_callers_mistake(capture: Captured) -> None:
    """An unknown provider raises at the first event, and begins no span."""
    stream = stream_llm_call("f", "s", LLMCallConfig("nobody", "m", prompt="p"), capture.recorder())
    with pytest.raises(UnknownProviderError):
        await read(stream)
    await stream.aclose()
    assert capture.spans == []


def test_no_prompt_is_the_callers_mistake(capture: Captured) -> None:
    """A stream without a prompt raises when it is made."""
    with pytest.raises(ConfigError):
        stream_llm_call("f", "s", LLMCallConfig("fake", "m"), capture.recorder())


# --- Context


async def test_the_span_is_never_current_between_two_events(capture: Captured) -> None:
    """Between two events the reader's span is current, and spans that it opens are no children of the call."""
    tracer = capture.tracer_provider.get_tracer("reader")
    with tracer.start_as_current_span("reader") as mine:
        async with stream_of(capture, FakeLLMClient(0, chunks=["a", "b", "c"])) as stream:
            assert trace.get_current_span() is mine
            async for _ in stream:
                assert trace.get_current_span() is mine
                with tracer.start_as_current_span("work"):
                    await asyncio.sleep(0)
        assert trace.get_current_span() is mine
    found = {span.name: span for span in capture.spans}
    me = found["reader"].context
    assert me is not None
    assert len(capture.spans) == 6
    for span in capture.spans:
        if span.name != "reader":
            assert span.parent is not None
            assert span.parent.span_id == me.span_id, span.name


async def test_the_span_is_current_while_the_provider_works(capture: Captured) -> None:
    """Spans of the client are below the call, for every batch."""
    tracer = capture.tracer_provider.get_tracer("client")

    class Traced(Scripted):
        async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
            for batch in WHOLE:
                with tracer.start_as_current_span("http"):
                    await asyncio.sleep(0)
                yield batch

    await read(stream_of(capture, Traced()))
    call = capture.span(CALL).context
    assert call is not None
    inner = [span.parent for span in capture.spans if span.name == "http"]
    assert len(inner) == 3
    assert all(parent is not None and parent.span_id == call.span_id for parent in inner)


@pytest.mark.soak
@pytest.mark.parametrize("close", [True, False], ids=["close", "read"])
async def test_what_a_client_keeps_open_stays_with_the_client(capture: Captured, *, close: bool) -> None:
    """A span that the client keeps open holds every batch, whichever task reads, and no reader sees it."""
    tracer = capture.tracer_provider.get_tracer("client")

    class Traced(Scripted):
        async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
            with tracer.start_as_current_span("http"):
                for batch in WHOLE:
                    with tracer.start_as_current_span("read"):
                        await asyncio.sleep(0)
                    yield batch

    stream = stream_of(capture, Traced())
    for _ in range(2):
        await asyncio.create_task(_next(stream))
        assert trace.get_current_span() is trace.INVALID_SPAN
    await asyncio.create_task(stream.aclose() if close else _next(stream))

    http = capture.span("http").context
    assert http is not None
    parents = [span.parent for span in capture.spans if span.name == "read"]
    assert len(parents) == (2 if close else 3)
    assert all(parent is not None and parent.span_id == http.span_id for parent in parents)


@pytest.mark.parametrize("ending", [None, RuntimeError("x"), finish()], ids=["closed", "failed", "whole"])
async def test_a_stream_makes_its_step_active_once(ending: object) -> None:
    """A recorder's block is entered once a stream, and left however the stream ends."""
    told: list[str] = []

    class Telling(StepHandle):
        @contextmanager
        def active(self) -> Generator[None]:
            told.append("entered")
            yield
            told.append("left")

    class Tells(Recorder):
        def begin_step(self, start: StepStart) -> StepHandle:
            return Telling()

    client = Scripted((text("one "), text("two"), ending))
    stream = stream_llm_call("flow", "step", LLMCallConfig("fake", "toy-1", prompt=PROMPT), Tells(), client=client)
    for _ in range(2):
        await anext(stream)
        assert told == ["entered"]
    with suppress(LLMClientError):
        await (stream.aclose() if ending is None else anext(stream))
    assert told == ["entered", "left"]


@pytest.mark.soak
@pytest.mark.parametrize("close", [True, False], ids=["close", "read"])
async def test_opened_in_one_task_and_continued_in_another(capture: Captured, *, close: bool) -> None:
    """Tasks may take turns at a stream, since the provider works in the stream's own context."""
    client = FakeLLMClient(0, chunks=["a", "b", "c"])
    stream = stream_of(capture, client)
    assert await asyncio.create_task(_next(stream)) == TextDelta("a")
    assert await asyncio.create_task(_next(stream)) == TextDelta("b")
    if close:
        await asyncio.create_task(stream.aclose())
        assert_closed_early(only_span(capture))
    else:
        assert len(await asyncio.create_task(read(stream))) == 2
        assert "tracemind.stream.closed_early" not in attributes(only_span(capture))


async def _next(stream: LLMStream) -> StreamEvent:
    return await anext(stream)


@pytest.mark.soak
async def test_many_streams_interleave(capture: Captured) -> None:
    """Fifty concurrent streams have fifty spans, each with its own figures."""
    clients = [FakeLLMClient(0, chunks=["a"] * n, usage=LLMUsage(n, n, 2 * n)) for n in range(1, 51)]
    await asyncio.gather(*(read(stream_of(capture, client)) for client in clients))
    assert sorted(attributes(span)["gen_ai.usage.input_tokens"] for span in capture.spans) == list(range(1, 51))


# --- Flows and metrics


ENDINGS: Mapping[str, tuple[Callable[[], AsyncLLMClient], bool, int]] = {
    "whole": (lambda: Scripted(WHOLE), False, 7),
    "closed": (lambda: Scripted((text("12345678"), None)), True, 2),
    "failed": (lambda: Scripted((text("12345678"), RuntimeError("x"))), False, 2),
    "rejected": (Whole, False, 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_flow_counts_a_stream_once(capture: Captured, ending: str) -> None:
    """A flow counts a stream once, however it ends, and not one that was never sent."""
    make, stops, output = ENDINGS[ending]

    @flow
    async def reading() -> None:
        async with stream_of(capture, make()) as stream:
            try:
                async for _ in stream:
                    if stops:
                        break
            except (LLMError, ConfigError):
                pass  # the sums are what matters here
            await stream.aclose()

    await reading()
    found = attributes(capture.span("invoke_workflow reading"))
    assert found["tracemind.flow.llm_calls"] == (ending != "rejected")
    assert found["tracemind.flow.output_tokens"] == output


@pytest.mark.soak
async def test_what_a_cancelled_stream_cost_is_in_every_sum(capture: Captured) -> None:
    """Span, flow and counter agree on the cost of what came before a cancellation."""
    set_prices([{"model": "toy-1", "input": 10, "output": 10}])
    client = Scripted((text("12345678"), None))

    @flow
    async def reading() -> None:
        async for _ in stream_of(capture, client):
            pass

    task = asyncio.create_task(reading())
    await client.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cost = attributes(capture.span("chat toy-1"))["gen_ai.usage.cost"]
    assert cost > 0
    assert attributes(capture.span("invoke_workflow reading"))["tracemind.flow.cost_usd"] == cost
    assert capture.total("tracemind.llm.cost") == cost


async def test_stream_metrics(capture: Captured) -> None:
    """The time to the first chunk is measured once, and each later gap once; Finish is no chunk of its own."""
    await read(stream_of(capture, FakeLLMClient(2, chunks=["a", "b", "c"], chunk_gap_ms=3)))
    first, gaps = histogram(capture, TTFC), histogram(capture, GAPS)
    assert first is not None
    assert gaps is not None
    assert (first.count, gaps.count) == (1, 2)
    assert first.sum >= 0.0015
    assert gaps.min >= 0.002
    assert first.sum == pytest.approx(attributes(only_span(capture))["gen_ai.response.time_to_first_chunk"])


async def test_whole_replies_have_no_stream_metrics(capture: Captured) -> None:
    """A whole reply measures no chunks and has no stream attributes."""
    config = LLMCallConfig("fake", "toy-1", prompt=PROMPT)
    await run_llm_call("f", "s", config, capture.recorder(), client=FakeLLMClient(0))
    assert histogram(capture, TTFC) is None
    assert histogram(capture, GAPS) is None
    assert "gen_ai.request.stream" not in attributes(only_span(capture))


async def test_a_failed_stream_measures_what_came(capture: Captured) -> None:
    """Chunks before a failure are measured when they come."""
    with pytest.raises(LLMConnectionError):
        await read(stream_of(capture, FakeLLMClient(0, script=["cut after=3"], chunks=["a"] * 5)))
    gaps = histogram(capture, GAPS)
    assert gaps is not None
    assert gaps.count == 2
    assert "error.type" not in (gaps.attributes or {})


async def test_gaps_are_measured_while_the_stream_runs(capture: Captured) -> None:
    """The histogram has the gaps so far while the stream runs, all but the last 64 that came within a second."""
    stream = stream_of(capture, FakeLLMClient(0, chunks=["a"] * 10_000))
    for _ in range(500):
        await anext(stream)
    gaps = histogram(capture, GAPS)
    assert gaps is not None
    assert 499 - 64 < gaps.count < 9_999
    await stream.aclose()


async def test_newest_names(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the newest names, the two stream metrics have theirs, and the old ones are gone."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    await read(stream_of(capture, Scripted(WHOLE)))
    newest = histogram(capture, "gen_ai.client.inference.time_to_first_chunk")
    assert newest is not None
    assert newest.count == 1
    assert histogram(capture, "gen_ai.client.inference.time_per_output_chunk") is not None
    assert histogram(capture, TTFC) is None


class Broken(Recorder):
    """A recorder that raises in every method."""

    def begin_step(self, start: object) -> Any:
        raise RuntimeError("broken")


async def test_a_broken_recorder_breaks_no_stream() -> None:
    """A stream gives its events and its result, though the recorder raises."""
    config = LLMCallConfig("fake", "toy-1", prompt=PROMPT)
    stream = stream_llm_call("f", "s", config, Broken(), client=Scripted(WHOLE))
    assert len(await read(stream)) == 3
    assert stream.result is not None
    assert stream.result["status"] == "ok"


# --- Over HTTP


def chunk(content: str | None, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": reason}
    return f"data: {json.dumps({'id': 'c1', 'model': 'gpt-4o-mini', 'choices': [choice]})}\n\n"


TAIL = 'data: {"id": "c1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'
EVENT_STREAM = {"content-type": "text/event-stream"}


async def test_over_http(capture: Captured, openai_server: OpenAIServer) -> None:
    """A stream of Chat Completions, one packet for each chunk, is read and priced, and its span names the server."""
    body = chunk("Hel") + chunk("lo") + chunk(None, "stop") + TAIL
    ends = [len(chunk("Hel")), len(chunk("Hel") + chunk("lo"))]
    model = openai_server.script({"body": body, "headers": EVENT_STREAM, "split_at": ends})
    async with OpenAILLMClient("sk-test", openai_server.base_url) as client:
        config = LLMCallConfig("openai", model, prompt=PROMPT)
        stream = stream_llm_call("f", "s", config, capture.recorder(), client=client)
        assert [event.text async for event in stream if isinstance(event, TextDelta)] == ["Hel", "lo"]
    found = attributes(capture.span(f"chat {model}"))
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (5, 3)
    assert found["server.port"] == openai_server.port
    assert found["gen_ai.usage.cost"] == pytest.approx((5 * 0.15 + 3 * 0.60) / 1e6)


async def _slow_server(body: str, gone: asyncio.Event) -> asyncio.Server:
    """Sends the beginning of the body, and more until the client has gone."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100000000\r\n\r\n")
        writer.write(body.encode())
        await writer.drain()
        try:
            await reader.read()
        except ConnectionError:
            pass  # an abort is what the test waits for
        gone.set()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["close", "drop", "cancel"])
async def test_a_reader_that_stops_closes_the_connection(capture: Captured, how: str) -> None:
    """The server sees at once that the reader has stopped."""
    gone = asyncio.Event()
    server = await _slow_server(chunk("Hel"), gone)
    port = server.sockets[0].getsockname()[1]
    async with server, OpenAILLMClient("sk-test", f"http://127.0.0.1:{port}/v1") as client:
        config = LLMCallConfig("openai", "gpt-4o-mini", prompt=PROMPT)
        stream = stream_llm_call("f", "s", config, capture.recorder(), client=client)
        assert await anext(stream) == TextDelta("Hel")
        if how == "close":
            await stream.aclose()
        elif how == "cancel":
            reader = asyncio.create_task(_next(stream))
            await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait([reader])
            assert reader.cancelled()
        else:
            with pytest.warns(ResourceWarning):
                del stream
                gc.collect()
        async with asyncio.timeout(5):
            await gone.wait()
    span = capture.span("chat gpt-4o-mini")
    if how == "cancel":
        assert_cancelled(span)
    else:
        assert_closed_early(span)


# --- The example


@pytest.mark.slow
def test_the_example_prints_as_it_comes(tmp_path: Path) -> None:
    """The example prints the text as it comes, then tokens, cost and time to first chunk."""
    done = run(STREAMING, directory=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said, figures = done.stdout.strip().splitlines()[:2]
    assert said.endswith("one word at a time.")
    assert "tokens, $0.00" in figures
    assert "first text after " in figures


def test_the_example_streams_from_openai(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """The example streams from the real provider, when asked to and given a key."""
    body = chunk("Hello ") + chunk("there") + chunk(None, "stop") + TAIL
    model = openai_server.script({"body": body, "headers": EVENT_STREAM})
    environment = {"OPENAI_API_KEY": "sk-test-key", "OPENAI_BASE_URL": openai_server.base_url, "NO_PROXY": "*"}
    done = run(STREAMING, "--model", f"openai/{model}", directory=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Hello there\n8 tokens, ")


@pytest.mark.slow
def test_the_example_says_what_openai_lacks(tmp_path: Path) -> None:
    """Without a key the example gives a reason and an exit code, and no traceback."""
    done = run(STREAMING, "--provider", "openai", directory=tmp_path)
    assert done.returncode == 1
    assert "failed: OPENAI_API_KEY is not set" in done.stdout
    assert "Traceback" not in done.stderr
