"""Short slices of work that alternate, so that what else the machine does hits all ways alike."""

from __future__ import annotations

import gc
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


async def alternating(ways: Mapping[str, Callable[[], Awaitable[T]]], rounds: int) -> dict[str, list[T]]:
    """Run a slice of each way in each round; returns what the slices of each way gave."""
    gc.collect()
    gc.freeze()
    slices: dict[str, list[T]] = {name: [] for name in ways}
    names = list(ways)
    for round_number in range(rounds):
        # Another one begins each time, so that none always follows the same neighbor.
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            slices[name].append(await ways[name]())
    return slices


def stay_on_one_core() -> None:
    """Keep this process, with its threads, on the last of its cores: the servers have the others."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[-1]})
