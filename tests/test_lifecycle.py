"""Clients live as long as their event loop, warn when they are forgotten, and may belong to the user."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest

import tracemind_otel as tm
from tests.programs import Finished, run_program
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.openai_server import Action
from tests.support import Captured
from tracemind_otel.ai.llm.providers import OpenAILLMClient


def run_strictly(program: str, server: OpenAIServer, *arguments: object, **environment: str) -> Finished:
    """Run a program in which no warning passes, not even one in a finaliser."""
    return run_program(
        UNRAISABLE + program,
        *arguments,
        options=("-X", "dev"),
        environment={"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": server.base_url, **environment},
    )


def assert_clean(done: Finished) -> None:
    """The program succeeded and wrote nothing to stderr."""
    assert done.returncode == 0, done.stderr
    assert not any(word in done.stderr for word in ("Warning", "Traceback", "nclosed", "never")), done.stderr


UNRAISABLE = """
import asyncio, gc, sys
import tracemind_otel as tm

unraisable = []
sys.unraisablehook = lambda hooked: unraisable.append(f"{hooked.exc_value!r} in {hooked.object!r}")

async def call(model="m", client=None):
    config = tm.LLMCallConfig("openai", model, prompt="ping")
    return await tm.run_llm_call("flow", "step", config, tm.Recorder(), client=client)
"""

SEVERAL_LOOPS = """
async def several():
    return await asyncio.gather(*(call() for _ in range(5)))

for _ in range(3):
    results = asyncio.run(several())
    assert [result["status"] for result in results] == ["ok"] * 5, results
    gc.collect()
assert unraisable == [], unraisable
"""


def test_several_event_loops(openai_server: OpenAIServer) -> None:
    """Several `asyncio.run` in a process work, and each closes its connections."""
    done = run_strictly(SEVERAL_LOOPS, openai_server)

    assert_clean(done)


CANCELLED_LOOP = """
import os, urllib.request

def wait_for_requests(count):
    url = os.environ["OPENAI_BASE_URL"].replace("/v1", f"/_requests/{sys.argv[1]}?count={count}")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30).close()

async def cancelled():
    calls = [asyncio.create_task(call(sys.argv[1])) for _ in range(5)]
    await asyncio.to_thread(wait_for_requests, 5)
    raise SystemExit(7)

try:
    asyncio.run(cancelled())
except SystemExit:
    pass
gc.collect()
assert unraisable == [], unraisable
"""


@pytest.mark.soak
def test_loop_that_ends_in_the_middle(openai_server: OpenAIServer) -> None:
    """A program that stops during calls leaves nothing open and no warning."""
    model = openai_server.script({"do": "hang"})

    done = run_strictly(CANCELLED_LOOP, openai_server, model)

    assert_clean(done)


FORGOTTEN = """
from tracemind_otel.ai.llm.providers import OpenAILLMClient

async def forgetful():
    client = OpenAILLMClient()
    assert (await call(client=client))["status"] == "ok"
    del client
    gc.collect()
    return list(unraisable)

seen = asyncio.run(forgetful())
assert any("ResourceWarning" in each and "unclosed OpenAILLMClient" in each for each in seen), seen
"""


@pytest.mark.soak
def test_forgotten_client(openai_server: OpenAIServer) -> None:
    """A user's client that is dropped without a close gives a `ResourceWarning`."""
    done = run_strictly(FORGOTTEN, openai_server)

    assert done.returncode == 0, done.stderr


CLOSED = """
from tracemind_otel.ai.llm.providers import OpenAILLMClient

async def tidy():
    client = OpenAILLMClient()
    assert (await call(client=client))["status"] == "ok"
    await client.aclose()
    await client.aclose()
    del client
    unused = OpenAILLMClient()
    del unused
    gc.collect()

asyncio.run(tidy())
gc.collect()
assert unraisable == [], unraisable
"""


def test_closed_client(openai_server: OpenAIServer) -> None:
    """A client that was closed, even twice, or never used leaves no warning."""
    done = run_strictly(CLOSED, openai_server)

    assert_clean(done)


async def test_client_works_after_closing(openai_server: OpenAIServer) -> None:
    """`aclose` closes the connections, and a later call opens new ones."""
    client = OpenAILLMClient("sk-test", openai_server.base_url)
    request = tm.LLMRequest("openai", openai_server.script({"do": "echo"}), "ping")
    async with client:
        await client.complete(request)
    async with client:
        assert (await client.complete(request)).text == "echo: ping"


