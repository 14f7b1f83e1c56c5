"""The price table of `genai-prices`, and the arithmetic of a call.

The common case (input, cached input, reasoning, output, no condition) is summed here, in whole numbers, so that sums
are exact and each cost is rounded once, to the nearest float. Everything else is left to `genai-prices` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..types import LLMUsage
from .table_usage import FIELD_OF_USAGE_KEY, USAGE_FIELDS, is_charged_otherwise, table_usage, unpriced_parts

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, Provider, TieredPrices

_SCALE = 10**18
"""Rates are kept as whole numbers of 1e-18 USD: finer than any price that was ever published."""
_MILLION = 10**6
_MAX_MATCHED_MODELS = 1024
_TABLE_NAMES = {
    "azure_openai": "azure",
    "azure_openai_responses": "azure",
    "gemini": "google",
    "openai_responses": "openai",
    "xai": "x-ai",
}
"""Our provider names where `genai-prices` spells them otherwise."""
_NONE: Mapping[str, str] = MappingProxyType({})
_STANDARD = frozenset(
    {"", "auto", "default", "global", "none", "normal", "not_available", "on_demand", "realtime", "standard"}
)
"""Values of a condition that say that nothing is special about the call."""


class Cost(NamedTuple):
    """What a call costs, and in which parts."""

    usd: float
    """USD for the whole call."""
    input_usd: float
    """USD for the input."""
    output_usd: float
    """USD for the output."""
    fees_usd: float
    """USD for requests, searches, and whatever else is neither input nor output."""
    partial: tuple[str, ...] = ()
    """What has no rate of its own."""
    table: str | None = None
    """Which price data it comes from."""

    @classmethod
    def of_units(cls, for_input: int, for_output: int, fees: int) -> Cost:
        """A cost from sums in units of 1 / (`_SCALE` * `_MILLION`) USD."""
        unit = _SCALE * _MILLION
        return cls((for_input + for_output + fees) / unit, for_input / unit, for_output / unit, fees / unit)


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

    @property
    def is_zero(self) -> bool:
        """Whether nothing is charged, however large the prompt."""
        return not self.base and not any(rate for _, rate in self.steps)

    def at(self, prompt_tokens: int) -> int:
        """The rate for a prompt of that size."""
        rate = self.base
        for size, higher in self.steps:
            if prompt_tokens > size:
                rate = higher
        return rate


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the input or of the output that has a rate of its own."""

    field: str
    """The field of `LLMUsage` that counts it."""
    rate: Rate
    """What it costs."""
    without: str | None = None
    """A field whose tokens are in `field` too, and have a rate of their own before this one."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of one price; `None` where it has none of that kind."""

    input: Rate | None
    """For input tokens."""
    output: Rate | None
    """For output tokens."""
    input_parts: tuple[Part, ...] = ()
    """The parts of the input with rates of their own; the others cost what input costs."""
    output_parts: tuple[Part, ...] = ()
    """The parts of the output, likewise."""
    request: Rate | None = None
    """A fee for a thousand requests."""
    fees: tuple[Part, ...] = ()
    """Fees for a thousand of something that is counted beside the tokens."""
    priced: frozenset[str] = frozenset()
    """All fields of `LLMUsage` that the price has a rate for."""
    beyond: tuple[str, ...] = ()
    """Those of them that the sum here leaves out: where one is used, the library does the sum."""

    @classmethod
    def of_table(cls, price: ModelPrice, field_of: Mapping[str, str]) -> Rates:
        """The rates of the table's price; `field_of` maps its price keys to fields of `LLMUsage`."""
        prices = {key: value for key, value in vars(price).items() if value is not None}
        rate = {key: Rate.of(prices[key]) for key in _SUMMED_HERE if key in prices}
        priced = frozenset(field_of[key] for key in prices if key in field_of)
        return cls(
            input=rate.get("input_mtok"),
            output=rate.get("output_mtok"),
            input_parts=_parts(rate, "cache_read_mtok", "cache_write_mtok"),
            output_parts=_parts(rate, "output_reasoning_mtok"),
            request=rate.get("requests_kcount"),
            priced=priced,
            beyond=tuple(sorted(priced - set(_SUMMED_HERE.values()))),
        )

    @property
    def is_empty(self) -> bool:
        """Whether the price says nothing."""
        return not self.priced and self.request is None

    @property
    def is_zero(self) -> bool:
        """Whether input and output are free."""
        return all(rate is not None and rate.is_zero for rate in (self.input, self.output))

    def cost(self, usage: LLMUsage) -> Cost | None:
        """USD for a call, each token at its own rate; `None` where a rate that is needed is missing."""
        counts = vars(usage)
        prompt, completion = max(counts["prompt_tokens"] or 0, 0), max(counts["completion_tokens"] or 0, 0)
        for_input = _side(counts, prompt, prompt, self.input, self.input_parts)
        for_output = _side(counts, completion, prompt, self.output, self.output_parts)
        if for_input is None or for_output is None:
            return None
        fees = 0 if self.request is None else self.request.at(prompt)
        for fee in self.fees:
            fees += max(counts[fee.field] or 0, 0) * fee.rate.base
        return Cost.of_units(for_input, for_output, fees * 1000)

    def lacks_half(self, usage: LLMUsage) -> bool:
        """Whether a half of the tokens that the price is for was not reported."""
        is_by_tokens = self.input is not None or self.output is not None
        return is_by_tokens and (usage.prompt_tokens is None or usage.completion_tokens is None)


