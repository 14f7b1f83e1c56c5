"""What a call costs, in USD.

Prices come from the user's own (`set_prices`), else from `genai-prices`, whose makers keep them up to date.
All prices are USD per **million** tokens: `gpt-4o-mini` at 0.15 / 0.60 makes 1,000 + 500 tokens cost
0.00045 USD. The matched model is kept, never a cost: tiers by prompt size and prices by date or time of
day are decided for each call. A price that is not known gives `None`, never zero.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple, TypeVarTuple

from ...._base.fork import in_forked_child
from ...._base.once import Once
from ..types import CostSource, LLMResponse, LLMUsage, ReportedCost
from .own_prices import OwnPrices, Price, PriceSource, load_prices
from .own_rates import assumed_overlaps, looks_per_thousand, rates_of
from .price_table import Cost, PriceTable, special
from .table_usage import has_other_measure, unpriced_parts

__all__ = ["Price", "PriceSource", "PricedCall", "estimate_cost", "load_prices", "price_call", "set_prices"]

log = logging.getLogger(__name__)

_FREE_PROVIDERS = frozenset({"fake", "local"})

_NO_CONDITIONS: Mapping[str, str] = MappingProxyType({})

Args = TypeVarTuple("Args")

_own_prices = OwnPrices()
_over_reply = False
_table = PriceTable()


def _make_searcher() -> None:
    """A thread of its own: those of the loop may all be busy with work that waits for the very call to be priced."""
    global _searcher
    _searcher = ThreadPoolExecutor(1, thread_name_prefix="tracemind-prices")


_searcher: ThreadPoolExecutor
_make_searcher()
in_forked_child(_make_searcher)


def set_prices(source: PriceSource, *, over_reply: bool = False) -> None:
    """Use these prices before the table's, replacing the ones set before; an empty list clears them.

    Prices that look like USD per thousand tokens get a warning. For that they are laid beside the table, whose first
    import takes 0.1 to 0.4 s; called on an event loop, this is done in a thread, and the warning comes a little later.

    Args:
        source: a TOML file with `[[price]]` tables, or rows.
        over_reply: let these prices win over a cost that the reply itself names.

    Raises:
        ConfigError: the file cannot be read or a row is wrong; the prices set before then stay.
    """
    global _own_prices, _over_reply
    _own_prices, _over_reply = OwnPrices(load_prices(source)), over_reply
    if not _own_prices:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _check_units(_own_prices)
    else:
        _search_soon(_check_units, _own_prices)


def _check_units(prices: OwnPrices) -> None:
    """Warn of prices that look like USD per thousand tokens; never fails."""
    try:
        for price in prices:
            _check_unit(price)
    except Exception:
        log.exception("the price table failed; the unit of set_prices() is not checked")


def _check_unit(price: Price) -> None:
    provider = None if price.provider is None else price.provider.strip().lower()
    theirs = None if provider in _FREE_PROVIDERS else _table.rates(provider, price.model, datetime.now(UTC))
    if theirs is not None and looks_per_thousand(rates_of(price), theirs):
        log.warning(
            "the prices set for %s are all under a hundredth of the table's: they look like USD per thousand tokens. "
            "Prices are USD per million tokens; multiply them by 1,000",
            price.model,
        )


class PricedCall(NamedTuple):
    """A cost, where it came from, and what it consists of."""

    cost_usd: float
    """USD for the whole call."""
    source: CostSource
    """Where the price came from."""
    input_usd: float | None = None
    """The part for the input; `None` where only the whole is known."""
    output_usd: float | None = None
    """The part for the output, likewise."""
    fees_usd: float | None = None
    """The part for requests, searches and the like, likewise."""
    table: str | None = None
    """The version or date of the price data, or `override`."""
    partial: tuple[str, ...] = ()
    """What has no rate of its own in the price."""

    @classmethod
    def of(cls, cost: Cost, source: CostSource) -> PricedCall:
        """The cost by a price."""
        parts = (cost.input_usd, cost.output_usd, cost.fees_usd, cost.table, cost.partial)
        return cls(cost.usd, source, *parts)

    def beside(self, reported: ReportedCost) -> PricedCall:
        """The same with the fee of a gateway, which is at most what a reply said of its cost."""
        fee_usd = reported.fees_usd or 0.0
        fees_usd = None if self.fees_usd is None else self.fees_usd + fee_usd
        partial = (*self.partial, "upstream_inference_cost", *reported.partial)
        return self._replace(cost_usd=self.cost_usd + fee_usd, fees_usd=fees_usd, partial=partial)

    def on(self, usage: LLMUsage) -> LLMUsage:
        """The usage at this price."""
        return usage.with_cost(
            self.cost_usd,
            self.source,
            input_cost_usd=self.input_usd,
            output_cost_usd=self.output_usd,
            fees_usd=self.fees_usd,
            cost_table=self.table,
            cost_partial=self.partial,
        )


async def price_reply(provider: str, models: Sequence[str], response: LLMResponse, *, at: datetime) -> LLMUsage:
    """The usage of a reply with its cost: the reply's own where it is believed, else by the first price of `models`.

    Args:
        provider: the provider's name.
        models: names to try in order: the model that answered, then the one that was asked for.
        response: the reply.
        at: when the call was made.
    """
    usage = response.usage.sanitized()
    if _names_zero(response):
        await _match_quietly(provider, models)
    reported = _reported(provider, models, response, usage, at)
    if reported is not None:
        return reported
    priced = await price_call(
        provider,
        models,
        usage.billable,
        at=at,
        service_tier=response.service_tier,
        conditions=response.price_conditions,
    )
    return _with_price(usage, priced, response)


def price_reply_now(provider: str, models: Sequence[str], response: LLMResponse, *, at: datetime) -> LLMUsage:
    """The same where nothing can be awaited: without a cost where the table was not searched for the model yet."""
    usage = response.usage.sanitized()
    reported = _reported(provider, models, response, usage, at)
    if reported is not None:
        return reported
    priced = price_now(
        provider,
        models,
        usage.billable,
        at=at,
        service_tier=response.service_tier,
        conditions=response.price_conditions,
    )
    return _with_price(usage, priced, response)


def _with_price(usage: LLMUsage, priced: PricedCall | None, response: LLMResponse) -> LLMUsage:
    if priced is None:
        return usage.without_cost()
    reported = response.reported_cost
    is_whole = reported is None or reported.usd is not None or (_over_reply and priced.source == "override")
    return (priced if reported is None or is_whole else priced.beside(reported)).on(usage)


def _names_zero(response: LLMResponse) -> bool:
    reported = response.reported_cost
    return reported is not None and reported.usd == 0 and not reported.is_declared


def _reported(
    provider: str, models: Sequence[str], response: LLMResponse, usage: LLMUsage, at: datetime
) -> LLMUsage | None:
    """The usage at the reply's own cost; `None` where it has none that is believed."""
    if _over_reply and _own_price(provider, models, at) is not None:
        return None
    reported = response.reported_cost
    if reported is None:
        return _with_its_cost(usage)
    if reported.usd is None or (_names_zero(response) and not _is_free(provider, models, at)):
        return None
    parts = {
        "input_cost_usd": reported.input_usd,
        "output_cost_usd": reported.output_usd,
        "fees_usd": reported.fees_usd,
        "cost_partial": reported.partial,
    }
    told = usage.with_cost(reported.usd, "provider", **parts).sanitized()
    return None if told.cost_usd is None else told


