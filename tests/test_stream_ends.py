"""When a stream ends and when it stays alive, against a server whose bytes the test decides."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import Span

from tests.support import Captured, attributes
from tracemind_otel import (
    AsyncLLMClient,
    Finish,
    LLMCallConfig,
    LLMError,
    LLMRequest,
    LLMResponse,
    LLMResponseError,
    LLMStream,
    LLMTimeoutError,
    Recorder,
    TextDelta,
    run_llm_call,
    stream_llm_call,
)
from tracemind_otel.ai.llm.liveness import DeadlinePassedError, Patience, ProviderSilentError, current_beat
from tracemind_otel.ai.llm.providers import OpenAILLMClient
from tracemind_otel.ai.llm.types import StreamEvent
from tracemind_otel.steps.ai_llm_call import LLMClientFactory

Write = Callable[[str], Awaitable[None]]
Script = Callable[[Write], Awaitable[None]]

EVENTS = "text/event-stream"


def chunk(content: str | None, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {} if content is None else {"content": content}, "finish_reason": reason}
    return f"data: {json.dumps({'id': 'c1', 'model': 'gpt-4o-mini', 'choices': [choice]})}\n\n"


USAGE = (
    'data: {"id": "c1", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}}\n\n'
)
WHOLE = chunk("Hel") + chunk("lo") + chunk(None, "stop") + USAGE + "data: [DONE]\n\n"
DOCUMENT = json.dumps(
    {
        "id": "c1",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }
)


class Server:
    """Answers each request with a script's bytes, in chunks of HTTP, and counts the requests."""

    def __init__(self, script: Script, *, kind: str | None = EVENTS, status: str = "200 OK") -> None:
        self.requests = 0
        self._script, self._kind, self._status = script, kind, status
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                await reader.readexactly(next(int(x.split(b":")[1]) for x in lines if b"content-length" in x))
                self.requests += 1
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone, as it may
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        kind = "" if self._kind is None else f"content-type: {self._kind}\r\n"
        writer.write(f"HTTP/1.1 {self._status}\r\n{kind}transfer-encoding: chunked\r\n\r\n".encode())

        async def write(text: str) -> None:
            data = text.encode()
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()

        await self._script(write)
        writer.write(b"0\r\n\r\n")


@asynccontextmanager
async def running(server: Server, **options: Any) -> AsyncGenerator[OpenAILLMClient]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    async with OpenAILLMClient("sk-test", server.base_url, **options) as client:
        yield client
    listening.close()


def saying(text: str) -> Script:
    async def script(write: Write) -> None:
        await write(text)

    return script


def then_open(text: str) -> Script:
    async def script(write: Write) -> None:
        await write(text)
        await asyncio.Event().wait()

    return script


def then_dropped(text: str) -> Script:
    async def script(write: Write) -> None:
        await write(text)
        raise ConnectionError

    return script


def pinging(ping: str, text: str, *, times: int = 8, gap_s: float = 0.05) -> Script:
    async def script(write: Write) -> None:
        for _ in range(times):
            await write(ping)
            await asyncio.sleep(gap_s)
        await write(text)

    return script


def config(**options: Any) -> LLMCallConfig:
    return LLMCallConfig("openai", "gpt-4o-mini", prompt="Tell me a secret", **options)


async def read(capture: Captured, client: Any, **options: Any) -> list[object]:
    """The texts of a stream's deltas, and last its usage or its error."""
    found: list[object] = []
    async with stream_llm_call("f", "s", config(**options), capture.recorder(), client=client) as stream:
        try:
            async for event in stream:
                if isinstance(event, TextDelta):
                    found.append(event.text)
                elif isinstance(event, Finish):
                    found.append(event.response.usage.total_tokens)
        except LLMError as error:
            found.append(error)
    return found


# --- The end


@pytest.mark.parametrize("script", [then_open(WHOLE), then_dropped(WHOLE), saying(WHOLE)], ids=["open", "drop", "end"])
async def test_a_stream_ends_at_its_end_mark(capture: Captured, script: Script) -> None:
    """A stream ends at `[DONE]`, whatever the server then does with the connection."""
    server = Server(script)
    async with running(server) as client, asyncio.timeout(30):
        assert await read(capture, client) == ["Hel", "lo", 8]
    assert server.requests == 1


# --- Life


