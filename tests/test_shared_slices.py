"""Whatever the order of calls, answers, kills and lost answers: the sums of a shared budget never exceed its limits."""

from __future__ import annotations

import itertools
import sqlite3
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from tests.servers.state_servers import Kind, running, wait_until
from tracemind_otel.flows.shared.outbox import Outbox
from tracemind_otel.flows.shared.redis_state import RedisState
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_port import Account, Answer, Reserve, Settle, SharedState, Sums
from tracemind_otel.flows.shared.states import state_at

LIMIT = Sums(0, 40_000, 3_000)
YEAR_S = 365 * 86_400
PROCESSES = st.integers(0, 2)
_numbers = itertools.count()


@dataclass
class Call:
    """A call that asked for its reservation."""

    order: Reserve
    asked: Future[Answer]

    @property
    def window(self) -> int | None:
        """Where it is held; `None` if it waits or was denied."""
        granted = self.asked.done() and self.asked.exception() is None and self.asked.result().denied_by is None
        return self.asked.result().window if granted else None


@dataclass
class Process:
    """A process without its thread."""

    owner: str = field(default_factory=lambda: f"process-{next(_numbers)}")
    outbox: Outbox = field(default_factory=lambda: Outbox("the state"))
    calls: list[Call] = field(default_factory=list[Call])


class SharedBudget(RuleBasedStateMachine):
    """Three processes that spend one budget."""

    state: SharedState
    answers_get_lost = False

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(f"budget-{next(_numbers)}", "", YEAR_S)
        self.processes = [Process() for _ in range(3)]
        self.billed = Sums()
        self.may_be_billed = Sums()
        self.was_killed = False

    def standing(self) -> Answer:
        return self.state.apply("reader", [Settle(self.account, None, Sums(), Sums())], 60)[0]

    @rule(number=PROCESSES, calls=st.integers(1, 30), tokens=st.integers(0, 60))
    def call(self, number: int, calls: int, tokens: int) -> None:
        """Ask for some calls at once; some are granted at once."""
        process = self.processes[number]
        for _ in range(calls):
            order = Reserve(self.account, (None, *LIMIT[1:]), Sums(0, tokens, 1), is_call=True)
            process.calls.append(Call(order, process.outbox.ask(order)))

    @rule(number=PROCESSES, is_lost=st.sampled_from([False, False, False, True]))
    def send(self, number: int, is_lost: bool) -> None:
        """Send what waits; the answer may get lost."""
        self.exchange(self.processes[number], is_lost=is_lost)

    def exchange(self, process: Process, *, is_lost: bool = False) -> None:
        batch = process.outbox.next_batch()
        if is_lost:
            if self.answers_get_lost:
                self.state.apply(process.owner, batch.orders, 60)
            for asked in process.outbox.failed(batch):
                asked.answer.set_exception(OSError())
            return
        answers = self.state.apply(process.owner, batch.orders, 60)
        for asked, answer in process.outbox.carried_out(batch, answers):
            asked.answer.set_result(answer)

    @rule(number=PROCESSES, calls=st.integers(1, 40), percent=st.integers(0, 100))
    def end(self, number: int, calls: int, percent: int) -> None:
        """End some calls that were granted, which used a part of what was held."""
        process = self.processes[number]
        for call in [call for call in process.calls if call.window is not None][:calls]:
            process.calls.remove(call)
            used = Sums(0, call.order.wanted.tokens * percent // 100, 1)
            process.outbox.settle(Settle(self.account, call.window, call.order.wanted, used))
            self.billed = Sums(*(a + b for a, b in zip(self.billed, used, strict=True)))

    @rule(number=PROCESSES)
    def stop_for_long(self, number: int) -> None:
        """The lease of a process expires, and it goes on later."""
        self.state.renew(self.processes[number].owner, -1)

    @rule(number=PROCESSES)
    def tidy(self, number: int) -> None:
        """Give back what is not needed, or all."""
        process = self.processes[number]
        process.outbox.tidy() if len(process.calls) % 2 else process.outbox.give_back_slices()

    @precondition(lambda self: not self.was_killed)
    @rule(number=PROCESSES)
    def kill(self, number: int) -> None:
        """A process ends by SIGKILL, and another takes its place; the provider bills what was sent."""
        process = self.processes[number]
        self.was_killed = True
        self.may_be_billed = in_flight([process])
        self.state.renew(process.owner, -1)
        self.processes[number] = Process()

    @invariant()
    def nothing_exceeds_the_limit(self) -> None:
        """Neither what the state counts, nor what the provider may bill."""
        now = self.standing()
        counted = [a + b for a, b in zip(now.spent, now.held, strict=True)]
        bill = [sum(each) for each in zip(self.billed, self.may_be_billed, in_flight(self.processes), strict=True)]
        assert all(count <= limit for count, limit in zip(counted, LIMIT, strict=True))
        assert all(amount <= count for amount, count in zip(bill, counted, strict=True))
        assert min(*now.spent, *now.held) >= 0

    def teardown(self) -> None:
        """In the end nothing is held, and what is spent is what was used."""
        for process in self.processes:
            self.end(self.processes.index(process), len(process.calls), 50)
            process.outbox.give_back_slices()
            while not process.outbox.is_empty:
                self.exchange(process)
                self.end(self.processes.index(process), len(process.calls), 50)
                process.outbox.give_back_slices()
        left = self.standing()
        assert left.held == Sums()
        assert left.spent >= self.billed if self.was_killed else left.spent == self.billed


def in_flight(processes: list[Process]) -> Sums:
    """What calls use at most that were granted and have not ended."""
    held = [call.order.wanted for process in processes for call in process.calls if call.window is not None]
    return Sums(0, sum(each.tokens for each in held), len(held))


def check(opened: SharedState, *, answers_get_lost: bool, examples: int) -> None:
    class Machine(SharedBudget):
        state = opened

    Machine.answers_get_lost = answers_get_lost
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )


