"""What a call costs: the table, its boundaries, the user's own prices, and unknown prices."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, Provider
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Captured, UseSnapshot
from tracemind_otel.ai.llm import pricing
from tracemind_otel.ai.llm.pricing import (
    Price,
    estimate_cost,
    load_prices,
    price_reply,
    set_prices,
)
from tracemind_otel.ai.llm.pricing.price_table import PriceTable
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.ai.llm.types import LLMResponse, LLMUsage
from tracemind_otel.errors import ConfigError
from tracemind_otel.runtime.recorder import Recorder
from tracemind_otel.steps.ai_llm_call import LLMCallConfig, run_llm_call

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MILLION = 1_000_000


def usage_of(prompt: int, completion: int = 0, **parts: Any) -> LLMUsage:
    return LLMUsage(prompt, completion, prompt + completion, **parts)


async def cost_of(
    provider: str, model: str, usage: LLMUsage, *, at: datetime = NOON, service_tier: str | None = None
) -> float | None:
    reply = LLMResponse("", usage, service_tier=service_tier)
    return (await price_reply(provider, [model], reply, at=at)).cost_usd


async def outcome(provider: str, models: list[str], usage: LLMUsage) -> tuple[float | None, str | None]:
    priced = await price_reply(provider, models, LLMResponse("", usage), at=NOON)
    return priced.cost_usd, priced.cost_source


# --- The table ---


@pytest.mark.parametrize(
    ("provider", "model", "prompt", "completion", "expected"),
    [
        ("openai", "gpt-4o-mini", 1_000, 500, 0.00045),
        ("openai", "gpt-4o-mini", MILLION, MILLION, 0.75),
        ("openai", "gpt-4o", MILLION, MILLION, 12.50),
        ("openai", "gpt-3.5-turbo", MILLION, MILLION, 2.00),
        ("OpenAI", "gpt-4o-mini", 1_000, 500, 0.00045),
        ("openai_responses", "gpt-4o-mini", 1_000, 500, 0.00045),
        ("azure_openai", "gpt-4o-mini", 1_000, 500, 0.00045),
        ("openai", "gpt-4o-mini-2024-07-18", 1_000, 500, 0.00045),
        ("openai", "gpt-4o-mini", 0, 0, 0.0),
        ("fake", "anything", 1_000, 500, 0.0),
        ("local", "anything", 1_000, 500, 0.0),
        ("openai", "no-such-model", 1_000, 500, None),
        ("no-such-provider", "gpt-4o-mini", 1_000, 500, None),
        ("openai", "", 1_000, 500, None),
        ("", "gpt-4o-mini", 1_000, 500, None),
    ],
)
def test_estimate_cost(provider: str, model: str, prompt: int, completion: int, expected: float | None) -> None:
    """The price lists' figures per million tokens are right; an unknown price is `None`, not zero."""
    assert estimate_cost(provider, model, prompt, completion) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        ("gpt-4o-mini", usage_of(1_000, 100, cache_read_tokens=800), 0.00015),
        ("gpt-4o-mini", usage_of(1_000, 100, cache_read_tokens=0), 0.00021),
        ("gpt-4o-mini", usage_of(1_000, 100, cache_read_tokens=5_000), 0.000135),
        ("gpt-4o-mini", usage_of(1_000, 100, cache_read_tokens=-5), 0.00021),
        ("gpt-4o-mini", usage_of(1_000, 100, cache_write_tokens=900), 0.00021),
        ("gpt-4o-mini", usage_of(1_000, 100, reasoning_tokens=90), 0.00021),
        ("gpt-4o-mini", usage_of(-1_000, 100), None),
    ],
)
async def test_parts_of_the_input(model: str, usage: LLMUsage, expected: float) -> None:
    """Cached tokens have their own rate and count once; a part never exceeds its whole, and no whole is negative."""
    assert await cost_of("openai", model, usage) == pytest.approx(expected)


async def test_cache_writes_have_their_own_rate() -> None:
    """Anthropic's cache writes cost more than plain input, and its reads less."""
    usage = usage_of(10_000, 1_000, cache_read_tokens=6_000, cache_write_tokens=3_000)
    expected = (1_000 * 1.0 + 6_000 * 0.10 + 3_000 * 1.25 + 1_000 * 5.0) / MILLION
    assert await cost_of("anthropic", "claude-haiku-4-5", usage) == pytest.approx(expected)


