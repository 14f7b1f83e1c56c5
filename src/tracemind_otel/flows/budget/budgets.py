"""Budgets, their thresholds, the innermost budget here, and what one call holds of all budgets around it."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..._base.context import Setting, set_here, surrounding_variable
from ..._base.fork import in_forked_child
from ..._base.once import Once, report_fault
from ...ai.llm.usage import LLMUsage
from ...errors import BudgetExceededError, BudgetKind
from .limits import BudgetLimits
from .rules import LOCAL_RULES, RULES, Standing
from .shares import Asking, Lease, Share, ask_async, ask_blocking, asking
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
            standing = Standing(self.name, self.limits, self._spending, self._unpriced_model, estimate, llm_calls)
            for rule in RULES if self.share is None else LOCAL_RULES:
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


def reserve(budget: Budget, estimate: Estimate) -> Reservation:
    """Hold what a call is expected to use, in this budget and in all around it; if one denies it, in none of them.

    Where a budget is shared, it blocks the thread until the state has answered, but never an event loop.
    """
    held = Reservation(budget.and_outer(), estimate)
    held.begin()
    return held


async def reserve_soon(budget: Budget, estimate: Estimate) -> Reservation:
    """The same without blocking the thread."""
    held = Reservation(budget.and_outer(), estimate)
    await held.begin_soon()
    return held


def spend(budget: Budget, model: str, usage: LLMUsage | None) -> None:
    """Count a call that nobody could deny, because it is told after its end, in this budget and in all around it."""
    nothing_held = Estimate(model=model, tokens=0, cost_usd=None)
    use = Use.of_call(nothing_held, usage, assume_billed=False)
    for each in budget.and_outer():
        each.add(nothing_held, use)
        if each.share is not None:
            each.share.spend(use, 1)
    for each in budget.and_outer():
        each.report(nothing_held, use, llm_calls=1)


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


_deferred: contextvars.ContextVar[list[DeferredAsking] | None] = contextvars.ContextVar(
    "tracemind_deferred", default=None
)


@contextmanager
def deferring() -> Generator[list[DeferredAsking]]:
    """A block in which no shared state is asked; its caller asks before it sends anything."""
    deferred: list[DeferredAsking] = []
    token = _deferred.set(deferred)
    try:
        yield deferred
    finally:
        _deferred.reset(token)


def is_shared(budget: Budget | None) -> bool:
    """Whether this budget, or one around it, is shared by many processes."""
    return budget is not None and any(each.share is not None for each in budget.and_outer())


@dataclass(frozen=True, slots=True)
class DeferredAsking:
    """What a reservation has still to ask of shared states; a denial is raised as by the reservation itself."""

    reservation: Reservation
    """The reservation, which the budgets of this process have granted."""
    llm_calls: int
    """1 for a call, 0 for a request that is sent again for it."""

    async def ask(self) -> None:
        """Ask without blocking the thread."""
        leases = await ask_async(self.reservation.asking(self.llm_calls))
        self.reservation.take_deferred(leases, self.llm_calls)

    def ask_blocking(self) -> None:
        """Ask in a thread that the request will block anyway."""
        leases = ask_blocking(self.reservation.asking(self.llm_calls), may_block=True)
        self.reservation.take_deferred(leases, self.llm_calls)


class Reservation:
    """What is held for one call by all budgets around it."""

    __slots__ = ("_again", "_budgets", "_estimate", "_leases", "_shares")

    def __init__(self, budgets: list[Budget], estimate: Estimate) -> None:
        self._budgets = budgets
        self._estimate = estimate
        self._shares = [budget.share for budget in budgets if budget.share is not None]
        self._leases: list[Lease] = []
        self._again: list[list[Lease]] = []
        """The leases of requests that were sent again, the latest last."""

    def begin(self) -> None:
        """Hold what the call is expected to use.

        Raises:
            BudgetExceededError: a budget has less left.
        """
        self._leases = self._hold(llm_calls=1)

    async def begin_soon(self) -> None:
        """The same without blocking the thread."""
        self._leases = await self._hold_soon(llm_calls=1)

    def repeat(self) -> bool:
        """Count a failed attempt that may be billed, if there is room for another one; returns whether there is."""
        has_room = self.hold_again()
        if has_room:
            self.presume()
        return has_room

    async def repeat_soon(self) -> bool:
        """The same without blocking the thread."""
        has_room = await self.hold_again_soon()
        if has_room:
            self.presume()
        return has_room

    def repeat_or_raise(self) -> None:
        """The same for code that can only raise.

        Raises:
            BudgetExceededError: there is no room for another one.
        """
        self._again.append(self._hold(llm_calls=0))
        self.presume()

    def hold_again(self) -> bool:
        """Hold the same once more, if there is room, for a request that is sent again; returns whether there is.

        The first request may have reached the provider.
        """
        try:
            self._again.append(self._hold(llm_calls=0))
        except BudgetExceededError:
            return False
        return True

    async def hold_again_soon(self) -> bool:
        """The same without blocking the thread."""
        try:
            self._again.append(await self._hold_soon(llm_calls=0))
        except BudgetExceededError:
            return False
        return True

    def release(self, *, llm_calls: int = 0) -> None:
        """Take back what `hold_again` held; with `llm_calls=1`, what `reserve` held for a call that was never sent."""
        for lease in self._take(llm_calls):
            lease.release()
        self._release_here(llm_calls)

    def presume(self) -> None:
        """Count what `hold_again` held as spent: one of the two requests may be billed without an answer."""
        self._settle(Use.presumed(self._estimate), llm_calls=0)

    def settle(self, usage: LLMUsage | None, *, assume_billed: bool) -> None:
        """End the call with its usage; with `assume_billed`, unknown usage counts as what was held."""
        self._settle(Use.of_call(self._estimate, usage, assume_billed=assume_billed), llm_calls=1)

    def _hold(self, *, llm_calls: int) -> list[Lease]:
        _hold_all(self._budgets, self._estimate, llm_calls=llm_calls)
        if not self._shares:
            return []
        deferred = _deferred.get()
        if deferred is not None:
            deferred.append(DeferredAsking(self, llm_calls))
            return []
        try:
            return ask_blocking(self.asking(llm_calls))
        except BaseException:
            self._release_here(llm_calls)
            raise

    async def _hold_soon(self, *, llm_calls: int) -> list[Lease]:
        _hold_all(self._budgets, self._estimate, llm_calls=llm_calls)
        try:
            return await ask_async(self.asking(llm_calls)) if self._shares else []
        except BaseException:
            self._release_here(llm_calls)
            raise

    def take_deferred(self, leases: list[Lease], llm_calls: int) -> None:
        """Have what a state granted after `deferring`; what is held for a repetition counts as spent at once."""
        if llm_calls:
            self._leases = leases
        else:
            for lease in leases:
                lease.settle(Use.presumed(self._estimate), 0)

    def asking(self, llm_calls: int) -> Asking:
        return asking(self._shares, self._estimate, llm_calls)

    def _release_here(self, llm_calls: int) -> None:
        for budget in self._budgets:
            budget.release(self._estimate, llm_calls=llm_calls)

    def _take(self, llm_calls: int) -> list[Lease]:
        """The leases of the call, or those of its latest request that was sent again."""
        if llm_calls:
            taken, self._leases = self._leases, []
            return taken
        return self._again.pop() if self._again else []

    def _settle(self, use: Use, *, llm_calls: int) -> None:
        for lease in self._take(llm_calls):
            lease.settle(use, llm_calls)
        for budget in self._budgets:
            budget.settle(self._estimate, use, llm_calls=llm_calls)
        for budget in self._budgets:  # listeners run after every sum is complete
            budget.report(self._estimate, use, llm_calls=llm_calls)
