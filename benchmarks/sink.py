"""An OTLP receiver that costs next to nothing: it reads each request and answers 200, in a process of its own."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

from benchmarks.processes import LeanServer, running, serve

RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"


class Receiver(LeanServer):
    """Answers that everything has arrived."""

    def answer(self, request: bytes) -> None:
        self.transport.write(RESPONSE)


def running_sink() -> AbstractContextManager[str]:
    """The base URL of a receiver that runs until the block ends."""
    return running("benchmarks.sink")


if __name__ == "__main__":
    asyncio.run(serve(Receiver))