async def test_a_rate_that_is_missing_makes_the_cost_unknown() -> None:
    """An embedding model has no rate for output, so output tokens have an unknown cost."""
    assert await cost_of("openai", "text-embedding-3-small", usage_of(MILLION)) == pytest.approx(0.02)
    assert await cost_of("openai", "text-embedding-3-small", usage_of(MILLION, 1)) is None


@pytest.mark.parametrize("usage", [LLMUsage(), LLMUsage(cache_read_tokens=5)])
async def test_no_usage_is_no_cost(usage: LLMUsage) -> None:
    """A reply without tokens has an unknown cost, not a cost of zero."""
    assert await cost_of("openai", "gpt-4o-mini", usage) is None


# --- Prices that vary ---


async def test_a_price_by_prompt_size_on_both_sides_of_its_boundary() -> None:
    """The lower tier ends at 200,000 prompt tokens; with one more, the upper tier holds for all of them."""
    lower = (200_000 * 1.25 + 1_000 * 10) / MILLION
    upper = (200_001 * 2.50 + 1_000 * 15) / MILLION
    for prompt, expected in [(200_000, lower), (200_001, upper), (200_000, lower), (200_001, upper)]:
        assert await cost_of("gemini", "gemini-2.5-pro", usage_of(prompt, 1_000)) == pytest.approx(expected)


async def test_a_tier_holds_for_cached_tokens_too() -> None:
    """The whole prompt, its cached part included, chooses the tier."""
    usage = usage_of(200_001, 1_000, cache_read_tokens=200_000)
    expected = (1 * 2.50 + 200_000 * 0.25 + 1_000 * 15) / MILLION
    assert await cost_of("gemini", "gemini-2.5-pro", usage) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("model", "off_peak", "peak"), [("deepseek-chat", 0.685, 1.37), ("deepseek-reasoner", 0.685, 2.74)]
)
async def test_a_price_by_time_of_day_on_both_sides_of_its_boundaries(model: str, off_peak: float, peak: float) -> None:
    """The UTC time of each call decides its price."""
    clock = [("00:29", off_peak), ("00:30", peak), ("16:29", peak), ("16:30", off_peak), ("00:30", peak)]
    for time, expected in clock:
        at = datetime.fromisoformat(f"2026-11-22T{time}:00+00:00")
        assert await cost_of("deepseek", model, usage_of(MILLION, MILLION), at=at) == pytest.approx(expected), time


async def test_the_time_zone_of_the_caller_does_not_matter() -> None:
    """A call at 00:45 in Berlin is at 23:45 UTC, which is off-peak."""
    at = datetime.fromisoformat("2026-11-23T00:45:00+01:00")
    assert await cost_of("deepseek", "deepseek-chat", usage_of(MILLION, MILLION), at=at) == pytest.approx(0.685)


@pytest.mark.parametrize("tier", [None, "default", "flex", "priority", "no-such-tier"])
async def test_a_service_tier_changes_the_price(tier: str | None) -> None:
    """The tier that served the call is priced as in genai-prices; an unknown tier is the standard one."""
    usage = usage_of(10_000, 2_000, cache_read_tokens=4_000)
    theirs = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=10_000, cache_read_tokens=4_000, output_tokens=2_000),
        "gpt-5-mini",
        provider_id="openai",
        genai_request_timestamp=NOON,
        price_context={"service_tier": tier} if tier else None,
    )
    assert await cost_of("openai", "gpt-5-mini", usage, service_tier=tier) == float(theirs.total_price)


async def test_service_tiers_differ() -> None:
    """Flex is cheaper than standard, and priority more expensive."""
    costs = [
        await cost_of("openai", "gpt-5-mini", usage_of(MILLION, MILLION), service_tier=tier)
        for tier in ("flex", None, "priority")
    ]
    assert costs == [pytest.approx(1.125), pytest.approx(2.25), pytest.approx(4.05)]


