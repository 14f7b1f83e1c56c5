"""The fractions of a limit that are reported when they are reached."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..._base.once import report_fault
from ...errors import BudgetKind
from .limits import BudgetLimits, amount, slack
from .spending import Amounts

log = logging.getLogger(__name__)

THRESHOLDS = (0.5, 0.8, 1.0)
"""The fractions of a limit that are reported."""


@dataclass(frozen=True, slots=True)
class BudgetThreshold:
    """A fraction of a limit that was reached."""

    budget: str
    """The budget's name."""
    kind: BudgetKind
    """The kind of limit."""
    limit: float
    """The limit, in USD, tokens or calls."""
    spent: float
    """What was spent of it by then, in the same unit."""
    fraction: float
    """The fraction that was reached: 0.5, 0.8 or 1.0."""


class ThresholdReports:
    """Reports each threshold of one budget once, in order, and outside the budget's lock."""

    def __init__(self, budget: str, limits: BudgetLimits, listener: Callable[[BudgetThreshold], None] | None) -> None:
        self._budget = budget
        self._limits = limits.by_kind
        self._listener = listener
        self._reached: set[tuple[BudgetKind, float]] = set()
        self._unreported: deque[BudgetThreshold] = deque()
        self._reporting = threading.Lock()

    def note(self, spent: Amounts) -> None:
        """Queue the thresholds that were newly reached; called under the budget's lock."""
        for threshold in self._within(spent):
            key = (threshold.kind, threshold.fraction)
            if key not in self._reached:
                self._reached.add(key)
                self._unreported.append(threshold)

    def report_crossed(self, before: Amounts, spent: Amounts) -> None:
        """Report the thresholds that one amount of a shared sum has crossed, so that one process reports each."""
        earlier = {(threshold.kind, threshold.fraction) for threshold in self._within(before)}
        for threshold in self._within(spent):
            if (threshold.kind, threshold.fraction) not in earlier:
                self._unreported.append(threshold)
        self.report()

    def report(self) -> None:
        """Report what is queued, unless another thread does so now: it reports these too."""
        while self._unreported and self._reporting.acquire(blocking=False):
            try:
                while self._unreported:
                    self._report(self._unreported.popleft())
            finally:
                self._reporting.release()

    def _within(self, spent: Amounts) -> Iterator[BudgetThreshold]:
        """The thresholds that a sum has reached."""
        for kind, limit in self._limits.items():
            so_far = getattr(spent, kind)
            for fraction in THRESHOLDS:
                if so_far >= fraction * limit - slack(kind, limit):
                    yield BudgetThreshold(self._budget, kind, limit, so_far, fraction)

    def _report(self, threshold: BudgetThreshold) -> None:
        if threshold.fraction == THRESHOLDS[-1]:
            limit = amount(threshold.kind, threshold.limit)
            log.warning("budget of %r: the limit of %s is spent", self._budget, limit)
        try:
            if self._listener is not None:
                self._listener(threshold)
        except Exception:
            report_fault(log, "Budget", "on_threshold")
