"""What happens when this process forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


def in_forked_child(action: Callable[[], object]) -> None:
    """Run this in every process that is forked from this one, right after the fork.

    A pool forks its workers inside whatever flow needs one first, and no state of that flow may last there.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=action)


def around_fork(
    *, before: Callable[[], object], in_parent: Callable[[], object], in_child: Callable[[], object]
) -> None:
    """Run the first whenever this process forks, and the others right after it in both processes."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def hold_over_fork(lock: threading.RLock, timeout_s: float = -1) -> None:
    """Let a thread that forks hold this lock meanwhile, so that no child inherits it from another thread.

    After the time-out it forks without the lock, because the thread that has it may wait for the one that forks.
    """
    held = threading.local()

    def before() -> None:
        held.here = lock.acquire(timeout=timeout_s)

    def after() -> None:
        if held.here:
            lock.release()

    around_fork(before=before, in_parent=after, in_child=after)
