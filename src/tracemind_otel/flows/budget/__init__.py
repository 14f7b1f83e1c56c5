"""What the model calls below may cost: reserved before a call, settled after it.

A call must be admitted by every budget around it. What it will use is estimated and held until it ends, so that calls
which run at once cannot all spend the same remainder; then what it did use takes the estimate's place:

- known usage counts as it is;
- a call that the server refused, or that never reached it, costs nothing, and counts as a call;
- an attempt whose usage stayed unknown, because it was cancelled, timed out or broken off, counts as what was held for
  it: the provider may well bill it, and unknown is not zero. It is repeated only if there is room for another.

A call that is refused was not sent, and counts nowhere. Kept in a context variable, as the flow is; a forked process
begins without.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable

from ..._base.context import Setting, set_here
from ..._base.fork import in_forked_child
from ..._base.once import Once, report_fault
from ...ai.llm.usage import LLMUsage
from ...errors import BudgetExceededError, BudgetKind
from .denial import amount, limit_exceeded, unknown_price
from .limits import THRESHOLDS, BudgetLimits, BudgetSpent, BudgetThreshold, Estimate, ModelSpending, Use, slack

log = logging.getLogger(__name__)

COUNTED_AS_ZERO = Once()
"""Models of which the log said so."""


class _Amounts:
    """Adds in place: nothing in here may start a garbage collection between reading a sum and writing it."""

    __slots__ = ("cost_usd", "llm_calls", "tokens")

    def __init__(self) -> None:
        self.cost_usd = 0.0
        self.tokens = 0
        self.llm_calls = 0

    def add(self, cost_usd: float, tokens: int, llm_calls: int) -> None:
        self.cost_usd += cost_usd
        self.tokens += tokens
        self.llm_calls += llm_calls


class Budget:
    """Limits, and what was spent and is held of them. Calls may begin and end in any thread.

    Args:
        limits: the limits.
        name: what is limited, for messages: the name of a flow.
        parent: the budget around this one.
        on_threshold: told when a limit is half, four fifths and wholly spent, once each.
    """

    def __init__(
        self,
        limits: BudgetLimits,
        *,
        name: str,
        parent: Budget | None = None,
        on_threshold: Callable[[BudgetThreshold], None] | None = None,
    ) -> None:
        self.limits = limits
        self.name = name
        self.parent = parent
        self._on_threshold = on_threshold
        # Re-entrant: a stream dropped unread ends its call in a garbage collection, which may strike while it is held.
        self._lock = threading.RLock()
        self._spent = _Amounts()
        self._presumed = _Amounts()
        self._held = _Amounts()
        self._by_model: dict[str, _Amounts] = {}
        self._unpriced_attempts = 0
        self._blinded_by: str | None = None
        self._reached: set[tuple[BudgetKind, float]] = set()
        self._untold: deque[BudgetThreshold] = deque()
        self._is_telling = False

    @property
    def spent(self) -> BudgetSpent:
        """What was spent so far."""
        with self._lock:
            spent, presumed = self._spent, self._presumed
            models = [ModelSpending(m, a.cost_usd, a.tokens, a.llm_calls) for m, a in list(self._by_model.items())]
            models.sort(key=lambda model: (-model.cost_usd, -model.tokens, model.model))
            return BudgetSpent(
                spent.cost_usd,
                spent.tokens,
                spent.llm_calls,
                presumed.cost_usd,
                presumed.tokens,
                self._unpriced_attempts,
                tuple(models),
            )

    # --- Holding

    def hold(self, estimate: Estimate) -> None:
        """Hold what a call is expected to use.

        Raises:
            BudgetExceededError: there is not so much left.
        """
        with self._lock:
            self._admit(estimate)
            self._held.add(estimate.cost_usd or 0.0, estimate.tokens, 1)
        if estimate.cost_usd is None and not estimate.reports_cost:
            self._warn_of_zero(estimate.model)

    def give_back(self, estimate: Estimate) -> None:
        """Take back what was held for a call that was never sent."""
        with self._lock:
            self._held.add(-(estimate.cost_usd or 0.0), -estimate.tokens, -1)
            if not self._held.llm_calls:
                self._held.cost_usd = 0.0  # sums of floats leave a rest

    def hold_again(self, estimate: Estimate) -> bool:
        """Hold the same a second time, for a request that was sent twice; returns whether there is room for it."""
        with self._lock:
            if self._has_no_room_for_another(estimate):
                return False
            self._held.add(estimate.cost_usd or 0.0, estimate.tokens, 0)
            return True

    def release(self, estimate: Estimate) -> None:
        """Take back what was held a second time."""
        with self._lock:
            self._held.add(-(estimate.cost_usd or 0.0), -estimate.tokens, 0)

    def presume_held(self, estimate: Estimate) -> None:
        """Count what was held a second time as spent."""
        with self._lock:
            self.release(estimate)
            self._spend(estimate, _presumed(estimate), llm_calls=0)

    def _has_no_room_for_another(self, estimate: Estimate) -> bool:
        is_unknown = self._refuses_unknown_prices and estimate.cost_usd is None
        return is_unknown or self._lacking(estimate, llm_calls=0) is not None

    def _admit(self, estimate: Estimate) -> None:
        if self._refuses_unknown_prices:
            if estimate.cost_usd is None and not estimate.reports_cost:
                remedy = "Add a price by set_prices(), or take on_unknown_price='zero'"
                raise self._unknown_price(f"the price of {estimate.model} is unknown", remedy)
            if self._blinded_by is not None:
                remedy = "Begin a new budget, or take on_unknown_price='zero'"
                raise self._unknown_price(f"what a call of {self._blinded_by} cost stayed unknown", remedy)
        kind = self._lacking(estimate, llm_calls=1)
        if kind is not None:
            raise self._exceeded(kind, estimate)

    def _lacking(self, estimate: Estimate, *, llm_calls: int) -> BudgetKind | None:
        """Of what there is not so much left; `None` where there is."""
        wanted = {"cost_usd": estimate.cost_usd or 0.0, "tokens": estimate.tokens, "llm_calls": llm_calls}
        for kind, limit in self._limited():
            taken = getattr(self._spent, kind) + getattr(self._held, kind)
            is_full = taken >= limit - slack(kind, limit) and (llm_calls or kind != "llm_calls")
            if is_full or taken + wanted[kind] > limit + slack(kind, limit):
                return kind
        return None

    @property
    def _refuses_unknown_prices(self) -> bool:
        return self.limits.max_cost_usd is not None and self.limits.on_unknown_price == "refuse"

    def _limited(self) -> list[tuple[BudgetKind, float]]:
        limits = self.limits
        pairs: tuple[tuple[BudgetKind, float | None], ...] = (
            ("cost_usd", limits.max_cost_usd),
            ("tokens", limits.max_tokens),
            ("llm_calls", limits.max_llm_calls),
        )
        return [(kind, limit) for kind, limit in pairs if limit is not None]

    def _unknown_price(self, why: str, remedy: str) -> BudgetExceededError:
        return unknown_price(self.name, self.limits.max_cost_usd or 0.0, self.spent, why, remedy)

    def _exceeded(self, kind: BudgetKind, estimate: Estimate) -> BudgetExceededError:
        return limit_exceeded(
            self.name,
            kind,
            dict(self._limited())[kind],
            self.spent,
            held=getattr(self._held, kind),
            held_calls=self._held.llm_calls,
            wanted=1 if kind == "llm_calls" else getattr(estimate, kind) or 0.0,
        )

    # --- Spending

    def presume(self, estimate: Estimate) -> bool:
        """Count an attempt of unknown usage as what was held, if there is room for another one beside it.

        The call goes on, and so does what is held for it.

        Returns:
            Whether there was room; if not, nothing has changed.
        """
        with self._lock:
            if self._has_no_room_for_another(estimate):
                return False
            self._spend(estimate, _presumed(estimate), llm_calls=0)
            return True

    def take_back(self, estimate: Estimate) -> None:
        """Another budget around the call had no room: what this one presumed was not so."""
        self._spend(estimate, _presumed(estimate).negated(), llm_calls=0)

    def settle(self, estimate: Estimate, use: Use) -> None:
        """Let what a call used take the place of what was held for it."""
        with self._lock:
            self.give_back(estimate)
            self._spend(estimate, use, llm_calls=1)
            if use.cost_usd is None and self._refuses_unknown_prices:
                self._blinded_by = estimate.model

    def _spend(self, estimate: Estimate, use: Use, *, llm_calls: int) -> None:
        amounts = _Amounts()  # before the sums are looked at: what allocates may collect garbage
        cost_usd, tokens = use.cost_usd or 0.0, use.tokens
        with self._lock:
            self._spent.add(cost_usd, tokens, llm_calls)
            self._by_model.setdefault(estimate.model, amounts).add(cost_usd, tokens, llm_calls)
            self._presumed.add(cost_usd * use.cost_is_presumed, tokens * use.tokens_are_presumed, 0)
            self._unpriced_attempts += use.unpriced_attempts

    # --- Telling

    def tell(self, estimate: Estimate, use: Use) -> None:
        """Log what an attempt led to: thresholds reached, and a cost that counts as zero."""
        if use.cost_usd is None:
            self._warn_of_zero(estimate.model)
        self._tell_thresholds()

    def _warn_of_zero(self, model: str) -> None:
        """Say once for each model that its calls count as zero."""
        if self.limits.max_cost_usd is None or self.limits.on_unknown_price != "zero":
            return
        if COUNTED_AS_ZERO.is_new(model):
            log.warning("budget of %r: what calls of %s cost is unknown and counts as zero", self.name, model)

    def _tell_thresholds(self) -> None:
        """Tell what was reached: outside the lock, and one thread at a time, so that the order holds."""
        with self._lock:
            self._note_reached()
            if self._is_telling:
                return
            self._is_telling = True
        try:
            while (threshold := self._next_untold()) is not None:
                self._tell(threshold)
        except BaseException:
            self._is_telling = False
            raise

    def _note_reached(self) -> None:
        for kind, limit in self._limited():
            spent = getattr(self._spent, kind)
            for fraction in THRESHOLDS:
                key = (kind, fraction)
                if spent >= fraction * limit - slack(kind, limit) and key not in self._reached:
                    self._reached.add(key)
                    self._untold.append(BudgetThreshold(self.name, kind, limit, spent, fraction))

    def _next_untold(self) -> BudgetThreshold | None:
        with self._lock:
            self._is_telling = bool(self._untold)
            return self._untold.popleft() if self._untold else None

    def _tell(self, threshold: BudgetThreshold) -> None:
        if threshold.fraction == THRESHOLDS[-1]:
            log.warning("budget of %r: all of %s is spent", self.name, amount(threshold.kind, threshold.limit))
        if self._on_threshold is None:
            return
        try:
            self._on_threshold(threshold)
        except Exception:
            report_fault(log, "Budget", "on_threshold")


class Reservation:
    """What is held for one call by all budgets around it."""

    __slots__ = ("_budget", "_estimate")

    def __init__(self, budget: Budget, estimate: Estimate) -> None:
        self._budget = budget
        self._estimate = estimate

    def repeat(self) -> bool:
        """An attempt has failed that may be billed: presume that it is, and go on, if there is room for another.

        Returns:
            Whether there is; if not, nothing has changed, and the call must end.
        """
        presumed: list[Budget] = []
        for budget in _chain(self._budget):
            if not budget.presume(self._estimate):
                for each in presumed:
                    each.take_back(self._estimate)
                return False
            presumed.append(budget)
        self._tell(presumed, _presumed(self._estimate))
        return True

    def hold_again(self) -> bool:
        """The request is sent a second time, and the first may have reached the provider: hold the same once more.

        Returns:
            Whether there is room for it; if not, nothing has changed.
        """
        held: list[Budget] = []
        for budget in _chain(self._budget):
            if not budget.hold_again(self._estimate):
                for each in held:
                    each.release(self._estimate)
                return False
            held.append(budget)
        return True

    def release(self) -> None:
        """The second request was answered: the first never was, and is not billed."""
        for budget in _chain(self._budget):
            budget.release(self._estimate)

    def presume(self) -> None:
        """The second request was not answered either: presume that the first is billed."""
        budgets = _chain(self._budget)
        for budget in budgets:
            budget.presume_held(self._estimate)
        self._tell(budgets, _presumed(self._estimate))

    def settle(self, usage: LLMUsage | None, *, assume_billed: bool) -> None:
        """The call has ended.

        Args:
            usage: what it used, where that is known.
            assume_billed: whether its last attempt may be billed, if that usage is unknown.
        """
        budgets, use = _chain(self._budget), _used(self._estimate, usage, assume_billed=assume_billed)
        for budget in budgets:
            budget.settle(self._estimate, use)
        self._tell(budgets, use)

    def _tell(self, budgets: list[Budget], use: Use) -> None:
        """Last of all: whoever listens may fail, and what was spent must be counted by then."""
        for budget in budgets:
            budget.tell(self._estimate, use)

    def give_back(self) -> None:
        """The call was never sent."""
        for budget in _chain(self._budget):
            budget.give_back(self._estimate)


def _presumed(estimate: Estimate) -> Use:
    return Use(
        cost_usd=estimate.cost_usd,
        tokens=estimate.tokens,
        cost_is_presumed=True,
        tokens_are_presumed=True,
        unpriced_attempts=int(estimate.cost_usd is None),
    )


def _used(estimate: Estimate, usage: LLMUsage | None, *, assume_billed: bool) -> Use:
    if usage is None or not (usage.is_known or usage.cost_usd is not None):
        return _presumed(estimate) if assume_billed else Use(cost_usd=0.0, tokens=0)
    cost_usd = estimate.cost_usd if usage.cost_usd is None else usage.cost_usd
    return Use(
        cost_usd=cost_usd,
        tokens=_tokens_of(usage, estimate),
        cost_is_presumed=usage.cost_usd is None or (usage.estimated and usage.cost_source != "provider"),
        tokens_are_presumed=usage.estimated or not usage.is_whole,
        unpriced_attempts=int(cost_usd is None),
    )


def _tokens_of(usage: LLMUsage, estimate: Estimate) -> int:
    """Input and output; where one half was not reported, at least what was held for both."""
    reported = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    return reported if usage.is_whole else max(reported, estimate.tokens)


def reserve(budget: Budget, estimate: Estimate) -> Reservation:
    """Hold what a call is expected to use, in this budget and in all around it.

    Raises:
        BudgetExceededError: one of them has not so much left; then none of them holds anything.
    """
    held: list[Budget] = []
    try:
        for each in _chain(budget):
            each.hold(estimate)
            held.append(each)
    except BaseException:
        for each in held:
            each.give_back(estimate)
        raise
    return Reservation(budget, estimate)


def needs_price(budget: Budget) -> bool:
    """Whether this budget, or one around it, has a limit in USD."""
    return any(each.limits.max_cost_usd is not None for each in _chain(budget))


def _chain(budget: Budget | None) -> list[Budget]:
    found: list[Budget] = []
    while budget is not None:
        found.append(budget)
        budget = budget.parent
    return found


_current: contextvars.ContextVar[Budget | None] = contextvars.ContextVar("tracemind_budget", default=None)


def current_budget() -> Budget | None:
    """The innermost budget that holds here, or `None`."""
    return _current.get()


def enter_budget(budget: Budget) -> Setting:
    """Make a budget the current one, until the setting is undone."""
    return set_here(_current, budget)


in_forked_child(lambda: _current.set(None))
