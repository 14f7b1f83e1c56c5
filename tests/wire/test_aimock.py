"""Every provider that aimock speaks, against a server whose authors never saw this client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest

from tests.required import missing
from tests.servers import aimock
from tracemind_otel import LLMClientFactory
from tracemind_otel.ai.llm.client import AsyncLLMClient
from tracemind_otel.ai.llm.types import Finish, LLMRequest, LLMResponse
from tracemind_otel.errors import LLMRateLimitError

TEXT = "Grüße aus Oslo: the weather is fine, and all is well here today."
FIXTURES: list[dict[str, Any]] = [
    {
        "match": {"userMessage": "weather in"},
        "response": {"toolCalls": [{"name": "look", "arguments": '{"at":"Oslo"}'}]},
    },
    {
        "match": {"userMessage": "too fast"},
        "response": {"error": {"message": "Slow down please", "type": "rate_limit_error"}, "status": 429},
    },
    {
        "match": {"userMessage": "counted"},
        "response": {"content": "ok", "usage": {"input_tokens": 120, "output_tokens": 30, "total_tokens": 150}},
    },
    *({"match": {"userMessage": f"number {n} of"}, "response": {"content": f"reply {n}: {TEXT}"}} for n in range(300)),
]
PATHS = {
    "openai": "/v1",
    "openai_compatible": "/v1",
    "openai_responses": "/v1",
    "mistral": "/v1",
    "groq": "/v1",
    "openrouter": "/api/v1",
    "azure_openai": "",
    "anthropic": "",
    "gemini": "",
    "cohere": "",
    "ollama": "",
    "bedrock": "",
    "vertex": "",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "bedrock": {"api_key": "k-test", "region": "eu-central-1"},
    "vertex": {"project": "p-1", "location": "eu", "token": lambda: "t-test"},
}
PROVIDERS = sorted(PATHS)
COUNTED = sorted(PATHS.keys() - {"mistral", "ollama"})
"""Where aimock says what was used: not for Ollama, nor in a stream that does not ask, as Mistral's need not."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aimock.Aimock]:
    """One aimock for the module."""
    if aimock.npm() is None:
        missing("aimock is installed with npm, which is not here")
    with aimock.running(tmp_path_factory.mktemp("aimock"), FIXTURES) as running:
        yield running


def client_of(server: aimock.Aimock, provider: str) -> AsyncLLMClient:
    """The provider's client at the server."""
    options = OPTIONS.get(provider, {"api_key": "k-test"})
    return LLMClientFactory.make(provider, base_url=server.url + PATHS[provider], **options)


async def answer(client: AsyncLLMClient, request: LLMRequest, *, streamed: bool) -> LLMResponse:
    """The reply, whole or streamed."""
    if not streamed:
        return await client.complete(request)
    last: object = None
    async with aclosing(cast("AsyncGenerator[Sequence[object]]", client.stream(request))) as batches:
        async for batch in batches:
            last = batch[-1] if batch else last
    assert isinstance(last, Finish)
    return last.response


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_text_tools_and_errors(server: aimock.Aimock, provider: str, streamed: bool) -> None:
    """Text, a tool call and a rate limit arrive as such."""
    client = client_of(server, provider)
    said = await answer(client, LLMRequest(provider, "gpt-4o-mini", "number 7 of them"), streamed=streamed)
    asked = LLMRequest(provider, "gpt-4o-mini", "weather in Oslo")
    called = await answer(client, asked, streamed=streamed)

    assert said.text == f"reply 7: {TEXT}"
    assert said.finish_reason == "stop"
    assert [(call.name, call.arguments) for call in called.tool_calls] == [("look", {"at": "Oslo"})]
    assert called.finish_reason == "tool_call"
    with pytest.raises(LLMRateLimitError, match="Slow down please"):
        await answer(client, LLMRequest(provider, "gpt-4o-mini", "you are too fast"), streamed=streamed)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("provider", COUNTED)
async def test_usage_is_what_the_server_says(server: aimock.Aimock, provider: str, streamed: bool) -> None:
    """The same usage, in each provider's spelling, gives the same counts."""
    request = LLMRequest(provider, "gpt-4o-mini", "counted")
    usage = (await answer(client_of(server, provider), request, streamed=streamed)).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (120, 30, 150)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_300_concurrent_calls_arrive_once_each(server: aimock.Aimock, provider: str) -> None:
    """Of 300 calls at once, whole and streamed, each is in the server's journal once and gets its own text."""
    client, model = client_of(server, provider), f"gpt-4o-{provider}-crowd"

    async def one(number: int) -> str | None:
        request = LLMRequest(provider, model, f"number {number} of {provider}-crowd")
        return (await answer(client, request, streamed=number % 2 == 0)).text

    texts = await asyncio.gather(*(one(number) for number in range(300)))

    assert texts == [f"reply {number}: {TEXT}" for number in range(300)]
    bodies = Counter(str(entry["body"]) for entry in server.journal() if f"of {provider}-crowd" in str(entry["body"]))
    assert sorted(bodies.values()) == [1] * 300
