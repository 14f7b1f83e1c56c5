"""The package's cost equals that of `genai-prices`, for every model of the table, random usage and every condition."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.data_units import unit_data
from genai_prices.types import ModelInfo, ModelPrice, Provider, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from tracemind_otel.ai.llm.pricing.price_table import PriceTable
from tracemind_otel.ai.llm.pricing.rates import Cost
from tracemind_otel.ai.llm.types import LLMUsage

OUR_NAMES = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
}
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CONDITIONS = {
    "service_tier": ("default", "priority", "flex", "fast", "batch"),
    "speed": ("fast", "standard"),
    "processing": ("batch",),
    "route": ("mistral/eu",),
    "search_type": ("fast", "web", "pro"),
}
FEES = ("web_searches", "social_searches", "storage_searches", "code_executions", "rerank_searches")
MEASURES = ("input_characters", "input_text_messages", "input_document_pages", "input_annotated_document_pages")


def every_model() -> list[tuple[str, str, ModelInfo]]:
    """Every model of the table with its provider and a name that finds it."""
    return [
        (provider.id, _found_by(provider, model), model)
        for provider in data_snapshot.get_snapshot().providers
        for model in provider.models
    ]


def _found_by(provider: Provider, model: ModelInfo) -> str:
    """The model's id, or a word of its rule where a search by the id finds nothing."""
    words = [model.id, *re.findall(r"(?:equals|starts_with|contains|ends_with)='([^']+)'", repr(model.match))]
    return next((word for word in words if provider.find_model(word) is model), model.id)


def moments(model: ModelInfo) -> Iterator[datetime]:
    """Now, and both sides of every date and hour at which a price of the model changes."""
    yield NOON
    conditional = model.prices if isinstance(model.prices, list) else []
    for constraint in [each.constraint for each in (*conditional, *(model.price_variants or ()))]:
        if isinstance(constraint, StartDateConstraint):
            midnight = datetime.combine(constraint.start_date, time(), UTC)
            yield from (midnight, midnight - timedelta(seconds=1))
        elif isinstance(constraint, TimeOfDateConstraint):
            for edge in (constraint.start_time, constraint.end_time):
                at = datetime.combine(NOON.date(), edge.replace(tzinfo=None), edge.tzinfo or UTC)
                yield from (at, at - timedelta(seconds=1))


def sizes(model: ModelInfo) -> list[int]:
    """Prompt sizes on both sides of every tier, and others."""
    prices = [each.prices for each in model.prices] if isinstance(model.prices, list) else [model.prices]
    prices += [variant.prices for variant in model.price_variants or ()]
    tiers = {
        tier.start
        for price in prices
        for rate in vars(price).values()
        if isinstance(rate, TieredPrices)
        for tier in rate.tiers
    }
    return [0, 1, 999, 123_457, *(tiers), *(start + 1 for start in tiers)]


def random_usage(draw: random.Random, prompt: int) -> LLMUsage:
    """Consistent counts in every unit that `LLMUsage` has."""
    text, audio, image, video = split(draw, prompt, 4)
    cached = [draw.randint(0, part) for part in (text, audio, image, video)]
    read = sum(cached)
    write = draw.randint(0, prompt - read)
    long = draw.randint(0, write)
    completion = draw.choice((0, 1, 777, 54_321))
    reasoning, citation, _ = split(draw, completion, 3)
    out_text, out_audio, out_image, out_video = split(draw, completion - reasoning - citation, 4)
    seconds = draw.choice((0.0, 3.5, 9.0, 61.25))
    counts: dict[str, Any] = {
        "cache_read_tokens": read,
        "cache_write_tokens": write,
        "cache_write_1h_tokens": long,
        "cache_write_5m_tokens": write - long,
        "reasoning_tokens": reasoning,
        "output_citation_tokens": citation,
    }
    if draw.random() < 0.6:
        # A token is written to the cache as text here: the table has no rates for other writes.
        fits = prompt - read - write
        text, audio, image, video = split(draw, fits, 4)
        cached = [read, 0, 0, 0] if draw.random() < 0.5 else split(draw, read, 4)
        wholes = [a + b for a, b in zip((text, audio, image, video), cached, strict=True)]
        kinds = ("text", "audio", "image", "video")
        counts |= {f"input_{kind}_tokens": whole for kind, whole in zip(kinds, wholes, strict=True)}
        counts |= {f"cache_{kind}_read_tokens": part for kind, part in zip(kinds, cached, strict=True)}
        outputs = (out_text, out_audio, out_image, out_video)
        counts |= {f"output_{kind}_tokens": part for kind, part in zip(kinds, outputs, strict=True)}
    if draw.random() < 0.5:
        heard = draw.choice((0.0, seconds))
        counts |= {"audio_seconds": seconds, "input_audio_seconds": heard, "output_audio_seconds": seconds - heard}
        counts |= {name: draw.choice((0, 1, 5_000)) for name in MEASURES[:2]}
        pages = draw.choice((0, 3, 40))
        counts |= {MEASURES[2]: pages, MEASURES[3]: draw.randint(0, pages)}
    if draw.random() < 0.5:
        counts |= {name: draw.choice((0, 1, 7)) for name in FEES}
    return LLMUsage(prompt, completion, prompt + completion, **counts)


