"""Faults of telemetry: logged, and kept away from what is traced."""

from __future__ import annotations

import logging
import sys
import time
from math import inf

_MAX_NAMED = 1024


class Once:
    """Tells the first time from later ones, for messages that are logged once. It remembers 1,024 things."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, ...], object] = {}

    def is_new(self, *thing: str) -> bool:
        """Whether this was not asked before; of several threads that ask at once, one gets True."""
        mark = object()
        return len(self._said) < _MAX_NAMED and self._said.setdefault(thing, mark) is mark

    def forget(self) -> None:
        """Forget what was seen."""
        self._said.clear()


class Seldom:
    """Tells whether something is due to be said again, for messages that are logged once a minute.

    Args:
        every_s: seconds between two messages about the same thing.
    """

    def __init__(self, every_s: float = 60.0) -> None:
        self._every_s = every_s
        self._said_at = dict[tuple[str, ...], float]()

    def is_due(self, *thing: str) -> bool:
        """Whether this was not said within that time; then it counts as said now."""
        now = time.monotonic()
        if now - self._said_at.get(thing, -inf) < self._every_s or len(self._said_at) >= _MAX_NAMED:
            return False
        self._said_at[thing] = now
        return True


FAULTS = Once()
"""Faults that were logged."""


def report_fault(log: logging.Logger, who: str, what: str, *, is_users: bool = False) -> None:
    """Log the exception that is being handled: with its traceback the first time, as one debug line after that.

    Args:
        log: the logger.
        who: the class or function that raised it.
        what: the method or field that failed.
        is_users: whether a user's function raised it; then its message, which may repeat user data, is left out.
    """
    is_new = FAULTS.is_new(who, what)
    if is_users:
        error = type(sys.exception()).__name__
        level = logging.WARNING if is_new else logging.DEBUG
        log.log(level, "%s.%s failed (%s); its value is left out", who, what, error)
    elif is_new:
        log.exception("%s.%s failed; the call goes on, its telemetry is incomplete", who, what)
    else:
        log.debug("%s.%s failed again", who, what, exc_info=True)
