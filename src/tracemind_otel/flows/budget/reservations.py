"""What one call holds of all budgets around it: first of those of this process, then of the shared ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...ai.llm.usage import LLMUsage
from ...errors import BudgetExceededError
from .budgets import Budget
from .shares import Asking, Lease, Share, ask_async, ask_blocking, asking, each_account_once
from .spending import Estimate, Use


def reserve(budget: Budget, estimate: Estimate) -> Reservation:
    """Hold what a call is expected to use, in this budget and in all around it; if one denies it, in none of them.

    Where a budget is shared, it blocks the thread until the state has answered, but never an event loop.

    Raises:
        BudgetExceededError: a budget has less left.
    """
    held = reserve_here(budget, estimate)
    held.ask_blocking()
    return held


async def reserve_soon(budget: Budget, estimate: Estimate) -> Reservation:
    """The same without blocking the thread."""
    held = reserve_here(budget, estimate)
    await held.ask_soon()
    return held


def reserve_here(budget: Budget, estimate: Estimate) -> Reservation:
    """The same in the budgets of this process. The caller asks the shared ones before it sends anything."""
    held = Reservation(budget.and_outer(), estimate)
    held.hold_here(llm_calls=1)
    return held


def spend(budget: Budget, model: str, usage: LLMUsage | None) -> None:
    """Count a call that nobody could deny, because it is told after its end, in this budget and in all around it."""
    nothing_held = Estimate(model=model, reports_cost=True)
    ended = [(each, each.limits.reserved(nothing_held)) for each in budget.and_outer()]
    uses = [Use.of_call(estimate, usage, assume_billed=False) for _, estimate in ended]
    for (each, estimate), use in zip(ended, uses, strict=True):
        each.add(estimate, use)
    for share, estimate in _accounts(ended):
        share.spend(Use.of_call(estimate, usage, assume_billed=False), 1)
    for (each, estimate), use in zip(ended, uses, strict=True):
        each.report(estimate, use, llm_calls=1)


def _accounts(budgets: Sequence[tuple[Budget, Estimate]]) -> list[tuple[Share, Estimate]]:
    return each_account_once([(budget.share, own) for budget, own in budgets if budget.share is not None])


class Reservation:
    """What is held for one call by all budgets around it.

    Args:
        budgets: the budgets, the innermost first.
        estimate: what the call is expected to use.
    """

    __slots__ = ("_again", "_budgets", "_leases", "_shares", "_unasked")

    def __init__(self, budgets: Sequence[Budget], estimate: Estimate) -> None:
        self._budgets = [(budget, budget.limits.reserved(estimate)) for budget in budgets]
        self._shares = _accounts(self._budgets)
        self._leases: list[Lease] = []
        self._again: list[list[Lease]] = []
        """The leases of requests that were sent again, the latest last."""
        self._unasked: int | None = None
        """The calls, 1 or 0, of what was held here and has yet to be asked of the shared states."""

    @property
    def is_unasked(self) -> bool:
        """Whether a shared state must be asked before anything is sent."""
        return self._unasked is not None

    def hold_here(self, *, llm_calls: int) -> None:
        """Hold what the call is expected to use, in the budgets of this process.

        Args:
            llm_calls: 1 for the call; 0 to hold the same once more, for a request that is sent again for it.

        Raises:
            BudgetExceededError: a budget has less left.
        """
        held: list[tuple[Budget, Estimate]] = []
        try:
            for budget, estimate in self._budgets:
                budget.hold(estimate, llm_calls=llm_calls)
                held.append((budget, estimate))
        except BaseException:
            for budget, estimate in held:
                budget.release(estimate, llm_calls=llm_calls)
            raise
        if self._shares:
            self._unasked = llm_calls
        else:
            self._keep([], llm_calls)

    def ask_blocking(self, *, may_block: bool | None = None) -> None:
        """Ask the shared states, if there are any; where one denies it, nothing is held any more.

        Args:
            may_block: whether the thread may wait, though an event loop runs there; the default is that it may not.

        Raises:
            BudgetExceededError: a budget has less left, or its state is away.
        """
        llm_calls, self._unasked = self._unasked, None
        if llm_calls is None:
            return
        try:
            leases = ask_blocking(self._asking(llm_calls), may_block=may_block)
        except BaseException:
            self._release_here(llm_calls)
            raise
        self._keep(leases, llm_calls)

    async def ask_soon(self) -> None:
        """The same without blocking the thread."""
        llm_calls, self._unasked = self._unasked, None
        if llm_calls is None:
            return
        try:
            leases = await ask_async(self._asking(llm_calls))
        except BaseException:
            self._release_here(llm_calls)
            raise
        self._keep(leases, llm_calls)

    def repeat(self) -> bool:
        """Count a failed attempt that may be billed, if there is room for another one; returns whether there is."""
        try:
            self.hold_here(llm_calls=0)
            self.ask_blocking()
        except BudgetExceededError:
            return False
        self.presume()
        return True

    async def repeat_soon(self) -> bool:
        """The same without blocking the thread."""
        has_room = await self.hold_again_soon()
        if has_room:
            self.presume()
        return has_room

    async def hold_again_soon(self) -> bool:
        """Hold the same once more, if there is room, for a request that is sent again; returns whether there is.

        The first request may have reached the provider.
        """
        try:
            self.hold_here(llm_calls=0)
            await self.ask_soon()
        except BudgetExceededError:
            return False
        return True

    def release(self, *, llm_calls: int = 0) -> None:
        """Take back what `hold_again_soon` held; with `llm_calls=1`, what was held for a call that was never sent."""
        for lease in self._take(llm_calls):
            lease.release()
        self._release_here(llm_calls)

    def presume(self) -> None:
        """Count what was held again as spent: one of the two requests may be billed without an answer."""
        self._settle(Use.presumed, llm_calls=0)

    def settle(self, usage: LLMUsage | None, *, assume_billed: bool) -> None:
        """End the call with its usage; with `assume_billed`, unknown usage counts as what was held."""
        self._settle(lambda estimate: Use.of_call(estimate, usage, assume_billed=assume_billed), llm_calls=1)

    def _asking(self, llm_calls: int) -> Asking:
        return asking(self._shares, llm_calls)

    def _keep(self, leases: list[Lease], llm_calls: int) -> None:
        if llm_calls:
            self._leases = leases
        else:
            self._again.append(leases)

    def _release_here(self, llm_calls: int) -> None:
        for budget, estimate in self._budgets:
            budget.release(estimate, llm_calls=llm_calls)

    def _take(self, llm_calls: int) -> list[Lease]:
        """The leases of the call, or those of its latest request that was sent again."""
        if llm_calls:
            taken, self._leases = self._leases, []
            return taken
        return self._again.pop() if self._again else []

    def _settle(self, use_of: Callable[[Estimate], Use], *, llm_calls: int) -> None:
        for lease in self._take(llm_calls):
            lease.settle(use_of(lease.estimate), llm_calls)
        settled = [(budget, estimate, use_of(estimate)) for budget, estimate in self._budgets]
        for budget, estimate, use in settled:
            budget.settle(estimate, use, llm_calls=llm_calls)
        for budget, estimate, use in settled:  # listeners run after every sum is complete
            budget.report(estimate, use, llm_calls=llm_calls)
