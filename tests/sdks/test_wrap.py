"""`tm.wrap(client)`: the calls of one client are seen, and those of no other."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import aiohttp
import httpx
import pytest
from anthropic import Anthropic
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
BODY: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}
USAGE_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6


@pytest.fixture(autouse=True)
def configured(capture: Captured) -> Generator[None]:
    """Nothing is instrumented but what a test wraps."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        yield


@pytest.fixture
def hosts(openai_server: OpenAIServer) -> dict[str, str]:
    return {f"127.0.0.1:{openai_server.port}": "openai"}


def client_at(server: OpenAIServer, **options: Any) -> OpenAI:
    return OpenAI(api_key="k", base_url=server.base_url, **options)


def ask(client: OpenAI, model: str = "gpt-4o-mini") -> None:
    client.chat.completions.create(model=model, messages=MESSAGES)


def costs(capture: Captured) -> list[float | None]:
    return [attributes(span).get("tracemind.cost_usd") for span in capture.spans if span.name.startswith("chat")]


def test_the_client_of_an_sdk(capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]) -> None:
    """The same client comes back, its call is priced and in the flow's sums, and another client's is not seen."""
    with client_at(openai_server) as client, client_at(openai_server) as other:
        assert tm.wrap(client, hosts=hosts) is client
        with tm.flow("work") as run:
            ask(client)
            ask(other)
    assert costs(capture) == [pytest.approx(USAGE_USD, rel=1e-9)]
    assert run.llm_calls == 1
    assert run.cost_usd == pytest.approx(USAGE_USD, rel=1e-9)


async def test_an_async_client(capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]) -> None:
    """Its attempts are one call, as with `instrument()`."""
    model = openai_server.script({"status": 429, "headers": {"retry-after-ms": "1"}}, {"do": "echo"})
    async with tm.wrap(AsyncOpenAI(api_key="k", base_url=openai_server.base_url), hosts=hosts) as client:
        await client.chat.completions.create(model=model, messages=MESSAGES)
    [span] = [span for span in capture.spans if span.name.startswith("chat")]
    assert attributes(span)["tracemind.retry.count"] == 1


def test_an_http_client(capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]) -> None:
    """httpx's client may be given itself; requests that are no model calls pass."""
    with tm.wrap(httpx.Client(), hosts=hosts) as client:
        client.post(f"{openai_server.base_url}/chat/completions", json=BODY)
        client.post(f"{openai_server.base_url}/models", json=BODY)
    assert costs(capture) == [pytest.approx(USAGE_USD, rel=1e-9)]


async def test_a_session_of_aiohttp(capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]) -> None:
    """Its session likewise, without the warning that aiohttp gives for attributes of one's own."""
    async with aiohttp.ClientSession() as session:
        tm.wrap(session, hosts=hosts)
        async with session.post(f"{openai_server.base_url}/chat/completions", json=BODY) as response:
            await response.json()
    assert costs(capture) == [pytest.approx(USAGE_USD, rel=1e-9)]


def test_twice_is_once(capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]) -> None:
    """A client that is wrapped again, or seen by `instrument()` too, has one span a call."""
    with client_at(openai_server) as client:
        tm.wrap(tm.wrap(client), hosts=hosts)
        ask(client)
        tm.instrument(hosts=hosts)
        try:
            ask(client)
        finally:
            tm.uninstrument()
        ask(client)
    assert costs(capture) == [pytest.approx(USAGE_USD, rel=1e-9)] * 3


def test_a_client_whose_send_somebody_has_replaced(
    capture: Captured, openai_server: OpenAIServer, hosts: dict[str, str]
) -> None:
    """A `send` that was put on the client itself before hides it from `instrument()`; `wrap()` sees it."""
    with httpx.Client() as client:
        bound = client.send
        client.send = lambda *args, **options: bound(*args, **options)  # type: ignore[method-assign]
        tm.wrap(client, hosts=hosts)
        client.post(f"{openai_server.base_url}/chat/completions", json=BODY)
    assert costs(capture) == [pytest.approx(USAGE_USD, rel=1e-9)]


def test_a_client_of_another_sdk() -> None:
    """Each SDK's client holds an HTTP client somewhere."""
    with Anthropic(api_key="k") as client:
        assert tm.wrap(client) is client


@pytest.mark.parametrize("wrong", ["client", 3, object(), {"client": None}])
def test_something_without_a_client_is_named(wrong: object) -> None:
    """The error says what was looked for and what to do."""
    with pytest.raises(tm.ConfigError, match=r"found no HTTP client .* in this .*instrument"):
        tm.wrap(wrong)
