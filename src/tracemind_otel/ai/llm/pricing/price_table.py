"""The price table of `genai-prices`, and the arithmetic of a call.

The common case (input, cached input, reasoning, output, no condition) is summed here in whole numbers, so that sums are
exact and each cost is rounded once. `genai-prices` itself computes everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ...._base.fork import hold_over_fork
from ..usage import CostSource, LLMUsage, ReportedCost
from .table_usage import FIELD_OF_USAGE_KEY, USAGE_FIELDS, is_charged_otherwise, table_usage, unpriced_parts, used_parts

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, PriceVariant, Provider, TieredPrices

# Held by a thread that forks: a child that inherits the lock of a half-done import could never import the table.
_loading = threading.RLock()
hold_over_fork(_loading, timeout_s=5.0)

_SCALE = 10**18
"""The unit of a rate is 1e-18 USD, finer than any published price."""
_UNITS_PER_USD = _SCALE * 10**6
"""The unit of a rate per million tokens, times tokens, is 1e-24 USD."""
Units = tuple[int, int, int]
"""Sums for input, output and fees, in units of 1 / `_UNITS_PER_USD` USD."""
_MAX_MATCHED_MODELS = 1024
_TABLE_NAMES = {
    "azure_openai": "azure",
    "azure_openai_responses": "azure",
    "gemini": "google",
    "openai_responses": "openai",
    "xai": "x-ai",
}
"""Provider names that `genai-prices` spells differently."""
NOBODYS = "openai_compatible"
"""The provider name of an unknown server. `genai-prices` would match it to OpenAI because of its prefix."""
NO_CONDITIONS: Mapping[str, str] = MappingProxyType({})
_STANDARD = frozenset(
    {"", "auto", "default", "global", "none", "normal", "not_available", "on_demand", "realtime", "standard"}
)
"""Values of a condition that mean the normal price."""


class Cost(NamedTuple):
    """The cost of a call, its parts and the price behind it: the fields of `LLMUsage` with these names."""

    cost_usd: float
    input_cost_usd: float | None = None
    output_cost_usd: float | None = None
    fees_usd: float | None = None
    cost_partial: tuple[str, ...] = ()
    cost_table: str | None = None
    cost_source: CostSource = "local"
    cached_cost_usd: float | None = None

    def beside(self, reported: ReportedCost) -> Cost:
        """The same with the fee of a gateway added, the only cost that its reply names."""
        fee_usd = reported.fees_usd or 0.0
        fees_usd = None if self.fees_usd is None else self.fees_usd + fee_usd
        partial = (*self.cost_partial, "upstream_inference_cost", *reported.partial)
        return self._replace(cost_usd=self.cost_usd + fee_usd, fees_usd=fees_usd, cost_partial=partial)

    def of(self, usage: LLMUsage) -> LLMUsage:
        """The usage at this cost."""
        fields: dict[str, Any] = dict(zip(self._fields, self, strict=True))
        return usage.with_cost(**fields)


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of a million tokens, which may depend on the prompt size."""

    base: int
    """Price in units of 1 / `_SCALE` USD."""
    steps: tuple[tuple[int, int], ...] = ()
    """Prompt sizes in tokens and the rate above each; the smallest size first."""

    @classmethod
    def of(cls, price: Decimal | TieredPrices | None) -> Rate | None:
        """The rate of a price."""
        if price is None or isinstance(price, Decimal):
            return None if price is None else cls(int(price * _SCALE))
        return cls(int(price.base * _SCALE), tuple((tier.start, int(tier.price * _SCALE)) for tier in price.tiers))

    def at(self, prompt_tokens: int) -> int:
        """The rate for a prompt size in tokens."""
        rate = self.base
        for size, higher in self.steps:
            if prompt_tokens > size:
                rate = higher
        return rate


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the input or of the output that has a rate of its own."""

    field: str
    """The counting field of `LLMUsage`."""
    rate: Rate
    """Its rate."""
    without: str | None = None
    """A field whose tokens `field` includes, but which were priced before."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of one price; `None` for a kind without a rate."""

    input: Rate | None
    """For input tokens."""
    output: Rate | None
    """For output tokens."""
    input_parts: tuple[Part, ...] = ()
    """Parts of the input with rates of their own; the rest costs the input rate."""
    output_parts: tuple[Part, ...] = ()
    """Parts of the output with rates of their own; the rest costs the output rate."""
    request: Rate | None = None
    """A fee for a thousand requests."""
    fees: tuple[Part, ...] = ()
    """Fees for a thousand of what is counted beside the tokens."""
    priced: frozenset[str] = frozenset()
    """All fields of `LLMUsage` with a rate."""
    beyond: frozenset[str] = frozenset()
    """The priced fields that only `genai-prices` can sum."""

    @classmethod
    def of_table(cls, price: ModelPrice, field_of: Mapping[str, str]) -> Rates:
        """The rates of the table's price; `field_of` maps its price keys to fields of `LLMUsage`."""
        get = vars(price).get
        priced = frozenset(field for key, field in field_of.items() if get(key) is not None)
        read, written = get("cache_read_mtok"), get("cache_write_mtok")
        return cls(
            input=Rate.of(get("input_mtok")),
            output=Rate.of(get("output_mtok")),
            input_parts=parts(("cache_read_tokens", read, None), ("cache_write_tokens", written, None)),
            output_parts=parts(("reasoning_tokens", get("output_reasoning_mtok"), None)),
            request=Rate.of(get("requests_kcount")),
            priced=priced,
            beyond=priced - _SUMMED_HERE,
        )

    @property
    def is_empty(self) -> bool:
        """Whether the price has no rates."""
        return not self.priced and self.request is None

    @property
    def is_zero(self) -> bool:
        """Whether input and output are free, however large the prompt."""
        halves = (self.input, self.output)
        return all(rate is not None and not any((rate.base, *dict(rate.steps).values())) for rate in halves)

    def units(self, usage: LLMUsage) -> Units | None:
        """The cost of a call with each token at its own rate; `None` if a needed rate is missing."""
        counts = vars(usage)
        prompt, completion = max(usage.prompt_tokens or 0, 0), max(usage.completion_tokens or 0, 0)
        for_input = _side(counts, prompt, prompt, self.input, self.input_parts)
        for_output = _side(counts, completion, prompt, self.output, self.output_parts)
        if for_input is None or for_output is None:
            return None
        fees = 0 if self.request is None else self.request.at(prompt)
        for fee in self.fees:
            fees += max(counts.get(fee.field) or 0, 0) * fee.rate.base
        return for_input, for_output, fees * 1000

    def cost(
        self, usage: LLMUsage, units: Units, partial: tuple[str, ...], table: str, source: CostSource = "local"
    ) -> Cost:
        """The cost of a call by its `units`; the other arguments are those of `Cost`."""
        for_input, for_output, fees = units
        halves = (for_input / _UNITS_PER_USD, for_output / _UNITS_PER_USD, fees / _UNITS_PER_USD)
        return Cost(sum(units) / _UNITS_PER_USD, *halves, partial, table, source, self._cached_usd(usage))

    def _cached_usd(self, usage: LLMUsage) -> float | None:
        """The part of the cost for tokens read from a cache, if they have a rate of their own."""
        cached, prompt = usage.cache_read_tokens, usage.prompt_tokens or 0
        for part in self.input_parts if cached else ():
            if part.field == "cache_read_tokens":
                return min(cached or 0, prompt) * part.rate.at(prompt) / _UNITS_PER_USD
        return None

    def lacks_half(self, usage: LLMUsage) -> bool:
        """Whether the price is by tokens, and input or output tokens were not reported."""
        is_by_tokens = self.input is not None or self.output is not None
        return is_by_tokens and (usage.prompt_tokens is None or usage.completion_tokens is None)


