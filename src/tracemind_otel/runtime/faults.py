"""Faults of telemetry: logged, and kept away from what is traced."""

from __future__ import annotations

import logging
import sys
import threading

_MAX_NAMED = 1024

_reported: set[tuple[str, str]] = set()
_lock = threading.Lock()


def report_fault(log: logging.Logger, who: str, what: str, *, is_users: bool = False) -> None:
    """Log the exception that is being handled: with its trace the first time, as one debug line after that.

    Args:
        log: where to.
        who: whose fault it is, a class or a function.
        what: what it was asked to do.
        is_users: whether it comes from a function that gets the user's data: then its text, which may repeat them,
            is left out.
    """
    with _lock:
        is_new = (who, what) not in _reported and len(_reported) < _MAX_NAMED
        if is_new:
            _reported.add((who, what))
    if is_users:
        error = type(sys.exception()).__name__
        log.log(logging.WARNING if is_new else logging.DEBUG, "%s.%s failed (%s)", who, what, error)
    elif is_new:
        log.exception("%s.%s failed; the call goes on, its telemetry is incomplete", who, what)
    else:
        log.debug("%s.%s failed again", who, what, exc_info=True)