async def test_clients_share_connections(openai_server: OpenAIServer) -> None:
    """The factory's clients share one connection pool for a server, though their keys differ."""
    model = openai_server.script({"do": "echo"})
    for key in ("sk-of-team-a", "sk-of-team-b"):
        client = tm.LLMClientFactory.make("openai", api_key=key, base_url=openai_server.base_url)
        await client.complete(tm.LLMRequest("openai", model, "ping"))

    first, second = openai_server.requests(model)
    assert (first.headers["authorization"], second.headers["authorization"]) == (
        "Bearer sk-of-team-a",
        "Bearer sk-of-team-b",
    )
    assert first["connection"] == second["connection"]


async def test_base_urls_of_one_server_share_connections(openai_server: OpenAIServer) -> None:
    """Clients for two paths of one server share its connection pool."""
    model = openai_server.script({"do": "echo"})
    for path in ("", "/deployments/a"):
        client = tm.LLMClientFactory.make("openai", api_key="k", base_url=f"{openai_server.base_url}{path}")
        await client.complete(tm.LLMRequest("openai", model, "ping"))

    first, second = openai_server.requests(model)
    assert first["connection"] == second["connection"]


async def test_factory_keeps_clients() -> None:
    """Within an event loop the factory returns the same client for the same arguments, whatever the name's case."""
    assert tm.LLMClientFactory.make("openai", api_key="a") is tm.LLMClientFactory.make("OpenAI", api_key="a")
    assert tm.LLMClientFactory.make("openai", api_key="a") is not tm.LLMClientFactory.make("openai", api_key="b")


