"""The fake provider needs no key, server or network, and fails on demand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tracemind_otel.ai.llm import LLMRequest, LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.errors import (
    ConfigError,
    LLMAuthenticationError,
    LLMConnectionError,
    LLMError,
    LLMQuotaError,
    LLMRateLimitError,
    LLMResponseError,
    LLMServerError,
)
from tracemind_otel.runtime.recorder import Recorder
from tracemind_otel.steps.ai_llm_call import LLMCallConfig, LLMClientFactory, run_llm_call

REQUEST = LLMRequest("fake", "toy-1", "What is 2+2?")


async def test_the_echo() -> None:
    """The reply is the model's name and the reversed prompt, the same for the same prompt."""
    replies = [await FakeLLMClient(0).complete(REQUEST) for _ in range(2)]
    assert replies[0] == replies[1]
    assert replies[0].text == "[fake:toy-1] ?2+2 si tahW"
    assert replies[0].raw == {"echo": True}
    assert (replies[0].response_model, replies[0].finish_reasons) == ("toy-1", ("stop",))


@pytest.mark.parametrize(("prompt", "tokens"), [("one", 1), ("one two three", 3), ("  spaced \n out ", 2), ("", 1)])
async def test_tokens_are_words(prompt: str, tokens: int) -> None:
    """A word counts as a token, so that a flow without a real provider has figures."""
    usage = (await FakeLLMClient(0).complete(LLMRequest("fake", "toy-1", prompt))).usage
    assert usage == LLMUsage(tokens, tokens, 2 * tokens)


async def test_given_text_and_usage() -> None:
    """A test sets the text and the usage of the reply."""
    usage = LLMUsage(1000, 500, 1500, 0.25, cache_read_tokens=800)
    reply = await FakeLLMClient(0, text="four", usage=usage).complete(REQUEST)
    assert reply.text == "four"
    assert reply.usage is usage


SCRIPTED: list[tuple[str, type[LLMError], int | None, float | None, str]] = [
    ("429 retry-after=0.2", LLMRateLimitError, 429, 0.2, "429"),
    ("429", LLMRateLimitError, 429, None, "429"),
    ("429 code=insufficient_quota", LLMQuotaError, 429, None, "insufficient_quota"),
    ("429 code=rpm retry-after=1 latency=0", LLMRateLimitError, 429, 1.0, "rpm"),
    ("401", LLMAuthenticationError, 401, None, "401"),
    ("503", LLMServerError, 503, None, "503"),
    ("connection", LLMConnectionError, None, None, "LLMConnectionError"),
    ("invalid", LLMResponseError, None, None, "LLMResponseError"),
]


@pytest.mark.parametrize(("entry", "error_class", "status_code", "retry_after_s", "error_type"), SCRIPTED)
async def test_scripted_failures(
    entry: str, error_class: type[LLMError], status_code: int | None, retry_after_s: float | None, error_type: str
) -> None:
    """A scripted attempt fails as a real provider's would, and the next attempt succeeds."""
    client = FakeLLMClient(0, script=[entry])
    with pytest.raises(error_class) as caught:
        await client.complete(REQUEST)
    assert type(caught.value) is error_class
    assert (caught.value.status_code, caught.value.retry_after_s) == (status_code, retry_after_s)
    assert caught.value.error_type == error_type
    assert (await client.complete(REQUEST)).text.startswith("[fake:toy-1]")


async def test_a_scripted_timeout_never_answers() -> None:
    """A scripted time-out waits until the caller's own time-out ends it."""
    client = FakeLLMClient(0, script=["timeout"])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.complete(REQUEST), 0.01)
    assert (await client.complete(REQUEST)).text.startswith("[fake:toy-1]")


async def test_latency_of_one_attempt() -> None:
    """`latency=` of an attempt overrides the client's."""
    client = FakeLLMClient(60_000, script=["ok latency=1"])
    assert (await asyncio.wait_for(client.complete(REQUEST), 30)).text.startswith("[fake:toy-1]")


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("maybe", "'maybe'"),
        ("", "allowed are ok, timeout"),
        ("399", "'399'"),
        ("600", "'600'"),
        ("²00", "'²00'"),
        ("429 before=1", "'before'"),
        ("429 code=", "'code'"),
        ("429 retry-after=soon", "'soon'"),
        ("ok latency=", "''"),
    ],
)
def test_a_mistake_in_the_script_is_named(entry: str, named: str) -> None:
    """A wrong script is rejected before any call, and the message names the wrong part."""
    with pytest.raises(ConfigError, match="script") as caught:
        FakeLLMClient(script=["ok", entry])
    assert named in str(caught.value)


@pytest.mark.parametrize("name", ["fake", "local", " FAKE "])
def test_the_factory_makes_it(name: str) -> None:
    """The factory makes `fake` and `local` without a key."""
    assert isinstance(LLMClientFactory.make(name), FakeLLMClient)


@pytest.mark.parametrize("option", [{"api_key": "k"}, {"base_url": "http://x"}])
def test_the_factory_rejects_options_that_mean_nothing(option: dict[str, Any]) -> None:
    """A key or a URL is rejected with a ConfigError that does not show the key."""
    with pytest.raises(ConfigError, match=next(iter(option))) as caught:
        LLMClientFactory.make("fake", **option)
    assert "'k'" not in str(caught.value)


async def test_it_is_free() -> None:
    """The fake provider costs zero, which is known."""
    result = await run_llm_call("f", "s", LLMCallConfig("fake", "toy-1", "hi"), Recorder())
    assert result["usage"]["cost_usd"] == 0.0
    assert result["usage"]["cost_source"] == "local"
