"""`tm.llm_call_span`: any code that calls a model gets a span with tokens and cost, by a decorator or a block."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from openai import AsyncOpenAI, OpenAI, Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from opentelemetry.sdk.metrics.export import HistogramDataPoint

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes
from tests.wire.conforming import EVERY, Conforming

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 200, "total_tokens": 1_200}
USAGE_USD = 1_000 * 0.15e-6 + 200 * 0.60e-6
REPLY: dict[str, Any] = {
    "id": "c-1",
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}],
    "usage": USAGE,
}
CHUNKS: list[dict[str, Any]] = [
    {"id": "c-1", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {"content": "Hel"}}]},
    {"id": "c-1", "model": "gpt-4o-mini", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": "c-1", "model": "gpt-4o-mini", "choices": [], "usage": USAGE},
]
spanned = tm.llm_call_span(provider="openai", model="gpt-4o-mini")
SPAN = "chat gpt-4o-mini"


@pytest.fixture(autouse=True)
def configured(capture: Captured) -> Generator[None]:
    """The spans and metrics of each test are captured."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        yield


def the_tokens(capture: Captured) -> tuple[int, int]:
    found = attributes(capture.span(SPAN))
    return found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]


def test_a_function_that_returns_a_reply(capture: Captured) -> None:
    """The span is a CLIENT span as any model call's, and the flow and the metrics have its cost."""

    @spanned
    def ask(question: str) -> dict[str, Any]:
        """Ask."""
        return REPLY

    with tm.flow("work") as run, tm.step("ask"):
        assert ask("Why?") is REPLY
    found = attributes(capture.span(SPAN))
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 200,
        "tracemind.step.id": "ask",
    }.items() <= found.items()
    assert capture.span(SPAN).kind.name == "CLIENT"
    assert found["tracemind.cost_usd"] == pytest.approx(USAGE_USD, rel=1e-9)
    assert run.cost_usd == found["tracemind.cost_usd"]
    assert capture.total("tracemind.llm.cost") == pytest.approx(USAGE_USD, rel=1e-9)
    assert (ask.__name__, ask.__doc__, list(inspect.signature(ask).parameters)) == ("ask", "Ask.", ["question"])


async def test_a_coroutine_that_returns_an_sdk_object(capture: Captured, openai_server: OpenAIServer) -> None:
    """What OpenAI's SDK returns is returned as it is, and read."""

    @spanned
    async def ask(client: AsyncOpenAI) -> ChatCompletion:
        return await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)

    async with AsyncOpenAI(api_key="sk-test", base_url=openai_server.base_url) as client:
        assert type(await ask(client)) is ChatCompletion
    assert the_tokens(capture) == (1_000, 200)
    assert attributes(capture.span(SPAN))["gen_ai.usage.cache_read.input_tokens"] == 400


async def test_a_function_that_returns_an_awaitable(capture: Captured) -> None:
    """The span ends with what is awaited."""

    async def reply() -> dict[str, Any]:
        assert capture.spans == []
        return REPLY

    assert await spanned(lambda: reply())() is REPLY
    assert the_tokens(capture) == (1_000, 200)


def test_a_function_that_returns_an_sdk_stream(capture: Captured, openai_server: OpenAIServer) -> None:
    """Its chunks are read on their way, and it is still a stream of the SDK."""
    body = "".join(f"data: {ChatCompletionChunk.model_construct(**chunk).to_json(indent=None)}\n\n" for chunk in CHUNKS)
    model = openai_server.script(
        {"do": "reply", "body": body + "data: [DONE]\n\n", "headers": {"content-type": "text/event-stream"}}
    )

    @spanned
    def ask(client: OpenAI) -> Stream[ChatCompletionChunk]:
        return client.chat.completions.create(model=model, messages=MESSAGES, stream=True)

    with OpenAI(api_key="sk-test", base_url=openai_server.base_url) as client, ask(client) as stream:
        assert isinstance(stream, Stream)
        assert stream.response.status_code == 200
        assert [chunk.choices[0].delta.content for chunk in stream if chunk.choices] == ["Hel", None]
        assert the_tokens(capture) == (1_000, 200)
    found = attributes(capture.span(SPAN))
    assert "tracemind.stream.closed_early" not in found
    assert found["gen_ai.response.time_to_first_chunk"] > 0


