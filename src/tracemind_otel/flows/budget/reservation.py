"""What one call holds of all budgets around it, from before it is sent until it has ended."""

from __future__ import annotations

from ...ai.llm.usage import LLMUsage
from ...errors import BudgetExceededError
from .budgets import Budget
from .spending import Estimate, Use


def reserve(budget: Budget, estimate: Estimate) -> Reservation:
    """Hold what a call is expected to use, in this budget and in all around it.

    Raises:
        BudgetExceededError: one of them denies the call; then none of them holds anything.
    """
    budgets = budget.and_outer()
    _hold_all(budgets, estimate, llm_calls=1)
    return Reservation(budgets, estimate)


def needs_price(budget: Budget) -> bool:
    """Whether this budget, or one around it, has a limit in USD."""
    return any(each.limits.max_cost_usd is not None for each in budget.and_outer())


def _hold_all(budgets: list[Budget], estimate: Estimate, *, llm_calls: int) -> None:
    held: list[Budget] = []
    try:
        for budget in budgets:
            budget.hold(estimate, llm_calls=llm_calls)
            held.append(budget)
    except BaseException:
        for budget in held:
            budget.release(estimate, llm_calls=llm_calls)
        raise


class Reservation:
    """What is held for one call by all budgets around it."""

    __slots__ = ("_budgets", "_estimate")

    def __init__(self, budgets: list[Budget], estimate: Estimate) -> None:
        self._budgets = budgets
        self._estimate = estimate

    def repeat(self) -> bool:
        """Count a failed attempt that may be billed, if there is room for another one.

        Returns:
            Whether there is; if not, nothing has changed, and the call must end.
        """
        has_room = self.hold_again()
        if has_room:
            self.presume()
        return has_room

    def hold_again(self) -> bool:
        """Hold the same once more, for a request that is sent again while the first may have reached the provider.

        Returns:
            Whether there is room for it; if not, nothing has changed.
        """
        try:
            _hold_all(self._budgets, self._estimate, llm_calls=0)
        except BudgetExceededError:
            return False
        return True

    def release(self) -> None:
        """Take back what `hold_again` held: the first request was not answered and is not billed."""
        for budget in self._budgets:
            budget.release(self._estimate, llm_calls=0)

    def presume(self) -> None:
        """Count what `hold_again` held as spent: one of the two requests may be billed without an answer."""
        self._settle(Use.presumed(self._estimate), llm_calls=0)

    def settle(self, usage: LLMUsage | None, *, assume_billed: bool) -> None:
        """End the call.

        Args:
            usage: what it used, if that is known.
            assume_billed: whether its last attempt counts as billed if the usage is unknown.
        """
        self._settle(Use.of_call(self._estimate, usage, assume_billed=assume_billed), llm_calls=1)

    def _settle(self, use: Use, *, llm_calls: int) -> None:
        for budget in self._budgets:
            budget.settle(self._estimate, use, llm_calls=llm_calls)
        for budget in self._budgets:  # a listener may fail, so every sum is complete by now
            budget.report(self._estimate, use)

    def give_back(self) -> None:
        """End a call that was never sent."""
        for budget in self._budgets:
            budget.release(self._estimate)
