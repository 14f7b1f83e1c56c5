"""Counts what is handed over for a destination, what arrives there, and what is lost on the way."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from ..._base.once import Once
from .spool import Spool

log = logging.getLogger(__name__)

_REJECTIONS = Once()
_MAX_REASONS = 3
"""Reasons that a message names; receivers may give a new one for each request."""


class DeliveryStats:
    """The spans on their way to one destination. Any thread may write."""

    items = "spans"
    """What is counted, in the plural."""

    def __init__(self, destination: str) -> None:
        self.destination = destination
        """The URL of the receiver, for messages."""
        self.begin_anew()

    def begin_anew(self) -> None:
        """In a forked child: what had not arrived at the fork is the parent's."""
        self._lock = threading.Lock()
        self._accepted = self._delivered = self._failed = 0

    def accept(self, count: int) -> None:
        """Count items that are to be delivered."""
        with self._lock:
            self._accepted += count

    def begin_export(self, count: int) -> None:
        """Note the items of an export. Spans were accepted as they ended, because a full queue drops some."""

    def settle(self, count: int, *, delivered: bool) -> None:
        """Count the items of a request that has ended."""
        with self._lock:
            if delivered:
                self._delivered += count
            else:
                self._failed += count

    def reject(self, count: int, reason: str) -> None:
        """Count the items that the receiver rejected of a request; `settle` counts the whole request."""
        if _REJECTIONS.is_new(self.destination):
            log.warning("%s rejected %d %s: %s", self.destination, count, self.items, reason or "no reason given")
        with self._lock:
            self._delivered -= count
            self._failed += count

    @property
    def failed(self) -> int:
        """The number of items whose export failed; it never decreases."""
        return self._failed

    def loss(self) -> str | None:
        """What has not arrived, in words; `None` if everything has."""
        with self._lock:
            missing, accepted = self._accepted - self._delivered, self._accepted
        return f"{missing} of {accepted} {self.items} did not reach {self.destination}" if missing else None


class EventDeliveryStats(DeliveryStats):
    """The events on their way to one destination."""

    items = "events"


class MetricsDeliveryStats(DeliveryStats):
    """The data points on their way to one destination.

    In cumulative temporality only those of the last export count, because they hold the sums since the start.
    """

    items = "metric points"

    def __init__(self, destination: str, *, is_delta: bool = False) -> None:
        super().__init__(destination)
        self._is_delta = is_delta

    def begin_export(self, count: int) -> None:
        with self._lock:
            if not self._is_delta:
                self._accepted = self._delivered = 0
            self._accepted += count


class SpoolStats(DeliveryStats):
    """The items on their way through a spool. Only its sender writes.

    Each item is in one place: delivered, lost, in doubt, or waiting in the spool. So their sum is what was accepted.

    Args:
        destination: the URL of the receiver, for messages.
        spool: keeps what waits, and counts what it dropped.
        items: what is counted, in the plural.
        kept_in: the directory of a spool that outlives the process; what waits there is not lost.
    """

    def __init__(self, destination: str, spool: Spool, *, items: str = "spans", kept_in: str | None = None) -> None:
        self.items = items
        self._spool = spool
        self._kept_in = kept_in
        super().__init__(destination)

    def begin_anew(self) -> None:
        super().begin_anew()
        self._lost = Counter[str]()
        self._given_up = Counter[str]()
        self.in_doubt = 0
        """Items that wait, and that were in a request whose outcome is not known, or is not known yet."""
        self.obstacle = ""
        """Why the last attempt failed; empty if it did not."""

    def deliver(self, count: int) -> None:
        """Count items that arrived."""
        self._delivered += count

    def lose(self, count: int, reason: str) -> None:
        """Count items that did not arrive and are not sent again."""
        self._lost[reason] += count

    def give_up(self, count: int, reason: str) -> None:
        """Count items that are not sent again, and that may have arrived."""
        self._given_up[reason] += count

    @property
    def accepted(self) -> int:
        """The items that were handed over."""
        return self._delivered + self.failed + self._spool.waiting

    @property
    def failed(self) -> int:
        return self._lost.total() + self._given_up.total() + self._spool.dropped

    def loss(self) -> str | None:
        waiting = self._spool.waiting
        doubtful = min(self.in_doubt, waiting)
        lost, doubts = self._lost.copy(), self._given_up.copy()
        lost["dropped, because the spool was full"] += self._spool.dropped
        if self._kept_in is None:
            lost[self.obstacle or "not sent"] += waiting - doubtful
            doubts[self.obstacle or "no answer yet"] += doubtful
        told = [
            self._told(+lost, "did not reach"),
            self._told(+doubts, "may or may not have arrived at"),
            f"{waiting} {self.items} wait in {self._kept_in}" if self._kept_in is not None and waiting else "",
        ]
        return "; ".join(filter(None, told)) or None

    def _told(self, counts: Counter[str], fate: str) -> str:
        if not counts:
            return ""
        reasons = ", ".join(reason for reason, _ in counts.most_common(_MAX_REASONS))
        return f"{counts.total()} of {self.accepted} {self.items} {fate} {self.destination} ({reasons})"
