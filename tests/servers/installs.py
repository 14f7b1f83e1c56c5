"""Programs that tests need, made once into the cache of the project: whole or not at all, by one process at a time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from collector.stack import console
from collector.stack.cache import cache_dir, publish, work_folder
from collector.stack.console import tail

_READY_S = 120.0
_STOP_S = 10.0


def installed(name: str, program: str, fill: Callable[[Path], None]) -> Path:
    """The program, installed the first time.

    Args:
        name: the folder in the cache, with the version in its name.
        program: the path in it.
        fill: puts everything into an empty folder, which is renamed when it is complete. It must bear the renaming.
    """
    final = cache_dir() / name
    if not (final / program).exists():
        with work_folder(name) as folder:
            if not (final / program).exists():  # another process may have made it while this one waited
                (new := folder / "new").mkdir()
                fill(new)
                publish(new, final)
    return final / program


def run_step(what: str, command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None) -> None:
    """A step of `fill`, with its progress and its time on standard error."""
    console.run_step(
        what, [str(part) for part in command], folder, folder.parent / "log", {**os.environ, **(env or {})}
    )


def wait_until_ready(
    process: subprocess.Popen[bytes], is_ready: Callable[[], object], log: Path, within_s: float = _READY_S
) -> None:
    """Return as soon as `is_ready` raises no OSError; an end of the process before that is an error with its log."""
    until = time.monotonic() + within_s
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            is_ready()
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start; the end of its log:\n{tail(log)}")


def stop(process: subprocess.Popen[bytes], within_s: float = _STOP_S) -> None:
    """Stop a process with SIGTERM, so that it flushes, and kill it if it does not end in time."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
