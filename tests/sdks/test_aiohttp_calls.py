"""Model calls over aiohttp, as google-genai and litellm make them: seen however the reply is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes, events

COST_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6


@pytest.fixture
async def seen(capture: Captured, openai_server: OpenAIServer) -> AsyncGenerator[Captured]:
    """Calls to the server are seen, and priced as OpenAI's."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        await asyncio.to_thread(tm.instrument, hosts={f"127.0.0.1:{openai_server.port}": "openai"})
        try:
            yield capture
        finally:
            tm.uninstrument()


def posted(session: aiohttp.ClientSession, server: OpenAIServer, model: str = "gpt-4o-mini") -> Any:
    document = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    return session.post(f"{server.base_url}/chat/completions", json=document)


async def by_lines(response: aiohttp.ClientResponse) -> bytes:
    return b"".join([line async for line in response.content])


async def by_chunks(response: aiohttp.ClientResponse) -> bytes:
    return b"".join([piece async for piece in response.content.iter_chunked(50)])


async def by_any(response: aiohttp.ClientResponse) -> bytes:
    return b"".join([piece async for piece in response.content.iter_any()])


async def by_pairs(response: aiohttp.ClientResponse) -> bytes:
    return b"".join([piece async for piece, _ in response.content.iter_chunks()])


async def at_once(response: aiohttp.ClientResponse) -> bytes:
    return await response.read()


async def as_text(response: aiohttp.ClientResponse) -> bytes:
    return (await response.text()).encode()


async def by_readany(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    while piece := await response.content.readany():
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("read", [by_lines, by_chunks, by_any, by_pairs, at_once, as_text, by_readany])
async def test_every_way_to_read_a_reply(
    seen: Captured, openai_server: OpenAIServer, read: Callable[[aiohttp.ClientResponse], Awaitable[bytes]]
) -> None:
    """The reader gets every byte, and the span the tokens and the cost."""
    async with aiohttp.ClientSession() as session, posted(session, openai_server) as response:
        body = await read(response)
    assert len(body) == int(response.headers["content-length"])
    found = attributes(seen.span("chat gpt-4o-mini"))
    assert found["gen_ai.usage.input_tokens"] == 1_000
    assert found["tracemind.cost_usd"] == pytest.approx(COST_USD, rel=1e-9)


async def test_attempts_of_one_task_are_one_call(seen: Captured, openai_server: OpenAIServer) -> None:
    """A status, a reply that is cut, and a success are one span with two events; the flow has one call."""
    model = openai_server.script({"status": 429}, {"do": "cut"}, {"do": "echo"})
    with tm.flow("work") as run:
        async with aiohttp.ClientSession() as session:
            async with posted(session, openai_server, model) as response:
                assert response.status == 429
            async with posted(session, openai_server, model) as response:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
            async with posted(session, openai_server, model) as response:
                await response.json()
    retries = events(seen.span(f"chat {model}"), "tracemind.retry")
    assert [each["tracemind.retry.reason"] for each in retries] == ["rate_limit", "connection"]
    assert (run.llm_calls, run.retries) == (1, 2)
    assert run.cost_usd == pytest.approx(COST_USD, rel=1e-9)


async def test_a_session_that_raises_for_a_status(seen: Captured, openai_server: OpenAIServer) -> None:
    """The exception is the library's own, and the span has its status."""
    model = openai_server.script({"status": 400})
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        with pytest.raises(aiohttp.ClientResponseError):
            async with posted(session, openai_server, model):
                pass
    assert attributes(seen.span(f"chat {model}"))["http.response.status_code"] == 400


async def test_a_reply_that_nobody_reads(seen: Captured, openai_server: OpenAIServer) -> None:
    """Its call ends with the response, and has no cost, since nothing was reported."""
    async with aiohttp.ClientSession() as session, posted(session, openai_server):
        pass
    await tm.llm_call("fake/toy-1", "the next call")
    found = attributes(seen.span("chat gpt-4o-mini"))
    assert found["tracemind.stream.closed_early"] is True
    assert "tracemind.cost_usd" not in found


async def test_the_signature_stays(seen: Captured) -> None:
    """google-genai passes only what `ClientSession._request` names in its signature."""
    import inspect

    assert "ssl" in inspect.signature(aiohttp.ClientSession._request).parameters
