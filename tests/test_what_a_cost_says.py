"""What a cost says beside its figure: its parts, its table, missing rates, and its source."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot

import tracemind_otel as tm
from tests.support import UseSnapshot
from tracemind_otel.ai.llm.pricing import Price, price_reply, price_reply_now, set_prices
from tracemind_otel.ai.llm.pricing.price_table import PriceTable
from tracemind_otel.ai.llm.types import LLMResponse, LLMUsage, ReportedCost
from tracemind_otel.errors import ConfigError

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MILLION = 1_000_000


async def priced(provider: str, model: str, usage: LLMUsage, **reply: Any) -> LLMUsage:
    return await price_reply(provider, (model,), LLMResponse("", usage, **reply), at=NOON)


def usage(prompt: int | None = 1_000, completion: int | None = 100, **counts: Any) -> LLMUsage:
    return LLMUsage(prompt, completion, None, **counts)


# --- What a reply reports ---


async def test_usage_of_a_reply_is_usage_like_any_other() -> None:
    """A client may name only the counts that its reply has; they equal and cost the same as full usage."""
    told = LLMUsage.of_reply(1_000, 100, None, cache_read_tokens=400, input_audio_tokens=None, web_searches=0)
    made = usage(cache_read_tokens=400, web_searches=0)
    assert (told, hash(told), repr(told)) == (made, hash(made), repr(made))
    assert (told.as_dict(), told.input_audio_tokens) == (made.as_dict(), None)
    assert await priced("openai", "gpt-4o-mini", told) == await priced("openai", "gpt-4o-mini", made)
    with pytest.raises(TypeError, match="no field cached_tokens"):
        LLMUsage.of_reply(1, 1, 2, cached_tokens=1)


# --- Parts and table ---


def test_a_part_that_does_not_exist_is_rejected_by_its_name() -> None:
    """A misspelt part would be missing from every sum, so it is an error where it is made."""
    with pytest.raises(TypeError, match=r"no field fee_usd here; allowed are .*fees_usd"):
        LLMUsage(1, 1, 2).with_cost(0.5, "local", fee_usd=0.1)
    with pytest.raises(TypeError, match="no field cached_tokens here"):
        LLMUsage.of_reply(1, 1, 2, cached_tokens=1)


async def test_the_parts_of_a_cost_add_up_and_its_table_is_named() -> None:
    """A cost has input, output and fees, searches among the fees, and the version of the price data."""
    cost = await priced("anthropic", "claude-sonnet-4-5", usage(web_searches=3))
    assert cost.input_cost_usd == pytest.approx(1_000 * 3 / MILLION)
    assert cost.output_cost_usd == pytest.approx(100 * 15 / MILLION)
    assert cost.fees_usd == pytest.approx(3 * 10 / 1_000)
    assert cost.cost_usd == pytest.approx(1_000 * 3 / MILLION + 100 * 15 / MILLION + 3 * 10 / 1_000)
    assert (cost.cost_table, cost.cost_source, cost.cost_partial) == (genai_prices.__version__, "local", ())


async def test_a_table_that_updated_itself_is_named_by_its_day(use_snapshot: UseSnapshot) -> None:
    """The updater's prices are newer than the package's version, so a cost names their day."""
    fetched = data_snapshot.DataSnapshot(
        data_snapshot.get_snapshot().providers, from_auto_update=True, timestamp=datetime(2026, 11, 20, 3, 4)
    )
    use_snapshot(fetched)
    cost = PriceTable().cost("openai", "gpt-4o-mini", usage(), NOON, {})
    assert cost is not None
    assert cost.cost_table == "2026-11-20"


# --- One-hour writes and other splits ---


async def test_a_one_hour_cache_write_has_its_own_price() -> None:
    """Anthropic's one-hour cache write costs twice the input, and not the 1.25 of a five-minute write."""
    hour = usage(1_000, 0, cache_write_tokens=1_000, cache_write_1h_tokens=1_000, cache_write_5m_tokens=0)
    cost = await priced("anthropic", "claude-haiku-4-5", hour)
    assert cost.cost_usd == pytest.approx(1_000 * 2.0 / MILLION)
    assert cost.cost_partial == ()


