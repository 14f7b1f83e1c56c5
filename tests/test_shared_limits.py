"""Limits of users, teams and windows, wherever a call begins: flows, blocks, SDKs, event loops, threads, forks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest
import trio

import tracemind_otel as tm
from tests.programs import run, run_program
from tests.servers.billing_server import MODEL, OUTPUT_USD, BillingServer, running_billing_server
from tests.support import Captured
from tracemind_otel.flows.shared.sqlite_state import SqliteState
from tracemind_otel.flows.shared.state_client import StateClient
from tracemind_otel.flows.shared.state_port import Account, Answer, Order, Reserve, Settle, Sums
from tracemind_otel.flows.shared.states import state_at, use_state
from tracemind_otel.wire.call_span import LLMCallSpans

YEAR_S = 365 * 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the state."""
    return tmp_path / "limits.db"


@pytest.fixture
def client(path: Path) -> Generator[StateClient]:
    """The state of this process: an empty file."""
    made = state_at(f"sqlite:///{path}", timeout_s=5)
    assert made is not None
    use_state(made)
    yield made
    use_state(None)


def sums_of(path: Path, name: str, key: str = "", window_s: int = YEAR_S) -> Answer:
    """How an account stands, read by an order that changes nothing."""
    state = SqliteState(path, timeout_s=5)
    try:
        return state.apply("reader", [Settle(Account(name, key, window_s), None, Sums(), Sums())], 60)[0]
    finally:
        state.close()


# --- Options of flows ---


def test_a_flow_has_an_account_for_each_user_and_window(client: StateClient, path: Path) -> None:
    """The key is computed from the arguments, like an id; its default argument counts too."""

    def team_and_user(user: str, team: str = "red") -> str:
        return f"{team}/{user}"

    @tm.flow(name="ask", key=team_and_user, per="365d", max_llm_calls=2)
    def ask(user: str, team: str = "red") -> str:
        return tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5).text

    for _ in range(2):
        ask("ada")
    with pytest.raises(tm.BudgetExceededError, match="'ask/red/ada' is spent: 2 of 2 calls"):
        ask("ada")
    ask("bob")
    ask("ada", team="blue")
    assert client.flush(5)
    used = [sums_of(path, "ask", key).spent.llm_calls for key in ("red/ada", "red/bob", "blue/ada")]
    assert used == [2, 1, 1]


async def test_every_kind_of_flow_is_limited(client: StateClient) -> None:
    """Coroutines, generators and blocks of one name and window share one sum."""

    @tm.flow(name="all", per="365d", max_llm_calls=3)
    async def in_coroutine() -> None:
        await tm.llm_call("fake/toy-1", "hi", max_tokens=5)

    @tm.flow(name="all", per="365d", max_llm_calls=3)
    async def in_generator() -> AsyncGenerator[int]:
        await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
        yield 1

    await in_coroutine()
    assert [item async for item in in_generator()] == [1]
    async with tm.flow("all", per="365d", max_llm_calls=3):
        await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
    with pytest.raises(tm.BudgetExceededError, match="'all' is spent"):
        await in_coroutine()
    with pytest.raises(tm.BudgetExceededError, match="'all' is spent"):
        async for _ in in_generator():
            pass


def of_nobody(user: str) -> None:
    """A key that is missing."""


def that_fails(user: str) -> str:
    raise LookupError(user)


def that_is_empty(user: str) -> str:
    return ""


def that_takes_nothing() -> str:
    return "all"


async def test_a_flow_inside_itself_counts_a_call_once(client: StateClient, path: Path) -> None:
    """All its blocks have one account; of different limits the lower one holds."""

    @tm.flow(name="deep", per="365d", max_llm_calls=5, max_tokens=10_000)
    async def ask(depth: int) -> None:
        if depth:
            await ask(depth - 1)
        else:
            await tm.llm_call("fake/toy-1", "hi", max_tokens=5)

    await ask(3)
    assert client.flush(5)
    assert sums_of(path, "deep").spent.llm_calls == 1
    with tm.budget(name="deep", per="365d", max_llm_calls=2):
        await ask(0)
        with pytest.raises(tm.BudgetExceededError, match="2 of 2 calls"):
            await ask(0)
    await ask(0)