_SUMMED_HERE = {
    "input_mtok": "prompt_tokens",
    "output_mtok": "completion_tokens",
    "cache_read_mtok": "cache_read_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "output_reasoning_mtok": "reasoning_tokens",
    "requests_kcount": "",
}
"""The price keys of the common case, and what they are for."""


def _parts(rates: Mapping[str, Rate], *keys: str) -> tuple[Part, ...]:
    return tuple(Part(_SUMMED_HERE[key], rates[key]) for key in keys if key in rates)


def _side(counts: Mapping[str, Any], left: int, prompt: int, rate: Rate | None, parts: Iterable[Part]) -> int | None:
    """What input or output costs: its parts first, then what is left of it."""
    total = 0
    for part in parts:
        count = counts[part.field]
        if count and part.without is not None:
            count -= counts[part.without] or 0
        if count and count > 0:
            count = min(count, left)  # some servers report more of a part than of the whole
            left -= count
            total += count * part.rate.at(prompt)
    if not left:
        return total
    return None if rate is None else total + left * rate.at(prompt)


@dataclass(frozen=True, slots=True)
class _Matched:
    """A model of the table, and the provider by which it was found."""

    provider: Provider
    model: ModelInfo
    variants: tuple[PriceVariant, ...]
    """Its prices under conditions; none where it is another provider's model, whose conditions do not hold here."""
    priced: frozenset[tuple[str, str]]
    """The conditions that may change its price."""

    @classmethod
    def of(cls, provider: Provider, model: ModelInfo) -> _Matched:
        is_its_own = any(model is own for own in provider.models)
        variants = tuple(model.price_variants or ()) if is_its_own else ()
        priced = frozenset(item for variant in variants if _has_prices(variant) for item in variant.when.items())
        return cls(provider, model, variants, priced)

    def unpriced(self, conditions: Mapping[str, str], at: datetime) -> tuple[str, ...]:
        """The conditions for which the table has no price; one that it lists without a price is none."""
        asked = special(conditions)
        if not asked:
            return ()
        listed = set[tuple[str, str]]()
        for variant in self.variants:
            is_active = variant.constraint is None or variant.constraint.active(at)
            if is_active and all(conditions.get(key) == value for key, value in variant.when.items()):
                listed.update(variant.when.items())
        return tuple(f"{k}={v}" for k, v in asked.items() if (k, v) not in listed)


def _has_prices(variant: PriceVariant) -> bool:
    return any(rate is not None for rate in vars(variant.prices).values())


def special(conditions: Mapping[str, str]) -> dict[str, str]:
    """The conditions that say that something is special about the call."""
    return {key: value for key, value in conditions.items() if value.lower() not in _STANDARD}


