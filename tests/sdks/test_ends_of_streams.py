"""Streams of SDKs end in many ways; each has one span that says how, and the SDK raises what it raises without us."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import httpx
import httpx2
import openai
import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

import tracemind_otel as tm
from tests.programs import run_program
from tests.sdks.held_server import EVENTS, HeldServer, Reply
from tests.sdks.held_server import held_server as held_server
from tests.sdks.replies import EVERY
from tests.sdks.streams_of_sdks import ASYNC, SYNC, Way
from tests.servers.fixture import closed_port
from tests.support import Captured, attributes, calls, events, next_call

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

every_way = pytest.mark.parametrize("way", SYNC, ids=lambda way: way.id)
every_async_way = pytest.mark.parametrize("way", ASYNC, ids=lambda way: way.id)


@pytest.fixture
def configured(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> Generator[Captured]:
    """Spans and metrics go into memory; what a test has instrumented is put back."""
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        yield capture
        tm.uninstrument()


def streamed(way: Way, *pieces: bytes | threading.Event, **more: Any) -> Reply:
    return Reply(pieces=pieces, content_type=way.content_type, **more)


@contextmanager
def client_of(way: Way, base: str, timeout_s: float = 30.0) -> Generator[Any]:
    client = way.client(base, timeout_s)
    try:
        yield client
    finally:
        if way.close is not None:
            way.close(client)


@asynccontextmanager
async def async_client_of(way: Way, base: str, timeout_s: float = 30.0) -> AsyncGenerator[Any]:
    client = way.client(base, timeout_s)
    try:
        yield client
    finally:
        if way.close is not None:
            await way.close(client)


async def asked(way: Way, client: Any) -> Any:
    stream = way.ask(client)
    return await stream if inspect.isawaitable(stream) else stream


def leave(stream: Any) -> None:
    """Close a stream by the way that it has."""
    if hasattr(stream, "close"):
        stream.close()
    else:
        stream.__exit__(None, None, None)


async def leave_async(stream: Any) -> None:
    for name in ("aclose", "close"):
        if hasattr(stream, name):
            await getattr(stream, name)()
            return
    await stream.__aexit__(None, None, None)


def the_call(capture: Captured) -> ReadableSpan:
    """The one span of a model call."""
    (span,) = [span for span in capture.spans if span.kind is SpanKind.CLIENT]
    return span


async def collected(capture: Captured) -> None:
    """Wait for what an SDK leaves to the collector: of generators in generators a turn of the loop closes one."""
    for _ in range(10):
        if any(span.kind is SpanKind.CLIENT for span in capture.spans):
            break
        gc.collect()
        await asyncio.sleep(0)
    next_call()


def is_left_early(span: ReadableSpan, before_ns: int) -> None:
    """It is no error and has no price, and it ended with the last bytes that came before it was left."""
    found = attributes(span)
    assert found["tracemind.stream.closed_early"] is True
    assert found["gen_ai.response.time_to_first_chunk"] > 0
    assert not {"error.type", "tracemind.cost_usd", "gen_ai.usage.output_tokens", "tracemind.cancelled"} & found.keys()
    assert span.status.is_unset
    assert (span.end_time or 0) <= before_ns


def is_whole(way: Way, span: ReadableSpan) -> None:
    found = attributes(span)
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == way.reply.usage[:2]
    assert not {"error.type", "tracemind.stream.closed_early"} & found.keys()


# --- Left, dropped, read elsewhere


@every_way
@pytest.mark.parametrize("how", ["closed", "dropped"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sockets of what was dropped
def test_a_stream_that_is_left(how: str, way: Way, configured: Captured, held_server: HeldServer) -> None:
    """After the first item, by closing it or by letting it go."""
    held_server.answer(streamed(way, *way.first_half, end="open"))
    tm.instrument(hosts={held_server.host: way.provider})
    with client_of(way, held_server.base) as client:
        stream = iter(way.ask(client)) if way.id in ("google", "cohere", "ollama") else way.ask(client)
        next(iter(stream))
        last_ns = time.time_ns()
        if how == "closed":
            leave(stream)
        del stream
        gc.collect()
        next_call()
        is_left_early(the_call(configured), last_ns)


@every_async_way
@pytest.mark.parametrize("how", ["closed", "dropped"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_async_stream_that_is_left(how: str, way: Way, configured: Captured, held_server: HeldServer) -> None:
    """The same in a task."""
    held_server.answer(streamed(way, *way.first_half, end="open"))
    tm.instrument(hosts={held_server.host: way.provider})
    async with async_client_of(way, held_server.base) as client:
        stream = await asked(way, client)
        await anext(aiter(stream))
        last_ns = time.time_ns()
        if how == "closed":
            await leave_async(stream)
        del stream
        await collected(configured)
        is_left_early(the_call(configured), last_ns)


@every_way
def test_a_stream_that_a_thread_reads_after_its_flow(way: Way, configured: Captured, held_server: HeldServer) -> None:
    """Its span is a child of the step that asked, and the flow has its cost once it is read."""
    held_server.answer(streamed(way, *way.pieces))
    tm.instrument(hosts={held_server.host: way.provider})
    read: list[object] = []
    with client_of(way, held_server.base) as client:
        with tm.flow("work") as run, tm.step("ask"):
            stream = iter(way.ask(client))
            read.append(next(stream))  # some SDKs ask now
        thread = threading.Thread(target=lambda: read.extend(stream))
        thread.start()
        thread.join()
    assert len(read) > 1
    span, step = the_call(configured), configured.span("ask").context
    assert step is not None
    assert span.parent is not None
    assert span.parent.span_id == step.span_id
    is_whole(way, span)
    assert (run.llm_calls, run.cost_usd) == (1, attributes(span).get("tracemind.cost_usd"))


@every_async_way
async def test_a_stream_that_another_task_reads(way: Way, configured: Captured, held_server: HeldServer) -> None:
    """The same for tasks."""
    held_server.answer(streamed(way, *way.pieces))
    tm.instrument(hosts={held_server.host: way.provider})
    async with async_client_of(way, held_server.base) as client:
        with tm.flow("work") as run, tm.step("ask"):
            stream = aiter(await asked(way, client))
            await anext(stream)  # some SDKs ask now

        async def read() -> int:
            return len([item async for item in stream])

        assert await asyncio.create_task(read())
    span, step = the_call(configured), configured.span("ask").context
    assert step is not None
    assert span.parent is not None
    assert span.parent.span_id == step.span_id
    is_whole(way, span)
    assert run.llm_calls == 1


# --- Never closed


MARKED = ("openai", "openai_responses", "anthropic", "cohere", "ollama")
PATHS = {name: EVERY[name].path for name in MARKED}


def raw_request(name: str, base: str) -> dict[str, Any]:
    reply = EVERY[name]
    return {"url": base + reply.path, "json": {"model": reply.model, "messages": [], "input": "q", "stream": True}}


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
def test_a_stream_that_is_never_closed(name: str, library: Any, configured: Captured, held_server: HeldServer) -> None:
    """Its span ends with the format's end mark, while the connection is still open."""
    reply = EVERY[name]
    content = b"".join((*reply.pieces, reply.mark))
    held_server.answer(Reply(pieces=(content,), content_type=EVENTS, end="open"))
    tm.instrument(hosts={held_server.host: {"openai_responses": "openai"}.get(name, name)})
    came = b""
    with library.Client(trust_env=False) as client:
        response = client.send(client.build_request("POST", **raw_request(name, held_server.base)), stream=True)
        pieces = response.iter_raw()
        while came != content:
            came += next(pieces)
        found = attributes(the_call(configured))
        assert not held_server.gone.is_set()
        response.close()
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == reply.usage[:2]


