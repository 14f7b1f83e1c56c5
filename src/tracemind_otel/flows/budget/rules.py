"""The rules by which a budget admits or denies a call. A new rule is a function here, with its message, in `RULES`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import BudgetExceededError, BudgetKind
from .limits import BudgetLimits, amount, number, slack
from .spending import BudgetSpent, Estimate, ModelSpending, Spending

_NAMED_MODELS = 5


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
    is_shared: bool = False
    """Whether other processes share the sums: what one reserves is all that they know of its calls."""

    @property
    def wanted(self) -> dict[BudgetKind, float]:
        """What the call asks for, of each kind."""
        estimate = self.estimate
        return {"cost_usd": estimate.cost_usd or 0.0, "tokens": estimate.tokens, "llm_calls": self.llm_calls}


def price_is_known(standing: Standing) -> BudgetExceededError | None:
    """A limit in USD needs the price of a call, unless its reply will name the cost and nobody else must know it."""
    estimate = standing.estimate
    if not standing.limits.needs_known_prices or estimate.cost_usd is not None:
        return None
    if standing.llm_calls and estimate.reports_cost and not standing.is_shared:
        return None
    remedies = ["add a price by set_prices()", "pass on_unknown_price='zero'"]
    if estimate.server is not None:
        remedies.insert(0, f"name the provider of {estimate.server} by configure(hosts=...) or TRACEMIND_HOSTS")
    if estimate.reports_cost:
        remedies.insert(1, "pass reserve_cost_usd")
    remedy = f"{', '.join(remedies[:-1])}, or {remedies[-1]}"
    remedy = remedy[0].upper() + remedy[1:]
    return _unknown_price(standing, f"the price of {estimate.model} is unknown", remedy)


def spending_is_known(standing: Standing) -> BudgetExceededError | None:
    """A limit in USD needs the cost of every call before."""
    if not (standing.limits.needs_known_prices and standing.llm_calls and standing.unpriced_model):
        return None
    remedy = "Begin a new budget, or pass on_unknown_price='zero'"
    return _unknown_price(standing, f"the cost of a call to {standing.unpriced_model} stayed unknown", remedy)


def limits_leave_room(standing: Standing) -> BudgetExceededError | None:
    """What is spent, held and expected must fit into every limit."""
    llm_calls, wanted = standing.llm_calls, standing.wanted
    for kind, limit in standing.limits.by_kind.items():
        taken = getattr(standing.spending.spent, kind) + getattr(standing.spending.held, kind)
        is_full = taken >= limit - slack(kind, limit) and (llm_calls or kind != "llm_calls")
        if is_full or taken + wanted[kind] > limit + slack(kind, limit):
            return limit_exceeded(standing, kind, limit)
    return None


Rule = Callable[[Standing], BudgetExceededError | None]
RULES: tuple[Rule, ...] = (price_is_known, spending_is_known, limits_leave_room)
"""Every rule, in order; the first denial counts."""
LOCAL_RULES: tuple[Rule, ...] = (price_is_known, spending_is_known)
"""The rules of a budget whose sums a shared state keeps, which knows how much room there is."""


def _unknown_price(standing: Standing, why: str, remedy: str) -> BudgetExceededError:
    limit = standing.limits.max_cost_usd or 0.0
    return _denial(standing, "cost_usd", limit, f"cannot be held: {why}; this call was not sent. {remedy}")


def state_is_away(standing: Standing, why: str) -> BudgetExceededError:
    """The shared state did not say whether there is room."""
    kind, limit = next(iter(standing.limits.by_kind.items()))
    remedy = "Pass on_state_away='allow' to send calls meanwhile"
    return _denial(standing, kind, limit, f"cannot be asked: {why}; this call was not sent. {remedy}")


def limit_exceeded(
    standing: Standing, kind: BudgetKind, limit: float, *, retry_after_s: float | None = None
) -> BudgetExceededError:
    """A limit has no room for the call; it may have after so many seconds."""
    wanted = standing.wanted[kind]
    spent, held = standing.spending.so_far(), standing.spending.held
    spent_of_it: float = getattr(spent, kind)
    is_spent = spent_of_it >= limit - slack(kind, limit)
    in_calls = "" if kind == "llm_calls" else f" in {amount('llm_calls', spent.llm_calls)}"
    parts = [f"{number(kind, spent_of_it)} of {amount(kind, limit)} spent{in_calls}{_on_models(kind, spent)}"]
    if held.llm_calls:
        parts.append(f"{amount(kind, getattr(held, kind))} held for calls in flight")
    if not is_spent and kind != "llm_calls":
        parts.append(f"{amount(kind, wanted)} requested")
    said = f"{'is spent' if is_spent else 'has too little left for this call'}: {', '.join(parts)}"
    instead = "stop here" if is_spent or kind == "llm_calls" else "request less"
    if retry_after_s is not None:
        instead = f"wait {_duration(retry_after_s)} until the window ends"
    remedy = f"Raise max_{kind}, or {instead}"
    return _denial(standing, kind, limit, f"{said}; this call was not sent. {remedy}", retry_after_s)


def _denial(
    standing: Standing, kind: BudgetKind, limit: float, message: str, retry_after_s: float | None = None
) -> BudgetExceededError:
    spent = standing.spending.so_far()
    return BudgetExceededError(
        f"budget of {standing.budget!r} {message}",
        budget=standing.budget,
        kind=kind,
        limit=limit,
        spent=getattr(spent, kind),
        spent_on={model.model: getattr(model, kind) for model in _most_first(kind, spent)},
        retry_after_s=retry_after_s,
    )


def _duration(seconds: float) -> str:
    """A time to wait for a person: rounded up, in the largest unit of which it has two or more."""
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{math.ceil(seconds / length)} {unit}"
    return f"{math.ceil(seconds)} s"


def _on_models(kind: BudgetKind, spent: BudgetSpent) -> str:
    models = _most_first(kind, spent)
    if not models:
        return ""
    named = [_on_model(kind, model) for model in models[:_NAMED_MODELS]]
    if len(models) > _NAMED_MODELS:
        named.append(f"and {len(models) - _NAMED_MODELS} more")
    return f" ({', '.join(named)})"


def _on_model(kind: BudgetKind, model: ModelSpending) -> str:
    """`openai/gpt-4o 0.90 USD in 10 calls`."""
    calls = amount("llm_calls", model.llm_calls)
    return f"{model.model} {calls if kind == 'llm_calls' else f'{amount(kind, getattr(model, kind))} in {calls}'}"


def _most_first(kind: BudgetKind, spent: BudgetSpent) -> list[ModelSpending]:
    return sorted(spent.by_model, key=lambda model: getattr(model, kind), reverse=True)
