"""Run the tests about ends, forks and threads many times, each time in a process of its own.

`python tests/soak.py [ROUNDS]` runs the tests marked `soak`, 200 times unless told otherwise. A test that hangs prints
the stack of each thread and ends its round. The exit code is 1 if a round failed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "@pytest.mark.soak"
HANGS_AFTER_S = 100
"""The time limit of one test, on a busy machine; below the time limit of every test."""

PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-m", "soak", "-p", "no:randomly", "-p", "no:cacheprovider"),
    *("-o", f"faulthandler_timeout={HANGS_AFTER_S}", "-o", "faulthandler_exit_on_timeout=true"),
)


def main(rounds: int) -> int:
    """Run them, and print how each round ended."""
    modules = sorted(str(path) for path in ROOT.glob("tests/**/test_*.py") if MARK in path.read_text(encoding="utf-8"))
    failed, started = 0, time.monotonic()
    for number in range(1, rounds + 1):
        done = subprocess.run([*PYTEST, *modules], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            failed += 1
            print(done.stdout, done.stderr, sep="\n", flush=True)
        minutes = (time.monotonic() - started) / 60
        summary = "".join(done.stdout.splitlines()[-1:])
        print(f"{number} of {rounds}: {summary}; {failed} failed so far, {minutes:.1f} min", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 200))
