"""A budget that many processes share holds in all of them, whatever becomes of a process or of the state."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import openai
import pytest
import redis

import tracemind_otel as tm
from tests.programs import REPOSITORY, clean_environment, run_program
from tests.servers.billing_server import running_billing_server
from tests.servers.state_servers import PASSWORD, running, wait_until
from tests.shared_spender import LIMIT_USD, MAX_TOKENS, NAME
from tracemind_otel.flows.budget import OnStateAway
from tracemind_otel.flows.shared.redis_state import RedisState
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_client import StateClient
from tracemind_otel.flows.shared.state_port import (
    NANO,
    Account,
    Answer,
    Reserve,
    Settle,
    SharedState,
    StateAwayError,
    Sums,
)
from tracemind_otel.flows.shared.states import state_at, use_state

YEAR = Account(NAME, "", 365 * 86_400)
HANGING_TIMEOUT_S = 2.0
"""Much longer than anything takes that does not wait for the state."""


def standing(state: SharedState, account: Account = YEAR) -> Answer:
    """How an account stands, read by an order that changes nothing."""
    return state.apply("reader", [Settle(account, None, Sums(), Sums())], 60)[0]


def spender(state: str, base_url: str, script: str, limit: str, *, lease_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.shared_spender", state, base_url, script, "100", str(lease_s), limit],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def eight_processes_four_killed(url: str, read: SharedState, limit: str) -> None:
    """Spend one budget by 8 processes of 100 calls at once, and kill four of them while all their calls are sent."""
    lease_s = 2.0
    with running_billing_server() as server:
        base_url = server.base_url(MAX_TOKENS)
        killed = [spender(url, base_url, "hang", limit, lease_s=lease_s) for _ in range(4)]
        server.wait_for_requests(400)
        survivors = [spender(url, base_url, "answer", limit, lease_s=lease_s) for _ in range(4)]
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
    ended = 400 + sum(end["answered"] + end["failed"] for end in ends)
    assert 0 <= left.spent.llm_calls - ended <= 4 * left.spent.llm_calls / 64  # what the killed had reserved ahead
    assert billed <= spent <= LIMIT_USD
    assert spent > 0.95 * LIMIT_USD


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["max_tokens", "reserve"])
def test_eight_processes_never_overspend_a_budget_in_sqlite(tmp_path: Path, limit: str) -> None:
    """The provider's bill stays below the limit, and the calls of the four that are killed count as spent.

    So it does where no call sets `max_tokens` and each reserves what the budget declares.
    """
    path = tmp_path / "limits.db"
    eight_processes_four_killed(f"sqlite:///{path}", SqliteState(path, timeout_s=5), limit)


@pytest.fixture
def redis_server(tmp_path: Path) -> Generator[str]:
    """The URL of a Redis server with a password, which ends with the test."""
    with running("redis", tmp_path) as server:
        yield server.url


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["max_tokens", "reserve"])
def test_eight_processes_never_overspend_a_budget_in_redis(redis_server: str, limit: str) -> None:
    """The same as in SQLite."""
    eight_processes_four_killed(redis_server, RedisState(redis_server, timeout_s=5), limit)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty state of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'limits.db'}"
    server: str = request.getfixturevalue("redis_server")
    return server


@pytest.fixture
def state(url: str) -> Generator[SharedState]:
    opened = RedisState(url, timeout_s=5) if url.startswith("redis") else SqliteState(url[10:], timeout_s=5)
    yield opened
    opened.close()


@pytest.fixture
def no_state_left() -> Generator[None]:
    yield
    use_state(None)


@pytest.fixture
def client(url: str, no_state_left: None) -> StateClient:
    """The state of this process."""
    made = state_at(url, timeout_s=5)
    assert made is not None
    use_state(made)
    return made


def reserve(wanted: Sums, *, limit_tokens: int = 100, account: Account = YEAR) -> Reserve:
    return Reserve(account, (None, limit_tokens, None), wanted, is_call=True)


@pytest.mark.slow
def test_what_is_held_counts_until_it_is_settled(state: SharedState) -> None:
    """A second owner is denied what the first one holds, and gets what it did not use."""
    first, second = (state.apply(owner, [reserve(Sums(0, 60, 1))], 60)[0] for owner in ("a", "b"))
    assert (first.denied_by, second.denied_by) == (None, 1)
    assert second.held == Sums(0, 60, 1)
    settled = state.apply("a", [Settle(YEAR, first.window, Sums(0, 60, 1), Sums(0, 30, 1))], 60)[0]
    assert (settled.spent, settled.held) == (Sums(0, 30, 1), Sums())
    assert state.apply("b", [reserve(Sums(0, 60, 1))], 60)[0].denied_by is None


@pytest.mark.slow
def test_a_lease_that_expired_counts_as_spent_and_is_corrected_by_a_late_settlement(state: SharedState) -> None:
    """A process that was only stopped does not count its call twice."""
    granted = state.apply("a", [reserve(Sums(0, 60, 1))], 0.05)[0]
    time.sleep(0.1)
    assert standing(state).spent == Sums(0, 60, 1)
    state.apply("a", [Settle(YEAR, granted.window, Sums(0, 60, 1), Sums(0, 10, 1))], 60)
    left = standing(state)
    assert (left.spent, left.held) == (Sums(0, 10, 1), Sums())


@pytest.mark.slow
def test_a_lease_that_is_renewed_does_not_expire(state: SharedState) -> None:
    """A call may last longer than a lease."""
    state.apply("a", [reserve(Sums(0, 60, 1))], 0.5)
    state.renew("a", 60)
    time.sleep(0.6)
    assert standing(state).held == Sums(0, 60, 1)


@pytest.mark.slow
def test_each_key_and_each_window_has_a_sum_of_its_own(state: SharedState) -> None:
    """Another user, another length and the next window begin at zero."""
    second = Account("each user", "ada", 1)
    assert state.apply("a", [reserve(Sums(0, 100, 1), account=second)], 60)[0].denied_by is None
    for other in (Account("each user", "bob", 1), Account("each user", "ada", 60), Account("each", "ada", 1)):
        assert state.apply("a", [reserve(Sums(0, 100, 1), account=other)], 60)[0].denied_by is None
    time.sleep(1.01)
    assert state.apply("a", [reserve(Sums(0, 100, 1), account=second)], 60)[0].denied_by is None


@pytest.mark.slow
def test_what_was_held_in_a_window_is_settled_in_it(state: SharedState) -> None:
    """A call that ends in the next window takes no room of that one, and each answer says when its window ends."""
    second = Account("each user", "ada", 1)
    granted = state.apply("a", [reserve(Sums(0, 60, 1), account=second)], 60)[0]
    assert granted.ends_in_s is not None
    assert 0 < granted.ends_in_s <= 1
    time.sleep(granted.ends_in_s + 0.01)
    settle = Settle(second, granted.window, Sums(0, 60, 1), Sums(0, 50, 1))
    before, now = state.apply("a", [settle, Settle(second, None, Sums(), Sums())], 60)
    assert (before.spent, before.held, before.ends_in_s) == (Sums(0, 50, 1), Sums(), 0)
    assert now.window > granted.window
    assert (now.spent, now.held) == (Sums(), Sums())
    assert state.apply("a", [Settle(Account("a", "b", 0), None, Sums(), Sums())], 60)[0].ends_in_s is None


@pytest.mark.slow
def test_hosts_whose_clocks_differ_share_a_window_in_redis(redis_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the server's: a host that is a day ahead has the same window and the same end of it."""
    hour = Account(NAME, "", 3_600)
    state = RedisState(redis_server, timeout_s=5)
    state.apply("a", [reserve(Sums(0, 60, 1), account=hour)], 60)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 86_400)
    ahead = state.apply("b", [reserve(Sums(0, 60, 1), account=hour)], 60)[0]
    state.close()
    assert (ahead.denied_by, ahead.held) == (1, Sums(0, 60, 1))
    assert ahead.window == now // 3_600
    assert ahead.ends_in_s == pytest.approx(3_600 - now % 3_600, abs=5)


