"""What a call costs, in USD.

The user's own prices (`set_prices`) come first, then those of `genai-prices`. All prices are USD per **million**
tokens: at 0.15 / 0.60, 1,000 input and 500 output tokens of `gpt-4o-mini` cost 0.00045 USD. The matched model is
cached, never a cost, because prices depend on prompt size, date and time of day. An unknown price gives `None`, never
zero.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple, TypeVarTuple

from ...._base.fork import in_forked_child
from ...._base.once import Once
from ...._base.waiting import is_on_event_loop, is_on_trio
from ..types import LLMResponse
from ..usage import LLMUsage
from .own_prices import OwnPrices, Price, PriceSource, load_prices, looks_per_thousand, own_cost, rates_of
from .price_table import NO_CONDITIONS, NOBODYS, PriceTable
from .rates import Cost
from .table_usage import has_other_measure

__all__ = ["Price", "PriceSource", "estimate_cost", "load_prices", "set_prices"]

log = logging.getLogger(__name__)

_FREE_PROVIDERS = frozenset({"fake", "local"})

Args = TypeVarTuple("Args")

_own_prices = OwnPrices()
_over_reply = False
_table = PriceTable()


def _make_searcher() -> None:
    """A thread of its own, because the loop's threads may all wait for the call that is being priced."""
    global _searcher
    _searcher = ThreadPoolExecutor(1, thread_name_prefix="tracemind-prices")


_searcher: ThreadPoolExecutor
_make_searcher()
in_forked_child(_make_searcher)


def set_prices(source: PriceSource, *, over_reply: bool = False) -> None:
    """Use these prices before the table's, replacing the ones set before; an empty list clears them.

    Prices that look like USD per thousand tokens get a warning. The check compares them with the table. On an
    event loop it runs in a thread, and the warning comes a little later.

    Args:
        source: the path of a TOML file with `[[price]]` tables, or the rows.
        over_reply: whether these prices replace a cost that the reply itself names.

    Raises:
        ConfigError: the file cannot be read or a row is wrong; the former prices stay in force.
    """
    global _own_prices, _over_reply
    _own_prices, _over_reply = OwnPrices(load_prices(source)), over_reply
    if not _own_prices:
        return
    if is_on_event_loop():
        _search_soon(_check_units, _own_prices)
    else:
        _check_units(_own_prices)


def _check_units(prices: OwnPrices) -> None:
    """Warn of prices that look like USD per thousand tokens; never fails."""
    try:
        for price in filter(is_in_wrong_unit, prices):
            log.warning(
                "the prices set for %s are all under a hundredth of the table's: they look like USD per thousand "
                "tokens. Prices are USD per million tokens; multiply them by 1,000",
                price.model,
            )
    except Exception:
        log.exception("the price table failed; the units of set_prices() were not checked")


def is_in_wrong_unit(price: Price) -> bool:
    """Whether a price is so far below the table's that it looks like USD per thousand tokens. Loads the table."""
    provider = None if price.provider is None else price.provider.strip().lower()
    theirs = None if provider in _FREE_PROVIDERS else _table.rates(provider, price.model, datetime.now(UTC))
    return theirs is not None and looks_per_thousand(rates_of(price), theirs)


def prices_set() -> tuple[Price, ...]:
    """The user's own prices in force."""
    return tuple(_own_prices)


async def price_reply(provider: str, models: Sequence[str], response: LLMResponse, *, at: datetime) -> LLMUsage:
    """The usage of a reply with its cost: the reply's own if it is trusted, else by the first price of `models`.

    `models` are the model that answered and the requested one. A model whose replies have no cost is logged once.
    """
    unmatched = _table.unmatched(provider, models)
    if unmatched and _needs_table(provider, models, response, at):
        await _match(provider, unmatched)
    return _said_if_unpriced(provider, models, price_reply_now(provider, models, response, at=at))


def _said_if_unpriced(provider: str, models: Sequence[str], usage: LLMUsage) -> LLMUsage:
    if usage.cost_usd is None and UNPRICED.is_new(provider, models[-1]):
        log.warning("calls of %s/%s have no cost: %s", provider, models[-1], _why_unpriced(provider, usage.billable))
    return usage


def price_reply_now(provider: str, models: Sequence[str], response: LLMResponse, *, at: datetime) -> LLMUsage:
    """The same without awaiting, by the models that were found in the table before."""
    usage = response.usage.sanitized()
    reported = _reported(provider, models, response, usage, at)
    if reported is not None:
        return reported
    try:
        cost = _cost_of_reply(provider, models, usage.billable, at, response)
    except Exception:
        # A paid reply must not be lost because of a fault in the table.
        log.exception(
            "the price table failed for %s/%s; its calls have no cost without set_prices()", provider, models[-1]
        )
        cost = None
    return usage.with_cost(None, None) if cost is None else cost.of(usage)


