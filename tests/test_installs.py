"""Tools for tests are in the cache completely or not at all, though installs run at once and are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from collector.stack.console import StackError

from tests.servers import installs
from tests.servers.fixture import REPOSITORY

INSTALL = """
import pathlib, sys
from tests.servers import installs

def fill(folder):
    with (pathlib.Path(sys.argv[1]) / "fills").open("a") as fills:
        fills.write("x")
    (folder / "first").write_text("")
    print("filling", flush=True)
    sys.stdin.readline()
    (folder / "tool").write_text("whole")

print(installs.installed("tool-1", "tool", fill).read_text())
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, also for the processes that a test starts."""
    monkeypatch.setenv("TRACEMIND_STACK_CACHE", str(tmp_path))
    return tmp_path


def installing(cache: Path) -> subprocess.Popen[str]:
    """A process that installs the tool, and waits half-way for a line."""
    command = [sys.executable, "-c", INSTALL, str(cache)]
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def line_of(stream: IO[str] | None) -> str:
    """The next line of a process's output."""
    assert stream is not None
    return stream.readline().strip()


def test_two_processes_install_once(cache: Path) -> None:
    """The second process waits for the first, and uses its result."""
    with installing(cache) as first:
        assert line_of(first.stdout) == "filling"
        with installing(cache) as second:
            assert line_of(second.stderr) == "waiting for another build of tool-1"
            assert not (cache / "tool-1").exists()
            first.communicate("\n", timeout=30)
            told, _ = second.communicate(timeout=30)

    assert (told, (cache / "fills").read_text()) == ("whole\n", "x")


def test_an_install_that_was_killed_is_made_again(cache: Path) -> None:
    """The rest of a killed install is never used, and the next install replaces it."""
    with installing(cache) as killed:
        assert line_of(killed.stdout) == "filling"
        os.kill(killed.pid, signal.SIGKILL)
    with installing(cache) as next_one:
        told, _ = next_one.communicate("\n", timeout=30)

    assert told == "filling\nwhole\n"
    assert sorted(path.name for path in cache.iterdir()) == [".lock-tool-1", "fills", "tool-1"]


def test_a_step_that_fails_leaves_nothing(cache: Path) -> None:
    """The error has the end of the step's output, and the next attempt starts again."""

    def fill(folder: Path) -> None:
        command = [sys.executable, "-c", "print('no compiler here'); raise SystemExit(2)"]
        installs.run_step("tool: building", command, folder)

    for _ in range(2):
        with pytest.raises(StackError, match=r"(?s)tool: building failed \(exit code 2\).*no compiler here"):
            installs.installed("tool-1", "tool", fill)
    assert [path.name for path in cache.iterdir()] == [".lock-tool-1"]


def test_an_older_half_made_folder_is_replaced(cache: Path) -> None:
    """A folder without the program is replaced."""
    (cache / "tool-1").mkdir()
    (cache / "tool-1" / "first").write_text("")

    program = installs.installed("tool-1", "tool", lambda folder: (folder / "tool").touch())

    assert [path.name for path in program.parent.iterdir()] == ["tool"]
