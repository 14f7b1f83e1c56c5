"""Faults of telemetry: logged, and kept away from what is traced."""

from __future__ import annotations

import logging
import sys

_MAX_NAMED = 1024

_said: dict[tuple[str, str], object] = {}


def is_first(who: str, what: str) -> bool:
    """Whether this is asked for the first time in this process, so that a log says a thing once."""
    mark = object()
    return len(_said) < _MAX_NAMED and _said.setdefault((who, what), mark) is mark


def report_fault(log: logging.Logger, who: str, what: str, *, is_users: bool = False) -> None:
    """Log the exception that is being handled: with its trace the first time, as one debug line after that.

    Args:
        log: where to.
        who: whose fault it is, a class or a function.
        what: what it was asked to do.
        is_users: whether it comes from a function that gets the user's data: then its text, which may repeat them,
            is left out.
    """
    is_new = is_first(who, what)
    if is_users:
        error = type(sys.exception()).__name__
        log.log(logging.WARNING if is_new else logging.DEBUG, "%s.%s failed (%s)", who, what, error)
    elif is_new:
        log.exception("%s.%s failed; the call goes on, its telemetry is incomplete", who, what)
    else:
        log.debug("%s.%s failed again", who, what, exc_info=True)
