"""The front door under uvloop: calls, streams, retries, and the synchronous twins inside a running loop."""

from __future__ import annotations

import json
import subprocess
import textwrap
from pathlib import Path

import pytest

from tests.programs import clean_environment
from tests.servers.fixture import REPOSITORY, OpenAIServer
from tests.servers.fixture import openai_server as openai_server

pytestmark = pytest.mark.tools

PROGRAM = """
    import asyncio, json, sys
    import uvloop
    import tracemind_otel as tm

    retried, plain = sys.argv[1:]

    async def main():
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")
        with tm.flow("work") as run:
            reply = await tm.llm_call(f"openai/{retried}", "hi")
            async with tm.llm_stream(f"openai/{plain}", "hi") as stream:
                streamed = "".join([piece async for piece in stream.text_deltas()])
            many = await asyncio.gather(*(tm.llm_call(f"openai/{plain}", "hi") for _ in range(50)))
            blocked = tm.llm_call_sync(f"openai/{plain}", "hi")
        return [reply.text, reply.retries, streamed, len({each.text for each in many}), blocked.text, run.llm_calls]

    with tm.configure(file="trace.jsonl"):
        print(json.dumps(uvloop.run(main())))
"""


def test_the_front_door_under_uvloop(python: Path, openai_server: OpenAIServer, tmp_path: Path) -> None:
    """Everything works as on asyncio's own loop, the twins from inside the running loop too."""
    retried = openai_server.script({"status": 503}, {"do": "echo"})
    plain = openai_server.script()
    done = subprocess.run(
        [python, "-W", "error", "-c", textwrap.dedent(PROGRAM), retried, plain],
        cwd=tmp_path,
        env=clean_environment(
            PYTHONPATH=str(REPOSITORY / "src"),
            OPENAI_API_KEY="sk-test",
            OPENAI_BASE_URL=openai_server.base_url,
            NO_PROXY="*",
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["echo: hi", 1, "echo: hi", 1, "echo: hi", 53]