@pytest.mark.parametrize("ping", [": ping\n\n", "\n", 'data: {"choices": []}\n\n', chunk("")])
async def test_bytes_are_life_in_a_stream(capture: Captured, ping: str) -> None:
    """A model that sends keep-alives for longer than `timeout_ms` is asked once and answers."""
    server = Server(pinging(ping, WHOLE))
    async with running(server) as client:
        assert await read(capture, client, timeout_ms=200) == ["Hel", "lo", 8]
    assert server.requests == 1


async def test_bytes_are_life_between_two_events(capture: Captured) -> None:
    """Keep-alives in the middle of a stream count as life too."""

    async def script(write: Write) -> None:
        await write(chunk("Hel"))
        await pinging(": ping\n\n", WHOLE.removeprefix(chunk("Hel")))(write)

    server = Server(script)
    async with running(server) as client:
        assert await read(capture, client, timeout_ms=200) == ["Hel", "lo", 8]
    assert server.requests == 1


class Streaming(AsyncLLMClient):
    """A client of the user's that reads a stream of another client for each whole reply."""

    provider_name = "router"

    def __init__(self, inner: AsyncLLMClient, recorder: Recorder) -> None:
        self._inner, self._recorder = inner, recorder

    async def complete(self, req: LLMRequest) -> LLMResponse:
        async with stream_llm_call("f", "s", config(), self._recorder, client=self._inner) as stream:
            (last,) = [event async for event in stream if isinstance(event, Finish)]
        return last.response


async def test_a_stream_inside_a_call_is_life_of_the_call(capture: Captured) -> None:
    """A call whose client reads a stream lasts as long as chunks come."""

    async def script(write: Write) -> None:
        for _ in range(8):
            await write(chunk("Hel"))
            await asyncio.sleep(0.05)
        await write(WHOLE)

    async with running(Server(script)) as inner:
        client = Streaming(inner, capture.recorder())
        result = await run_llm_call("f", "s", config(timeout_ms=200, max_retries=0), capture.recorder(), client=client)
    assert result["status"] == "ok"


async def test_bytes_are_life_in_a_whole_reply(capture: Captured) -> None:
    """Blank lines before the document keep the call alive, and restart the client's own time-out."""
    server = Server(pinging("\n", DOCUMENT), kind="application/json")
    async with running(server, timeout_s=0.2) as client:
        result = await run_llm_call("f", "s", config(timeout_ms=200), capture.recorder(), client=client)
    assert (result["text"], result["retries"], server.requests) == ("Hello", 0, 1)


@pytest.mark.soak
async def test_silence_ends_a_stream(capture: Captured) -> None:
    """After the last byte the wait is `timeout_ms`, however long bytes came before."""
    server = Server(then_open(chunk("Hel")))
    async with running(server) as client, asyncio.timeout(5):
        text, error = await read(capture, client, timeout_ms=100, max_retries=0)
    assert text == "Hel"
    assert isinstance(error, LLMTimeoutError)


async def test_the_deadline_ends_a_stream_that_lives(capture: Captured) -> None:
    """Keep-alives do not move the deadline."""
    server = Server(pinging(": ping\n\n", WHOLE, times=200))
    async with running(server) as client, asyncio.timeout(5):
        (error,) = await read(capture, client, timeout_ms=5000, deadline_ms=200)
    assert isinstance(error, LLMTimeoutError)
    assert not error.retryable
    assert server.requests == 1


# --- What came is kept


@pytest.mark.parametrize(
    "broken", ["data: {not JSON\n\n", 'data: {"error": {"message": "overloaded", "code": 503}}\n\n']
)
async def test_deltas_before_an_error_are_delivered(capture: Captured, broken: str) -> None:
    """Deltas that arrive together with an error are delivered before it."""
    server = Server(saying(chunk("Hel") + chunk("lo") + broken))
    async with running(server) as client:
        *texts, error = await read(capture, client)
    assert texts == ["Hel", "lo"]
    assert isinstance(error, LLMError)
    assert server.requests == 1


ANTHROPIC = (
    'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1", "model": "claude-sonnet-4-5", '
    '"usage": {"input_tokens": 1000, "cache_read_input_tokens": 24}}}\n\n'
    'event: content_block_start\ndata: {"type": "content_block_start", "index": 0, "content_block": {"type": "text", '
    '"text": ""}}\n\n'
    'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", '
    '"text": "Hello there"}}\n\n'
)


