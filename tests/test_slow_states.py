"""A state that is slow, or hangs where no time-out of its client ends it: the time-out of a call holds all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import tracemind_otel as tm
from tests.servers.state_servers import wait_until
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_client import StateClient
from tracemind_otel.flows.shared.state_port import Answer, Order, SharedState
from tracemind_otel.flows.shared.states import use_state

pytestmark = pytest.mark.slow


@contextmanager
def used(connect: Callable[[], SharedState], timeout_s: float) -> Generator[None]:
    """The state of this process in the block."""
    use_state(StateClient(connect, "the state", timeout_s=timeout_s))
    try:
        yield
    finally:
        use_state(None)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of the state."""
    return [row for row in caplog.messages if "shared state" in row]


def test_a_look_up_that_hangs_delays_one_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As one of a host's name does for many seconds: later calls do not wait, and the log has a line each way."""
    ends = threading.Event()

    def connect() -> SharedState:
        assert ends.wait(30)
        return SqliteState(tmp_path / "limits.db", timeout_s=5)

    def call() -> None:
        with tm.budget(name="team-a", key="ada", max_llm_calls=1_000):
            tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)

    with used(connect, timeout_s=0.5):
        began = time.monotonic()
        for _ in range(40):
            with pytest.raises(tm.BudgetExceededError, match="cannot be asked"):
                call()
            time.sleep(0.02)
        assert time.monotonic() - began < 8  # with a time-out for each call it takes 20 s
        assert lines(caplog) == [
            "the shared state at the state is away (it did not answer within 0.5 s); until it answers again, "
            "on_state_away decides what budgets do"
        ]
        ends.set()
        wait_until(lambda: len(lines(caplog)) == 2)
        assert lines(caplog)[1] == "the shared state at the state is back"
        call()


class LateState(SqliteState):
    """Answers late, but in time."""

    def apply(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        """As if from another continent."""
        time.sleep(0.7)
        return super().apply(owner, orders, lease_s)


def test_a_call_in_many_budgets_waits_for_one_time_out(tmp_path: Path) -> None:
    """However many accounts it asks; the time-out is for all of them together."""
    with used(lambda: LateState(tmp_path / "limits.db", timeout_s=5), timeout_s=1), ExitStack() as blocks:
        for name in "abcde":
            blocks.enter_context(tm.budget(name=name, key="ada", max_llm_calls=10))
        began = time.monotonic()
        with pytest.raises(tm.BudgetExceededError, match="did not answer within 1 s"):
            tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)
        assert time.monotonic() - began < 2.5  # five answers take 3.5 s