async def test_new_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key in the environment is used from the next call on."""
    before = tm.LLMClientFactory.make("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-new")

    assert tm.LLMClientFactory.make("openai") is not before


async def test_the_environment_is_not_read_for_each_call(
    openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that name a provider read its variables once a second, and at once after a key was rejected."""
    echoes: list[Action] = [{"do": "echo"}] * 20
    model = openai_server.script(*echoes, {"status": 401, "body": "{}"}, {"do": "echo"})
    config = tm.LLMCallConfig("openai", model, prompt="ping")
    monkeypatch.setenv("OPENAI_BASE_URL", openai_server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-old")
    await tm.run_llm_call("f", "s", config, tm.Recorder())
    looks: list[str] = []
    get_item = type(os.environ).__getitem__

    def look(environment: Any, name: str) -> str:
        looks.append(name)
        return get_item(environment, name)

    monkeypatch.setattr(type(os.environ), "__getitem__", look)
    started = time.monotonic()
    for _ in range(19):
        assert (await tm.run_llm_call("f", "s", config, tm.Recorder()))["status"] == "ok"
    assert looks.count("OPENAI_API_KEY") <= time.monotonic() - started + 1

    monkeypatch.setenv("OPENAI_API_KEY", "sk-new")
    assert (await tm.run_llm_call("f", "s", config, tm.Recorder()))["status_code"] == 401
    assert (await tm.run_llm_call("f", "s", config, tm.Recorder()))["status"] == "ok"
    assert openai_server.requests(model)[-1].headers["authorization"] == "Bearer sk-new"


class _OwnClient(tm.AsyncLLMClient):
    provider_name = "own"

    def __init__(self, *, api_key: str | None = None, base_url: str | None = None) -> None:
        self.arguments = (api_key, base_url)

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        return tm.LLMResponse("own answer", tm.LLMUsage())


async def test_registered_provider(capture: Captured) -> None:
    """A registered provider is called by its name, in any case, and recorded under its own name."""
    tm.LLMClientFactory.register("Own", _OwnClient)

    config = tm.LLMCallConfig("own", "m", prompt="ping")
    result = await tm.run_llm_call("f", "s", config, capture.recorder())

    assert result["text"] == "own answer"
    assert "own" in tm.LLMClientFactory.names()
    assert (capture.span("chat m").attributes or {})["gen_ai.provider.name"] == "own"


async def test_registered_provider_gets_its_arguments() -> None:
    """A registered factory gets the key and the base URL unchanged."""
    tm.LLMClientFactory.register("own", _OwnClient)

    client = tm.LLMClientFactory.make("own", api_key="k", base_url="u")

    assert isinstance(client, _OwnClient)
    assert client.arguments == ("k", "u")


@pytest.mark.parametrize(("name", "factory"), [("", _OwnClient), ("  ", _OwnClient), ("own", None)])
def test_registering_nonsense(name: str, factory: Any) -> None:
    """An empty name and a factory that cannot be called are rejected with a ConfigError."""
    with pytest.raises(tm.ConfigError):
        tm.LLMClientFactory.register(name, factory)


REGISTERED = """
closed = []

class Own(tm.AsyncLLMClient):
    provider_name = "own"
    def __init__(self, *, api_key=None, base_url=None):
        pass
    async def complete(self, req):
        return tm.LLMResponse("ok", tm.LLMUsage(1, 1, 2, 0.0))
    async def aclose(self):
        await asyncio.sleep(0)
        closed.append(self)

class Broken(Own):
    async def aclose(self):
        raise RuntimeError("cannot close")

tm.LLMClientFactory.register("broken", Broken)
tm.LLMClientFactory.register("own", Own)

async def main():
    for provider in ("broken", "own"):
        config = tm.LLMCallConfig(provider, "m", prompt="ping")
        assert (await tm.run_llm_call("f", "s", config, tm.Recorder()))["status"] == "ok"
    assert closed == []

asyncio.run(main())
assert len(closed) == 1, closed
assert unraisable == [], unraisable
"""


def test_registered_clients_are_closed(openai_server: OpenAIServer) -> None:
    """The factory's clients are closed when their event loop ends, though one of them fails to close."""
    done = run_strictly(REGISTERED, openai_server)

    assert done.returncode == 0, done.stderr


PLUG_IN = """
sys.path.insert(0, sys.argv[1])

async def main():
    config = tm.LLMCallConfig("tiny", "m", prompt="ping")
    return await tm.run_llm_call("flow", "step", config, tm.Recorder())

assert asyncio.run(main())["text"] == "tiny answer"
assert "tiny" in tm.LLMClientFactory.names()
assert tm.LLMClientFactory.make("fake").provider_name == "fake"
"""


def _install_plug_in(directory: Path, *, broken: bool = False) -> None:
    """Write the metadata of a distribution with two entry points, one of them for a name that is taken."""
    (directory / "tiny_provider.py").write_text(
        "import tracemind_otel as tm\n"
        "class Tiny(tm.AsyncLLMClient):\n"
        "    provider_name = 'tiny'\n"
        "    def __init__(self, *, api_key=None, base_url=None): pass\n"
        "    async def complete(self, req): return tm.LLMResponse('tiny answer', tm.LLMUsage())\n"
    )
    info = directory / "tiny_provider-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-provider\nVersion: 1.0\n")
    lines = ["[tracemind_otel.providers]", "tiny = tiny_provider:Tiny", "fake = tiny_provider:Tiny"]
    if broken:
        lines.insert(1, "broken = no_such_module:Client")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def test_provider_of_another_distribution(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """An installed distribution offers a provider by an entry point, and replaces no built-in one."""
    _install_plug_in(tmp_path)

    done = run_strictly(PLUG_IN, openai_server, tmp_path)

    assert_clean(done)


def test_broken_plug_in(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """A plug-in that cannot be imported is named in a warning, and all other providers work."""
    _install_plug_in(tmp_path, broken=True)

    done = run_strictly(PLUG_IN, openai_server, tmp_path)

    assert done.returncode == 0, done.stderr
    assert "broken" in done.stderr


def test_unknown_provider() -> None:
    """The error for an unknown provider lists the known names and the one that was probably meant."""
    with pytest.raises(tm.ConfigError, match="did you mean 'openai'") as caught:
        tm.LLMClientFactory.make("opnai")

    for name in tm.LLMClientFactory.names():
        assert name in str(caught.value)
    assert {"fake", "local", "openai"} <= set(tm.LLMClientFactory.names())


async def test_unknown_provider_in_a_call(capture: Captured) -> None:
    """A call of an unknown provider raises an error and records nothing."""
    with pytest.raises(ValueError, match="Unsupported LLM provider: 'nobody'"):
        await tm.run_llm_call("f", "s", tm.LLMCallConfig("nobody", "m", prompt="ping"), capture.recorder())

    assert capture.spans == []


def test_client_outside_a_loop() -> None:
    """Outside an event loop each call makes a client that the caller owns."""
    first, second = tm.LLMClientFactory.make("fake"), tm.LLMClientFactory.make("fake")

    assert first is not second
    del first, second
    gc.collect()
