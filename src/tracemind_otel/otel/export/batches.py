"""The items that go into one request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .otlp_request import Item

_GROUP_OVERHEAD = 12
"""Bytes of the tags and lengths around a resource's items and around a scope's, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Items that are being sent. They stay in the spool until the batch is settled or given back."""

    items: tuple[Item, ...]
    """The items, oldest first; never empty."""
    byte_size: int
    """Bytes of the request that carries them, at most."""
    count: int
    """Spans, data points or log records in it."""


class BatchBuilder:
    """Collects items, oldest first, for as long as they fit into one request.

    Args:
        max_bytes: size of the request; one item that is larger is taken alone.
        max_items: number of items.
    """

    def __init__(self, max_bytes: int, max_items: int) -> None:
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._items = list[Item]()
        self._groups = set[tuple[bytes, bytes]]()
        self._byte_size = 0

    def add(self, item: Item) -> bool:
        """Add an item; returns False if it does not fit beside those that are there."""
        group = (item.resource, item.scope)
        added = len(item.record)
        if group not in self._groups:
            added += len(item.resource) + len(item.scope) + _GROUP_OVERHEAD
        is_full = self._byte_size + added > self._max_bytes or len(self._items) >= self._max_items
        if self._items and is_full:
            return False
        self._groups.add(group)
        self._items.append(item)
        self._byte_size += added
        return True

    def batch(self) -> Batch | None:
        """What was collected; `None` if that is nothing."""
        if not self._items:
            return None
        return Batch(tuple(self._items), self._byte_size, sum(item.count for item in self._items))


def batch_of(waiting: Iterable[Item], max_bytes: int, max_items: int) -> Batch | None:
    """The first of these items that fit into one request, at least one of them, or `None` if there are none."""
    builder = BatchBuilder(max_bytes, max_items)
    for item in waiting:
        if not builder.add(item):
            break
    return builder.batch()
