"""Budgets hold for calls that other SDKs make: denied before they are sent, and counted as what they used."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from openai import APIConnectionError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes, events

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
DENIED = (APIConnectionError, tm.BudgetExceededError)
"""What an SDK raises of an error from its HTTP client: one of its own, or that very error."""
COST_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6


@pytest.fixture
def client(capture: Captured, openai_server: OpenAIServer) -> Generator[OpenAI]:
    """A client whose calls are seen and priced."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={f"127.0.0.1:{openai_server.port}": "openai"})
        try:
            with OpenAI(api_key="sk-test", base_url=openai_server.base_url) as made:
                yield made
        finally:
            tm.uninstrument()


def ask(client: OpenAI, model: str = "gpt-4o-mini", max_tokens: int = 200) -> None:
    client.chat.completions.create(model=model, messages=MESSAGES, max_completion_tokens=max_tokens)


def messages(error: BaseException | None) -> str:
    found = ""
    while error is not None:
        found, error = f"{found}{error}\n", error.__cause__ or error.__context__
    return found


def causes(error: BaseException | None) -> list[type[BaseException]]:
    found: list[type[BaseException]] = []
    while error is not None:
        found.append(type(error))
        error = error.__cause__ or error.__context__
    return found


def test_a_call_over_the_limit_is_not_sent(client: OpenAI, capture: Captured, openai_server: OpenAIServer) -> None:
    """The SDK's error has ours as its cause; its own repetitions are denied at once, and it is one denied call."""
    model = openai_server.script()
    with tm.flow("work", max_llm_calls=1) as run:
        ask(client)
        with pytest.raises(DENIED) as caught:
            ask(client, model)
    assert tm.BudgetExceededError in causes(caught.value)
    assert openai_server.requests(model) == []
    assert (run.llm_calls, run.retries) == (1, 0)
    assert capture.total("tracemind.llm.denied_calls") == 1
    assert attributes(capture.span(f"chat {model}"))["error.type"] == "budget_exceeded"


def test_a_limit_in_usd(client: OpenAI, capture: Captured) -> None:
    """What a call may cost is held before it is sent, and what it cost is counted after."""
    with tm.flow("work", max_cost_usd=2.5 * COST_USD) as run:
        ask(client)
        ask(client)
        with pytest.raises(DENIED) as caught:
            ask(client, max_tokens=1_000)
    assert tm.BudgetExceededError in causes(caught.value)
    assert run.cost_usd == pytest.approx(2 * COST_USD, rel=1e-9)
    spent = [
        event["tracemind.budget.fraction"] for event in events(capture.span("invoke_workflow work"), "tracemind.budget")
    ]
    assert spent == [0.5, 0.8]


def test_every_choice_that_is_asked_for_is_held(client: OpenAI, openai_server: OpenAIServer) -> None:
    """Three replies to one request may cost three times the limit of output."""
    with tm.flow("work", max_tokens=500), pytest.raises(DENIED) as caught:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, max_completion_tokens=200, n=3)
    assert tm.BudgetExceededError in causes(caught.value)
    with tm.flow("work", max_tokens=500):
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, max_completion_tokens=200, n=2)


def test_a_price_that_nobody_knows(client: OpenAI, openai_server: OpenAIServer) -> None:
    """Under a limit in USD a call to an unknown host is denied, since nobody can say what it costs."""
    tm.uninstrument()
    tm.instrument()
    with tm.flow("work", max_cost_usd=1.0), pytest.raises(DENIED) as caught:
        ask(client)
    assert tm.BudgetExceededError in causes(caught.value)
    host = f"127.0.0.1:{openai_server.port}"
    assert f"Name the provider of {host} by configure(hosts=...) or TRACEMIND_HOSTS" in messages(caught.value)


def test_a_new_call_after_a_denied_one(client: OpenAI, capture: Captured) -> None:
    """The next call of the program is judged anew, even with the same words."""
    with tm.flow("work", max_llm_calls=1):
        ask(client)
        for _ in range(2):
            with pytest.raises(DENIED):
                ask(client)
    ask(client)
    assert capture.total("tracemind.llm.denied_calls") == 2
    assert len([span for span in capture.spans if span.name == "chat gpt-4o-mini"]) == 4