@pytest.mark.parametrize("key", [of_nobody, that_fails, that_is_empty, that_takes_nothing])
def test_a_flow_without_a_key_does_not_begin(client: StateClient, key: Any) -> None:
    """A limit that cannot be held is no limit: the error names the field, and the function has not run."""
    began: list[str] = []
    ask = tm.flow(name="ask", key=key, per="1d", max_llm_calls=2)(began.append)
    with pytest.raises(tm.ConfigError, match="key of"):
        ask("ada")
    assert began == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per": "1d"}, "pass max_cost_usd, max_tokens or max_llm_calls"),
        ({"per": "1x", "max_llm_calls": 1}, "per is '1x'"),
        ({"key": 7, "max_llm_calls": 1}, "key of a shared budget is int"),
        ({"key": "ada\ud800", "max_llm_calls": 1}, "key of a shared budget has half of a surrogate pair"),
        ({"key": "k" * 257, "max_llm_calls": 1}, "key of a shared budget is a string of 257"),
        ({"on_state_away": "allow", "max_llm_calls": 1}, "on_state_away='allow' is for a shared budget"),
        ({"per": "1d", "on_state_away": "ask", "max_llm_calls": 1}, "on_state_away is 'ask'"),
        ({"reserve_cost_usd": 0.1, "max_llm_calls": 1}, "reserve_cost_usd .* pass max_cost_usd"),
        ({"reserve_tokens": 10, "max_tokens": 5}, "reserve_tokens is 10, more than max_tokens=5"),
        ({"reserve_tokens": -1, "max_tokens": 5}, "reserve_tokens is -1"),
    ],
)
def test_options_that_are_wrong_are_rejected(options: dict[str, Any], message: str) -> None:
    """By a flow and by a block alike, when it is made; the message names the option and the remedy."""
    with pytest.raises(tm.ConfigError, match=message):
        tm.flow("ask", **options)
    if "max_llm_calls" in options or "max_tokens" in options:
        with pytest.raises(tm.ConfigError, match=message):
            tm.budget(name="ask", **options)


def test_a_shared_flow_needs_a_state() -> None:
    """It would hold in this process only, which is not what was asked for."""
    with pytest.raises(tm.ConfigError, match=r"configure\(state="), tm.flow("ask", per="1d", max_llm_calls=1):
        pass


@pytest.mark.parametrize("max_tokens", [2**63, 10**30])
def test_a_call_of_any_size_can_be_counted(client: StateClient, path: Path, max_tokens: int) -> None:
    """An amount that no state can add must not make the state look away to all other calls of the process."""
    with tm.budget(name="ask", key="ada", max_llm_calls=5):
        for tokens in (max_tokens, 100):
            tm.llm_call_sync("fake/toy-1", "Hello", max_tokens=tokens)
    assert client.flush(5)
    assert sums_of(path, "ask", "ada", 0).spent.llm_calls == 2
    assert not client.is_away


# --- Rate limits ---


def again(ask: Callable[[], None]) -> None:
    """Call until a call is denied."""
    for _ in range(100):
        ask()


def test_a_denial_says_when_the_window_ends(client: StateClient) -> None:
    """Who waits for so long may call again; the message says it too, and a copy in another process has it."""

    def ask() -> None:
        with tm.budget(name="rate", per="1s", max_llm_calls=2):
            tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)

    with pytest.raises(tm.BudgetExceededError, match=r"or wait 1 s until the window ends") as caught:
        again(ask)
    wait_s = caught.value.retry_after_s
    assert wait_s is not None
    assert 0 < wait_s <= 1
    assert pickle.loads(pickle.dumps(caught.value)).retry_after_s == wait_s
    time.sleep(wait_s)
    ask()


async def test_the_result_of_a_denied_call_says_it_too(client: StateClient) -> None:
    """Whoever reads results instead of errors can wait as well."""
    cfg = tm.LLMCallConfig("fake", "toy-1", "hi", max_tokens=5)
    with tm.budget(name="rate", per="1h", max_llm_calls=0):
        result = await tm.run_llm_call("flow", "step", cfg, tm.Recorder())
    assert result["budget"]["name"] == "rate"
    assert "retry_after_s" not in result["budget"]  # no window has room for a call
    with tm.budget(name="rate", per="1h", max_llm_calls=1):
        await tm.run_llm_call("flow", "step", cfg, tm.Recorder())
        result = await tm.run_llm_call("flow", "step", cfg, tm.Recorder())
    assert 0 < result["budget"]["retry_after_s"] <= 3_600


