"""The server of `openai_server.py` in its own process, for a test module or a session."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from .openai_server import Action

REPOSITORY = Path(__file__).parents[2]


class ReceivedRequest(dict[str, Any]):
    """A request that the server received."""

    @property
    def headers(self) -> dict[str, str]:
        """The headers, by lower-case name."""
        return cast("dict[str, str]", self["headers"])

    @property
    def body(self) -> dict[str, Any]:
        """The decoded JSON body."""
        return cast("dict[str, Any]", self["body"])


class OpenAIServer:
    """The tests' end of the server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = itertools.count(1)
        # The machine's proxy is none of the tests' business.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @property
    def base_url(self) -> str:
        """The `base_url` for a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, *actions: Action) -> str:
        """Script the attempts of one call; returns the model to ask for."""
        model = f"scripted-{next(self._numbers)}"
        self._ask("PUT", f"_script/{model}", list(actions))
        return model

    def requests(self, model: str) -> list[ReceivedRequest]:
        """The requests that have reached the server, in order."""
        return [ReceivedRequest(each) for each in self._ask("GET", f"_requests/{model}")]

    async def wait_for_request(self, model: str, count: int = 1) -> None:
        """Wait until this number of requests has reached the server."""
        await asyncio.to_thread(self._ask, "GET", f"_requests/{model}?count={count}")

    async def wait_for_abort(self, model: str, count: int = 1) -> None:
        """Wait until the client has closed this number of hanging connections."""
        await asyncio.to_thread(self._ask, "GET", f"_aborted/{model}?count={count}")

    def _ask(self, method: str, path: str, document: object = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", json.dumps(document).encode() if method == "PUT" else None
        )
        request.method = method
        with self._opener.open(request, timeout=30) as reply:
            return json.load(reply)


@contextmanager
def running_server() -> Generator[OpenAIServer]:
    """Start the server; it ends with the block, and at the latest with this process."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers.openai_server"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        yield OpenAIServer(json.loads(process.stdout.readline())["port"])
        process.communicate()


@pytest.fixture(scope="session")
def openai_server() -> Iterator[OpenAIServer]:
    """A server that answers like OpenAI's, in a process of its own."""
    with running_server() as server:
        yield server


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
