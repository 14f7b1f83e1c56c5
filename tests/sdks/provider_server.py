"""An HTTP server that answers each provider's SDK byte for byte, or as badly as a test asks, and keeps a ledger.

Run as a program it prints its port as one line of JSON, and it ends when its standard input closes. The first part of
a request's path is the case that a test has set up; the rest is the provider's own path.

- `PUT /_case/{case}`: the case, as JSON: `Case`
- `GET /_ledger/{case}`: what came and what was answered
"""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import sys
import zlib
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

from tests.sdks.replies import EVERY
from tests.servers.openai_server import Request, end_of_input, read_request
from tests.wire.conforming import Conforming

BACKOFF = {"retry-after-ms": "2", "retry-after": "0.002"}
"""What asks an SDK to come back soon."""

_BEDROCK_ERRORS = {429: "ThrottlingException", 500: "InternalServerException"}


class Action(TypedDict, total=False):
    """What the server does with one request. Without anything it sends the whole reply, or the whole stream."""

    status: int
    """An error status, with the provider's error body."""
    encoding: Literal["gzip", "gzip members", "deflate", "raw deflate", "gzip, deflate", "br", "zstd", "compress"]
    """How the body is compressed; `compress` is a name that nobody knows, and compresses nothing."""
    size: int
    """Bytes of the pieces of a compressed stream; 100 by default."""
    pieces: int
    """Break off after so many pieces of the stream."""
    waits: bool
    """After these pieces wait until the client goes away, in place of breaking off."""
    repeat: list[int]
    """Send the piece at the first position so many more times."""


@dataclass
class Ledger:
    """What came for a case, and what was answered."""

    provider: str = "openai"
    script: list[Action] = field(default_factory=list[Action])
    statuses: list[int] = field(default_factory=list[int])
    paths: list[str] = field(default_factory=list[str])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    bodies: list[str] = field(default_factory=list[str])
    reply_id: str = ""
    """The id of the replies, in place of the one that all have."""
    billed: int = 0
    """The successes that were sent to their end: each has the usage of the provider's replies."""


class Server:
    """All cases."""

    def __init__(self) -> None:
        self._cases: defaultdict[str, Ledger] = defaultdict(Ledger)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive until one side closes it."""
        try:
            while (request := await read_request(reader, 0)) is not None:
                await self._answer(request, reader, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone away, an action has broken the connection, or the server ends
        finally:
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, rest = request.path.lstrip("/").partition("/")
        if first == "_case":
            self._cases[rest] = Ledger(**request.document)
            writer.write(_head(200, {"content-length": "2"}) + b"{}")
        elif first == "_ledger":
            report = json.dumps(asdict(self._cases[rest])).encode()
            writer.write(_head(200, {"content-length": str(len(report))}) + report)
        else:
            await _perform(self._cases[first], f"/{rest}", request, reader, writer)


async def _perform(
    case: Ledger, path: str, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    action = case.script[min(len(case.statuses), len(case.script) - 1)] if case.script else Action()
    status = action.get("status", 200)
    case.statuses.append(status)
    case.paths.append(path)
    case.headers.append(request.headers)
    case.bodies.append(request.body.decode())
    provider = EVERY[case.provider]
    if status != 200:
        body = json.dumps(provider.error_body).encode()
        name = {"x-amzn-errortype": _BEDROCK_ERRORS[status]} if provider.name == "bedrock" else {}
        writer.write(_head(status, {"content-length": str(len(body)), **BACKOFF, **name}) + body)
    elif is_stream(provider, path, request):
        await _stream(case, provider, action, reader, writer)
    else:
        await _whole(case, provider, action, writer)


def is_stream(provider: Conforming, path: str, request: Request) -> bool:
    """Whether the request asks for a stream, by the rule of its provider."""
    if provider.stream_path is not None:
        return path.endswith(urlsplit(provider.stream_path).path.rpartition("/")[2]) or "streamGenerate" in path
    return bool(request.document.get("stream", provider.name == "ollama"))


async def _whole(case: Ledger, provider: Conforming, action: Action, writer: asyncio.StreamWriter) -> None:
    body = compressed(_named(case, provider, json.dumps(provider.whole, ensure_ascii=False).encode()), action)
    writer.write(_head(200, {"content-length": str(len(body)), **_encoding(action)}))
    if "pieces" in action:
        writer.write(body[: len(body) // 2])
        await writer.drain()
        raise ConnectionResetError
    writer.write(body)
    case.billed += 1


async def _stream(
    case: Ledger, provider: Conforming, action: Action, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    headers = {"content-type": provider.content_type, "transfer-encoding": "chunked", **_encoding(action)}
    writer.write(_head(200, headers))
    pieces = [_named(case, provider, piece) for piece in (*provider.pieces, provider.mark)]
    if "repeat" in action:
        at, times = action["repeat"]
        pieces[at:at] = [pieces[at]] * times
    if "encoding" in action:
        body = compressed(b"".join(pieces), action)
        size = action.get("size", 100)
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
    for piece in filter(None, pieces[: action.get("pieces")]):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    if "pieces" in action:
        if action.get("waits"):
            await reader.read()
        raise ConnectionResetError
    writer.write(b"0\r\n\r\n")
    case.billed += 1


def _named(case: Ledger, provider: Conforming, body: bytes) -> bytes:
    """With the id that the case gives its replies."""
    own = provider.whole.get("id") or provider.whole.get("responseId")
    return body.replace(f'"{own}"'.encode(), f'"{case.reply_id}"'.encode()) if case.reply_id and own else body


def compressed(body: bytes, action: Action) -> bytes:
    """The body in the encoding that the action names."""
    match action.get("encoding"):
        case "gzip":
            return gzip.compress(body, mtime=0)
        case "gzip members":
            half = len(body) // 2
            return gzip.compress(body[:half], mtime=0) + gzip.compress(body[half:], mtime=0)
        case "deflate":
            return zlib.compress(body)
        case "raw deflate":
            return zlib.compress(body, wbits=-15)
        case "gzip, deflate":
            return zlib.compress(gzip.compress(body, mtime=0))
        case "br":
            return bytes(importlib.import_module("brotli").compress(body))
        case "zstd":
            return bytes(importlib.import_module("zstandard").compress(body))
        case _:
            return body


def _encoding(action: Action) -> dict[str, str]:
    return (
        {"content-encoding": action["encoding"].removeprefix("raw ").removesuffix(" members")}
        if "encoding" in action
        else {}
    )


def _head(status: int, headers: dict[str, Any]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"content-type": "application/json", **headers}.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode()


async def main() -> None:
    """Serve until standard input closes."""
    server = await asyncio.start_server(Server().serve, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    await end_of_input()


if __name__ == "__main__":
    asyncio.run(main())
