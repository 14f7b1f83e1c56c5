"""`tm.instrument()`: calls of OpenAI's SDK are spans with cost and retries, and its replies stay what they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from functools import partial
from typing import Any

import httpx
import openai
import pytest
import trio
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes, events

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there, unmistakable prompt"}]
USAGE_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6
"""1,000 input tokens, 400 of them cached, and 200 output tokens of gpt-4o-mini."""


@pytest.fixture
def seen(capture: Captured, openai_server: OpenAIServer) -> Generator[Captured]:
    """The SDK's calls to the server are seen, and priced as OpenAI's."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={f"127.0.0.1:{openai_server.port}": "openai"})
        try:
            yield capture
        finally:
            tm.uninstrument()


@pytest.fixture
def client(openai_server: OpenAIServer) -> Generator[OpenAI]:
    with OpenAI(api_key="sk-test", base_url=openai_server.base_url) as made:
        yield made


def ask(client: OpenAI, model: str = "gpt-4o-mini") -> str | None:
    reply = client.chat.completions.create(model=model, messages=MESSAGES, temperature=0.5)
    return reply.choices[0].message.content


def test_a_call_is_one_span_with_its_cost(seen: Captured, client: OpenAI) -> None:
    """Model, parameters, tokens and cost are those of our own calls, and the flow around it has its sums."""
    with tm.flow("work") as run, tm.step("ask"):
        assert ask(client) == "echo: Hello there, unmistakable prompt"
    span = seen.span("chat gpt-4o-mini")
    found = attributes(span)
    assert {
        "gen_ai.provider.name": "openai",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.response.finish_reasons": ("stop",),
        "server.address": "127.0.0.1",
        "tracemind.step.id": "ask",
        "tracemind.retry.count": 0,
    }.items() <= found.items()
    assert found["tracemind.cost_usd"] == pytest.approx(USAGE_USD, rel=1e-9)
    assert span.parent is not None
    step = seen.span("ask").context
    assert step is not None
    assert span.parent.span_id == step.span_id
    assert run.cost_usd == found["tracemind.cost_usd"]
    assert list(run.by_step) == ["ask"]
    assert seen.total("tracemind.llm.cost") == pytest.approx(USAGE_USD, rel=1e-9)