@pytest.mark.parametrize("model", ["sonar", "sonar-pro", "sonar-deep-research"])
async def test_a_price_with_parts_that_tokens_do_not_show(model: str) -> None:
    """Perplexity charges for requests and reasoning, so its cost is right or unknown, never too low."""
    theirs = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=1_000, output_tokens=500, output_reasoning_tokens=0),
        model,
        provider_id="perplexity",
        genai_request_timestamp=NOON,
    )
    cost = await cost_of("perplexity", model, usage_of(1_000, 500, reasoning_tokens=0))
    assert cost is None or cost == pytest.approx(float(theirs.total_price))


# --- Agreement with genai-prices ---

COMMON_PROVIDERS = ("openai", "anthropic", "google", "mistral", "deepseek", "groq", "x-ai", "cohere", "moonshotai")
RATES = frozenset({"input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok"})


@cache
def chat_models() -> list[tuple[Provider, ModelInfo]]:
    """Common providers' models that are priced only by input, output and cache."""
    return [
        (provider, model)
        for provider in data_snapshot.get_snapshot().providers
        if provider.id in COMMON_PROVIDERS
        for model in provider.models
        if _is_chat_model(model) and _is_found_by_its_name(provider, model)
    ]


def _is_chat_model(model: ModelInfo) -> bool:
    return bool(model.prices) and all(
        {"input_mtok", "output_mtok"} <= _rates(model, at) <= RATES for at in (NOON, NOON + timedelta(hours=12))
    )


def _rates(model: ModelInfo, at: datetime) -> set[str]:
    return {name for name, rate in model.get_prices(at).__dict__.items() if rate is not None}


def _is_found_by_its_name(provider: Provider, model: ModelInfo) -> bool:
    try:
        return data_snapshot.get_snapshot().find_provider_model(model.id, None, provider.id, None)[1] is model
    except LookupError:
        return False


@st.composite
def calls(draw: st.DrawFn) -> tuple[Provider, ModelInfo, LLMUsage, datetime]:
    """A model, token counts that a provider could report for it, and a time."""
    provider, model = draw(st.sampled_from(chat_models()))
    at = NOON + timedelta(minutes=draw(st.integers(0, 24 * 60)))
    rates = _rates(model, at)
    prompt = draw(st.integers(0, 2 * MILLION))
    read = draw(st.integers(0, prompt)) if "cache_read_mtok" in rates else 0
    write = draw(st.integers(0, prompt - read)) if "cache_write_mtok" in rates else 0
    completion = draw(st.integers(0 if prompt else 1, MILLION))
    return provider, model, usage_of(prompt, completion, cache_read_tokens=read, cache_write_tokens=write), at


def test_many_models_are_compared() -> None:
    """The comparison below covers much of the table, with tiers and times of day."""
    models = chat_models()
    assert len(models) > 100
    assert {provider.id for provider, _ in models} == set(COMMON_PROVIDERS)
    assert any(isinstance(model.prices, list) for _, model in models)
    assert any("TieredPrices" in repr(model.prices) for _, model in models)


@settings(max_examples=300, deadline=None)
@given(call=calls())
def test_our_cost_is_theirs(call: tuple[Provider, ModelInfo, LLMUsage, datetime]) -> None:
    """For any model and valid counts, the cost is the one of genai-prices."""
    provider, model, usage, at = call
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.completion_tokens,
        ),
        model.id,
        provider_id=provider.id,
        genai_request_timestamp=at,
    )
    assert asyncio.run(cost_of(provider.id, model.id, usage, at=at)) == float(theirs.total_price)


counts = st.integers(-10, 3 * MILLION)


@settings(max_examples=300, deadline=None)
@given(
    model=st.deferred(lambda: st.sampled_from(chat_models())),
    usage=st.builds(
        LLMUsage, counts, counts, counts, cache_read_tokens=st.none() | counts, cache_write_tokens=st.none() | counts
    ),
)
def test_no_report_of_tokens_breaks_a_cost(model: tuple[Provider, ModelInfo], usage: LLMUsage) -> None:
    """Whatever counts a provider reports, a cost is never negative."""
    cost = asyncio.run(cost_of(model[0].id, model[1].id, usage))
    assert cost is None or cost >= 0.0


