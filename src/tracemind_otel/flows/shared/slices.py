"""What a busy process reserves ahead of its calls, so that most of them need not wait for the state.

A *slice* is an ordinary reservation for the calls of about the next second. Each call takes its part of it without a
round trip, and settles that part as if it had reserved it itself, so the state's sums stay exact. A process that is
killed loses its slices like everything that it holds: the calls of its last moments may have spent them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace

from .state_port import Account, Answer, Reserve, Settle, Sums, minus, plus

_MEMORY_S = 1.0
"""Seconds for which a reservation counts as demand; after them it has faded to 37 %."""
_LEAST_CALLS = 8.0
"""Reservations a second below which nothing is reserved ahead: such a process is not busy, and its calls can wait."""
_IDLE_S = 0.5
"""Seconds after its last reservation from which a process needs no slice: others may need what it has parked."""
_LARGEST_PART = 64
"""A slice is at most the remainder of every limit divided by this."""

_NOTHING = Sums()

Limits = tuple[int | None, int | None, int | None]


class _Slice:
    """What is reserved ahead in one account, and what the calls of this process ask of it."""

    __slots__ = (
        "_at",
        "_calls",
        "_demand",
        "_typical",
        "account",
        "ends_at",
        "latest",
        "left",
        "limits",
        "mark",
        "window",
    )

    def __init__(self, account: Account, limits: Limits) -> None:
        self.account = account
        self.limits = limits
        self.left = Sums()
        self.mark = Sums()
        """Half of what it had when it was filled; while it has more, nothing needs to be computed."""
        self.window = 0
        self.latest: Answer | None = None
        self.ends_at = math.inf
        """When the window of the latest answer ends, by the monotonic clock."""
        self._typical = Sums()
        self._calls = 0.0
        self._demand = (0.0, 0.0, 0.0)
        self._at = 0.0

    def note(self, wanted: Sums) -> None:
        """Count a reservation as demand."""
        faded, now = self._faded()
        self._at = now
        self._calls = self._calls * faded + 1
        usd, tokens, calls = self._demand
        self._demand = (usd * faded + wanted[0], tokens * faded + wanted[1], calls * faded + wanted[2])
        self._typical = wanted

    def has_room_for(self, order: Reserve) -> bool:
        """Whether a call may take its part, while its window lasts."""
        left = self.left
        if self.latest is None or self.latest.window != self.window:
            return False
        if left[2] < order.wanted[2] or left[1] < order.wanted[1] or left[0] < order.wanted[0]:
            return False
        if order.limits != self.limits or time.monotonic() >= self.ends_at:
            return False
        return self._has_some(left)

    def target(self) -> Sums:
        """What ought to be reserved ahead: the demand, in a small part of what the account has left."""
        faded, now = self._faded()
        if self._calls * faded < _LEAST_CALLS or now - self._at > _IDLE_S:
            return _NOTHING
        if now >= self.ends_at:
            return _NOTHING
        demand = [amount * faded for amount in self._demand]
        fraction = 1.0
        for limit, taken, amount in zip(self.limits, self._taken_by_others(), demand, strict=True):
            if limit is not None and amount > 0:
                fraction = min(fraction, (limit - taken) / _LARGEST_PART / amount)
        target = Sums(*(int(amount * fraction) for amount in demand))
        return target if self._holds_a_call(target) else _NOTHING

    def is_below_mark(self) -> bool:
        """Whether it may be low."""
        left, mark = self.left, self.mark
        return left[0] < mark[0] or left[1] < mark[1] or left[2] < mark[2]

    def is_low(self) -> bool:
        """Whether less than half of the target is left of anything."""
        return any(2 * have < want for have, want in zip(self.left, self.target(), strict=True))

    def ends_in_s(self) -> float | None:
        """Seconds until the window ends; `None` for a window without an end."""
        return None if self.ends_at == math.inf else max(self.ends_at - time.monotonic(), 0.0)

    def is_idle(self) -> bool:
        """Whether nothing is left to remember."""
        faded, _ = self._faded()
        return not any(self.left) and self._calls * faded < 1 / _LEAST_CALLS

    def give_back(self, kept: Sums = _NOTHING) -> list[Settle]:
        """Take from the slice what exceeds an amount, and return the orders that free it."""
        surplus = Sums(*(max(have - keep, 0) for have, keep in zip(self.left, kept, strict=True)))
        if not any(surplus):
            return []
        self.left = minus(self.left, surplus)
        return [Settle(self.account, self.window, surplus, Sums())]

    def _holds_a_call(self, amounts: Sums) -> bool:
        """Whether an amount is of use: it has room for a call like the last one."""
        return self._has_some(amounts) and all(a >= b for a, b in zip(amounts, self._typical, strict=True))

    def _has_some(self, amounts: Sums) -> bool:
        """The state grants nothing of a limit that is reached, not even a call that is free; nor does a slice."""
        return all(limit is None or amount > 0 for limit, amount in zip(self.limits[:2], amounts[:2], strict=True))

    def _taken_by_others(self) -> Sums:
        return _NOTHING if self.latest is None else minus(plus(self.latest.spent, self.latest.held), self.left)

    def _faded(self) -> tuple[float, float]:
        now = time.monotonic()
        return math.exp((self._at - now) / _MEMORY_S), now


class Slices:
    """The slices of a process; its owner holds a lock while it uses them."""

    def __init__(self) -> None:
        self._slices: dict[Account, _Slice] = {}
        self._low: set[Account] = set()

    @property
    def are_low(self) -> bool:
        """Whether a slice wants to be filled up."""
        return bool(self._low)

    @property
    def are_used(self) -> bool:
        """Whether `tidy` has something to look after."""
        return bool(self._slices)

    def take(self, order: Reserve) -> Answer | None:
        """Grant a reservation out of a slice; `None` where the state must be asked."""
        account = order.account
        own = self._slices.get(account)
        if own is None:
            own = self._slices[account] = _Slice(account, order.limits)
        own.note(order.wanted)
        is_granted = own.has_room_for(order)
        if is_granted:
            own.left = minus(own.left, order.wanted)
        if (not is_granted or own.is_below_mark()) and account not in self._low and own.is_low():
            self._low.add(account)
        if not is_granted or own.latest is None:
            return None
        return replace(own.latest, denied_by=None, ends_in_s=own.ends_in_s())

    def before_asking(self, orders: Iterable[Reserve]) -> list[Settle]:
        """Free the slices of the accounts that are asked: a call is not denied for what its own process has parked."""
        freed: list[Settle] = []
        for account in {order.account: order.limits for order in orders}:
            own = self._slices.get(account)
            if own is not None:
                freed += own.give_back()
        return freed

    def refills(self, asked: Iterable[Reserve], settled: Iterable[Account]) -> list[Reserve]:
        """The reservations that fill up what is low, and what the accounts lack that are sent to the state anyway."""
        limits = {order.account: order.limits for order in asked}
        orders: list[Reserve] = []
        for account in self._low.union(settled):
            own = self._slices.get(account)
            if own is None or not (account in self._low or any(own.left)):
                continue  # what was given back is not reserved anew
            if not any(own.left):
                own.limits = limits.get(account, own.limits)
            wanted = Sums(*(max(want - have, 0) for want, have in zip(own.target(), own.left, strict=True)))
            if any(wanted):
                orders.append(Reserve(account, own.limits, wanted, is_call=True))
        self._low.clear()
        return orders

    def note_answer(self, account: Account, answer: Answer, sent_at: float) -> None:
        """Remember how an account stands; `sent_at` is when it was asked, by the monotonic clock."""
        own = self._slices.get(account)
        if own is not None and (own.latest is None or answer.window >= own.latest.window):
            own.latest = answer
            own.ends_at = math.inf if answer.ends_in_s is None else sent_at + answer.ends_in_s

    def fill(self, order: Reserve, answer: Answer) -> list[Settle]:
        """Add what the state granted; returns the orders that free the slice of a window that is over."""
        own = self._slices.get(order.account)
        if own is None:
            own = self._slices[order.account] = _Slice(order.account, order.limits)
        freed = own.give_back() if own.window != answer.window else []
        own.window = answer.window
        own.left = plus(own.left, order.wanted)
        own.mark = Sums(*(amount // 2 for amount in own.left))
        return freed

    def tidy(self) -> list[Settle]:
        """Free what the process no longer needs, and forget the accounts that it no longer uses."""
        freed: list[Settle] = []
        for account, own in list(self._slices.items()):
            target = own.target()
            if any(have > 2 * want for have, want in zip(own.left, target, strict=True)):
                freed += own.give_back(target)
            if own.is_idle():
                del self._slices[account]
        return freed

    def give_back_all(self) -> list[Settle]:
        """Free every slice, and fill none until the next call."""
        self._low.clear()
        return [order for own in self._slices.values() for order in own.give_back()]
