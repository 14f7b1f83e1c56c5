"""Somebody else's span of a model call is current: cost and retries go on it, and the call is counted once."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam
from opentelemetry.trace import use_span

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes, events

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
USAGE_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6
"""1,000 input tokens, 400 of them cached, and 200 output tokens of gpt-4o-mini."""
CHAT = {"gen_ai.operation.name": "chat"}


@pytest.fixture(autouse=True)
def seen(capture: Captured, openai_server: OpenAIServer) -> Generator[None]:
    """The SDK's calls to the server are seen, and priced as OpenAI's."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={f"127.0.0.1:{openai_server.port}": "openai"})
        try:
            yield
        finally:
            tm.uninstrument()


@pytest.fixture
def client(openai_server: OpenAIServer) -> Generator[OpenAI]:
    with OpenAI(api_key="sk-test", base_url=openai_server.base_url) as made:
        yield made


def theirs(capture: Captured, found: Mapping[str, Any], scope: str = "acme.instrumentation") -> Any:
    """A current span of another instrumentation."""
    return capture.tracer_provider.get_tracer(scope).start_as_current_span("theirs", attributes=found)


def names_of(capture: Captured) -> list[str]:
    """The spans but those of attempts, by name."""
    return [span.name for span in capture.spans if not span.name.startswith("attempt")]


def ask(client: OpenAI, model: str = "gpt-4o-mini") -> str | None:
    return client.chat.completions.create(model=model, messages=MESSAGES).choices[0].message.content


@pytest.mark.parametrize(
    "names",
    [
        CHAT,
        {"gen_ai.operation.name": "generate_content"},
        {"gen_ai.system": "openai"},
        {"openinference.span.kind": "LLM"},
        {"llm.request.type": "chat"},
    ],
    ids=str,
)
def test_the_call_goes_on_their_span(
    capture: Captured, client: OpenAI, openai_server: OpenAIServer, names: dict[str, str]
) -> None:
    """One span, which is theirs, has cost, retries and their reasons; flow and metrics have the call once."""
    model = openai_server.script({"status": 429, "headers": {"retry-after": "0.05"}}, {"do": "echo"})
    with tm.flow("work") as run, theirs(capture, names):
        assert ask(client, model)
    assert names_of(capture) == [
        "theirs",
        "invoke_workflow work",
    ]
    span = capture.span("theirs")
    found = attributes(span)
    assert found["tracemind.cost_usd"] == pytest.approx(USAGE_USD, rel=1e-9)
    assert (found["tracemind.cost.source"], found["tracemind.retry.count"]) == ("local", 1)
    (retry,) = events(span, "tracemind.retry")
    assert (retry["tracemind.retry.reason"], retry["http.response.status_code"]) == ("rate_limit", 429)
    assert not [name for name in found if name.startswith("gen_ai.usage.") and name != "gen_ai.usage.cost"]
    assert (run.llm_calls, run.retries, run.tokens) == (1, 1, 1_200)
    assert run.cost_usd == found["tracemind.cost_usd"]
    assert capture.total("tracemind.llm.cost") == pytest.approx(USAGE_USD, rel=1e-9)


def test_a_span_that_is_no_model_call_stays_as_it_is(capture: Captured, client: OpenAI) -> None:
    """Under an agent's span or an HTTP server's the call has a span of its own."""
    with theirs(capture, {"gen_ai.operation.name": "invoke_agent", "gen_ai.system": "openai"}):
        ask(client)
    with theirs(capture, {"http.request.method": "POST"}):
        ask(client)
    assert [span.name for span in capture.spans] == ["chat gpt-4o-mini", "theirs"] * 2


@pytest.mark.parametrize(
    ("scope", "duration", "tokens"),
    [
        ("acme.instrumentation", 1, 2),
        ("pydantic-ai", 1, 0),
        ("opentelemetry.instrumentation.openai_v2", 0, 0),
        ("opentelemetry.instrumentation.genai.openai", 0, 0),
    ],
)
def test_what_their_maker_measures_is_not_measured_again(
    capture: Captured, client: OpenAI, scope: str, duration: int, tokens: int
) -> None:
    """Durations and tokens are measured once; cost is always ours."""
    with theirs(capture, CHAT, scope):
        ask(client)
    counts = [len(capture.points(name)) for name in ("gen_ai.client.operation.duration", "gen_ai.client.token.usage")]
    assert counts == [duration, tokens]
    assert capture.total("tracemind.llm.cost") == pytest.approx(USAGE_USD, rel=1e-9)


