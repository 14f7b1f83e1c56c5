"""An OTLP receiver that costs next to nothing: it reads each request and answers 200, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class _Answers(asyncio.Protocol):
    """Answers each request as soon as its body has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._end_of_request()) is not None:
            del self._received[:end]
            self._transport.write(RESPONSE)

    def _end_of_request(self) -> int | None:
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return None
        head = bytes(self._received[:head_end]).lower()
        length = next(
            (int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        end = head_end + 4 + length
        return end if len(self._received) >= end else None


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def running_sink() -> Generator[str]:
    """The base URL of a receiver that runs until the block ends."""
    program = [sys.executable, os.path.abspath(__file__)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.communicate()


if __name__ == "__main__":
    asyncio.run(_serve())
