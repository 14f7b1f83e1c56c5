"""What users and other libraries do with HTTP clients: calls are seen once, and the user's code gets what it got."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import types
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest
import respx
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI
from openai.types.chat import ChatCompletionMessageParam

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.openai_server import Action
from tests.support import Captured, attributes, events

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
BODY: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}
REPLY: dict[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
}
LIMITED: Action = {"status": 429, "headers": {"retry-after-ms": "1"}}
BROKEN: Action = {"status": 500, "headers": {"retry-after-ms": "1"}}


@pytest.fixture(autouse=True)
def telemetry(capture: Captured) -> Generator[tm.Telemetry]:
    """Nothing is instrumented but by a test."""
    with tm.configure(
        tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False
    ) as configured:
        yield configured


@pytest.fixture
def hosts(openai_server: OpenAIServer) -> dict[str, str]:
    return {f"127.0.0.1:{openai_server.port}": "openai"}


@pytest.fixture
def seen(capture: Captured, hosts: dict[str, str]) -> Generator[Captured]:
    tm.instrument(hosts=hosts)
    try:
        yield capture
    finally:
        tm.uninstrument()


def calls(capture: Captured) -> list[Any]:
    return [span for span in capture.spans if span.name.startswith("chat")]


def url_of(server: OpenAIServer) -> str:
    return f"{server.base_url}/chat/completions"


def chunk(**fields: Any) -> str:
    document = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", **fields}
    return f"data: {json.dumps(document)}\n\n"


STREAM = "".join(
    (
        chunk(choices=[{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}]),
        chunk(choices=[{"index": 0, "delta": {"content": "lo"}, "finish_reason": "stop"}]),
        chunk(choices=[], usage={"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}),
        "data: [DONE]\n\n",
    )
)

# --- Retries inside a transport ---


class Retrying(httpx.BaseTransport):
    """Sends a request again by itself, as tenacity's transports do, and raises for a status that stays."""

    def __init__(self, attempts: int) -> None:
        self._inner = httpx.HTTPTransport()
        self._attempts = attempts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for left in reversed(range(self._attempts)):
            response = self._inner.handle_request(request)
            response.request = request
            if response.status_code < 400:
                return response
            response.read()
            if not left:
                response.raise_for_status()
        raise AssertionError

    def close(self) -> None:
        self._inner.close()


class AsyncRetrying(httpx.AsyncBaseTransport):
    """The same for async clients."""

    def __init__(self, attempts: int) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._attempts = attempts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for left in reversed(range(self._attempts)):
            response = await self._inner.handle_async_request(request)
            response.request = request
            if response.status_code < 400:
                return response
            await response.aread()
            if not left:
                response.raise_for_status()
        raise AssertionError

    async def aclose(self) -> None:
        await self._inner.aclose()


def told(span: Any) -> list[tuple[str, int]]:
    return [
        (event["tracemind.retry.reason"], event["http.response.status_code"])
        for event in events(span, "tracemind.retry")
    ]


def test_a_transport_that_repeats(seen: Captured, openai_server: OpenAIServer) -> None:
    """What it repeats by itself is a retry of the call, with reason and status, and counted once in the flow."""
    model = openai_server.script(LIMITED, BROKEN, {"do": "echo"})
    with httpx.Client(transport=Retrying(3)) as client, tm.flow("work") as run:
        assert client.post(url_of(openai_server), json={**BODY, "model": model}).status_code == 200
    [span] = calls(seen)
    assert told(span) == [("rate_limit", 429), ("server_error", 500)]
    assert (run.llm_calls, run.retries) == (1, 2)


async def test_an_async_transport_that_repeats(seen: Captured, openai_server: OpenAIServer) -> None:
    """The same for an async one."""
    model = openai_server.script(LIMITED, {"do": "echo"})
    async with httpx.AsyncClient(transport=AsyncRetrying(3)) as client:
        assert (await client.post(url_of(openai_server), json={**BODY, "model": model})).status_code == 200
    [span] = calls(seen)
    assert told(span) == [("rate_limit", 429)]


def test_a_transport_that_gives_up(seen: Captured, openai_server: OpenAIServer) -> None:
    """Its own exception reaches the user, and the call fails with the status of the last attempt."""
    model = openai_server.script(LIMITED, LIMITED)
    with httpx.Client(transport=Retrying(2)) as client, tm.flow("work"), pytest.raises(httpx.HTTPStatusError):
        client.post(url_of(openai_server), json={**BODY, "model": model})
    [span] = calls(seen)
    assert told(span) == [("rate_limit", 429)]
    assert (attributes(span)["error.type"], attributes(span)["http.response.status_code"]) == ("429", 429)


