"""Streams with a finish reason, from servers that then send nothing, too little, or something else."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.servers.bedrock_server import frame
from tests.support import Captured
from tracemind_otel import Finish, LLMCallConfig, LLMConnectionError, TextDelta, run_llm_call, stream_llm_call
from tracemind_otel.ai.llm.types import LLMRequest
from tracemind_otel.steps.ai_llm_call import LLMClientFactory

Write = Callable[[bytes], Awaitable[None]]
Script = Callable[[Write, asyncio.StreamWriter], Awaitable[None]]


def sse(*documents: Any) -> bytes:
    """Server-sent events, named after their documents' types."""
    return b"".join(
        f"event: {document.get('type', 'message')}\ndata: {json.dumps(document)}\n\n".encode() for document in documents
    )


def chat(content: str | None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def gemini(text: str | None, reason: str | None = None, usage: bool = True) -> dict[str, Any]:
    parts = [] if text is None else [{"text": text}]
    candidate = {"content": {"parts": parts}, **({"finishReason": reason} if reason else {})}
    counts = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}
    return {"candidates": [candidate], **({"usageMetadata": counts} if usage else {})}


CHAT_USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
MESSAGE = {"id": "msg_1", "model": "claude-sonnet-4-5", "usage": {"input_tokens": 5, "output_tokens": 1}}
MESSAGES = sse(
    {"type": "message_start", "message": MESSAGE},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
)
CONVERSE = frame("event", "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}) + frame(
    "event", "messageStop", {"stopReason": "end_turn"}
)

UNMARKED: dict[str, tuple[str, bytes, bool]] = {
    "gemini": ("gemini", sse(gemini("Hel", usage=False), gemini("lo", "STOP")), True),
    "gemini-in-every-chunk": ("gemini", sse(gemini("Hel", "STOP"), gemini("lo", "STOP")), True),
    "chat": ("openai", sse(chat("Hello"), chat(None, "stop"), {"choices": [], "usage": CHAT_USAGE}), True),
    "chat-without-usage": ("openai", sse(chat("Hello"), chat(None, "stop")), False),
    "anthropic": ("anthropic", MESSAGES, True),
    "bedrock-without-metadata": ("bedrock", CONVERSE, False),
}
"""A provider, what its server sends, and whether usage is among it."""


