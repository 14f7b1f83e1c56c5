"""Limits of what the model calls below may use: reserved before a call, settled after it.

Every budget around a call must admit it (`rules`). The expected use is estimated and held until the call ends, so that
concurrent calls cannot all spend the same remainder. Then the actual use replaces the estimate:

- known usage counts as reported;
- a call that the server rejected, or that never reached it, costs nothing and counts as a call;
- an attempt whose usage stayed unknown, because it was cancelled, timed out or cut, counts as what was held for it: the
  provider may bill it, and unknown is not zero. It is repeated only if there is room for another attempt.

A denied call is not sent and counts nowhere. The current budget is a context variable; a forked process has none.
"""

from __future__ import annotations

from .budgets import (
    COUNTED_AS_ZERO,
    Budget,
    current_budget,
    enter_budget,
    is_shared,
    needs_price,
)
from .limits import BudgetLimits, OnUnknownPrice
from .reservations import Reservation, reserve, reserve_here, reserve_soon, spend
from .shares import OnStateAway, Share
from .spending import BudgetSpent, Estimate, ModelSpending, Use
from .thresholds import THRESHOLDS, BudgetThreshold

__all__ = [
    "COUNTED_AS_ZERO",
    "THRESHOLDS",
    "Budget",
    "BudgetLimits",
    "BudgetSpent",
    "BudgetThreshold",
    "Estimate",
    "ModelSpending",
    "OnStateAway",
    "OnUnknownPrice",
    "Reservation",
    "Share",
    "Use",
    "current_budget",
    "enter_budget",
    "is_shared",
    "needs_price",
    "reserve",
    "reserve_here",
    "reserve_soon",
    "spend",
]
