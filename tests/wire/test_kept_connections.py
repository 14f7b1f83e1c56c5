"""A connection that the server closed between two requests costs no wait, no retry and no presumed bill."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncGenerator, Iterator
from typing import Any, cast

import httpx
import httpx2
import pytest
from httpx_aiohttp import HttpxAiohttpClient

import tracemind_otel as tm
from tests.servers.fixture import REPOSITORY
from tests.support import Captured
from tracemind_otel.ai.llm.providers.openai import OpenAILLMClient
from tracemind_otel.otel import semconv
from tracemind_otel.otel.budget_scope import budget

WORKERS = 8
CALLS_EACH = 40


class ClosingServer:
    """The tests' end of the server."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def base_url(self, behaviour: str) -> str:
        """What to give to a client as `base_url`."""
        return f"{self._url}/{behaviour}/v1"

    def close_kept(self) -> None:
        """Close every connection that waits for a request."""
        self._ask("_close")

    def report(self, prefix: str) -> tuple[list[str], list[str]]:
        """The prompts with that prefix that the server read, and those that it answered."""
        told = self._ask("_report")
        seen, answered = ([each for each in told[name] if each.startswith(prefix)] for name in ("seen", "answered"))
        return seen, answered

    def _ask(self, path: str) -> dict[str, Any]:
        with self._opener.open(f"{self._url}/{path}", timeout=30) as reply:
            return cast("dict[str, Any]", json.load(reply))


@pytest.fixture(scope="module")
def server() -> Iterator[ClosingServer]:
    """A server that closes connections, in a process of its own."""
    command = [sys.executable, "-m", "tests.servers.closing_server"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield ClosingServer(json.loads(process.stdout.readline())["port"])
        process.communicate()


@pytest.fixture(params=["aiohttp", "httpx", "httpx2"])
async def transport(request: pytest.FixtureRequest) -> AsyncGenerator[Any]:
    """The `http_client` of each transport; `None` is the package's own."""
    if request.param == "aiohttp":
        yield None
        return
    library = cast("Any", {"httpx": httpx, "httpx2": httpx2}[request.param])
    async with library.AsyncClient(timeout=None, trust_env=False) as client:
        yield client


async def whole(client: tm.AsyncLLMClient, capture: Captured, prompt: str, **options: Any) -> dict[str, Any]:
    """One whole call."""
    cfg = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt=prompt, **options)
    return await tm.run_llm_call("flow", "step", cfg, capture.recorder(), client=client)


async def streamed(client: tm.AsyncLLMClient, capture: Captured, prompt: str) -> dict[str, Any]:
    """One streamed call, read to its end."""
    cfg = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt=prompt)
    async with tm.stream_llm_call("flow", "step", cfg, capture.recorder(), client=client) as stream:
        async for _ in stream:
            pass
    assert stream.result is not None
    return stream.result


def retries_of(capture: Captured) -> list[str]:
    """The names of all retry events."""
    return [event.name for span in capture.spans for event in span.events if event.name == semconv.RETRY_EVENT]


async def test_a_server_that_closes_after_each_reply(server: ClosingServer, capture: Captured, transport: Any) -> None:
    """Streams and whole calls of 8 workers succeed without a retry, and each is answered once."""
    name = f"closes-{type(transport).__module__}"
    async with OpenAILLMClient("sk-test", server.base_url("closes"), http_client=transport) as client:

        async def work(worker: int) -> list[dict[str, Any]]:
            calls = [streamed if (worker + number) % 2 else whole for number in range(CALLS_EACH)]
            return [await call(client, capture, f"{name}-{worker}-{n}.") for n, call in enumerate(calls)]

        by_worker = await asyncio.gather(*(work(worker) for worker in range(WORKERS)))
    results = [result for each in by_worker for result in each]

    assert [result["status"] for result in results] == ["ok"] * (WORKERS * CALLS_EACH)
    assert retries_of(capture) == []
    _, answered = server.report(name)
    assert len(answered) == len(set(answered)) == WORKERS * CALLS_EACH