@pytest.mark.parametrize("limits", [{"per": "1h", "max_tokens": 10}, {"key": "ada", "max_llm_calls": 0}])
def test_a_denial_that_no_wait_ends_says_so(client: StateClient, limits: dict[str, Any]) -> None:
    """A call that never fits, and a limit without a window, have no end to wait for."""
    with pytest.raises(tm.BudgetExceededError) as caught, tm.budget(name="rate", **limits):
        tm.llm_call_sync("fake/toy-1", "hi", max_tokens=500)
    assert caught.value.retry_after_s is None
    assert "wait" not in str(caught.value)


PACED = """
import sys, time
import tracemind_otel as tm

tm.configure(file=sys.argv[2], state=sys.argv[1])

def ask():
    while True:
        try:
            with tm.budget(name="pace", per="1s", max_llm_calls=6):
                return tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)
        except tm.BudgetExceededError as error:
            time.sleep(error.retry_after_s)

for _ in range(6):
    ask()
"""


@pytest.mark.slow
def test_a_rate_limit_holds_for_all_processes_together(path: Path, tmp_path: Path) -> None:
    """Three processes that wait as they are told make all their calls, and in no second more than the limit allows."""
    began = int(time.time())
    with ThreadPoolExecutor(3) as pool:
        programs = [
            pool.submit(run_program, PACED, f"sqlite:///{path}", tmp_path / f"{number}.jsonl") for number in range(3)
        ]
    assert [program.result().returncode for program in programs] == [0, 0, 0], programs[0].result().stderr
    state = SqliteState(path, timeout_s=5)
    orders = [Settle(Account("pace", "", 1), second, Sums(), Sums()) for second in range(began, int(time.time()) + 1)]
    calls = [answer.spent.llm_calls for answer in state.apply("reader", orders, 60)]
    state.close()
    assert sum(calls) == 18
    assert max(calls) <= 6


def test_a_call_that_one_account_denies_holds_nothing_of_another(client: StateClient, path: Path) -> None:
    """The team's account is asked first or last: what it granted is free again when the user's account denies."""
    for outer, inner in (("team", "user"), ("user", "team")):
        limits = {"team": 100, "user": 0}
        with (
            tm.budget(name=outer, per="365d", max_llm_calls=limits[outer]),
            tm.budget(name=inner, per="365d", max_llm_calls=limits[inner]),
            pytest.raises(tm.BudgetExceededError, match="'user' is spent"),
        ):
            tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)
    assert client.flush(5)
    left = sums_of(path, "team")
    assert (left.spent, left.held) == (Sums(), Sums())


# --- What is reserved ---


async def test_calls_without_max_tokens_reserve_what_was_declared() -> None:
    """Of many concurrent calls only as many are sent as fit, in a budget of one process too."""
    tm.set_prices([{"provider": "fake", "model": "toy-1", "input": 0, "output": 1_000}])
    with tm.budget(max_cost_usd=0.5, reserve_cost_usd=0.1) as spending:
        calls = [tm.llm_call("fake/toy-1", "hi") for _ in range(50)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, tm.LLMResult) for end in ends) == 5
    assert 0 < spending.spent.cost_usd <= 0.5
    with tm.budget(max_tokens=1_000, reserve_tokens=400):
        calls = [tm.llm_call("fake/toy-1", "hi") for _ in range(50)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, tm.LLMResult) for end in ends) == 2


async def test_a_call_with_max_tokens_reserves_no_more_than_that() -> None:
    """The declared reserve is for calls whose output nobody limits."""
    with tm.budget(max_tokens=1_000, reserve_tokens=900):
        calls = [tm.llm_call("fake/toy-1", "hi", max_tokens=5) for _ in range(20)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, tm.LLMResult) for end in ends)


# --- Calls of any code ---