def _with_its_cost(usage: LLMUsage) -> LLMUsage | None:
    """The cost that a client put into its usage came in the reply, unless it says otherwise."""
    if usage.cost_usd is None or usage.cost_source is not None:
        return None if usage.cost_usd is None else usage
    return usage.with_cost(usage.cost_usd, "provider")


def _is_free(provider: str, models: Sequence[str], at: datetime) -> bool:
    return any(_table.is_matched(provider, model) and _table.is_free(provider, model, at) for model in models)


async def _match_quietly(provider: str, models: Sequence[str]) -> None:
    for model in models:
        if not _table.is_matched(provider, model):
            await asyncio.get_running_loop().run_in_executor(_searcher, _search_quietly, provider, model)


async def price_call(
    provider: str,
    models: Sequence[str],
    usage: LLMUsage,
    *,
    at: datetime,
    service_tier: str | None = None,
    conditions: Mapping[str, str] = _NO_CONDITIONS,
) -> PricedCall | None:
    """Price a call by the first of `models` that has a price, and say so once where none has.

    Args:
        provider: the provider's name.
        models: names to try in order: the model that answered, then the one that was asked for.
        usage: what was consumed.
        at: when the call was made; prices have dates and times of day.
        service_tier: the tier that served the call, where known.
        conditions: what else may change the price, by `genai-prices`' names.
    """
    if not _is_used(usage):
        _say_once(provider, models[-1], "the reply reports no tokens")
        return None
    try:
        priced = await find_price(provider, models, usage, at=at, service_tier=service_tier, conditions=conditions)
    except Exception:
        # A reply that was paid for must not be lost to a fault of the table.
        log.exception("the price table failed for %s/%s; the call stays without a cost", provider, models[-1])
        return None
    if priced is None:
        _say_once(provider, models[-1], _why_unpriced(usage))
    return priced


def _is_used(usage: LLMUsage) -> bool:
    return usage.is_known or has_other_measure(usage)


