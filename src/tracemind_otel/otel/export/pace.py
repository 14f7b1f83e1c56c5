"""How long to wait after a failure, and how large the next request may be."""

from __future__ import annotations

import random


def exponential_s(failures: int) -> float:
    """The seconds to wait after so many failures in a row: 1, 2, 4, 8 and then 10, give or take a quarter.

    Not longer, or a spool in memory that an outage has half filled is full before the receiver is asked again.
    """
    return min(2.0 ** min(failures - 1, 4), 10.0) * random.uniform(0.75, 1.25)


def grown(byte_limit: int, max_bytes: int) -> int:
    """A size of requests that may be a little larger, since one has arrived: a receiver's limit may be raised."""
    return min(max_bytes, byte_limit + max(byte_limit // 64, 1024))


def impatient_s(failures: int) -> float:
    """The seconds to wait while somebody waits for a flush: a quarter of one, then twice as long each time."""
    return 0.25 * 2.0 ** min(failures - 1, 7)
