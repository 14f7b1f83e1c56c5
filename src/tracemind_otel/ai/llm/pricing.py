"""What a call costs, in USD.

Prices come from the user's own (`set_prices`), else from `genai-prices`, whose makers keep them up to date.
All prices are USD per **million** tokens: `gpt-4o-mini` at 0.15 / 0.60 makes 1,000 + 500 tokens cost
0.00045 USD. The matched model is kept, never a cost: tiers by prompt size and prices by date or time of
day are decided for each call. A price that is not known gives `None`, never zero.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from ...runtime.context import in_forked_child
from ...runtime.faults import Once
from .own_prices import OwnPrices, Price, PriceSource, load_prices
from .price_table import PriceTable, Rate, Rates
from .types import CostSource, LLMUsage

__all__ = ["Price", "PriceSource", "PricedCall", "estimate_cost", "load_prices", "price_call", "set_prices"]

log = logging.getLogger(__name__)

_FREE_PROVIDERS = frozenset({"fake", "local"})

_own_prices = OwnPrices()
_table = PriceTable()


def _make_searcher() -> None:
    """A thread of its own: those of the loop may all be busy with work that waits for the very call to be priced."""
    global _searcher
    _searcher = ThreadPoolExecutor(1, thread_name_prefix="tracemind-prices")


_searcher: ThreadPoolExecutor
_make_searcher()
in_forked_child(_make_searcher)


def set_prices(source: PriceSource) -> None:
    """Use these prices before the table's, replacing the ones set before; an empty list clears them.

    Raises:
        ConfigError: the file cannot be read or a row is wrong; the prices set before then stay.
    """
    global _own_prices
    _own_prices = OwnPrices(load_prices(source))


@dataclass(frozen=True, slots=True)
class PricedCall:
    """A cost and where it came from."""

    cost_usd: float
    """USD for the whole call."""
    source: CostSource
    """Where the price came from."""


async def price_call(
    provider: str,
    models: Sequence[str],
    usage: LLMUsage,
    *,
    at: datetime,
    service_tier: str | None = None,
) -> PricedCall | None:
    """Price a call by the first of `models` that has a price, and say so once where none has.

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
        priced = await find_price(provider, models, usage, at=at, service_tier=service_tier)
    except Exception:
        # A reply that was paid for must not be lost to a fault of the table.
        log.exception("the price table failed for %s/%s; the call stays without a cost", provider, models[-1])
        return None
    if priced is None:
        _say_once(provider, models[-1], "its price is not known; set_prices() or configure(prices=...) adds it")
    return priced


async def find_price(
    provider: str, models: Sequence[str], usage: LLMUsage, *, at: datetime, service_tier: str | None = None
) -> PricedCall | None:
    """The price by the first of `models` that has one, without ever blocking the event loop."""
    if not _is_priced_without_table(provider, models, at):
        for model in models:
            if not _table.is_matched(provider, model):
                await asyncio.get_running_loop().run_in_executor(_searcher, _table.match, provider, model)
    return _price(provider, models, usage, at, service_tier)


def price_now(provider: str, models: Sequence[str], usage: LLMUsage, *, at: datetime) -> PricedCall | None:
    """Price a call where nothing can be awaited; `None` too when the table was not searched for its model yet."""
    if not usage.is_known:
        return None
    is_ready = _is_priced_without_table(provider, models, at) or all(_table.is_matched(provider, m) for m in models)
    return _price(provider, models, usage, at, None) if is_ready else None


def warm_up(provider: str, model: str) -> None:
    """Search the table in a worker thread, for a call that may end where nothing can be awaited."""
    if _is_priced_without_table(provider, (model,), datetime.now(UTC)) or _table.is_matched(provider, model):
        return
    try:
        asyncio.get_running_loop().run_in_executor(_searcher, _search_quietly, provider, model)
    except RuntimeError as error:  # the interpreter ends, and takes no more work
        log.debug("the price of %s/%s is not looked for: %s", provider, model, error)


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
    provider: str, models: Sequence[str], usage: LLMUsage, at: datetime, service_tier: str | None
) -> PricedCall | None:
    own = _own_price(provider, models, at)
    if own is not None:
        cost = _rates_of(own).cost(usage)
        return None if cost is None else PricedCall(cost, "override")
    if provider in _FREE_PROVIDERS:
        return PricedCall(0.0, "local")
    for model in models:
        cost = _table.cost(provider, model, usage, at, service_tier)
        if cost is not None:
            return PricedCall(cost, "local")
    return None


def _rates_of(price: Price) -> Rates:
    rates = (price.input, price.output, price.cache_read, price.cache_write)
    return Rates(*(None if rate is None else Rate.of(rate) for rate in rates))


def estimate_cost(provider: str, model: str, prompt_toks: int, completion_toks: int) -> float | None:
    """USD for a call made now, or `None` when the price is unknown.

    The first call imports the price table (0.1 to 0.4 s); the step does that in a worker thread.

    Example:
        >>> estimate_cost("openai", "gpt-4o-mini", 1_000, 500)
        0.00045
    """
    usage = LLMUsage(prompt_toks, completion_toks, prompt_toks + completion_toks)
    priced = _price(provider.strip().lower(), (model,), usage, datetime.now(UTC), None)
    return None if priced is None else priced.cost_usd