class Scripted:
    """Answers every request with a script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests = 0
        self.gone = asyncio.Event()
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        await reader.readexactly(next(int(x.split(b":")[1]) for x in lines if b"content-length" in x))
        self.requests += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

        async def write(data: bytes) -> None:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()

        try:
            await self._script(write, writer)
        except ConnectionError:
            pass  # the client has gone, as it may
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def serving(script: Script) -> AsyncGenerator[Scripted]:
    server = Scripted(script)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.base_url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    listening.close()


def client_of(provider: str, base_url: str) -> Any:
    region: Any = {"region": "eu-central-1"} if provider == "bedrock" else {}
    return LLMClientFactory.make(provider, api_key="k", base_url=base_url, **region)


def then_open(data: bytes) -> Script:
    async def script(write: Write, _: asyncio.StreamWriter) -> None:
        await write(data)
        await asyncio.Event().wait()

    return script


@pytest.mark.parametrize("name", UNMARKED)
async def test_a_reply_with_its_finish_reason_is_a_success(capture: Captured, name: str) -> None:
    """A server that keeps the connection open after the finish reason costs a short wait, never the reply."""
    provider, data, is_counted = UNMARKED[name]
    async with serving(then_open(data)) as server, client_of(provider, server.base_url) as client:
        config = LLMCallConfig(provider, "m", prompt="Hi", timeout_ms=1000, max_retries=0)
        async with asyncio.timeout(10), stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            events = [event async for event in stream]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert isinstance(events[-1], Finish)
    assert stream.result is not None
    usage = stream.result["usage"]
    assert (stream.result["status"], usage["estimated"]) == ("ok", not is_counted)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 3) or not is_counted


@pytest.mark.parametrize("name", ["gemini", "chat"])
async def test_a_whole_call_answered_with_such_events_is_a_success(capture: Captured, name: str) -> None:
    """A whole call that is answered with such events succeeds too."""
    provider, data, _ = UNMARKED[name]
    async with serving(then_open(data)) as server, client_of(provider, server.base_url) as client:
        config = LLMCallConfig(provider, "m", prompt="Hi", timeout_ms=1000, max_retries=0)
        async with asyncio.timeout(10):
            result = await run_llm_call("f", "s", config, capture.recorder(), client=client)
    assert (result["status"], result["text"], result["usage"]["total_tokens"]) == ("ok", "Hello", 8)


async def test_pings_behind_a_finish_reason_are_no_reply(capture: Captured) -> None:
    """Endless comments after the whole reply do not keep the call."""

    async def script(write: Write, _: asyncio.StreamWriter) -> None:
        await write(UNMARKED["gemini"][1])
        while True:
            await write(b": ping\n\n")
            await asyncio.sleep(0.05)

    async with serving(script) as server, client_of("gemini", server.base_url) as client:
        config = LLMCallConfig("gemini", "m", prompt="Hi", timeout_ms=1000, max_retries=0)
        async with asyncio.timeout(10), stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            events = [event async for event in stream]
    assert isinstance(events[-1], Finish)


async def test_what_follows_a_finish_reason_belongs_to_the_reply(capture: Captured) -> None:
    """What follows a finish reason is kept, since proxies and older models send one with every chunk."""

    async def script(write: Write, writer: asyncio.StreamWriter) -> None:
        for text in (None, "Hel", "lo ", "there"):
            await write(sse(gemini(text, "STOP")))
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")

    async with serving(script) as server, client_of("gemini", server.base_url) as client:
        config = LLMCallConfig("gemini", "m", prompt="Hi", timeout_ms=2000, max_retries=0)
        async with stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            texts = [event.text async for event in stream if isinstance(event, TextDelta)]
    assert texts == ["Hel", "lo ", "there"]


async def test_usage_that_takes_its_time_is_waited_for(capture: Captured) -> None:
    """Usage that comes some time after the finish reason is waited for."""

    async def script(write: Write, writer: asyncio.StreamWriter) -> None:
        await write(sse(chat("Hello"), chat(None, "stop")))
        await asyncio.sleep(0.5)
        await write(sse({"choices": [], "usage": CHAT_USAGE}) + b"data: [DONE]\n\n")

    async with serving(script) as server, client_of("openai", server.base_url) as client:
        config = LLMCallConfig("openai", "gpt-4o-mini", prompt="Hi", timeout_ms=5000)
        async with stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            _ = [event async for event in stream]
    assert stream.result is not None
    assert (stream.result["usage"]["total_tokens"], stream.result["usage"]["estimated"]) == (8, False)


@pytest.mark.parametrize("resets", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_a_broken_connection_takes_nothing_that_had_come(transport: str, *, resets: bool) -> None:
    """A busy reader gets every delta that was sent before the connection broke, and then the error."""

    async def script(write: Write, writer: asyncio.StreamWriter) -> None:
        for number in range(5):
            await write(sse(chat(str(number))))
            await asyncio.sleep(0.02)
        if resets:
            off = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, off)
            writer.transport.abort()

    given = httpx.AsyncClient() if transport == "httpx" else None
    texts: list[str] = []
    async with serving(script) as server:
        client = LLMClientFactory.make("openai", api_key="k", base_url=server.base_url, http_client=given)

        async def read() -> None:
            async for batch in client.stream(LLMRequest("openai", "m", "Hi")):
                texts.extend(event.text for event in batch if isinstance(event, TextDelta))
                await server.gone.wait()
                await asyncio.sleep(0.1)  # for the kernel to tell of it

        with pytest.raises(LLMConnectionError):
            await read()
        await client.aclose()
    if given is not None:
        await given.aclose()
    assert texts == ["0", "1", "2", "3", "4"]
