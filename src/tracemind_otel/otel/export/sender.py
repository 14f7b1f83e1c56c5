"""Sends what waits in a spool, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from queue import Empty, SimpleQueue

from opentelemetry.context import attach, set_value

from ..._base.dropped import end_dropped
from ..._base.once import Seldom, report_fault
from .answers import Answer, Delivered, Later, Refused, TooLarge, Transport, Unknown
from .batches import Batch
from .delivery_stats import SpoolStats
from .otlp_request import MAX_REQUEST_BYTES, request_body
from .pace import exponential_s, grown, impatient_s
from .spool import Spool

log = logging.getLogger(__name__)

SUPPRESSED = "suppress_instrumentation"
"""The context key that tells instrumentations of HTTP clients and of gRPC to make no span."""
_LONGEST_WAIT_S = 3600.0
"""Seconds after which the thread looks again, because a lock cannot wait for years."""
_PATIENCE = 3
"""Requests in a row without an answer, after which a smaller one is tried: some receivers cut what is too large for
them, and on a slow line it never arrives in time."""
_SMALL_BYTES = 64 * 1024
"""Bytes of a request that is not made smaller for that reason."""
_CLOSING_S = 0.2
"""Seconds that the thread may take to end after its request was cut short."""


@dataclass(eq=False, slots=True)
class _Flush:
    """A caller who waits until everything has arrived."""

    deadline: float
    """The end of the wait, by the monotonic clock."""
    is_last: bool = False
    """Whether the sender ends after it."""
    target: int = 0
    """The number of items that must have left the spool, counted since the start of the sender."""
    attempts: int = 0
    """Attempts that have failed during the wait."""
    arrived: bool = False
    """Whether everything has arrived."""
    done: threading.Event = field(default_factory=threading.Event)
    """Set at the end of the wait."""

    def finish(self, *, arrived: bool) -> None:
        """End the wait."""
        self.arrived = arrived
        self.done.set()


class Sender:
    """Sends what waits in a spool: a full batch at once, the rest after a delay.

    Items leave the spool when a receiver has taken them, or will never take them. A request whose outcome is unknown
    is sent again as it was, and in parts only if that does not help. There is no limit to the attempts, because the
    spool bounds what waits.

    Args:
        spool: what is to be sent.
        transport: makes one attempt.
        stats: counts what arrives and what does not; only this sender writes it.
        name: the name of the thread.
        delay_s: seconds after which a batch is sent that is not full.
        max_items: items of a batch.
        max_bytes: bytes of a batch.
        timeout_s: seconds of one attempt.
        wait_s: the seconds to wait after a number of failures in a row, where the receiver names none.
    """

    def __init__(
        self,
        spool: Spool,
        transport: Transport,
        stats: SpoolStats,
        *,
        name: str,
        delay_s: float = 5.0,
        max_items: int = 512,
        max_bytes: int = MAX_REQUEST_BYTES,
        timeout_s: float = 10.0,
        wait_s: Callable[[int], float] = exponential_s,
    ) -> None:
        self.stats = stats
        self._spool = spool
        self._transport = transport
        self._name = name
        self._delay_s = min(delay_s, _LONGEST_WAIT_S)
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._thread: threading.Thread | None = None
        self._reset()

    def _reset(self) -> None:
        # Signal handlers and finalizers may put to a queue of this kind; a lock or an event they may not touch.
        self._messages = SimpleQueue[_Flush | None]()
        self._is_notified = self._is_ending = self._is_over = False
        self._fresh_bytes = 0
        self._held: tuple[Batch, bytes] | None = None
        self._doubtful = 0
        self._byte_limit = self._max_bytes
        self._failures = self._unanswered = 0
        self._not_before = -inf
        self._settled = self._target = 0
        self._failed_at_flush = 0
        self._flushes = list[_Flush]()
        self._seldom = Seldom()
        self._drain_at = time.monotonic() + self._delay_s

    # --- For any thread ---

    def start(self) -> None:
        """Start the thread; at the end of the interpreter none can be started any more."""
        self._thread = threading.Thread(target=self._run, args=(self._messages,), name=self._name, daemon=True)
        self._thread.start()

    def notify(self, byte_size: int = 0) -> None:
        """Wake the thread if a batch is full; called after each `append`, with the size of the item."""
        self._fresh_bytes += byte_size  # two threads may lose a little of it, which does no harm
        if not self._is_notified and (self._spool.waiting >= self._max_items or self._fresh_bytes >= self._max_bytes):
            self._is_notified = True
            self._messages.put(None)

    def flush(self, timeout_s: float) -> bool:
        """Send what waits now, waiting for at most so many seconds. It ends the wait between two attempts.

        Returns:
            Whether everything has arrived that was appended since the flush before.
        """
        return self._wait_for(_Flush(time.monotonic() + timeout_s), timeout_s)

    def shutdown(self, timeout_s: float) -> bool:
        """Send what waits, and end. A second call waits for the end of the first.

        Returns:
            Whether everything has arrived that was ever appended. What waits on disk has not.
        """
        deadline = time.monotonic() + timeout_s
        self._is_ending = True
        self._wait_for(_Flush(deadline, is_last=True), timeout_s)
        if self._thread is None:
            self._end(self._messages)
        else:
            self._thread.join(max(deadline - time.monotonic(), 0.0))
            if self._thread.is_alive():
                self._transport.close()
                self._thread.join(_CLOSING_S)
        return self._has_delivered_all()

    def begin_anew(self) -> None:
        """In a forked child: send what this process appends. The thread and what waits are the parent's."""
        is_running = self._thread is not None and not self._is_over
        self._spool.begin_anew()
        self._transport.begin_anew()
        self.stats.begin_anew()
        self._reset()
        if is_running:
            self.start()

    def _wait_for(self, flush: _Flush, timeout_s: float) -> bool:
        if self._thread is None or not self._thread.is_alive():
            return self._has_delivered_all()
        if self._thread is threading.current_thread():  # a handler of the log flushes, and would wait for itself
            return False
        self._messages.put(flush)
        flush.done.wait(max(timeout_s, 0.0))
        return flush.arrived

    def _has_delivered_all(self) -> bool:
        return self.stats.loss() is None and self.stats.kept() is None

    # --- The thread ---

    def _run(self, messages: SimpleQueue[_Flush | None]) -> None:
        attach(set_value(SUPPRESSED, True))
        self._adopt()
        while not self._is_over:
            try:
                self._listen(messages)
                self._answer_flushes()
                if self._has_work and time.monotonic() >= self._not_before and not self._is_over:
                    self._send_next()
                    self._answer_flushes()
                self._rest()
            except Exception:
                report_fault(log, self._name, "send")
                self._not_before = time.monotonic() + self._wait_s(1)
        self._end(messages)

    def _adopt(self) -> None:
        """Take over what ended processes left, and send it before what waits here."""
        before = self._gone + self._spool.waiting
        try:
            self._spool.adopt()
        except Exception:
            report_fault(log, self._name, "adopt")
        added = max(self._gone + self._spool.waiting - before, 0)
        self._target = max(self._target, self._gone) + added
        for flush in self._flushes:
            flush.target += added

    @property
    def _gone(self) -> int:
        """The number of items that have left the spool since the start."""
        return self._settled + self._spool.dropped

    @property
    def _has_work(self) -> bool:
        return self._gone < self._target

    def _listen(self, messages: SimpleQueue[_Flush | None]) -> None:
        """Wait for a message, or until it is time to send."""
        until = self._not_before if self._has_work else self._drain_at
        try:
            message = messages.get(timeout=min(max(until - time.monotonic(), 0.0), _LONGEST_WAIT_S))
        except Empty:
            message = None
        if message is not None:
            self._begin(message)
        elif time.monotonic() >= self._drain_at:
            self._adopt()
            self._aim_at_all()
        elif self._fresh_bytes >= self._max_bytes:
            self._aim_at_all()
        elif self._is_notified:
            full = self._spool.waiting // self._max_items * self._max_items
            self._target = max(self._target, self._gone + full)
            self._fresh_bytes = 0

    def _begin(self, flush: _Flush) -> None:
        self._aim_at_all()
        flush.target = self._target
        self._flushes.append(flush)
        self._not_before = -inf

    def _aim_at_all(self) -> None:
        """Send all that waits now. What arrives meanwhile waits, or a busy process would send it in tiny batches."""
        end_dropped()
        self._fresh_bytes = 0
        self._target = self._gone + self._spool.waiting
        self._drain_at = time.monotonic() + self._delay_s

    def _send_next(self) -> None:
        if self._held is None:
            self._held = self._taken()
        if self._held is not None:
            batch, body = self._held
            self._act_on(self._transport.send(body, self._timeout_s, self._doubt_held), batch)
            self.stats.in_doubt = self._doubtful

    def _doubt_held(self) -> None:
        """Until there is an answer, the receiver may or may not have the batch."""
        if self._held is not None:
            self.stats.in_doubt = max(self._doubtful, self._held[0].count)

    def _taken(self) -> tuple[Batch, bytes] | None:
        """The next batch, and its request."""
        batch = self._spool.take(self._byte_limit, self._max_items)
        if batch is not None:
            return batch, request_body(batch.items)
        self._target = self._gone  # records that were damaged have gone without a request
        for flush in self._flushes:
            flush.target = min(flush.target, self._gone)
        return None

    def _rest(self) -> None:
        """Let `notify` wake the thread again, once there is nothing more to do."""
        if not self._has_work:
            self._is_notified = False
            self.notify()

    def _act_on(self, answer: Answer, batch: Batch) -> None:
        match answer:
            case Delivered(rejected, message):
                self._delivered(batch, min(rejected, batch.count), message)
            case TooLarge(reason) if len(batch.items) > 1:
                log.info("%s takes no request of %d bytes: %s", self.stats.destination, batch.byte_size, reason)
                self._halve(batch)
            case TooLarge(reason) | Refused(reason):
                self._give_up(batch, reason)
            case Later(reason, after_s):
                self._retry(reason, after_s)
            case Unknown(reason, after_s):
                self._doubtful = max(self._doubtful, batch.count)
                self._retry(reason, after_s)
                self._unanswered += 1
                if self._unanswered % _PATIENCE == 0 and batch.byte_size > _SMALL_BYTES and len(batch.items) > 1:
                    self._halve(batch)

    def _halve(self, batch: Batch) -> None:
        self._byte_limit = max(batch.byte_size // 2, 1)
        self._spool.give_back(batch)
        self._held = None

    def _delivered(self, batch: Batch, rejected: int, message: str) -> None:
        self._settle(batch)
        self.stats.deliver(batch.count - rejected)
        self._byte_limit = grown(self._byte_limit, self._max_bytes)
        if rejected:
            self.stats.lose(rejected, message or "rejected without a reason")
        if rejected or message:
            self._say("%s rejected %d %s: %s", rejected, message or "no reason given")

    def _give_up(self, batch: Batch, reason: str) -> None:
        doubtful = min(self._doubtful, batch.count)
        self._settle(batch)
        self.stats.give_up(doubtful, reason)
        self.stats.lose(batch.count - doubtful, reason)
        self._say("%s refused %d %s, which are lost: %s", batch.count, reason)

    def _settle(self, batch: Batch) -> None:
        self._held = None  # first, or an error of the spool would have it sent again
        self._spool.settle(batch)
        self._settled += batch.count
        self._doubtful = max(self._doubtful - batch.count, 0)
        self._failures = self._unanswered = 0
        self.stats.obstacle = ""

    def _retry(self, reason: str, after_s: float | None) -> None:
        self._failures += 1
        self.stats.obstacle = reason
        waits_s = [self._wait_s(self._failures)]
        for flush in self._flushes:
            flush.attempts += 1
            waits_s.append(impatient_s(flush.attempts))
        # A receiver that asks for no wait at all is not asked in a tight loop.
        wait_s = min(waits_s) if after_s is None else max(after_s, min(*waits_s, 1.0))
        self._not_before = time.monotonic() + wait_s
        if self._failures > 1 and not self._is_ending:  # at the end the caller is told what did not arrive
            self._say("%s took none of %d %s that wait: %s", self._spool.waiting, reason)

    def _answer_flushes(self) -> None:
        """Answer the callers whose items have left the spool, and those whose wait ends before the next attempt."""
        next_at = max(time.monotonic(), self._not_before)
        finished = [flush for flush in self._flushes if self._gone >= flush.target]
        expired = [flush for flush in self._flushes if flush not in finished and next_at >= flush.deadline]
        failed = self.stats.failed
        for flush in finished + expired:
            self._flushes.remove(flush)
            self._is_over = self._is_over or flush.is_last
            flush.finish(arrived=flush in finished and failed == self._failed_at_flush)
        if finished or expired:
            self._failed_at_flush = failed

    def _end(self, messages: SimpleQueue[_Flush | None]) -> None:
        if self._held is not None:
            self._spool.give_back(self._held[0])
        self._transport.close()
        self._spool.close()
        while self._flushes or not messages.empty():
            flush = self._flushes.pop() if self._flushes else messages.get()
            if flush is not None:
                flush.finish(arrived=self._has_delivered_all())

    def _say(self, message: str, count: int, reason: str) -> None:
        """Log a warning about so many items, once a minute."""
        if self._seldom.is_due(message):
            what = message % (self.stats.destination, count, self.stats.items, reason)
            log.warning("Failed to export %s: %s", self.stats.items, what)
