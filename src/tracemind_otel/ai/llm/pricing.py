"""What a call costs, in USD.

Prices come from the user's own (`set_prices`), else from `genai-prices`, whose makers keep them up to date.
All prices are USD per **million** tokens: `gpt-4o-mini` at 0.15 / 0.60 makes 1,000 + 500 tokens cost
0.00045 USD. The matched model is kept, never a price: tiers by prompt size and prices by date or time of
day are decided for each call. A price that is not known gives `None`, never zero.
"""

from __future__ import annotations

import asyncio
import logging
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...errors import ConfigError
from .types import CostSource, LLMUsage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

log = logging.getLogger(__name__)

_MILLION = Decimal(1_000_000)
_FREE_PROVIDERS = frozenset({"fake", "local"})
_MAX_MATCHED_MODELS = 1024

_TABLE_NAMES = {
    "azure_openai": "azure",
    "gemini": "google",
    "openai_responses": "openai",
    "xai": "x-ai",
}
"""Our provider names where `genai-prices` spells them otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """A price of the user's own, for one model, in USD per million tokens."""

    model: str
    """The model's exact name."""
    input: Decimal
    """USD per million input tokens."""
    output: Decimal
    """USD per million output tokens."""
    provider: str | None = None
    """The provider's name; `None` for this model at any provider."""
    cache_read: Decimal | None = None
    """USD per million input tokens read from a cache; `None`: the same as `input`."""
    cache_write: Decimal | None = None
    """USD per million input tokens written to a cache; `None`: the same as `input`."""
    effective_from: date | None = None
    """The first day (UTC) on which the price holds; `None`: always."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Price:
        """A price from a table row.

        Raises:
            ConfigError: a field is missing, unknown, or not what it should be; the message names it.
        """
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"price: unknown field {name!r}; allowed are {', '.join(sorted(known))}")
        model = values.get("model")
        if not isinstance(model, str) or not model:
            raise ConfigError(f"price: 'model' is {model!r}; it must be the model's name")
        rates = {
            name: _rate(model, name, values.get(name)) for name in ("input", "output", "cache_read", "cache_write")
        }
        if rates["input"] is None or rates["output"] is None:
            raise ConfigError(f"price of {model!r}: 'input' and 'output' are both needed (USD per million tokens)")
        return cls(
            model=model,
            provider=_provider(model, values.get("provider")),
            input=rates["input"],
            output=rates["output"],
            cache_read=rates["cache_read"],
            cache_write=rates["cache_write"],
            effective_from=_day(model, values.get("effective_from")),
        )


def _rate(model: str, name: str, value: object) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ConfigError(f"price of {model!r}: {name!r} is {value!r}; it must be a number, USD per million tokens")
    rate = Decimal(str(value))
    if not rate.is_finite() or rate < 0:
        raise ConfigError(f"price of {model!r}: {name!r} is {value!r}; it must be zero or more")
    return rate


def _provider(model: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and value.strip():
        return value.strip().lower()
    raise ConfigError(f"price of {model!r}: 'provider' is {value!r}; it must be a provider's name or absent")


def _day(model: str, value: object) -> date | None:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            raise ConfigError(f"price of {model!r}: 'effective_from' is {value!r}; write 2026-11-22") from None
    if isinstance(value, datetime):
        return value.astimezone(UTC).date() if value.tzinfo else value.date()
    if value is None or isinstance(value, date):
        return value
    raise ConfigError(f"price of {model!r}: 'effective_from' is {value!r}; it must be a date")


PriceSource = str | Path | Iterable[Price | Mapping[str, Any]]
"""A TOML file with `[[price]]` tables, or the prices themselves."""


def load_prices(source: PriceSource) -> tuple[Price, ...]:
    """Read prices from a TOML file or from rows.

    Raises:
        ConfigError: the file cannot be read or a row is wrong.
    """
    rows: Iterable[object] = _rows_of_file(Path(source)) if isinstance(source, str | Path) else source
    return tuple(_price_of_row(row) for row in rows)


def _price_of_row(row: object) -> Price:
    if isinstance(row, Price):
        return row
    if not isinstance(row, Mapping):
        raise ConfigError(f"price: {row!r} is not a table of fields")
    return Price.from_mapping(cast("Mapping[str, Any]", row))


def _rows_of_file(path: Path) -> list[object]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"prices: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"prices: {path} is not TOML: {error}") from error
    rows = document.get("price")
    if not isinstance(rows, list):
        raise ConfigError(f"prices: {path} has no [[price]] table")
    return cast("list[object]", rows)


class Overrides:
    """The user's own prices, the newest effective one first."""

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self._by_model: dict[str, list[Price]] = {}
        for price in prices:
            self._by_model.setdefault(price.model, []).append(price)
        for candidates in self._by_model.values():
            candidates.sort(key=lambda price: (price.provider is not None, price.effective_from or date.min))
            candidates.reverse()

    def find(self, provider: str, model: str, day: date) -> Price | None:
        """The price that holds on `day`; one for this provider wins over one for any."""
        for price in self._by_model.get(model, ()):
            if (price.provider is None or _same_provider(price.provider, provider)) and (
                price.effective_from or date.min
            ) <= day:
                return price
        return None