def test_repeated_attempts_are_one_span(seen: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """The SDK repeats 429 and 500; each is an event with its reason, status and wait, at the time of the failure."""
    model = openai_server.script(
        {"status": 429, "headers": {"retry-after": "0.05"}},
        {"status": 500, "headers": {"retry-after": "0.05"}},
        {"do": "echo"},
    )
    with tm.flow("work") as run:
        assert ask(client, model) is not None
    span = seen.span(f"chat {model}")
    retries = events(span, "tracemind.retry")
    assert [(each["tracemind.retry.reason"], each["http.response.status_code"]) for each in retries] == [
        ("rate_limit", 429),
        ("server_error", 500),
    ]
    assert all(each["tracemind.retry.delay_s"] >= 0.05 for each in retries)
    first, second = (event.timestamp for event in span.events)
    assert (span.start_time or 0) < first < second < (span.end_time or 0)
    assert (run.llm_calls, run.retries) == (1, 2)
    assert "error.type" not in attributes(span)


def test_a_call_that_fails_for_good(seen: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """The SDK's error is the user's; the span has the status, and no word of the prompt that the server repeated."""
    body = '{"error": {"message": "cannot read: Hello there, unmistakable prompt", "code": "bad_prompt"}}'
    model = openai_server.script({"status": 400, "body": body})
    with tm.flow("work") as run, pytest.raises(openai.BadRequestError):
        ask(client, model)
    span = seen.span(f"chat {model}")
    assert attributes(span)["error.type"] == "bad_prompt"
    assert attributes(span)["http.response.status_code"] == 400
    assert "unmistakable" not in span.to_json()
    assert (run.llm_calls, run.cost_usd) == (1, None)


def test_a_call_whose_repetitions_all_fail(seen: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """It ends with its flow, at the time of its last failure, and the flow has counted it."""
    model = openai_server.script({"status": 503, "headers": {"retry-after": "0.01"}})
    with tm.flow("work") as run, pytest.raises(openai.InternalServerError):
        ask(client, model)
    span, flow = seen.span(f"chat {model}"), seen.span("invoke_workflow work")
    assert attributes(span)["error.type"] == "503"
    assert len(events(span, "tracemind.retry")) == 2
    assert (run.llm_calls, run.retries) == (1, 2)
    assert (span.end_time or 0) <= (flow.end_time or 0)


def chunk(**fields: Any) -> str:
    document = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", **fields}
    return f"data: {json.dumps(document)}\n\n"


def delta(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": reason}


STREAM = "".join(
    (
        chunk(choices=[delta("Hel")]),
        chunk(choices=[delta("lo", "stop")]),
        chunk(choices=[], usage={"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}),
        "data: [DONE]\n\n",
    )
)


def test_a_stream_is_read_along(seen: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """The chunks reach the reader, and the span has tokens, cost and the time to the first chunk."""
    headers = {"content-type": "text/event-stream"}
    model = openai_server.script({"do": "reply", "body": STREAM, "headers": headers})
    stream = client.chat.completions.create(
        model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    text = "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)
    assert text == "Hello"
    found = attributes(seen.span(f"chat {model}"))
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] > 0
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (1_000, 200)
    assert found["tracemind.cost_usd"] == pytest.approx(1_000 * 0.15e-6 + 200 * 0.60e-6, rel=1e-9)


def test_a_stream_that_is_left_early(seen: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """It is no error, and what was not reported has no cost."""
    headers = {"content-type": "text/event-stream"}
    model = openai_server.script({"do": "cut", "body": STREAM, "headers": headers})
    stream = client.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    next(stream)
    stream.close()
    found = attributes(seen.span(f"chat {model}"))
    assert "error.type" not in found
    assert "tracemind.cost_usd" not in found


async def test_many_calls_at_once(seen: Captured, openai_server: OpenAIServer) -> None:
    """A hundred concurrent calls that are each repeated once are a hundred spans with one event each."""
    models = [
        openai_server.script({"status": 429, "headers": {"retry-after": "0.05"}}, {"do": "echo"}) for _ in range(100)
    ]
    async with AsyncOpenAI(api_key="sk-test", base_url=openai_server.base_url) as client:
        with tm.flow("work") as run:
            await asyncio.gather(*(client.chat.completions.create(model=model, messages=MESSAGES) for model in models))
    assert (run.llm_calls, run.retries) == (100, 100)
    assert run.cost_usd == pytest.approx(100 * USAGE_USD, rel=1e-9)
    calls = [span for span in seen.spans if span.name.startswith("chat ")]
    assert [len(events(span, "tracemind.retry")) for span in calls] == [1] * 100


async def test_equal_calls_at_once_stay_apart(seen: Captured, openai_server: OpenAIServer) -> None:
    """Two tasks that send the same body at the same time are two calls, whoever of them is repeated."""
    model = openai_server.script({"status": 503, "headers": {"retry-after": "0.05"}}, {"do": "echo"})
    async with AsyncOpenAI(api_key="sk-test", base_url=openai_server.base_url) as client:
        with tm.flow("work") as run:
            await asyncio.gather(*(client.chat.completions.create(model=model, messages=MESSAGES) for _ in range(2)))
    assert (run.llm_calls, run.retries) == (2, 1)


async def test_a_task_that_gives_up(seen: Captured, openai_server: OpenAIServer) -> None:
    """Its failed call ends with the task; the same request of another task is another call."""
    model = openai_server.script({"status": 503}, {"do": "echo"})
    async with AsyncOpenAI(api_key="sk-test", base_url=openai_server.base_url, max_retries=0) as client:

        async def call() -> None:
            await client.chat.completions.create(model=model, messages=MESSAGES)

        with pytest.raises(openai.InternalServerError):
            await asyncio.create_task(call())
        await asyncio.sleep(0)  # one turn of the loop, in which the end of a task is told
        assert attributes(seen.span(f"chat {model}"))["error.type"] == "503"
        await asyncio.create_task(call())
    first, second = seen.spans
    assert [attributes(span)["tracemind.retry.count"] for span in (first, second)] == [0, 0]


def test_concurrent_calls_under_trio(seen: Captured, openai_server: OpenAIServer) -> None:
    """Tasks of trio are told apart as well."""
    models = [openai_server.script({"status": 429, "headers": {"retry-after": "0.05"}}, {"do": "echo"})] * 3

    async def main() -> None:
        async with (
            AsyncOpenAI(api_key="sk-test", base_url=openai_server.base_url) as client,
            trio.open_nursery() as both,
        ):
            for model in models:
                both.start_soon(partial(client.chat.completions.create, model=model, messages=MESSAGES))

    with tm.flow("work") as run:
        trio.run(main)
    assert (run.llm_calls, run.retries) == (3, 1)


def test_an_unknown_host_has_no_price(seen: Captured, client: OpenAI) -> None:
    """What speaks OpenAI's format need not charge OpenAI's prices."""
    tm.uninstrument()
    tm.instrument()
    ask(client)
    found = attributes(seen.span("chat gpt-4o-mini"))
    assert "tracemind.cost_usd" not in found
    assert found["gen_ai.usage.input_tokens"] == 1_000


def test_other_requests_are_left_alone(seen: Captured, openai_server: OpenAIServer) -> None:
    """A request to another path, or by another method, has no span."""
    with httpx.Client(trust_env=False) as client:
        client.post(f"{openai_server.base_url}/moderations", json={"model": "gpt-4o-mini", "messages": MESSAGES})
    assert seen.spans == []


async def test_our_own_calls_are_recorded_once(seen: Captured, openai_server: OpenAIServer) -> None:
    """A call through our front door has the span that it always had."""
    client = tm.LLMClientFactory.make("openai", api_key="sk-test", base_url=openai_server.base_url)
    await tm.llm_call("gpt-4o-mini", "hi", client=client)
    assert [attributes(span)["tracemind.step.type"] for span in seen.spans] == ["ai.llm_call"]


def test_uninstrument_puts_everything_back(capture: Captured, openai_server: OpenAIServer) -> None:
    """The methods are the libraries' own again, and calls have no spans."""
    before = httpx.Client.send, httpx.AsyncClient.send
    tm.instrument()
    assert httpx.Client.send is not before[0]
    tm.uninstrument()
    assert (httpx.Client.send, httpx.AsyncClient.send) == before


def test_a_wrong_host_table_is_named() -> None:
    """A mistake in the hosts is a ConfigError."""
    with pytest.raises(tm.ConfigError, match=r"hosts gives 'a\.example' the provider 'b c'; it must be a name without"):
        tm.instrument(hosts={"a.example": "b c"})
    with pytest.raises(tm.ConfigError, match="hosts must be a mapping of host or host:port to a provider's name"):
        tm.instrument(hosts={"gateway": 5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