@pytest.mark.parametrize(
    ("counts", "marked"),
    [
        ({"input_audio_tokens": 10}, ("input_audio_tokens",)),
        ({"input_image_tokens": 10, "output_image_tokens": 3}, ("input_image_tokens", "output_image_tokens")),
        ({"cache_write_tokens": 9, "cache_write_1h_tokens": 9}, ("cache_write_tokens", "cache_write_1h_tokens")),
        ({"social_searches": 2}, ("social_searches",)),
        ({"code_executions": 1}, ("code_executions",)),
        ({"input_audio_tokens": 0, "web_searches": 0, "cache_write_1h_tokens": 0}, ()),
        ({"input_text_tokens": 1_000, "output_text_tokens": 100}, ()),
        ({"reasoning_tokens": 50, "input_tool_tokens": 5}, ()),
        ({"cache_read_tokens": 500}, ()),
    ],
)
async def test_a_split_without_a_rate_is_priced_like_its_whole_and_marked(
    counts: dict[str, int], marked: tuple[str, ...]
) -> None:
    """A part without a rate is named; zeros, text, reasoning and tool tokens need none."""
    cost = await priced("openai", "gpt-4o-mini", usage(**counts))
    cached = counts.get("cache_read_tokens", 0)
    expected = ((1_000 - cached) * 0.15 + cached * 0.075 + 100 * 0.6) / MILLION
    assert cost.cost_usd == pytest.approx(expected)
    assert cost.cost_partial == marked


async def test_cached_tokens_without_a_rate_are_marked() -> None:
    """Cached input without a rate is priced as input, and marked."""
    cost = await priced("openai", "gpt-3.5-turbo", usage(cache_read_tokens=500))
    assert cost.cost_usd == pytest.approx(0.00065)
    assert cost.cost_partial == ("cache_read_tokens",)


async def test_an_overlap_that_was_not_reported_is_as_small_as_can_be() -> None:
    """Audio and cached input that exceed the prompt overlap by the excess; the assumption is marked."""
    model = "gpt-realtime"
    counts = {"input_tokens": 1_000, "cache_read_tokens": 700, "input_audio_tokens": 500, "output_tokens": 0}
    expected = genai_prices.calc_price(
        genai_prices.Usage(**counts, cache_audio_read_tokens=200),
        model,
        provider_id="openai",
        genai_request_timestamp=NOON,
    )
    cost = await priced("openai", model, usage(1_000, 0, cache_read_tokens=700, input_audio_tokens=500))
    assert cost.cost_usd == float(expected.total_price)
    assert "cache_audio_read_tokens" in cost.cost_partial


