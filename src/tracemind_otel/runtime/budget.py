"""What the model calls below may cost: reserved before a call, settled after it.

A call must be admitted by every budget around it. What it will use is estimated and held until it ends, so that calls
which run at once cannot all spend the same remainder; then what it did use takes the estimate's place:

- known usage counts as it is;
- a call that the server refused costs nothing, and counts as a call;
- a call whose usage stayed unknown, because it was cancelled, timed out or broken off, counts as what was held for it:
  the provider may well bill it, and unknown is not zero.

A call that is refused was not sent, and counts nowhere. Kept in a context variable, as the flow is.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from ..ai.llm.types import LLMUsage
from ..errors import BudgetExceededError, BudgetKind, ConfigError
from .faults import report_fault

log = logging.getLogger(__name__)

OnUnknownPrice = Literal["refuse", "zero"]
"""What becomes of a call whose price is unknown, under a limit in USD."""

_ROUNDING = 1e-9
"""Sums of floats come out a little less than a limit that they reach, or a little more."""

THRESHOLDS = (0.5, 0.8, 1.0)
"""The fractions of a limit that are told."""

_NAMED_MODELS = 5
_BELOW = 2**53
"""Limits are below: from here on a float skips whole numbers, and an attribute soon overflows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLimits:
    """Limits of all calls below together; `None` for no limit.

    Raises:
        ConfigError: a limit is no number of zero or more, or the policy is unknown.
    """

    max_cost_usd: float | None = None
    """USD."""
    max_tokens: int | None = None
    """Input and output tokens."""
    max_llm_calls: int | None = None
    """Model calls, however they end."""
    on_unknown_price: OnUnknownPrice = "refuse"
    """Under `max_cost_usd`, a call of unknown price is refused, or counts as zero and is warned of."""

    def __post_init__(self) -> None:
        _check_number("max_cost_usd", self.max_cost_usd, (int, float), "number")
        _check_number("max_tokens", self.max_tokens, (int,), "whole number")
        _check_number("max_llm_calls", self.max_llm_calls, (int,), "whole number")
        if self.on_unknown_price not in get_args(OnUnknownPrice):
            raise ConfigError(f"on_unknown_price is {self.on_unknown_price!r}; it must be 'refuse' or 'zero'")

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self.max_cost_usd is None and self.max_tokens is None and self.max_llm_calls is None


