"""Budgets in OpenTelemetry: a context manager, and a span event for each threshold that is reached."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from opentelemetry.trace import Span, get_current_span

from .._base.context import Block, Setting
from .._base.once import report_fault
from ..errors import BudgetKind, ConfigError
from ..flows.budget import (
    Budget,
    BudgetLimits,
    BudgetSpent,
    BudgetThreshold,
    OnStateAway,
    OnUnknownPrice,
    Share,
    current_budget,
    enter_budget,
)
from ..flows.budget.accounts import checked_string, sharing
from . import semconv
from .current import Providers, configured_providers, instruments, meter
from .instruments import NO_SPAN, Attributes
from .labels import DistinctValues
from .sanitize import sanitized

log = logging.getLogger(__name__)


def checked_limits(
    *,
    max_cost_usd: float | None = None,
    max_tokens: int | None = None,
    max_llm_calls: int | None = None,
    on_unknown_price: OnUnknownPrice = "refuse",
    reserve_cost_usd: float | None = None,
    reserve_tokens: int | None = None,
) -> BudgetLimits | None:
    """The limits, or `None` where nothing is limited.

    Raises:
        ConfigError: a limit is no number of zero or more, or the policy is unknown.
    """
    limits = BudgetLimits(
        max_cost_usd=max_cost_usd,
        max_tokens=max_tokens,
        max_llm_calls=max_llm_calls,
        on_unknown_price=on_unknown_price,
        reserve_cost_usd=reserve_cost_usd,
        reserve_tokens=reserve_tokens,
    )
    return limits if limits.by_kind else None


def measured_budget(span: Span, limits: BudgetLimits, name: str, share: Share | None = None) -> Budget:
    """A budget inside the ones around it: a span gets an event for each threshold, and the metrics what is spent."""
    on_spent = None
    try:
        on_spent = _meter().begin(name, limits)
    except Exception:
        report_fault(log, "budget", "measure")
    on_threshold = partial(_add_event, span)
    return Budget(limits, name=name, parent=current_budget(), share=share, on_threshold=on_threshold, on_spent=on_spent)


class _BudgetMeter:
    """The metrics of budgets under one set-up."""

    def __init__(self, providers: Providers) -> None:
        self.providers = providers
        self._names = DistinctValues()
        self._limit = meter(providers.meter_provider).create_gauge(
            semconv.METRIC_BUDGET_LIMIT, description="Limit of a budget, in USD, tokens or calls by its kind"
        )
        self._spent = instruments(providers.meter_provider).create_counter(
            semconv.METRIC_BUDGET_SPENT, "", "What was spent under a budget, in USD, tokens or calls by its kind"
        )
        self._sets: dict[tuple[str, BudgetKind], Attributes] = {}

    def begin(self, name: str, limits: BudgetLimits) -> Callable[[BudgetKind, float], None]:
        """Measure the limits of a budget that begins; returns what measures its spending."""
        known = str(self._names.bounded(semconv.TRACEMIND_BUDGET_NAME, sanitized(name)))
        attributes = {kind: self._attributes(known, kind) for kind in limits.by_kind}
        for kind, limit in limits.by_kind.items():
            self._limit.set(limit, attributes[kind], NO_SPAN)
        return lambda kind, amount: self._spent.add(amount, attributes[kind], NO_SPAN)

    def _attributes(self, name: str, kind: BudgetKind) -> Attributes:
        """The same object each time, by which a series is found fastest."""
        key = (name, kind)
        if key not in self._sets:
            self._sets[key] = {semconv.TRACEMIND_BUDGET_NAME: name, semconv.TRACEMIND_BUDGET_KIND: kind}
        return self._sets[key]


_latest: _BudgetMeter | None = None


def _meter() -> _BudgetMeter:
    global _latest
    providers = configured_providers()
    if _latest is None or _latest.providers is not providers:
        _latest = _BudgetMeter(providers)
    return _latest


def _add_event(span: Span, threshold: BudgetThreshold) -> None:
    """Tell a span that a threshold was reached."""
    if span.is_recording():
        span.add_event(
            semconv.BUDGET_EVENT,
            {
                semconv.TRACEMIND_BUDGET_NAME: threshold.budget,
                semconv.TRACEMIND_BUDGET_KIND: threshold.kind,
                # Of one type whatever is limited: a backend may refuse a field that changes its type.
                semconv.TRACEMIND_BUDGET_LIMIT: float(threshold.limit),
                semconv.TRACEMIND_BUDGET_SPENT: float(threshold.spent),
                semconv.TRACEMIND_BUDGET_FRACTION: threshold.fraction,
            },
        )


class budget(Block["budget"]):  # noqa: N801  used like a function
    """Limit what the model calls in a `with` block may cost, all of them together.

    The limits are those of `@flow(max_cost_usd=...)`; the events `tracemind.budget` go to the span that is current
    where the block begins. A call that would go over a limit is not sent, and fails with a `BudgetExceededError`.

    Args:
        max_cost_usd: USD.
        max_tokens: input and output tokens.
        max_llm_calls: model calls, however they end.
        on_unknown_price: under `max_cost_usd`, whether a call whose price is unknown is denied (`refuse`, the default),
            or counts as `zero` with a warning.
        reserve_cost_usd: USD that a call reserves at least where it does not limit its output by `max_tokens`.
        reserve_tokens: tokens that such a call reserves at least.
        name: what is limited, for messages, and for the account of a shared budget. The default is `budget`.
        per: the window of a budget that is shared by many processes, such as `30s`, `5m`, `1h` or `1d`; it needs
            `configure(state=...)`.
        key: the user, team or API key whose sum is shared; each key has an account of its own.
        on_state_away: whether a call of a shared budget is denied (`deny`, the default) or sent (`allow`) while the
            state does not answer.

    Raises:
        ConfigError: no limit is given, one is not a number of zero or more, or a shared budget has no name or state.

    Example:
        >>> with budget(max_llm_calls=10) as spending:
        ...     spending.spent.llm_calls
        0
    """

    __slots__ = ("_budget", "_limits", "_name", "_setting", "_sharing")

    def __init__(
        self,
        *,
        max_cost_usd: float | None = None,
        max_tokens: int | None = None,
        max_llm_calls: int | None = None,
        on_unknown_price: OnUnknownPrice = "refuse",
        reserve_cost_usd: float | None = None,
        reserve_tokens: int | None = None,
        name: str | None = None,
        per: str | None = None,
        key: str | None = None,
        on_state_away: OnStateAway = "deny",
    ) -> None:
        limits = checked_limits(
            max_cost_usd=max_cost_usd,
            max_tokens=max_tokens,
            max_llm_calls=max_llm_calls,
            on_unknown_price=on_unknown_price,
            reserve_cost_usd=reserve_cost_usd,
            reserve_tokens=reserve_tokens,
        )
        if limits is None:
            raise ConfigError("budget() limits nothing; pass max_cost_usd, max_tokens or max_llm_calls")
        self._limits = limits
        self._name = "budget" if name is None else name
        self._sharing = sharing(key=key, per=per, on_state_away=on_state_away)
        if self._sharing is not None:
            if name is None:
                raise ConfigError("a budget with per or key is shared by its name; pass name='team-a' too")
            checked_string("name", name)
        self._budget: Budget | None = None
        self._setting: Setting | None = None

    @property
    def spent(self) -> BudgetSpent:
        """What was spent so far by the attempts that have ended.

        Raises:
            RuntimeError: the block has not begun.
        """
        if self._budget is None:
            raise RuntimeError("nothing is spent yet: the budget's `with` block has not begun")
        return self._budget.spent

    def _enter(self) -> budget:
        if self._setting is not None:
            raise RuntimeError("this budget(...) is in use; make one for each block")
        share = None if self._sharing is None else self._sharing.share(self._name, self._limits)
        self._budget = measured_budget(get_current_span(), self._limits, self._name, share)
        self._setting = enter_budget(self._budget)
        return self

    def _leave(self, exc: BaseException | None) -> None:
        setting, self._setting = self._setting, None
        if setting is not None:
            setting.undo()