@contextmanager
def locked(path: Path) -> Generator[None]:
    """A block in which another process holds the file."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def spans() -> LLMCallSpans:
    return tm.llm_call_span(provider="fake", model="own")


async def by_block() -> None:
    async with spans() as span:
        span.set_usage(input_tokens=1, output_tokens=1)


async def by_coroutine() -> None:
    @spans()
    async def call() -> tm.LLMUsage:
        return tm.LLMUsage(1, 1, 2)

    await call()


async def by_generator() -> None:
    @spans()
    async def call() -> AsyncGenerator[dict[str, Any]]:
        yield {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}

    async for _ in call():
        pass


async def by_manager() -> None:
    @spans()
    @asynccontextmanager
    async def call() -> AsyncGenerator[None]:
        yield

    async with call():
        pass


MANNERS = [by_block, by_coroutine, by_generator, by_manager]


def on_trio(main: Callable[[], Any]) -> None:
    trio.run(main)


def on_asyncio(main: Callable[[], Any]) -> None:
    asyncio.run(main())


@pytest.mark.parametrize("on_loop", [on_asyncio, on_trio])
@pytest.mark.parametrize("manner", MANNERS)
def test_a_call_that_can_be_awaited_asks_the_state(
    client: StateClient, path: Path, manner: Callable[[], Any], on_loop: Callable[[Callable[[], Any]], None]
) -> None:
    """On asyncio and on trio, a call of any code is held and counted as one of ours."""

    async def main() -> None:
        for _ in range(2):
            with tm.budget(name="own", per="365d", max_llm_calls=2):
                await manner()
        with pytest.raises(tm.BudgetExceededError), tm.budget(name="own", per="365d", max_llm_calls=2):
            await manner()

    on_loop(main)
    assert client.flush(5)
    left = sums_of(path, "own")
    assert (left.spent.llm_calls, left.held) == (2, Sums())


@pytest.mark.parametrize("on_loop", [on_asyncio, on_trio])
@pytest.mark.parametrize("manner", [by_block, by_generator])
def test_a_state_that_hangs_does_not_block_the_loop(
    path: Path, manner: Callable[[], Any], on_loop: Callable[[Callable[[], Any]], None]
) -> None:
    """The call waits for its time-out and is denied; other tasks go on meanwhile."""
    client = state_at(f"sqlite:///{path}", timeout_s=1.0)
    assert client is not None
    use_state(client)
    turns: list[float] = []

    async def main() -> None:
        with tm.budget(name="own", per="365d", max_llm_calls=9):
            await manner()
        assert client.flush(5)
        with locked(path), tm.budget(name="own", per="365d", max_llm_calls=9):
            await beside(manner, turns)

    try:
        on_loop(main)
    finally:
        use_state(None)
    assert len(turns) > 3


async def beside(manner: Callable[[], Any], turns: list[float]) -> None:
    """Run a call that is denied, beside a task that counts its turns."""

    async def is_denied() -> None:
        with pytest.raises(tm.BudgetExceededError, match="cannot be asked"):
            await manner()

    if on_a_trio_task():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns, turns, trio.sleep)
            await is_denied()
            nursery.cancel_scope.cancel()
    else:
        counting = asyncio.create_task(count_turns(turns, asyncio.sleep))
        await is_denied()
        counting.cancel()


def on_a_trio_task() -> bool:
    return trio.lowlevel.in_trio_task()


async def count_turns(turns: list[float], sleep: Callable[[float], Any]) -> None:
    while True:
        turns.append(time.monotonic())
        await sleep(0.01)


@pytest.mark.parametrize("on_loop", [on_asyncio, on_trio])
def test_a_call_that_is_not_awaited_never_blocks_the_loop(
    client: StateClient, path: Path, on_loop: Callable[[Callable[[], Any]], None]
) -> None:
    """A plain `with` on an event loop takes the state as away: the message says what to write instead."""

    async def main() -> None:
        is_denied = pytest.raises(tm.BudgetExceededError, match="use `async with`")
        with is_denied, tm.budget(name="own", per="365d", max_llm_calls=2), spans():
            pass
        with tm.budget(name="own", per="365d", max_llm_calls=2, on_state_away="allow"), spans():
            pass

    on_loop(main)
    assert client.flush(5)
    left = sums_of(path, "own")
    assert (left.spent.llm_calls, left.held) == (1, Sums())


def test_a_call_in_a_thread_waits_for_the_state(client: StateClient, path: Path) -> None:
    """Where no event loop runs, a plain `with` and a plain function ask and wait."""

    def call(_: int) -> bool:
        try:
            with tm.budget(name="own", per="365d", max_llm_calls=20), spans():
                return True
        except tm.BudgetExceededError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(call, range(40))) == 20
    assert client.flush(5)
    assert sums_of(path, "own").spent.llm_calls == 20


async def test_a_cancelled_call_takes_back_what_it_asked_for(path: Path) -> None:
    """A call that is cancelled while it waits for the state leaves nothing held, and its span ends."""
    client = state_at(f"sqlite:///{path}", timeout_s=20)
    assert client is not None
    use_state(client)
    try:
        with tm.budget(name="own", per="365d", max_llm_calls=9):
            await by_block()
            assert client.flush(5)
            with locked(path):
                waiting = asyncio.create_task(by_block())
                await asyncio.sleep(0.05)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
        assert client.flush(10)
    finally:
        use_state(None)
    left = sums_of(path, "own")
    assert (left.spent.llm_calls, left.held) == (1, Sums())


class SoftTimeLimit(BaseException):
    """What a signal handler raises, as the workers of a task queue do."""


class InterruptingState(SqliteState):
    """Sends the process a signal while a call waits for an answer of the account `around`."""

    may_answer = threading.Event()

    def apply(self, owner: str, orders: Sequence[Order], lease_s: float) -> list[Answer]:
        if any(isinstance(order, Reserve) and order.account.name == "around" for order in orders):
            self.may_answer.wait(0.1)  # until the call waits
            os.kill(os.getpid(), signal.SIGUSR1)
            self.may_answer.wait(20)
        return super().apply(owner, orders, lease_s)


@pytest.fixture
def interrupted() -> Generator[None]:
    """Makes SIGUSR1 raise `SoftTimeLimit`."""

    def interrupt(signum: int, frame: object) -> None:
        raise SoftTimeLimit

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_call_takes_back_what_it_asked_for(path: Path, interrupted: None) -> None:
    """It holds nothing of any account, even while the code handles the exception."""
    client = StateClient(lambda: InterruptingState(path, timeout_s=5), str(path), timeout_s=20)
    use_state(client)
    try:
        around, own = (tm.budget(name=name, per="365d", max_llm_calls=9) for name in ("around", "own"))
        with around, own, pytest.raises(SoftTimeLimit) as error, spans():
            pass
        InterruptingState.may_answer.set()
        assert client.flush(10)
        assert [sums_of(path, name).held for name in ("around", "own")] == [Sums(), Sums()], error
    finally:
        use_state(None)


def test_a_call_that_ends_after_its_state_was_closed_is_said(
    client: StateClient, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its spending cannot be delivered any more, as at the end of a process: what it reserved counts as spent."""
    with tm.budget(name="own", per="365d", max_llm_calls=9), spans():
        use_state(None)
    assert "did not take the spending of 1 call before the end" in caplog.text
    assert sums_of(path, "own").held.llm_calls == 1


