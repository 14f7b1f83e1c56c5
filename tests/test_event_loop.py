"""Nothing blocks the event loop, the first call of a process included."""

from __future__ import annotations

from pathlib import Path

from tests.programs import run_program
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server

PROCESSES = 3

PROGRAM = """
import asyncio, gc, logging, sys
import tracemind_otel as tm

gc.disable()  # a full collection of Python's own takes 50 ms on a slow machine, wherever it strikes

class Collected(logging.Handler):
    lines = []
    def emit(self, record):
        self.lines.append(record.getMessage())

async def main(telemetry):
    asyncio.get_running_loop().slow_callback_duration = 0.05
    config = tm.LLMCallConfig("openai", "gpt-4o-mini", prompt="ping", timeout_ms=60_000)
    calls = (tm.run_llm_call("flow", f"step-{i}", config, telemetry.recorder) for i in range(200))
    return await asyncio.gather(*calls)

logging.getLogger("asyncio").addHandler(Collected())
with tm.configure(file=sys.argv[1]) as telemetry:
    results = asyncio.run(main(telemetry), debug=True)
assert [result["status"] for result in results] == ["ok"] * 200, results[0]
assert all(result["usage"]["cost_usd"] for result in results), results[0]
print("\\n".join(line for line in Collected.lines if line.startswith("Executing")))
"""


def test_no_slow_callback(openai_server: OpenAIServer, tmp_path: Path) -> None:
    """200 calls at once in a fresh process never hold the event loop for 50 ms, in the best of three processes."""
    seen: list[str] = []
    for number in range(PROCESSES):
        done = run_program(
            PROGRAM,
            tmp_path / f"spans-{number}.jsonl",
            environment={"OPENAI_BASE_URL": openai_server.base_url, "OPENAI_API_KEY": "sk-test"},
        )
        assert done.returncode == 0, done.stderr
        assert len((tmp_path / f"spans-{number}.jsonl").read_text().splitlines()) > 0
        if not done.stdout.strip():
            return
        seen.append(done.stdout)
    raise AssertionError("slow callbacks in every process:\n" + "\n".join(seen))
