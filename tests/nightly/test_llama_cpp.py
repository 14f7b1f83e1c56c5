"""Calls of llama.cpp's server, in each format that it has."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import tracemind_otel as tm
from tests.nightly.calls import A_TOOL, answer, result_of
from tests.servers import llama_cpp
from tests.support import Captured
from tracemind_otel.ai.llm.types import LLMRequest
from tracemind_otel.errors import LLMAuthenticationError, LLMError, LLMNotFoundError, LLMRequestError
from tracemind_otel.otel import semconv

pytestmark = pytest.mark.nightly

PATHS = {"llama_cpp": "/v1", "openai": "/v1", "openai_compatible": "/v1", "openai_responses": "/v1", "anthropic": ""}
FORMATS = ["openai_compatible", "openai_responses", "anthropic"]
BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
WORKERS = 8
CALLS_EACH = 20


def client_of(url: str, provider: str, key: str = llama_cpp.KEY, **options: Any) -> tm.AsyncLLMClient:
    """The provider's client at the server."""
    return tm.LLMClientFactory.make(provider, api_key=key, base_url=url + PATHS.get(provider, ""), **options)


def request_of(provider: str, prompt: str = "Say hello", *, max_tokens: int = 4, **options: Any) -> LLMRequest:
    """The same request each time."""
    return LLMRequest(provider, llama_cpp.MODEL, prompt, 0.0, max_tokens=max_tokens, **options)


@BOTH_WAYS
@pytest.mark.parametrize("provider", sorted(PATHS))
async def test_tokens_of_a_prompt_that_is_in_the_cache(llama: str, provider: str, streamed: bool) -> None:
    """A repeated prompt has the same count, most of it read from the cache."""
    client, request = client_of(llama, provider), request_of(provider, f"{provider} {streamed}: count to three")
    first, second = [await answer(client, request, streamed=streamed) for _ in range(2)]

    assert second.usage.prompt_tokens == first.usage.prompt_tokens
    assert (first.usage.prompt_tokens or 0) - 4 > (second.usage.cache_read_tokens or 0) > 5
    assert second.usage.completion_tokens == 4
    assert second.usage.total_tokens == (second.usage.prompt_tokens or 0) + 4
    assert second.finish_reason == ("stop" if provider == "openai_responses" else "length")  # the server's own word
    assert (second.response_model, second.reported_cost) == (llama_cpp.MODEL, None)
    assert second.response_id != first.response_id


@BOTH_WAYS
async def test_its_timings_are_in_raw(llama: str, streamed: bool) -> None:
    """`raw` has llama.cpp's timings, for which there is no field."""
    reply = await answer(client_of(llama, "llama_cpp"), request_of("llama_cpp"), streamed=streamed)

    timings = reply.raw["timings"]
    assert timings["predicted_n"] == reply.usage.completion_tokens
    assert timings["cache_n"] + timings["prompt_n"] == reply.usage.prompt_tokens


@BOTH_WAYS
async def test_an_answer_that_ends_by_itself(llama: str, streamed: bool) -> None:
    """The model's own end is `stop`, and so is a stop sequence, which is not in the text."""
    client, grammar = client_of(llama, "llama_cpp"), {"grammar": 'root ::= "yes, it is fine"'}
    ended = await answer(client, request_of("llama_cpp", max_tokens=20, extra=grammar), streamed=streamed)
    stopped = await answer(client, request_of("llama_cpp", max_tokens=20, extra=grammar, stop=[","]), streamed=streamed)

    assert (ended.text, ended.finish_reason) == ("yes, it is fine", "stop")
    assert (stopped.text, stopped.finish_reason) == ("yes", "stop")


def retries_of(capture: Captured) -> list[str]:
    """The names of all retry events."""
    return [event.name for span in capture.spans for event in span.events if event.name == semconv.RETRY_EVENT]


TO_REPEAT = '<tool_call>\n{"name": "look", "arguments": {"at": "Oslo"}}\n</tool_call>'
"""The small model repeats its prompt, from which the server reads a call."""


@BOTH_WAYS
@pytest.mark.parametrize("provider", FORMATS)
async def test_tools(llama: str, provider: str, streamed: bool) -> None:
    """A tool call arrives whole, in each format."""
    request = request_of(provider, TO_REPEAT, max_tokens=60, extra=A_TOOL[provider])
    reply = await answer(client_of(llama, provider), request, streamed=streamed)

    assert (reply.tool_calls[0].name, reply.tool_calls[0].arguments) == ("look", {"at": "Oslo"})
    assert reply.tool_calls[0].id
    assert reply.finish_reason in ("tool_call", "length")  # the model may go on behind its call


ERRORS: dict[str, tuple[LLMRequest, str, type[LLMError], str]] = {
    "too-long": (request_of("", "word " * 1500), llama_cpp.KEY, LLMRequestError, "exceeds the available context size"),
    "bad-value": (request_of("", extra={"temperature": "warm"}), llama_cpp.KEY, LLMRequestError, "must be number"),
    "bad-key": (request_of(""), "sk-not-this-one", LLMAuthenticationError, "Invalid API Key"),
}


@BOTH_WAYS
@pytest.mark.parametrize("error", sorted(ERRORS))
@pytest.mark.parametrize("provider", FORMATS)
async def test_errors(llama: str, provider: str, error: str, streamed: bool) -> None:
    """An error keeps its class and its message, and is not retried."""
    request, key, kind, message = ERRORS[error]
    with pytest.raises(kind, match=message) as caught:
        await answer(client_of(llama, provider, key), request, streamed=streamed)

    assert (type(caught.value), caught.value.retryable) == (kind, False)


@BOTH_WAYS
async def test_a_format_that_it_does_not_speak(llama: str, streamed: bool) -> None:
    """A missing path gives an error that the address was not found."""
    with pytest.raises(LLMNotFoundError, match="File Not Found"):
        await answer(client_of(llama, "ollama"), request_of("ollama"), streamed=streamed)


async def test_kept_connections(llama: str, capture: Captured) -> None:
    """Streams that end with an unannounced close make no call fail or retry."""
    async with client_of(llama, "llama_cpp") as client:

        async def work(worker: int) -> list[dict[str, Any]]:
            config = tm.LLMCallConfig("llama_cpp", llama_cpp.MODEL, prompt=f"worker {worker}", max_tokens=1)
            ways = [(worker + number) % 2 == 1 for number in range(CALLS_EACH)]
            return [await result_of(client, config, capture, streamed=streamed) for streamed in ways]

        by_worker = await asyncio.gather(*(work(worker) for worker in range(WORKERS)))

    assert [result["status"] for each in by_worker for result in each] == ["ok"] * (WORKERS * CALLS_EACH)
    assert retries_of(capture) == []
