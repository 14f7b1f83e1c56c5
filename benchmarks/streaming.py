"""What reading a stream costs, in CPU time of this process for one chunk.

Four ways to read the same stream of Chat Completions (200 chunks, usage in the last) alternate in short slices:

- httpx:   by hand over httpx's own transport: `aiter_bytes`, split at newlines, `json.loads`; no telemetry
- aiohttp: the same by hand over aiohttp
- ours:    `stream_llm_call` over the transport that a client has by itself: typed events, tokens, cost, a span and
           metrics, encoded and sent to a receiver in another process, as `configure()` does it
- ours_quiet: the same with a recorder that does nothing

First all chunks come in one write: `ratio_to_httpx` is ours / httpx, the median of neighbouring slices. Then each
chunk comes alone, half a millisecond after the one before: `over_aiohttp_us` is what a chunk of ours costs more than by
hand, the median of the differences of neighbours: most of such a chunk is waking up, which varies with the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import aiohttp
import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tracemind_otel as tm
from benchmarks.overhead import CONFIG, MODEL, PROMPT, cpu_us
from benchmarks.processes import LeanServer, running, serve
from benchmarks.sink import running_sink
from benchmarks.slices import alternating, stay_on_one_core
from tracemind_otel import Finish, Recorder, TextDelta, stream_llm_call
from tracemind_otel.ai.llm.providers import OpenAILLMClient

Call = Callable[[], Awaitable[None]]

CHUNKS = 200
GAP_S = 0.0005
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


HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_benchmark\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
PIECES = [b"%x\r\n%b\r\n" % (len(event), event) for event in (*map(_chunk, range(CHUNKS)), b"data: [DONE]\n\n")]
"""The events as servers send them: nobody knows the length of a stream before its end."""
PIECES[-1] += b"0\r\n\r\n"
RESPONSE = b"".join((HEAD, *PIECES))


class StreamServer(LeanServer):
    """Answers each request with the whole stream in one write, or below `/alone` with a write for each chunk."""

    def answer(self, request: bytes) -> None:
        if request.startswith(b"POST /alone"):
            threading.Thread(target=self._write_one_by_one, args=(asyncio.get_running_loop(),)).start()
        else:
            self.transport.write(RESPONSE)

    def _write_one_by_one(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: a loop's timers are no finer than a millisecond."""
        for piece in (HEAD, *PIECES):
            time.sleep(GAP_S)
            loop.call_soon_threadsafe(self.transport.write, piece)


def running_server() -> AbstractContextManager[str]:
    """The URL of a server that runs until the block ends."""
    return running("benchmarks.streaming", "--serve")


PAYLOAD = {
    "model": MODEL,
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0.2,
    "top_p": 0.9,
    "stream": True,
    "stream_options": {"include_usage": True},
}
HEADERS = {"authorization": "Bearer benchmark"}


def over_httpx(client: httpx.AsyncClient, base_url: str) -> Call:
    async def call() -> None:
        url = f"{base_url}/chat/completions"
        async with client.stream("POST", url, json=PAYLOAD, headers=HEADERS) as response:
            response.raise_for_status()
            await _parsed_by_hand(response.aiter_bytes())

    return call


def over_aiohttp(session: aiohttp.ClientSession, base_url: str) -> Call:
    async def call() -> None:
        url = f"{base_url}/chat/completions"
        async with session.post(url, json=PAYLOAD, headers=HEADERS) as response:
            response.raise_for_status()
            await _parsed_by_hand(aiter(response.content.iter_any()))

    return call


async def _parsed_by_hand(pieces: AsyncIterator[bytes]) -> None:
    """A stream read as anybody would write it."""
    rest, texts, usage = b"", list[str](), None
    async for data in pieces:
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


async def measure(base_url: str, recorder: Recorder, rounds: int, calls: int) -> dict[str, list[float]]:
    """CPU microseconds a chunk, slice by slice."""
    async with aiohttp.ClientSession() as session, httpx.AsyncClient(timeout=None) as http_client:
        client = OpenAILLMClient("benchmark", base_url, timeout_s=None)
        cases: dict[str, Call] = {
            "httpx": over_httpx(http_client, base_url),
            "aiohttp": over_aiohttp(session, base_url),
            "ours": by_step(client, recorder),
            "ours_quiet": by_step(client, Recorder()),
        }
        for call in cases.values():
            await cpu_us(call, 4 * calls)
        slices = await alternating({name: partial(cpu_us, call, calls) for name, call in cases.items()}, rounds)
        await client.aclose()
        return {name: [cost / CHUNKS for cost in costs] for name, costs in slices.items()}


def ratio(slices: dict[str, list[float]], more: str, less: str) -> float:
    """The median ratio of neighbouring slices: what changes in the machine's load hits both alike."""
    return statistics.median(a / b for a, b in zip(slices[more], slices[less], strict=True))


def over(slices: dict[str, list[float]], more: str, less: str) -> float:
    """The median difference of neighbouring slices."""
    return statistics.median(a - b for a, b in zip(slices[more], slices[less], strict=True))


def report(slices: dict[str, list[float]]) -> dict[str, float]:
    return {
        **{f"{name}_us_per_chunk": round(statistics.median(values), 2) for name, values in slices.items()},
        "ratio_to_httpx": round(ratio(slices, "ours", "httpx"), 2),
        "ratio_to_aiohttp": round(ratio(slices, "ours", "aiohttp"), 2),
        "over_aiohttp_us": round(over(slices, "ours", "aiohttp"), 2),
    }


async def measure_both(base_url: str, sink_url: str, rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """The figures for chunks in one write, and for chunks that come alone."""
    telemetry = tm.configure(service_name="benchmark", endpoint=sink_url, instrument=False)
    together = await measure(f"{base_url}/v1", telemetry.recorder, rounds, calls)
    alone = await measure(f"{base_url}/alone/v1", telemetry.recorder, rounds, max(1, calls // 12))
    await asyncio.to_thread(telemetry.shutdown)
    return {"in_one_write": report(together), "alone": report(alone)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="slices of each way (default 40)")
    parser.add_argument("--calls", type=int, default=12, help="streams in a slice (default 12)")
    parser.add_argument("--serve", action="store_true", help="be the server that answers (used by the program itself)")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(StreamServer))
        return
    with running_server() as base_url, running_sink() as sink_url:
        stay_on_one_core()
        figures = asyncio.run(measure_both(base_url, sink_url, options.rounds, options.calls))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
