"""Counts what is handed over for a destination, what arrives there, and what is lost on the way."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable

from ..._base.once import Once, Seldom
from .spool import Spool

log = logging.getLogger(__name__)

_REJECTIONS = Once()
_SELDOM = Seldom()
_MAX_REASONS = 3
"""Reasons that a message names."""
_MAX_COUNTED = 100
"""Reasons that are counted apart."""


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
        self._accepted: int = 0
        self._delivered: int = 0
        self._failed: int = 0
        self.in_doubt = 0
        """Items of requests whose outcome is not known, or is not known yet."""
        self._reasons = dict[str, None]()

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

    def explain(self, reason: str, *, logs: bool) -> None:
        """Note why items did not arrive, and log it once a minute if `logs` says so."""
        if logs and _SELDOM.is_due(self.destination):
            log.warning("Failed to export %s: %s took none: %s", self.items, self.destination, reason)
        if len(self._reasons) < _MAX_REASONS:
            self._reasons[reason] = None

    @property
    def accepted(self) -> int:
        """The number of items that were handed over."""
        return self._accepted

    @property
    def delivered(self) -> int:
        """The number of items that arrived."""
        return self._delivered

    @property
    def failed(self) -> int:
        """The number of items whose export failed; it never decreases."""
        return self._failed

    def lost(self) -> str | None:
        """What has not arrived, in words; `None` if nothing is lost."""
        with self._lock:
            missing = self._missing()
        return self._sentence(missing - min(self.in_doubt, missing), "did not reach", self._reasons)

    def doubtful(self) -> str | None:
        """What may or may not have arrived, in words; `None` if nothing may."""
        with self._lock:
            missing = self._missing()
        doubtful = min(self.in_doubt, missing)
        return self._sentence(doubtful, "may or may not have arrived at", self._reasons or ["no answer yet"])

    def loss(self) -> str | None:
        """What has not arrived or may not have, in words; `None` if everything has."""
        return "; ".join(filter(None, (self.lost(), self.doubtful()))) or None

    def kept(self) -> str | None:
        """What waits on disk for the next process, in words; `None` if nothing does."""
        return None

    def _missing(self) -> int:
        return self._accepted - self._delivered

    def _sentence(self, count: int, fate: str, reasons: Iterable[str]) -> str | None:
        why = ", ".join(reasons)
        what = f"{count} of {self.accepted} {self.items} {fate} {self.destination}"
        return None if not count else f"{what} ({why})" if why else what

    def _waiting(self, count: int, directory: str | None, why: str) -> str | None:
        if not count or directory is None:
            return None
        what = f"1 {self.items.removesuffix('s')} waits" if count == 1 else f"{count} {self.items} wait"
        return f"{what} in {directory} ({self.destination}: {why})" if why else f"{what} in {directory}"


class EventDeliveryStats(DeliveryStats):
    """The events on their way to one destination."""

    items = "events"


class MetricsDeliveryStats(DeliveryStats):
    """The data points on their way to one destination.

    Only those of the last export count, because they hold the sums since the start: points with delta temporality go
    through a spool.

    Args:
        destination: the URL of the receiver, for messages.
        kept_in: the directory in which sums outlive the process.
    """

    items = "metric points"

    def __init__(self, destination: str, *, kept_in: str | None = None) -> None:
        super().__init__(destination)
        self._kept_in = kept_in
        self._kept = 0

    def keep(self, count: int) -> None:
        """Note how many points of the export that begins are kept on disk; they are not lost if it fails."""
        self._kept = count

    def kept(self) -> str | None:
        return self._waiting(min(super()._missing(), self._kept), self._kept_in, ", ".join(self._reasons))

    def _missing(self) -> int:
        return max(super()._missing() - self._kept, 0)

    def begin_export(self, count: int) -> None:
        with self._lock:
            self._accepted, self._delivered, self.in_doubt = count, 0, 0
            self._reasons.clear()


class SpoolStats(DeliveryStats):
    """The items on their way through a spool. Only its sender writes.

    Each item is in one place: delivered, lost, in doubt, or waiting in the spool. So their sum is what was accepted.

    Args:
        destination: the URL of the receiver, for messages.
        spool: keeps what waits, and counts what it dropped.
        items: what is counted, in the plural.
        kept_in: the directory of a spool on disk, for messages.
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
        self.obstacle = ""
        """Why the last attempt failed; empty if it did not."""

    def deliver(self, count: int) -> None:
        """Count items that arrived."""
        self._delivered += count

    def lose(self, count: int, reason: str) -> None:
        """Count items that did not arrive and are not sent again."""
        self._failed += count
        self._lost[_named(reason, self._lost)] += count

    def give_up(self, count: int, reason: str) -> None:
        """Count items that are not sent again, and that may have arrived."""
        self._failed += count
        self._given_up[_named(reason, self._given_up)] += count

    @property
    def accepted(self) -> int:
        return self._delivered + self.failed + self._spool.waiting

    @property
    def failed(self) -> int:
        return self._failed + self._spool.dropped

    def lost(self) -> str | None:
        counts = self._lost.copy()
        counts["dropped, because the spool was full"] += self._spool.dropped
        fleeting = self._fleeting
        counts[self.obstacle or "not sent"] += fleeting - min(self.in_doubt, fleeting)
        return self._sentence(counts.total(), "did not reach", _frequent(counts))

    def doubtful(self) -> str | None:
        counts = self._given_up.copy()
        counts[self.obstacle or "no answer yet"] += min(self.in_doubt, self._fleeting)
        return self._sentence(counts.total(), "may or may not have arrived at", _frequent(counts))

    def kept(self) -> str | None:
        return self._waiting(self._spool.lasting, self._kept_in, self.obstacle)

    @property
    def _fleeting(self) -> int:
        """What waits and ends with this process: in a spool on disk, what that could not write."""
        return max(self._spool.waiting - self._spool.lasting, 0)


def _named(reason: str, counts: Counter[str]) -> str:
    """The reason under which to count; receivers may give a new one for each request."""
    return reason if reason in counts or len(counts) < _MAX_COUNTED else "other reasons"


def _frequent(counts: Counter[str]) -> list[str]:
    return [reason for reason, _ in (+counts).most_common(_MAX_REASONS)]
