"""A model server that costs next to nothing: one fixed reply, from a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.processes import LeanServer, running, serve

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


class ModelServer(LeanServer):
    """Answers each request with the reply."""

    def answer(self, request: bytes) -> None:
        self.transport.write(RESPONSE)


@contextmanager
def running_server() -> Generator[str]:
    """The base URL of a server that runs until the block ends."""
    with running("benchmarks.server") as url:
        yield f"{url}/v1"


if __name__ == "__main__":
    asyncio.run(serve(ModelServer))
