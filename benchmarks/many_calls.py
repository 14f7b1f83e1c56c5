"""What whole calls cost at 32 at a time, in CPU time of this process with all its threads.

- httpx: the request over httpx's own transport, its JSON read; no telemetry
- hand:  the same with hand-written OpenTelemetry and the official exporters over HTTP
- step:  the step on what `configure()` makes, with the transport that a client has by itself

Slices of the three alternate, and a slice ends with a flush. The ratios are medians of neighbouring slices.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tracemind_otel as tm
from benchmarks.exporting import Flush, hand_written
from benchmarks.overhead import BareCall, Call, step_call
from benchmarks.server import running_server
from benchmarks.sink import running_sink
from benchmarks.slices import alternating, stay_on_one_core
from tracemind_otel.ai.llm.providers import OpenAILLMClient

CONCURRENT = 32


async def cpu_us(call: Call, flush: Flush, calls: int) -> tuple[float, float]:
    """CPU microseconds of the process for one call, and calls a second."""

    async def some() -> None:
        for _ in range(calls // CONCURRENT):
            await call()

    began, started = time.perf_counter(), time.process_time()
    await asyncio.gather(*(some() for _ in range(CONCURRENT)))
    ended = time.perf_counter()
    flush()
    return (time.process_time() - started) / calls * 1e6, calls / (ended - began)


async def measure(base_url: str, sink_url: str, rounds: int, calls: int) -> dict[str, list[tuple[float, float]]]:
    limits = httpx.Limits(max_connections=1000, max_keepalive_connections=1000)
    async with httpx.AsyncClient(timeout=None, limits=limits) as http_client:
        client = OpenAILLMClient("benchmark", base_url, timeout_s=None)
        telemetry = tm.configure(service_name="benchmark", endpoint=sink_url, instrument=False)
        bare = BareCall(http_client, base_url)
        cases: dict[str, tuple[Call, Flush]] = {
            "httpx": (bare, lambda: None),
            "hand": hand_written(bare, client, sink_url),
            "step": (step_call(client, telemetry.recorder), telemetry.flush),
        }
        for case in cases.values():
            await cpu_us(*case, calls)
        slices = await alternating({name: partial(cpu_us, *case, calls) for name, case in cases.items()}, rounds)
        await telemetry.ashutdown()
        return slices


def report(slices: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    costs = {name: [cost for cost, _ in values] for name, values in slices.items()}
    return {
        **{f"{name}_us": round(statistics.median(values), 1) for name, values in costs.items()},
        **{
            f"{name}_calls_per_s": round(statistics.median(rate for _, rate in values))
            for name, values in slices.items()
        },
        **{
            f"ratio_to_{name}": round(
                statistics.median(ours / theirs for ours, theirs in zip(costs["step"], costs[name], strict=True)), 2
            )
            for name in ("httpx", "hand")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="slices of each way (default 20)")
    parser.add_argument("--calls", type=int, default=256, help="calls in a slice (default 256)")
    options = parser.parse_args()
    with running_server() as base_url, running_sink() as sink_url:
        stay_on_one_core()
        figures = report(asyncio.run(measure(base_url, sink_url, options.rounds, options.calls)))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
