"""Nothing blocks the event loop, not even in the first call of a process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.programs import run_program
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server

PROGRAM = """
import asyncio, gc, json, sys, threading, time
import tracemind_otel as tm

gc.disable()  # a full collection of Python's own computes for 50 ms on a slow machine, wherever it strikes

BLOCKS = {"import", "open", "socket.getaddrinfo", "subprocess.Popen", "time.sleep"}
computed_s, took_s, blocked = [], [], []

class MeasuringLoop(asyncio.SelectorEventLoop):
    is_running_calls = False

    def call_soon(self, callback, *args, context=None):
        def measured():
            computing, started = time.thread_time(), time.perf_counter()
            try:
                callback(*args)
            finally:
                computed_s.append(time.thread_time() - computing)
                took_s.append(time.perf_counter() - started)
        return super().call_soon(measured, context=context)

def audit(event, args):
    if MeasuringLoop.is_running_calls and event in BLOCKS and threading.current_thread() is threading.main_thread():
        blocked.append(f"{event} {args[:1]}")

async def main(telemetry):
    config = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt="ping", timeout_ms=60_000)
    MeasuringLoop.is_running_calls = True
    calls = (tm.run_llm_call("flow", f"step-{i}", config, telemetry.recorder) for i in range(200))
    results = await asyncio.gather(*calls)
    MeasuringLoop.is_running_calls = False
    return results

sys.addaudithook(audit)
with tm.configure(file=sys.argv[1]) as telemetry, asyncio.Runner(loop_factory=MeasuringLoop) as runner:
    results = runner.run(main(telemetry))
assert [result["status"] for result in results] == ["ok"] * 200, results[0]
assert all(result["usage"]["cost_usd"] for result in results), results[0]
print(json.dumps([len(computed_s), max(computed_s), max(took_s), blocked]))
"""


def test_no_slow_callback(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """While 200 calls run at once in a fresh process, no step on the event loop computes or waits for long.

    The time it computes is that of its thread alone, which other work on the machine does not lengthen. What could wait
    is named: a step imports nothing, opens no file, resolves no name.
    """
    file = tmp_path / "spans.jsonl"
    environment = {"OPENAI_BASE_URL": openai_server.base_url, "OPENAI_API_KEY": "sk-test"}
    done = run_program(PROGRAM, file, environment=environment)
    assert done.returncode == 0, done.stderr
    steps, computed_s, took_s, blocked = json.loads(done.stdout)
    assert blocked == []
    assert steps > 200
    assert computed_s < 0.05
    assert took_s < 2
    assert file.read_text().splitlines()


GIVEN_CLIENT = """
import asyncio, json, sys, threading
import httpx
import tracemind_otel as tm

imported = []

def audit(event, args):
    if event == "import" and threading.current_thread() is threading.main_thread():
        imported.append(args[0].partition(".")[0])

def fail(request):
    raise httpx.ConnectError("refused")

async def main():
    config = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt="ping", max_retries=0)
    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as http_client:
        client = tm.LLMClientFactory.make("openai", api_key="k", http_client=http_client)
        sys.addaudithook(audit)
        return await tm.run_llm_call("flow", "step", config, tm.Recorder(), client=client)

print(json.dumps([asyncio.run(main())["reason"], imported]))
"""


def test_a_fault_of_a_given_client_imports_no_library() -> None:
    """The first error of a user's httpx client does not import aiohttp on the event loop, which takes 100 ms."""
    done = run_program(GIVEN_CLIENT)
    assert done.returncode == 0, done.stderr
    reason, imported = json.loads(done.stdout)
    assert "cannot be reached" in reason
    assert "aiohttp" not in imported
