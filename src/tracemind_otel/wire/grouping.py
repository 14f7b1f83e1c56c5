"""Which requests are attempts of one call: a failed one waits for its repetition. Pure but for a clock.

A failed attempt leaves its call pending. The next request of the same owner to the same URL with the same body is its
repetition; any other model call of the owner settles it, and so does the end of a task. The owner is the task of
asyncio or trio, else the thread.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from .._base.owner import Owner


class Settled(Protocol):
    """A call that can be ended as failed."""

    def settle(self) -> None:
        """End it with its last attempt's failure, at the time of that failure."""
        ...


C = TypeVar("C", bound=Settled)


@dataclass(frozen=True, slots=True)
class Key:
    """What all attempts of one call have in common."""

    url: str
    """The URL."""
    body: bytes
    """A hash of the body."""

    @classmethod
    def of(cls, url: str, body: bytes | None) -> Key:
        """The key of a request."""
        return cls(url, hashlib.blake2b(body or b"", digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class _Pending(Generic[C]):
    call: C
    key: Key
    until_s: float


def _has_ended(owner: Owner) -> bool:
    return isinstance(owner, threading.Thread) and not owner.is_alive()


class PendingCalls(Generic[C]):
    """The calls whose last attempt failed in a way that is usually repeated. Used from many threads.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[Owner, _Pending[C]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def has(self, owner: Owner) -> bool:
        """Whether a call of this owner waits for its repetition."""
        return owner in self._pending

    def continued(self, owner: Owner, url: str, body: bytes | None, *, is_new: bool) -> C | None:
        """The call that a request repeats. Any other call of this owner that is pending ends.

        Args:
            owner: who makes the request.
            url: its URL.
            body: its body.
            is_new: whether the SDK says that this is a first attempt.
        """
        if owner not in self._pending:
            return None
        with self._lock:
            pending = self._pending.pop(owner, None)
        if pending is None:
            return None
        if not is_new and pending.key == Key.of(url, body):
            return pending.call
        pending.call.settle()
        return None

    def wait_for_repetition(self, owner: Owner, call: C, url: str, body: bytes | None, within_s: float) -> None:
        """Keep a call whose attempt has failed, for so many seconds."""
        with self._lock:
            before = self._pending.pop(owner, None)
            self._pending[owner] = _Pending(call, Key.of(url, body), self._clock() + within_s)
        if before is not None:
            before.call.settle()

    def settle_of(self, owner: Owner) -> None:
        """End the call of an owner that will send nothing any more."""
        with self._lock:
            pending = self._pending.pop(owner, None)
        if pending is not None:
            pending.call.settle()

    def settle_overdue(self) -> float | None:
        """End the calls that waited long enough, or whose thread has ended; returns the seconds until one is due."""
        now = self._clock()
        with self._lock:
            due = [owner for owner, pending in self._pending.items() if pending.until_s <= now or _has_ended(owner)]
            calls = [self._pending.pop(owner).call for owner in due]
            left = [pending.until_s for pending in self._pending.values()]
        for call in calls:
            call.settle()
        return max(0.0, min(left) - now) if left else None

    def settle_where(self, is_meant: Callable[[C], bool]) -> None:
        """End those of the pending calls that are meant, because what surrounds them ends."""
        if not self._pending:
            return
        with self._lock:
            owners = [owner for owner, pending in self._pending.items() if is_meant(pending.call)]
            calls = [self._pending.pop(owner).call for owner in owners]
        for call in calls:
            call.settle()

    def begin_anew(self) -> None:
        """Forget the calls of the parent, in a forked child."""
        self._lock = threading.Lock()
        self._pending = {}