def plain_usage(draw: random.Random, prompt: int) -> LLMUsage:
    """The usage of most calls, which takes the fast path."""
    completion, read = draw.choice((1, 777, 54_321)), draw.randint(0, prompt)
    write, reasoning = draw.randint(0, prompt - read), draw.randint(0, completion)
    parts: dict[str, Any] = {"cache_read_tokens": read, "cache_write_tokens": write, "reasoning_tokens": reasoning}
    return LLMUsage(prompt, completion, prompt + completion, **parts)


def split(draw: random.Random, whole: int, parts: int) -> list[int]:
    cuts = sorted(draw.randint(0, whole) for _ in range(parts - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, whole], strict=True)]


def library_usage(usage: LLMUsage) -> genai_prices.Usage:
    counts = {key: vars(usage).get(OUR_NAMES.get(key, key)) for key in unit_data if key != "requests"}
    return genai_prices.Usage(**{key: count for key, count in counts.items() if count is not None})


def theirs(provider: str, name: str, usage: LLMUsage, at: datetime, conditions: dict[str, str]) -> Any:
    return genai_prices.calc_price(
        library_usage(usage),
        name,
        provider_id=provider,
        genai_request_timestamp=at,
        price_context=conditions or None,
    )


def may_be_unknown(price: ModelPrice, usage: LLMUsage) -> bool:
    """Whether the table has no rate for tokens that were used."""
    held = vars(price)
    input_, output = held.get("input_mtok"), held.get("output_mtok")
    nothing = not any(rate is not None for rate in held.values())
    return nothing or bool(usage.prompt_tokens and input_ is None) or bool(usage.completion_tokens and output is None)


def agrees(cost: Cost | None, calculation: Any, usage: LLMUsage) -> bool:
    if cost is None:
        return may_be_unknown(calculation.model_price, usage)
    fees = calculation.total_price - calculation.input_price - calculation.output_price
    expected = (calculation.total_price, calculation.input_price, calculation.output_price, fees)
    return (cost.cost_usd, cost.input_cost_usd, cost.output_cost_usd, cost.fees_usd) == tuple(map(float, expected))


def random_conditions(draw: random.Random, model: ModelInfo) -> dict[str, str]:
    variants = list(model.price_variants or ())
    if variants and draw.random() < 0.7:
        return dict(draw.choice(variants).when)
    names = draw.sample(sorted(CONDITIONS), draw.choice((0, 0, 1, 2)))
    return {name: draw.choice(CONDITIONS[name]) for name in names}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("has_imported_library", [False, True])
def test_the_cost_of_every_model_is_the_librarys(
    seed: int, has_imported_library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain usage and usage in every unit, date, hour, tier and condition cost the same to the last bit."""
    draw, table, compared, known = random.Random(seed), PriceTable(), 0, 0
    models = every_model()
    if not has_imported_library:
        monkeypatch.delitem(sys.modules, "genai_prices.data_snapshot")
    for provider, name, model in models:
        prompts, at = sizes(model), list(moments(model))
        for make in (plain_usage, plain_usage, random_usage, random_usage):
            usage, when = make(draw, draw.choice(prompts)), draw.choice(at)
            conditions = random_conditions(draw, model)
            calculation = theirs(provider, name, usage, when, conditions)
            cost = table.cost(provider, name, usage, when, conditions)
            assert agrees(cost, calculation, usage), (provider, name, usage, when, conditions, cost, calculation)
            compared += 1
            known += cost is not None
    assert compared == 4 * len(models) > 9_000
    assert known > 0.8 * compared
