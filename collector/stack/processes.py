"""Start processes that outlive the command, wait until they answer, and stop them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from .console import SIGNALS, StackError, output_of
from .programs import Program

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


def identity(pid: int) -> str | None:
    """A string that differs for a later process with the same id; `None` once the process has ended.

    It holds the start time within this boot, which, unlike the command line, is the same before and after exec.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return output_of(["ps", "-o", "lstart=", "-p", str(pid)]) or None
    state, *fields = text.rpartition(")")[2].split()  # the name before, in brackets, may contain anything
    return None if state == "Z" else f"{fields[18]} {boot}"


@dataclasses.dataclass(frozen=True)
class PidFile:
    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def write(self, pid: int) -> None:
        self.path.write_text(f"{pid}\n{identity(pid)}\n")

    def running_pid(self) -> int | None:
        """The id of our process; `None` if it has ended, even if another process has its id now."""
        try:
            pid_line, _, known = self.path.read_text().partition("\n")
            pid = int(pid_line)
        except (FileNotFoundError, ValueError):
            return None
        return pid if identity(pid) == known.rstrip("\n") else None


def start(program: Program, state: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with SIGNALS.held(), (state / f"{program.name}.log").open("wb") as log:
        try:
            process = subprocess.Popen(
                program.command,
                cwd=state,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StackError(
                f"{program.name} cannot be started: {error}; delete its folder in the cache to build it again"
            ) from error
        PidFile(state / f"{program.name}.pid").write(process.pid)
        return process


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def stop_processes(state: Path) -> list[str]:
    """Stop our processes together, with SIGTERM first; returns the names of those that were running."""
    files = [PidFile(path) for path in sorted(state.glob("*.pid"))]
    running = {file: pid for file in files if (pid := file.running_pid()) is not None}
    for pid in running.values():
        send(pid, signal.SIGTERM)
    if not wait_until(lambda: not any(file.running_pid() for file in running), STOP_TIMEOUT_S):
        for file in running:
            if (pid := file.running_pid()) is not None:
                send(pid, signal.SIGKILL)
        wait_until(lambda: not any(file.running_pid() for file in running), STOP_TIMEOUT_S)
    for file in files:
        file.path.unlink(missing_ok=True)
    return [file.name for file in running]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(address: str) -> bool:
    try:
        with NO_PROXY.open(address, timeout=2.0) as response:
            return int(response.status) == 200
    except (OSError, ValueError):
        return False


def wait_ready(address: str, name: str, check_alive: Callable[[], None], log_tail: Callable[[], str]) -> None:
    def ready() -> bool:
        check_alive()
        return answers(address)

    if not wait_until(ready, READY_TIMEOUT_S):
        raise StackError(
            f"{name} was not ready after {READY_TIMEOUT_S:.0f} s ({address}); the end of its log:\n{log_tail()}"
        )
