"""Run programs as a user does: in a process of their own, where any warning is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

_NOT_OURS = ("OTEL_", "OPENAI_", "TRACEMIND_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "PYTHON")


@dataclass(frozen=True)
class Finished:
    """The end of a program."""

    returncode: int
    stdout: str
    stderr: str


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's variables, without those that would change a program's behaviour."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)} | changes


def run(
    *arguments: object,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    standard_input: str = "",
) -> Finished:
    """Run Python with these arguments, outside the source tree.

    A socket that is left open or a coroutine that is never awaited is a warning that nobody can catch: Python prints
    it, goes on and ends with 0. Such a program has failed all the same.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, arguments)],
        cwd=directory,
        env=clean_environment(**(environment or {})),
        input=standard_input,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert "Exception ignored in" not in done.stderr, done.stderr
    return Finished(done.returncode, done.stdout, done.stderr)


def run_program(
    source: str, *arguments: object, options: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Finished:
    """Run Python source in the root of the repository."""
    return run(*options, "-c", source, *arguments, directory=REPOSITORY, environment=environment)
