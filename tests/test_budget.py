"""A budget denies calls over its limit, counts each cost once, and reports when the limit comes near."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, cast

import httpx
import pytest
from opentelemetry.trace import StatusCode

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes, events
from tracemind_otel.ai.llm import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.ai.llm.client import AsyncLLMClient as Client
from tracemind_otel.ai.llm.providers import FakeLLMClient, OpenAILLMClient
from tracemind_otel.ai.llm.types import Finish, StreamEvent, TextDelta
from tracemind_otel.errors import (
    BudgetExceededError,
    BudgetKind,
    ConfigError,
    LLMConnectionError,
    LLMError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from tracemind_otel.flows.budget import (
    THRESHOLDS,
    Budget,
    BudgetLimits,
    BudgetSpent,
    BudgetThreshold,
    Estimate,
    ModelSpending,
    Reservation,
    Use,
    current_budget,
    reserve,
)
from tracemind_otel.flows.totals import FlowRun, enter_flow
from tracemind_otel.otel.budget_scope import budget, checked_limits
from tracemind_otel.runtime.recorder import InMemoryRecorder, Recorder

PROMPT = "The secret plan of tomorrow, in short: go"
ESTIMATED_TOKENS = 11
"""The estimated tokens of the prompt."""
ESTIMATED_USD = 0.11
"""The cost of these tokens."""
USAGE = LLMUsage(20, 30, 50)
"""The usage of a reply; 50 tokens cost 0.50 USD."""
FREE = Estimate(model="acme/m", cost_usd=0.0)


@pytest.fixture(autouse=True)
def prices() -> None:
    """Input and output cost one cent a token; a model of another name has no price."""
    tm.set_prices([{"model": model, "input": 10_000, "output": 10_000} for model in ("m", "other")])


class Provider(AsyncLLMClient):
    """A provider that counts the requests that reach it, and answers when the test lets it."""

    provider_name = "acme"

    def __init__(self, *outcomes: BaseException | LLMUsage, is_open: bool = True, reports_cost: bool = False) -> None:
        self.outcomes = list(outcomes)
        self.sent = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.arrived = asyncio.Event()
        self.reports_cost = reports_cost
        self.gate = asyncio.Event()
        if is_open:
            self.gate.set()

    async def complete(self, req: LLMRequest) -> LLMResponse:
        await self._receive()
        return LLMResponse("done", self._next())

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        await self._receive()
        yield (TextDelta("four characters "),)
        yield (TextDelta("a token"),)
        yield (Finish(LLMResponse("four characters a token", self._next())),)

    async def _receive(self) -> None:
        self.sent += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.arrived.set()
        try:
            await self.gate.wait()
        finally:
            self.in_flight -= 1

    def _next(self) -> LLMUsage:
        outcome = self.outcomes.pop(0) if self.outcomes else USAGE
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def call(client: Client, *, model: str = "m", recorder: Recorder | None = None, **options: Any) -> dict[str, Any]:
    """One call of the prompt."""
    options.setdefault("max_retries", 0)
    cfg = tm.LLMCallConfig("acme", model, PROMPT, **options)
    return await tm.run_llm_call("flow", "step", cfg, recorder or Recorder(), client=client)


def stream(client: Client, recorder: Recorder | None = None, **options: Any) -> tm.LLMStream:
    options.setdefault("max_retries", 0)
    cfg = tm.LLMCallConfig("acme", "m", PROMPT, **options)
    return tm.stream_llm_call("flow", "step", cfg, recorder or Recorder(), client=client)


def is_denied(result: dict[str, Any]) -> bool:
    return result.get("error_type") == "budget_exceeded"


def figures(spent: BudgetSpent) -> tuple[float, int, int]:
    return round(spent.cost_usd, 9), spent.tokens, spent.llm_calls


def settle(spending: Budget, estimate: Estimate, cost_usd: float, tokens: int) -> None:
    use = Use(cost_usd=cost_usd, tokens=tokens)
    spending.settle(estimate, use)
    spending.report(estimate, use, llm_calls=1)


def denial(budget: Budget, estimate: Estimate = FREE) -> BudgetExceededError:
    with pytest.raises(BudgetExceededError) as caught:
        reserve(budget, estimate)
    return caught.value


# --- Each kind


@pytest.mark.parametrize(
    ("limits", "sent", "kind"),
    [
        ({"max_cost_usd": 1.0}, 2, "cost_usd"),
        ({"max_tokens": 120}, 3, "tokens"),
        ({"max_tokens": 100}, 2, "tokens"),
        ({"max_llm_calls": 3}, 3, "llm_calls"),
        ({"max_cost_usd": 100.0, "max_tokens": 10_000, "max_llm_calls": 1}, 1, "llm_calls"),
    ],
)
async def test_over_a_limit_the_next_call_is_denied(limits: dict[str, Any], sent: int, kind: BudgetKind) -> None:
    """Calls pass until a limit is reached; the next call never reaches the provider."""
    client = Provider()
    with budget(**limits, name="research") as spending:
        results = [await call(client) for _ in range(6)]
        await assert_denied_stream(client, kind)
    assert [is_denied(result) for result in results] == [False] * sent + [True] * (6 - sent)
    assert client.sent == sent
    assert figures(spending.spent) == (sent * 0.5, sent * 50, sent)


async def assert_denied_stream(client: Provider, kind: BudgetKind) -> None:
    """The typed error says which limit was exceeded."""
    before, denied = client.sent, stream(client)
    with pytest.raises(BudgetExceededError) as caught:
        await anext(denied)
    assert (caught.value.budget, caught.value.kind) == ("research", kind)
    assert client.sent == before


@pytest.mark.parametrize("limits", [{"max_cost_usd": 0}, {"max_tokens": 0}, {"max_llm_calls": 0}])
async def test_a_limit_of_zero_allows_nothing(limits: dict[str, Any]) -> None:
    """A limit of zero denies every call, a free one too."""
    client = FakeLLMClient(0)
    with budget(**limits) as spending:
        assert is_denied(await call(client))
    assert figures(spending.spent) == (0.0, 0, 0)


@pytest.mark.parametrize(
    ("limits", "max_tokens", "fits"),
    [
        ({"max_tokens": 111}, 100, True),
        ({"max_tokens": 110}, 100, False),
        ({"max_cost_usd": 1.11}, 100, True),
        ({"max_cost_usd": 1.10}, 100, False),
        ({"max_tokens": ESTIMATED_TOKENS}, None, True),
        ({"max_tokens": ESTIMATED_TOKENS - 1}, None, False),
    ],
)
async def test_a_call_that_may_go_over_is_denied(limits: dict[str, Any], max_tokens: int | None, fits: bool) -> None:
    """The prompt and the most output count before the call is sent."""
    client = Provider()
    with budget(**limits):
        result = await call(client, max_tokens=max_tokens)
    assert is_denied(result) is not fits
    assert client.sent == int(fits)


async def test_ten_dimes_make_a_dollar() -> None:
    """A sum of floats that is below the limit only by a rounding error has reached it."""
    client = Provider(*[LLMUsage(5, 5, 10)] * 20)
    tm.set_prices([{"model": "m", "input": 10_000, "output": 10_000}, {"model": "mini", "input": 0, "output": 20_000}])
    with budget(max_cost_usd=1.0) as spending:
        results = [await call(client, model="mini") for _ in range(12)]
    assert [is_denied(result) for result in results] == [False] * 10 + [True] * 2
    assert spending.spent.cost_usd == pytest.approx(1.0)


# --- Many at once


async def test_a_hundred_at_once_never_exceed_the_number_of_calls() -> None:
    """`max_llm_calls` is exact: of a hundred concurrent calls, that many reach the provider."""
    client = Provider(is_open=False)
    with budget(max_llm_calls=7) as spending:
        calls = [asyncio.create_task(call(client)) for _ in range(100)]
        await client.arrived.wait()
        client.gate.set()
        results = await asyncio.gather(*calls)
    assert client.sent == 7
    assert sum(map(is_denied, results)) == 93
    assert spending.spent.llm_calls == 7


@pytest.mark.parametrize(("limits", "size"), [({"max_cost_usd": 2.0}, 0.5), ({"max_tokens": 200}, 50)])
async def test_a_hundred_at_once_overshoot_by_those_in_flight_at_most(limits: dict[str, Any], size: float) -> None:
    """Replies longer than estimated overshoot by the calls in flight, and by no later call."""
    client = Provider(is_open=False)
    with budget(**limits) as spending:
        calls = [asyncio.create_task(call(client)) for _ in range(100)]
        await client.arrived.wait()
        # Nothing tells when the last of them is decided.
        while len(pending := [task for task in calls if not task.done()]) > client.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0)
        in_flight = len(pending)
        client.gate.set()
        results = await asyncio.gather(*calls)
        late = [await call(client) for _ in range(3)]
    limit = next(iter(limits.values()))
    spent = spending.spent.cost_usd if "max_cost_usd" in limits else spending.spent.tokens
    assert client.sent == in_flight == 100 - sum(map(is_denied, results))
    assert limit <= spent <= limit + in_flight * size
    assert all(map(is_denied, late))


async def test_a_hundred_at_once_that_say_how_long_they_may_get_never_overshoot() -> None:
    """Calls with `max_tokens` never exceed the limit."""
    client = Provider()
    with budget(max_tokens=500) as spending:
        await asyncio.gather(*(call(client, max_tokens=40) for _ in range(100)))
    assert 0 < spending.spent.tokens <= 500


@pytest.mark.soak
def test_threads_with_loops_of_their_own_share_a_budget() -> None:
    """A budget that is carried into threads counts exactly, whichever loop runs a call."""
    sent: list[Provider] = []

    async def twenty() -> list[dict[str, Any]]:
        client = Provider()
        sent.append(client)
        return await asyncio.gather(*(call(client) for _ in range(20)))

    with budget(max_llm_calls=50) as spending, ThreadPoolExecutor(8) as pool:
        work = [pool.submit(tm.carry_context(asyncio.run), twenty()) for _ in range(8)]
        results = [result for each in work for result in each.result()]
    assert sum(client.sent for client in sent) == 50
    assert sum(map(is_denied, results)) == 110
    assert figures(spending.spent) == (25.0, 2500, 50)


@pytest.mark.soak
def test_sums_hold_under_many_threads() -> None:
    """The sums are right after many threads reserve, settle and release at once."""
    spending = Budget(BudgetLimits(max_llm_calls=10_000), name="b")
    ready = threading.Barrier(8)

    def work() -> None:
        ready.wait()
        for number in range(300):
            held = reserve(spending, Estimate(model=f"acme/{number % 3}", tokens=7))
            if number % 2:
                held.settle(LLMUsage(2, 3, 5), assume_billed=True)
            else:
                held.release(llm_calls=1)

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(work) for _ in range(8)]:
            each.result()
    assert (spending.spent.tokens, spending.spent.llm_calls) == (6000, 1200)
    assert sum(model.tokens for model in spending.spent.by_model) == 6000
    for _ in range(10_000 - 1200):
        reserve(spending, FREE)  # nothing is held any more: there is room for every call of the limit
    assert "10000 calls" in str(denial(spending))


# --- Nested


async def test_a_call_must_be_admitted_by_every_budget_around_it() -> None:
    """An inner budget does not lift the outer limit, and the error names the budget that denied the call."""
    client = Provider()
    with budget(max_llm_calls=3, name="outer") as outer:
        await call(client)
        with budget(max_llm_calls=10, name="inner") as inner:
            results = [await call(client) for _ in range(3)]
    assert [is_denied(result) for result in results] == [False, False, True]
    assert "'outer'" in results[-1]["reason"]
    assert (outer.spent.llm_calls, inner.spent.llm_calls, client.sent) == (3, 2, 3)


async def test_what_the_outer_budget_denies_is_given_back_to_the_inner_one() -> None:
    """A denied call reserves nothing in any budget."""
    client = Provider()
    with budget(max_llm_calls=1), budget(max_llm_calls=2, name="inner") as inner:
        for _ in range(5):
            await call(client)
        held = current_budget()
    assert held is not None
    assert inner.spent.llm_calls == 1
    held.hold(FREE)  # there is room for the one call that is left


async def test_after_its_block_a_budget_holds_no_more() -> None:
    """A budget neither limits nor counts calls after its block."""
    client = Provider()
    async with budget(max_llm_calls=1) as spending:
        await call(client)
    assert current_budget() is None
    assert (await call(client))["status"] == "ok"
    assert spending.spent.llm_calls == 1


def test_a_block_left_in_another_context_does_no_harm() -> None:
    """A block that is left in another context neither raises nor changes which budget is active."""
    import contextvars

    block = budget(max_llm_calls=1)
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert current_budget() is None


def test_one_object_is_one_block_at_a_time() -> None:
    """A budget cannot be entered twice at once; entered again later, it starts from zero."""
    block = budget(max_llm_calls=1)
    with pytest.raises(RuntimeError, match="not begun"):
        _ = block.spent
    with block, pytest.raises(RuntimeError, match="in use"):
        block.__enter__()
    with block as again:
        assert again.spent.llm_calls == 0


# --- A price that is unknown


async def test_without_a_price_a_call_is_denied() -> None:
    """By default a limit in USD denies a call without a price, and the message says what to do."""
    client = Provider()
    with budget(max_cost_usd=1.0, name="research") as spending:
        result = await call(client, model="nobody-knows")
    assert client.sent == 0
    assert spending.spent.llm_calls == 0
    assert result["reason"] == (
        "budget of 'research' cannot be held: the price of acme/nobody-knows is unknown; this call was not sent. "
        "Add a price by set_prices(), or pass on_unknown_price='zero'"
    )


async def test_without_a_price_a_call_counts_as_zero_if_so_stated(caplog: pytest.LogCaptureFixture) -> None:
    """With the other policy the call is sent, counts as zero USD, is reported apart, and is warned of once a model."""
    client = Provider()
    with budget(max_cost_usd=1.0, on_unknown_price="zero", name="research") as spending:
        results = [await call(client, model=model) for model in ("unknown-1", "unknown-2", "unknown-1", "m", "m", "m")]
    assert [is_denied(result) for result in results] == [False] * 5 + [True]
    assert figures(spending.spent) == (1.0, 250, 5)
    assert spending.spent.unpriced_attempts == 3
    warned = [record.getMessage() for record in caplog.records if "counts as zero" in record.getMessage()]
    assert warned == [
        f"budget of 'research': the cost of calls to acme/unknown-{number} is unknown and counts as zero; "
        "add a price by set_prices()"
        for number in (1, 2)
    ]


async def test_unknown_prices_do_not_matter_without_a_limit_in_usd() -> None:
    """Limits in tokens and calls need no price."""
    with budget(max_tokens=60) as spending:
        result = await call(Provider(), model="nobody-knows")
    assert result["status"] == "ok"
    assert (spending.spent.tokens, spending.spent.unpriced_attempts) == (50, 1)


async def test_the_budgets_around_a_call_have_a_policy_each() -> None:
    """An inner budget that counts zero does not overrule an outer one that denies."""
    client = Provider()
    with budget(max_cost_usd=1.0, name="outer"), budget(max_cost_usd=1.0, on_unknown_price="zero"):
        result = await call(client, model="nobody-knows")
    assert "'outer'" in result["reason"]
    assert client.sent == 0


async def test_a_client_whose_replies_name_their_cost_needs_no_price() -> None:
    """The call is sent, and counts what its reply says it cost."""
    client = Provider(*[LLMUsage(20, 30, 50, 0.6)] * 3, reports_cost=True)
    with budget(max_cost_usd=1.0) as spending:
        results = [await call(client, model="nobody-knows") for _ in range(3)]
    assert [is_denied(result) for result in results] == [False, False, True]
    assert figures(spending.spent) == (1.2, 100, 2)


def test_the_clients_that_report_costs_say_so() -> None:
    """OpenRouter and Perplexity report costs, and so does the fake provider when its usage has one."""
    reporting = [tm.LLMClientFactory.make(name, api_key="k").reports_cost for name in ("openrouter", "perplexity")]
    assert reporting == [True, True]
    assert not tm.LLMClientFactory.make("groq", api_key="k").reports_cost
    assert not FakeLLMClient().reports_cost
    assert FakeLLMClient(usage=LLMUsage(1, 1, 2, 0.1)).reports_cost


async def test_a_reply_without_the_promised_cost_blinds_the_budget() -> None:
    """A limit that can no longer be enforced denies further calls, and the message names the model."""
    client = Provider(reports_cost=True)
    with budget(max_cost_usd=1.0) as spending:
        first, second = await call(client, model="nobody-knows"), await call(client)
    assert first["status"] == "ok"
    assert "the cost of a call to acme/nobody-knows stayed unknown" in second["reason"]
    assert (client.sent, spending.spent.unpriced_attempts) == (1, 1)


async def test_a_reply_without_a_cost_counts_as_what_was_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply without a cost counts what was reserved for it."""
    client = Provider()

    async def unpriced(_provider: str, _models: object, reply: LLMResponse, **_: object) -> LLMUsage:
        return reply.usage

    monkeypatch.setattr("tracemind_otel.call.accounting.price_reply", unpriced)
    with budget(max_cost_usd=1.0) as spending:
        assert (await call(client))["usage"]["cost_usd"] is None
        assert figures(spending.spent) == (ESTIMATED_USD, 50, 1)
        assert (await call(client))["status"] == "ok"