def test_a_generator_that_yields_pieces(capture: Captured) -> None:
    """Its span has the tokens of the last piece, and ends when it does."""

    @spanned
    def ask() -> Iterator[dict[str, Any]]:
        yield from CHUNKS

    assert list(ask()) == CHUNKS
    assert the_tokens(capture) == (1_000, 200)
    assert attributes(capture.span(SPAN))["tracemind.cost_usd"] == pytest.approx(USAGE_USD, rel=1e-9)


async def test_an_async_generator_that_is_left_early(capture: Captured) -> None:
    """It is no error, and what was not reported has no cost."""

    @spanned
    async def ask() -> AsyncIterator[dict[str, Any]]:
        for chunk in CHUNKS:
            yield chunk

    pieces: Any = ask()
    await anext(pieces)
    await pieces.aclose()
    found = attributes(capture.span(SPAN))
    assert found["tracemind.stream.closed_early"] is True
    assert not {"error.type", "tracemind.cost_usd"} & found.keys()


def test_a_block_whose_usage_is_set_by_hand(capture: Captured) -> None:
    """Counts by the conventions' names are enough; the flow has them."""
    with tm.flow("work") as run, tm.llm_call_span(provider="openai", model="gpt-4o-mini", name="grpc") as span:
        span.set_usage(input_tokens=1_000, output_tokens=200, cache_read_tokens=400, reasoning_tokens=50)
    found = attributes(capture.span(SPAN))
    assert found["gen_ai.usage.reasoning.output_tokens"] == 50
    assert found["tracemind.cost_usd"] == pytest.approx(600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6, rel=1e-9)
    assert (run.tokens, list(run.by_step)) == (1_200, ["grpc"])


async def test_an_async_block_takes_a_usage_and_a_reply(capture: Captured) -> None:
    """The user's usage comes first; model and finish reason are the reply's."""
    async with tm.llm_call_span(provider="openai", model="gpt-4o-mini") as span:
        span.set_response(REPLY)
        span.set_usage(tm.LLMUsage(10, 5, 15, cost_usd=0.5))
    found = attributes(capture.span(SPAN))
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.response.finish_reasons"]) == (10, ("stop",))
    assert (found["tracemind.cost_usd"], found["tracemind.cost.source"]) == (0.5, "provider")


def test_a_block_that_reads_a_stream(capture: Captured) -> None:
    """Chunks may be handed to the span one by one."""
    with tm.llm_call_span(provider="openai", model="gpt-4o-mini") as span:
        for chunk in CHUNKS:
            span.add_chunk(chunk)
    assert the_tokens(capture) == (1_000, 200)


@pytest.mark.parametrize("status", [429, None])
def test_what_the_code_raises_is_raised(capture: Captured, status: int | None) -> None:
    """The span has the status or the class, and no word of the message, which may repeat the prompt."""

    class ProviderError(Exception):
        status_code = status

    with tm.flow("work") as run, pytest.raises(ProviderError):
        spanned(lambda: (_ for _ in ()).throw(ProviderError("my secret prompt")))().send(None)
    with tm.flow("work"), pytest.raises(ProviderError), tm.llm_call_span(provider="openai", model="other"):
        raise ProviderError("my secret prompt")
    span = capture.span("chat other")
    assert attributes(span)["error.type"] == ("ProviderError" if status is None else "429")
    assert "secret" not in span.to_json()
    assert run.llm_calls == 1


async def test_a_cancelled_call(capture: Captured) -> None:
    """A task that is cancelled in it has a span that says so."""

    @spanned
    async def ask() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert attributes(capture.span(SPAN))["tracemind.cancelled"] is True


def test_a_budget_denies_it_before_it_runs(capture: Captured) -> None:
    """The code does not run, and the calls that ran are counted."""
    ran: list[int] = []

    @spanned
    def ask() -> dict[str, Any]:
        ran.append(1)
        return REPLY

    with tm.flow("work", max_llm_calls=1) as run:
        ask()
        with pytest.raises(tm.BudgetExceededError):
            ask()
    assert (len(ran), run.llm_calls) == (1, 1)


