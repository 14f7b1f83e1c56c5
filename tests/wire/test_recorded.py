"""The recorded bytes of LiteLLM 1.108 and llama.cpp 11434; `make nightly` runs the programs themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import tracemind_otel as tm
from tests.nightly.calls import answer, result_of
from tests.servers.fixture import REPOSITORY
from tests.support import Captured
from tracemind_otel.ai.llm.types import LLMRequest, LLMResponse, ToolCall
from tracemind_otel.errors import (
    LLMAuthenticationError,
    LLMError,
    LLMRateLimitError,
    LLMRequestError,
    LLMServerError,
)
from tracemind_otel.otel import semconv

PATHS = {"openai_compatible": "/v1", "llama_cpp": "/v1", "openai_responses": "/v1", "anthropic": ""}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that replays, in a process of its own."""
    command = [sys.executable, "-m", "tests.servers.replay_server"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.communicate()


async def reply_of(url: str, provider: str, name: str, **options: Any) -> LLMResponse:
    """The recorded reply as the provider's client reads it, a recorded stream as a stream."""
    async with tm.LLMClientFactory.make(
        provider, api_key="k", base_url=f"{url}/{name}{PATHS[provider]}", **options
    ) as (client):
        streamed = name.endswith(("streamed", "stream", "pings", "breaks"))
        return await answer(client, LLMRequest(provider, "m", "Say hello"), streamed=streamed)


TEXTS: list[tuple[str, str, str, tuple[int | None, ...]]] = [
    ("openai_compatible", "litellm_chat_whole", "echo: Say hello", (1000, 200, 1200, 400)),
    ("openai_compatible", "litellm_chat_streamed", "Hello you", (1000, 200, 1200, 400)),
    ("anthropic", "litellm_messages_streamed", "Hello you", (1000, 200, 1200, 400)),
    ("anthropic", "litellm_messages_json_for_a_stream", "Hello from Oslo, where all is well.", (2095, 503, 2598, None)),
    ("openai_responses", "litellm_responses_streamed", "Hello from Oslo, where all is well.", (0, 0, 0, None)),
    ("llama_cpp", "llama_cpp_chat_whole", "yes, it is fine", (26, 10, 36, 0)),
    ("llama_cpp", "llama_cpp_chat_streamed", "yes, it is fine", (26, 10, 36, 21)),
    ("llama_cpp", "llama_cpp_chat_behind_pings", "<|im", (924, 3, 927, 1)),
    ("openai_responses", "llama_cpp_responses_streamed", "Say hello<|", (26, 4, 30, 1)),
    ("anthropic", "llama_cpp_messages_streamed", "Say hello<|", (26, 4, 30, 21)),
]


@pytest.mark.parametrize(("provider", "name", "text", "tokens"), TEXTS, ids=[each[1] for each in TEXTS])
async def test_text_and_tokens(url: str, provider: str, name: str, text: str, tokens: tuple[int | None, ...]) -> None:
    """Text and tokens are the server's, however it orders and frames them."""
    reply = await reply_of(url, provider, name)
    usage = reply.usage

    assert reply.text == text
    counted = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cache_read_tokens)
    assert counted == tokens
    assert not usage.estimated


COSTS: list[tuple[str, dict[str, Any], float | None]] = [
    ("litellm_chat_whole", {"cost_unit": "USD"}, 0.00104),
    ("litellm_chat_streamed", {"cost_unit": "USD"}, 0.00104),
    ("litellm_chat_unpriced", {"cost_unit": "USD"}, None),
    ("litellm_chat_whole", {}, None),
    ("litellm_chat_streamed", {}, None),
    ("llama_cpp_chat_whole", {"cost_unit": "USD"}, None),
]


@pytest.mark.parametrize(("name", "options", "usd"), COSTS)
async def test_cost(url: str, name: str, options: dict[str, Any], usd: float | None) -> None:
    """LiteLLM's total is believed where its unit is declared; zeros of its parts are no cost."""
    reply = await reply_of(url, "openai_compatible", name, **options)

    assert (reply.reported_cost and reply.reported_cost.usd) == usd


async def test_the_id_of_the_call(url: str) -> None:
    """LiteLLM's id of the call is the request's id, in replies and errors."""
    with pytest.raises(LLMRateLimitError) as caught:
        await reply_of(url, "openai_compatible", "litellm_limit")
    reply = await reply_of(url, "openai_compatible", "litellm_chat_whole")

    assert reply.request_id == "1af212b0-4dad-4540-8188-4827a43126b5"
    assert caught.value.request_id == "589851e5-ff94-4a27-9196-10fd31921c6d"
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    ("provider", "name", "id", "reason"),
    [
        ("openai_compatible", "litellm_chat_tools", "call_1", "tool_call"),
        ("llama_cpp", "llama_cpp_chat_tools_streamed", "9GlH1Ni7GMOIeLFe1HEKJ4KFMFPtVcDp", "length"),
    ],
)
async def test_tools(url: str, provider: str, name: str, id: str, reason: str) -> None:
    """A call with the reason `stop` is a call, and so is one in many pieces."""
    reply = await reply_of(url, provider, name)

    assert reply.tool_calls == (ToolCall(id=id, name="look", arguments={"at": "Oslo"}),)
    assert reply.finish_reason == reason


async def test_what_no_field_holds(url: str) -> None:
    """llama.cpp's timings are in `raw`, whole and streamed."""
    for name in ("llama_cpp_chat_whole", "llama_cpp_chat_streamed"):
        assert (await reply_of(url, "llama_cpp", name)).raw["timings"]["predicted_n"] == 10


ERRORS: list[tuple[str, str, type[LLMError], str]] = [
    ("openai_compatible", "litellm_chat_breaks", LLMServerError, "the engine died"),
    ("openai_compatible", "litellm_limit", LLMRateLimitError, "Rate limit reached"),
    ("openai_compatible", "litellm_bad_key", LLMAuthenticationError, "HTTP 401: this key is not known here"),
    ("openai_responses", "litellm_responses_cannot_stream", LLMServerError, "HTTP 500: Error processing stream start"),
    ("llama_cpp", "llama_cpp_too_long", LLMRequestError, "exceeds the available context size"),
    ("llama_cpp", "llama_cpp_bad_key", LLMAuthenticationError, "HTTP 401: Invalid API Key"),
]


@pytest.mark.parametrize(("provider", "name", "kind", "message"), ERRORS, ids=[each[1] for each in ERRORS])
async def test_errors(url: str, provider: str, name: str, kind: type[LLMError], message: str) -> None:
    """An error keeps its class and message: in a stream, as an event with an error status, and alone."""
    with pytest.raises(kind, match=message) as caught:
        await reply_of(url, provider, name)

    assert type(caught.value) is kind


async def test_the_connection_that_llama_cpp_closes(url: str, capture: Captured) -> None:
    """Streams that end with an unannounced close make no later call fail or retry."""
    config = tm.LLMCallConfig("llama_cpp", "m", prompt="Say hello")
    root = f"{url}/llama_cpp_chat_streamed/v1"
    async with tm.LLMClientFactory.make("llama_cpp", api_key="k", base_url=root) as client:
        results = [await result_of(client, config, capture, streamed=True) for _ in range(20)]

    assert [result["status"] for result in results] == ["ok"] * 20
    assert [event.name for span in capture.spans for event in span.events if event.name == semconv.RETRY_EVENT] == []