def test_a_budget_stops_a_transport(seen: Captured, openai_server: OpenAIServer) -> None:
    """Where no budget is left for another attempt, the transport gets the denial in place of a reply."""
    model = openai_server.script({"do": "hang"}, {"do": "echo"})

    class OnTimeOut(Retrying):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            try:
                return self._inner.handle_request(request)
            except httpx.TransportError:
                return self._inner.handle_request(request)

    with (
        httpx.Client(transport=OnTimeOut(1), timeout=0.5) as client,
        pytest.raises(tm.BudgetExceededError),
        tm.flow("work", max_tokens=300),
    ):
        client.post(url_of(openai_server), json={**BODY, "model": model, "max_tokens": 200})


# --- Clients as users have them ---


def test_a_client_that_is_older_than_the_patch(
    capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]
) -> None:
    """It is seen."""
    with OpenAI(api_key="k", base_url=openai_server.base_url) as client:
        tm.instrument(hosts=hosts)
        try:
            client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        finally:
            tm.uninstrument()
    assert len(calls(capture)) == 1


def test_a_subclass_that_overrides_send(seen: Captured, openai_server: OpenAIServer) -> None:
    """It calls the class's `send`, which is seen once."""

    class Own(DefaultHttpxClient):
        def send(self, *args: Any, **options: Any) -> Any:
            return super().send(*args, **options)

    with OpenAI(api_key="k", base_url=openai_server.base_url, http_client=Own()) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert len(calls(seen)) == 1


def test_event_hooks_that_read_the_body(seen: Captured, openai_server: OpenAIServer) -> None:
    """A hook may read a stream before its owner does; the call is whole, and the hook got every byte."""
    bodies: list[bytes] = []

    def read(response: httpx.Response) -> None:
        bodies.append(response.read())

    with (
        httpx.Client(event_hooks={"response": [read]}) as client,
        client.stream("POST", url_of(openai_server), json={**BODY, "stream": True}) as response,
    ):
        assert b"".join(response.iter_bytes()) == bodies[0]
    assert len(calls(seen)) == 1


def test_mocked_transports(capture: Captured) -> None:
    """respx and `MockTransport` are seen as a server is, and get what they got."""
    tm.instrument(hosts={"mock.example": "openai"})
    try:
        with respx.mock() as router, httpx.Client() as client:
            router.post("https://mock.example/v1/chat/completions").respond(json=REPLY)
            assert client.post("https://mock.example/v1/chat/completions", json=BODY).json() == REPLY
        mock = httpx.MockTransport(lambda request: httpx.Response(200, json=REPLY))
        with httpx.Client(transport=mock) as client:
            assert client.post("https://mock.example/v1/chat/completions", json=BODY).json() == REPLY
    finally:
        tm.uninstrument()
    assert [attributes(span)["gen_ai.usage.input_tokens"] for span in calls(capture)] == [10, 10]