@pytest.mark.soak
@pytest.mark.parametrize("how", ["close", "cut", "silent", "cancel"])
async def test_a_stream_that_ends_early_keeps_what_was_reported(capture: Captured, how: str) -> None:
    """Span and result have the reported id, model and input; only the output is estimated."""
    server = Server(saying(ANTHROPIC) if how == "cut" else then_open(ANTHROPIC))
    options: dict[str, Any] = {"timeout_ms": 100} if how == "silent" else {}
    async with running(server), LLMClientFactory.make("anthropic", api_key="k", base_url=server.base_url) as client:
        call = LLMCallConfig("anthropic", "claude-sonnet-4-5", prompt="Hi", **options)
        stream = stream_llm_call("f", "s", call, capture.recorder(), client=client)
        assert await anext(stream) == TextDelta("Hello there")
        if how == "close":
            await stream.aclose()
        else:
            task = asyncio.ensure_future(anext(stream))
            if how == "cancel":
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is not None
    assert stream.result is not None
    usage = stream.result["usage"]
    assert (usage["prompt_tokens"], usage["cache_read_tokens"], usage["estimated"]) == (1024, 24, True)
    assert usage["completion_tokens"] > 0
    assert (stream.result["response_id"], stream.result["text"]) == ("msg_1", "Hello there")
    found = attributes(capture.span("chat claude-sonnet-4-5"))
    assert found["gen_ai.response.id"] == "msg_1"
    assert found["gen_ai.response.model"] == "claude-sonnet-4-5"
    assert found["gen_ai.usage.input_tokens"] == 1024


async def test_closing_ends_the_wait_of_another_task(capture: Captured) -> None:
    """Closing a stream ends it for a task that waits for its next chunk, and closes the connection."""
    closed = asyncio.Event()

    class Watching(Server):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            await reader.readexactly(next(int(x.split(b":")[1]) for x in lines if b"content-length" in x))
            data = chunk("Hel").encode()
            start = f"HTTP/1.1 200 OK\r\ncontent-type: {EVENTS}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            writer.write(start + b"%x\r\n%b\r\n" % (len(data), data))
            await reader.read()
            closed.set()
            writer.close()

    async with running(Watching(saying(""))) as client:
        stream = stream_llm_call("f", "s", config(), capture.recorder(), client=client)
        assert await anext(stream) == TextDelta("Hel")
        rest = asyncio.ensure_future(_rest_of(stream))
        await asyncio.sleep(0)
        await stream.aclose()
        assert await rest == []
        await asyncio.wait_for(closed.wait(), 10)
    assert attributes(capture.span("chat gpt-4o-mini"))["tracemind.stream.closed_early"] is True


async def _rest_of(stream: LLMStream) -> list[StreamEvent]:
    return [event async for event in stream]


async def test_two_tasks_share_a_stream(capture: Captured) -> None:
    """Two tasks that read one stream get each event once between them."""

    async def script(write: Write) -> None:
        for number in range(20):
            await write(chunk(f"{number} "))
            await asyncio.sleep(0.001)
        await write(WHOLE)

    async with running(Server(script)) as client:
        stream = stream_llm_call("f", "s", config(), capture.recorder(), client=client)
        shares = await asyncio.gather(_rest_of(stream), _rest_of(stream))
    texts = [event.text for share in shares for event in share if isinstance(event, TextDelta)]
    assert sorted(texts) == sorted([*(f"{number} " for number in range(20)), "Hel", "lo"])


# --- The form of the body


@pytest.mark.parametrize("kind", ["application/json", EVENTS, None])
async def test_a_stream_answered_with_a_document(capture: Captured, kind: str | None) -> None:
    """A document instead of a stream gives the usual events, whatever its content type."""
    server = Server(saying(DOCUMENT), kind=kind)
    async with running(server) as client:
        assert await read(capture, client) == ["Hello", 8]


@pytest.mark.parametrize("kind", ["application/json", EVENTS, None])
async def test_a_whole_call_answered_with_events(capture: Captured, kind: str | None) -> None:
    """Events instead of a document give the usual reply."""
    server = Server(saying(WHOLE), kind=kind)
    async with running(server) as client:
        result = await run_llm_call("f", "s", config(), capture.recorder(), client=client)
    assert (result["text"], result["usage"]["total_tokens"]) == ("Hello", 8)


@pytest.mark.parametrize("script", [then_open(WHOLE), then_dropped(WHOLE)], ids=["open", "dropped"])
async def test_a_whole_call_answered_with_events_ends_at_their_mark(capture: Captured, script: Script) -> None:
    """A whole call that is answered with events ends at their end mark."""
    server = Server(script)
    async with running(server) as client, asyncio.timeout(10):
        result = await run_llm_call("f", "s", config(), capture.recorder(), client=client)
    assert (result["text"], result["usage"]["total_tokens"]) == ("Hello", 8)
    assert server.requests == 1


