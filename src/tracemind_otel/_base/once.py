"""Faults of telemetry: logged, and kept away from what is traced."""

from __future__ import annotations

import logging
import sys

_MAX_NAMED = 1024


class Once:
    """Says of each thing once that it is new, so that a log does; of a thousand things, then of none any more."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, ...], object] = {}

    def is_new(self, *thing: str) -> bool:
        """Whether this is asked for the first time; of several threads that ask at once, one is told so."""
        mark = object()
        return len(self._said) < _MAX_NAMED and self._said.setdefault(thing, mark) is mark

    def forget(self) -> None:
        """Begin anew."""
        self._said.clear()


FAULTS = Once()
"""Those that were logged."""


def report_fault(log: logging.Logger, who: str, what: str, *, is_users: bool = False) -> None:
    """Log the exception that is being handled: with its trace the first time, as one debug line after that.

    Args:
        log: where to.
        who: whose fault it is, a class or a function.
        what: what it was asked to do.
        is_users: whether it comes from a function that gets the user's data: then its text, which may repeat them,
            is left out.
    """
    is_new = FAULTS.is_new(who, what)
    if is_users:
        error = type(sys.exception()).__name__
        level = logging.WARNING if is_new else logging.DEBUG
        log.log(level, "%s.%s failed (%s); what it was to give is left out", who, what, error)
    elif is_new:
        log.exception("%s.%s failed; the call goes on, its telemetry is incomplete", who, what)
    else:
        log.debug("%s.%s failed again", who, what, exc_info=True)
