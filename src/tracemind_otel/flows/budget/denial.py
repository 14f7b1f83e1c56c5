"""The message of a denial: what was spent on which models, and what to do."""

from __future__ import annotations

from ...errors import BudgetExceededError, BudgetKind
from .limits import slack
from .spending import BudgetSpent, ModelSpending, Spending

_NAMED_MODELS = 5


def limit_exceeded(
    budget: str, kind: BudgetKind, limit: float, spending: Spending, wanted: float
) -> BudgetExceededError:
    """A limit has less left than a call may use.

    Args:
        budget: the budget's name.
        kind: the kind of limit.
        limit: the limit, in USD, tokens or calls.
        spending: what is spent, and held for the calls in flight.
        wanted: what the call may use, in the same unit.
    """
    spent, held = spending.so_far(), spending.held
    spent_of_it: float = getattr(spent, kind)
    is_spent = spent_of_it >= limit - slack(kind, limit)
    parts = [f"{_number(kind, spent_of_it)} of {amount(kind, limit)} {_in_calls(kind, spent)}{_on_models(kind, spent)}"]
    if held.llm_calls:
        parts.append(f"{amount(kind, getattr(held, kind))} held for calls in flight")
    if not is_spent and kind != "llm_calls":
        parts.append(f"{amount(kind, wanted)} requested")
    return BudgetExceededError(
        f"budget of {budget!r} {'is spent' if is_spent else 'has too little left for this call'}: "
        f"{', '.join(parts)}; this call was not sent. "
        f"Raise max_{kind}, or {'stop here' if is_spent or kind == 'llm_calls' else 'request less'}",
        budget=budget,
        kind=kind,
        limit=limit,
        spent=spent_of_it,
        spent_on=_spent_on(kind, spent),
    )


def unknown_price(budget: str, limit: float, spent: BudgetSpent, why: str, remedy: str) -> BudgetExceededError:
    """A limit in USD cannot be held where a price is unknown."""
    return BudgetExceededError(
        f"budget of {budget!r} cannot be held: {why}; this call was not sent. {remedy}",
        budget=budget,
        kind="cost_usd",
        limit=limit,
        spent=spent.cost_usd,
        spent_on=_spent_on("cost_usd", spent),
    )


def amount(kind: BudgetKind, value: float) -> str:
    """An amount for a person: rounded, with its unit."""
    if kind == "cost_usd":
        return f"{_number(kind, value)} USD"
    unit = "token" if kind == "tokens" else "call"
    return f"{_number(kind, value)} {unit if value == 1 else unit + 's'}"


def _number(kind: BudgetKind, value: float) -> str:
    if kind != "cost_usd":
        return str(int(value))
    if 0 < value < 1e-6:
        return f"{value:.2g}"
    whole, _, cents = f"{value:.6f}".rstrip("0").partition(".")
    return f"{whole}.{cents:0<2}"


def _in_calls(kind: BudgetKind, spent: BudgetSpent) -> str:
    return "spent" if kind == "llm_calls" else f"spent in {amount('llm_calls', spent.llm_calls)}"


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


def _spent_on(kind: BudgetKind, spent: BudgetSpent) -> dict[str, float]:
    return {model.model: getattr(model, kind) for model in _most_first(kind, spent)}


def _most_first(kind: BudgetKind, spent: BudgetSpent) -> list[ModelSpending]:
    return sorted(spent.by_model, key=lambda model: getattr(model, kind), reverse=True)