def _check_number(field: str, value: float | None, kinds: tuple[type, ...], allowed: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < _BELOW:
        raise ConfigError(f"{field} is {value!r}; it must be a {allowed} of zero or more, and below 2**53")


@dataclass(frozen=True, slots=True)
class BudgetThreshold:
    """A limit came near, or was reached."""

    kind: BudgetKind
    """What is limited."""
    limit: float
    """The limit, in USD, tokens or calls."""
    spent: float
    """What was spent of it by then."""
    fraction: float
    """The threshold that was reached: 0.5, 0.8 or 1.0."""


@dataclass(frozen=True, slots=True)
class ModelSpending:
    """What was spent on one model."""

    model: str
    """`provider/model`."""
    cost_usd: float
    """USD."""
    tokens: int
    """Input and output tokens."""
    llm_calls: int
    """Calls that ended."""


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """What was spent so far by the calls that have ended."""

    cost_usd: float
    """USD; of a call whose usage stayed unknown, what was held for it."""
    tokens: int
    """Input and output tokens, likewise."""
    llm_calls: int
    """Calls that ended."""
    unpriced_calls: int
    """Those of them whose cost stayed unknown, so that `cost_usd` lacks it."""
    by_model: tuple[ModelSpending, ...]
    """The same for each model, the dearest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a call is expected to use, before it is sent."""

    model: str
    """`provider/model`."""
    tokens: int = 0
    """Input tokens, and as many output tokens as the request allows."""
    cost_usd: float | None = None
    """USD for these; `None` when the price is unknown."""
    reports_cost: bool = False
    """Whether the client says that replies name what they cost: then nothing need be known before."""


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
        self._held = _Amounts()
        self._by_model: dict[str, _Amounts] = {}
        self._unpriced_calls = 0
        self._warned_of: set[str] = set()
        self._blinded_by: str | None = None
        self._reached: set[tuple[BudgetKind, float]] = set()
        self._untold: deque[BudgetThreshold] = deque()
        self._is_telling = False

    @property
    def spent(self) -> BudgetSpent:
        """What was spent so far."""
        with self._lock:
            spent, unpriced = self._spent, self._unpriced_calls
            models = [ModelSpending(m, a.cost_usd, a.tokens, a.llm_calls) for m, a in list(self._by_model.items())]
            models.sort(key=lambda model: (-model.cost_usd, -model.tokens, model.model))
            return BudgetSpent(spent.cost_usd, spent.tokens, spent.llm_calls, unpriced, tuple(models))

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

    def settle(self, estimate: Estimate, cost_usd: float | None, tokens: int) -> None:
        """Let what a call used take the place of what was held for it; `None` is a cost that stayed unknown."""
        cost_usd = estimate.cost_usd if cost_usd is None else cost_usd
        amounts = _Amounts()  # before the sums are looked at: what allocates may collect garbage
        with self._lock:
            self.give_back(estimate)
            self._spent.add(cost_usd or 0.0, tokens, 1)
            self._by_model.setdefault(estimate.model, amounts).add(cost_usd or 0.0, tokens, 1)
            if cost_usd is None:
                self._unpriced_calls += 1
                if self._refuses_unknown_prices:
                    self._blinded_by = estimate.model
        if cost_usd is None:
            self._warn_of_zero(estimate.model)
        self._tell_thresholds()

    @property
    def _refuses_unknown_prices(self) -> bool:
        return self.limits.max_cost_usd is not None and self.limits.on_unknown_price == "refuse"

    def _admit(self, estimate: Estimate) -> None:
        if self._refuses_unknown_prices:
            if estimate.cost_usd is None and not estimate.reports_cost:
                raise self._unknown_price(f"the price of {estimate.model} is unknown")
            if self._blinded_by is not None:
                raise self._unknown_price(f"what a call of {self._blinded_by} cost stayed unknown")
        wanted = {"cost_usd": estimate.cost_usd or 0.0, "tokens": estimate.tokens, "llm_calls": 1}
        for kind, limit in self._limited():
            taken, slack = getattr(self._spent, kind) + getattr(self._held, kind), _slack(kind, limit)
            if taken >= limit - slack or taken + wanted[kind] > limit + slack:
                raise self._exceeded(kind, limit, wanted[kind])

    def _limited(self) -> list[tuple[BudgetKind, float]]:
        limits = self.limits
        pairs: tuple[tuple[BudgetKind, float | None], ...] = (
            ("cost_usd", limits.max_cost_usd),
            ("tokens", limits.max_tokens),
            ("llm_calls", limits.max_llm_calls),
        )
        return [(kind, limit) for kind, limit in pairs if limit is not None]

    def _unknown_price(self, why: str) -> BudgetExceededError:
        return BudgetExceededError(
            f"budget of {self.name!r} cannot be kept: {why}; this call was not sent. "
            f"Add a price by set_prices(), or take on_unknown_price='zero'",
            budget=self.name,
            kind="cost_usd",
            limit=self.limits.max_cost_usd or 0.0,
            spent=self._spent.cost_usd,
        )

    def _exceeded(self, kind: BudgetKind, limit: float, wanted: float) -> BudgetExceededError:
        spent, held = getattr(self._spent, kind), self._held
        is_spent = spent >= limit - _slack(kind, limit)
        parts = [f"{_number(kind, spent)} of {_amount(kind, limit)} {self._in_calls(kind)}{self._by_models(kind)}"]
        if held.llm_calls:
            parts.append(f"{_amount(kind, getattr(held, kind))} held for what is in flight")
        if not is_spent and kind != "llm_calls":
            parts.append(f"{_amount(kind, wanted)} asked for")
        return BudgetExceededError(
            f"budget of {self.name!r} {'is spent' if is_spent else 'has too little left for this call'}: "
            f"{', '.join(parts)}; this call was not sent. "
            f"Raise max_{kind}, or {'stop here' if is_spent or kind == 'llm_calls' else 'ask for less'}",
            budget=self.name,
            kind=kind,
            limit=limit,
            spent=spent,
        )

    def _in_calls(self, kind: BudgetKind) -> str:
        return "spent" if kind == "llm_calls" else f"spent in {_amount('llm_calls', self._spent.llm_calls)}"

    def _by_models(self, kind: BudgetKind) -> str:
        """What was spent of this kind on each model, the most first."""
        models = sorted(self.spent.by_model, key=lambda model: getattr(model, kind), reverse=True)
        if not models:
            return ""
        named = [_of_model(kind, model) for model in models[:_NAMED_MODELS]]
        if len(models) > _NAMED_MODELS:
            named.append(f"and {len(models) - _NAMED_MODELS} more")
        return f" ({', '.join(named)})"

    def _warn_of_zero(self, model: str) -> None:
        """Say once for each model that its calls count as zero."""
        if self.limits.max_cost_usd is None or self.limits.on_unknown_price != "zero":
            return
        with self._lock:
            is_new = model not in self._warned_of
            self._warned_of.add(model)
        if is_new:
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
                if spent >= fraction * limit * (1 - _ROUNDING) and key not in self._reached:
                    self._reached.add(key)
                    self._untold.append(BudgetThreshold(kind, limit, spent, fraction))

    def _next_untold(self) -> BudgetThreshold | None:
        with self._lock:
            self._is_telling = bool(self._untold)
            return self._untold.popleft() if self._untold else None

    def _tell(self, threshold: BudgetThreshold) -> None:
        if threshold.fraction == THRESHOLDS[-1]:
            log.warning("budget of %r: all of %s is spent", self.name, _amount(threshold.kind, threshold.limit))
        if self._on_threshold is None:
            return
        try:
            self._on_threshold(threshold)
        except Exception:
            report_fault(log, "Budget", "on_threshold")


def _slack(kind: BudgetKind, limit: float) -> float:
    return limit * _ROUNDING if kind == "cost_usd" else 0


def _of_model(kind: BudgetKind, model: ModelSpending) -> str:
    """`openai/gpt-4o 0.90 USD in 10 calls`."""
    calls = _amount("llm_calls", model.llm_calls)
    return f"{model.model} {calls if kind == 'llm_calls' else f'{_amount(kind, getattr(model, kind))} in {calls}'}"


def _amount(kind: BudgetKind, value: float) -> str:
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


class Reservation:
    """What is held for one call by all budgets around it."""

    __slots__ = ("_budget", "_estimate")

    def __init__(self, budget: Budget, estimate: Estimate) -> None:
        self._budget = budget
        self._estimate = estimate

    def settle(self, usage: LLMUsage | None, *, was_refused: bool) -> None:
        """The call has ended.

        Args:
            usage: what it used, where that is known.
            was_refused: whether the server answered with an error: then it used nothing.
        """
        cost_usd, tokens = _used(self._estimate, usage, was_refused=was_refused)
        for budget in _chain(self._budget):
            budget.settle(self._estimate, cost_usd, tokens)

    def give_back(self) -> None:
        """The call was never sent."""
        for budget in _chain(self._budget):
            budget.give_back(self._estimate)


def _used(estimate: Estimate, usage: LLMUsage | None, *, was_refused: bool) -> tuple[float | None, int]:
    if usage is not None and usage.is_known:
        return usage.cost_usd, usage.prompt_tokens + usage.completion_tokens
    if usage is not None and usage.cost_usd is not None:
        return usage.cost_usd, estimate.tokens
    return (0.0, 0) if was_refused else (estimate.cost_usd, estimate.tokens)


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


def enter_budget(budget: Budget) -> contextvars.Token[Budget | None]:
    """Make a budget the current one, until the token is used."""
    return _current.set(budget)
