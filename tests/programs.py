"""Programs run as a user runs them: in a process of their own, where any warning is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.servers.fixture import Finished

_NOT_OURS = ("OTEL_", "OPENAI_", "TRACEMIND_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "PYTHON")


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's variables, without those that would change what a program does."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS)} | changes


def run(
    *arguments: object,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    standard_input: str = "",
) -> Finished:
    """Run Python with these arguments, outside the source tree."""
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
    return Finished(done.returncode, done.stdout, done.stderr)
