"""Spans of model calls that did not pass our wire: priced before they end, and each call counted once."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import pytest
from openai import OpenAI
from opentelemetry.trace import Status, StatusCode, Tracer

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes

COST_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6
"""1,000 input tokens, 400 of them read from a cache, and 200 output tokens of gpt-4o-mini."""
OFFICIAL: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
}
OFFICIAL_USAGE: dict[str, Any] = {
    "gen_ai.usage.input_tokens": 1_000,
    "gen_ai.usage.cache_read.input_tokens": 400,
    "gen_ai.usage.output_tokens": 200,
}
SPELLINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "official": (OFFICIAL, OFFICIAL_USAGE),
    "older": (
        {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o-mini"},
        {"gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.cache_read_input_tokens": 400}
        | {"gen_ai.usage.output_tokens": 200},
    ),
    "openllmetry": (
        {"gen_ai.system": "OpenAI", "llm.request.type": "chat", "gen_ai.request.model": "gpt-4o-mini"},
        {"gen_ai.usage.prompt_tokens": 1_000, "gen_ai.usage.cache_read_input_tokens": 400}
        | {"gen_ai.usage.completion_tokens": 200},
    ),
    "openinference": (
        {"openinference.span.kind": "LLM", "llm.system": "openai", "llm.model_name": "gpt-4o-mini"},
        {"llm.token_count.prompt": 1_000, "llm.token_count.prompt_details.cache_read": 400}
        | {"llm.token_count.completion": 200},
    ),
    "pydantic-ai": (
        OFFICIAL,
        {"gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.details.cache_read_tokens": 400}
        | {"gen_ai.usage.output_tokens": 200},
    ),
}


@pytest.fixture(autouse=True)
def configured(capture: Captured) -> Generator[None]:
    """The processor is added to the provider that `configure()` joins."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        yield


@pytest.fixture
def theirs(capture: Captured) -> Tracer:
    return capture.tracer_provider.get_tracer("acme.instrumentation")


def reported(tracer: Tracer, start: Mapping[str, Any] = OFFICIAL, end: Mapping[str, Any] = OFFICIAL_USAGE) -> None:
    with tracer.start_as_current_span("theirs", attributes=start) as span:
        span.set_attributes(end)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_span_is_priced_by_any_names(capture: Captured, theirs: Tracer, spelling: str) -> None:
    """Cost and its source are on the span when it ends; flow sums and metrics have the call once."""
    with tm.flow("work") as run, tm.step("ask"):
        reported(theirs, *SPELLINGS[spelling])
    found = attributes(capture.span("theirs"))
    assert found["tracemind.cost_usd"] == pytest.approx(COST_USD, rel=1e-9)
    assert found["tracemind.cost.source"] == "local"
    assert (run.llm_calls, run.tokens, list(run.by_step)) == (1, 1_200, ["ask"])
    assert run.cost_usd == found["tracemind.cost_usd"]
    assert capture.total("tracemind.llm.cost") == pytest.approx(COST_USD, rel=1e-9)


@pytest.mark.parametrize(("address", "is_priced"), [("api.openai.com", True), ("gateway.acme.example", False)])
def test_a_span_of_an_unknown_host_has_no_price(
    capture: Captured, theirs: Tracer, address: str, is_priced: bool
) -> None:
    """OpenAI's SDK may talk to any server, and its instrumentation names OpenAI for each of them."""
    with tm.flow("work") as run:
        reported(theirs, OFFICIAL | {"server.address": address, "server.port": 443})
    assert ("tracemind.cost_usd" in attributes(capture.span("theirs"))) is is_priced
    assert (run.llm_calls, run.tokens, run.cost_usd is not None) == (1, 1_200, is_priced)


def test_cache_counts_beside_the_input(capture: Captured, theirs: Tracer) -> None:
    """Some count cached tokens apart from the input: no part can be larger than its whole, so they are added."""
    usage = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_creation_input_tokens": 300}
    with tm.flow("work") as run:
        reported(theirs, OFFICIAL, usage | {"gen_ai.usage.output_tokens": 200})
    assert run.input_tokens == 400


@pytest.mark.parametrize("levels", [2, 3])
def test_nested_spans_report_one_call(capture: Captured, theirs: Tracer, levels: int) -> None:
    """The innermost has the cost, and the flow has one call."""

    def nest(level: int) -> None:
        with theirs.start_as_current_span(f"level {level}", attributes=OFFICIAL) as span:
            if level > 1:
                with theirs.start_as_current_span("between"):
                    nest(level - 1)
            span.set_attributes(OFFICIAL_USAGE)

    with tm.flow("work") as run:
        nest(levels)
    priced = [span.name for span in capture.spans if "tracemind.cost_usd" in attributes(span)]
    assert (priced, run.llm_calls) == (["level 1"], 1)
    assert run.cost_usd == pytest.approx(COST_USD, rel=1e-9)


