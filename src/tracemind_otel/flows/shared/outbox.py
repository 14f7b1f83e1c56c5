"""What a process wants of the shared state: reservations that calls wait for, settlements, and its slices."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace

from ..._base.once import report_fault
from .slices import Slices
from .state_port import Answer, Order, Reserve, Settle, StateAwayError, Sums, minus, plus, total

log = logging.getLogger(__name__)

_BATCH = 256
"""The most reservations, and the most settlements, of one transaction, so that no other process waits long."""
_BACKLOG = 100_000
"""The most settlements that wait for a state that is away."""

Listener = Callable[[Answer], None]
"""Is told how an account stands after a settlement."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """A settlement, or many of one account and window as one."""

    order: Settle
    """What the state is asked; it keeps its number until the state has answered."""
    parts: Sequence[tuple[Sums, Listener]] = ()
    """What each part has used, and who is told of it."""
    was_sent: bool = False
    """Whether it may have been carried out already, so that it must be sent again as it was."""

    @classmethod
    def of(cls, settlements: Sequence[Settlement]) -> Settlement:
        """Many as one."""
        if len(settlements) == 1:
            return settlements[0]
        first = settlements[0].order
        held = total([each.order.held for each in settlements])
        used = total([each.order.used for each in settlements])
        parts = [part for each in settlements for part in each.parts]
        return cls(Settle(first.account, first.window, held, used), parts)

    def tell(self, answer: Answer) -> None:
        """Tell each listener how the account stands after its part, as if the parts had been sent in turn."""
        spent = minus(answer.spent, total([used for used, _ in self.parts]))
        for used, listener in self.parts:
            spent = plus(spent, used)
            try:
                listener(replace(answer, spent=spent))
            except Exception:
                report_fault(log, "StateClient", "settle")


class Asked:
    """A reservation that a call waits for."""

    __slots__ = ("answer", "is_single", "order")

    def __init__(self, order: Reserve) -> None:
        self.order = order
        self.answer: Future[Answer] = Future()
        self.is_single = False
        """Whether it is asked by itself, because there is no room for all that waited with it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Reservations of one account that wait at the same time, and are asked as one."""

    order: Reserve
    """What all of them want."""
    members: Sequence[Asked]
    """Those that wait."""

    @classmethod
    def of(cls, members: Sequence[Asked]) -> Group:
        """The reservations, as one."""
        first = members[0].order
        if len(members) == 1:
            return cls(first, members)
        wanted = total([each.order.wanted for each in members])
        return cls(Reserve(first.account, first.limits, wanted, first.is_call), members)


@dataclass(frozen=True, slots=True)
class Batch:
    """The orders of one transaction, in this order."""

    settlements: Sequence[Settlement]
    """What was used, and what is given back."""
    asked: Sequence[Group]
    """What calls wait for."""
    refills: Sequence[Reserve]
    """What is reserved ahead."""
    sent_at: float
    """When it was made, by the monotonic clock."""

    @property
    def orders(self) -> list[Order]:
        """All of them."""
        return [*(each.order for each in self.settlements), *(each.order for each in self.asked), *self.refills]


class Outbox:
    """The orders of a process that the state has not taken yet; its owner holds a lock while it uses them."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._asked: deque[Asked] = deque()
        self._settlements: deque[Settlement] = deque()
        self._sent: Sequence[Settlement] = ()
        """What is on its way."""
        self._slices = Slices()

    @property
    def is_empty(self) -> bool:
        """Whether no call waits, and every settlement is delivered."""
        return not (self._asked or self._settlements or self._sent)

    @property
    def unsettled_calls(self) -> int:
        """Calls whose settlement waits."""
        return sum(each.order.used.llm_calls for each in (*self._sent, *self._settlements))

    @property
    def is_urgent(self) -> bool:
        """Whether a call waits, or a slice is low, or there is enough for a batch."""
        return bool(self._asked) or self._slices.are_low or len(self._settlements) >= _BATCH

    @property
    def has_settlements(self) -> bool:
        """Whether settlements wait."""
        return bool(self._settlements)

    @property
    def has_slices(self) -> bool:
        """Whether `tidy` is to be called from time to time."""
        return self._slices.are_used

    def ask(self, order: Reserve) -> Future[Answer]:
        """Reserve out of a slice at once, or with the next batch."""
        asked = Asked(order)
        granted = self._slices.take(order)
        if granted is not None:
            asked.answer.set_result(granted)
        else:
            self._asked.append(asked)
        return asked.answer

    def settle(self, order: Settle, listener: Listener | None = None) -> None:
        """Settle with one of the next batches."""
        if len(self._settlements) >= _BACKLOG:
            log.error("the shared state at %s has been away too long: a settlement is dropped", self._where)
            return
        self._settlements.append(Settlement(order, () if listener is None else [(order.used, listener)]))

    def next_batch(self) -> Batch:
        """What to send now; `carried_out` or `failed` follows."""
        asked = [self._asked.popleft() for _ in range(min(len(self._asked), _BATCH))]
        asked = [each for each in asked if not each.answer.cancelled()]
        orders = [each.order for each in asked]
        freed = [Settlement(order) for order in self._slices.before_asking(orders)]
        waiting = [self._settlements.popleft() for _ in range(min(len(self._settlements), _BATCH))]
        settlements = self._sent = _merged([*freed, *waiting])
        refills = self._slices.refills(orders, [each.order.account for each in settlements])
        return Batch(settlements, _grouped(asked), refills, time.monotonic())

    def carried_out(self, batch: Batch, answers: Sequence[Answer]) -> list[tuple[Asked, Answer]]:
        """Take note of the answers to a batch; returns those that calls wait for."""
        self._sent = ()
        for order, answer in zip(batch.orders, answers, strict=True):
            self._slices.note_answer(order.account, answer, batch.sent_at)
        first = len(batch.settlements) + len(batch.asked)
        for order, answer in zip(batch.refills, answers[first:], strict=True):
            if answer.denied_by is None:
                self._settle_all(self._slices.fill(order, answer))
        answered: list[tuple[Asked, Answer]] = []
        for group, answer in zip(batch.asked, answers[len(batch.settlements) : first], strict=True):
            if answer.denied_by is None or len(group.members) == 1:
                answered += [(each, answer) for each in group.members]
            else:
                self._ask_singly(group)
        return answered

    def _ask_singly(self, group: Group) -> None:
        """Ask again: there may be room for some of them."""
        for each in group.members:
            each.is_single = True
        self._asked.extendleft(reversed(group.members))

    def failed(self, batch: Batch) -> list[Asked]:
        """Take note that the state did not answer; returns the reservations for which no call should wait.

        What it may have granted is taken back when it answers again, and so are the slices.
        """
        self._sent = ()
        self._settlements.extendleft(replace(each, was_sent=True) for each in reversed(batch.settlements))
        late, self._asked = list(self._asked), deque()
        for order in (*(each.order for each in batch.asked), *batch.refills):
            self.settle(Settle(order.account, None, order.wanted, Sums(), if_granted=order.number))
        self.give_back_slices()
        return [*(each for group in batch.asked for each in group.members), *late]

    def tidy(self) -> None:
        """Give back what is reserved ahead and no longer needed."""
        self._settle_all(self._slices.tidy())

    def give_back_slices(self) -> None:
        """Give back all that is reserved ahead."""
        self._settle_all(self._slices.give_back_all())

    def _settle_all(self, orders: Sequence[Settle]) -> None:
        for order in orders:
            self.settle(order)


def _grouped(asked: Sequence[Asked]) -> list[Group]:
    together: dict[object, list[Asked]] = {}
    for each in asked:
        order = each.order
        key = each if each.is_single else (order.account, order.limits, order.is_call)
        together.setdefault(key, []).append(each)
    return [Group.of(members) for members in together.values()]


def _merged(settlements: Sequence[Settlement]) -> list[Settlement]:
    together: dict[object, list[Settlement]] = {}
    for each in settlements:
        order = each.order
        is_alone = each.was_sent or order.if_granted is not None
        key = order.number if is_alone else (order.account, order.window)
        together.setdefault(key, []).append(each)
    return [Settlement.of(same) for same in together.values()]


def tell(batch: Batch, answers: Sequence[Answer]) -> None:
    """Tell the listeners of settlements how the accounts stand."""
    for settlement, answer in zip(batch.settlements, answers, strict=False):
        settlement.tell(answer)


def fail(asked: Asked, error: StateAwayError) -> None:
    """Tell a call that the state did not answer, if it still waits."""
    try:
        asked.answer.set_exception(error)
    except InvalidStateError:
        return
