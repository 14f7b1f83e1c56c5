"""What the model calls of each test spent: heard from the calls themselves, whatever recorder or provider they have."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..errors import BudgetExceededError
from ..flows.totals import current_flow
from ..recording.port import Recorder, StepEnd, StepHandle, StepStart

_PARTS_OF_A_DOLLAR = 12
"""Decimal places of a cost, so that the order of a sum does not show."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanSpending:
    """What the calls of one span name spent on one model in one test."""

    span: str
    """The flows around the calls, the step, and the operation."""
    model: str
    """`provider/model`, as asked for."""
    calls: int = 0
    """Model calls, failed ones included."""
    retries: int = 0
    """Failed attempts that were repeated."""
    input_tokens: int = 0
    """Input tokens, cached ones included."""
    cached_tokens: int = 0
    """Input tokens that were read from a cache."""
    output_tokens: int = 0
    """Output tokens, reasoning included."""
    uncounted: int = 0
    """Replies that do not say how many tokens they used."""
    unpriced: int = 0
    """Replies whose cost is unknown; it is missing from `cost_usd`."""
    cost_usd: float = 0.0
    """USD of the replies that have a price."""
    prices: str = ""
    """The version of the prices."""

    @property
    def name(self) -> str:
        """The span as a report names it."""
        return f"{self.span} {self.model.partition('/')[2]}"


@dataclass(slots=True)
class Spending:
    """What one test, or whatever ran outside of tests, spent."""

    name: str
    """The id of the test."""
    calls: list[SpanSpending] = field(default_factory=list[SpanSpending])
    """The calls that have ended, one by one."""

    def rows(self) -> list[SpanSpending]:
        """The sums by span and model, in an order that does not depend on the calls' order."""
        return summed(self.calls)


def summed(rows: Iterable[SpanSpending]) -> list[SpanSpending]:
    """The sums by span and model, sorted."""
    groups: dict[tuple[str, str], list[SpanSpending]] = {}
    for row in rows:
        groups.setdefault((row.span, row.model), []).append(row)
    return [total_of(group, span=span, model=model) for (span, model), group in sorted(groups.items())]


def total_of(rows: Iterable[SpanSpending], *, span: str = "", model: str = "") -> SpanSpending:
    """The sum of some rows."""
    group = list(rows)
    return SpanSpending(
        span=span,
        model=model,
        calls=sum(row.calls for row in group),
        retries=sum(row.retries for row in group),
        input_tokens=sum(row.input_tokens for row in group),
        cached_tokens=sum(row.cached_tokens for row in group),
        output_tokens=sum(row.output_tokens for row in group),
        uncounted=sum(row.uncounted for row in group),
        unpriced=sum(row.unpriced for row in group),
        cost_usd=round(math.fsum(row.cost_usd for row in group), _PARTS_OF_A_DOLLAR),
        prices=", ".join(sorted({row.prices for row in group if row.prices})),
    )


class CallLog(Recorder):
    """Adds each call to the test during which it began."""

    def __init__(self) -> None:
        self._current = Spending("outside of tests")

    @property
    def current(self) -> Spending:
        """Where calls are added now."""
        return self._current

    @contextmanager
    def adding_to(self, spending: Spending) -> Generator[None]:
        """Add the calls that begin in this block, in any thread, to one test."""
        before, self._current = self._current, spending
        try:
            yield
        finally:
            self._current = before

    def begin_step(self, start: StepStart) -> StepHandle:
        return _LoggedCall(self._current, _span_name(start), f"{start.provider}/{start.model}")


class _LoggedCall(StepHandle):
    __slots__ = ("_has_ended", "_model", "_span", "_spending")

    def __init__(self, spending: Spending, span: str, model: str) -> None:
        self._spending, self._span, self._model, self._has_ended = spending, span, model, False

    def end(self, end: StepEnd) -> None:
        was_ended, self._has_ended = self._has_ended, True
        if not was_ended and not isinstance(end.error, BudgetExceededError):  # a denied call was not sent
            call = SpanSpending(span=self._span, model=self._model, calls=1, retries=end.retries, **_used(end))
            self._spending.calls.append(call)


def _used(end: StepEnd) -> dict[str, Any]:
    usage = end.usage
    if usage is None:
        return {}
    return {
        "input_tokens": usage.prompt_tokens or 0,
        "cached_tokens": usage.cache_read_tokens or 0,
        "output_tokens": usage.completion_tokens or 0,
        "uncounted": int(not usage.is_whole),
        "unpriced": int(usage.cost_usd is None),
        "cost_usd": usage.cost_usd or 0.0,
        "prices": usage.cost_table or "",
    }


def _span_name(start: StepStart) -> str:
    names: list[str] = []
    flow = current_flow()
    while flow is not None:
        names.append(flow.name)
        flow = flow.parent
    if start.step_id and start.step_id != start.model:
        names.insert(0, start.step_id)
    return " > ".join([*reversed(names), start.operation])
