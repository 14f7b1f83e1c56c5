"""Messages, progress, errors and interrupts at the terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import FrameType

PROGRESS_EVERY_S = 15.0
LOG_TAIL_LINES = 25

EXIT_FAILED = 1
EXIT_NOTHING_TO_RUN_WITH = 3
EXIT_INTERRUPTED = 130


class StackError(Exception):
    """A fault that ends the command with `exit_code`; the message says what to do."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """SIGINT or SIGTERM; it unwinds like KeyboardInterrupt, so that what was started is stopped."""


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def output_of(command: Sequence[str], timeout_s: float = 30.0) -> str | None:
    """The output of a command; `None` if it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Signals:
    """Raises `Interrupted` for SIGINT and SIGTERM, later if they arrive while a process is being started."""

    def __init__(self) -> None:
        self._held = False
        self._pending = False

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._held:
            self._pending = True
        else:
            raise Interrupted

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        if self._held:
            yield
            return
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise Interrupted


SIGNALS = Signals()


class Progress:
    """The elapsed time of a long step: one rewritten line on a terminal, otherwise a line every 15 seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._last = self._started
        self._live = sys.stderr.isatty()
        say(f"{what} ...")

    @property
    def elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._last < (1.0 if self._live else PROGRESS_EVERY_S):
            return
        self._last = now
        if self._live:
            sys.stderr.write(f"\r{self._what} ... {self.elapsed}  ")
            sys.stderr.flush()
        else:
            say(f"{self._what} ... {self.elapsed}")

    def done(self) -> None:
        say(("\r" if self._live else "") + f"{self._what}: done in {self.elapsed}")


def run_command(name: str, arguments: argparse.Namespace) -> int:
    """Run the function `run` of the arguments; a fault or an interrupt becomes a message and an exit code."""
    SIGNALS.install()
    try:
        code: int = arguments.run(arguments)
    except StackError as error:
        say(f"{name}: {error}")
        return error.exit_code
    except Interrupted:
        say(f"{name}: interrupted; everything it started was stopped")
        return EXIT_INTERRUPTED
    return code


def run_step(what: str, command: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str]) -> None:
    """Run a build step in a session of its own, with progress; an interrupt kills all of its children."""
    progress = Progress(what)
    with log.open("ab") as sink:
        with SIGNALS.held():
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
                progress.tick()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode != 0:
        raise StackError(
            f"{what} failed (exit code {process.returncode}); fix this and repeat the command:\n{tail(log)}"
        )
    progress.done()
