"""The price table of `genai-prices`, and the arithmetic of a call.

Rates are USD per million tokens. Sums are taken in whole numbers, so that they are exact and each cost is rounded
once, to the nearest float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from .types import LLMUsage

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

_SCALE = 10**18
"""Rates are kept as whole numbers of 1e-18 USD: finer than any price that was ever published."""
_MILLION = 10**6
_MAX_MATCHED_MODELS = 1024
_TABLE_NAMES = {
    "azure_openai": "azure",
    "gemini": "google",
    "openai_responses": "openai",
    "xai": "x-ai",
}
"""Our provider names where `genai-prices` spells them otherwise."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What a million tokens cost, or that by the size of the prompt."""

    base: int
    """In units of 1 / `_SCALE` USD."""
    steps: tuple[tuple[int, int], ...] = ()
    """Prompt sizes above which another rate holds, and that rate; the smallest size first."""

    @classmethod
    def of(cls, price: Decimal | TieredPrices) -> Rate:
        """The rate of a price."""
        if isinstance(price, Decimal):
            return cls(int(price * _SCALE))
        return cls(int(price.base * _SCALE), tuple((tier.start, int(tier.price * _SCALE)) for tier in price.tiers))

    def at(self, prompt_tokens: int) -> int:
        """The rate for a prompt of that size."""
        rate = self.base
        for size, higher in self.steps:
            if prompt_tokens > size:
                rate = higher
        return rate


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of one price; `None` where it has none of that kind."""

    input: Rate | None
    """For input tokens."""
    output: Rate | None
    """For output tokens."""
    cache_read: Rate | None = None
    """For input tokens read from a cache; without it they cost what input costs."""
    cache_write: Rate | None = None
    """For input tokens written to a cache; likewise."""
    reasoning: Rate | None = None
    """For output tokens spent on reasoning; without it they cost what output costs."""
    requests: Rate | None = None
    """A fee for each request, here for a thousand of them."""

    @classmethod
    def of(cls, price: ModelPrice) -> Rates:
        """The rates of the table's price that a chat call can use."""
        names = (
            "input_mtok",
            "output_mtok",
            "cache_read_mtok",
            "cache_write_mtok",
            "output_reasoning_mtok",
            "requests_kcount",
        )
        found = (vars(price).get(name) for name in names)
        return cls(*(None if value is None else Rate.of(value) for value in found))

    def cost(self, usage: LLMUsage) -> float | None:
        """USD for a call, each token at its own rate; `None` where a rate that is needed is missing."""
        prompt, completion = max(usage.prompt_tokens or 0, 0), max(usage.completion_tokens or 0, 0)
        total, plain_input, plain_output = 0, prompt, completion
        if self.cache_read is not None and usage.cache_read_tokens:
            read = _clamped(usage.cache_read_tokens, plain_input)
            plain_input -= read
            total += read * self.cache_read.at(prompt)
        if self.cache_write is not None and usage.cache_write_tokens:
            write = _clamped(usage.cache_write_tokens, plain_input)
            plain_input -= write
            total += write * self.cache_write.at(prompt)
        if self.reasoning is not None and usage.reasoning_tokens:
            reasoning = _clamped(usage.reasoning_tokens, plain_output)
            plain_output -= reasoning
            total += reasoning * self.reasoning.at(prompt)
        for count, rate in ((plain_input, self.input), (plain_output, self.output)):
            if count:
                if rate is None:
                    return None
                total += count * rate.at(prompt)
        if self.requests is not None:
            total += self.requests.at(prompt) * (_MILLION // 1000)
        return total / (_SCALE * _MILLION)


def _clamped(part: int, whole: int) -> int:
    """Some servers report more of a part than of the whole."""
    return min(max(part, 0), whole)


@dataclass(frozen=True, slots=True)
class _Matched:
    """A model of the table."""

    model: ModelInfo
    tiers: frozenset[str]
    """The service tiers that change its price; those that are listed without a price of their own do not."""

    @classmethod
    def of(cls, model: ModelInfo) -> _Matched:
        variants = [variant for variant in model.price_variants or () if "service_tier" in variant.when]
        priced = [variant for variant in variants if any(rate is not None for rate in vars(variant.prices).values())]
        return cls(model, frozenset(variant.when["service_tier"] for variant in priced))


class PriceTable:
    """`genai-prices` behind two questions: is a model matched, and what does a call of it cost."""

    def __init__(self) -> None:
        self._current: Callable[[], DataSnapshot] | None = None
        self._snapshot: DataSnapshot | None = None
        self._models: dict[tuple[str, str], _Matched | None] = {}
        self._rates: dict[int, tuple[ModelPrice, Rates]] = {}

    def is_matched(self, provider: str, model: str) -> bool:
        """Whether a call of that model can be priced (or called unknown) without a slow search."""
        return (provider, model) in self._models

    def match(self, provider: str, model: str) -> _Matched | None:
        """Find a model; the first time imports the table and takes 0.1 to 0.4 s, so not on the event loop."""
        if self._current is None:
            from genai_prices import data_snapshot

            self._current = data_snapshot.get_snapshot
        snapshot = self._current()
        if snapshot is not self._snapshot or len(self._models) >= _MAX_MATCHED_MODELS:
            self._snapshot, self._models, self._rates = snapshot, {}, {}
        key = (provider, model)
        if key not in self._models:
            self._models[key] = _search(snapshot, provider, model)
        return self._models[key]

    def cost(self, provider: str, model: str, usage: LLMUsage, at: datetime, tier: str | None) -> float | None:
        """USD for a call, or `None` when the table lacks the model or a rate that the call needs.

        Which of a model's prices holds is decided for each call, by date, time of day, tier and prompt size.
        """
        found = self.match(provider, model)
        if found is None or not found.model.prices:
            return None
        if tier is not None and tier in found.tiers:
            return Rates.of(found.model.get_prices(at, {"service_tier": tier})).cost(usage)
        return self._rates_of(found.model.get_prices(at)).cost(usage)

    def _rates_of(self, price: ModelPrice) -> Rates:
        held = self._rates.get(id(price))
        if held is None:
            held = self._rates[id(price)] = (price, Rates.of(price))
        return held[1]


def _search(snapshot: DataSnapshot, provider: str, model: str) -> _Matched | None:
    try:
        return _Matched.of(snapshot.find_provider_model(model, None, _TABLE_NAMES.get(provider, provider), None)[1])
    except LookupError:
        return None