def price_reply_soon(
    provider: str,
    models: Sequence[str],
    response: LLMResponse,
    done: Callable[[LLMUsage], None],
    *,
    at: datetime,
    unknown_server: UnknownServer | None = None,
) -> None:
    """The same for code that does not await: `done` gets the usage. `unknown_server` is that of an unknown provider.

    That is at once, unless the table is not loaded yet and an event loop would wait for it: then a worker thread loads
    it, prices the reply and calls `done`.
    """
    unmatched = _table.unmatched(provider, models)
    if unmatched and not _needs_table(provider, models, response, at):
        unmatched = []

    def search_and_price() -> None:
        for model in unmatched:
            _match_quietly(provider, model)
        usage = price_reply_now(provider, models, response, at=at)
        if unknown_server is None or not usage.is_whole:
            _said_if_unpriced(provider, models, usage)
        elif usage.cost_usd is None and UNPRICED.is_new(provider, unknown_server.name):
            _say_that_it_is_unknown(unknown_server)
        done(usage)

    if unmatched and not _table.is_loaded and is_on_event_loop():
        _search_soon(search_and_price)
    else:
        search_and_price()


class UnknownServer(NamedTuple):
    """A server whose provider nobody has named."""

    name: str
    """Its host, with the port where it is no default."""
    speaks: str
    """The provider that invented the format in which it answers."""


def _say_that_it_is_unknown(server: UnknownServer) -> None:
    log.warning(
        'calls to %s have no cost: nobody knows whose prices hold there; write tm.configure(hosts={"%s": "%s"}) if '
        "they are those of %s, or add a price by set_prices()",
        server.name,
        server.name,
        server.speaks,
        server.speaks,
    )


def _cost_of_reply(
    provider: str, models: Sequence[str], usage: LLMUsage, at: datetime, response: LLMResponse
) -> Cost | None:
    if not _is_used(usage):
        return None
    tier, conditions, reported = response.service_tier, response.price_conditions, response.reported_cost
    held = conditions if tier is None else {"service_tier": tier, **conditions}
    cost = _cost(provider, models, usage, at, held)
    if cost is None or reported is None or reported.usd is not None or (_over_reply and cost.cost_source == "override"):
        return cost
    return cost.beside(reported)


def _names_zero(response: LLMResponse) -> bool:
    reported = response.reported_cost
    return reported is not None and reported.usd == 0 and not reported.is_declared


def _reported(
    provider: str, models: Sequence[str], response: LLMResponse, usage: LLMUsage, at: datetime
) -> LLMUsage | None:
    """The usage at the reply's own cost; `None` where it has none that is trusted."""
    if _over_reply and _own_price(provider, models, at) is not None:
        return None
    reported = response.reported_cost
    if reported is None:
        if usage.cost_usd is not None and usage.cost_source is None:
            return usage.with_cost(usage.cost_usd, "provider")  # a client set it, so the reply names it
        return None if usage.cost_usd is None else usage
    if reported.usd is None:
        return None
    matched = (model for model in models if _table.is_matched(provider, model))
    if _names_zero(response) and not any(_table.is_free(provider, model, at) for model in matched):
        return None
    parts = (reported.input_usd, reported.output_usd, reported.fees_usd, reported.partial)
    told = Cost(reported.usd, *parts, cost_source="provider").of(usage).sanitized()
    return None if told.cost_usd is None else told


def _is_used(usage: LLMUsage) -> bool:
    return usage.is_known or has_other_measure(usage)


def _why_unpriced(provider: str, usage: LLMUsage) -> str:
    if not _is_used(usage):
        return "the reply reports no tokens"
    if usage.is_known and not usage.is_whole:
        return "the reply reports only input or only output, and the price of one is not the price of the call"
    if provider == NOBODYS:
        return "its provider is unknown; pass provider_name= to LLMClientFactory.make(), or add a price by set_prices()"
    return "its price is unknown; add it by set_prices() or configure(prices=...)"


UNPRICED = Once()
"""Models that were logged as having no cost."""


async def find_price(provider: str, models: Sequence[str], usage: LLMUsage, *, at: datetime) -> Cost | None:
    """The cost by the first of `models` that has a price; never blocks the event loop."""
    unmatched = _table.unmatched(provider, models)
    if unmatched and not _is_priced_without_table(provider, models, at):
        await _match(provider, unmatched)
    return _cost(provider, models, usage, at, NO_CONDITIONS)


