"""The cache folder outside the checkout; a build is published there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from .console import say


def cache_dir() -> Path:
    if own := os.environ.get("TRACEMIND_STACK_CACHE"):
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tracemind-otel"


@contextlib.contextmanager
def file_lock(path: Path, waiting_for: str) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say(f"waiting for {waiting_for}")
                    told = True
                time.sleep(0.2)
        yield


def state_lock(state: Path) -> contextlib.AbstractContextManager[None]:
    """A block in which no other command changes what runs from a state folder."""
    return file_lock(state / ".lock", "another command on the same state folder")


@contextlib.contextmanager
def work_folder(name: str) -> Generator[Path]:
    """A temporary folder for one build, under a lock; it is removed afterwards."""
    cache = cache_dir()
    with file_lock(cache / f".lock-{name}", f"another build of {name}"):
        for stale in cache.glob(f".tmp-{name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".tmp-{name}-", dir=cache))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, final: Path) -> None:
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)


def default_state() -> Path:
    return cache_dir() / ".stack"