def _same_provider(name: str, other: str) -> bool:
    return name.strip().lower() == other


_overrides = Overrides()


def set_prices(source: PriceSource) -> None:
    """Use these prices before the table's, replacing the ones set before; an empty list clears them.

    Raises:
        ConfigError: the file cannot be read or a row is wrong; the prices set before then stay.
    """
    global _overrides
    _overrides = Overrides(load_prices(source))


@dataclass(frozen=True, slots=True)
class _Rates:
    """The rates of a price that a chat call can use: USD per million tokens, and per thousand requests."""

    input: Decimal | TieredPrices | None
    output: Decimal | TieredPrices | None
    cache_read: Decimal | TieredPrices | None
    cache_write: Decimal | TieredPrices | None
    reasoning: Decimal | TieredPrices | None = None
    requests: Decimal | TieredPrices | None = None


@dataclass(frozen=True, slots=True)
class _Matched:
    """A model of the table."""

    model: ModelInfo
    tiers: frozenset[str]
    """The service tiers that change its price."""

    @classmethod
    def of(cls, model: ModelInfo) -> _Matched:
        """Tiers that are listed without a price of their own cost what everybody pays."""
        variants = model.price_variants or ()
        return cls(
            model,
            frozenset(
                variant.when["service_tier"]
                for variant in variants
                if "service_tier" in variant.when and any(rate is not None for rate in vars(variant.prices).values())
            ),
        )


class PriceTable:
    """`genai-prices` behind the two questions we ask: is a model matched, and what does a call cost."""

    def __init__(self) -> None:
        self._snapshot: object | None = None
        self._models: dict[tuple[str, str], _Matched | None] = {}

    def is_matched(self, provider: str, model: str) -> bool:
        """Whether a call of that model can be priced (or called unknown) without a slow search."""
        return (provider, model) in self._models

    def match(self, provider: str, model: str) -> _Matched | None:
        """Find a model; the first time imports the table and takes 0.1 to 0.4 s, so not on the event loop."""
        from genai_prices import data_snapshot

        snapshot = data_snapshot.get_snapshot()
        if snapshot is not self._snapshot or len(self._models) >= _MAX_MATCHED_MODELS:
            self._snapshot, self._models = snapshot, {}
        key = (provider, model)
        if key not in self._models:
            try:
                table_name = _TABLE_NAMES.get(provider, provider)
                self._models[key] = _Matched.of(snapshot.find_provider_model(model, None, table_name, None)[1])
            except LookupError:
                self._models[key] = None
        return self._models[key]

    def cost(self, provider: str, model: str, usage: LLMUsage, at: datetime, tier: str | None) -> Decimal | None:
        """USD for a call, or `None` when the table lacks the model or a rate that the call needs."""
        found = self.match(provider, model)
        if found is None or not found.model.prices:
            return None
        context = None if tier is None or tier not in found.tiers else {"service_tier": tier}
        return _cost(_rates(found.model.get_prices(at, context)), usage)


def _rates(price: ModelPrice) -> _Rates:
    rate_of = vars(price).get
    return _Rates(
        rate_of("input_mtok"),
        rate_of("output_mtok"),
        rate_of("cache_read_mtok"),
        rate_of("cache_write_mtok"),
        rate_of("output_reasoning_mtok"),
        rate_of("requests_kcount"),
    )


def _cost(rates: _Rates, usage: LLMUsage) -> Decimal | None:
    """Each token at its own rate; `None` where a rate that is needed is missing."""
    prompt, completion = max(usage.prompt_tokens, 0), max(usage.completion_tokens, 0)
    read = _part(usage.cache_read_tokens, prompt, rates.cache_read)
    write = _part(usage.cache_write_tokens, prompt - read, rates.cache_write)
    reasoning = _part(usage.reasoning_tokens, completion, rates.reasoning)
    total = Decimal(0)
    for count, rate in (
        (prompt - read - write, rates.input),
        (read, rates.cache_read),
        (write, rates.cache_write),
        (completion - reasoning, rates.output),
        (reasoning, rates.reasoning),
    ):
        if count:
            if rate is None:
                return None
            total += count * _at_size(rate, prompt)
    fee = Decimal(0) if rates.requests is None else _at_size(rates.requests, prompt) / 1000
    return total / _MILLION + fee