def test_a_call_without_usage_is_unknown(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """It has no tokens and no cost rather than zero, and the log says once what to do."""
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert spanned(lambda: "Hello")() == "Hello"
    assert not {"gen_ai.usage.input_tokens", "tracemind.cost_usd"} & attributes(capture.spans[0]).keys()
    assert [record.getMessage() for record in caplog.records] == [
        "the call of openai/gpt-4o-mini has no tokens and no cost: no usage was found in str; return the provider's "
        "own reply or an LLMUsage, or call span.set_usage() in `with llm_call_span(...) as span`"
    ]


def test_a_context_manager_function(capture: Captured) -> None:
    """Its span is that of the block."""

    @spanned
    @contextmanager
    def connection() -> Generator[str]:
        yield "open"

    with connection() as made:
        assert (made, capture.spans) == ("open", [])
    assert [span.name for span in capture.spans] == [SPAN]


@pytest.mark.parametrize("provider", EVERY, ids=lambda each: each.name)
@pytest.mark.parametrize("form", ["dict", "object"])
def test_replies_of_every_provider_are_read(capture: Captured, provider: Conforming, form: str) -> None:
    """A reply as a dict, or as objects with its fields, has the same tokens and finish reason as our own call of it."""
    reply = provider.whole if form == "dict" else as_object(provider.whole)
    with tm.llm_call_span(provider=provider.name, model=provider.model) as span:
        span.set_response(reply)
    found = attributes(capture.span(f"chat {provider.model}"))
    assert found["gen_ai.response.finish_reasons"]
    assert min(found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) > 0
    streamed = tm.llm_call_span(provider=provider.name, model="streamed")
    with streamed as span:
        for name, event in provider.events:
            span.add_chunk({name: event} if provider.name == "bedrock" else event)
    pieces = attributes(capture.span("chat streamed"))
    for part in ("input_tokens", "output_tokens"):
        assert pieces[f"gen_ai.usage.{part}"] == found[f"gen_ai.usage.{part}"]


def as_object(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(as_object, cast("list[object]", value)))
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(item) for name, item in cast("dict[str, Any]", value).items()})
    return value


def test_mistakes_are_named() -> None:
    """A wrong argument, a class, and a count that does not exist are told at once."""
    with pytest.raises(tm.ConfigError, match="model is ''; it must be a string that is not empty"):
        tm.llm_call_span(provider="openai", model="")
    with pytest.raises(TypeError, match="decorates functions"):
        spanned(int)
    with tm.llm_call_span(provider="fake", model="m") as span, pytest.raises(TypeError, match="no field tokens_in"):
        span.set_usage(tokens_in=3)


async def test_a_call_of_ours_inside_it_counts_itself(capture: Captured) -> None:
    """The flow, the metrics and a budget of one call have one; the span around it carries no second count."""
    with tm.flow("work", max_llm_calls=1) as run, tm.llm_call_span(provider="fake", model="around") as span:
        await tm.llm_call("fake/toy-1", "Hello")
        span.set_usage(input_tokens=10, output_tokens=5)
    assert (run.llm_calls, list(run.by_model)) == (1, ["fake/toy-1"])
    outer, inner = attributes(capture.span("chat around")), attributes(capture.span("chat toy-1"))
    assert "gen_ai.usage.input_tokens" in inner
    assert not {"gen_ai.usage.input_tokens", "tracemind.cost_usd", "error.type"} & outer.keys()
    (duration,) = capture.points("gen_ai.client.operation.duration")
    assert isinstance(duration, HistogramDataPoint)
    assert duration.count == 1


def test_of_two_spans_within_each_other_the_inner_counts(capture: Captured) -> None:
    """So do decorated functions that call one another."""
    inner = spanned(lambda: REPLY)
    with tm.flow("work") as run, tm.llm_call_span(provider="openai", model="around") as span:
        span.set_response(inner())
    assert run.llm_calls == 1
    assert run.cost_usd == pytest.approx(USAGE_USD, rel=1e-9)
