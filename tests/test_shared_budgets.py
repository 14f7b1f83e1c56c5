"""A budget that many processes share holds in all of them, whatever becomes of a process or of the state."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.programs import REPOSITORY, clean_environment
from tests.servers.billing_server import running_billing_server
from tests.shared_spender import LIMIT_USD, MAX_TOKENS, NAME
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_port import NANO, Account, Answer, Settle, SharedState, Sums

YEAR = Account(NAME, "", 365 * 86_400)


def standing(state: SharedState, account: Account = YEAR) -> Answer:
    """How an account stands, read by an order that changes nothing."""
    return state.apply("reader", [Settle(account, None, Sums(), Sums())], 60)[0]


def spender(state: str, base_url: str, script: str, *, lease_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.shared_spender", state, base_url, script, "100", str(lease_s)],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def eight_processes_four_killed(url: str, read: SharedState) -> None:
    """Spend one budget by 8 processes of 100 calls at once, and kill four of them while all their calls are sent."""
    lease_s = 2.0
    with running_billing_server() as server:
        base_url = server.base_url(MAX_TOKENS)
        killed = [spender(url, base_url, "hang", lease_s=lease_s) for _ in range(4)]
        server.wait_for_requests(400)
        survivors = [spender(url, base_url, "answer", lease_s=lease_s) for _ in range(4)]
        server.wait_for_requests(500)
        for process in killed:
            os.kill(process.pid, signal.SIGKILL)
        ends = [json.loads(process.communicate(timeout=60)[0]) for process in survivors]
        for process in killed:
            process.communicate()
        billed = server.billed_usd()
    assert all(end["denied"] and not end["unasked"] for end in ends), ends
    time.sleep(lease_s)  # what a killed process held is freed by time alone
    left = standing(read)
    spent = left.spent.nano_usd / NANO
    assert left.held == Sums()
    assert left.spent.llm_calls == 400 + sum(end["answered"] + end["failed"] for end in ends)
    assert billed <= spent <= LIMIT_USD
    assert spent > 0.95 * LIMIT_USD


@pytest.mark.slow
def test_eight_processes_never_overspend_a_budget_in_sqlite(tmp_path: Path) -> None:
    """The provider's bill of all of them, four of which are killed, is below the limit; the killed ones' calls count."""
    path = tmp_path / "limits.db"
    eight_processes_four_killed(f"sqlite:///{path}", SqliteState(path, timeout_s=5))