class PriceTable:
    """`genai-prices` behind two questions: is a model matched, and what does a call of it cost."""

    def __init__(self) -> None:
        self._current: Callable[[], DataSnapshot] | None = None
        self._snapshot: DataSnapshot | None = None
        self._version = ""
        self._field_of: dict[str, str] = {}
        self._models: dict[tuple[str | None, str], _Matched | None] = {}
        self._rates: dict[int, tuple[ModelPrice, Rates]] = {}

    def is_matched(self, provider: str, model: str) -> bool:
        """Whether a call of that model can be priced (or called unknown) without a slow search."""
        return (provider, model) in self._models

    def match(self, provider: str | None, model: str) -> _Matched | None:
        """Find a model; the first time imports the table and takes 0.1 to 0.4 s, so not on the event loop."""
        snapshot = (self._current or self._load())()
        if snapshot is not self._snapshot or len(self._models) >= _MAX_MATCHED_MODELS:
            self._snapshot, self._models, self._rates = snapshot, {}, {}
        key = (provider, model)
        if key not in self._models:
            self._models[key] = _search(snapshot, provider, model)
        return self._models[key]

    def _load(self) -> Callable[[], DataSnapshot]:
        import genai_prices
        from genai_prices import data_snapshot
        from genai_prices.data_units import unit_data

        self._version = genai_prices.__version__
        fields = {unit["price_key"]: FIELD_OF_USAGE_KEY.get(key, key) for key, unit in unit_data.items()}
        self._field_of = {key: field for key, field in fields.items() if field in USAGE_FIELDS}
        self._current = data_snapshot.get_snapshot
        return self._current

    def cost(
        self, provider: str, model: str, usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
    ) -> Cost | None:
        """USD for a call, or `None` when the table lacks the model or a rate that the call needs.

        Which of a model's prices holds is decided for each call, by date, time of day, conditions and prompt size.
        """
        found = self.match(provider, model)
        if found is None or not found.model.prices:
            return None
        held = _NONE if found.priced.isdisjoint(conditions.items()) else conditions
        price = found.model.get_prices(at, held)
        rates = Rates.of_table(price, self._field_of) if held else self._rates_of(price)
        if rates.is_empty or rates.lacks_half(usage):
            return None
        cost, assumed = self._sum(found, rates, usage, at, held)
        if cost is None:
            return None
        partial = unpriced_parts(usage, rates.priced) + assumed
        if conditions:
            partial += found.unpriced(conditions, at)
        usd, input_usd, output_usd, fees_usd, _, _ = cost
        return Cost(usd, input_usd, output_usd, fees_usd, partial, self._data_version())

    def _sum(
        self, found: _Matched, rates: Rates, usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
    ) -> tuple[Cost | None, tuple[str, ...]]:
        """The cost, and what had to be assumed for it."""
        counts = vars(usage)
        if not conditions and not any(counts[field] for field in rates.beyond):
            return rates.cost(usage), ()
        if not is_charged_otherwise(usage, rates.priced) and rates.cost(usage) is None:
            return None, ()
        counted, assumed = table_usage(usage, rates.priced)
        return _by_library(found, counted, at, conditions), assumed

    def _rates_of(self, price: ModelPrice) -> Rates:
        held = self._rates.get(id(price))
        if held is None:
            held = self._rates[id(price)] = (price, Rates.of_table(price, self._field_of))
        return held[1]

    def _data_version(self) -> str:
        """The version of `genai-prices`, or the day on which its updater fetched newer data."""
        snapshot = self._snapshot
        if snapshot is not None and snapshot.from_auto_update:
            return snapshot.timestamp.date().isoformat()
        return self._version

    def is_free(self, provider: str, model: str, at: datetime) -> bool:
        """Whether the table has the model at zero; of OpenRouter's `:free` ones it has the name and no rates."""
        found, rates = self.match(provider, model), self.rates(provider, model, at)
        if found is None or rates is None:
            return False
        if rates.is_empty:
            return found.model.id.endswith(":free")
        return rates.is_zero

    def rates(self, provider: str | None, model: str, at: datetime) -> Rates | None:
        """The rates that hold for a model, without conditions; `provider=None` is whose model it is by its name."""
        found = self.match(provider, model)
        return None if found is None or not found.model.prices else self._rates_of(found.model.get_prices(at))


def _search(snapshot: DataSnapshot, provider: str | None, model: str) -> _Matched | None:
    name = None if provider is None else _TABLE_NAMES.get(provider, provider)
    try:
        return _Matched.of(*snapshot.find_provider_model(model, None, name, None))
    except LookupError:
        return None


def _by_library(
    found: _Matched, counted: Mapping[str, int | float], at: datetime, conditions: Mapping[str, str]
) -> Cost:
    from genai_prices import Usage

    theirs = found.model.calc_price(
        Usage(**counted), found.provider, genai_request_timestamp=at, price_context=conditions
    )
    total, for_input, for_output = theirs.total_price, theirs.input_price, theirs.output_price
    return Cost(float(total), float(for_input), float(for_output), float(total - for_input - for_output))
