"""What happens when this process forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


def in_forked_child(action: Callable[[], object]) -> None:
    """Run this in every process that is forked from this one, right after the fork.

    A worker of a pool is forked in the middle of whatever flow was the first to need it: what holds here must not go on
    holding there for ever.
    """
    register = getattr(os, "register_at_fork", None)
    if register is not None:  # not on Windows
        register(after_in_child=action)


def hold_over_fork(lock: threading.RLock, timeout_s: float = -1) -> None:
    """Let a thread that forks hold this lock meanwhile, so that no child inherits it from another thread.

    With a time-out it forks without the lock at last: what runs under the lock may wait for that very thread.
    """
    register = getattr(os, "register_at_fork", None)
    held = threading.local()

    def before() -> None:
        held.here = lock.acquire(timeout=timeout_s)

    def after() -> None:
        if held.here:
            lock.release()

    if register is not None:
        register(before=before, after_in_parent=after, after_in_child=after)
