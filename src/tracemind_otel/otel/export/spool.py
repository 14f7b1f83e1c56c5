"""Where encoded items wait until a receiver has them, and the spool that keeps them in memory."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from .batches import Batch, batch_of
from .intake import Intake
from .otlp_request import Item

DEFAULT_MEMORY = 64 * 1024 * 1024
"""Bytes of a memory spool: an outage of a minute and more at 300 calls a second."""

_ITEM_OVERHEAD = 160
"""Bytes of Python's objects for one item, beside its record. The resource and the scope are shared."""


class Spool(Protocol):
    """Keeps items until they are delivered or given up.

    Any thread appends, also in a finalizer or a signal handler. Only one thread takes, settles and gives back.
    """

    @property
    def waiting(self) -> int:
        """Spans that are kept: neither settled nor dropped."""
        ...

    @property
    def lasting(self) -> int:
        """Those of them that outlive this process."""
        ...

    @property
    def dropped(self) -> int:
        """Spans that were dropped because the spool was full; it never decreases."""
        ...

    def append(self, item: Item) -> None:
        """Keep an item. A full spool drops the oldest items that wait, and counts their spans."""
        ...

    def take(self, max_bytes: int, max_items: int) -> Batch | None:
        """The oldest items that wait, or `None`. The spool keeps them, and drops none of them, until they are settled.

        Args:
            max_bytes: size of the request that carries them; one item that is larger is taken alone.
            max_items: number of items.
        """
        ...

    def settle(self, batch: Batch) -> None:
        """Delete the items of a batch, because they were delivered or given up."""
        ...

    def give_back(self, batch: Batch) -> None:
        """Let the items of a batch wait again, before all others."""
        ...

    def adopt(self) -> None:
        """Take over what ended processes left; it waits here like this process's own items.

        The thread that takes calls it often; it looks once a minute. It reads files, which can take seconds.
        """
        ...

    def begin_anew(self) -> None:
        """Begin empty in a forked child: the items belong to the parent."""
        ...

    def close(self) -> None:
        """Release files and locks; nothing is taken any more. What is appended all the same waits here."""
        ...


class MemorySpool:
    """A spool in memory. It ends with the process.

    Args:
        max_bytes: bytes that it holds at most.
    """

    def __init__(self, max_bytes: int = DEFAULT_MEMORY) -> None:
        self._max_bytes = max_bytes
        self.begin_anew()

    def begin_anew(self) -> None:
        # All new, the intake's lock too: another thread of the parent may have held it during the fork.
        self._intake = Intake(self._admit)
        self._waiting = deque[Item]()
        self._taken = set[Batch]()
        self._byte_size = 0
        self._kept = 0
        self._dropped = 0

    @property
    def waiting(self) -> int:
        return self._kept

    @property
    def lasting(self) -> int:
        return 0

    @property
    def dropped(self) -> int:
        return self._dropped

    def append(self, item: Item) -> None:
        self._intake.put(item)

    def take(self, max_bytes: int, max_items: int) -> Batch | None:
        with self._intake.held():
            batch = batch_of(self._waiting, max_bytes, max_items)
            if batch is not None:
                self._taken.add(batch)
                for _ in batch.items:
                    self._waiting.popleft()
        return batch

    def settle(self, batch: Batch) -> None:
        with self._intake.held():
            if batch in self._taken:
                self._taken.remove(batch)
                for item in batch.items:
                    self._forget(item)

    def give_back(self, batch: Batch) -> None:
        with self._intake.held():
            if batch in self._taken:
                self._taken.remove(batch)
                self._waiting.extendleft(reversed(batch.items))

    def adopt(self) -> None:
        """Nothing: a spool in memory ends with its process."""

    def close(self) -> None:
        """Nothing: there are no files."""

    def _admit(self, item: Item) -> None:
        self._waiting.append(item)
        self._byte_size += len(item.record) + _ITEM_OVERHEAD
        self._kept += item.count
        while self._byte_size > self._max_bytes and self._waiting:
            oldest = self._waiting.popleft()
            self._forget(oldest)
            self._dropped += oldest.count

    def _forget(self, item: Item) -> None:
        self._byte_size -= len(item.record) + _ITEM_OVERHEAD
        self._kept -= item.count
