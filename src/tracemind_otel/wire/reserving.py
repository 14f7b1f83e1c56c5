"""What a call of another SDK holds of the budgets around it. No waiting: it is between the SDK and its request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import cast

from ..ai.llm.pricing import price_now
from ..ai.llm.usage import LLMUsage
from ..call.estimate import RULE_OF_THUMB, CautiousTokenizer
from ..flows.budget import Estimate, Reservation, current_budget, is_shared, needs_price, reserve_here
from .recognition import ModelCall


def reserve_for(seen: ModelCall, body: bytes | None, server: str | None = None) -> Reservation | None:
    """Hold what a call is expected to use; `None` where there is no budget. Shared ones have yet to be asked.

    Raises:
        BudgetExceededError: the budget has less left; the call must not be sent.
    """
    budget = current_budget()
    if budget is None:
        return None
    tokenizer = CautiousTokenizer() if is_shared(budget) else RULE_OF_THUMB
    prompt = tokenizer.count(strings_in(body), seen.model)
    return held_for(
        seen.provider, seen.model, prompt, seen.max_output, reports_cost=seen.wire.reports_cost, server=server
    )


def held_for(
    provider: str,
    model: str,
    prompt: int = 0,
    output: int = 0,
    *,
    reports_cost: bool = False,
    server: str | None = None,
) -> Reservation | None:
    """Hold so many input and output tokens; `None` where there is no budget. Shared ones have yet to be asked.

    Raises:
        BudgetExceededError: the budget has less left; the call must not be sent.
    """
    budget = current_budget()
    if budget is None:
        return None
    usage = LLMUsage(prompt, output, prompt + output, estimated=True)
    cost = price_now(provider, (model,), usage, at=datetime.now(UTC)) if needs_price(budget) else None
    estimate = Estimate(
        model=f"{provider}/{model}",
        tokens=prompt + output,
        cost_usd=None if cost is None else cost.cost_usd,
        reports_cost=reports_cost,
        server=server,
        is_bounded=output > 0,
    )
    return reserve_here(budget, estimate)


def strings_in(body: bytes | None) -> str:
    """Every string of a request, for counting its tokens."""
    return "\n".join(text for _, text in _strings(body))


def texts_in(body: bytes | None) -> tuple[str, ...]:
    """What a request says, text by text, for keeping each of them out of messages; all other strings are one."""
    said: list[str] = []
    others: list[str] = []
    for name, text in _strings(body):
        (said if name in _SAYING else others).append(text)
    return (*said, "\n".join(others))


_SAYING = frozenset({
    "arguments", "content", "documents", "input", "inputText", "instructions", "message", "output", "prompt", "query",
    "response", "result", "system", "text", "texts",
})  # fmt: skip
"""The fields of requests whose strings are what is said, in any format."""


def _strings(body: bytes | None) -> Iterator[tuple[str, str]]:
    """Every string of a request, with the name of its field."""
    try:
        document: object = json.loads(body or b"")
    except (ValueError, RecursionError):
        return
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, dict):
            waiting.extend(cast("dict[str, object]", value).items())
        elif isinstance(value, list):
            waiting.extend((name, item) for item in cast("list[object]", value))