@pytest.mark.parametrize("name", MARKED)
async def test_a_stream_of_aiohttp_that_is_never_closed(
    name: str, configured: Captured, held_server: HeldServer
) -> None:
    """The same for aiohttp, whose consumers often read lines."""
    reply = EVERY[name]
    content = b"".join((*reply.pieces, reply.mark))
    held_server.answer(Reply(pieces=(content,), content_type=EVENTS, end="open"))
    tm.instrument(hosts={held_server.host: {"openai_responses": "openai"}.get(name, name)})
    async with aiohttp.ClientSession() as session:
        response = await session.post(**raw_request(name, held_server.base))
        for _ in range(content.count(b"\n")):
            await response.content.readline()
        found = attributes(the_call(configured))
        response.close()
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == reply.usage[:2]


# --- Cancelled


@every_async_way
async def test_a_task_that_is_cancelled(way: Way, configured: Captured, held_server: HeldServer) -> None:
    """Its span says so; it is no error, and what came before is kept."""
    held_server.answer(streamed(way, *way.first_half, end="open"))
    tm.instrument(hosts={held_server.host: way.provider})
    has_begun = asyncio.Event()
    async with async_client_of(way, held_server.base) as client:

        async def read() -> None:
            async for _ in await asked(way, client):
                has_begun.set()

        with tm.flow("work") as run:
            task = asyncio.create_task(read())
            await has_begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    is_cancelled(way, the_call(configured))
    assert (run.llm_calls, run.cost_usd) == (1, None)