@pytest.mark.soak
@pytest.mark.parametrize("body", [DOCUMENT, WHOLE.removesuffix("data: [DONE]\n\n")], ids=["document", "no-mark"])
async def test_what_came_whole_is_no_failure_though_the_connection_broke(capture: Captured, body: str) -> None:
    """A connection that breaks after the whole reply is no failure."""
    server = Server(then_dropped(body))
    async with running(server) as client:
        assert (await read(capture, client))[-1] == 8
        result = await run_llm_call("f", "s", config(), capture.recorder(), client=client)
    assert (result["text"], result["usage"]["total_tokens"]) == ("Hello", 8)
    assert server.requests == 2


@pytest.mark.soak
@pytest.mark.parametrize("body", [chunk("Hel") + chunk(None, "stop"), DOCUMENT[:-1]], ids=["no-usage", "document"])
async def test_what_broke_off_before_its_end_is_a_failure(capture: Captured, body: str) -> None:
    """A finish reason without the usage that follows, and a cut document, are failures."""
    async with running(Server(then_dropped(body))) as client:
        assert isinstance((await read(capture, client, max_retries=0))[-1], LLMError)


async def test_lines_that_answer_a_whole_call_end_at_their_mark(capture: Captured) -> None:
    """A whole call that Ollama answers with lines ends at the last line."""
    lines = '{"message": {"content": "Hel"}}\n{"message": {"content": "lo"}}\n'
    last = '{"message": {}, "done": true, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 3}\n'
    server = Server(then_open(lines + last), kind="application/x-ndjson")
    async with running(server), asyncio.timeout(10):
        client = LLMClientFactory.make("ollama", base_url=server.base_url)
        result = await run_llm_call("f", "s", config(), capture.recorder(), client=client)
    assert (result["text"], result["usage"]["total_tokens"]) == ("Hello", 8)


@pytest.mark.parametrize("mark", ["data: [DONE] \n\n", "data:[DONE]\n\n"])
async def test_the_mark_may_be_padded(capture: Captured, mark: str) -> None:
    """White space around the end mark is ignored."""
    async with running(Server(saying(WHOLE.replace("data: [DONE]\n\n", mark)))) as client:
        assert await read(capture, client) == ["Hel", "lo", 8]


async def test_an_error_document_in_a_stream(capture: Captured) -> None:
    """An error document with status 200 raises that error."""
    server = Server(saying('{"error": {"message": "no such model", "code": 404}}'), kind="application/json")
    async with running(server) as client:
        (error,) = await read(capture, client)
    assert isinstance(error, LLMError)
    assert error.message == "the provider reports: no such model"
    assert server.requests == 1


@pytest.mark.parametrize("body", ["<html>secret</html>", "upstream said no", '{"half": '])
async def test_what_cannot_be_read_is_asked_for_once(capture: Captured, body: str) -> None:
    """The error for an unreadable reply describes it without the body, and is not retried."""
    server = Server(saying(body), kind="text/html; charset=utf-8")
    async with running(server) as client:
        (error,) = await read(capture, client)
        result = await run_llm_call("f", "s", config(), capture.recorder(), client=client)
    assert isinstance(error, LLMResponseError)
    for said in (error.message, result["reason"]):
        assert f"text/html, {len(body)} bytes" in said
        assert body not in said
    assert server.requests == 2


@pytest.mark.parametrize("script", [then_dropped('{"error": '), then_open('{"error": ')], ids=["cut", "never-ends"])
async def test_an_error_whose_body_breaks_off_keeps_its_status(capture: Captured, script: Script) -> None:
    """A 401 with a cut body is a 401, and is not retried."""
    server = Server(script, status="401 Unauthorized", kind="application/json")
    async with running(server) as client, asyncio.timeout(8):
        (error,) = await read(capture, client, timeout_ms=300)
        result = await run_llm_call("f", "s", config(timeout_ms=300), capture.recorder(), client=client)
    assert isinstance(error, LLMError)
    assert (error.status_code, result["status_code"], server.requests) == (401, 401, 2)


# --- The span around a wait


