"""The rules by which a budget admits a call or denies it. A new rule is a function here, and its place in `RULES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...errors import BudgetExceededError
from .denial import limit_exceeded, unknown_price
from .limits import BudgetLimits, slack
from .spending import Estimate, Spending


@dataclass(frozen=True, slots=True)
class Standing:
    """What a rule knows of the budget and of the call that asks to be sent."""

    budget: str
    """The budget's name."""
    limits: BudgetLimits
    """The budget's limits."""
    spending: Spending
    """What is spent and held."""
    unpriced_model: str | None
    """A model whose call has ended at an unknown cost, so that the sum in USD is too low."""
    estimate: Estimate
    """What the call is expected to use."""
    llm_calls: int
    """1 for a call, 0 for a request that is sent again for a call that was admitted before."""


def price_is_known(standing: Standing) -> BudgetExceededError | None:
    """A limit in USD needs the price of a call, unless its reply will name the cost."""
    estimate = standing.estimate
    if not standing.limits.needs_known_prices or estimate.cost_usd is not None:
        return None
    if standing.llm_calls and estimate.reports_cost:
        return None
    remedy = "Add a price by set_prices(), or pass on_unknown_price='zero'"
    return _unknown_price(standing, f"the price of {estimate.model} is unknown", remedy)


def spending_is_known(standing: Standing) -> BudgetExceededError | None:
    """A limit in USD needs the cost of every call before."""
    if not (standing.limits.needs_known_prices and standing.llm_calls and standing.unpriced_model):
        return None
    remedy = "Begin a new budget, or pass on_unknown_price='zero'"
    return _unknown_price(standing, f"the cost of a call to {standing.unpriced_model} stayed unknown", remedy)


def _unknown_price(standing: Standing, why: str, remedy: str) -> BudgetExceededError:
    limit = standing.limits.max_cost_usd or 0.0
    return unknown_price(standing.budget, limit, standing.spending.so_far(), why, remedy)


def limits_leave_room(standing: Standing) -> BudgetExceededError | None:
    """What is spent, held and expected must fit into every limit."""
    estimate, llm_calls = standing.estimate, standing.llm_calls
    wanted = {"cost_usd": estimate.cost_usd or 0.0, "tokens": estimate.tokens, "llm_calls": llm_calls}
    for kind, limit in standing.limits.by_kind.items():
        taken = getattr(standing.spending.spent, kind) + getattr(standing.spending.held, kind)
        is_full = taken >= limit - slack(kind, limit) and (llm_calls or kind != "llm_calls")
        if is_full or taken + wanted[kind] > limit + slack(kind, limit):
            return limit_exceeded(standing.budget, kind, limit, standing.spending, wanted[kind])
    return None


RULES: tuple[Callable[[Standing], BudgetExceededError | None], ...] = (
    price_is_known,
    spending_is_known,
    limits_leave_room,
)
"""Every rule, in the order in which they are asked; the first denial counts."""
