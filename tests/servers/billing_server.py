"""A model server that bills every attempt for which its model has run, whether or not the reply arrives.

It answers Chat Completions, whole and streamed. The last message says what to do with each attempt of a call, one word
an attempt, such as `hang reset answer`; the last word is repeated. It counts four characters of the prompt as a token,
and every reply has as many tokens as the path says: `/40/v1/chat/completions`.

- `answer`: the whole reply
- `hang`: the model runs, and nothing is sent
- `reset`: the model runs, and the connection is reset
- `cut`: the model runs, and the connection is closed after half of the reply
- `garbage`: the model runs, and the reply is no JSON
- `503`, `429`: the model does not run
- `GET /_ledger`: what was billed, in tokens; `GET /_requests?count=N` waits until N requests have come

Run as a program it prints its port, and it ends when its standard input closes.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL = "gpt-4o-mini"
INPUT_USD, OUTPUT_USD = 0.15e-6, 0.60e-6
"""What a token of the model costs."""
WORD = "four"
"""A piece of a reply: four characters, one token."""


class _Books:
    """What was asked and what is billed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.requests = 0
        self.attempts: Counter[str] = Counter()
        self.input_tokens = 0
        self.output_tokens = 0

    def next_word(self, script: str) -> str:
        with self.changed:
            words, number = script.split(), self.attempts[script]
            self.attempts[script] += 1
            self.requests += 1
            self.changed.notify_all()
            return words[min(number, len(words) - 1)]

    def bill(self, input_tokens: int, output_tokens: int) -> None:
        with self.changed:
            self.input_tokens += input_tokens
            self.output_tokens += output_tokens


_books = _Books()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        with _books.changed:
            if self.path.startswith("/_requests"):
                wanted = int(self.path.partition("=")[2])
                _books.changed.wait_for(lambda: _books.requests >= wanted, timeout=30)
            self._send(json.dumps({"input": _books.input_tokens, "output": _books.output_tokens}).encode())

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["content-length"])))
        output = int(self.path.split("/")[1])
        script = document["messages"][-1]["content"]
        word = _books.next_word(script)
        if word.isdigit():
            self._send(b'{"error": {"message": "try again"}}', status=int(word))
            return
        prompt = -(-sum(len(message["content"]) for message in document["messages"]) // 4)
        _books.bill(prompt, output)
        usage = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
        getattr(self, f"_{word}")(_streamed(usage) if document.get("stream") else _whole(usage))

    def _answer(self, body: bytes) -> None:
        self._send(body)

    def _garbage(self, body: bytes) -> None:
        self._send(b"<html>not the reply</html>")

    def _hang(self, body: bytes) -> None:
        self.close_connection = True
        while self.connection.recv(1024):
            pass

    def _reset(self, body: bytes) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _cut(self, body: bytes) -> None:
        self.close_connection = True
        self._send(body[: len(body) // 2], length=len(body))

    def _send(self, body: bytes, *, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", "text/event-stream" if body.startswith(b"data:") else "application/json")
        self.send_header("content-length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)


def _whole(usage: dict[str, int]) -> bytes:
    message = {"role": "assistant", "content": WORD * usage["completion_tokens"]}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"id": "c1", "model": MODEL, "choices": choices, "usage": usage}).encode()


def _streamed(usage: dict[str, int]) -> bytes:
    def event(*choices: dict[str, Any], **more: Any) -> bytes:
        return b"data: " + json.dumps({"id": "c1", "model": MODEL, "choices": choices, **more}).encode() + b"\n\n"

    word = event({"index": 0, "delta": {"content": WORD}, "finish_reason": None})
    end = event({"index": 0, "delta": {}, "finish_reason": "stop"}) + event(usage=usage) + b"data: [DONE]\n\n"
    return word * usage["completion_tokens"] + end


@dataclass(frozen=True)
class BillingServer:
    """The tests' end of the server."""

    port: int

    def base_url(self, output_tokens: int) -> str:
        """The base URL for replies of so many tokens."""
        return f"http://127.0.0.1:{self.port}/{output_tokens}/v1"

    def billed_usd(self) -> float:
        """What was billed so far."""
        ledger = self._ask("_ledger")
        return ledger["input"] * INPUT_USD + ledger["output"] * OUTPUT_USD

    def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests have come."""
        self._ask(f"_requests?count={count}")

    def _ask(self, path: str) -> dict[str, int]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/{path}", timeout=40) as reply:
            answer: dict[str, int] = json.load(reply)
            return answer


@contextmanager
def running_billing_server() -> Generator[BillingServer]:
    """Start the server; it ends with the block, and at the latest with this process."""
    program = [sys.executable, "-m", "tests.servers.billing_server"]
    with subprocess.Popen(
        program, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        yield BillingServer(int(process.stdout.readline()))
        process.communicate()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # hundreds of clients connect at once


def main() -> None:
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
