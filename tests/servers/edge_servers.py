"""Small servers in threads, one with TLS and one that is a proxy, and the requests that they got."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .openai_server import echo


@dataclass
class Edge:
    """A running server."""

    port: int
    seen: list[str] = field(default_factory=list[str])
    """What was asked for: paths; of a proxy whole addresses."""
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    """The headers of each request, by lower-case name."""


@contextmanager
def answering(
    *,
    tls: ssl.SSLContext | None = None,
    headers: dict[str, str] | None = None,
    status: int = 200,
    host: str = "127.0.0.1",
) -> Generator[Edge]:
    """A server, or a proxy for plain HTTP, that answers every POST with the echo and these headers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            edge.seen.append(self.path)
            edge.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = json.dumps(echo(json.loads(body))).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that rejects the certificate

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            if tls is not None:
                edge.seen.append("connection")
                connection = tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

    with Server((host, 0), Handler) as server:
        edge = Edge(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield edge
        finally:
            with contextlib.suppress(OSError):
                server.shutdown()
            thread.join()