class Watched(httpx.AsyncByteStream):
    """A body that notes the current span as each of its pieces is asked for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in (chunk("Hel"), chunk("lo"), chunk(None, "stop") + USAGE + "data: [DONE]\n\n"):
            span = trace.get_current_span()
            self.seen.append(span.name if isinstance(span, Span) else "none")
            await asyncio.sleep(0)
            yield piece.encode()


async def test_a_client_of_the_users_reads_inside_the_span(capture: Captured) -> None:
    """What the user's own transport does while it waits for bytes nests under the call; the reader's code does not."""
    body, outside = Watched(), set[object]()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers={"content-type": EVENTS}, stream=body))
    async with httpx.AsyncClient(transport=transport) as sender:
        client = OpenAILLMClient("sk-test", "http://model.invalid/v1", http_client=sender)
        async for _ in stream_llm_call("f", "s", config(), capture.recorder(), client=client):
            outside.add(trace.get_current_span())
    assert body.seen == ["chat gpt-4o-mini"] * 3
    assert outside == {trace.INVALID_SPAN}


# --- Clients that cannot be made


async def test_a_client_that_cannot_be_made_is_a_failed_call(capture: Captured) -> None:
    """A factory that raises makes the call fail with a result and a span."""

    def broken(*, api_key: str | None = None, base_url: str | None = None) -> Any:
        raise KeyError("no such loop")

    LLMClientFactory.register("unmade", broken)
    call = LLMCallConfig("unmade", "m", prompt="What is it?")
    result = await run_llm_call("f", "s", call, capture.recorder())
    assert (result["status"], result["error_type"]) == ("error", "KeyError")
    with pytest.raises(LLMError, match="the client cannot be made"):
        await anext(stream_llm_call("f", "s", call, capture.recorder()))
    assert [span.name for span in capture.spans] == ["chat m", "chat m"]


# --- The timer


@pytest.mark.soak
async def test_one_timer_serves_every_wait() -> None:
    """Ten thousand waits make one timer, and a beat makes none."""
    loop, made = asyncio.get_running_loop(), 0
    call_at = loop.call_at

    def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal made
        made += 1
        return call_at(*arguments, **options)

    loop.call_at = counted  # type: ignore[method-assign,assignment]
    patience = Patience(60.0)
    try:
        with patience.listening():
            for _ in range(10_000):
                with patience:
                    await _lively()
    finally:
        patience.stop()
        loop.call_at = call_at  # type: ignore[method-assign]
    assert made == 1


async def _lively() -> None:
    current_beat()()


async def _waiting(patience: Patience) -> None:
    with patience:
        await asyncio.Event().wait()


@pytest.mark.soak
async def test_one_timer_serves_a_stream(capture: Captured) -> None:
    """A stream of chunks that come alone sets one timer, not one for each."""
    loop, made = asyncio.get_running_loop(), list[object]()
    call_at = loop.call_at

    def noted(when: float, callback: Any, *arguments: Any, **options: Any) -> asyncio.TimerHandle:
        made.append(getattr(callback, "__self__", None))
        return call_at(when, callback, *arguments, **options)

    async def script(write: Write) -> None:
        for _ in range(50):
            await write(chunk("word "))
            await asyncio.sleep(0.001)
        await write(WHOLE)

    async with running(Server(script)) as client:
        loop.call_at = noted  # type: ignore[method-assign,assignment]
        try:
            assert (await read(capture, client))[-1] == 8
        finally:
            loop.call_at = call_at  # type: ignore[method-assign]
    clocks = [owner for owner in made if isinstance(owner, Patience)]
    assert len(clocks) == len(set(map(id, clocks))) <= 3  # the stream, and the end without and with its usage


@pytest.mark.soak
async def test_a_cancellation_of_the_users_stays_one() -> None:
    """Only `Patience`'s own cancellation becomes a time-out; the user's time-out stays the user's."""
    patience = Patience(30.0)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await _waiting(patience)
    assert not isinstance(caught.value, ProviderSilentError)
    task = asyncio.ensure_future(_waiting(patience))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    patience.stop()


@pytest.mark.soak
@pytest.mark.parametrize(("whole_s", "error"), [(None, ProviderSilentError), (0.01, DeadlinePassedError)])
async def test_patience_ends(whole_s: float | None, error: type[TimeoutError]) -> None:
    """Silence and the deadline end differently, and leave the task without a cancellation."""
    patience = Patience(0.02, whole_s)
    with pytest.raises(error):
        await _waiting(patience)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_readers_time_is_not_the_providers() -> None:
    """The reader's time between two waits does not count as silence."""
    patience = Patience(0.05)
    with patience:
        await _lively()
    await asyncio.sleep(0.12)
    with patience:
        await _lively()
    patience.stop()
