"""What a shared state must be able to do: reserve, settle and renew, each in one atomic step."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

NANO = 1_000_000_000
"""Billionths in a USD."""
MOST = 2**53 - 1
"""The largest amount: Lua, in which Redis adds, has no larger exact numbers. In USD it is 9,007,199."""


class StateAwayError(Exception):
    """The state did not answer in time, or could not carry out what it was asked."""


class Sums(NamedTuple):
    """An amount of each kind; whole numbers, whose sums are exact in every state."""

    nano_usd: int = 0
    """Billionths of a USD."""
    tokens: int = 0
    """Input and output tokens."""
    llm_calls: int = 0
    """Model calls."""


def plus(one: Sums, other: Sums) -> Sums:
    """The sum of each kind."""
    return Sums(one[0] + other[0], one[1] + other[1], one[2] + other[2])


def minus(one: Sums, other: Sums) -> Sums:
    """The difference of each kind."""
    return Sums(one[0] - other[0], one[1] - other[1], one[2] - other[2])


def total(amounts: Sequence[Sums]) -> Sums:
    """The sum of all, of each kind."""
    return Sums(*(sum(each[kind] for each in amounts) for kind in range(len(Sums._fields))))


def bounded(cost_usd: float | None, tokens: int, llm_calls: int) -> Sums:
    """Amounts that every state can add: none exceeds `MOST`, whatever a request or a reply says."""
    return Sums(nano_usd(cost_usd), min(tokens, MOST), llm_calls)


def nano_usd(cost_usd: float | None) -> int:
    """USD in billionths, rounded up so that many small amounts are never counted as less."""
    return math.ceil(min((cost_usd or 0.0) * NANO - 1e-3, MOST))


@dataclass(frozen=True, slots=True)
class Account:
    """What is limited: one sum in each window."""

    name: str
    """The budget's name."""
    key: str
    """The user, team or API key that the sum is for; empty for one sum for all."""
    window_s: int
    """Seconds of a window; 0 for one window without an end."""


@dataclass(frozen=True, slots=True)
class Reserve:
    """Hold an amount if every limit has room for it."""

    account: Account
    """The account that is asked."""
    limits: tuple[int | None, int | None, int | None]
    """The limits, in the order and units of `Sums`; `None` for no limit."""
    wanted: Sums
    """The amount to hold."""
    is_call: bool
    """Whether a call begins; a request that is sent again for a call is no further one."""
    number: str = field(default_factory=lambda: os.urandom(16).hex())
    """What a state that may lose an answer knows the order by."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Count an amount in place of one that is held."""

    account: Account
    """The account that granted it."""
    window: int | None
    """The window in which it is held; `None` for the current one, where nothing was held."""
    held: Sums
    """The amount that is held."""
    used: Sums
    """The amount that was used."""
    if_granted: str | None = None
    """The number of a reservation whose answer was lost: the order counts only if that was granted."""
    number: str = field(default_factory=lambda: os.urandom(16).hex())
    """What a state that may lose an answer knows the order by: it is carried out once, however often it is sent."""


Order = Reserve | Settle


@dataclass(frozen=True, slots=True)
class Answer:
    """How an account stands after an order."""

    window: int
    """The number of the window."""
    denied_by: int | None
    """The index in `Sums` of the limit that has no room; `None` where the order was carried out."""
    spent: Sums
    """What is spent in this window."""
    held: Sums
    """What all processes hold in this window."""
    ends_in_s: float | None = None
    """Seconds until the window ends, by the state's clock; `None` for a window without an end."""


class SharedState(Protocol):
    """Keeps the sums. One thread uses it; every method raises `StateAwayError` and no other error."""

    def apply(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        """Carry out each order atomically, in turn; what it holds belongs to `owner` for so many seconds.

        What an owner holds whose lease has expired counts as spent from then on.
        """
        ...

    def renew(self, owner: str, lease_s: float) -> None:
        """Extend the lease of an owner by so many seconds from now on."""
        ...

    def accounts(self) -> int:
        """How many accounts have sums."""
        ...

    def before_fork(self) -> None:
        """Close what a forked child must not inherit; the next order opens it again."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def room_is_lacking(order: Reserve, taken: Sums) -> int | None:
    """The index of the first limit that has no room for an order; `taken` is spent and held."""
    for index, limit in enumerate(order.limits):
        if limit is None:
            continue
        is_full = taken[index] >= limit and (order.is_call or index != Sums._fields.index("llm_calls"))
        if is_full or taken[index] + order.wanted[index] > limit:
            return index
    return None