@pytest.mark.slow
def test_no_order_of_events_overspends_a_budget_in_sqlite(tmp_path: Path) -> None:
    """A transaction that fails has granted nothing."""
    state = SqliteState(tmp_path / "limits.db", timeout_s=5)
    check(state, answers_get_lost=False, examples=60)
    state.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", get_args(Kind))
def test_no_order_of_events_overspends_a_budget_in_a_server(kind: Kind, tmp_path: Path) -> None:
    """An order whose answer was lost may have been carried out; it is sent again and counts once."""
    with running(kind, tmp_path) as server:
        state = RedisState(server.url, timeout_s=5)
        check(state, answers_get_lost=True, examples=30)
        state.close()


@pytest.mark.slow
def test_a_busy_process_asks_the_state_seldom_and_gives_back_what_it_does_not_need(tmp_path: Path) -> None:
    """Its reservations are granted at once, even while another process has the file; idle, it holds nothing."""
    path = tmp_path / "limits.db"
    client = state_at(f"sqlite:///{path}?timeout=30")
    assert client is not None
    account = Account("team-a", "", YEAR_S)

    asked: list[Future[Answer]] = []

    def ask(count: int) -> list[Future[Answer]]:
        order = [Reserve(account, (None, 10_000_000, None), Sums(0, 10, 1), is_call=True) for _ in range(count)]
        asked.extend(new := [client.ask(each) for each in order])
        return new

    def are_granted_at_once() -> bool:
        ask(50)
        wait_until(lambda: ask(1)[0].done())
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as other:
            other.execute("BEGIN IMMEDIATE")
            granted = all(each.done() for each in ask(20))
            other.execute("ROLLBACK")
        return granted

    reader = SqliteState(path, timeout_s=30)

    def held() -> int:
        return reader.apply("reader", [Settle(account, None, Sums(), Sums())], 60)[0].held.llm_calls

    wait_until(are_granted_at_once)
    assert all(each.result(30).denied_by is None for each in asked)
    wait_until(lambda: held() == len(asked))
    client.close()
    reader.close()


def test_a_process_that_stops_calling_soon_gives_back_its_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busy it was before: after a second, the others have what it had reserved ahead."""
    clock = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    state, outbox = SqliteState(tmp_path / "limits.db", timeout_s=5), Outbox("the state")
    account = Account("team-a", "", YEAR_S)

    def send() -> Sums:
        batch = outbox.next_batch()
        answers = state.apply("busy", batch.orders, 60)
        outbox.carried_out(batch, answers)
        nothing = Settle(account, None, Sums(), Sums())
        return state.apply("reader", [nothing], 60)[0].held

    held = Sums()
    for _ in range(3):
        for _ in range(200):
            outbox.ask(Reserve(account, (None, None, 100_000), Sums(0, 0, 1), is_call=True))
        held = send()
    assert held.llm_calls > 600  # what calls hold, and a slice
    clock[0] += 1
    outbox.tidy()
    assert send().llm_calls == 600
    state.close()