def is_cancelled(way: Way, span: ReadableSpan) -> None:
    found = attributes(span)
    assert found["tracemind.cancelled"] is True
    assert span.status.is_unset
    assert not {"error.type", "tracemind.cost_usd", "gen_ai.usage.output_tokens"} & found.keys()
    assert found.get("gen_ai.response.id") == way.reply.response_id


def test_a_cancelled_stream_under_trio(configured: Captured, held_server: HeldServer) -> None:
    """Trio's cancellation is one too."""
    way = ASYNC[0]
    held_server.answer(streamed(way, *way.first_half, end="open"))
    tm.instrument(hosts={held_server.host: way.provider})

    async def main() -> None:
        async with async_client_of(way, held_server.base) as client:
            with trio.CancelScope() as scope:
                async for _ in await asked(way, client):
                    scope.cancel()

    trio.run(main)
    is_cancelled(way, the_call(configured))


# --- Failures


FAILURES: dict[str, Callable[[Way], Reply]] = {
    "reset": lambda way: streamed(way, *way.first_half, end="reset"),
    "no bytes in time": lambda way: streamed(way, *way.first_half, end="open"),
    "no answer in time": lambda way: streamed(way, before=threading.Event()),
    "a page of HTML": lambda way: Reply(status=502, body=b"<html>Bad Gateway</html>", content_type="text/html"),
    "an error of the provider": lambda way: Reply.of(way.reply.error_body, status=400),
    "what is no JSON": lambda way: streamed(way, *way.first_half, b'data: {"choices": [{"\n\n', b"data: x\n\n"),
    "a page with status 200": lambda way: Reply(body=b"<html>Hello</html>", content_type="text/html"),
    "a whole reply": lambda way: Reply.of(way.reply.whole),
    "a reply of another format": lambda way: streamed(way, *ANOTHER[way.reply.name == "anthropic"]),
    "an end without an end": lambda way: streamed(way, *way.first_half),
}
SHOWN = ("reset", "no bytes in time", "no answer in time", "a page of HTML", "an error of the provider")
ANOTHER: dict[bool, list[bytes]] = {False: EVERY["anthropic"].pieces, True: EVERY["gemini"].pieces}
"""What a server streams that mistakes one format for another."""
TIMEOUT_S = 0.5
Outcome = tuple[list[str], type[BaseException] | None, str]
"""What came, and the exception that ended it with its words."""


def outcome(way: Way, client: Any) -> Outcome:
    came: list[str] = []
    try:
        came.extend(kind_of(item) for item in way.ask(client))
    except Exception as error:
        return came, type(error), words_of(error)
    return came, None, ""


async def async_outcome(way: Way, client: Any) -> Outcome:
    came: list[str] = []
    try:
        async for item in await asked(way, client):
            came += [kind_of(item)]
    except Exception as error:
        return came, type(error), words_of(error)
    return came, None, ""


def comparable(failure: str, came: Outcome) -> tuple[object, ...]:
    """What is the same in every run: how much is read before a reset or a time-out is not."""
    return (failure, *(came[1:] if failure == "reset" or failure.endswith("in time") else came))


def kind_of(item: object) -> str:
    return type(item).__name__


def words_of(error: Exception) -> str:
    """The message, without the addresses of objects and the date of a reply."""
    return "" if " object at 0x" in str(error) or "date" in str(error) else str(error)


def has_failed(failure: str, capture: Captured) -> None:
    """One span. What the wire itself shows is an error; an SDK that does not like a reply closes it before its end."""
    span = the_call(capture)
    found = attributes(span)
    if failure in SHOWN:
        assert "error.type" in found, failure
    elif failure != "a whole reply":
        assert "error.type" in found or found["tracemind.stream.closed_early"] is True, failure
    if failure != "a whole reply":
        assert "tracemind.cost_usd" not in found
    assert "How much?" not in span.to_json(), failure


@every_way
def test_streams_that_fail(way: Way, configured: Captured, held_server: HeldServer) -> None:
    """The SDK gives and raises the same as without us, whatever the failure."""
    with client_of(way, held_server.base) as patient, client_of(way, held_server.base, TIMEOUT_S) as hasty:
        for failure, reply in FAILURES.items():
            client = hasty if failure.endswith("in time") else patient
            held_server.answer(reply(way))
            tm.uninstrument()
            without_us = outcome(way, client)
            tm.instrument(hosts={held_server.host: way.provider})
            configured.exporter.clear()
            with tm.flow("work") as run:
                assert comparable(failure, outcome(way, client)) == comparable(failure, without_us)
            has_failed(failure, configured)
            assert run.llm_calls == 1