async def test_a_given_client_over_aiohttp_knows_no_kept_connection(server: ClosingServer, capture: Captured) -> None:
    """With a client over aiohttp, a broken kept connection is an ordinary failure, which the step retries."""
    async with (
        HttpxAiohttpClient(timeout=None) as given,
        OpenAILLMClient("sk-test", server.base_url("reads"), http_client=given) as client,
    ):
        await whole(client, capture, "given-1")
        once = await whole(client, capture, "given-2", max_retries=0)
        await whole(client, capture, "given-3")
        again = await whole(client, capture, "given-4")
    assert (once["status"], once["retryable"]) == ("error", True)
    assert (again["status"], again["retries"]) == ("ok", 1)


async def test_a_connection_that_idled_too_long(server: ClosingServer, capture: Captured, transport: Any) -> None:
    """A call whose kept connection was closed is sent on a new one, and counts no retry."""
    name = f"idles-{type(transport).__module__}"
    async with OpenAILLMClient("sk-test", server.base_url("keeps"), http_client=transport) as client:
        await whole(client, capture, f"{name}-1")
        server.close_kept()  # and the loop, which waits here, has not heard of it when the next call begins
        result = await whole(client, capture, f"{name}-2", max_retries=0)

    assert result["status"] == "ok", result
    assert server.report(name)[1] == [f"{name}-1", f"{name}-2"]


async def test_what_was_held_for_the_first_is_released(
    server: ClosingServer, capture: Captured, transport: Any
) -> None:
    """When the second answer comes, nothing is presumed for a first request that was read and not answered."""
    name = f"reads-{type(transport).__module__}"
    async with OpenAILLMClient("sk-test", server.base_url("reads"), http_client=transport) as client:
        with budget(max_tokens=100_000) as spending:
            await whole(client, capture, f"{name}-1")
            await whole(client, capture, f"{name}-2")

    spent = spending.spent
    assert server.report(name) == ([f"{name}-1", f"{name}-2", f"{name}-2"], [f"{name}-1", f"{name}-2"])
    assert (spent.tokens, spent.presumed_tokens, spent.llm_calls) == (2400, 0, 2)
    assert retries_of(capture) == []


async def test_it_is_sent_again_once(server: ClosingServer, capture: Captured, transport: Any) -> None:
    """When the second request is not answered either, the attempt has failed, and both may be billed."""
    name = f"dies-{type(transport).__module__}"
    async with OpenAILLMClient("sk-test", server.base_url("dies"), http_client=transport) as client:
        with budget(max_tokens=100_000) as spending:
            await whole(client, capture, f"{name}-1")
            result = await whole(client, capture, f"{name}-2", max_retries=0, extra={"max_tokens": 1000})

    assert (result["status"], result["error_type"]) == ("error", "LLMConnectionError")
    assert server.report(name)[0] == [f"{name}-1", f"{name}-2", f"{name}-2"]
    assert 2000 < spending.spent.presumed_tokens < 2100


async def test_without_room_for_two_it_is_not_sent_again(server: ClosingServer, capture: Captured) -> None:
    """A budget without room for a second bill ends the call instead."""
    async with OpenAILLMClient("sk-test", server.base_url("reads")) as client:
        with budget(max_tokens=1200 + 1500) as spending:
            await whole(client, capture, "poor-1")
            result = await whole(client, capture, "poor-2", extra={"max_tokens": 1000})

    assert (result["status"], result["error_type"]) == ("error", "LLMConnectionError")
    assert server.report("poor")[0] == ["poor-1", "poor-2"]
    assert 1000 < spending.spent.presumed_tokens < 1100


async def test_part_of_a_head_is_a_reply(server: ClosingServer, capture: Captured) -> None:
    """After the first byte of a reply, the request is not sent again."""
    async with OpenAILLMClient("sk-test", server.base_url("cuts")) as client:
        await whole(client, capture, "cuts-1")
        result = await whole(client, capture, "cuts-2", max_retries=0)

    assert (result["status"], result["error_type"]) == ("error", "LLMConnectionError")
    assert server.report("cuts")[0] == ["cuts-1", "cuts-2"]


async def test_a_new_connection_that_breaks(server: ClosingServer, capture: Captured, transport: Any) -> None:
    """A new connection that breaks is a failed attempt."""
    name = f"resets-{type(transport).__module__}"
    async with OpenAILLMClient("sk-test", server.base_url("resets"), http_client=transport) as client:
        result = await whole(client, capture, name, max_retries=0)

    assert (result["status"], result["error_type"]) == ("error", "LLMConnectionError")
    assert server.report(name)[0] == [name]