def price_now(provider: str, models: Sequence[str], usage: LLMUsage, *, at: datetime) -> Cost | None:
    """The same without awaiting: the first call of a process may load the table here."""
    if not _is_priced_without_table(provider, models, at):
        for model in _table.unmatched(provider, models):
            _match_quietly(provider, model)
    return _cost(provider, models, usage, at, NO_CONDITIONS)


def price_at_hand(provider: str, models: Sequence[str], usage: LLMUsage, *, at: datetime) -> Cost | None:
    """The same, but where an event loop would wait for the table it is loaded elsewhere, and there is no price yet."""
    if not table_is_loaded() and is_on_event_loop() and not _is_priced_without_table(provider, models, at):
        warm_up(provider, models[0])
        return None
    return price_now(provider, models, usage, at=at)


def _needs_table(provider: str, models: Sequence[str], response: LLMResponse, at: datetime) -> bool:
    """Whether neither the reply nor the user's own prices give the cost."""
    if _names_zero(response):
        return True
    usage = response.usage.sanitized()
    is_priced = _is_priced_without_table(provider, models, at)
    return not is_priced and _is_used(usage) and _reported(provider, models, response, usage, at) is None


async def _match(provider: str, models: Sequence[str]) -> None:
    for model in models:
        await asyncio.get_running_loop().run_in_executor(_searcher, _match_quietly, provider, model)


def table_is_loaded() -> bool:
    """Whether the table is there, so that a price is found in less than a millisecond."""
    return _table.is_loaded


def load_table() -> None:
    """Load the table here and now, which takes some milliseconds, or longer where the library itself is needed."""
    if not _table.is_loaded:
        _match_quietly("openai", "")


async def until_table_is_loaded() -> None:
    """Load the table in a worker thread, and wait for it without blocking the event loop."""
    if _table.is_loaded:
        return
    if is_on_trio():
        await sys.modules["trio"].to_thread.run_sync(load_table)
    else:
        await _match("openai", ("",))


def warm_up(provider: str, model: str) -> None:
    """Search the table in a worker thread, for a call that may end without awaiting."""
    if _table.is_matched(provider, model) or _is_priced_without_table(provider, (model,), datetime.now(UTC)):
        return
    _search_soon(_match_quietly, provider, model)


def _search_soon(work: Callable[[*Args], None], *args: *Args) -> None:
    try:
        _searcher.submit(work, *args)
    except RuntimeError as error:  # the interpreter is shutting down
        log.debug("the price table is not searched: %s", error)


def _match_quietly(provider: str, model: str) -> None:
    try:
        _table.match(provider, model)
    except Exception:
        log.exception("the price table failed for %s/%s", provider, model)


def _is_priced_without_table(provider: str, models: Sequence[str], at: datetime) -> bool:
    return provider in _FREE_PROVIDERS or _own_price(provider, models, at) is not None


def _own_price(provider: str, models: Sequence[str], at: datetime) -> Price | None:
    """The user's own price for any of the names, which comes before the table's."""
    if not _own_prices:
        return None
    found = (_own_prices.find(provider, model, at.date()) for model in models)
    return next((price for price in found if price is not None), None)


def _cost(
    provider: str, models: Sequence[str], usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
) -> Cost | None:
    """The cost by the user's own price, else by the first model with a price in the table."""
    own = _own_price(provider, models, at)
    if own is not None:
        return own_cost(own, usage, conditions)
    if provider in _FREE_PROVIDERS:
        return Cost(0.0)
    for model in models:
        if _table.is_matched(provider, model):
            cost = _table.cost(provider, model, usage, at, conditions)
            if cost is not None:
                return cost
    return None


def estimate_cost(provider: str, model: str, prompt_toks: int, completion_toks: int) -> float | None:
    """USD for a call made now, or `None` when the price is unknown.

    The first call loads the price table, which takes some milliseconds; the step does that in a worker thread.

    Example:
        >>> estimate_cost("openai", "gpt-4o-mini", 1_000, 500)
        0.00045
    """
    usage, at = LLMUsage(prompt_toks, completion_toks, prompt_toks + completion_toks), datetime.now(UTC)
    provider = provider.strip().lower()
    if not _is_priced_without_table(provider, (model,), at):
        _table.match(provider, model)
    cost = _cost(provider, (model,), usage, at, NO_CONDITIONS)
    return None if cost is None else cost.cost_usd