@every_async_way
async def test_async_streams_that_fail(way: Way, configured: Captured, held_server: HeldServer) -> None:
    """The same in a task."""
    async with (
        async_client_of(way, held_server.base) as patient,
        async_client_of(way, held_server.base, TIMEOUT_S) as hasty,
    ):
        for failure, reply in FAILURES.items():
            client = hasty if failure.endswith("in time") else patient
            held_server.answer(reply(way))
            tm.uninstrument()
            without_us = await async_outcome(way, client)
            tm.instrument(hosts={held_server.host: way.provider})
            configured.exporter.clear()
            with tm.flow("work") as run:
                with_us = await async_outcome(way, client)
            assert comparable(failure, with_us) == comparable(failure, without_us)
            await collected(configured)
            has_failed(failure, configured)
            assert run.llm_calls == 1


@every_way
def test_a_server_that_does_not_listen(way: Way, configured: Captured) -> None:
    """A refused connection is the SDK's own error, and a call that failed."""
    port = closed_port()
    with client_of(way, f"http://127.0.0.1:{port}") as client:
        without_us = outcome(way, client)
        tm.instrument(hosts={f"127.0.0.1:{port}": way.provider})
        with tm.flow("work"):
            assert outcome(way, client) == without_us
    assert without_us[1] is not None
    assert attributes(the_call(configured))["error.type"] == "LLMConnectionError"


# --- Given up, and the end of the process


def test_a_call_that_is_given_up_without_a_flow(configured: Captured, held_server: HeldServer) -> None:
    """Its span ends with the next call of the thread, at the time of its last failure."""
    held_server.answer(Reply.of({"error": {"message": "Not now"}}, status=503))
    tm.instrument(hosts={held_server.host: "openai"})
    with openai.OpenAI(api_key="k", base_url=f"{held_server.base}/v1", max_retries=1) as client:
        with pytest.raises(openai.InternalServerError):
            SYNC[0].ask(client)
        failed_ns = time.time_ns()
        held_server.answer(Reply.of(EVERY["openai"].whole))
        SYNC[0].ask(client).close()
    span = calls(configured.spans)[0]
    assert attributes(span)["error.type"] == "503"
    assert len(events(span, "tracemind.retry")) == 1
    assert (span.end_time or 0) <= failed_ns


PROGRAM = """
import sys, openai
import tracemind_otel as tm
base, path, way = sys.argv[1:]
tm.configure(file=path, hosts={base.removeprefix("http://"): "openai"})
client = openai.OpenAI(api_key="k", base_url=f"{base}/v1", max_retries=0)
asked = dict(model="gpt-4o", messages=[{"role": "user", "content": "How much?"}], stream=True)
try:
    stream = client.chat.completions.create(**asked)
except openai.InternalServerError:
    print("given up")
    sys.exit()
print(next(stream).id)
if way == "raises":
    raise SystemExit(3)
"""


def spans_in(path: Any) -> list[dict[str, Any]]:
    """The spans of a file, with their attributes by name."""
    spans: list[dict[str, Any]] = []
    for line in path.read_text().splitlines():
        for resource in json.loads(line).get("resourceSpans", ()):
            spans += [span for scope in resource["scopeSpans"] for span in scope["spans"]]
    return [
        {**span, "attributes": {each["key"]: next(iter(each["value"].values())) for each in span["attributes"]}}
        for span in spans
    ]


def test_a_process_that_ends_while_a_call_is_pending(tmp_path: Any, held_server: HeldServer) -> None:
    """The span of the call that was given up arrives, as an error."""
    held_server.answer(Reply.of({"error": {"message": "Not now"}}, status=503))
    done = run_program(PROGRAM, held_server.base, tmp_path / "trace.jsonl", "ends")
    assert (done.returncode, done.stdout) == (0, "given up\n"), done.stderr
    (span,) = spans_in(tmp_path / "trace.jsonl")
    assert span["attributes"]["error.type"] == "503"


@pytest.mark.parametrize(("way", "code"), [("ends", 0), ("raises", 3)])
def test_a_process_that_ends_in_the_middle_of_a_stream(
    way: str, code: int, tmp_path: Any, held_server: HeldServer
) -> None:
    """The span arrives, and says that the stream was left."""
    held_server.answer(streamed(SYNC[0], *SYNC[0].first_half, end="open"))
    done = run_program(PROGRAM, held_server.base, tmp_path / "trace.jsonl", way)
    assert (done.returncode, done.stdout) == (code, "chat-1\n"), done.stderr
    (span,) = spans_in(tmp_path / "trace.jsonl")
    assert span["attributes"]["tracemind.stream.closed_early"] is True
    assert "error.type" not in span["attributes"]