def test_a_redirect_and_a_challenge_are_one_attempt(capture: Captured) -> None:
    """What the client follows by itself is no retry."""

    class Auth(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
            response = yield request
            if response.status_code == 401:
                request.headers["authorization"] = "Bearer k"
                yield request

    def handle(request: httpx.Request) -> httpx.Response:
        if "authorization" not in request.headers:
            return httpx.Response(401)
        if request.url.path == "/old/chat/completions":
            return httpx.Response(307, headers={"location": "https://mock.example/v1/chat/completions"})
        return httpx.Response(200, json=REPLY)

    tm.instrument(hosts={"mock.example": "openai"})
    try:
        with httpx.Client(transport=httpx.MockTransport(handle), auth=Auth(), follow_redirects=True) as client:
            assert client.post("https://mock.example/old/chat/completions", json=BODY).status_code == 200
    finally:
        tm.uninstrument()
    [span] = calls(capture)
    assert attributes(span)["tracemind.retry.count"] == 0


# --- Others who patch the same methods ---


def patched_by_another(marks: list[str]) -> Callable[[Any], Any]:
    """What Sentry does to `Client.send`."""

    def install(send: Any) -> Any:
        def real_send(self: Any, request: Any, **options: Any) -> Any:
            marks.append(request.url.path)
            return send(self, request, **options)

        return real_send

    return install


@pytest.mark.parametrize("is_first", [True, False])
def test_another_patch_of_send(
    capture: Captured,
    openai_server: OpenAIServer,
    hosts: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    is_first: bool,
) -> None:
    """Whether it came before or after, both see the call, and `uninstrument()` leaves the other one in place."""
    marks: list[str] = []
    install = patched_by_another(marks)
    original = httpx.Client.send
    if is_first:
        monkeypatch.setattr(httpx.Client, "send", install(original))
    tm.instrument(hosts=hosts)
    if not is_first:
        monkeypatch.setattr(httpx.Client, "send", install(httpx.Client.send))
    try:
        with httpx.Client() as client:
            client.post(url_of(openai_server), json=BODY)
            tm.uninstrument()
            client.post(url_of(openai_server), json=BODY)
    finally:
        tm.uninstrument()
    assert len(marks) == 2
    assert len(calls(capture)) == 1


def test_uninstrument_in_the_middle_of_a_stream(seen: Captured, openai_server: OpenAIServer) -> None:
    """The user reads on, and the call is recorded to its end."""
    with OpenAI(api_key="k", base_url=openai_server.base_url) as client:
        headers = {"content-type": "text/event-stream"}
        model = openai_server.script({"do": "reply", "body": STREAM, "headers": headers})
        stream = client.chat.completions.create(
            model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        pieces: list[Any] = []
        for piece in stream:
            pieces.append(piece)
            tm.uninstrument()
    [span] = calls(seen)
    assert attributes(span)["gen_ai.usage.output_tokens"] == 200
    assert len(pieces) == 3


# --- Threads and crowds ---


def test_a_thread_that_ends_after_a_failure(seen: Captured, openai_server: OpenAIServer) -> None:
    """A failed call in a plain thread, without a flow around it, does not wait for ever: the next call settles it."""
    model = openai_server.script({"status": 500}, {"do": "echo"})

    def fail() -> None:
        with httpx.Client() as client:
            client.post(url_of(openai_server), json={**BODY, "model": model})
            client.post(url_of(openai_server), json=BODY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    first, second = calls(seen)
    assert (attributes(first)["error.type"], attributes(second).get("error.type")) == ("500", None)


async def test_a_thousand_calls_with_retries(seen: Captured, openai_server: OpenAIServer) -> None:
    """Each is one span with two events, and nothing is left that waits for a repetition."""
    number = 1000
    models = [openai_server.script(LIMITED, BROKEN, {"do": "echo"}) for _ in range(number)]
    pool = httpx2.AsyncClient(timeout=120.0, limits=httpx2.Limits(max_connections=50))
    async with AsyncOpenAI(api_key="k", base_url=openai_server.base_url, http_client=pool) as client:
        with tm.flow("crowd") as run:
            await asyncio.gather(*(client.chat.completions.create(model=model, messages=MESSAGES) for model in models))
    assert (run.llm_calls, run.retries) == (number, 2 * number)
    assert {len(events(span, "tracemind.retry")) for span in calls(seen)} == {2}
    assert len(calls(seen)) == number


def test_two_hundred_threads_with_retries(seen: Captured, openai_server: OpenAIServer) -> None:
    """The same for threads, each with a call of its own."""
    number = 200
    models = [openai_server.script(LIMITED, BROKEN, {"do": "echo"}) for _ in range(number)]
    with (
        OpenAI(api_key="k", base_url=openai_server.base_url) as client,
        tm.flow("crowd") as run,
        ThreadPoolExecutor(20) as threads,
    ):

        def ask(model: str) -> None:
            client.chat.completions.create(model=model, messages=MESSAGES)

        list(threads.map(tm.carry_context(ask), models))
    assert (run.llm_calls, run.retries) == (number, 2 * number)
    assert {len(events(span, "tracemind.retry")) for span in calls(seen)} == {2}


# --- Options ---


def test_a_library_can_be_left_out(capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]) -> None:
    """`httpx=False` leaves its clients alone, also when something else is renewed; asked for later, they are seen."""
    tm.instrument(httpx=False, hosts=hosts)
    try:
        with httpx.Client() as client:
            client.post(url_of(openai_server), json=BODY)
            tm.instrument()
            client.post(url_of(openai_server), json=BODY)
            assert calls(capture) == []
            tm.instrument(httpx=True)
            client.post(url_of(openai_server), json=BODY)
    finally:
        tm.uninstrument()
    assert len(calls(capture)) == 1


@pytest.mark.parametrize("name", ["", "https://gateway.example", "gateway.example/v1", " gateway.example"])
def test_a_host_that_is_none_is_named(name: str) -> None:
    """A URL in place of a host would never match."""
    with pytest.raises(tm.ConfigError, match=r"hosts names .*; it must be a host or host:port"):
        tm.instrument(hosts={name: "openai"})


def test_gevent_is_refused(
    capture: Captured, telemetry: tm.Telemetry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`instrument()` says why and what to do; `configure()` goes on without it and says so."""
    monkey = types.ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda name: True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    with pytest.raises(tm.ConfigError, match="gevent has replaced the threads of this process"):
        tm.instrument()
    telemetry.shutdown()
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        assert "configure() sees no calls of SDKs: gevent has replaced" in caplog.text
