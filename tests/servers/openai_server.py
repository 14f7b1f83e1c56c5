"""An HTTP server that answers like OpenAI's Chat Completions, or as badly as a test asks.

Run as a program it prints its port as one line of JSON, and it ends when its standard input closes, so that it
never outlives the tests. The request's `model` selects a script, a list of actions, one for each attempt; after
its end the last action is repeated. A model without a script gets the echo.

- `PUT /_script/{key}`: the script, as JSON; what an action may hold is in `Action`
- `GET /_requests/{key}?count=N`: waits until N requests came, then returns them
- `GET /_aborted/{key}?count=N`: waits until N of them were given up by the client, then returns how many
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import socket
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast
from urllib.parse import parse_qs, urlsplit

REPLY_MODEL = "gpt-4o-mini-2024-07-18"
"""The model that every echo names, whatever was asked for: one that has a price."""


class Action(TypedDict, total=False):
    """What the server does with one request. Without anything it sends the echo."""

    do: Literal["echo", "reply", "reset", "cut", "hang"]
    """`reset` and `cut` break off half-way through the body, with RST and with FIN."""
    status: int
    headers: Mapping[str, str]
    body: str
    """Text; a lone surrogate like U+DCFF stands for a byte that is no UTF-8."""
    gzip: bool
    delay_s: float
    split_at: list[int]
    """Send the body in pieces that end at these positions, each as a packet of its own."""


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def query_count(self) -> int:
        return int(parse_qs(urlsplit(self.path).query).get("count", ["0"])[0])

    @property
    def document(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.body))

    def report(self) -> dict[str, Any]:
        """The request, as the test gets it."""
        return {
            "path": self.path,
            "headers": self.headers,
            "body": self.document,
            "connection": self.connection,
        }


@dataclass
class Scenario:
    """The attempts that share a key."""

    script: list[Action] = field(default_factory=list[Action])
    requests: list[Request] = field(default_factory=list[Request])
    aborted: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def receive(self, request: Request) -> Action:
        """Keep a request; returns the action for it."""
        async with self.changed:
            self.requests.append(request)
            self.changed.notify_all()
        if not self.script:
            return {"do": "echo"}
        return self.script[min(len(self.requests), len(self.script)) - 1]

    async def abort(self) -> None:
        """Note that the client has closed its connection."""
        async with self.changed:
            self.aborted += 1
            self.changed.notify_all()


class Server:
    """All scenarios, for the API and for the tests' own paths."""

    def __init__(self) -> None:
        self._scenarios: defaultdict[str, Scenario] = defaultdict(Scenario)
        self._connections = itertools.count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive until one side closes it."""
        number = next(self._connections)
        try:
            while (request := await read_request(reader, number)) is not None:
                await self._answer(request, reader, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone away, or an action has broken the connection
        finally:
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door, _, key = urlsplit(request.path).path.lstrip("/").partition("/")
        if door == "_script":
            self._scenarios[key] = Scenario(json.loads(request.body))
            writer.write(reply_bytes(200, "{}"))
        elif door in ("_requests", "_aborted"):
            writer.write(reply_bytes(200, await self._report(door, key, request.query_count)))
        else:
            scenario = self._scenarios[request.document["model"]]
            await perform(await scenario.receive(request), request, scenario, reader, writer)

    async def _report(self, door: str, key: str, count: int) -> str:
        scenario = self._scenarios[key]
        async with scenario.changed:
            if door == "_aborted":
                await scenario.changed.wait_for(lambda: scenario.aborted >= count)
                return json.dumps(scenario.aborted)
            await scenario.changed.wait_for(lambda: len(scenario.requests) >= count)
        return json.dumps([each.report() for each in scenario.requests])


async def read_request(reader: asyncio.StreamReader, connection: int) -> Request | None:
    """The next request of a connection; `None` when the client has closed it."""
    start = await reader.readline()
    if not start:
        return None
    method, path, _ = start.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while (line := (await reader.readline()).strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body, connection)


async def perform(
    action: Action,
    request: Request,
    scenario: Scenario,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Do the scripted action."""
    what = action.get("do", "reply" if "body" in action or "status" in action else "echo")
    await asyncio.sleep(action.get("delay_s", 0.0))
    if what == "hang":
        try:
            await reader.read()
        finally:
            await scenario.abort()
        raise ConnectionResetError
    whole = _whole_reply(what, action, request)
    if what in ("reset", "cut"):
        writer.write(whole[: -max(len(whole.partition(b"\r\n\r\n")[2]) // 2, 1)])
        await writer.drain()
        if what == "reset":
            _make_close_a_reset(writer)
        raise ConnectionResetError
    if "split_at" in action:
        await _write_in_pieces(whole, action["split_at"], writer)
    else:
        writer.write(whole)


async def _write_in_pieces(whole: bytes, positions: list[int], writer: asyncio.StreamWriter) -> None:
    start = whole.index(b"\r\n\r\n") + 4
    ends = [start + position for position in sorted(positions) if start + position < len(whole)]
    for begin, end in zip([0, *ends], [*ends, len(whole)], strict=True):
        writer.write(whole[begin:end])
        await writer.drain()
        # One turn of the loop, so that the kernel sends what was written.
        await asyncio.sleep(0.001)


def _whole_reply(what: str, action: Action, request: Request) -> bytes:
    has_body = what == "reply" or "body" in action
    body = action.get("body", "") if has_body else json.dumps(echo(request.document))
    return reply_bytes(action.get("status", 200), body, action.get("headers", {}), compress=action.get("gzip", False))


def _make_close_a_reset(writer: asyncio.StreamWriter) -> None:
    """A lingering time of zero makes the kernel answer with RST instead of FIN."""
    connection = cast("socket.socket", writer.get_extra_info("socket"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def reply_bytes(status: int, body: str, headers: Mapping[str, str] | None = None, *, compress: bool = False) -> bytes:
    """A reply with the headers that OpenAI sends; those given win."""
    content = body.encode(errors="surrogateescape")
    if compress:
        content = gzip.compress(content)
    all_headers = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        "x-request-id": "req_00112233445566778899aabbccddeeff",
        "openai-processing-ms": "412",
        "openai-version": "2020-10-01",
        "x-ratelimit-remaining-requests": "9999",
        **({"content-encoding": "gzip"} if compress else {}),
        **(headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
    return f"HTTP/1.1 {status} Scripted\r\n{lines}\r\n".encode() + content


def echo(document: Mapping[str, Any]) -> dict[str, Any]:
    """A reply in the recorded shape; its id and its text say what was asked."""
    prompt = str(document["messages"][-1]["content"])
    return {
        "id": f"chatcmpl-{prompt}",
        "object": "chat.completion",
        "created": 1792000000,
        "model": REPLY_MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": f"echo: {prompt}", "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "total_tokens": 1200,
            "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 50, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
    }


async def main() -> None:
    """Serve until standard input closes."""
    server = await asyncio.start_server(Server().serve, "127.0.0.1", 0, backlog=2048)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()
    await end_of_input()


async def end_of_input() -> None:
    """Return when standard input closes, as it does when the tests end."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wait() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