async def test_a_price_table_that_fails_is_an_unknown_price(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the price table is logged and treated as an unknown price; nothing is raised."""

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("table")

    monkeypatch.setattr("tracemind_otel.call.accounting.find_price", broken)
    client = Provider()
    with budget(max_cost_usd=1.0):
        assert is_denied(await call(client))
    assert client.sent == 0
    assert "its budgets treat the price as unknown" in caplog.text


async def test_looking_for_a_price_says_nothing_of_calls_without_cost(caplog: pytest.LogCaptureFixture) -> None:
    """The log line about calls without a cost is only for calls that were made."""
    with budget(max_cost_usd=1.0):
        await call(Provider(), model="never-called")
    assert "have no cost" not in caplog.text


# --- How a call ends


async def test_a_refusal_of_the_server_costs_nothing_and_is_a_call() -> None:
    """A call that ends in an HTTP error used no tokens, and counts as a call."""
    client = Provider(LLMServerError("HTTP 500", status_code=500))
    with budget(max_cost_usd=1.0, max_llm_calls=1) as spending:
        assert (await call(client))["error_type"] == "500"
        assert is_denied(await call(client))
    assert figures(spending.spent) == (0.0, 0, 1)


@pytest.mark.parametrize(
    "fault", [LLMConnectionError("reset"), OSError("broken"), KeyError("x")], ids=lambda fault: type(fault).__name__
)
async def test_what_broke_off_counts_as_what_was_held(fault: BaseException) -> None:
    """The provider may bill a call whose answer was lost, so it counts what was reserved: unknown is not zero."""
    with budget(max_cost_usd=1.0) as spending:
        assert (await call(Provider(fault)))["status"] == "error"
    assert figures(spending.spent) == (ESTIMATED_USD, ESTIMATED_TOKENS, 1)


async def test_what_timed_out_counts_as_what_was_held() -> None:
    """A call that timed out counts what was reserved for it."""
    with budget(max_cost_usd=2.0) as spending:
        result = await call(FakeLLMClient(0, script=["timeout"], usage=LLMUsage(1, 1, 2, 9.0)), timeout_ms=1)
        await call(Provider(is_open=False), timeout_ms=1, max_tokens=9)
    assert result["error_type"] == "timeout"
    assert figures(spending.spent) == (ESTIMATED_USD + 0.20, ESTIMATED_TOKENS + 20, 2)


async def test_what_was_cancelled_counts_as_what_was_held() -> None:
    """A cancelled call counts what was reserved for it, and ends once."""
    client = Provider(is_open=False)
    with budget(max_cost_usd=1.0) as spending:
        task = asyncio.create_task(call(client, max_tokens=9))
        await client.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert figures(spending.spent) == (0.20, 20, 1)


async def test_a_reply_without_tokens_counts_as_what_was_held() -> None:
    """A provider that reports no usage does not make its calls free."""
    with budget(max_tokens=1000) as spending:
        assert (await call(Provider(LLMUsage()), max_tokens=9))["status"] == "ok"
    assert spending.spent.tokens == 20


async def test_an_unsupported_parameter_gives_everything_back() -> None:
    """A call with an unsupported parameter is never sent, and the budget is as before."""
    with budget(max_llm_calls=1) as spending:
        with pytest.raises(ConfigError):
            await call(Provider(ConfigError("top_k: no place for it")))
        assert spending.spent.llm_calls == 0
        assert (await call(Provider()))["status"] == "ok"


async def test_retries_are_one_call() -> None:
    """A call is reserved once and settled once, however often it is retried."""
    busy = [LLMRateLimitError("slow down", status_code=429, retry_after_s=0) for _ in range(2)]
    client = Provider(*busy)
    with budget(max_llm_calls=1, max_tokens=1000) as spending:
        result = await call(client, max_retries=2)
    assert (result["status"], result["retries"], client.sent) == ("ok", 2, 3)
    assert figures(spending.spent) == (0.5, 50, 1)


async def test_a_call_that_outlives_its_block_does_no_harm(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """A call that ends after its flow is still counted, and writes to no ended span."""
    client = Provider(is_open=False)
    tracer = capture.tracer_provider.get_tracer("test")
    with caplog.at_level(logging.DEBUG), tracer.start_as_current_span("flow"), budget(max_llm_calls=1) as spending:
        task = asyncio.create_task(call(client))
        await client.arrived.wait()
    client.gate.set()
    assert (await task)["status"] == "ok"
    assert spending.spent.llm_calls == 1
    assert events(capture.span("flow"), "tracemind.budget") == []
    assert "ended span" not in caplog.text


async def test_an_attempt_that_may_be_billed_counts_too(no_waits: None) -> None:
    """A time-out may be billed as well as its retry, so both count, and the result marks the estimate."""
    client = Provider(LLMTimeoutError("too slow"), LLMRateLimitError("slow down", status_code=429, retry_after_s=0))
    with budget(max_cost_usd=5.0) as spending:
        assert (await call(client, max_tokens=9, max_retries=2))["status"] == "ok"
    spent = spending.spent
    assert figures(spent) == (0.70, 70, 1)
    assert (round(spent.presumed_cost_usd, 9), spent.presumed_tokens) == (0.20, 20)
    assert (spent.by_model[0].tokens, spent.by_model[0].llm_calls) == (70, 1)


async def test_nothing_is_repeated_beyond_the_limit(no_waits: None) -> None:
    """Thirty attempts that may each be billed cannot hide behind one call: it ends when the budget is used up."""
    client = Provider(*(LLMTimeoutError("too slow") for _ in range(30)))
    with budget(max_cost_usd=0.65) as spending:
        result = await call(client, max_tokens=9, max_retries=29)
    assert (result["error_type"], client.sent) == ("timeout", 3)
    assert figures(spending.spent) == (0.60, 60, 1)


async def test_attempts_of_unknown_price_are_not_repeated() -> None:
    """An attempt of unknown price is not retried under a limit in USD, since its cost will never be known."""
    client = Provider(LLMTimeoutError("too slow"), reports_cost=True)
    with budget(max_cost_usd=1.0) as spending:
        assert (await call(client, model="unknown", max_retries=2))["error_type"] == "timeout"
        reason = (await call(client, model="m"))["reason"]
    assert client.sent == 1
    assert "the cost of a call to acme/unknown stayed unknown" in reason
    assert "Begin a new budget" in reason
    assert spending.spent.unpriced_attempts == 1


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("fault", "figure"),
    [
        (LLMRateLimitError("slow down", status_code=429, retry_after_s=60.0), (0.0, 0, 1)),
        (LLMTimeoutError("too slow", retry_after_s=60.0), (0.20, 20, 1)),
    ],
    ids=["rejected", "timed out"],
)
async def test_cancelled_while_it_waits_to_repeat(
    fault: LLMError, figure: tuple[float, int, int], streams: bool
) -> None:
    """A call that is cancelled between attempts counts its failed attempt once at most, and not the next one."""
    waits = asyncio.Event()

    class Tells(Recorder):
        def record_step_retry(self, *_: object, **__: object) -> None:
            waits.set()

    class Broken(Provider):
        async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
            raise fault
            yield ()

    client, options = Broken(fault), cast("dict[str, Any]", {"max_tokens": 9, "max_retries": 2})
    with budget(max_cost_usd=5.0) as spending:
        work = anext(stream(client, Tells(), **options)) if streams else call(client, recorder=Tells(), **options)
        task = asyncio.ensure_future(cast("Coroutine[Any, Any, object]", work))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert figures(spending.spent) == figure


def test_two_that_repeat_at_once_do_not_share_one_place() -> None:
    """Checking and reserving are one step, in the budget and in those around it."""
    outer = Budget(BudgetLimits(max_tokens=10_000), name="outer")
    estimate = Estimate(model="acme/m", tokens=10)
    for _ in range(200):
        inner = Budget(BudgetLimits(max_tokens=30), name="inner", parent=outer)
        held, ready = [reserve(inner, estimate) for _ in range(2)], threading.Barrier(2)

        def repeat(reservation: Reservation, ready: threading.Barrier = ready) -> bool:
            ready.wait()
            return reservation.repeat()

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(repeat, held)) == [False, True]
        for each in held:
            each.release(llm_calls=1)
        assert (inner.spent.tokens, inner.spent.presumed_tokens) == (10, 10)
    assert outer.spent.tokens == 2_000
    reserve(outer, Estimate(model="acme/m", tokens=8_000))  # nothing is held any more


async def test_what_is_presumed_is_said() -> None:
    """Estimated tokens are marked where a reply has only a cost; a missing cost is marked where it has no price."""
    with budget(max_tokens=1_000) as spending:
        await call(Provider(LLMUsage(0, 0, 0, 0.25)), max_tokens=9)
        await call(Provider(LLMTimeoutError("too slow")), max_tokens=9)
    spent = spending.spent
    assert (spent.cost_usd, spent.presumed_cost_usd, spent.unpriced_attempts) == (0.25, 0.0, 1)
    assert (spent.tokens, spent.presumed_tokens) == (40, 40)


@pytest.mark.parametrize("own_transport", [False, True], ids=["aiohttp", "httpx"])
async def test_a_connection_that_was_never_made_is_free(own_transport: bool) -> None:
    """A call to a server that is down uses no tokens, and nothing of the budget."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with httpx.AsyncClient(trust_env=False) as http_client:
        client = OpenAILLMClient(
            api_key="k", base_url=f"http://127.0.0.1:{port}/v1", http_client=http_client if own_transport else None
        )
        with budget(max_cost_usd=1.0) as spending:
            cfg = tm.LLMCallConfig("openai", "gpt-4o-mini", PROMPT, max_tokens=100, max_retries=0)
            assert (await tm.run_llm_call("", "", cfg, Recorder(), client=client))["status"] == "error"
        await client.aclose()
    assert figures(spending.spent) == (0.0, 0, 1)


class Odd(Provider):
    """Returns whatever it was given."""

    def __init__(self, reply: Any) -> None:
        super().__init__()
        self.reply = reply

    async def complete(self, req: LLMRequest) -> LLMResponse:
        self.sent += 1
        if isinstance(self.reply, BaseException):
            raise self.reply
        return cast("LLMResponse", self.reply)

    async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        yield (Finish(await self.complete(req)),)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError(PROMPT)


ODD_REPLIES: dict[str, Any] = {
    "no reply": None,
    "no finish reasons": LLMResponse("x", USAGE, finish_reasons=cast("Any", None)),
    "no tool calls": LLMResponse("x", USAGE, tool_calls=cast("Any", None)),
    "foreign tool calls": LLMResponse("x", USAGE, tool_calls=cast("Any", ({"id": "1"},))),
    "no text": LLMResponse(cast("Any", None), USAGE),
    "no usage": LLMResponse("x", cast("Any", None)),
    "an error without text": LLMError(cast("Any", None)),
    "an unspeakable error": UnspeakableError(),
}


@pytest.mark.parametrize("reply", ODD_REPLIES.values(), ids=ODD_REPLIES)
async def test_an_odd_client_blocks_no_budget(capture: Captured, reply: Any) -> None:
    """However a third-party client fails, the call is an error with a span, and nothing stays reserved."""
    with budget(max_tokens=1000) as spending:
        held = current_budget()
        result = await call(Odd(reply), recorder=capture.recorder())
        with pytest.raises(LLMError):
            await anext(stream(Odd(reply), capture.recorder()))
    assert held is not None
    assert result["status"] == "error"
    assert "held" not in str(denial(held, Estimate(model="acme/m", tokens=1001)))
    assert spending.spent.llm_calls == len(capture.spans) == 2
    assert all("tracemind.cancelled" not in attributes(span) for span in capture.spans)
    assert "secret" not in str(result) + "".join(span.to_json() for span in capture.spans)


@pytest.mark.parametrize("cost", [10**400, Decimal("sNaN"), float("nan"), -1.0, "5"], ids=str)
async def test_a_cost_that_is_none_is_none(cost: Any) -> None:
    """Usage that cannot be added up counts as absent."""
    with budget(max_cost_usd=5.0) as spending:
        assert (await call(Odd(LLMResponse("x", LLMUsage(20, 30, 50, cost)))))["usage"]["cost_usd"] == 0.5
    assert figures(spending.spent) == (0.5, 50, 1)


async def test_cancelled_while_the_reply_is_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usage of the reply is known, and counts at the price of the requested model."""
    pricing = asyncio.Event()

    async def never(*_: object, **__: object) -> None:
        pricing.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("tracemind_otel.call.accounting.price_reply", never)
    for work in (
        lambda: call(Odd(LLMResponse("x", LLMUsage(200, 300, 500), response_model="other"))),
        lambda: anext(stream(Odd(LLMResponse("x", LLMUsage(200, 300, cast("Any", "500")))))),
    ):
        with budget(max_cost_usd=100.0) as spending:
            held = current_budget()
            task = asyncio.ensure_future(work())
            await pricing.wait()
            pricing.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert held is not None
        assert spending.spent.llm_calls == 1
        assert "held" not in str(denial(held, Estimate(model="acme/m", cost_usd=101.0)))
        assert spending.spent.cost_usd == pytest.approx(spending.spent.tokens / 100)
        assert spending.spent.tokens in (500, 200)


async def test_cancelled_before_it_was_sent() -> None:
    """A call that is cancelled while its price is looked up counts neither in the budget nor in the flow."""
    scope = FlowRun("flow")
    setting = enter_flow(scope)
    client = Provider()
    with budget(max_cost_usd=1.0) as spending:
        task = asyncio.create_task(call(client, model="no-such-model-yet"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    setting.undo()
    assert (client.sent, scope.totals().llm_calls, spending.spent.llm_calls) == (0, 0, 0)


async def test_a_price_is_found_while_every_thread_of_the_loop_waits_for_the_call() -> None:
    """Pricing needs none of the loop's worker threads, in which tools may wait for a model call."""
    loop, all_in = asyncio.get_running_loop(), threading.Barrier(2)
    loop.set_default_executor(ThreadPoolExecutor(2))

    def tool(number: int) -> dict[str, Any]:
        all_in.wait(30)
        made = call(Provider(LLMUsage(20, 30, 50, 0.1), reports_cost=True), model=f"never-looked-for-{number}")
        return asyncio.run_coroutine_threadsafe(made, loop).result(30)

    with budget(max_cost_usd=1.0) as spending:
        results = await asyncio.gather(*(asyncio.to_thread(tool, number) for number in range(2)))
    assert [result["status"] for result in results] == ["ok", "ok"]
    assert spending.spent.llm_calls == 2


async def test_the_deadline_holds_for_the_price_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call whose deadline passes during pricing ends in time, and is not counted."""

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("tracemind_otel.call.accounting.find_price", never)
    client = Provider()
    with budget(max_cost_usd=1.0) as spending:
        result = await call(client, deadline_ms=10)
    assert (result["error_type"], client.sent, spending.spent.llm_calls) == ("timeout", 0, 0)


# --- Streams


async def test_a_stream_that_names_its_cost_alone() -> None:
    """A stream with only a cost counts estimated tokens, and the cost that it names."""
    reply = LLMResponse("four characters a token", LLMUsage(0, 0, 0, 0.25))
    with budget(max_cost_usd=1.0) as spending:
        async for _ in stream(Odd(reply)):
            pass
    assert (spending.spent.cost_usd, spending.spent.tokens) == (0.25, 17)


async def test_a_provider_of_any_spelling_has_its_price() -> None:
    """A stream that is closed early is priced as a whole reply is."""
    client = Provider()
    client.provider_name = "Acme"
    with budget(max_cost_usd=1.0) as spending:
        async with stream(client) as events:
            await anext(events)
            await events.aclose()
    assert figures(spending.spent) == (0.15, 15, 1)


async def test_a_stream_counts_as_its_last_event_says() -> None:
    """A stream that is read to its end counts like any call."""
    with budget(max_cost_usd=1.0) as spending:
        async for event in stream(Provider()):
            assert spending.spent.llm_calls == isinstance(event, Finish)
    assert figures(spending.spent) == (0.5, 50, 1)


async def test_a_denied_stream_raises_from_its_first_event(capture: Captured) -> None:
    """Nothing is sent, and `result` has what `run_llm_call` would have returned."""
    client, denied = Provider(), stream(Provider(), capture.recorder())
    with budget(max_llm_calls=0), pytest.raises(BudgetExceededError):
        await anext(denied)
    assert denied.result is not None
    assert is_denied(denied.result)
    assert [event async for event in denied] == []
    assert (client.sent, len(capture.spans)) == (0, 1)


async def test_a_stream_closed_early_counts_as_what_came() -> None:
    """What was read before the close is estimated, priced and settled once."""
    with budget(max_cost_usd=1.0) as spending:
        async with stream(Provider(), max_tokens=50) as events:
            await anext(events)
            await events.aclose()
    assert figures(spending.spent) == (0.15, 15, 1)


async def test_a_stream_closed_before_anything_came_counts_as_what_was_held() -> None:
    """A stream that is closed before its first event counts what was reserved, since its usage is unknown."""
    client = Provider(is_open=False)
    with budget(max_cost_usd=1.0) as spending:
        opened = stream(client, max_tokens=9)
        reader = asyncio.ensure_future(anext(opened))
        await client.arrived.wait()
        await opened.aclose()
        with pytest.raises(StopAsyncIteration):
            await reader
    assert figures(spending.spent) == (0.20, 20, 1)


@pytest.mark.soak
async def test_a_stream_dropped_unread_counts_as_what_came() -> None:
    """The event loop settles a stream that nobody closes."""
    with budget(max_tokens=1000) as spending:
        dropped = stream(Provider())
        await anext(dropped)
        with pytest.warns(ResourceWarning):
            del dropped
            gc.collect()
        await asyncio.sleep(0)
        assert (spending.spent.tokens, spending.spent.llm_calls) == (15, 1)


@pytest.mark.soak
async def test_a_cancelled_stream_counts_as_what_came() -> None:
    """A stream whose reader is cancelled counts what was read."""

    class Hangs(Provider):
        async def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
            yield (TextDelta("four characters "),)
            self.arrived.set()
            await asyncio.Event().wait()

    client = Hangs()
    with budget(max_tokens=1000) as spending:
        opened = stream(client)
        await anext(opened)
        reader = asyncio.ensure_future(anext(opened))
        await client.arrived.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    assert (spending.spent.tokens, spending.spent.llm_calls) == (15, 1)


# --- Thresholds


def told(limits: BudgetLimits, *costs: tuple[float, int]) -> list[BudgetThreshold]:
    """The thresholds that a budget reports for calls with these costs and tokens."""
    found: list[BudgetThreshold] = []
    spending = Budget(limits, name="b", on_threshold=found.append)
    for cost_usd, tokens in costs:
        spending.hold(FREE)
        settle(spending, FREE, cost_usd, tokens)
    return found


def test_each_threshold_is_told_once_and_in_order() -> None:
    """A budget reports 50, 80 and 100 % once each and in order, those that one call skips included."""
    found = told(BudgetLimits(max_cost_usd=1.0), (0.4, 0), (0.1, 0), (0.1, 0), (0.35, 0), (0.6, 0))
    assert [(each.kind, each.limit, each.fraction) for each in found] == [("cost_usd", 1.0, f) for f in THRESHOLDS]
    assert [each.spent for each in found] == pytest.approx([0.5, 0.95, 1.55])
    assert [each.fraction for each in told(BudgetLimits(max_cost_usd=1.0), (2.0, 0))] == list(THRESHOLDS)


def test_each_kind_has_its_thresholds() -> None:
    """A budget with several limits reports the thresholds of each."""
    limits = BudgetLimits(max_cost_usd=10.0, max_tokens=100, max_llm_calls=2)
    found = told(limits, (0.1, 80), (0.1, 0))
    assert [(each.kind, each.fraction) for each in found] == [
        ("tokens", 0.5),
        ("tokens", 0.8),
        ("llm_calls", 0.5),
        ("llm_calls", 0.8),
        ("llm_calls", 1.0),
    ]


async def test_the_thresholds_are_events_of_the_span_around_the_block(capture: Captured) -> None:
    """The thresholds are events of the span in which the block began, and of no other span."""
    client, tracer = Provider(), capture.tracer_provider.get_tracer("test")
    limited = budget(max_cost_usd=1.0, max_llm_calls=100)
    with tracer.start_as_current_span("outside"), limited, tracer.start_as_current_span("inside"):
        await asyncio.gather(call(client, recorder=capture.recorder()), call(client, recorder=capture.recorder()))
    found = events(capture.span("outside"), "tracemind.budget")
    assert [dict(event) for event in found] == [
        {
            "tracemind.budget.name": "budget",
            "tracemind.budget.kind": "cost_usd",
            "tracemind.budget.limit": 1.0,
            "tracemind.budget.spent": spent,
            "tracemind.budget.fraction": fraction,
        }
        for spent, fraction in ((0.5, 0.5), (1.0, 0.8), (1.0, 1.0))
    ]
    assert sum(len(events(span, "tracemind.budget")) for span in capture.spans) == 3


async def test_the_figures_of_an_event_are_floats_whatever_is_limited(capture: Captured) -> None:
    """The figures of all threshold events are floats, so that a backend's field keeps one type."""
    with capture.tracer_provider.get_tracer("test").start_as_current_span("flow"), budget(max_llm_calls=1):
        await call(Provider())
    for event in events(capture.span("flow"), "tracemind.budget"):
        assert {type(event[f"tracemind.budget.{name}"]) for name in ("limit", "spent", "fraction")} == {float}


async def test_without_a_span_thresholds_are_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Without telemetry the budget still holds, and the log says once when it is used up."""
    with budget(max_llm_calls=2, name="research"):
        for _ in range(4):
            await call(Provider())
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("tracemind_otel.flows.budget")]
    assert lines == ["budget of 'research': the limit of 2 calls is spent"]


def test_a_callback_that_raises_does_no_harm(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An error in a callback is logged; the call and later thresholds are unaffected."""
    found: list[float] = []

    def fail(threshold: BudgetThreshold) -> None:
        found.append(threshold.fraction)
        raise RuntimeError("mine")

    spending = Budget(BudgetLimits(max_llm_calls=1), name="b", on_threshold=fail)
    reserve(spending, FREE).settle(USAGE, assume_billed=True)
    assert found == [0.5, 0.8, 1.0]
    assert "on_threshold" in caplog.text


def test_a_meter_that_raises_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """An error in a meter is logged, and the call is settled in this budget and in the one around it."""

    def fail(kind: str, spent: float) -> None:
        raise RuntimeError("mine")

    outer = Budget(BudgetLimits(max_llm_calls=9), name="outer", on_spent=fail)
    inner = Budget(BudgetLimits(max_llm_calls=9), name="inner", parent=outer, on_spent=fail)
    reserve(inner, FREE).settle(USAGE, assume_billed=True)
    assert (inner.spent.llm_calls, outer.spent.llm_calls) == (1, 1)
    assert "Budget.on_spent failed" in caplog.text


def test_a_callback_is_called_outside_the_lock() -> None:
    """Another thread can use the budget during a callback."""
    spending = Budget(BudgetLimits(max_llm_calls=1), name="b", on_threshold=lambda _: look())
    found: list[BudgetSpent] = []

    def look() -> None:
        other = threading.Thread(target=lambda: found.append(spending.spent))
        other.start()
        other.join(timeout=30)

    reserve(spending, FREE).settle(USAGE, assume_billed=True)
    assert [each.llm_calls for each in found] == [1, 1, 1]


def test_the_order_holds_while_a_callback_still_runs() -> None:
    """Thresholds are reported in order, though a call ends during a slow callback."""
    found: list[float] = []
    begun, goes_on = threading.Event(), threading.Event()

    def slow(threshold: BudgetThreshold) -> None:
        begun.set()
        goes_on.wait(30)
        found.append(threshold.fraction)

    spending = Budget(BudgetLimits(max_llm_calls=2), name="b", on_threshold=slow)
    first, second = reserve(spending, FREE), reserve(spending, FREE)
    telling = threading.Thread(target=first.settle, args=(USAGE,), kwargs={"assume_billed": True})
    telling.start()
    begun.wait(30)
    second.settle(USAGE, assume_billed=True)
    assert found == []
    goes_on.set()
    telling.join(30)
    assert found == [0.5, 0.8, 1.0]


# --- What the error says


def spend(spending: Budget, model: str, cost_usd: float, tokens: int = 10, times: int = 1) -> None:
    for _ in range(times):
        estimate = Estimate(model=model, cost_usd=0.0)
        spending.hold(estimate)
        settle(spending, estimate, cost_usd, tokens)


def test_the_message_says_what_was_spent_on_what() -> None:
    """The message names models, amounts, calls and the fix; the error has the exact figures."""
    spending = Budget(BudgetLimits(max_cost_usd=1.0), name="research")
    spend(spending, "openai/gpt-4o", 0.09, times=10)
    spend(spending, "openai/gpt-4o-mini", 0.05, times=2)
    error = denial(spending)
    assert str(error) == (
        "budget of 'research' is spent: 1.00 of 1.00 USD spent in 12 calls (openai/gpt-4o 0.90 USD in 10 calls, "
        "openai/gpt-4o-mini 0.10 USD in 2 calls); this call was not sent. Raise max_cost_usd, or stop here"
    )
    assert (error.budget, error.kind, error.limit) == ("research", "cost_usd", 1.0)
    assert list(error.spent_on) == ["openai/gpt-4o", "openai/gpt-4o-mini"]
    assert list(error.spent_on.values()) == pytest.approx([0.9, 0.1])
    assert error.spent == pytest.approx(1.0)
    assert not error.retryable


def test_the_message_says_what_is_held_and_what_was_asked_for() -> None:
    """The message tells a budget that is too small for this call from one that is used up."""
    spending = Budget(BudgetLimits(max_tokens=3_000_000), name="research")
    spend(spending, "acme/m", 0.0, 1)
    reserve(spending, Estimate(model="acme/m", tokens=1_500_000))
    assert str(denial(spending, Estimate(model="acme/m", tokens=1_600_000))) == (
        "budget of 'research' has too little left for this call: 1 of 3000000 tokens spent in 1 call "
        "(acme/m 1 token in 1 call), 1500000 tokens held for calls in flight, 1600000 tokens requested; "
        "this call was not sent. Raise max_tokens, or request less"
    )


def test_the_message_of_a_budget_of_calls() -> None:
    """The message of a limit in calls does not repeat the number of calls for each model."""
    spending = Budget(BudgetLimits(max_llm_calls=2), name="research")
    spend(spending, "acme/m", 0.0)
    reserve(spending, FREE)
    assert str(denial(spending)) == (
        "budget of 'research' has too little left for this call: 1 of 2 calls spent (acme/m 1 call), "
        "1 call held for calls in flight; this call was not sent. Raise max_llm_calls, or stop here"
    )


def test_the_message_names_the_five_dearest_models() -> None:
    """The message names five models and how many more there are; the figures have them all, the dearest first."""
    spending = Budget(BudgetLimits(max_cost_usd=1e-6), name="b")
    for number in range(8):
        settle(spending, FREE, 0.0, 0)
        settle(spending, Estimate(model=f"acme/{number}"), number * 1e-7, 5)
    message = str(denial(spending))
    assert "(acme/7 7e-07 USD in 1 call, acme/6 6e-07 USD in 1 call, " in message
    assert "acme/3 3e-07 USD in 1 call, and 4 more)" in message
    assert spending.spent.by_model[0] == ModelSpending("acme/7", 7e-7, 5, 1)
    assert len(spending.spent.by_model) == 9


async def test_no_message_has_the_prompt(caplog: pytest.LogCaptureFixture, capture: Captured) -> None:
    """The prompt of a denied call is in no error, log line or span."""
    with caplog.at_level(logging.DEBUG), budget(max_cost_usd=0.3):
        results = [await call(Provider(), recorder=capture.recorder()) for _ in range(2)]
    assert is_denied(results[1])
    assert "secret" not in str(results[1]) + caplog.text + capture.spans[1].to_json()


# --- What telemetry says of a denied call


async def test_a_denied_call_has_its_span(capture: Captured) -> None:
    """A denied call has a span with an error, its reason, no usage and no retries."""
    with budget(max_llm_calls=0):
        result = await call(Provider(), recorder=capture.recorder(), max_retries=3)
    span = capture.span("chat m")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == result["reason"]
    assert attributes(span)["error.type"] == "budget_exceeded"
    assert attributes(span)["tracemind.retry.count"] == 0
    assert not [name for name in attributes(span) if "usage" in name or "cost" in name]
    assert capture.total("tracemind.llm.cost") == 0
    assert capture.points("tracemind.llm.unpriced_calls") == []


async def test_a_denied_call_does_not_count_in_the_flow() -> None:
    """A flow's sums cover only calls that were made."""
    scope = FlowRun("flow")
    setting = enter_flow(scope)
    try:
        with budget(max_llm_calls=1):
            for _ in range(3):
                await call(Provider())
            with pytest.raises(BudgetExceededError):
                await anext(stream(Provider()))
    finally:
        setting.undo()
    assert (scope.totals().llm_calls, scope.totals().input_tokens) == (1, 20)


async def test_the_result_of_a_denied_call_is_plain() -> None:
    """A denied call returns its failure and figures, and the recorder gets the typed error."""
    recorder = InMemoryRecorder()
    with budget(max_tokens=50, name="research"):
        await call(Provider())
        result = await call(Provider(), recorder=recorder)
    assert (result["status"], result["error_type"], result["retryable"]) == ("error", "budget_exceeded", False)
    assert result["budget"] == {
        "name": "research",
        "kind": "tokens",
        "limit": 50,
        "spent": 50,
        "spent_on": {"acme/m": 50},
    }
    assert json.loads(json.dumps(result)) == result
    end = recorder.steps[0].end
    assert end is not None
    assert isinstance(end.error, BudgetExceededError)
    assert isinstance(end.error, LLMError)


# --- Mistakes of the caller


@pytest.mark.parametrize("field", ["max_cost_usd", "max_tokens", "max_llm_calls"])
@pytest.mark.parametrize("value", [-1, True, "1", float("nan"), float("inf"), -0.5, 10**400])
def test_a_limit_must_be_a_number_of_zero_or_more(field: str, value: object) -> None:
    """The message names the field, its value and what is allowed."""
    with pytest.raises(ConfigError, match=rf"{field} is .*it must be a (whole )?number of zero or more"):
        budget(**{field: cast("Any", value)})


@pytest.mark.parametrize("field", ["max_tokens", "max_llm_calls"])
def test_tokens_and_calls_are_whole(field: str) -> None:
    """Limits of tokens and calls are integers."""
    with pytest.raises(ConfigError, match=f"{field} is 1.5; it must be a whole number"):
        checked_limits(**{field: cast("Any", 1.5)})


def test_the_policy_is_one_of_two() -> None:
    """An unknown policy is rejected with a ConfigError, even without a limit in USD."""
    with pytest.raises(ConfigError, match="on_unknown_price is 'ignore'; it must be 'refuse' or 'zero'"):
        budget(max_llm_calls=1, on_unknown_price=cast("Any", "ignore"))


def test_a_block_that_limits_nothing_is_a_mistake() -> None:
    """`budget()` without a limit is rejected with a ConfigError; a decorator without limits has no budget."""
    with pytest.raises(ConfigError, match="pass max_cost_usd, max_tokens or max_llm_calls"):
        budget(on_unknown_price="zero")
    assert checked_limits(on_unknown_price="zero") is None
    assert checked_limits(max_llm_calls=0) == BudgetLimits(max_llm_calls=0)


# --- Against a real server


async def test_a_denied_call_never_reaches_the_server(openai_server: OpenAIServer) -> None:
    """Of a hundred concurrent calls, the server gets only those that the budget admits."""
    model = openai_server.script({"do": "echo"})
    tm.set_prices([{"model": model, "input": 1, "output": 1}])
    client = OpenAILLMClient(api_key="sk-test", base_url=openai_server.base_url)
    cfg = tm.LLMCallConfig("openai", model, "hi", max_retries=0)
    try:
        with budget(max_llm_calls=5, max_cost_usd=1.0) as spending:
            results = await asyncio.gather(
                *(tm.run_llm_call("f", "s", cfg, Recorder(), client=client) for _ in range(100))
            )
    finally:
        await client.aclose()
    assert len(openai_server.requests(model)) == 5
    assert sum(map(is_denied, results)) == 95
    assert (spending.spent.tokens, spending.spent.llm_calls) == (6000, 5)


# --- By the decorator


async def test_a_flow_has_a_budget(capture: Captured) -> None:
    """`@flow(max_llm_calls=...)` limits each run; the denied call is an event of the span and not in its sums."""
    client = Provider()

    @tm.flow(name="research", max_llm_calls=2)
    async def research() -> list[dict[str, Any]]:
        return [await call(client, recorder=capture.recorder()) for _ in range(3)]

    results = await research()
    span = capture.span("invoke_workflow research")
    assert "budget of 'research' is spent" in results[2]["reason"]
    assert attributes(span)["tracemind.flow.llm_calls"] == 2
    assert [event["tracemind.budget.fraction"] for event in events(span, "tracemind.budget")] == list(THRESHOLDS)
    assert not is_denied((await research())[0])
