"""Budgets, what was spent and is held of each, and the innermost budget here."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from ..._base.context import Setting, set_here, surrounding_variable
from ..._base.fork import in_forked_child
from ..._base.once import Once, report_fault
from ...errors import BudgetKind
from .limits import BudgetLimits
from .rules import LOCAL_RULES, RULES, Standing
from .shares import Share
from .spending import BudgetSpent, Estimate, Spending, Use
from .thresholds import BudgetThreshold, ThresholdReports

log = logging.getLogger(__name__)

COUNTED_AS_ZERO = Once()
"""Models that were logged as counting zero."""


class Budget:
    """Limits, and what was spent and is held of them. Calls may begin and end in any thread.

    Args:
        limits: the limits.
        name: the name of the limited flow, for messages.
        parent: the budget around this one.
        on_threshold: called when a half, four fifths and all of a limit are spent, once each.
        on_spent: called with each amount that is spent of a limit, in USD, tokens or calls.
        share: the account in the shared state that has the sums; this object then has this block's part of them.
    """

    def __init__(
        self,
        limits: BudgetLimits,
        *,
        name: str,
        parent: Budget | None = None,
        share: Share | None = None,
        on_threshold: Callable[[BudgetThreshold], None] | None = None,
        on_spent: Callable[[BudgetKind, float], None] | None = None,
    ) -> None:
        self.limits = limits
        self.name = name
        self.parent = parent
        # Re-entrant: a signal handler that flushes may end calls while this thread holds it.
        self._lock = threading.RLock()
        self._spending = Spending()
        self._unpriced_model: str | None = None
        self._thresholds = ThresholdReports(name if share is None else share.name, limits, on_threshold)
        self.share = None if share is None else replace(share, on_spent=self._thresholds.report_crossed)
        self._on_spent = on_spent

    @property
    def spent(self) -> BudgetSpent:
        """What was spent so far."""
        with self._lock:
            return self._spending.so_far()

    def and_outer(self) -> list[Budget]:
        """This budget and all around it, the innermost first."""
        return [self, *(self.parent.and_outer() if self.parent is not None else ())]

    def hold(self, estimate: Estimate, *, llm_calls: int = 1) -> None:
        """Set aside what a call is expected to use; `llm_calls` is 0 for a request that is sent again for a call.

        Raises:
            BudgetExceededError: a rule denies the call.
        """
        with self._lock:
            is_shared = self.share is not None
            standing = Standing(
                self.name, self.limits, self._spending, self._unpriced_model, estimate, llm_calls, is_shared=is_shared
            )
            for rule in LOCAL_RULES if is_shared else RULES:
                denial = rule(standing)
                if denial is not None:
                    raise denial
            self._spending.hold(estimate, llm_calls)
        if estimate.cost_usd is None and not estimate.reports_cost:
            self._warn_of_zero(estimate.model)

    def release(self, estimate: Estimate, *, llm_calls: int = 1) -> None:
        """Take back what was held."""
        with self._lock:
            self._spending.release(estimate, llm_calls)

    def settle(self, estimate: Estimate, use: Use, *, llm_calls: int = 1) -> None:
        """Count what was used in place of what was held."""
        with self._lock:
            self._spending.release(estimate, llm_calls)
            self.add(estimate, use, llm_calls=llm_calls)

    def add(self, estimate: Estimate, use: Use, *, llm_calls: int = 1) -> None:
        """Count what was used without having been held."""
        with self._lock:
            self._spending.spend(estimate.model, use, llm_calls)
            if self.share is None:
                self._thresholds.note(self._spending.spent)
            if use.cost_usd is None and self.limits.needs_known_prices:
                self._unpriced_model = estimate.model

    def report(self, estimate: Estimate, use: Use, *, llm_calls: int) -> None:
        """Report what was spent, the thresholds that were reached, and a cost that counts as zero."""
        if use.cost_usd is None:
            self._warn_of_zero(estimate.model)
        if self._on_spent is not None:
            amounts = {"cost_usd": use.cost_usd or 0.0, "tokens": use.tokens, "llm_calls": llm_calls}
            try:
                for kind in self.limits.by_kind:
                    self._on_spent(kind, amounts[kind])
            except Exception:
                report_fault(log, "Budget", "on_spent")
        self._thresholds.report()

    def _warn_of_zero(self, model: str) -> None:
        if self.limits.max_cost_usd is None or self.limits.needs_known_prices:
            return
        if COUNTED_AS_ZERO.is_new(model):
            log.warning(
                "budget of %r: the cost of calls to %s is unknown and counts as zero; add a price by set_prices()",
                self.name,
                model,
            )


_current: contextvars.ContextVar[Budget | None] = surrounding_variable("tracemind_budget", default=None)


def current_budget() -> Budget | None:
    """The innermost budget here, or `None`."""
    return _current.get()


def enter_budget(budget: Budget) -> Setting:
    """Make a budget the current one, until the setting is undone."""
    return set_here(_current, budget)


in_forked_child(lambda: _current.set(None))


def is_shared(budget: Budget) -> bool:
    """Whether this budget, or one around it, is shared by many processes."""
    return any(each.share is not None for each in budget.and_outer())


def needs_price(budget: Budget) -> bool:
    """Whether this budget, or one around it, has a limit in USD."""
    return any(each.limits.max_cost_usd is not None for each in budget.and_outer())