def test_counts_that_contradict_each_other_have_a_price_all_the_same() -> None:
    """Parts that exceed their whole, for which genai-prices would raise, are cut to it."""
    draw, table = random.Random(3), PriceTable()
    names = [name for name in vars(LLMUsage()) if name.endswith(("_tokens", "_seconds", "_pages"))]
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models[:: 1 + len(provider.models) // 12]:
            counts: dict[str, Any] = {name: draw.choice((None, 0, 5, 900, 10_000)) for name in names}
            counts |= {"prompt_tokens": draw.choice((0, 7, 1_000)), "completion_tokens": draw.choice((0, 3, 900))}
            cost = table.cost(provider.id, model.id, LLMUsage(**{**vars(LLMUsage()), **counts}), NOON, {})
            assert cost is None or cost.cost_usd >= 0.0, (provider.id, model.id, counts)


# --- Conditions ---


@pytest.mark.parametrize(
    ("reply", "marked"),
    [
        ({"service_tier": "default"}, ()),
        ({"service_tier": "on_demand"}, ()),
        ({"service_tier": "STANDARD"}, ()),
        ({"service_tier": "scale"}, ("service_tier=scale",)),
        ({"price_conditions": {"speed": "fast"}}, ("speed=fast",)),
        ({"price_conditions": {"speed": "standard"}}, ()),
    ],
)
async def test_a_condition_without_a_price_is_marked(reply: dict[str, Any], marked: tuple[str, ...]) -> None:
    """A condition without a price leaves the standard price, and is marked; standard conditions are not."""
    cost = await priced("openai", "gpt-4o-mini", usage(), **reply)
    assert cost.cost_usd == pytest.approx(0.00021)
    assert cost.cost_partial == marked


async def test_a_condition_with_a_price_is_priced() -> None:
    """Anthropic's batches cost half, and have no mark."""
    whole = await priced("anthropic", "claude-haiku-4-5", usage())
    half = await priced("anthropic", "claude-haiku-4-5", usage(), price_conditions={"processing": "batch"})
    assert whole.cost_usd is not None
    assert half.cost_usd == pytest.approx(whole.cost_usd / 2)
    assert half.cost_partial == ()


# --- What stays unknown ---


@pytest.mark.parametrize(("prompt", "completion"), [(1_000, None), (None, 100)])
async def test_one_half_of_the_tokens_has_no_price(
    prompt: int | None, completion: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The cost is unknown where input or output is, and the log says so once."""
    for _ in range(3):
        cost = await priced("openai", "gpt-4o", usage(prompt, completion))
        assert (cost.cost_usd, cost.cost_source) == (None, None)
    assert [r.getMessage() for r in caplog.records] == [
        "calls of openai/gpt-4o have no cost: the reply reports only input or only output, "
        "and the price of one is not the price of the call"
    ]
    set_prices([{"model": "gpt-4o", "input": 5, "output": 5}])
    assert (await priced("openai", "gpt-4o", usage(prompt, completion))).cost_usd is None


async def test_speech_is_priced_by_what_it_is_charged_by() -> None:
    """Groq bills at least ten seconds a request; without seconds the price is unknown."""
    ten_seconds = await priced("groq", "whisper-large-v3", LLMUsage(None, None, None, audio_seconds=10.0))
    one_second = await priced("groq", "whisper-large-v3", LLMUsage(None, None, None, input_audio_seconds=1.0))
    assert ten_seconds.cost_usd is not None
    assert one_second.cost_usd == ten_seconds.cost_usd > 0
    assert (await priced("groq", "whisper-large-v3", usage())).cost_usd is None


# --- What a reply says ---


async def test_a_declared_cost_is_believed_with_its_parts() -> None:
    """A reply's cost in a declared unit wins over the table, with its parts and also when it is zero."""
    said = ReportedCost(usd=0.5, input_usd=0.3, output_usd=0.1, fees_usd=0.1)
    cost = await priced("openai", "gpt-4o-mini", usage(), reported_cost=said)
    assert (cost.cost_usd, cost.cost_source, cost.cost_table) == (0.5, "provider", None)
    assert (cost.input_cost_usd, cost.output_cost_usd, cost.fees_usd) == (0.3, 0.1, 0.1)
    free = await priced("openai", "gpt-4o-mini", usage(), reported_cost=ReportedCost(usd=0.0, is_declared=True))
    assert (free.cost_usd, free.cost_source) == (0.0, "provider")


async def test_a_zero_is_believed_only_of_a_model_that_is_free() -> None:
    """A gateway's zero is believed for a `:free` model, and not for one with a price."""
    zero = ReportedCost(usd=0.0)
    paid = await priced("openrouter", "openai/gpt-4o-mini", usage(), reported_cost=zero)
    assert paid.cost_usd == pytest.approx(0.00021)
    assert paid.cost_source == "local"
    free = await priced("openrouter", "meta-llama/llama-3.3-70b-instruct:free", usage(), reported_cost=zero)
    assert (free.cost_usd, free.cost_source) == (0.0, "provider")
    assert (await priced("openrouter", "nobody/knows", usage(), reported_cost=zero)).cost_usd is None


async def test_a_fee_alone_is_not_the_cost() -> None:
    """With the user's own key a gateway's fee is added to the table's price; without a price the cost is unknown."""
    fee = ReportedCost(usd=None, fees_usd=0.001)
    cost = await priced("openrouter", "openai/gpt-4o-mini", usage(), reported_cost=fee)
    assert cost.cost_usd == pytest.approx(0.00021 + 0.001)
    assert cost.fees_usd == pytest.approx(0.001)
    assert cost.cost_partial == ("upstream_inference_cost",)
    assert (await priced("openrouter", "nobody/knows", usage(), reported_cost=fee)).cost_usd is None


async def test_a_fee_that_is_not_said_is_marked() -> None:
    """A gateway's missing fee is marked, and the rest is the cost."""
    upstream = ReportedCost(usd=0.02, partial=("fees_usd",))
    cost = await priced("openrouter", "openai/gpt-4o-mini", usage(), reported_cost=upstream)
    assert (cost.cost_usd, cost.cost_source, cost.cost_partial) == (0.02, "provider", ("fees_usd",))
    neither = ReportedCost(usd=None, partial=("fees_usd",))
    cost = await priced("openrouter", "openai/gpt-4o-mini", usage(), reported_cost=neither)
    assert cost.cost_usd == pytest.approx(0.00021)
    assert (cost.cost_source, cost.cost_partial) == ("local", ("upstream_inference_cost", "fees_usd"))
    assert (await priced("openrouter", "nobody/knows", usage(), reported_cost=neither)).cost_usd is None


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
async def test_a_reported_cost_that_cannot_be_is_not_believed(wrong: float) -> None:
    """An impossible reported cost is replaced by the table's price."""
    cost = await priced("openai", "gpt-4o-mini", usage(), reported_cost=ReportedCost(usd=wrong))
    assert cost.cost_usd == pytest.approx(0.00021)
    assert cost.cost_source == "local"


async def test_a_call_that_ends_early_is_priced_alike() -> None:
    """Tier, conditions and the reply's own cost count also where nothing can be awaited."""
    await priced("openai", "gpt-5-mini", usage())
    flex = LLMResponse("", usage(), service_tier="flex")
    now = price_reply_now("openai", ("gpt-5-mini",), flex, at=NOON)
    assert now == await price_reply("openai", ("gpt-5-mini",), flex, at=NOON)
    said = LLMResponse("", usage(), reported_cost=ReportedCost(usd=0.5))
    assert price_reply_now("openai", ("gpt-5-mini",), said, at=NOON).cost_usd == 0.5


# --- The user's own prices ---


async def test_own_prices_win_over_the_reply_where_told_so() -> None:
    """The user's prices win over the reply with `over_reply=True`, and otherwise the reply's cost does."""
    said = ReportedCost(usd=0.5)
    rows = [{"model": "m", "input": 1, "output": 2}]
    set_prices(rows)
    assert (await priced("openrouter", "m", usage(), reported_cost=said)).cost_usd == 0.5
    set_prices(rows, over_reply=True)
    own = await priced("openrouter", "m", usage(), reported_cost=said)
    assert own.cost_usd == pytest.approx(0.0012)
    assert (own.cost_source, own.cost_table) == ("override", "override")
    assert (await priced("openrouter", "m", usage(cost_usd=0.7))).cost_source == "override"
    assert (await priced("openrouter", "other", usage(), reported_cost=said)).cost_usd == 0.5


async def test_own_prices_for_more_than_tokens() -> None:
    """A user's prices cover one-hour writes, audio, images, searches and requests; parts without a rate are marked."""
    price = {
        "model": "m",
        "input": 1,
        "output": 2,
        "cache_read": 0.1,
        "cache_write": 1.25,
        "cache_write_1h": 2,
        "input_audio": 10,
        "output_audio": 20,
        "web_searches": 10,
        "requests": 5,
    }
    set_prices([price])
    used = usage(
        1_000,
        100,
        cache_read_tokens=400,
        cache_write_tokens=300,
        cache_write_1h_tokens=200,
        input_audio_tokens=150,
        cache_audio_read_tokens=50,
        output_audio_tokens=40,
        web_searches=2,
        input_video_tokens=7,
    )
    cost = await priced("p", "m", used, service_tier="flex")
    assert cost.input_cost_usd == pytest.approx((400 * 0.1 + 200 * 2 + 100 * 1.25 + 100 * 10 + 200) / MILLION)
    assert cost.output_cost_usd == pytest.approx((40 * 20 + 60 * 2) / MILLION)
    assert cost.fees_usd == pytest.approx(2 * 10 / 1_000 + 5 / 1_000)
    assert cost.cost_partial == ("input_video_tokens", "service_tier=flex")


def test_a_mistake_in_a_fee_names_its_unit() -> None:
    """The error for a wrong fee says that fees are per thousand."""
    with pytest.raises(ConfigError, match="USD per thousand"):
        Price.from_mapping({"model": "m", "input": 1, "output": 1, "web_searches": "ten"})


PER_THOUSAND = [{"model": "gpt-4o", "provider": "openai", "input": 0.0025, "output": 0.01}]


def test_figures_per_thousand_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """One line warns of prices that look like prices per thousand tokens."""
    set_prices(PER_THOUSAND)
    assert [r.getMessage() for r in caplog.records] == [
        "the prices set for gpt-4o are all under a hundredth of the table's: they look like USD per thousand tokens. "
        "Prices are USD per million tokens; multiply them by 1,000"
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"model": "gpt-4o", "input": 0, "output": 0},
        {"model": "gpt-4o", "input": 2.5, "output": 0.01},
        {"model": "gpt-4o", "input": 0.5, "output": 1},
        {"model": "nobody-knows", "input": 0.0025, "output": 0.01},
    ],
)
def test_prices_that_may_be_meant_are_not_warned_of(row: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Zero, a single low figure, a discount and unknown models give no warning."""
    set_prices([row])
    assert not caplog.records


async def test_on_an_event_loop_the_table_is_read_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Loading the table does not block the event loop, and the warning still comes."""
    loop, checked = asyncio.get_running_loop(), asyncio.Event()
    rates = PriceTable.rates

    def observed(*args: Any) -> Any:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        loop.call_soon_threadsafe(checked.set)
        return rates(*args)

    monkeypatch.setattr(PriceTable, "rates", observed)
    set_prices(PER_THOUSAND)
    await checked.wait()
    # A model that was not searched before waits for its turn in the same thread.
    await priced("openai", "no-such-model-yet", usage())
    assert "per thousand" in caplog.text


def test_the_library_agrees_with_a_first_estimate() -> None:
    """`estimate_cost` is as published."""
    assert tm.estimate_cost("openai", "gpt-4o-mini", 1_000, 500) == pytest.approx(0.00045)
