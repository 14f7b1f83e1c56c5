"""Stands in for OpenAI or Anthropic, so that the examples with their SDKs run without a key.

`stand_in("openai")` does nothing if there is a key. Else it starts a server on this machine that answers as the API
does, and points the SDK to it by the SDK's own variables. The server is busy now and then, which shows the retries.

Started as a program it asks itself one question.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

BUSY_EVERY = 4
"""The server rejects each fourth request as too early; the SDK sends it again."""


def stand_in(provider: Literal["openai", "anthropic"]) -> None:
    """Let a local server answer in place of a provider, if there is no key for it."""
    name = provider.upper()
    if os.environ.get(f"{name}_API_KEY"):
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    atexit.register(_stop, server, thread)
    host = f"127.0.0.1:{server.server_port}"
    os.environ |= {
        f"{name}_API_KEY": "no-key",
        f"{name}_BASE_URL": f"http://{host}/v1" if provider == "openai" else f"http://{host}",
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1"))),
        # Calls to this server cost what the provider charges for the model.
        "TRACEMIND_HOSTS": f"{host}={provider}",
    }


def _stop(server: ThreadingHTTPServer, thread: threading.Thread) -> None:
    server.shutdown()
    thread.join()
    server.server_close()


class _Answers(BaseHTTPRequestHandler):
    """Answers Chat Completions and Messages with the words of the question."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count(1)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if next(self.numbers) % BUSY_EVERY == 0:
            self._send(429, {"error": {"type": "rate_limit_error", "message": "busy"}}, retry_after_ms="20")
            return
        question = _words(asked["messages"])
        text = f"In short: {' '.join(question[-6:])}"
        made = _message if self.path.endswith("/messages") else _completion
        self._send(200, made(asked["model"], text, 4 * len(question) // 3, 4 * len(text.split()) // 3))

    def _send(self, status: int, document: dict[str, Any], **headers: str) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def _words(messages: list[dict[str, Any]]) -> list[str]:
    contents = (message["content"] for message in messages)
    parts = (content if isinstance(content, str) else content[0]["text"] for content in contents)
    return " ".join(parts).split()


def _completion(model: str, text: str, prompt: int, output: int) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_764_000_000,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output},
    }


def _message(model: str, text: str, prompt: int, output: int) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": prompt, "output_tokens": output},
    }


def main() -> int:
    from openai import OpenAI

    stand_in("openai")
    with OpenAI() as client:
        asked = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "Who is it?"}]
        )
    print(asked.choices[0].message.content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
