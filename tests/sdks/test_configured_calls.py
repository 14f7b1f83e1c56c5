"""`tm.configure()` alone: calls of SDKs are seen, until the set-up is shut down."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

import tracemind_otel as tm
from tests.programs import run_program
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.support import Captured, attributes

PROMPT = "Hello there"


@pytest.fixture
def providers(capture: Captured) -> Generator[dict[str, Any]]:
    """The arguments by which spans and metrics go into memory; what a test leaves on is turned off."""
    yield {"tracer_provider": capture.tracer_provider, "meter_provider": capture.meter_provider}
    tm.uninstrument()


def ask(base: str) -> None:
    with OpenAI(api_key="sk-test", base_url=f"{base}/v1") as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": PROMPT}])


def test_configure_is_all_that_it_needs(
    capture: Captured, providers: dict[str, Any], provider_server: ProviderServer
) -> None:
    """A call of an SDK is one span with its price, and the flow around it has the cost."""
    base = provider_server.case("openai")
    with (
        tm.configure(**providers, hosts={f"127.0.0.1:{provider_server.port}": "openai"}),
        tm.flow("work") as run,
    ):
        ask(base)
    expected = pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)
    assert attributes(capture.span("chat gpt-4o"))["tracemind.cost_usd"] == expected
    assert run.llm_calls == 1
    assert run.cost_usd == expected


def test_the_hosts_of_the_environment(
    capture: Captured,
    providers: dict[str, Any],
    provider_server: ProviderServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`TRACEMIND_HOSTS` names the hosts where no argument does."""
    monkeypatch.setenv("TRACEMIND_HOSTS", f"127.0.0.1:{provider_server.port}=openai")
    with tm.configure(**providers):
        ask(provider_server.case("openai"))
    assert "tracemind.cost_usd" in attributes(capture.span("chat gpt-4o"))