@pytest.mark.slow
def test_a_day_begins_at_midnight_utc_everywhere(state: SharedState, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's time zone, and its change to summer time, move no window."""
    day = Account(NAME, "", 86_400)
    windows: list[int] = []
    try:
        for zone in ("UTC", "Europe/Berlin", "Pacific/Kiritimati"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            windows += [standing(state, day).window]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert set(windows) <= {int(time.time() // 86_400), int(time.time() // 86_400) - 1}
    assert len(set(windows)) == 1


@pytest.mark.slow
def test_an_order_that_is_sent_again_counts_once(redis_server: str) -> None:
    """After a lost answer nobody knows whether the server carried the order out."""
    state = RedisState(redis_server, timeout_s=5)
    asked = reserve(Sums(0, 60, 1))
    granted = state.apply("a", [asked], 60)[0]
    settle = Settle(YEAR, granted.window, Sums(0, 60, 1), Sums(0, 40, 1))
    assert state.apply("a", [settle, settle], 60)[1].spent == Sums(0, 40, 1)
    doubted, never_sent = reserve(Sums(0, 20, 1)), reserve(Sums(0, 20, 1))
    state.apply("a", [doubted, reserve(Sums(0, 10, 1))], 60)
    state.apply("a", [Settle(YEAR, None, each.wanted, Sums(), each.number) for each in (doubted, never_sent)], 60)
    assert standing(state).held == Sums(0, 10, 1)
    state.close()


@pytest.mark.slow
async def test_a_call_in_a_shared_budget_is_denied_by_what_another_spent(client: StateClient) -> None:
    """Two blocks with the same name, key and window share one sum; the message names them."""
    for _ in range(2):
        with tm.budget(name="each user", key="ada", per="365d", max_llm_calls=2):
            await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
    is_denied = pytest.raises(tm.BudgetExceededError, match="'each user/ada' is spent: 2 of 2 calls spent")
    with tm.budget(name="each user", key="ada", per="365d", max_llm_calls=2), is_denied:
        await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
    with tm.budget(name="each user", key="bob", per="365d", max_llm_calls=2):
        await tm.llm_call("fake/toy-1", "hi", max_tokens=5)


@pytest.mark.slow
async def test_a_state_that_hangs_delays_no_call_beyond_its_time_out(
    tmp_path: Path, no_state_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The policy decides, the loop goes on, the log has one line, and what was sent meanwhile is counted later."""
    path = tmp_path / "limits.db"
    client = state_at(f"sqlite:///{path}", timeout_s=HANGING_TIMEOUT_S)
    assert client is not None
    use_state(client)
    limits: dict[str, Any] = {"name": "team-a", "per": "365d", "max_llm_calls": 1_000}
    with tm.budget(**limits):
        await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
    assert client.flush(5)
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    longest = asyncio.create_task(longest_block_s())
    began = time.monotonic()
    with tm.budget(**limits, on_state_away="deny"):
        ends = await asyncio.gather(
            *(tm.llm_call("fake/toy-1", "hi", max_tokens=5) for _ in range(50)), return_exceptions=True
        )
    denied = time.monotonic()
    with tm.budget(**limits, on_state_away="allow"):
        await asyncio.gather(*(tm.llm_call("fake/toy-1", "hi", max_tokens=5) for _ in range(50)))
    sent = time.monotonic()
    assert not longest.done()
    longest.cancel()
    assert all(isinstance(end, tm.BudgetExceededError) and "on_state_away='allow'" in str(end) for end in ends)
    assert denied - began < 2 * HANGING_TIMEOUT_S  # one time-out for all that waited
    assert sent - denied < HANGING_TIMEOUT_S  # later calls do not wait
    await asyncio.to_thread(wait_until, lambda: len([row for row in caplog.messages if "is away" in row]) == 1)
    locked.execute("ROLLBACK")
    locked.close()
    assert client.flush(10)
    assert standing(SqliteState(path, timeout_s=5), Account("team-a", "", 365 * 86_400)).spent.llm_calls == 51
    assert len([row for row in caplog.messages if "is back" in row]) == 1


@pytest.mark.slow
async def test_a_server_that_hangs_delays_no_call_beyond_its_time_out(redis_server: str, no_state_left: None) -> None:
    """What was sent meanwhile is counted when the server answers again, and nothing of a denied call stays held."""
    client = state_at(redis_server, timeout_s=1.0)
    assert client is not None
    use_state(client)
    limits: dict[str, Any] = {"name": "team-a", "per": "365d", "max_llm_calls": 1_000}
    with tm.budget(**limits):
        await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
    assert client.flush(5)
    cast("Any", redis.Redis).from_url(redis_server).client_pause(4_000)
    began = time.monotonic()
    policies: tuple[tuple[OnStateAway, bool], ...] = (("deny", False), ("allow", True))
    for policy, is_sent in policies:
        with tm.budget(**limits, on_state_away=policy):
            ends = await asyncio.gather(
                *(tm.llm_call("fake/toy-1", "hi", max_tokens=5) for _ in range(50)), return_exceptions=True
            )
        assert [isinstance(end, tm.LLMResult) for end in ends] == [is_sent] * 50
    assert time.monotonic() - began < 3
    assert client.flush(10)
    left = standing(RedisState(redis_server, timeout_s=5))
    assert left.spent.llm_calls == 51
    assert left.held == Sums()


async def longest_block_s() -> None:
    """Fail if the event loop is blocked for longer than the time-out."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - before < 0.9 * HANGING_TIMEOUT_S


@pytest.mark.slow
async def test_no_message_has_the_password(
    redis_server: str, no_state_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password is a state that is away; no message repeats it or the right one."""
    wrong = redis_server.replace(PASSWORD, "wrong-secret")
    client = state_at(wrong, timeout_s=1)
    assert isinstance(client, StateClient)
    with pytest.raises(StateAwayError):
        client.ask(reserve(Sums(0, 1, 1))).result(5)
    client.close(timeout_s=0.1)
    assert "AuthenticationError" in caplog.text
    assert "wrong-secret" not in caplog.text
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        "limits.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:/limits.db",
        "sqlite://limits.db",
        "sqlite:////no/such/directory/x.db",
        "http://user:hidden@host",
        "redis://",
        "sqlite:///limits.db?timeout=soon",
        "sqlite:///limits.db?lease=0",
        "sqlite:///limits.db?timout=1",
        "redis://:hidden@host?timeout=90",
        "redis://:hidden@host?timout=1",
        "redis://:hidden@host?db=first",
        "redis://user:1/hidden@host/0",
        "redis://user:1#hidden@host/0",
        "redis://user:1?hidden@host/0",
        "redis://:hidden@host/first",
        "redis://:hidden@host:port/0",
        "",
    ],
)
def test_a_state_that_is_no_url_is_rejected(wrong: str) -> None:
    """The message says what to write, and does not repeat a password."""
    with pytest.raises(tm.ConfigError, match="state") as caught:
        tm.configure(state=wrong)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///limits.db", "redis://:secret@host:6379/0", "valkeys://u:secret@host"])
def test_the_url_sets_the_times(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In seconds, beside the parameters of the client; each has a default."""
    monkeypatch.chdir(tmp_path)
    plain, timed = state_at(url), state_at(f"{url}?timeout=1.5&lease=120")
    assert plain is not None
    assert timed is not None
    assert (plain.timeout_s, plain.lease_s) == (0.25, 60)
    assert (timed.timeout_s, timed.lease_s) == (1.5, 120)
    assert "secret" not in timed.where


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"per": "1d"}, "pass name="),
        ({"name": "a", "per": "1 day"}, "per is '1 day'"),
        ({"name": "a", "per": "0s"}, "per is '0s'"),
        ({"name": "a", "key": ""}, "key of a shared budget"),
        ({"name": "a", "per": "1d", "on_state_away": "wait"}, "on_state_away is 'wait'"),
    ],
)
def test_a_shared_budget_that_is_wrong_is_rejected(arguments: dict[str, Any], message: str) -> None:
    """The message names the argument."""
    with pytest.raises(tm.ConfigError, match=message):
        tm.budget(max_llm_calls=1, **arguments)


def test_a_shared_budget_without_a_state_is_rejected() -> None:
    """It would hold in this process only, which is not what was asked for."""
    with pytest.raises(tm.ConfigError, match=r"configure\(state="), tm.budget(name="a", per="1d", max_llm_calls=1):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [True, False])
async def test_calls_of_another_sdk_are_held_by_a_shared_budget(
    client: StateClient, state: SharedState, is_async: bool
) -> None:
    """OpenAI's clients are denied what another process could have spent, on an event loop as well."""
    tm.instrument()
    ask: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "max_tokens": 40,
        "messages": [{"role": "user", "content": "answer"}],
    }
    answered, denied = 0, 0
    try:
        with running_billing_server() as server:
            options: dict[str, Any] = {"base_url": server.base_url(40), "api_key": "sk-none", "max_retries": 0}
            for _ in range(6):
                with tm.budget(name="team-a", per="365d", max_tokens=200):
                    try:
                        if is_async:
                            async with openai.AsyncOpenAI(**options) as sdk:
                                await sdk.chat.completions.create(**ask)
                        else:
                            with openai.OpenAI(**options) as blocking:
                                blocking.chat.completions.create(**ask)
                        answered += 1
                    except (tm.BudgetExceededError, openai.APIConnectionError) as error:
                        cause = error if isinstance(error, tm.BudgetExceededError) else error.__cause__
                        assert isinstance(cause, tm.BudgetExceededError)
                        denied += 1
    finally:
        tm.uninstrument()
    assert client.flush(5)
    left = standing(state)
    assert (answered, denied) == (4, 2)
    assert left.spent.llm_calls == 4
    assert left.spent.tokens <= 200
    assert left.held == Sums()


FORKING = """
import os, sys, warnings
import tracemind_otel as tm
warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside a thread
tm.configure(file=sys.argv[2], state=sys.argv[1])

def call():
    with tm.budget(name="team-a", per="365d", max_llm_calls=10):
        tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)

call()
child = os.fork()
call()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
def test_a_forked_process_and_its_parent_each_deliver_what_they_spent(
    url: str, state: SharedState, tmp_path: Path
) -> None:
    """Nothing is lost at exit, nothing counts twice, and nothing stays held."""
    done = run_program(FORKING, url, tmp_path / "spans.jsonl")
    assert done.returncode == 0, done.stderr
    left = standing(state)
    assert (left.spent.llm_calls, left.held) == (3, Sums())


@pytest.mark.slow
async def test_each_threshold_of_a_shared_budget_is_reported_once(
    client: StateClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once that the limit is spent, though every request has a block of its own."""
    for _ in range(4):
        with tm.budget(name="each user", key="ada", per="365d", max_llm_calls=4):
            await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
    assert client.flush(5)
    use_state(None)
    spent = [message for message in caplog.messages if "is spent" in message]
    assert spent == ["budget of 'each user/ada': the limit of 4 calls is spent"]