_SUMMED_HERE = frozenset(
    {"prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"}
)
"""The fields of `LLMUsage` in the common case."""


def parts(*priced: tuple[str, Decimal | TieredPrices | None, str | None]) -> tuple[Part, ...]:
    """The parts that have a price, by the fields of `Part`."""
    rated = ((field, Rate.of(price), without) for field, price, without in priced)
    return tuple(Part(field, rate, without) for field, rate, without in rated if rate is not None)


def _side(counts: Mapping[str, Any], left: int, prompt: int, rate: Rate | None, parts: Iterable[Part]) -> int | None:
    """The cost of input or output: its parts first, then the rest."""
    total = 0
    for part in parts:
        count = counts.get(part.field)
        if count and part.without is not None:
            count -= counts.get(part.without) or 0
        if count and count > 0:
            count = min(count, left)  # some servers report more of a part than of the whole
            left -= count
            total += count * part.rate.at(prompt)
    if not left:
        return total
    return None if rate is None else total + left * rate.at(prompt)


@dataclass(frozen=True, slots=True)
class _Matched:
    """A model of the table, and the provider under which it was found."""

    provider: Provider
    model: ModelInfo
    variants: tuple[PriceVariant, ...]
    """Its prices under conditions; none for a model of another provider, whose conditions differ."""
    priced: frozenset[tuple[str, str]]
    """The conditions that may change its price."""

    @classmethod
    def of(cls, provider: Provider, model: ModelInfo) -> _Matched:
        is_its_own = any(model is own for own in provider.models)
        variants = tuple(model.price_variants or ()) if is_its_own else ()
        with_rates = (each for each in variants if any(rate is not None for rate in vars(each.prices).values()))
        priced = frozenset(item for variant in with_rates for item in variant.when.items())
        return cls(provider, model, variants, priced)

    def unpriced(self, conditions: Mapping[str, str], at: datetime) -> tuple[str, ...]:
        """The conditions that the table does not list, as `key=value`."""
        asked = special(conditions)
        if not asked:
            return ()
        listed = set[tuple[str, str]]()
        for variant in self.variants:
            is_active = variant.constraint is None or variant.constraint.active(at)
            if is_active and all(conditions.get(key) == value for key, value in variant.when.items()):
                listed.update(variant.when.items())
        return tuple(f"{k}={v}" for k, v in asked.items() if (k, v) not in listed)


