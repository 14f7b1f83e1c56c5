"""A server that closes kept connections under its clients, by plain sockets and threads, so that it does so at once.

Run as a program it prints its port as one line of JSON, and it ends when its standard input closes. The path before
`/v1/` says how it behaves; the last message of a request is what it notes.

- `closes`: answers, and closes 0.04 ms after the last byte of the reply, without having said so; as llama.cpp's server
- `keeps`: answers, and closes when it is told to by `GET /_close`
- `reads`: answers the first request of each connection; reads every later one whole, and closes
- `dies`: answers its first request; reads every later one whole, and closes, on new connections too
- `cuts`: as `reads`, but later ones get half a status line before the close
- `resets`: resets each connection as soon as a request has come
- `GET /_report`: `{"seen": [...], "answered": [...]}`, what was asked and what was answered, in order
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .openai_server import echo

CLOSES_AFTER_S = 0.00004


class Server:
    """What came, and the connections that wait for their next request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: list[str] = []
        self._answered: list[str] = []
        self._kept: list[socket.socket] = []

    def serve(self, connection: socket.socket) -> None:
        """One connection to its end."""
        with connection, connection.makefile("rb") as reader:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = 0
            try:
                while (request := read_request(reader)) is not None and self._handle(connection, number, *request):
                    number += 1
            except OSError:
                pass  # closed by `_close`, or by the client

    def _handle(self, connection: socket.socket, number: int, path: str, body: bytes) -> bool:
        if path.startswith("/_"):
            connection.sendall(_whole(self._inside(path)))
            return True
        behaviour, document = path.split("/")[1], json.loads(body)
        prompt = document["messages"][-1]["content"]
        self._note(self._seen, prompt)
        if behaviour == "resets":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        is_later = number > 0 or (behaviour == "dies" and not prompt.endswith("-1"))
        if behaviour in ("reads", "cuts", "dies") and is_later:
            connection.sendall(b"HTTP/1." if behaviour == "cuts" else b"")
            return False
        self._note(self._answered, prompt)
        if behaviour == "keeps":
            self._kept.append(connection)
        _answer(connection, document)
        if behaviour == "closes":
            time.sleep(CLOSES_AFTER_S)
        return behaviour != "closes"

    def _note(self, notes: list[str], prompt: str) -> None:
        with self._lock:
            notes.append(prompt)

    def _inside(self, path: str) -> dict[str, Any]:
        if path == "/_close":
            kept, self._kept = self._kept, []
            for connection in kept:
                with suppress(OSError):  # the client may have closed it
                    connection.shutdown(socket.SHUT_RDWR)
        with self._lock:
            return {"seen": list(self._seen), "answered": list(self._answered)}


def read_request(reader: Any) -> tuple[str, bytes] | None:
    """The path and the body of the next request; `None` when the client has closed the connection."""
    start = reader.readline()
    if not start:
        return None
    length = 0
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return start.split()[1].decode(), reader.read(length)


def _answer(connection: socket.socket, document: dict[str, Any]) -> None:
    reply = echo(document)
    if not document.get("stream"):
        connection.sendall(_whole(reply))
        return
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.sendall(head + _chunk(_event(reply, {"content": reply["choices"][0]["message"]["content"]}, None)))
    connection.sendall(_chunk(_event(reply, {}, "stop")))
    connection.sendall(_chunk(b"data: [DONE]\n\n"))
    connection.sendall(b"0\r\n\r\n")


def _event(reply: dict[str, Any], delta: dict[str, Any], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    document = {**reply, "object": "chat.completion.chunk", "choices": [choice]}
    if reason is None:
        del document["usage"]
    return f"data: {json.dumps(document)}\n\n".encode()


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _whole(document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main() -> None:
    """Serve until standard input closes."""
    serve_until_input_ends(Server().serve)


def serve_until_input_ends(serve: Callable[[socket.socket], None]) -> None:
    """Print the port, and serve each connection in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()