def test_one_process_has_one_sum_on_every_event_loop(client: StateClient, path: Path) -> None:
    """Loops in threads, and one after the other, share the state's thread."""

    async def main() -> int:
        async def call() -> bool:
            try:
                with tm.budget(name="loops", per="365d", max_llm_calls=30):
                    await tm.llm_call("fake/toy-1", "hi", max_tokens=5)
            except tm.BudgetExceededError:
                return False
            return True

        return sum(await asyncio.gather(*(call() for _ in range(20))))

    def on_its_own_loop(_: int) -> int:
        return asyncio.run(main())

    with ThreadPoolExecutor(3) as pool:
        sent = sum(pool.map(on_its_own_loop, range(3)))
    assert sent == 30
    assert client.flush(5)
    assert sums_of(path, "loops").spent.llm_calls == 30


# --- SDKs ---


DENIED = (openai.APIConnectionError, tm.BudgetExceededError)
"""What an SDK raises of an error from its HTTP client: one of its own, or that very error."""


@pytest.fixture
def server() -> Generator[BillingServer]:
    with running_billing_server() as running:
        yield running


@pytest.fixture
def seen(server: BillingServer) -> Generator[None]:
    tm.instrument(hosts={f"127.0.0.1:{server.port}": "openai"})
    yield
    tm.uninstrument()