def special(conditions: Mapping[str, str]) -> dict[str, str]:
    """The conditions that mean another price than the normal one."""
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

    @property
    def is_loaded(self) -> bool:
        """Whether the library and its data are imported, so that a search takes less than a millisecond."""
        return self._current is not None

    def is_matched(self, provider: str, model: str) -> bool:
        """Whether the model was searched before, so that no slow search is needed."""
        return (provider, model) in self._models

    def unmatched(self, provider: str, models: Iterable[str]) -> list[str]:
        """The models not yet searched for in the current data of the library's updater."""
        is_current = self._current is not None and self._current() is self._snapshot
        return [model for model in models if not is_current or (provider, model) not in self._models]

    def match(self, provider: str | None, model: str) -> _Matched | None:
        """Find a model. The first call imports the table, which takes 0.1 to 0.4 s: keep it off the event loop."""
        snapshot = self._loaded() if self._current is None else self._current()
        if snapshot is not self._snapshot or len(self._models) >= _MAX_MATCHED_MODELS:
            self._snapshot, self._models, self._rates = snapshot, {}, {}
        key = (provider, model)
        if key not in self._models:
            self._models[key] = _search(snapshot, provider, model)
        return self._models[key]

    def _loaded(self) -> DataSnapshot:
        with _loading:
            return self._load()

    def _load(self) -> DataSnapshot:
        import genai_prices
        from genai_prices import data_snapshot
        from genai_prices.data_units import unit_data

        self._version = genai_prices.__version__
        fields = {unit["price_key"]: FIELD_OF_USAGE_KEY.get(key, key) for key, unit in unit_data.items()}
        self._field_of = {key: field for key, field in fields.items() if field in USAGE_FIELDS}
        # The first snapshot imports the data. Until it is there the event loop, which asks too, must not wait for it.
        snapshot = data_snapshot.get_snapshot()
        self._current = data_snapshot.get_snapshot
        return snapshot

    def cost(
        self, provider: str, model: str, usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
    ) -> Cost | None:
        """The cost of a call, or `None` when the table lacks the model or a needed rate.

        Date, time of day, conditions and prompt size select the price of each call.
        """
        found = self.match(provider, model)
        if found is None or not found.model.prices:
            return None
        held = NO_CONDITIONS if not conditions or found.priced.isdisjoint(conditions.items()) else conditions
        price = found.model.get_prices(at, held)
        rates = Rates.of_table(price, self._field_of) if held else self._rates_of(price)
        if rates.is_empty or rates.lacks_half(usage):
            return None
        used, units, table = used_parts(usage), rates.units(usage), self._data_version()
        partial = unpriced_parts(used, rates.priced)
        unheld = found.unpriced(conditions, at) if conditions else ()
        if not held and rates.beyond.isdisjoint(used):
            return None if units is None else rates.cost(usage, units, partial + unheld, table)
        if units is None and not is_charged_otherwise(used, rates.priced):
            return None
        counted, assumed = table_usage(usage, rates.priced)
        return _by_library(found, counted, at, held)._replace(cost_partial=partial + assumed + unheld, cost_table=table)

    def _rates_of(self, price: ModelPrice) -> Rates:
        held = self._rates.get(id(price))
        if held is None:
            held = self._rates[id(price)] = (price, Rates.of_table(price, self._field_of))
        return held[1]

    def _data_version(self) -> str:
        """The version of `genai-prices`, or the date of the data that its updater fetched."""
        snapshot = self._snapshot
        if snapshot is not None and snapshot.from_auto_update:
            return snapshot.timestamp.date().isoformat()
        return self._version

    def is_free(self, provider: str, model: str, at: datetime) -> bool:
        """Whether the model costs nothing in the table; OpenRouter's `:free` models have a name there but no rates."""
        found, rates = self.match(provider, model), self.rates(provider, model, at)
        if found is None or rates is None:
            return False
        return found.model.id.endswith(":free") if rates.is_empty else rates.is_zero

    def rates(self, provider: str | None, model: str, at: datetime) -> Rates | None:
        """The rates of a model without conditions; `provider=None` lets its name decide the provider."""
        found = self.match(provider, model)
        return None if found is None or not found.model.prices else self._rates_of(found.model.get_prices(at))


def _search(snapshot: DataSnapshot, provider: str | None, model: str) -> _Matched | None:
    if provider == NOBODYS:
        return None
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
