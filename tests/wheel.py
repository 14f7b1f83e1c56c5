"""Build the wheel, install it into a virtual environment of its own, and run the smoke tests there.

Run it with `python tests/wheel.py`. Everything happens in a temporary directory, outside the source tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMOKE = ROOT / "tests" / "smoke"


class StepFailedError(Exception):
    """A command failed; its output was shown."""


def main() -> int:
    """Build, install, test; returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="tracemind-wheel-") as folder:
        try:
            check(Path(folder))
        except StepFailedError as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    print("the wheel works")
    return 0


def check(folder: Path) -> None:
    """Run all steps in a temporary folder."""
    wheel = build(folder / "dist")
    python = install(folder / "venv", wheel)
    is_in_venv(python, folder)
    test(python, folder / "tests")


def build(dist: Path) -> Path:
    """Build the wheel from a source tree."""
    run("building the wheel", [sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT)])
    (wheel,) = dist.glob("*.whl")
    print(f"  {wheel.name}, {wheel.stat().st_size / 1024:.0f} KiB")
    return wheel


def install(folder: Path, wheel: Path) -> Path:
    """Make a fresh virtual environment with the wheel and pytest; returns its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run("installing it and pytest", [*pip, str(wheel), "pytest"])
    return python


def is_in_venv(python: Path, folder: Path) -> None:
    """Check that the wheel is tested, and not the source tree."""
    program = "import tracemind_otel, trace_mind; print(tracemind_otel.__file__); print(trace_mind.__file__)"
    output = run("looking where it is", [str(python), "-c", program], cwd=folder)
    for line in output.splitlines():
        if not Path(line).resolve().is_relative_to(folder.resolve() / "venv"):
            raise StepFailedError(f"{line} is not in the virtual environment")


def test(python: Path, folder: Path) -> None:
    """Run the smoke tests from a copy, without the source tree's configuration."""
    shutil.copytree(SMOKE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder), "-W", "error"]
    markers = ["-o", "markers=smoke: also run against the installed wheel"]
    output = run("running the smoke tests", [str(python), "-m", "pytest", *options, *markers, str(folder)], cwd=folder)
    print(f"  {output.strip().splitlines()[-1]}")


def run(what: str, command: Sequence[str], *, cwd: Path | None = None) -> str:
    """Run a command, and show its output if it fails."""
    print(f"{what} ...", flush=True)
    started = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise StepFailedError(f"{what}: exit code {done.returncode}")
    print(f"  done in {time.monotonic() - started:.1f} s")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
