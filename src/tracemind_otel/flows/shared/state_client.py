"""The thread of a process that talks to the shared state, so that no call and no event loop waits for it too long."""

from __future__ import annotations

import atexit
import logging
import os
import statistics
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, replace
from functools import partial

from ..._base.fork import around_fork
from ..._base.once import report_fault
from .outbox import Batch, Listener, Outbox, fail, tell
from .state_port import Account, Answer, Order, Reserve, Settle, SharedState, StateAwayError, Sums

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds after which what a killed process has reserved counts as spent."""
TIMEOUT_S = 0.25
"""Seconds that a call waits for the state."""
FLUSH_S = 2.0
"""Seconds that the end of a process waits for its settlements to be delivered."""
_PROBE_S = 1.0
"""Seconds between two tries to reach a state that is away."""
_SETTLE_S = 0.1
"""Seconds that a settlement waits for others, so that they share a transaction."""
_ROUND_TRIPS = 9
"""Round trips that `examined` times."""
_TIDY_S = 0.25
"""Seconds between two looks at what is reserved ahead."""


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
        self.connect = connect
        self.lease_s = lease_s
        self.where = where
        self.timeout_s = timeout_s
        self._forking = threading.local()
        self._begin_anew()
        around_fork(before=self._before_fork, in_parent=self._after_fork, in_child=self._begin_anew)
        atexit.register(self.close)

    def _begin_anew(self) -> None:
        """Also in a forked child, whose leases are its own; the parent's connection is the parent's."""
        self._inherited = getattr(self, "_state", None)  # kept, because closing it here could disturb the parent's
        self._state: SharedState | None = None
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex}"
        self._using = threading.RLock()
        """Held while the state is used, and by a thread that forks meanwhile."""
        self._waiting = threading.Condition()
        self._outbox = Outbox(self.where)
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_sending = False
        self._is_away = False
        self._is_logged_away = False
        self._late_since = 0.0
        self._probe_at = 0.0
        self._renew_at = 0.0
        self._settle_at = 0.0
        self._tidy_at = 0.0

    def _before_fork(self) -> None:
        """Let no child inherit a client in the middle of its work: its locks would never be free there."""
        self._forking.has_lock = self._using.acquire(timeout=self.timeout_s)
        if self._forking.has_lock and self._state is not None:
            self._state.before_fork()

    def _after_fork(self) -> None:
        if self._forking.has_lock:
            self._using.release()

    def start(self) -> None:
        """Connect now, in the thread, so that the first call does not wait for it."""
        with self._waiting:
            self._wake()

    @property
    def is_away(self) -> bool:
        """Whether the state did not answer last time."""
        return self._is_away

    def ask(self, order: Reserve) -> Future[Answer]:
        """Reserve; the future fails with `StateAwayError`. Cancelling it takes back what is granted later.

        It is done at once where this process has reserved ahead, and while the state is away, when it fails.
        """
        with self._waiting:
            if not (self._is_away or self._is_closing):
                answer = self._outbox.ask(order)
                if self._outbox.is_urgent:
                    self._wake()
                return answer
            is_hanging = self._is_away and time.monotonic() - self._late_since > self.timeout_s
        if is_hanging:
            self._log_away(self._late())
        away: Future[Answer] = Future()
        away.set_exception(StateAwayError("the shared state is away"))
        return away

    def note_late(self) -> StateAwayError:
        """A call has waited as long as it may, so no other waits until the state answers; returns the call's error.

        What keeps the thread may have no time-out of its own: a look-up of the host's name, or a disk.
        """
        with self._waiting:
            if not self._is_away:
                self._is_away = True
                self._late_since = self._probe_at = time.monotonic()
                self._renew_at = 0.0
                self._waiting.notify_all()
        return self._late()

    def _late(self) -> StateAwayError:
        return StateAwayError(f"it did not answer within {self.timeout_s} s")

    def settle(self, order: Settle, listener: Listener | None = None) -> None:
        """Count what was used, as soon as the state takes it; never waits. The listener is told the answer."""
        with self._waiting:
            if not self._is_closing:
                self._settle_soon(order, listener)
                return
        if order.used.llm_calls:
            self._log_undelivered(order.used.llm_calls)

    def _settle_soon(self, order: Settle, listener: Listener | None) -> None:
        is_first = not self._outbox.has_settlements
        self._outbox.settle(order, listener)
        if is_first:
            self._settle_at = time.monotonic() + _SETTLE_S
        if is_first or self._outbox.is_urgent:
            self._wake()

    def take_back(self, order: Reserve, answer: Answer) -> None:
        """Free what was granted to a call that no longer waits for it."""
        if answer.denied_by is None:
            self.settle(Settle(order.account, answer.window, order.wanted, Sums()))

    def flush(self, timeout_s: float) -> bool:
        """Deliver all settlements, give back all slices, and wait for that; returns whether it was done in time."""
        until = time.monotonic() + timeout_s
        with self._waiting:
            while True:
                self._outbox.give_back_slices()
                if self._outbox.is_empty and not self._is_sending:
                    return True
                left = until - time.monotonic()
                if left <= 0:
                    return False
                self._settle_at = 0.0
                self._wake()
                self._waiting.wait(left)

    def close(self, timeout_s: float = FLUSH_S) -> None:
        """Deliver the settlements, and end the thread; the log says how many could not be delivered."""
        until = time.monotonic() + timeout_s
        self.flush(0.0 if self._is_away else timeout_s)
        with self._waiting:
            self._is_closing = True
            left = self._outbox.unsettled_calls
            thread = self._thread
            self._waiting.notify_all()
        if thread is not None:
            thread.join(max(until - time.monotonic(), 0.0))
        if left:
            self._log_undelivered(left)
        atexit.unregister(self.close)

    def _log_undelivered(self, calls: int) -> None:
        log.warning(
            "the shared state at %s did not take the spending of %s before the end; what these had reserved "
            "there counts as spent, and what was sent without a reservation is missing from its sums",
            self.where,
            "1 call" if calls == 1 else f"{calls} calls",
        )

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tracemind-shared-state", daemon=True)
            self._thread.start()
        self._waiting.notify_all()

    def _run(self) -> None:
        while True:
            with self._waiting:
                self._wait_for_work()
                if self._is_closing:
                    break
                if time.monotonic() >= self._tidy_at:
                    self._tidy_at = time.monotonic() + _TIDY_S
                    self._outbox.tidy()
                batch = self._outbox.next_batch()
                self._is_sending = bool(batch.orders)
            self._carry_out(batch)
            with self._waiting:
                self._is_sending = False
                self._waiting.notify_all()
        with self._using:
            if self._state is not None:
                self._state.close()

    def _wait_for_work(self) -> None:
        while not (self._is_closing or (self._outbox.is_urgent and not self._is_away)):
            pause_s = self._next_at() - time.monotonic()
            if pause_s <= 0:
                return
            self._waiting.wait(pause_s)

    def _next_at(self) -> float:
        """When there is something to do, though nobody waits."""
        if self._is_away:
            return self._probe_at
        times = [self._renew_at]
        if self._outbox.has_settlements:
            times.append(self._settle_at)
        if self._outbox.has_slices:
            times.append(self._tidy_at)
        return min(times)

    def _carry_out(self, batch: Batch) -> None:
        try:
            answers = self._apply(batch.orders)
        except Exception as error:
            if not isinstance(error, StateAwayError):
                report_fault(log, type(self._state).__name__, "apply")
            away = error if isinstance(error, StateAwayError) else StateAwayError(type(error).__name__)
            self._note_away(away, batch)
            return
        self._note_back()
        with self._waiting:
            granted = self._outbox.carried_out(batch, answers)
            self._settle_at = time.monotonic() + _SETTLE_S
            self._waiting.notify_all()
        for each, answer in granted:
            try:
                each.answer.set_result(answer)
            except InvalidStateError:  # cancelled meanwhile
                self.take_back(each.order, answer)
        tell(batch, answers)

    def _apply(self, orders: list[Order]) -> list[Answer]:
        with self._using:
            if self._state is None:
                self._state = self.connect()
            now = time.monotonic()
            if now >= self._renew_at:
                self._state.renew(self._owner, self.lease_s)
                self._renew_at = now + self.lease_s / 3
            return self._state.apply(self._owner, orders, self.lease_s) if orders else []

    def _note_away(self, error: StateAwayError, batch: Batch) -> None:
        with self._waiting:
            self._is_away = True
            self._probe_at = time.monotonic() + _PROBE_S
            self._renew_at = 0.0
            unanswered = self._outbox.failed(batch)
        self._log_away(error)
        for each in unanswered:
            fail(each, error)

    def _log_away(self, error: StateAwayError) -> None:
        with self._waiting:
            was_logged, self._is_logged_away = self._is_logged_away, True
        if not was_logged:
            log.warning(
                "the shared state at %s is away (%s); until it answers again, on_state_away decides what budgets do",
                self.where,
                error,
            )

    def _note_back(self) -> None:
        with self._waiting:
            self._is_away = False
            was_logged, self._is_logged_away = self._is_logged_away, False
        if was_logged:
            log.warning("the shared state at %s is back", self.where)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a look at a shared state found."""

    where: str
    """Its place, without credentials."""
    timeout_s: float
    """Seconds that a call waits for it."""
    lease_s: float
    """Seconds after which what a killed process has reserved counts as spent."""
    fault: str | None
    """Why it cannot be asked; `None` where it can."""
    round_trip_s: float = 0.0
    """Seconds of an order that changes nothing, the median of some."""
    accounts: int = 0
    """How many accounts have sums."""


def examined(client: StateClient) -> Examined:
    """Ask the state of a client, over a connection of its own."""
    found = Examined(client.where, client.timeout_s, client.lease_s, None)
    nothing = Settle(Account("doctor", "", 0), None, Sums(), Sums())
    try:
        state = client.connect()
        try:
            took = [_seconds(partial(state.apply, "doctor", [nothing], client.lease_s)) for _ in range(_ROUND_TRIPS)]
            return replace(found, round_trip_s=statistics.median(took), accounts=state.accounts())
        finally:
            state.close()
    except StateAwayError as error:
        return replace(found, fault=str(error))


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def give_up(client: StateClient, order: Reserve, asked: Future[Answer]) -> None:
    """Wait no longer for an answer; what was or will be granted is taken back."""
    if not asked.cancel() and not asked.cancelled() and asked.exception() is None:
        client.take_back(order, asked.result())
