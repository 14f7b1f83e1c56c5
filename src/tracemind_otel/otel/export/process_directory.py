"""A directory for each process below that of a spool, and how a process takes over those of processes that have ended.

A process holds a lock on its directory for as long as it lives. A directory whose lock is free belongs to a process
that has ended; the first that gets the lock adopts it, so no two processes ever have the same.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator

from ..._base.fork import hold_over_fork, in_forked_child

_LOCK = "lock"
_NAME = re.compile(r"\d{19}-\d+")
"""The names of our directories: nanoseconds since the epoch, so that the oldest is the first, and the process."""

_locking = threading.RLock()
"""Held while a lock is taken and its descriptor noted, so that no fork happens between the two."""
_descriptors = set[int]()
"""The locks that this process holds. A forked child shares them, and would hold them when its parent has ended."""

hold_over_fork(_locking)


def _let_go_of_parents_locks() -> None:
    # Closed, not unlocked: unlocking would take the lock from the parent too.
    while _descriptors:
        os.close(_descriptors.pop())


in_forked_child(_let_go_of_parents_locks)


class ProcessDirectory:
    """A directory that belongs to this process alone, because it holds its lock."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, root: str) -> ProcessDirectory:
        """A new directory, which only this user reads."""
        if sys.platform == "win32":
            raise OSError("Windows has no flock, which tells a process that lives from one that has ended")
        os.makedirs(root, 0o700, exist_ok=True)
        while True:
            path = os.path.join(root, f"{time.time_ns()}-{os.getpid()}")
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                continue
            made = cls.adopt(path)
            if made is not None:  # else another process found it before it was locked, and deletes it
                return made

    @classmethod
    def adopt(cls, path: str) -> ProcessDirectory | None:
        """Take over a directory; `None` if its process lives, another process has it, or it is gone."""
        lock = os.path.join(path, _LOCK)
        with _locking:
            try:
                descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                return None
            try:
                is_locked = _locked(descriptor, lock)
            except BaseException:
                os.close(descriptor)
                raise
            if is_locked:
                _descriptors.add(descriptor)
                return cls(path, descriptor)
            os.close(descriptor)
            return None

    def fsync(self) -> None:
        """Have the names of its files on the disk."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Leave the directory to the next process."""
        with _locking:
            if self._descriptor in _descriptors:
                _descriptors.remove(self._descriptor)
                os.close(self._descriptor)

    def remove(self) -> None:
        """Delete the directory with all that is in it."""
        try:
            for name in os.listdir(self.path):
                if name != _LOCK:
                    os.unlink(os.path.join(self.path, name))
            os.unlink(os.path.join(self.path, _LOCK))  # last: what is without a lock is empty
            os.rmdir(self.path)
        except OSError:
            pass  # another process tries to adopt it: that one deletes it
        finally:
            self.release()


def _locked(descriptor: int, path: str) -> bool:
    """Lock a file; returns whether it is locked, and still the one at that path."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def orphaned(root: str) -> Iterator[ProcessDirectory]:
    """The directories of processes that have ended, oldest first, each locked for this one."""
    try:
        names = sorted(name for name in os.listdir(root) if _NAME.fullmatch(name))
    except OSError:
        return
    for name in names:
        path = os.path.join(root, name)
        try:
            directory = None if os.path.islink(path) else ProcessDirectory.adopt(path)
        except OSError:
            continue  # another user's, or on a disk that is read-only
        if directory is not None:
            yield directory