async def test_our_own_calls_are_seen_once(
    capture: Captured, providers: dict[str, Any], provider_server: ProviderServer
) -> None:
    """A call through the front door is one span and one call, also over a client that the program made."""
    base = provider_server.case("openai")
    async with httpx.AsyncClient(trust_env=False) as http_client:
        client = tm.LLMClientFactory.make("openai", api_key="k", base_url=f"{base}/v1", http_client=http_client)
        with tm.configure(**providers), tm.flow("work") as run:
            await tm.llm_call("openai/gpt-4o", PROMPT, client=client)
    assert attributes(capture.span("chat gpt-4o"))["tracemind.step.type"] == "ai.llm_call"
    assert run.llm_calls == 1


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_it_can_be_turned_off(
    way: str,
    capture: Captured,
    providers: dict[str, Any],
    provider_server: ProviderServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the argument in code, or by the variable without; no library is touched then."""
    methods = httpx.Client.send, httpx.AsyncClient.send
    if way == "variable":
        monkeypatch.setenv("TRACEMIND_INSTRUMENT", "False")
    with tm.configure(**providers, instrument=way == "variable"):
        assert (httpx.Client.send, httpx.AsyncClient.send) == methods
        ask(provider_server.case("openai"))
    assert capture.spans == []


@pytest.mark.parametrize(
    ("options", "variables", "message"),
    [
        ({"instrument": "yes"}, {}, "instrument is str; it must be True or False"),
        ({"hosts": ["gateway"]}, {}, "hosts must be a mapping of host or host:port to a provider's name"),
        ({}, {"TRACEMIND_INSTRUMENT": "maybe"}, "TRACEMIND_INSTRUMENT is 'maybe'; it must be true or false"),
        ({}, {"TRACEMIND_HOSTS": "gateway"}, "TRACEMIND_HOSTS must be host=provider entries"),
    ],
)
def test_a_mistake_leaves_nothing_behind(
    options: dict[str, Any],
    variables: dict[str, str],
    message: str,
    providers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names the argument or the variable and the fix, and nothing is set up or patched."""
    methods = httpx.Client.send, httpx.AsyncClient.send
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(tm.ConfigError, match=message):
        tm.configure(**providers, **options)
    assert (httpx.Client.send, httpx.AsyncClient.send) == methods
    for name in variables:
        monkeypatch.delenv(name)
    with tm.configure(**providers, instrument=False) as telemetry:  # not the second handle of a first set-up
        assert telemetry.tracer_provider is providers["tracer_provider"]


def test_shutdown_undoes_it_and_another_configure_renews_it(
    capture: Captured, providers: dict[str, Any], provider_server: ProviderServer
) -> None:
    """After shutdown the libraries have their own methods and calls are not seen; then the new hosts hold."""
    methods = httpx.Client.send, httpx.AsyncClient.send
    tm.configure(**providers, hosts={f"127.0.0.1:{provider_server.port}": "openai"}).shutdown()
    assert (httpx.Client.send, httpx.AsyncClient.send) == methods
    ask(provider_server.case("openai"))
    assert capture.spans == []
    with tm.configure(**providers):
        ask(provider_server.case("openai"))
    assert "tracemind.cost_usd" not in attributes(capture.span("chat gpt-4o"))


def test_a_second_configure_says_what_it_ignores(providers: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Before a shutdown its hosts have no effect, and its end leaves the calls seen."""
    own = httpx.Client.send
    with tm.configure(**providers):
        with tm.configure(hosts={"gateway": "openai"}, instrument=False):
            pass
        assert httpx.Client.send is not own
    assert "configure() was called before: instrument, hosts of this call had no effect" in caplog.text


def test_what_the_program_turned_on_stays_on(
    capture: Captured, providers: dict[str, Any], provider_server: ProviderServer
) -> None:
    """Hosts given to `instrument()` hold in a later `configure()`, whose shutdown does not undo it."""
    tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": "openai"})
    with tm.configure(**providers):
        tm.instrument()
        ask(provider_server.case("openai"))
    assert "tracemind.cost_usd" in attributes(capture.span("chat gpt-4o"))
    with tm.flow("afterwards") as run:
        ask(provider_server.case("openai"))
    assert run.llm_calls == 1


FIRST_CALL = """
import asyncio, sys
from openai import AsyncOpenAI, OpenAI
import tracemind_otel as tm

kind, base, file = sys.argv[1:]
tm.configure(file=file, hosts={base.split("/")[2]: "openai"})
assert "genai_prices" not in sys.modules, "configure() loaded the prices"
async def ask():
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    if kind == "by other means":
        @tm.llm_call_span(provider="openai", model="gpt-4o")
        async def other():
            return tm.LLMUsage(100, 10, 110)
        await other()
        return
    if kind == "sync":
        with OpenAI(api_key="k", base_url=base) as client:
            client.chat.completions.create(**asked)
        return
    extra = {}
    if kind == "aiohttp":
        import httpx, httpx_aiohttp
        extra = {"http_client": httpx_aiohttp.HttpxAiohttpClient()}
    async with AsyncOpenAI(api_key="k", base_url=base, **extra) as client:
        if kind == "stream":
            stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
            async for _ in stream: pass
        else:
            await client.chat.completions.create(**asked)

async def main():
    limits = {"max_cost_usd": 1.0} if kind == "budget" else {}
    with tm.flow("work", **limits) as run:
        await ask()
        print(run.cost_usd)

asyncio.run(main())
assert "genai_prices" not in sys.modules, "the first call imported the library"
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["async", "stream", "sync", "budget", "aiohttp"])
def test_the_first_call_of_a_process_is_in_the_sums(kind: str, provider_server: ProviderServer, tmp_path: Path) -> None:
    """Neither `configure()` nor a call imports the library of prices; yet the flow knows the cost of its first call."""
    base = provider_server.case("openai")
    ran = run_program(FIRST_CALL, kind, f"{base}/v1", tmp_path / "spans.jsonl", environment={"NO_PROXY": "127.0.0.1"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert float(ran.stdout) == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)


@pytest.mark.slow
def test_the_first_call_by_other_means_is_in_the_sums(tmp_path: Path) -> None:
    """A coroutine in `llm_call_span` is priced as soon as it is over, too."""
    ran = run_program(FIRST_CALL, "by other means", "http://127.0.0.1:9/v1", tmp_path / "spans.jsonl")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert float(ran.stdout) == pytest.approx(100 * 2.5e-6 + 10 * 10e-6, rel=1e-9)


SLOW_PRICES = """
import asyncio, sys, threading
import httpx
from openai import AsyncOpenAI
import tracemind_otel as tm

is_loading, may_load = threading.Event(), threading.Event()

def slowly(event, arguments):
    if event == "open" and str(arguments[0]).endswith("genai_prices.jsonl"):
        is_loading.set()
        assert may_load.wait(20)

sys.addaudithook(slowly)
"""
"""Reads the prices when another thread lets it."""
CANCELLED_CALL = """
async def main():
    replies, has_come = [], asyncio.Event()
    async def came(reply):
        replies.append(reply)
        has_come.set()
    http_client = httpx.AsyncClient(event_hooks={"response": [came]}, trust_env=False)
    with tm.flow("work") as run:
        async with AsyncOpenAI(api_key="k", base_url=sys.argv[1], http_client=http_client) as client:
            asked = client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            task = asyncio.create_task(asked)
            await has_come.wait()
            await asyncio.to_thread(is_loading.wait, 30)
            await asyncio.sleep(0.05)
            assert not task.done()
            task.cancel()
            await asyncio.wait([task])
            print(task.cancelled(), replies[0].is_closed, run.llm_calls)
            may_load.set()

tm.configure(file=sys.argv[2])
asyncio.run(main())
"""


@pytest.mark.slow
def test_a_call_that_is_cancelled_while_the_prices_load(provider_server: ProviderServer, tmp_path: Path) -> None:
    """The reply that nobody gets is closed, and the call is counted as one that was cancelled."""
    base, file = provider_server.case("openai"), tmp_path / "spans.jsonl"
    ran = run_program(SLOW_PRICES + CANCELLED_CALL, f"{base}/v1", file)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True True 1\n", "")
    assert "tracemind.cancelled" in file.read_text()


LOOP_DURING_THE_FIRST_CALL = """
import trio

kind, base, file = sys.argv[1:]
tm.configure(file=file, hosts={base.split("/")[2]: "openai"})
sleep = trio.sleep if kind == "trio" else asyncio.sleep

replies = []
async def came(reply):
    replies.append(reply)

async def let_it_load():
    while not replies or not is_loading.is_set():
        await sleep(0.001)
    await sleep(0.05)
    may_load.set()

async def ask():
    with tm.flow("work") as run:
        http_client = httpx.AsyncClient(event_hooks={"response": [came]}, trust_env=False)
        async with AsyncOpenAI(api_key="k", base_url=base, http_client=http_client) as client:
            await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
        print(run.cost_usd)

async def on_asyncio():
    await asyncio.gather(let_it_load(), ask())

async def on_trio():
    async with trio.open_nursery() as both:
        both.start_soon(let_it_load)
        both.start_soon(ask)

asyncio.run(on_asyncio()) if kind == "asyncio" else trio.run(on_trio)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_the_loop_goes_on_while_the_prices_load(kind: str, provider_server: ProviderServer, tmp_path: Path) -> None:
    """Here another task of the loop lets them load, after the reply has come; the call is priced nevertheless."""
    base = provider_server.case("openai")
    ran = run_program(SLOW_PRICES + LOOP_DURING_THE_FIRST_CALL, kind, f"{base}/v1", tmp_path / "spans.jsonl")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert float(ran.stdout) == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)


FORK_DURING_THE_FIRST_CALL = """
import multiprocessing
pricing = threading.Thread(target=tm.estimate_cost, args=("openai", "gpt-4o", 1_000_000, 0))
pricing.start()
is_loading.wait(20)
threading.Timer(0.2, may_load.set).start()
child = multiprocessing.get_context("fork").Process(
    target=lambda: print(tm.estimate_cost("openai", "gpt-4o", 1_000_000, 0))
)
child.start()
child.join(20)
if child.exitcode is None:
    child.kill()
    child.join()
pricing.join()
"""


@pytest.mark.slow
def test_a_fork_while_the_prices_load() -> None:
    """The child can load them too; it does not inherit the lock of a thread that it has not."""
    ran = run_program(SLOW_PRICES + FORK_DURING_THE_FIRST_CALL)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2.5\n", "")


CALL_IN_A_CHILD = """
import multiprocessing, sys
from openai import InternalServerError, OpenAI
import tracemind_otel as tm

def ask():
    with OpenAI(api_key="k", base_url=sys.argv[1]) as client:
        try:
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
        except InternalServerError:
            print("gave up", flush=True)

tm.configure(file=sys.argv[2])
child = multiprocessing.get_context("fork").Process(target=ask)
child.start()
child.join()
"""


@pytest.mark.slow
def test_a_call_that_failed_for_good_just_before_its_process_ends(
    provider_server: ProviderServer, tmp_path: Path
) -> None:
    """A pool's child ends without `atexit`; the call that still waits for a repetition is recorded all the same."""
    base, file = provider_server.case("openai", {"status": 500}), tmp_path / "spans.jsonl"
    ran = run_program(CALL_IN_A_CHILD, f"{base}/v1", file, environment={"NO_PROXY": "127.0.0.1"})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "gave up\n", "")
    assert "chat gpt-4o" in file.read_text()
