"""An HTTP server in a thread, whose replies a test holds piece by piece."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, cast

import pytest

_LINGER_ZERO = struct.pack("ii", 1, 0)
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one request gets."""

    status: int = 200
    body: bytes = b"{}"
    """The body of a whole reply."""
    pieces: tuple[bytes | threading.Event, ...] = ()
    """The pieces of a streamed reply; the server waits for an event among them."""
    before: threading.Event | None = None
    """What the server waits for before it answers; a client that gives up first gets nothing."""
    end: Literal["done", "reset", "open"] = "done"
    """How a stream ends: properly, by a reset of the connection, or when the client goes away."""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, document: object, **more: Any) -> Reply:
        """A whole reply of JSON."""
        return cls(body=json.dumps(document).encode(), **more)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What came."""

    method: str
    path: str
    body: bytes


class HeldServer:
    """The tests' end of the server."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gone = threading.Event()
        """Set when a client has gone away from a stream that stays open."""
        self._replies = [Reply()]
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.port: int = self._http.server_address[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self.host = f"127.0.0.1:{self.port}"

    def answer(self, *replies: Reply) -> None:
        """What the next requests get, one after the other; the last of these for good."""
        self._replies = list(replies)

    def reply(self) -> Reply:
        """The next reply."""
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    @contextmanager
    def running(self) -> Generator[HeldServer]:
        """Serve in a thread until the end of the block."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: HeldServer

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.owner.requests.append(Request(method=self.command, path=self.path, body=body))
        reply = self.owner.reply()
        try:
            self._send(reply)
        except ConnectionError:
            self.close_connection = True

    def do_GET(self) -> None:
        self.do_POST()

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _send(self, reply: Reply) -> None:
        if reply.before is not None and not reply.before.wait(1):
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"content-type": reply.content_type, "connection": "close", **reply.headers}.items():
            self.send_header(name, value)
        if not reply.pieces:
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in reply.pieces:
            if isinstance(piece, threading.Event):
                piece.wait(30)
            else:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        self._end(reply.end)

    def _end(self, how: str) -> None:
        if how == "done":
            self.wfile.write(b"0\r\n\r\n")
            return
        self.close_connection = True
        connection = cast("socket.socket", self.connection)
        if how == "open":
            connection.settimeout(30)
            connection.recv(1)
            self.owner.gone.set()
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def held_server() -> Generator[HeldServer]:
    """A server whose replies the test holds."""
    with HeldServer().running() as server:
        yield server
