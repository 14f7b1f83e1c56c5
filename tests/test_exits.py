"""Processes that end without `atexit`: what they recorded arrives, and they end as they would without us."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import clean_environment
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no such signals")

WORK = """
import asyncio, os, sys
import tracemind_otel as tm
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient

client = FakeLLMClient(0, usage=LLMUsage(10, 5, 15, 0.25))

@tm.flow(name="answer")
async def answer():
    config = tm.LLMCallConfig("fake", "toy-1", "hi")
    await tm.run_llm_call("", "s", config, tm.OTelRecorder(), client=client)
"""

APP = f"""{WORK}
async def app(scope, receive, send):
    if scope["type"] == "http":
        await answer()
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": str(os.getpid()).encode()}})

CONFIGURED
"""
CONFIGURED = 'tm.configure(endpoint=os.environ["SINK"])'


def assert_arrived(sink: Sink, calls: int) -> None:
    """Both spans of each call arrived once, and its cost."""
    assert Counter(span.name for span in sink.spans()) == {"chat toy-1": calls, "invoke_workflow answer": calls}
    assert sink.counter("tracemind.llm.cost") == pytest.approx(0.25 * calls)


# --- uvicorn ---


@dataclass
class Server:
    """uvicorn, in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def ask(self) -> int:
        """Have one flow with one call done; returns the process that did it."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url, timeout=30) as reply:
            return int(reply.read())

    def stop(self, signum: int) -> tuple[int, str]:
        """Stop it as an operator does; returns its exit code and the rest of its log."""
        self.process.send_signal(signum)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


def wait_for_port(host: str, port: int) -> None:
    """Return when somebody listens: with several workers uvicorn names the port before it does."""
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError


@contextmanager
def serving(directory: Path, *command: str, **environment: str) -> Generator[Server]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", *command],
        cwd=directory,
        env=clean_environment(**environment),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            found = next(match for line in lines if (match := re.search(r"running on http://([\d.]+):(\d+)", line)))
            wait_for_port(found[1], int(found[2]))
            yield Server(process, f"http://{found[1]}:{found[2]}")
        finally:
            process.kill()


SIGNALS = pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


@SIGNALS
def test_uvicorn(tmp_path: Path, sink: Sink, signum: signal.Signals) -> None:
    """An application that configures as it is imported loses nothing when its server is stopped."""
    (tmp_path / "service.py").write_text(APP.replace("CONFIGURED", CONFIGURED))
    with serving(tmp_path, "-m", "uvicorn", "service:app", "--port", "0", SINK=sink.url) as server:
        for _ in range(3):
            server.ask()
        code, log = server.stop(signum)
    assert code in (-signum, 128 + signum, 0)
    assert "Traceback" not in log
    assert_arrived(sink, 3)


@SIGNALS
def test_uvicorn_with_workers(tmp_path: Path, sink: Sink, signum: signal.Signals) -> None:
    """Each worker sends its own."""
    (tmp_path / "service.py").write_text(APP.replace("CONFIGURED", CONFIGURED))
    workers = list[int]()
    with serving(tmp_path, "-m", "uvicorn", "service:app", "--port", "0", "--workers", "2", SINK=sink.url) as server:
        while len(set(workers)) < 2:
            workers.append(server.ask())
        _, log = server.stop(signum)
    assert "Traceback" not in log
    assert_arrived(sink, len(workers))


@pytest.mark.parametrize("before", [True, False], ids=["before uvicorn is loaded", "after"])
def test_uvicorn_in_a_program(tmp_path: Path, sink: Sink, before: bool) -> None:
    """A program that serves by `uvicorn.run` loses nothing either, whichever of the two it imports first."""
    lines = [CONFIGURED, "import uvicorn"]
    program = APP.replace("CONFIGURED", "\n".join(lines if before else lines[::-1]))
    (tmp_path / "program.py").write_text(f"{program}\nuvicorn.run(app, port=0)\n")
    with serving(tmp_path, "program.py", SINK=sink.url) as server:
        server.ask()
        code, log = server.stop(signal.SIGTERM)
    assert code == -signal.SIGTERM
    assert "Traceback" not in log
    assert_arrived(sink, 1)