# --- The user's own prices ---

TOML = """
[[price]]
model = "gpt-4o-mini"
provider = "openai"
input = 1.5
output = 6
cache_read = 0.5
effective_from = 2026-01-01

[[price]]
model = "house-model"
input = 2
output = 4
"""


def row(**values: Any) -> dict[str, Any]:
    return {"model": "m", "input": 1, "output": 2, **values}


async def test_a_row_wins_over_the_table() -> None:
    """A user's price replaces the table's, and the result names it as the source."""
    set_prices([row(model="gpt-4o-mini", input=10, output=20)])
    assert await outcome("openai", ["gpt-4o-mini"], usage_of(MILLION, MILLION)) == (30.0, "override")
    assert estimate_cost("openai", "gpt-4o-mini", MILLION, MILLION) == 30.0


async def test_a_toml_file(tmp_path: Path) -> None:
    """Prices from a file, given as a path or a string, hold from the next call on."""
    path = tmp_path / "prices.toml"
    path.write_text(TOML)
    for source in (path, str(path)):
        set_prices(source)
        usage = usage_of(1_000, 100, cache_read_tokens=800)
        assert await cost_of("openai", "gpt-4o-mini", usage) == pytest.approx((200 * 1.5 + 800 * 0.5 + 600) / MILLION)
        assert await cost_of("anything", "house-model", usage) == pytest.approx((1_000 * 2 + 400) / MILLION)
        set_prices([])
    assert await cost_of("openai", "gpt-4o-mini", usage_of(1_000, 500)) == pytest.approx(0.00045)


@pytest.mark.parametrize(
    ("day", "expected"), [("2025-12-31", 1.0), ("2026-01-01", 2.0), ("2026-06-30", 2.0), ("2026-07-01", 3.0)]
)
async def test_the_price_of_the_day(day: str, expected: float) -> None:
    """The newest price in force holds."""
    set_prices(
        [
            row(input=2, effective_from="2026-01-01"),
            row(input=3, effective_from=date(2026, 7, 1)),
            row(input=1),
        ]
    )
    at = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    assert await cost_of("p", "m", usage_of(MILLION), at=at) == expected


async def test_a_price_that_is_not_yet_in_force_leaves_the_table() -> None:
    """A price with a later start changes nothing before."""
    set_prices([row(model="gpt-4o-mini", effective_from="2027-01-01")])
    assert await cost_of("openai", "gpt-4o-mini", usage_of(1_000, 500)) == pytest.approx(0.00045)


async def test_a_providers_own_price_wins() -> None:
    """A price for this provider wins over a general one, even a newer one; other providers get the general one."""
    set_prices([row(input=5, effective_from="2026-06-01"), row(input=7, provider="mine", effective_from="2020-01-01")])
    assert await cost_of("mine", "m", usage_of(MILLION)) == 7.0
    assert await cost_of("other", "m", usage_of(MILLION)) == 5.0


@pytest.mark.parametrize("provider", ["openai", "OpenAI", " openai "])
async def test_the_spelling_of_a_provider_does_not_matter(provider: str) -> None:
    """Case and spaces of a provider's name do not count in a user's prices."""
    set_prices([row(provider=provider)])
    assert await cost_of("openai", "m", usage_of(MILLION, MILLION)) == 3.0


async def test_an_override_of_either_name_wins_over_the_table() -> None:
    """A user's price for the requested model wins over the table's for the model that answered."""
    set_prices([row(model="my-alias")])
    models = ["gpt-4o-mini-2024-07-18", "my-alias"]
    assert await outcome("openai", models, usage_of(MILLION, MILLION)) == (3.0, "override")


async def test_the_model_that_answered_comes_first() -> None:
    """Without prices of the user, the first name with a price decides, and later names are fallbacks."""
    usage = usage_of(MILLION, MILLION)
    assert await outcome("openai", ["gpt-4o", "gpt-4o-mini"], usage) == (12.5, "local")
    assert await outcome("openai", ["no-such-model", "gpt-4o-mini"], usage) == (0.75, "local")