def _part(count: int | None, whole: int, rate: object) -> int:
    """A part that has a rate of its own, clamped: some servers report more of a part than of the whole."""
    return 0 if rate is None or count is None else min(max(count, 0), whole)


def _at_size(rate: Decimal | TieredPrices, prompt_tokens: int) -> Decimal:
    """The rate for a prompt of that size."""
    if isinstance(rate, Decimal):
        return rate
    reached = [tier.price for tier in rate.tiers if prompt_tokens > tier.start]
    return reached[-1] if reached else rate.base


_table = PriceTable()


@dataclass(frozen=True, slots=True)
class PricedCall:
    """A cost and where it came from."""

    cost_usd: float
    source: CostSource


async def price_call(
    provider: str,
    models: Sequence[str],
    usage: LLMUsage,
    *,
    at: datetime,
    service_tier: str | None = None,
) -> PricedCall | None:
    """Price a call by the first of `models` that has a price, without ever blocking the event loop.

    Args:
        provider: the provider's name.
        models: names to try in order: the model that answered, then the one that was asked for.
        usage: what was consumed.
        at: when the call was made; prices have dates and times of day.
        service_tier: the tier that served the call, where known.
    """
    if not usage.is_known:
        _say_once(provider, models[-1], "the reply reports no tokens")
        return None
    try:
        priced = await _find_price(provider, models, usage, at, service_tier)
    except Exception:
        # A reply that was paid for must not be lost to a fault of the table.
        log.exception("the price table failed for %s/%s; the call stays without a cost", provider, models[-1])
        return None
    if priced is None:
        _say_once(provider, models[-1], "its price is not known; set_prices() or configure(prices=...) adds it")
    return priced


_unpriced: set[tuple[str, str]] = set()


def _say_once(provider: str, model: str, why: str) -> None:
    """One line for each model that has no cost, not one for each call."""
    if (provider, model) not in _unpriced and len(_unpriced) < _MAX_MATCHED_MODELS:
        _unpriced.add((provider, model))
        log.warning("calls of %s/%s have no cost: %s", provider, model, why)


async def _find_price(
    provider: str, models: Sequence[str], usage: LLMUsage, at: datetime, service_tier: str | None
) -> PricedCall | None:
    priced = _price_without_table(provider, models, usage, at)
    return priced or await _price_by_table(provider, models, usage, at, service_tier)


async def _price_by_table(
    provider: str, models: Sequence[str], usage: LLMUsage, at: datetime, service_tier: str | None
) -> PricedCall | None:
    for model in models:
        if not _table.is_matched(provider, model):
            await asyncio.to_thread(_table.match, provider, model)
        cost = _table.cost(provider, model, usage, at, service_tier)
        if cost is not None:
            return PricedCall(float(cost), "local")
    return None


def _price_without_table(provider: str, models: Sequence[str], usage: LLMUsage, at: datetime) -> PricedCall | None:
    """The user's own price, which wins for either model name; else zero for a provider that is free by definition."""
    for model in models:
        price = _overrides.find(provider, model, at.date())
        if price is not None:
            cost = _cost(_Rates(price.input, price.output, price.cache_read, price.cache_write), usage)
            return None if cost is None else PricedCall(float(cost), "override")
    return PricedCall(0.0, "local") if provider in _FREE_PROVIDERS else None


def estimate_cost(provider: str, model: str, prompt_toks: int, completion_toks: int) -> float | None:
    """USD for a call made now, or `None` when the price is unknown.

    The first call imports the price table (0.1 to 0.4 s); the step does that in a worker thread.

    Example:
        >>> estimate_cost("openai", "gpt-4o-mini", 1_000, 500)
        0.00045
    """
    provider, now = provider.lower(), datetime.now(UTC)
    usage = LLMUsage(prompt_toks, completion_toks, prompt_toks + completion_toks)
    priced = _price_without_table(provider, (model,), usage, now)
    if priced is not None:
        return priced.cost_usd
    cost = _table.cost(provider, model, usage, now, None)
    return None if cost is None else float(cost)
