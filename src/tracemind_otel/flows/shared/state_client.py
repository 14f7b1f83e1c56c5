"""The thread of a process that talks to the shared state, so that no call and no event loop waits for it too long."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from ..._base.fork import in_forked_child
from ..._base.once import report_fault
from .state_port import Answer, Order, Reserve, Settle, SharedState, StateAwayError, Sums

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds after which what a killed process has reserved counts as spent."""
TIMEOUT_S = 0.25
"""Seconds that a call waits for the state."""
_PROBE_S = 1.0
"""Seconds between two tries to reach a state that is away."""
_BATCH = 256
"""The most orders of one transaction, so that no other process waits long."""
_BACKLOG = 100_000
"""The most settlements that wait for a state that is away."""


_Settlement = tuple[Settle, Callable[[Answer], None] | None]


class _Asked:
    """A reservation that a call waits for."""

    __slots__ = ("answer", "order")

    def __init__(self, order: Reserve) -> None:
        self.order = order
        self.answer: Future[Answer] = Future()


class StateClient:
    """Sends orders to a shared state, in a thread that starts with the first.

    Args:
        connect: makes the connection; it may raise `StateAwayError`.
        where: the state's place for messages, without credentials.
        timeout_s: seconds that a call waits for an answer.
        lease_s: seconds after which what a killed process has reserved counts as spent.
    """

    def __init__(
        self,
        connect: Callable[[], SharedState],
        where: str,
        *,
        timeout_s: float = TIMEOUT_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self._connect = connect
        self._lease_s = lease_s
        self.where = where
        self.timeout_s = timeout_s
        self._begin_anew()
        in_forked_child(self._begin_anew)
        atexit.register(self.close)

    def _begin_anew(self) -> None:
        """Also in a forked child, whose leases are its own; the parent's connection is the parent's."""
        self._inherited = getattr(self, "_state", None)  # kept, because closing it here could disturb the parent's
        self._state: SharedState | None = None
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._waiting = threading.Condition()
        self._asked: deque[_Asked] = deque()
        self._settlements: deque[_Settlement] = deque()
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_away = False
        self._probe_at = 0.0
        self._renew_at = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the state did not answer last time."""
        return self._is_away

    def ask(self, order: Reserve) -> Future[Answer]:
        """Reserve; the future fails with `StateAwayError`. Cancelling it takes back what is granted later.

        While the state is away, it fails at once.
        """
        asked = _Asked(order)
        with self._waiting:
            if self._is_away or self._is_closing:
                asked.answer.set_exception(StateAwayError("the shared state is away"))
                return asked.answer
            self._asked.append(asked)
            self._wake()
        return asked.answer

    def settle(self, order: Settle, listener: Callable[[Answer], None] | None = None) -> None:
        """Count what was used, as soon as the state takes it; never waits. The listener is told the answer."""
        with self._waiting:
            if len(self._settlements) >= _BACKLOG:
                log.error("the shared state at %s has been away too long: a settlement is dropped", self.where)
                return
            self._settlements.append((order, listener))
            self._wake()

    def take_back(self, order: Reserve, answer: Answer) -> None:
        """Free what was granted to a call that no longer waits for it."""
        if answer.denied_by is None:
            self.settle(Settle(order.account, answer.window, order.wanted, Sums()))

    def flush(self, timeout_s: float) -> bool:
        """Wait until every settlement has been delivered; returns whether all have."""
        until = time.monotonic() + timeout_s
        with self._waiting:
            while self._settlements or self._asked:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._waiting.wait(left)
        return True

    def close(self, timeout_s: float = 2.0) -> None:
        """Deliver the settlements, and end the thread."""
        self.flush(timeout_s)
        with self._waiting:
            self._is_closing = True
            thread = self._thread
            self._waiting.notify_all()
        if thread is not None:
            thread.join(timeout_s)
        atexit.unregister(self.close)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tracemind-shared-state", daemon=True)
            self._thread.start()
        self._waiting.notify_all()

    def _run(self) -> None:
        while True:
            with self._waiting:
                self._waiting.wait_for(self._has_work, timeout=self._pause_s())
                if self._is_closing:
                    break
                settlements = [self._settlements[i] for i in range(min(len(self._settlements), _BATCH))]
                asked = [self._asked.popleft() for _ in range(min(len(self._asked), _BATCH))]
            asked = [each for each in asked if not each.answer.cancelled()]
            self._carry_out(settlements, asked)
        if self._state is not None:
            self._state.close()

    def _has_work(self) -> bool:
        if self._is_closing:
            return True
        return bool(self._asked) or (bool(self._settlements) and not self._is_away)

    def _pause_s(self) -> float:
        now = time.monotonic()
        return max((self._probe_at if self._is_away else self._renew_at) - now, 0.0)

    def _carry_out(self, settlements: list[_Settlement], asked: list[_Asked]) -> None:
        try:
            answers = self._apply([*(order for order, _ in settlements), *(each.order for each in asked)])
        except Exception as error:
            if not isinstance(error, StateAwayError):
                report_fault(log, type(self._state).__name__, "apply")
            away = error if isinstance(error, StateAwayError) else StateAwayError(type(error).__name__)
            self._note_away(away)
            for each in asked:
                self._doubt(each.order)
                self._fail(each, away)
            return
        self._note_back()
        with self._waiting:
            for _ in settlements:
                self._settlements.popleft()
            self._waiting.notify_all()
        for each, answer in zip(asked, answers[len(settlements) :], strict=True):
            try:
                each.answer.set_result(answer)
            except InvalidStateError:  # cancelled meanwhile
                self.take_back(each.order, answer)
        for (_, listener), answer in zip(settlements, answers, strict=False):
            if listener is not None:
                _tell(listener, answer)

    def _apply(self, orders: list[Order]) -> list[Answer]:
        if self._state is None:
            self._state = self._connect()
        now = time.monotonic()
        if now >= self._renew_at:
            self._state.renew(self._owner, self._lease_s)
            self._renew_at = now + self._lease_s / 3
        return self._state.apply(self._owner, orders, self._lease_s) if orders else []

    def _note_away(self, error: StateAwayError) -> None:
        with self._waiting:
            was_away, self._is_away = self._is_away, True
            self._probe_at = time.monotonic() + _PROBE_S
            self._renew_at = 0.0
            late, self._asked = self._asked, deque()
        if not was_away:
            log.warning(
                "the shared state at %s is away (%s); until it answers again, on_state_away decides what budgets do",
                self.where,
                error,
            )
        for each in late:
            self._fail(each, error)

    def _note_back(self) -> None:
        with self._waiting:
            was_away, self._is_away = self._is_away, False
        if was_away:
            log.warning("the shared state at %s is back", self.where)

    def _doubt(self, order: Reserve) -> None:
        """Take back a reservation that may have been granted, when the state is back."""
        self.settle(Settle(order.account, None, order.wanted, Sums(), if_granted=order.number))

    @staticmethod
    def _fail(asked: _Asked, error: StateAwayError) -> None:
        try:
            asked.answer.set_exception(error)
        except InvalidStateError:  # the call no longer waits
            return


def _tell(listener: Callable[[Answer], None], answer: Answer) -> None:
    try:
        listener(answer)
    except Exception:
        report_fault(log, "StateClient", "settle")


def give_up(client: StateClient, order: Reserve, asked: Future[Answer]) -> None:
    """Wait no longer for an answer; what was or will be granted is taken back."""
    if not asked.cancel() and not asked.cancelled() and asked.exception() is None:
        client.take_back(order, asked.result())
