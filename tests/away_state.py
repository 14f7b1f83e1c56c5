"""Calls in a shared budget while its state goes away and comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

import tracemind_otel as tm
from tests.servers.state_servers import wait_until
from tracemind_otel.flows.budget import OnStateAway
from tracemind_otel.flows.shared.state_client import StateClient
from tracemind_otel.flows.shared.state_port import Account, Answer, Settle, SharedState, Sums
from tracemind_otel.flows.shared.states import state_at, use_state

YEAR = Account("team-a", "", 365 * 86_400)
_TIMEOUT_S = 1.0
"""Longer than a state takes to answer on a machine that does much else."""
_ROOM_S = 2.0
"""For a machine that does much else."""


@contextmanager
def used(url: str) -> Generator[StateClient]:
    """The state of this process in the block."""
    client = state_at(f"{url}?timeout={_TIMEOUT_S}")
    assert client is not None
    use_state(client)
    try:
        yield client
    finally:
        use_state(None)


async def calls(count: int, policy: OnStateAway = "deny") -> int:
    """Make calls at once; returns how many were sent. None may take longer than the time-out and some room."""
    limits: dict[str, Any] = {"name": "team-a", "per": "365d", "max_llm_calls": 100_000}

    async def one() -> bool:
        began = time.monotonic()
        try:
            await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
        except tm.BudgetExceededError as error:
            if "cannot be asked" not in str(error):
                raise
            return False
        finally:
            assert time.monotonic() - began < _TIMEOUT_S + _ROOM_S
        return True

    with tm.budget(**limits, on_state_away=policy):
        return sum(await asyncio.gather(*(one() for _ in range(count))))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says of the state."""
    return [row.getMessage() for row in caplog.records if "shared state" in row.getMessage()]


def standing(state: SharedState) -> Answer:
    """How the account stands, read by an order that changes nothing."""
    try:
        return state.apply("reader", [Settle(YEAR, None, Sums(), Sums())], 60)[0]
    finally:
        state.close()


async def goes_away_and_comes_back(
    url: str,
    opened: Callable[[], SharedState],
    caplog: pytest.LogCaptureFixture,
    reason: str,
    take_away: Callable[[], object],
    bring_back: Callable[[], object],
) -> None:
    """Both policies hold for 100 calls at once, the log has one line, and afterwards every call is counted once."""
    with used(url) as client:
        assert await calls(1) == 1
        assert await asyncio.to_thread(client.flush, 10)
        take_away()
        assert await calls(100, "deny") == 0
        assert await calls(100, "allow") == 100
        await asyncio.to_thread(wait_until, lambda: bool(lines(caplog)))
        (line,) = lines(caplog)
        assert reason in line
        assert url.split("@")[0] not in caplog.text
        bring_back()
        assert await asyncio.to_thread(client.flush, 20)
        left = standing(opened())
        assert (left.spent.llm_calls, left.held) == (101, Sums())
        assert await calls(1) == 1
        assert [line.rpartition(" is ")[2] for line in lines(caplog)[1:]] == ["back"]