async def test_a_stream_has_its_cost_before_their_span_ends(capture: Captured, openai_server: OpenAIServer) -> None:
    """Their wrapper ends the span as soon as the last chunk is out; the cost is on it by then."""
    body = (
        'data: {"model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}'
        '\n\ndata: {"model": "gpt-4o-mini", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 200, '
        '"total_tokens": 1200}}\n\ndata: [DONE]\n\n'
    )
    headers = {"content-type": "text/event-stream"}
    model = openai_server.script({"do": "reply", "body": body, "headers": headers})
    async with AsyncOpenAI(api_key="sk-test", base_url=openai_server.base_url) as client:
        with theirs(capture, CHAT) as span:
            stream = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
            async for _ in stream:
                pass
        assert not span.is_recording()
    assert attributes(capture.span("theirs"))["tracemind.cost_usd"] == pytest.approx(1_000 * 0.15e-6 + 200 * 0.6e-6)


def test_each_attempt_has_a_span_of_its_own(capture: Captured, openai_server: OpenAIServer) -> None:
    """Some SDKs do so, and never end that of an attempt that is repeated: the last one gets cost and retries."""
    model = openai_server.script({"status": 503}, {"do": "echo"})
    body = {"model": model, "messages": MESSAGES}
    lost = capture.tracer_provider.get_tracer("acme").start_span("lost", attributes=CHAT)
    with httpx.Client(base_url=openai_server.base_url, trust_env=False) as client, tm.flow("work") as run:
        url = f"{openai_server.base_url}/chat/completions"
        with use_span(lost, end_on_exit=False):
            client.post(url, json=body)
        with theirs(capture, CHAT):
            client.post(url, json=body)
    found = attributes(capture.span("theirs"))
    assert found["tracemind.retry.count"] == 1
    assert len(events(capture.span("theirs"), "tracemind.retry")) == 1
    assert found["tracemind.cost_usd"] == pytest.approx(USAGE_USD, rel=1e-9)
    assert (run.llm_calls, run.retries) == (1, 1)


def test_a_call_in_a_span_of_ours_is_counted_once(
    capture: Captured, client: OpenAI, openai_server: OpenAIServer
) -> None:
    """A function that returns only the text has yet tokens, cost and retries, which the wire shows."""
    model = openai_server.script({"status": 429, "headers": {"retry-after": "0.05"}}, {"do": "echo"})
    spanned = tm.llm_call_span(provider="openai", model="gpt-4o-mini")
    with tm.flow("work", max_llm_calls=1) as run:
        assert spanned(ask)(client, model)
    assert names_of(capture) == [
        "chat gpt-4o-mini",
        "invoke_workflow work",
    ]
    span = capture.span("chat gpt-4o-mini")
    found = attributes(span)
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.cache_read.input_tokens"]) == (1_000, 400)
    assert found["tracemind.cost_usd"] == pytest.approx(USAGE_USD, rel=1e-9)
    assert (found["tracemind.retry.count"], len(events(span, "tracemind.retry"))) == (1, 1)
    assert (run.llm_calls, run.retries, run.cost_usd) == (1, 1, found["tracemind.cost_usd"])


def test_several_calls_in_a_span_of_ours_are_added_up(capture: Captured, client: OpenAI) -> None:
    """A block that asks one model twice has the tokens of both calls."""
    with tm.llm_call_span(provider="openai", model="gpt-4o-mini"):
        ask(client)
        ask(client)
    found = attributes(capture.span("chat gpt-4o-mini"))
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (2_000, 400)
    assert found["tracemind.cost_usd"] == pytest.approx(2 * USAGE_USD, rel=1e-9)
