"""A model server that costs next to nothing: one fixed reply, from a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

REPLY = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1764000000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_benchmark",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "It depends. " * 50, "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 500,
            "total_tokens": 1500,
            "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }
).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_benchmark\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(REPLY), REPLY)
)


class _Answers(asyncio.Protocol):
    """Answers each request as soon as its body has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._end_of_request()) is not None:
            self._received = self._received[end:]
            self._transport.write(RESPONSE)

    def _end_of_request(self) -> int | None:
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return None
        length = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return len(head) + 4 + length if len(rest) >= length else None


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def running_server() -> Generator[str]:
    """The base URL of a server that runs until the block ends."""
    program = [sys.executable, os.path.abspath(__file__)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        process.communicate()


if __name__ == "__main__":
    asyncio.run(_serve())
