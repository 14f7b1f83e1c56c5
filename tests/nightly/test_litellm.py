"""Calls through LiteLLM's proxy, to its mock replies and to servers behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tracemind_otel as tm
from tests.nightly.calls import A_TOOL, answer, result_of
from tests.servers import litellm_proxy
from tests.servers.fixture import OpenAIServer
from tests.support import Captured
from tracemind_otel.ai.llm.types import LLMRequest, TextDelta
from tracemind_otel.errors import (
    LLMAuthenticationError,
    LLMError,
    LLMRateLimitError,
    LLMRequestError,
    LLMServerError,
)

pytestmark = pytest.mark.nightly

PATHS = {"openai": "/v1", "openai_compatible": "/v1", "openai_responses": "/v1", "anthropic": "", "gemini": ""}
BOTH_WAYS = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def client_of(url: str, provider: str, key: str = litellm_proxy.KEY, **options: Any) -> tm.AsyncLLMClient:
    """The provider's client at the proxy."""
    return tm.LLMClientFactory.make(provider, api_key=key, base_url=url + PATHS[provider], **options)


@BOTH_WAYS
@pytest.mark.parametrize("provider", sorted(PATHS))
async def test_text(litellm: str, provider: str, streamed: bool) -> None:
    """Text and end arrive in each format, with LiteLLM's id of the call or the server's."""
    model = "aimock" if provider == "openai_responses" else "gpt-4o-mini"
    reply = await answer(client_of(litellm, provider), LLMRequest(provider, model, "Say hello"), streamed=streamed)

    assert (reply.text, reply.finish_reason) == (litellm_proxy.TEXT, "stop")
    assert reply.request_id


@BOTH_WAYS
@pytest.mark.parametrize("model", ["gpt-4o-mini", "scripted-priced"])
async def test_the_cost_is_believed_where_its_unit_is_declared(
    litellm: str, scripted: OpenAIServer, capture: Captured, model: str, streamed: bool
) -> None:
    """With `cost_unit="USD"` the cost is LiteLLM's: its header's for a whole call, its last usage's for a stream."""
    config = tm.LLMCallConfig("openai_compatible", model, prompt="Say hello")
    declared = client_of(litellm, "openai_compatible", cost_unit="USD")
    usage = (await result_of(declared, config, capture, streamed=streamed))["usage"]
    rates = (1e-6, 2e-6) if model.startswith("scripted") else (0.15e-6, 0.6e-6)
    cached = usage.get("cache_read_tokens") or 0
    by_hand = (usage["prompt_tokens"] - 0.9 * cached) * rates[0] + usage["completion_tokens"] * rates[1]

    assert usage["cost_source"] == "provider"
    assert usage["cost_usd"] == pytest.approx(by_hand)

    undeclared = client_of(litellm, "openai_compatible")
    usage = (await result_of(undeclared, config, capture, streamed=streamed))["usage"]
    assert usage["cost_source"] != "provider"


@BOTH_WAYS
async def test_a_model_that_litellm_cannot_price(litellm: str, streamed: bool) -> None:
    """LiteLLM names no cost for the model, and zeros of its parts are no cost."""
    client = client_of(litellm, "openai_compatible", cost_unit="USD")
    reply = await answer(client, LLMRequest("openai_compatible", "unpriced", "Say hello"), streamed=streamed)

    assert (reply.text, reply.reported_cost) == (litellm_proxy.TEXT, None)


@pytest.mark.parametrize("provider", ["openai_compatible", "anthropic"])
@BOTH_WAYS
async def test_cached_tokens(
    litellm: str, scripted: OpenAIServer, capture: Captured, provider: str, streamed: bool
) -> None:
    """The server's cached tokens are counted once, in either format."""
    model = scripted.script({"body": EVENTS, "headers": {"content-type": "text/event-stream"}} if streamed else {})
    config = tm.LLMCallConfig(provider, model, prompt="Say hello")
    usage = (await result_of(client_of(litellm, provider), config, capture, streamed=streamed))["usage"]

    counted = [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cache_read_tokens")]
    assert counted == [1000, 200, 1200, 400]


def _event(**fields: Any) -> str:
    return f"data: {json.dumps({'id': 'chatcmpl-7', 'object': 'chat.completion.chunk', 'model': 'm', **fields})}\n\n"


def _delta(delta: dict[str, Any], reason: str | None = None) -> str:
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])


USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 400},
}
EVENTS = (
    _delta({"role": "assistant", "content": "Hello"})
    + _delta({}, "stop")
    + _event(choices=[], usage=USAGE)
    + "data: [DONE]\n\n"
)
BREAKS = _delta({"role": "assistant", "content": "Hello"}) + _event(
    error={"message": "the engine died", "type": "server_error", "code": 500}
)


@BOTH_WAYS
@pytest.mark.parametrize("provider", sorted(A_TOOL))
async def test_tools(litellm: str, provider: str, streamed: bool) -> None:
    """A tool call of the server arrives whole."""
    model = "aimock-claude" if provider == "anthropic" else "aimock"
    request = LLMRequest(provider, model, "weather in Oslo", extra=A_TOOL[provider])
    reply = await answer(client_of(litellm, provider), request, streamed=streamed)

    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("look", {"at": "Oslo"})]
    assert reply.finish_reason == "tool_call"


async def test_a_mocked_tool_call_that_says_stop(litellm: str) -> None:
    """A tool call with the reason `stop` is a call."""
    reply = await answer(client_of(litellm, "openai"), LLMRequest("openai", "tools", "weather in Oslo"), streamed=False)

    assert [(call.name, call.arguments) for call in reply.tool_calls] == [("look", {"at": "Oslo"})]
    assert (reply.finish_reasons, reply.finish_reason) == (("stop",), "tool_call")


ERRORS: dict[str, tuple[type[LLMError], str]] = {
    "too-fast": (LLMRateLimitError, "mock rate limit"),
    "too-long": (LLMRequestError, "context window exceeded"),
    "broken": (LLMServerError, "mock internal server error"),
    "nowhere": (LLMRequestError, "model=nowhere"),
}


@BOTH_WAYS
@pytest.mark.parametrize("model", sorted(ERRORS))
@pytest.mark.parametrize("provider", ["openai_compatible", "anthropic"])
async def test_errors(litellm: str, provider: str, model: str, streamed: bool) -> None:
    """An error keeps its class and its message, and has LiteLLM's id of the call."""
    kind, message = ERRORS[model]
    with pytest.raises(kind, match=message) as caught:
        await answer(client_of(litellm, provider), LLMRequest(provider, model, "Say hello"), streamed=streamed)

    assert type(caught.value) is kind
    assert caught.value.request_id is not None


@BOTH_WAYS
@pytest.mark.parametrize("provider", sorted(PATHS))
async def test_a_bad_key(litellm: str, provider: str, streamed: bool) -> None:
    """A bad key is an error that is not retried, and its message does not have the key."""
    client = client_of(litellm, provider, key="sk-not-this-one")
    with pytest.raises(LLMAuthenticationError, match="this key is not known here") as caught:
        await answer(client, LLMRequest(provider, "gpt-4o-mini", "Say hello"), streamed=streamed)

    assert not caught.value.retryable
    assert "sk-not-this-one" not in str(caught.value)


async def test_the_wait_that_the_server_behind_it_asks_for(litellm: str, scripted: OpenAIServer) -> None:
    """The server's `retry-after`, which LiteLLM passes on with a prefix, is kept."""
    limit = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
    model = scripted.script({"status": 429, "body": json.dumps(limit), "headers": {"retry-after": "7"}})
    request = LLMRequest("openai_compatible", model, "Say hello")
    with pytest.raises(LLMRateLimitError, match="Rate limit reached") as caught:
        await answer(client_of(litellm, "openai_compatible"), request, streamed=False)

    assert caught.value.retry_after_s == 7.0


async def test_an_error_in_a_stream(litellm: str, scripted: OpenAIServer, capture: Captured) -> None:
    """The deltas before an error are kept, and the error has the server's message."""
    model = scripted.script({"body": BREAKS, "headers": {"content-type": "text/event-stream"}})
    config = tm.LLMCallConfig("openai_compatible", model, prompt="Say hello", max_retries=0)
    client, said = client_of(litellm, "openai_compatible"), list[object]()

    async def read(stream: tm.LLMStream) -> None:
        async for piece in stream:
            said.append(piece)

    async with tm.stream_llm_call("flow", "step", config, capture.recorder(), client=client) as stream:
        with pytest.raises(LLMServerError, match="the engine died"):
            await read(stream)
    result = stream.result

    assert result is not None
    assert (said, result["status"], result["error_type"]) == ([TextDelta("Hello")], "error", "500")
