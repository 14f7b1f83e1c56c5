"""What reading a stream costs, in CPU time of this process for one chunk.

Four ways to read the same stream of Chat Completions (200 chunks in one write, usage in the last) alternate in
short slices:

- httpx:   by hand over httpx's own transport: `aiter_bytes`, split at newlines, `json.loads`; no telemetry
- aiohttp: the same by hand over the aiohttp transport
- ours:    `stream_llm_call` over the transport that a client has by itself: typed events, tokens, cost, a span and
           metrics, on what `configure()` makes
- ours_quiet: the same with a recorder that does nothing

`ratio_to_httpx` is ours / httpx and `ratio_to_aiohttp` is ours / aiohttp, medians of neighbouring slices.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
from httpx_aiohttp import HttpxAiohttpClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.overhead import CONFIG, MODEL, PROMPT, cpu_us, recorder_of_configure
from tracemind_otel import Finish, Recorder, TextDelta, stream_llm_call
from tracemind_otel.ai.llm.providers import OpenAILLMClient

Call = Callable[[], Awaitable[None]]

CHUNKS = 200
WORD = "word "


def _chunk(number: int) -> bytes:
    """One chunk in the shape that OpenAI sends; the last two bring the finish reason and the usage."""
    is_over = number >= CHUNKS - 2
    choice = {
        "index": 0,
        "delta": {} if is_over else {"content": WORD},
        "logprobs": None,
        "finish_reason": "stop" if is_over else None,
    }
    is_last = number == CHUNKS - 1
    document = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1792000000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
        "choices": [] if is_last else [choice],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 198, "total_tokens": 1198} if is_last else None,
        "obfuscation": "a1B2c3D4e5",
    }
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


BODY = b"".join(_chunk(number) for number in range(CHUNKS)) + b"data: [DONE]\n\n"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_benchmark\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class _Streams(asyncio.Protocol):
    """Answers each request with the whole stream in one write."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length:" in line)
        if len(rest) >= length:
            self._received = rest[length:]
            self._transport.write(RESPONSE)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Streams, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


@contextmanager
def running_server() -> Generator[str]:
    """The base URL of a server that runs until the block ends."""
    program = [sys.executable, os.path.abspath(__file__), "--serve"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        process.communicate()


def by_hand(client: httpx.AsyncClient, base_url: str) -> Call:
    """A stream read as anybody would write it."""
    payload = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0.2,
        "top_p": 0.9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    async def call() -> None:
        rest, texts, usage = b"", list[str](), None
        headers = {"authorization": "Bearer benchmark"}
        async with client.stream("POST", f"{base_url}/chat/completions", json=payload, headers=headers) as response:
            response.raise_for_status()
            async for data in response.aiter_bytes():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if not line.startswith(b"data: ") or line == b"data: [DONE]":
                        continue
                    document = json.loads(line[6:])
                    usage = document.get("usage") or usage
                    if document["choices"] and (text := document["choices"][0]["delta"].get("content")):
                        texts.append(text)
        assert len(texts) == CHUNKS - 2
        assert usage is not None

    return call


def by_step(client: OpenAILLMClient, recorder: Recorder) -> Call:
    """The step, read to its end."""

    async def call() -> None:
        texts, end = list[str](), None
        async with stream_llm_call("flow", "step", CONFIG, recorder, client=client) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    texts.append(event.text)
                elif isinstance(event, Finish):
                    end = event.response
        assert len(texts) == CHUNKS - 2
        assert end is not None
        assert end.usage.cost_usd is not None

    return call


async def measure(base_url: str, rounds: int, calls: int) -> dict[str, list[float]]:
    """CPU microseconds a chunk, slice by slice."""
    async with HttpxAiohttpClient(timeout=None) as over_aiohttp, httpx.AsyncClient(timeout=None) as over_httpx:
        client = OpenAILLMClient("benchmark", base_url, timeout_s=None)
        cases: dict[str, Call] = {
            "httpx": by_hand(over_httpx, base_url),
            "aiohttp": by_hand(over_aiohttp, base_url),
            "ours": by_step(client, recorder_of_configure()),
            "ours_quiet": by_step(client, Recorder()),
        }
        for call in cases.values():
            await cpu_us(call, 4 * calls)
        gc.collect()
        gc.freeze()
        slices: dict[str, list[float]] = {name: [] for name in cases}
        names = list(cases)
        for round_number in range(rounds):
            # Another one begins each time, so that none always follows the same neighbour.
            first = round_number % len(names)
            for name in names[first:] + names[:first]:
                slices[name].append(await cpu_us(cases[name], calls) / CHUNKS)
        return slices


def ratio(slices: dict[str, list[float]], more: str, less: str) -> float:
    """The median ratio of neighbouring slices: what changes in the machine's load hits both alike."""
    return statistics.median(a / b for a, b in zip(slices[more], slices[less], strict=True))


def report(slices: dict[str, list[float]]) -> dict[str, float]:
    return {
        **{f"{name}_us_per_chunk": round(statistics.median(values), 2) for name, values in slices.items()},
        "ratio_to_httpx": round(ratio(slices, "ours", "httpx"), 2),
        "ratio_to_aiohttp": round(ratio(slices, "ours", "aiohttp"), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="slices of each way (default 40)")
    parser.add_argument("--calls", type=int, default=12, help="streams in a slice (default 12)")
    parser.add_argument("--serve", action="store_true", help="be the server that answers (used by the program itself)")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve())
        return
    with running_server() as base_url:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[-1]})
        figures = report(asyncio.run(measure(base_url, options.rounds, options.calls)))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
