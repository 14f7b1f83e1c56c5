"""What `instrument()` costs, in CPU time of this process with all its threads.

The same request over a mock transport, without `instrument()` and with it, alternates in short slices. All figures are
medians of the differences of neighbouring slices, in microseconds:

- unrelated:     a POST that calls no model
- call:          a whole model call, with a span, tokens, cost and metrics on what `configure()` makes
- call_async:    the same with the asynchronous client
- chunk_of_200:  a chunk of 190 bytes in a stream of 200; what the call itself costs is shared out among them
- chunk_of_100k: a chunk in a stream of 100,000
- memory_100k_kib: KiB that a stream of 100,000 chunks holds at most, in all code, without and with `instrument()`

The `sdk_...` figures are of a call and a chunk by OpenAI's SDK: alone (`base`), and what `instrument()` and each
installed instrumentation of others adds to it. Each of them is the only one that is on in its slices.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx2
from openai import OpenAI
from openai.resources.chat.completions import Completions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tracemind_otel as tm
from benchmarks.overhead import MODEL, PROMPT, new_providers, recorder_of_configure
from benchmarks.slices import stay_on_one_core

Call = Callable[[], object]

URL = "https://api.openai.com/v1/chat/completions"
UNRELATED = "https://api.example.com/v1/orders"
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0.2,
    "top_p": 0.9,
}
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
REPLY = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1792000000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 400, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
    }
).encode()

MANY = 100_000
"""Chunks of the long stream."""
FEW = 200
"""Chunks of the short one."""


def _chunk(delta: Mapping[str, str], reason: str | None = None, usage: object = None) -> bytes:
    document = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "model": MODEL,
        "choices": [] if usage else [{"index": 0, "delta": delta, "finish_reason": reason}],
        "usage": usage,
    }
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


CHUNK = _chunk({"content": " word and more"})
END = [_chunk({}, "stop"), _chunk({}, usage=USAGE), b"data: [DONE]\n\n"]


class Chunks(httpx.SyncByteStream, httpx2.SyncByteStream):
    """A stream of so many chunks."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self._count - len(END)):
            yield CHUNK
        yield from END


def answered(request: Any, library: Any) -> Any:
    """The reply of the server that is not there; the header `x-chunks` asks for a stream."""
    if count := request.headers.get("x-chunks"):
        headers = {"content-type": "text/event-stream", "x-request-id": "req_benchmark"}
        return library.Response(200, headers=headers, stream=Chunks(int(count)))
    headers = {"content-type": "application/json", "x-request-id": "req_benchmark"}
    return library.Response(200, headers=headers, content=REPLY)


TRANSPORT = httpx.MockTransport(lambda request: answered(request, httpx))


def posting(client: httpx.Client, url: str) -> Call:
    return lambda: client.post(url, json=BODY).raise_for_status()


def streaming(client: httpx.Client, chunks: int) -> Call:
    def call() -> None:
        headers = {"x-chunks": str(chunks)}
        with client.stream("POST", URL, json={**BODY, "stream": True}, headers=headers) as response:
            for _ in response.iter_raw():
                pass

    return call


# --- What is on in a slice


@dataclass(frozen=True)
class Way:
    """A way to see model calls."""

    on: Callable[[], object]
    """Turns it on."""
    off: Callable[[], object]
    """Turns it off."""


NOTHING = Way(lambda: None, lambda: None)
OURS = Way(tm.instrument, tm.uninstrument)
OTHERS = {
    "opentelemetry-instrumentation-genai-openai": "opentelemetry.instrumentation.genai.openai",
    "opentelemetry-instrumentation-openai": "opentelemetry.instrumentation.openai",
    "openinference-instrumentation-openai": "openinference.instrumentation.openai",
}
"""Instrumentations of others, by package: the module of their `OpenAIInstrumentor`."""


PATCHED = (OpenAI, Completions)
"""The classes of the SDK whose methods they replace."""


def way_of(module: str) -> Way | None:
    """The instrumentation of a module; `None` if it is not installed.

    It is turned on once. Then its methods come and go, since not every `uninstrument()` restores the SDK's.
    """
    try:
        instrumentor = importlib.import_module(module).OpenAIInstrumentor()
    except ImportError:
        return None
    tracer_provider, meter_provider = new_providers()
    before = {kind: dict(vars(kind)) for kind in PATCHED}
    instrumentor.instrument(tracer_provider=tracer_provider, meter_provider=meter_provider)
    replaced = [
        (kind, name, value, before[kind].get(name, getattr(kind.__mro__[1], name, None)))
        for kind in PATCHED
        for name, value in vars(kind).items()
        if before[kind].get(name) is not value and not name.startswith("__")
    ]

    def on() -> None:
        for kind, name, theirs, _ in replaced:
            setattr(kind, name, theirs)

    def off() -> None:
        for kind, name, _, own in replaced:
            setattr(kind, name, own)

    assert replaced, f"{module} replaces no method of {PATCHED}"
    off()
    return Way(on, off)


