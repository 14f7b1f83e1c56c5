"""A shared budget in a SQLite file: what is wrong with the file or its disk stops no call but by its policy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.away_state import YEAR, calls, goes_away_and_comes_back, lines, standing, used
from tests.programs import run_program
from tests.servers.state_servers import wait_until
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_port import Reserve, Settle, StateAwayError, Sums

pytestmark = pytest.mark.slow

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def opener(path: Path) -> Callable[[], SqliteState]:
    return lambda: SqliteState(path, timeout_s=5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 512 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as sink:
        try:
            while True:
                sink.write(b"x" * 512)
        except OSError:
            return


def delete(path: Path) -> None:
    """A database with its log."""
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@as_root
async def test_a_full_disk_is_a_state_that_is_away(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With room again, what was spent meanwhile is counted."""
    path = small_disk / "limits.db"
    await goes_away_and_comes_back(
        f"sqlite:///{path}",
        opener(path),
        caplog,
        "make room on its disk",
        lambda: fill(small_disk / "filler"),
        (small_disk / "filler").unlink,
    )


async def test_a_file_that_is_deleted_is_told_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A deleted file could be written for ever, while other processes use the new one."""
    path = tmp_path / "limits.db"
    with used(f"sqlite:///{path}") as client:
        assert await calls(1) == 1
        assert client.flush(10)
        delete(path)
        assert await calls(1) == 0
        wait_until(lambda: len(lines(caplog)) == 2)
        assert "deleted or replaced" in lines(caplog)[0]
        assert await calls(3) == 3
        assert client.flush(10)
    assert standing(SqliteState(path, timeout_s=5)).spent.llm_calls == 3


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line says what to do; the file may be somebody's, and another one is used once it is gone."""
    path = tmp_path / "limits.db"
    path.write_bytes(b"a letter to somebody " * 1_000)
    with used(f"sqlite:///{path}") as client:
        assert await calls(20, "deny") == 0
        assert await calls(20, "allow") == 20
        (line,) = lines(caplog)
        assert "file is not a database; move the file away" in line
        assert path.read_bytes().startswith(b"a letter")
        path.rename(tmp_path / "letter")
        assert client.flush(20)
    assert standing(SqliteState(path, timeout_s=5)).spent.llm_calls == 20


def test_the_log_of_the_file_is_emptied_however_many_write(tmp_path: Path) -> None:
    """Without that it would grow as long as any process writes."""
    path = tmp_path / "limits.db"
    states = [SqliteState(path, timeout_s=30) for _ in range(2)]

    def write(owner: str, state: SqliteState, times: int) -> None:
        for _ in range(times):
            order = Reserve(YEAR, (None, None, None), Sums(1, 1, 1), is_call=True)
            held = state.apply(owner, [order], 60)[0]
            state.apply(owner, [Settle(YEAR, held.window, order.wanted, order.wanted)], 60)

    state = states.pop()
    thread = threading.Thread(target=lambda: write("a", SqliteState(path, timeout_s=30), 1_500))
    thread.start()
    write("b", state, 1_500)
    thread.join()

    def log_is_short() -> bool:
        write("b", state, 64)
        return (tmp_path / "limits.db-wal").stat().st_size < 20 * 1024**2

    wait_until(log_is_short)
    state.close()


AS_USER = """
import asyncio, json, os, sys
import tracemind_otel as tm
from tests.away_state import calls, used
import tracemind_otel.flows.shared.sqlite_state

# While this user may still read the modules that a call imports.
with used("sqlite:///" + sys.argv[4]):
    assert asyncio.run(calls(1)) == 1
url, user, group = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setgid(group)
os.setuid(user)
os.umask(0o027)
with used(url) as client:
    denied = asyncio.run(calls(20, "deny"))
    allowed = asyncio.run(calls(20, "allow"))
    client.flush(0.5)
print(json.dumps([denied, allowed]))
"""


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def sent_as(user: int, path: Path, group: int = 4_242) -> tuple[list[int], list[str]]:
    """How many calls another user sent with each policy, and what the log says of the state."""
    done = run_program(AS_USER, f"sqlite:///{path}", str(user), str(group), str(path.parent / f"first-of-{user}.db"))
    assert done.returncode == 0, done.stderr
    sent: list[int] = json.loads(done.stdout)
    return sent, [line for line in done.stderr.splitlines() if "shared state" in line and " is away" in line]


@as_root
@pytest.mark.parametrize("case", ["folder", "file"])
def test_a_user_who_may_not_write_is_told(open_folder: Path, case: str) -> None:
    """A read-only folder, or the file of another user: one line that names the place, and the policy."""
    path = open_folder / "limits.db"
    if case == "file":
        opener(path)().close()
    sent, (line,) = sent_as(4_001, path)
    assert sent == [0, 20]
    assert str(path) in line
    assert "let this user write the file and its directory" in line


@as_root
def test_two_users_share_a_file_by_their_group(open_folder: Path) -> None:
    """The file is made before with the rights of the group, in a folder of the group."""
    os.chown(open_folder, 0, 4_242)
    open_folder.chmod(0o2770)
    path = open_folder / "limits.db"
    path.touch()
    path.chmod(0o660)
    for user in (4_001, 4_002, 4_001):
        assert sent_as(user, path) == ([20, 20], [])
    assert standing(opener(path)()).spent.llm_calls == 120


def test_the_message_of_a_folder_that_is_gone_names_it(tmp_path: Path) -> None:
    """Such a state is away until the folder is there."""
    folder = tmp_path / "data"
    folder.mkdir()
    state = SqliteState(folder / "limits.db", timeout_s=1)
    shutil.rmtree(folder)
    with pytest.raises(StateAwayError, match=r"limits\.db"):
        state.apply("a", [Settle(YEAR, None, Sums(), Sums())], 60)
    folder.mkdir()
    with pytest.raises(StateAwayError, match="replaced"):
        state.apply("a", [Settle(YEAR, None, Sums(), Sums())], 60)
    assert state.apply("a", [Settle(YEAR, None, Sums(), Sums())], 60)[0].spent == Sums()
    state.close()
