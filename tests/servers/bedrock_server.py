"""Bedrock's runtime as far as the client needs it: checks each signature by botocore's own code, then answers as told.

Run as a program it prints its port as one line of JSON, and it ends when its standard input closes. The replies to
give, in turn, are the list `replies` in the body of a request, or in its `additionalModelRequestFields`, where AWS's
own SDK lets it pass: a document, an error as `{"status": 429}`, a document in headers as `{"headers": {}, "body": {}}`,
or the frames of a stream, each `[message type, event type, payload]`.
"""

from __future__ import annotations

import importlib
import json
import struct
import sys
import threading
import zlib
from collections import Counter
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ACCESS, SECRET, REGION, BEARER = "AKIDTEST", "right-secret", "us-east-1", "bedrock-key"
TOKEN = "session-token"

_asked: Counter[str] = Counter()


def frame(message_type: str, event_type: str, payload: dict[str, Any]) -> bytes:
    """One message of an event stream, with its checksums."""
    kind = ":exception-type" if message_type == "exception" else ":event-type"
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in ((":message-type", message_type), (kind, event_type), (":content-type", "application/json"))
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self._is_genuine(body):
            error = {"message": "The request signature we calculated does not match the signature you provided."}
            self._answer(403, "application/json", json.dumps(error).encode(), "InvalidSignatureException:http://x/")
            return
        document = json.loads(body)
        replies = document.get("replies") or document["additionalModelRequestFields"]["replies"]
        key = self.path + body.decode()
        number = min(_asked[key], len(replies) - 1)
        _asked[key] += 1
        reply: Any = replies[number]
        if "status" in reply:
            self._answer(reply["status"], "application/json", b'{"message": "Not now"}', "ThrottlingException")
            return
        if "headers" in reply:
            self._answer(200, "application/json", json.dumps(reply["body"]).encode(), **reply["headers"])
            return
        if isinstance(reply, dict):
            seen = {"path": self.path, "body": json.loads(body), "signed": self.headers.get("x-amz-security-token")}
            self._answer(200, "application/json", json.dumps({**reply, "seen": seen}).encode())
            return
        self._answer(200, "application/vnd.amazon.eventstream", b"".join(frame(*each) for each in reply))

    def _is_genuine(self, body: bytes) -> bool:
        given = self.headers["authorization"]
        if given.startswith("Bearer "):
            return given == f"Bearer {BEARER}" and self.headers["x-amz-date"] is None
        return given == self._expected(given, body) and self.headers.get("x-amz-security-token") in (None, TOKEN)

    def _expected(self, given: str, body: bytes) -> str:
        """The header that botocore makes of what came: every name that is said to be signed, and the date."""
        credentials = importlib.import_module("botocore.credentials").Credentials(ACCESS, SECRET)
        auth = importlib.import_module("botocore.auth").SigV4Auth(credentials, "bedrock", REGION)
        names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
        headers = {name: self.headers[name] for name in names}
        url = f"http://{self.headers['host']}{self.path}"
        request = importlib.import_module("botocore.awsrequest").AWSRequest("POST", url, headers, body)
        date = datetime.strptime(self.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
        request.context["timestamp"] = date.strftime("%Y%m%dT%H%M%SZ")
        signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        return (
            f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={';'.join(names)}, Signature={signature}"
        )

    def _answer(self, status: int, content_type: str, body: bytes, error: str | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-amzn-RequestId", "amzn-1")
        if error:
            self.send_header("x-amzn-ErrorType", error)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests read standard output."""


def main() -> None:
    """Serve until standard input closes."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(json.dumps({"port": server.server_address[1]}) + "\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
