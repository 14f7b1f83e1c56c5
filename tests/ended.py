"""Programs and servers that make model calls and are then ended, and what arrived."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import clean_environment
from tests.servers.otlp_sink import Sink

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
    """Both spans of each call arrived once, with its cost."""
    assert Counter(span.name for span in sink.spans()) == {"chat toy-1": calls, "invoke_workflow answer": calls}
    assert sink.counter("tracemind.llm.cost") == pytest.approx(0.25 * calls)


@dataclass
class Server:
    """A server, in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def ask(self) -> int:
        """Run one flow with one call; returns the process that ran it."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url, timeout=30) as reply:
            return int(reply.read())

    def stop(self, signum: int) -> tuple[int, str]:
        """Stop the server as an operator does; returns its exit code and the rest of its log."""
        self.process.send_signal(signum)
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


def wait_for_port(host: str, port: int) -> None:
    """Wait until somebody listens: with several workers, uvicorn prints the port before that."""
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex((host, port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError


STRICT = (sys.executable, "-W", "error")
_LISTENS = re.compile(r"(?:running on|Listening at:) http://([\d.]+):(\d+)")


@contextmanager
def serving(
    directory: Path, *command: str, python: Sequence[str | Path] = STRICT, **environment: str
) -> Generator[Server]:
    """Run Python with this command, which prints its address."""
    with subprocess.Popen(
        [*python, *command],
        cwd=directory,
        env=clean_environment(**environment),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            found = next(match for line in lines if (match := _LISTENS.search(line)))
            wait_for_port(found[1], int(found[2]))
            yield Server(process, f"http://{found[1]}:{found[2]}")
        finally:
            process.kill()


IN_A_CONTAINER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""The command that runs a program as process 1 of a process namespace of its own, as a container does."""


def _can_be_process_1() -> bool:
    found = shutil.which(IN_A_CONTAINER[0])
    return (
        found is not None
        and subprocess.run([*IN_A_CONTAINER, "true"], capture_output=True, check=False).returncode == 0
    )


AS_PROCESS_1 = pytest.mark.skipif(not _can_be_process_1(), reason="this user may start no process namespace")


def stop_process_1(namespace: int) -> None:
    """Send SIGTERM to the program in a namespace, as the end of a container does; `unshare` passes no signal on."""
    children = Path(f"/proc/{namespace}/task/{namespace}/children").read_text()
    os.kill(int(children), signal.SIGTERM)
