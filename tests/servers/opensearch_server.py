"""A real OpenSearch from its jars, and TLS with a password in front of it, which its own plugin would give it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import shutil
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from collector.gateway.maven import COPY_DEPENDENCIES, find_java
from collector.stack.ports import free_ports

from tests.servers import installs

FOLDER = Path(__file__).parent / "opensearch"
PASSED_ON = ("content-type", "content-encoding", "accept", "accept-encoding")


def jars() -> Path:
    """The folder with the jars, fetched the first time."""
    digest = hashlib.sha256((FOLDER / "pom.xml").read_bytes()).hexdigest()[:12]
    return installs.installed(f"opensearch-{digest}", "jars", _fetch)


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn") or "mvn"
    target = ["-DincludeScope=runtime", f"-DoutputDirectory={folder / 'jars'}"]
    command = [maven, "-B", "-q", "-f", str(FOLDER / "pom.xml"), COPY_DEPENDENCIES, *target]
    installs.run_step("opensearch: fetching its jars with Maven", command, folder)


@contextmanager
def opensearch(folder: Path) -> Generator[int]:
    """Start a node that keeps its data in a folder; gives its HTTP port."""
    ports = free_ports()
    http_port, transport_port = ports["otlp_http"], ports["otlp_grpc"]
    (folder / "config").mkdir()
    log = folder / "log"
    command = [find_java(), "-Xmx512m", "-cp", f"{jars()}{os.sep}*", str(FOLDER / "OpenSearchNode.java")]
    with log.open("wb") as out:
        arguments = [str(folder), str(http_port), str(transport_port)]
        process = subprocess.Popen([*command, *arguments], stdout=out, stderr=out)
    try:
        installs.wait_until_ready(process, lambda: urllib.request.urlopen(f"http://127.0.0.1:{http_port}"), log)
        yield http_port
    finally:
        installs.stop(process)


@contextmanager
def secured(port: int, context: ssl.SSLContext, user: str, password: str) -> Generator[str]:
    """An address with TLS that passes requests with this user and password on to a port, and rejects others."""
    credentials = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Guard(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.body()
            if self.headers.get("authorization") != credentials:
                self.answer(401, "text/plain", b"Unauthorized")
                return
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = {name: value for name in PASSED_ON if (value := self.headers.get(name))}
            connection.request(self.command, self.path, body, headers)
            reply = connection.getresponse()
            content, encoding = reply.read(), reply.getheader("content-encoding")
            self.answer(reply.status, reply.getheader("content-type") or "application/json", content, encoding)
            connection.close()

        def body(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("content-length") or 0))
            chunks = b""
            while size := int(self.rfile.readline(), 16):
                chunks += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return chunks

        def answer(self, status: int, kind: str, body: bytes, encoding: str | None = None) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            if encoding:
                self.send_header("content-encoding", encoding)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.pass_on()

        def do_HEAD(self) -> None:
            self.pass_on()

        def do_POST(self) -> None:
            self.pass_on()

        def do_PUT(self) -> None:
            self.pass_on()

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
