"""Processes that fork while the state is in use, and parents that end before their children."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.programs import run_program
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_client import StateClient
from tracemind_otel.flows.shared.state_port import Account, Answer, Order, Reserve, Settle, Sums

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

DAEMON = """
import os, sys, time
import tracemind_otel as tm

handle = tm.configure(file=sys.argv[2], state=f"sqlite:///{sys.argv[1]}?timeout=10")


def call():
    with tm.budget(name="team-a", key="ada", max_llm_calls=1_000):
        tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)
    handle.flush()


call()
is_ready, ready = os.pipe()
parent = os.getpid()
if os.fork():
    os.read(is_ready, 1)
    sys.exit()
call()
os.write(ready, b"1")
while os.getppid() == parent:
    time.sleep(0.01)
for _ in range(3):
    call()
os._exit(0)
"""


def test_a_child_whose_parent_ends_goes_on_counting(tmp_path: Path) -> None:
    """As a daemon's: SQLite once took the parent's end for that of the last user, and deleted the child's log."""
    path = tmp_path / "limits.db"
    done = run_program(DAEMON, path, tmp_path / "trace.jsonl")
    assert done.returncode == 0, done.stderr
    with closing(SqliteState(path, timeout_s=10)) as state:
        account = Account("team-a", "ada", 0)
        left = state.apply("reader", [Settle(account, None, Sums(), Sums())], 60)[0]
    assert (left.spent.llm_calls, left.held) == (5, Sums())


class WatchedState(SqliteState):
    """Notes whether it is in use when the process forks."""

    def __init__(self, path: Path) -> None:
        self.is_in_use = threading.Event()
        self.may_end = threading.Event()
        self.was_in_use: list[bool] = []
        super().__init__(path, timeout_s=10)

    def apply(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        """Take until the test allows the end."""
        self.is_in_use.set()
        self.may_end.wait(10)
        answers = super().apply(owner, orders, lease_s)
        self.is_in_use.clear()
        return answers

    def before_fork(self) -> None:
        """Note it."""
        self.was_in_use.append(self.is_in_use.is_set())
        super().before_fork()


def test_no_process_forks_while_the_state_is_in_use(tmp_path: Path) -> None:
    """The locks inside SQLite would never be free in the child, whose calls would all find the state away."""
    state = WatchedState(tmp_path / "limits.db")
    client = StateClient(lambda: state, "the state", timeout_s=10)
    order = Reserve(Account("team-a", "", 0), (None, None, 5), Sums(0, 0, 1), is_call=True)
    asked = client.ask(order)
    assert state.is_in_use.wait(10)
    threading.Timer(0.2, state.may_end.set).start()
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
    assert state.was_in_use == [False]
    assert asked.result(10).denied_by is None
    assert client.ask(order).result(10).held.llm_calls == 1  # before this one: the parent goes on
    client.close()