async def test_a_price_of_zero_is_known() -> None:
    """Zero is a known price, as for a self-hosted model."""
    set_prices([row(model="house", input=0, output=0)])
    assert await outcome("ollama", ["house"], usage_of(5, 5)) == (0.0, "override")


def test_rates_are_exact() -> None:
    """A rate is taken as it is written, so that sums do not drift."""
    assert Price.from_mapping(row(input=0.1)).input == Decimal("0.1")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (row(modle="x"), "'modle'"),
        (row(model=""), "'model'"),
        ({"input": 1, "output": 2}, "'model'"),
        (row(model=5), "'model' is 5"),
        ({"model": "m", "input": 1}, "'output'"),
        ({"model": "m", "output": 1}, "'input'"),
        (row(input="1"), "'input' is '1'"),
        (row(input=True), "'input' is True"),
        (row(output=-1), "'output' is -1"),
        (row(output=float("nan")), "'output' is nan"),
        (row(cache_read=float("inf")), "'cache_read' is inf"),
        (row(cache_write=[1]), "'cache_write' is [1]"),
        (row(provider=5), "'provider' is 5"),
        (row(effective_from="soon"), "'effective_from' is 'soon'"),
        (row(effective_from=2026), "'effective_from' is 2026"),
    ],
)
def test_a_mistake_in_a_row_is_named(values: Mapping[str, Any], named: str) -> None:
    """The message names the field and its value."""
    with pytest.raises(ConfigError) as caught:
        Price.from_mapping(values)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"price = 1", "[[price]]"),
        (b"", "[[price]]"),
        (b"price = [1]", "price"),
        (b"[[price]\n", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b'[[price]]\nmodel = "m"\ninput = 1\n', "'output'"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    """A wrong file is rejected with a ConfigError, whatever it contains."""
    path = tmp_path / "prices.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_prices(path)
    assert named in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error for a missing file has its path."""
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        set_prices(tmp_path / "nowhere.toml")


def test_a_mistake_leaves_the_prices_as_they_were() -> None:
    """A file that cannot be read leaves the current prices in force."""
    set_prices([row(model="house")])
    with pytest.raises(ConfigError):
        set_prices([{"model": "broken"}])
    assert estimate_cost("p", "house", MILLION, MILLION) == 3.0


# --- Through the step ---


async def call(client: FakeLLMClient, model: str = "toy-1", provider: str = "fake") -> dict[str, Any]:
    result = await run_llm_call("f", "s", LLMCallConfig(provider, model, "hi"), Recorder(), client=client)
    assert result["status"] == "ok"
    return result


def openai_like(usage: LLMUsage) -> FakeLLMClient:
    """A fake client with OpenAI's prices."""
    client = FakeLLMClient(0, usage=usage)
    client.provider_name = "openai"
    return client


@pytest.mark.parametrize(
    ("usage", "model", "prices", "cost", "source"),
    [
        (usage_of(1_000, 500), "gpt-4o-mini", [], 0.00045, "local"),
        (usage_of(1_000, 500), "gpt-4o-mini", [row(model="gpt-4o-mini")], 0.002, "override"),
        (usage_of(1_000, 500, cost_usd=0.7), "gpt-4o-mini", [row(model="gpt-4o-mini")], 0.7, "provider"),
        (usage_of(1_000, 500, cost_usd=0.0), "gpt-4o-mini", [], 0.0, "provider"),
        (LLMUsage(cost_usd=0.7), "no-such-model", [], 0.7, "provider"),
        (usage_of(1_000, 500), "no-such-model", [], None, None),
        (LLMUsage(), "gpt-4o-mini", [], None, None),
    ],
)
async def test_where_a_cost_comes_from(
    usage: LLMUsage, model: str, prices: list[dict[str, Any]], cost: float | None, source: str | None
) -> None:
    """The reply's cost wins over the user's price, which wins over the table; the result names the source."""
    set_prices(prices)
    result = await call(openai_like(usage), model)
    assert result["usage"]["cost_usd"] == (None if cost is None else pytest.approx(cost))
    assert result["usage"]["cost_source"] == source


async def test_a_broken_table_does_not_lose_the_reply(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capture: Captured
) -> None:
    """When the table raises, the reply has no cost, and the log has the traceback."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken table")

    monkeypatch.setattr(PriceTable, "match", fail)
    result = await run_llm_call(
        "f",
        "s",
        LLMCallConfig("openai", "gpt-broken", "hi"),
        capture.recorder(),
        client=openai_like(usage_of(10, 10)),
    )
    assert (result["status"], result["usage"]["cost_usd"]) == ("ok", None)
    assert "broken table" in caplog.text
    assert capture.total("tracemind.llm.unpriced_calls") == 1


async def test_an_unpriced_model_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A model of unknown price is logged once, however many calls there are."""
    caplog.set_level(logging.WARNING, logger=pricing.__name__)
    for model in ("new-model", "new-model", "newer-model", "new-model"):
        await call(openai_like(usage_of(1, 1)), model)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "calls of openai/new-model have no cost",
        "calls of openai/newer-model have no cost",
    ]


