"""What a decorated function costs where nothing is traced: no provider is configured.

Each kind of function is timed bare and decorated, in short slices that alternate; the figure is the median
difference, in microseconds of CPU time for one call, or for one item of a generator. The aim: under 3 for a call
(flows with ids or limits do work that is asked for, and may take more).
With `--traced` the same on a pipeline whose exporter drops the spans.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tracemind_otel as tm
from benchmarks.overhead import new_providers
from tracemind_otel.otel.current import Providers, use_providers

Slice = Callable[[int], Awaitable[None]]
"""Makes so many calls, or takes so many items."""

DECORATORS: dict[str, Callable[[Any], Any]] = {
    "flow": tm.flow,
    "agent": tm.agent,
    "tool": tm.tool,
    "step": tm.step,
    "flow_with_ids": tm.flow(session_id="s-1", tags=["beta"]),
    "flow_with_id_function": tm.flow(session_id=lambda *_, **__: "s-1"),  # pyright: ignore[reportUnknownLambdaType]
    "flow_with_budget": tm.flow(max_llm_calls=5),
}


def function(a: int, *, b: int = 0) -> int:
    return a + b


async def coroutine(a: int, *, b: int = 0) -> int:
    return a + b


def generator(items: int) -> Generator[int]:
    yield from range(items)


async def async_generator(items: int) -> AsyncGenerator[int]:
    for item in range(items):
        yield item


def calls_of(work: Callable[..., int]) -> Slice:
    async def run(times: int) -> None:
        for _ in range(times):
            work(1, b=2)

    return run


def awaits_of(work: Callable[..., Awaitable[int]]) -> Slice:
    async def run(times: int) -> None:
        for _ in range(times):
            await work(1, b=2)

    return run


def items_of(work: Callable[[int], Generator[int]]) -> Slice:
    async def run(times: int) -> None:
        for _ in work(times):
            pass

    return run


def async_items_of(work: Callable[[int], AsyncGenerator[int]]) -> Slice:
    async def run(times: int) -> None:
        async for _ in work(times):
            pass

    return run


KINDS: dict[str, tuple[Any, Callable[[Any], Slice]]] = {
    "function": (function, calls_of),
    "coroutine": (coroutine, awaits_of),
    "generator_item": (generator, items_of),
    "async_generator_item": (async_generator, async_items_of),
}


async def cpu_us(run: Slice, times: int) -> float:
    started = time.process_time()
    await run(times)
    return (time.process_time() - started) / times * 1e6


async def added_us(bare: Slice, decorated: Slice, rounds: int, times: int) -> float:
    """The median difference of neighbouring slices: what changes in the machine's load hits both alike."""
    await cpu_us(decorated, times)
    return statistics.median([-await cpu_us(bare, times) + await cpu_us(decorated, times) for _ in range(rounds)])


async def measure(rounds: int, times: int) -> dict[str, dict[str, float]]:
    gc.collect()
    gc.freeze()
    figures: dict[str, dict[str, float]] = {}
    for kind, (work, slice_of) in KINDS.items():
        bare = slice_of(work)
        figures[f"{kind}_us"] = {
            name: round(await added_us(bare, slice_of(decorate(work)), rounds, times), 2)
            for name, decorate in DECORATORS.items()
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40, help="slices of each way (default 40)")
    parser.add_argument("--times", type=int, default=2000, help="calls or items in a slice (default 2000)")
    parser.add_argument("--traced", action="store_true", help="on a pipeline that drops the spans")
    options = parser.parse_args()
    if options.traced:
        tracer_provider, meter_provider = new_providers()
        use_providers(Providers(tracer_provider=tracer_provider, meter_provider=meter_provider))
    print(json.dumps(asyncio.run(measure(options.rounds, options.times)), indent=2))


if __name__ == "__main__":
    main()
