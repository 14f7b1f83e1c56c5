"""Servers in processes of their own, so that what they cost is not measured."""

from __future__ import annotations

import abc
import asyncio
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def running(module: str, *arguments: str) -> Generator[str]:
    """The base URL of a server that runs until the block ends.

    Args:
        module: a program that prints its port and ends when its standard input closes.
        *arguments: its arguments.
    """
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.communicate()


class LeanServer(asyncio.Protocol, abc.ABC):
    """One connection of a server that costs next to nothing: it answers each request as soon as its body has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._end_of_request()) is not None:
            request = bytes(self._received[:end])
            del self._received[:end]
            self.answer(request)

    @abc.abstractmethod
    def answer(self, request: bytes) -> None:
        """Answer one request."""

    def _end_of_request(self) -> int | None:
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        lines = bytes(self._received[:head_end]).lower().split(b"\r\n")
        length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)
        end = head_end + 4 + length
        return end if len(self._received) >= end else None


async def serve(connection: type[LeanServer]) -> None:
    """Be such a program."""
    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


async def serve_application(application: web.Application) -> None:
    """Be such a program, with an application of aiohttp."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()
