"""A directory for each process below that of a spool, and how a process takes over those of processes that have ended.

A process holds a lock on its directory for as long as it lives. A directory whose lock is free belongs to a process
that has ended; the first that gets the lock adopts it, so no two processes ever have the same.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator

from ..._base.fork import hold_over_fork, in_forked_child

if sys.platform != "win32":
    import fcntl  # at once: while a program ends nothing can be imported

_LOCK = "lock"
_NAME = re.compile(r"\d{19}-\d+")
"""The names of our directories: nanoseconds since the epoch, so that the oldest is the first, and the process."""

_locking = threading.RLock()
"""Held while a lock is taken and its descriptor noted, so that no fork happens between the two."""
_descriptors = dict[int, int]()
"""The locks that this process holds, each with the process that took it. A forked child shares those of its parent, and
would hold them when that has ended."""

hold_over_fork(_locking)


def _let_go_of_parents_locks() -> None:
    # Closed, not unlocked: unlocking would take the lock from the parent too. What ran before in this child may have
    # taken a lock of its own.
    with _locking:
        for descriptor in [each for each, process in _descriptors.items() if process != os.getpid()]:
            del _descriptors[descriptor]
            os.close(descriptor)


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
            path = os.path.join(root, f"{time.time_ns():019d}-{os.getpid()}")
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
                _descriptors[descriptor] = os.getpid()
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
                del _descriptors[self._descriptor]
                os.close(self._descriptor)

    def remove(self) -> None:
        """Delete the directory with all that is in it, unless another one is at its path by now."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.path.samestat(os.fstat(self._descriptor), os.stat(_LOCK, dir_fd=directory)):
                    for name in os.listdir(directory):
                        if name != _LOCK:
                            os.unlink(name, dir_fd=directory)
                    os.unlink(_LOCK, dir_fd=directory)  # last: what is without a lock is empty
                    os.rmdir(self.path)
            finally:
                os.close(directory)
        except OSError:
            pass  # another process tries to adopt it: that one deletes it
        finally:
            self.release()


def _locked(descriptor: int, path: str) -> bool:
    """Lock a file; returns whether it is locked, and still the one at that path."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def orphaned(root: str) -> Iterator[ProcessDirectory]:
    """The directories of this user's processes that have ended, oldest first, each locked for this one."""
    try:
        names = sorted(name for name in os.listdir(root) if _NAME.fullmatch(name))
    except OSError:
        return
    for name in names:
        path = os.path.join(root, name)
        try:
            directory = ProcessDirectory.adopt(path) if _is_own(path) else None
        except OSError:
            continue  # on a disk that is read-only
        if directory is not None:
            yield directory


def _is_own(path: str) -> bool:
    """Whether this is a directory of this user. Others may plant spans, or links to files that they cannot read."""
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def regular_file(path: str, flags: int) -> int:
    """Open a file, for `open(opener=...)`: no link that leads out of the directory, and no pipe, which blocks."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", path)
