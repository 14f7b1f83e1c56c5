"""OTLP receivers, over HTTP and over gRPC, that answer each request as a script says, and keep what came."""

from __future__ import annotations

import gzip
import importlib
import ssl
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

GRPC: Any = importlib.import_module("grpc")
"""Untyped."""

Behaviour = Literal["answers", "hangs", "cuts before reading", "cuts before answering", "cuts the answer"]


@dataclass(frozen=True)
class Reply:
    """How one request is answered."""

    status: int | str = 200
    """The HTTP status, or the name of the gRPC code."""
    body: bytes = b""
    headers: Mapping[str, str | bytes] = field(default_factory=dict[str, str | bytes])
    """The headers; over gRPC the trailing metadata."""
    message: str = "no"
    """The message of the gRPC status."""
    behaviour: Behaviour = "answers"


TAKES = Reply()
Script = Callable[["Request"], Reply]


@dataclass(frozen=True)
class Request:
    """One request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    """The body, decompressed."""
    came_at: float
    """When, by the monotonic clock."""
    client: object
    """The connection that it came by."""

    @property
    def span_ids(self) -> list[bytes]:
        """The ids of the spans in it."""
        request = ExportTraceServiceRequest.FromString(self.body)
        scopes = [scope for resource in request.resource_spans for scope in resource.scope_spans]
        return [span.span_id for scope in scopes for span in scope.spans]


class Receiver:
    """The tests' end of a receiver."""

    def __init__(self, *replies: Reply, script: Script | None = None) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.released = threading.Event()
        """Ends the requests that hang."""
        self._replies = deque(replies)
        self._script = script
        self._changed = threading.Condition()

    def answer_next(self, *replies: Reply) -> None:
        """How the next requests are answered; those after them are taken."""
        self._replies.extend(replies)

    def cuts_next(self) -> bool:
        """Whether the next request is cut before it is read."""
        with self._changed:
            cuts = bool(self._replies) and self._replies[0].behaviour == "cuts before reading"
            if cuts:
                self._replies.popleft()
            return cuts

    def reply_to(self, request: Request) -> Reply:
        """Keep a request; returns how to answer it."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            if self._replies:
                return self._replies.popleft()
        return TAKES if self._script is None else self._script(request)

    def wait_for(self, count: int, timeout_s: float = 20.0) -> list[Request]:
        """The first requests, as soon as so many have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, timeout_s), len(self.requests)
            return self.requests[:count]

    def span_ids(self, requests: Iterable[Request] | None = None) -> list[bytes]:
        """The ids of all spans that came."""
        return [each for request in requests or self.requests for each in request.span_ids]


@contextmanager
def http_receiver(
    *replies: Reply, script: Script | None = None, tls: ssl.SSLContext | None = None
) -> Generator[Receiver]:
    """A receiver over HTTP on its own port, which keeps connections open."""
    receiver = Receiver(*replies, script=script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            if receiver.cuts_next():
                self.close_connection = True
                return
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            plain = decompressed(body, headers.get("content-encoding", ""))
            request = Request(self.path, headers, plain, time.monotonic(), self.client_address)
            self.answer(receiver.reply_to(request))

        def answer(self, reply: Reply) -> None:
            if reply.behaviour == "hangs":
                receiver.released.wait(60)
            if reply.behaviour in ("hangs", "cuts before answering"):
                self.close_connection = True
                return
            self.send_response(int(reply.status))
            for name, value in reply.headers.items():
                self.send_header(name, str(value))
            missing = 10 if reply.behaviour == "cuts the answer" else 0
            self.send_header("content-length", str(len(reply.body) + missing))
            self.end_headers()
            self.wfile.write(reply.body)
            self.close_connection = self.close_connection or missing > 0

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            if tls is None:
                return connection, address
            return tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    with Server(("127.0.0.1", 0), Handler) as server:
        scheme = "http" if tls is None else "https"
        receiver.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/v1/traces"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.released.set()
            server.shutdown()
            thread.join()


def decompressed(body: bytes, encoding: str) -> bytes:
    """The body that a client compressed."""
    if encoding == "gzip":
        return gzip.decompress(body)
    return zlib.decompress(body) if encoding == "deflate" else body


@contextmanager
def grpc_receiver(*replies: Reply, script: Script | None = None, identity: bytes | None = None) -> Generator[Receiver]:
    """A receiver of traces over gRPC on its own port; a key and a certificate make it speak TLS."""
    receiver = Receiver(*replies, script=script)

    def export(body: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        reply = receiver.reply_to(Request("", metadata, body, time.monotonic(), context.peer()))
        if reply.behaviour == "hangs":
            receiver.released.wait(60)
        context.set_trailing_metadata(tuple(reply.headers.items()))
        if isinstance(reply.status, str):
            context.abort(GRPC.StatusCode[reply.status], reply.message)
        return reply.body

    server = GRPC.server(ThreadPoolExecutor(4))
    method = GRPC.unary_unary_rpc_method_handler(export)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((GRPC.method_handlers_generic_handler(service, {"Export": method}),))
    if identity is None:
        receiver.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        credentials = GRPC.ssl_server_credentials([(identity, identity)])
        receiver.url = f"https://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.stop(None).wait()