def test_an_outer_span_that_ends_first(theirs: Tracer) -> None:
    """What ends later inside it reports the same call."""
    with tm.flow("work") as run:
        with theirs.start_as_current_span("outer", attributes=OFFICIAL) as outer:
            outer.set_attributes(OFFICIAL_USAGE)
            inner = theirs.start_span("inner", attributes=OFFICIAL | OFFICIAL_USAGE)
        inner.end()
    assert run.llm_calls == 1


def test_spans_beside_each_other_with_one_reply(theirs: Tracer) -> None:
    """The provider's id of the reply tells that two spans report one call."""
    with tm.flow("work") as run:
        for _ in range(2):
            reported(theirs, OFFICIAL, OFFICIAL_USAGE | {"gen_ai.response.id": "reply-of-two-spans"})
    assert run.llm_calls == 1


def test_a_call_that_the_wire_has_seen_is_not_counted_again(
    capture: Captured, theirs: Tracer, openai_server: OpenAIServer
) -> None:
    """Two spans of other instrumentations around an SDK's call: one call, by what the reply says."""
    tm.instrument(hosts={f"127.0.0.1:{openai_server.port}": "openai"})
    try:
        client = OpenAI(api_key="sk-test", base_url=openai_server.base_url)
        with tm.flow("work") as run, client, theirs.start_as_current_span("outer", attributes=OFFICIAL) as outer:
            with theirs.start_as_current_span("inner", attributes=OFFICIAL) as inner:
                client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
                inner.set_attributes(OFFICIAL_USAGE)
            outer.set_attributes(OFFICIAL_USAGE)
    finally:
        tm.uninstrument()
    priced = [span.name for span in capture.spans if "tracemind.cost_usd" in attributes(span)]
    assert (priced, run.llm_calls) == (["inner"], 1)


async def test_a_call_of_ours_inside_their_span(theirs: Tracer) -> None:
    """Our own call counts, and the span around it that reports the same does not."""
    with tm.flow("work") as run, theirs.start_as_current_span("outer", attributes=OFFICIAL) as outer:
        await tm.llm_call("fake/m", "Hello")
        outer.set_attributes(OFFICIAL_USAGE)
    assert run.llm_calls == 1


def test_a_failed_call_counts_without_cost(capture: Captured, theirs: Tracer) -> None:
    """It is a call of the flow; its span has no cost, and a failed attempt inside another call is no call."""
    with tm.flow("work") as run:
        with theirs.start_as_current_span("failed", attributes=OFFICIAL) as span:
            span.set_status(Status(StatusCode.ERROR))
        with theirs.start_as_current_span("outer", attributes=OFFICIAL) as outer:
            with theirs.start_as_current_span("attempt", attributes=OFFICIAL) as span:
                span.set_status(Status(StatusCode.ERROR))
            outer.set_attributes(OFFICIAL_USAGE)
    assert "tracemind.cost_usd" not in attributes(capture.span("failed"))
    assert "tracemind.cost_usd" in attributes(capture.span("outer"))
    assert run.llm_calls == 2


def test_agents_and_other_spans_are_left_alone(capture: Captured, theirs: Tracer) -> None:
    """The sums on an agent's span are no call; a span that is none keeps its attributes, its end and its time."""
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.system": "openai"}
    with tm.flow("work") as run:
        reported(theirs, agent, OFFICIAL_USAGE)
        span = theirs.start_span("plain", start_time=1_000)
        span.end(2_000)
    assert run.llm_calls == 0
    assert "tracemind.cost_usd" not in attributes(capture.span("theirs"))
    plain = capture.span("plain")
    assert (plain.start_time, plain.end_time, dict(attributes(plain))) == (1_000, 2_000, {})


def test_an_unknown_price_is_not_zero(capture: Captured, theirs: Tracer) -> None:
    """The call counts with its tokens, as unpriced."""
    with tm.flow("work") as run:
        reported(theirs, OFFICIAL | {"gen_ai.request.model": "nobody-knows-it"}, OFFICIAL_USAGE)
    assert (run.llm_calls, run.unpriced_calls, run.tokens, run.cost_usd) == (1, 1, 1_200, None)
    assert "tracemind.cost_usd" not in attributes(capture.span("theirs"))