async def test_a_priced_model_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A model with a price is not logged."""
    await call(openai_like(usage_of(1, 1)), "gpt-4o-mini")
    assert not [record for record in caplog.records if record.name == pricing.__name__]


async def test_the_table_is_searched_in_a_worker_thread_once(
    monkeypatch: pytest.MonkeyPatch, use_snapshot: UseSnapshot
) -> None:
    """A model's first call is looked up off the event loop; later calls need no look-up."""
    searched_in = list[threading.Thread]()
    loop, is_searching, may_go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    find = data_snapshot.DataSnapshot.find_provider_model

    def slow_find(*args: Any) -> tuple[Provider, ModelInfo]:
        searched_in.append(threading.current_thread())
        loop.call_soon_threadsafe(is_searching.set)
        assert may_go_on.wait(30), "the event loop stood still"
        return find(*args)

    monkeypatch.setattr(data_snapshot.DataSnapshot, "find_provider_model", slow_find)
    use_snapshot(data_snapshot.DataSnapshot(data_snapshot.get_snapshot().providers, from_auto_update=False))
    pending = asyncio.create_task(cost_of("openai", "gpt-4o-mini", usage_of(1_000, 500)))
    await is_searching.wait()
    may_go_on.set()
    assert await pending == pytest.approx(0.00045)
    assert await cost_of("openai", "gpt-4o-mini", usage_of(1_000, 500)) == pytest.approx(0.00045)
    assert len(searched_in) == 1
    assert searched_in[0] is not threading.current_thread()


async def test_a_new_table_is_used_from_the_next_call_on(use_snapshot: UseSnapshot) -> None:
    """When genai-prices updates itself, the next call looks its model up in the new table."""
    assert await cost_of("openai", "gpt-4o-mini", usage_of(MILLION)) == pytest.approx(0.15)
    provider, model = data_snapshot.get_snapshot().find_provider_model("gpt-4o", None, "openai", None)
    renamed = ModelInfo(id="gpt-4o-mini", match=genai_prices.types.ClauseEquals("gpt-4o-mini"), prices=model.prices)
    updated = data_snapshot.DataSnapshot(
        [Provider(id="openai", name=provider.name, api_pattern=provider.api_pattern, models=[renamed])], True
    )
    use_snapshot(updated)
    assert await cost_of("openai", "gpt-4o-mini", usage_of(MILLION)) == pytest.approx(2.5)


def test_nobody_waits_while_the_table_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop never waits for the thread that loads the table."""
    table, loading, may_go_on = PriceTable(), threading.Event(), threading.Event()
    load = data_snapshot.get_snapshot

    def load_slowly() -> data_snapshot.DataSnapshot:
        loading.set()
        assert may_go_on.wait(30)
        return load()

    monkeypatch.setattr(data_snapshot, "get_snapshot", load_slowly)
    loader = threading.Thread(target=table.match, args=("openai", "gpt-4o-mini"))
    loader.start()
    assert loading.wait(30)
    try:
        asked = threading.Thread(target=table.unmatched, args=("openai", ["gpt-4o-mini"]))
        asked.start()
        asked.join(10)
        assert not asked.is_alive()
    finally:
        may_go_on.set()
        loader.join()