# --- Measuring


def cpu_us(call: Call, calls: int) -> float:
    """CPU microseconds of the process for one call, over a slice of calls."""
    started = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - started) / calls * 1e6


def slices_of(call: Call, ways: Mapping[str, Way], rounds: int, calls: int) -> dict[str, list[float]]:
    """CPU microseconds of a call, slice by slice and way by way."""
    slices: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for round_number in range(-1, rounds):
        # Another one begins each time, and the order turns round, so that none always follows the same neighbour. The
        # first round is no figure.
        first = round_number % len(names)
        order = names[first:] + names[:first]
        for name in order if round_number % 2 else reversed(order):
            ways[name].on()
            call()
            spent = cpu_us(call, calls)
            ways[name].off()
            if round_number >= 0:
                slices[name].append(spent)
    return slices


def added(slices: Mapping[str, list[float]], name: str) -> float:
    """The median difference to the neighbouring slice without: the machine's load hits both alike."""
    return statistics.median(more - less for more, less in zip(slices[name], slices["base"], strict=True))


def wire_figures(rounds: int, calls: int) -> dict[str, object]:
    """What `instrument()` adds to requests by httpx."""
    ways = {"base": NOTHING, "ours": OURS}
    figures: dict[str, object] = {}

    def note(name: str, call: Call, calls: int, *, rounds: int = rounds, parts: int = 1) -> None:
        slices = slices_of(call, ways, rounds, calls)
        figures[f"{name}_base_us"] = round(statistics.median(slices["base"]) / parts, 2)
        figures[f"{name}_added_us"] = round(added(slices, "ours") / parts, 2)

    with asyncio.Runner() as runner, httpx.Client(transport=TRANSPORT) as client:
        async_client = httpx.AsyncClient(transport=TRANSPORT)

        async def ten_calls() -> None:
            for _ in range(10):
                (await async_client.post(URL, json=BODY)).raise_for_status()

        note("unrelated", posting(client, UNRELATED), calls * 4)
        note("call", posting(client, URL), calls)
        note("call_async", lambda: runner.run(ten_calls()), max(1, calls // 10), parts=10)
        note("chunk_of_200", streaming(client, FEW), max(1, calls // 8), parts=FEW)
        note("chunk_of_100k", streaming(client, MANY), 1, rounds=3, parts=MANY)
        runner.run(async_client.aclose())
        for name, way in ways.items():
            figures[f"memory_100k_{name}_kib"] = peak_kib(streaming(client, MANY), way)
    return figures


def peak_kib(call: Call, way: Way) -> int:
    """The most that a call holds, in KiB, beyond what was there before."""
    way.on()
    call()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    way.off()
    return (peak - before) // 1024


def sdk_figures(rounds: int, calls: int) -> dict[str, object]:
    """What `instrument()` and the instrumentations of others add to calls by OpenAI's SDK."""
    found = {package: way_of(module) for package, module in OTHERS.items()}
    installed = {package: way for package, way in found.items() if way is not None}
    ways = {"base": NOTHING, "tracemind-otel": OURS, **installed}
    missing: dict[str, object] = {package: "not installed" for package, way in found.items() if way is None}
    transport = httpx2.MockTransport(lambda request: answered(request, httpx2))
    with httpx2.Client(transport=transport) as http_client:
        client: Any = OpenAI(api_key="sk-benchmark", http_client=http_client)

        def call() -> None:
            asked: Any = BODY
            assert client.chat.completions.create(**asked).usage is not None

        def stream() -> None:
            asked: Any = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
            chunks = client.chat.completions.create(**asked, extra_headers={"x-chunks": str(FEW)})
            assert sum(1 for _ in chunks) == FEW - 1

        whole = slices_of(call, ways, rounds, max(1, calls // 4))
        streamed = slices_of(stream, ways, max(3, rounds // 4), 2)
    return {"sdk_call_us": _compared(whole, 1) | missing, "sdk_chunk_us": _compared(streamed, FEW) | missing}


def _compared(slices: Mapping[str, list[float]], parts: int) -> dict[str, object]:
    figures: dict[str, object] = {"base": round(statistics.median(slices["base"]) / parts, 2)}
    return figures | {name: round(added(slices, name) / parts, 2) for name in slices if name != "base"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="slices of each way (default 20)")
    parser.add_argument("--calls", type=int, default=40, help="calls in a slice (default 40)")
    parser.add_argument("--no-sdk", action="store_true", help="leave out the calls by OpenAI's SDK")
    options = parser.parse_args()
    stay_on_one_core()
    recorder_of_configure()
    tm.instrument()
    tm.uninstrument()
    gc.collect()
    gc.freeze()
    figures = wire_figures(options.rounds, options.calls)
    if not options.no_sdk:
        figures |= sdk_figures(options.rounds, options.calls)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