def _why_unpriced(usage: LLMUsage) -> str:
    if usage.is_known and not usage.is_whole:
        return "the reply reports only input or only output, and the price of one is not the price of the call"
    return "its price is not known; set_prices() or configure(prices=...) adds it"


async def find_price(
    provider: str,
    models: Sequence[str],
    usage: LLMUsage,
    *,
    at: datetime,
    service_tier: str | None = None,
    conditions: Mapping[str, str] = _NO_CONDITIONS,
) -> PricedCall | None:
    """The price by the first of `models` that has one, without ever blocking the event loop."""
    if not _is_priced_without_table(provider, models, at):
        for model in models:
            if not _table.is_matched(provider, model):
                await asyncio.get_running_loop().run_in_executor(_searcher, _table.match, provider, model)
    return _price(provider, models, usage, at, _all_conditions(service_tier, conditions))


def price_now(
    provider: str,
    models: Sequence[str],
    usage: LLMUsage,
    *,
    at: datetime,
    service_tier: str | None = None,
    conditions: Mapping[str, str] = _NO_CONDITIONS,
) -> PricedCall | None:
    """Price a call where nothing can be awaited: by the models for which the table was searched before."""
    if not _is_used(usage):
        return None
    if not _is_priced_without_table(provider, models, at):
        models = tuple(model for model in models if _table.is_matched(provider, model))
    return _price(provider, models, usage, at, _all_conditions(service_tier, conditions))


def _all_conditions(service_tier: str | None, others: Mapping[str, str]) -> Mapping[str, str]:
    return others if service_tier is None else {"service_tier": service_tier, **others}


def warm_up(provider: str, model: str) -> None:
    """Search the table in a worker thread, for a call that may end where nothing can be awaited."""
    if _is_priced_without_table(provider, (model,), datetime.now(UTC)) or _table.is_matched(provider, model):
        return
    _search_soon(_search_quietly, provider, model)


def _search_soon(work: Callable[[*Args], None], *args: *Args) -> None:
    try:
        _searcher.submit(work, *args)
    except RuntimeError as error:  # the interpreter ends, and takes no more work
        log.debug("the price table is not searched: %s", error)


def _search_quietly(provider: str, model: str) -> None:
    try:
        _table.match(provider, model)
    except Exception:
        log.exception("the price table failed for %s/%s", provider, model)


UNPRICED = Once()
"""Models of which the log said that their calls have no cost."""


def _say_once(provider: str, model: str, why: str) -> None:
    """One line for each model that has no cost, not one for each call."""
    if UNPRICED.is_new(provider, model):
        log.warning("calls of %s/%s have no cost: %s", provider, model, why)


def _is_priced_without_table(provider: str, models: Sequence[str], at: datetime) -> bool:
    return provider in _FREE_PROVIDERS or _own_price(provider, models, at) is not None


def _own_price(provider: str, models: Sequence[str], at: datetime) -> Price | None:
    """The user's own price, which wins over the table's for either model name."""
    if not _own_prices:
        return None
    found = (_own_prices.find(provider, model, at.date()) for model in models)
    return next((price for price in found if price is not None), None)


def _price(
    provider: str, models: Sequence[str], usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
) -> PricedCall | None:
    own = _own_price(provider, models, at)
    if own is not None:
        return _by_own_price(own, usage, conditions)
    if provider in _FREE_PROVIDERS:
        return PricedCall(0.0, "local")
    for model in models:
        cost = _table.cost(provider, model, usage, at, conditions)
        if cost is not None:
            return PricedCall.of(cost, "local")
    return None


def _by_own_price(price: Price, usage: LLMUsage, conditions: Mapping[str, str]) -> PricedCall | None:
    rates = rates_of(price)
    cost = None if rates.lacks_half(usage) else rates.cost(usage)
    if cost is None:
        return None
    unpriced = tuple(f"{key}={value}" for key, value in special(conditions).items())
    partial = (*unpriced_parts(usage, rates.priced), *assumed_overlaps(rates, usage), *unpriced)
    return PricedCall(cost.usd, "override", cost.input_usd, cost.output_usd, cost.fees_usd, "override", partial)


def estimate_cost(provider: str, model: str, prompt_toks: int, completion_toks: int) -> float | None:
    """USD for a call made now, or `None` when the price is unknown.

    The first call imports the price table (0.1 to 0.4 s); the step does that in a worker thread.

    Example:
        >>> estimate_cost("openai", "gpt-4o-mini", 1_000, 500)
        0.00045
    """
    usage = LLMUsage(prompt_toks, completion_toks, prompt_toks + completion_toks)
    priced = _price(provider.strip().lower(), (model,), usage, datetime.now(UTC), _NO_CONDITIONS)
    return None if priced is None else priced.cost_usd
