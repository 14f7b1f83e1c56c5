"""Sends metrics: cumulative points at once, delta points through a spool."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from .answers import Answer, Delivered, Later, TooLarge, Transport, Unknown
from .batches import Batch, batch_of
from .delivery_stats import MetricsDeliveryStats
from .otlp_request import MAX_REQUEST_BYTES, Item, request_body
from .pace import grown
from .sender import Sender
from .spool import Spool

_MAX_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5


class OtlpMetricExporter:
    """Sends cumulative points. What does not arrive is made up for by the next export, which has the same sums.

    Args:
        transport: makes one attempt.
        stats: counts what arrives.
        encode: the items of collected metrics.
        timeout_s: seconds that one export may take with its repetitions.
        max_bytes: bytes of one request.
    """

    def __init__(
        self,
        transport: Transport,
        stats: MetricsDeliveryStats,
        encode: Callable[[Any], list[Item]],
        *,
        timeout_s: float = 10.0,
        max_bytes: int = MAX_REQUEST_BYTES,
    ) -> None:
        self.stats = stats
        self._transport = transport
        self._encode = encode
        self._timeout_s = timeout_s
        self._byte_limit = self._max_bytes = max_bytes
        self._obstacle = ""
        self._stopped = threading.Event()

    def export(self, data: Any, timeout_millis: float = 10_000, *, kept_points: int = 0, **_: object) -> bool:
        """Send collected metrics in one or more requests; returns whether all points arrived.

        Args:
            data: what was collected.
            timeout_millis: milliseconds that it may take with its repetitions.
            kept_points: how many of the data points are kept on disk until they arrive.
        """
        self.stats.keep(kept_points)
        answers = self._send(self._encode(data), timeout_millis)
        return all(isinstance(answer, Delivered) and not answer.rejected for answer in answers)

    def export_items(self, items: list[Item], timeout_millis: float = 10_000) -> bool:
        """Send what another process measured; returns whether that is done with: it arrived, or it never will."""
        self.stats.keep(sum(item.count for item in items))
        is_over = not any(isinstance(answer, Later | Unknown) for answer in self._send(items, timeout_millis))
        if is_over:
            self.stats.keep(0)
        return is_over

    def _send(self, items: list[Item], timeout_millis: float) -> list[Answer]:
        """The answers to one or more requests with these items."""
        deadline = time.monotonic() + min(self._timeout_s, timeout_millis / 1000)
        waiting, answers = deque(items), list[Answer]()
        self.stats.begin_export(sum(item.count for item in waiting))
        while (batch := batch_of(waiting, self._byte_limit, len(waiting))) is not None:
            answer = self._sent(batch, deadline)
            if isinstance(answer, TooLarge) and len(batch.items) > 1:
                self._byte_limit = max(batch.byte_size // 2, 1)
                continue
            for _item in batch.items:
                waiting.popleft()
            self._count(answer, batch)
            answers.append(answer)
        return answers

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Nothing waits here."""
        return True

    def begin_anew(self) -> None:
        """In a forked child: the next export gets a connection of its own."""
        self._stopped = threading.Event()
        self._transport.begin_anew()
        self.stats.begin_anew()

    def shutdown(self, timeout_millis: float = 30_000, **_: object) -> None:
        """End: no further attempt is made."""
        self.interrupt()

    def interrupt(self) -> None:
        """Cut short the wait between two attempts, and the request in flight where that is possible."""
        self._stopped.set()
        self._transport.close()

    def _sent(self, batch: Batch, deadline: float) -> Answer:
        """The answer to the last of a few attempts."""
        body = request_body(batch.items)
        answer: Answer = Later(self._obstacle or "the time of the export is over")
        is_doubtful = False
        for attempt in range(_MAX_ATTEMPTS):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or self._stopped.is_set():
                break
            before = self.stats.in_doubt
            answer = self._transport.send(body, remaining_s, partial(self._doubt, before + batch.count))
            self.stats.in_doubt = before
            is_doubtful = is_doubtful or isinstance(answer, Unknown)
            if not isinstance(answer, Later | Unknown):
                return answer
            wait_s = _FIRST_WAIT_S * 2**attempt if answer.after_s is None else answer.after_s
            if attempt + 1 == _MAX_ATTEMPTS or wait_s >= deadline - time.monotonic() or self._stopped.wait(wait_s):
                break
        return Unknown(answer.reason) if is_doubtful and isinstance(answer, Later) else answer

    def _doubt(self, count: int) -> None:
        """Until there is an answer, the receiver may or may not have these."""
        self.stats.in_doubt = count

    def _count(self, answer: Answer, batch: Batch) -> None:
        self.stats.settle(batch.count, delivered=isinstance(answer, Delivered))
        failed_before, self._obstacle = bool(self._obstacle), "" if isinstance(answer, Delivered) else answer.reason
        if isinstance(answer, Delivered):
            self._byte_limit = grown(self._byte_limit, self._max_bytes)
            if answer.rejected or answer.message:
                self.stats.reject(min(answer.rejected, batch.count), answer.message)
            return
        if isinstance(answer, Unknown):
            self.stats.in_doubt += batch.count
        self.stats.explain(answer.reason, logs=failed_before and not self._stopped.is_set())


class SpooledMetricExporter:
    """Hands delta points to a sender, because no later export makes up for points that are lost.

    Args:
        spool: where the points wait.
        sender: sends them.
        encode: the items of collected metrics.
    """

    def __init__(self, spool: Spool, sender: Sender, encode: Callable[[Any], list[Item]]) -> None:
        self.stats = sender.stats
        self._spool = spool
        self._sender = sender
        self._encode = encode

    def export(self, data: Any, timeout_millis: float = 10_000, **_: object) -> bool:
        """Keep collected metrics until the sender has sent them."""
        return self.export_items(self._encode(data))

    def export_items(self, items: list[Item], timeout_millis: float = 10_000) -> bool:
        """Keep what another process measured until the sender has sent it."""
        for item in items:
            self._spool.append(item)
            self._sender.notify(len(item.record))
        return True

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Send what waits now; returns whether everything has arrived since the flush before."""
        return self._sender.flush(timeout_millis / 1000)

    def begin_anew(self) -> None:
        """In a forked child: send what this process measures."""
        self._sender.begin_anew()

    def shutdown(self, timeout_millis: float = 30_000, **_: object) -> None:
        """Send what waits, and end."""
        self._sender.shutdown(timeout_millis / 1000)

    def interrupt(self) -> None:
        """Cut short a shut-down that waits for the receiver."""
        self._sender.shutdown(0.0)