@pytest.fixture(params=["here", "shared"])
def limits(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The arguments of a budget of this process, and of one that is shared."""
    if request.param == "here":
        return {}
    request.getfixturevalue("client")
    return {"per": "365d"}


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_repeat_that_is_denied_is_counted_once(
    server: BillingServer, seen: None, limits: dict[str, Any], path: Path, is_async: bool, capture: Captured
) -> None:
    """The first attempt may be billed: it counts as what was held, though there is no room for another one."""
    one_usd = 300 * OUTPUT_USD  # what the output of one attempt may cost, without its few input tokens
    ask: dict[str, Any] = {"model": MODEL, "max_tokens": 300, "messages": [{"role": "user", "content": "reset"}]}
    options: dict[str, Any] = {"base_url": server.base_url(300), "api_key": "sk-none", "max_retries": 2}
    with tm.budget(name="once", max_cost_usd=1.5 * one_usd, **limits) as spending:
        if is_async:
            async with openai.AsyncOpenAI(**options) as sdk:
                with pytest.raises(DENIED):
                    await sdk.chat.completions.create(**ask)
        else:
            with openai.OpenAI(**options) as blocking, pytest.raises(DENIED):
                blocking.chat.completions.create(**ask)
    assert one_usd <= spending.spent.cost_usd <= 1.1 * one_usd
    assert spending.spent.llm_calls == 1
    assert server.billed_usd() <= spending.spent.cost_usd
    if limits:
        use_state(None)  # delivers what was spent
        left = sums_of(path, "once")
        assert left.spent.nano_usd == pytest.approx(spending.spent.cost_usd * 1e9, abs=1)
        assert (left.spent.llm_calls, left.held) == (1, Sums())


def body(script: str, **options: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": script}], **options}


async def by_httpx(url: str, script: str) -> None:
    async with httpx.AsyncClient() as http:
        await http.post(url, json=body(script))


async def by_bound_send(url: str, script: str) -> None:
    """Past the hook of `send`, so that only the transport sees the call."""
    tm.uninstrument()
    async with httpx.AsyncClient() as http:
        send = http.send
        tm.instrument(hosts={httpx.URL(url).netloc.decode(): "openai"})
        await send(http.build_request("POST", url, json=body(script)))


async def by_aiohttp(url: str, script: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(url, json=body(script)) as reply:
        await reply.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "on_loop"),
    [(by_httpx, on_asyncio), (by_httpx, on_trio), (by_bound_send, on_asyncio), (by_aiohttp, on_asyncio)],
)
def test_a_request_of_any_client_asks_the_state(
    client: StateClient, path: Path, server: BillingServer, seen: None, send: Any, on_loop: Any
) -> None:
    """It is held before it is sent, awaited on asyncio and on trio, and counted as what it used."""
    url = f"{server.base_url(20)}/chat/completions"

    async def main() -> None:
        for _ in range(2):
            with tm.budget(name="http", per="365d", max_llm_calls=2):
                await send(url, "answer")
        with pytest.raises(tm.BudgetExceededError), tm.budget(name="http", per="365d", max_llm_calls=2):
            await send(url, "answer")

    on_loop(main)
    assert client.flush(5)
    left = sums_of(path, "http")
    assert (left.spent.llm_calls, left.held) == (2, Sums())
    assert left.spent.nano_usd == pytest.approx(server.billed_usd() * 1e9, abs=2)


class Repeats(httpx.AsyncHTTPTransport):
    """A transport that repeats what failed, as those of other libraries do."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for _ in range(4):
            with contextlib.suppress(httpx.TransportError):
                return await super().handle_async_request(request)
        raise httpx.ConnectError("gave up")


@pytest.mark.slow
async def test_what_a_transport_repeats_is_asked_for_without_blocking(
    client: StateClient, path: Path, server: BillingServer, seen: None
) -> None:
    """Each lost request counts as what was held, and the last one as what it used."""
    with tm.budget(name="http", per="365d", max_tokens=10_000) as spending:
        async with httpx.AsyncClient(transport=Repeats()) as http:
            await http.post(f"{server.base_url(20)}/chat/completions", json=body("reset reset answer"))
    assert client.flush(5)
    left = sums_of(path, "http")
    assert (left.spent.llm_calls, left.held) == (1, Sums())
    assert left.spent.tokens == spending.spent.tokens >= 3 * 20


# --- Prices that nobody knows ---


class Tells(tm.AsyncLLMClient):
    """A client whose replies tell their cost, unless they are lost."""

    provider_name = "acme"

    def __init__(self, *, reports_cost: bool = True) -> None:
        self.reports_cost = reports_cost

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        if req.conversation[-1].text == "lose":
            raise tm.LLMTimeoutError("no answer in time")
        return tm.LLMResponse("hi", tm.LLMUsage(1, 1, 2, 0.01))


async def tell(prompt: str, *, reports_cost: bool = True) -> dict[str, Any]:
    cfg = tm.LLMCallConfig("acme", "nobody-knows", prompt, max_tokens=5, max_retries=0)
    asked = Tells(reports_cost=reports_cost)
    return await tm.run_llm_call("flow", "step", cfg, tm.Recorder(), client=asked)


async def test_a_cost_that_only_the_reply_tells_is_reserved_before(client: StateClient, path: Path) -> None:
    """Nothing unknown comes into a shared sum: without a declared reserve the call is denied, with one it is held."""
    with tm.budget(name="told", per="365d", max_cost_usd=1.0):
        denied = await tell("hi")
    assert "is unknown; this call was not sent" in denied["reason"]
    assert "pass reserve_cost_usd" in denied["reason"]
    with tm.budget(name="told", per="365d", max_cost_usd=1.0, reserve_cost_usd=0.4):
        assert (await tell("hi"))["status"] == "ok"
        assert (await tell("lose"))["error_type"] == "timeout"
    assert client.flush(5)
    left = sums_of(path, "told")
    assert (left.spent.nano_usd, left.spent.llm_calls, left.held) == (410_000_000, 2, Sums())


async def test_a_lost_reply_does_not_blind_a_budget_with_a_reserve() -> None:
    """In one process too: the lost call counts as the reserve, and the next one is sent."""
    with tm.budget(max_cost_usd=1.0, reserve_cost_usd=0.4) as spending:
        assert (await tell("lose"))["error_type"] == "timeout"
        assert (await tell("hi"))["status"] == "ok"
    assert spending.spent.cost_usd == pytest.approx(0.41)
    assert spending.spent.unpriced_attempts == 0


@pytest.mark.parametrize("options", [{}, {"reserve_cost_usd": 0.4}])
async def test_a_price_that_nobody_will_tell_is_denied(options: dict[str, Any]) -> None:
    """A declared reserve is no price."""
    with tm.budget(max_cost_usd=1.0, **options):
        denied = await tell("hi", reports_cost=False)
    assert "the price of acme/nobody-knows is unknown; this call was not sent" in denied["reason"]


# --- Processes ---

IN_A_POOL = """
import multiprocessing, sys
import tracemind_otel as tm

def call(number):
    try:
        with tm.budget(name="pool", per="365d", max_llm_calls=10):
            tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)
    except tm.BudgetExceededError:
        return 0
    return 1

if __name__ == "__main__":
    method, state, spans = sys.argv[1:]
    tm.configure(file=spans, state=state)
    sent = call(0)  # the state is connected before the fork, as gunicorn's preload does
    children = [multiprocessing.get_context(method).Process(target=call, args=(i,)) for i in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
"""


@pytest.mark.slow
def test_workers_that_are_forked_after_the_first_call_share_the_sum(path: Path, tmp_path: Path) -> None:
    """As with gunicorn's preload: what each spent is delivered before it ends, though its end skips `atexit`."""
    program = tmp_path / "pool.py"
    program.write_text(IN_A_POOL)
    done = run(program, "fork", f"sqlite:///{path}", tmp_path / "spans.jsonl", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    left = sums_of(path, "pool")
    assert (left.spent.llm_calls, left.held) == (5, Sums())


AT_AN_END = """
import sqlite3, sys
import tracemind_otel as tm

tm.configure(file=sys.argv[2], state=f"sqlite:///{sys.argv[1]}")
with tm.budget(name="end", per="365d", max_llm_calls=10):
    with tm.llm_call_span(provider="fake", model="own"):
        locked = sqlite3.connect(sys.argv[1], isolation_level=None)
        locked.execute("BEGIN IMMEDIATE")
"""


@pytest.mark.slow
def test_what_could_not_be_delivered_is_said_at_the_end(path: Path, tmp_path: Path) -> None:
    """The process ends in time, and its log says how many calls the state did not take; they count as reserved."""
    done = run_program(AT_AN_END, path, tmp_path / "spans.jsonl")
    assert done.returncode == 0
    assert "did not take the spending of 1 call before the end" in done.stderr
    assert sums_of(path, "end").held.llm_calls == 1
