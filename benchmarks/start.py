"""What the start costs, in fresh processes: `configure()`, the first call's stall of the event loop, and memory.

Each figure is the median of several processes. CPU time is that of the process with all its threads. A stall is the
time by which a task that sleeps for a millisecond wakes up too late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TICK_S = 0.001


def rss_mib() -> float:
    """The resident memory now; `ru_maxrss` is the peak and includes the interpreter's start."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _longest_stall_ms(work: asyncio.Task[object]) -> float:
    longest_s = 0.0
    while not work.done():
        before = time.perf_counter()
        await asyncio.sleep(TICK_S)
        longest_s = max(longest_s, time.perf_counter() - before - TICK_S)
    return longest_s * 1000


async def _first_call(base_url: str) -> dict[str, float]:
    import tracemind_otel as tm

    client = tm.LLMClientFactory.make("openai", api_key="benchmark", base_url=base_url)

    async def call() -> float | None:
        return (await tm.llm_call("openai/gpt-4o-mini", "Why?", client=client)).cost_usd

    started = time.perf_counter()
    work = asyncio.create_task(call())
    stall_ms = await _longest_stall_ms(work)
    cost_usd = await work
    assert cost_usd is not None
    return {"first_call_ms": (time.perf_counter() - started) * 1000, "first_call_stall_ms": stall_ms}


def _measure(base_url: str, sink_url: str) -> dict[str, float]:
    """In a fresh process: the figures of one start."""
    started = time.process_time()
    import tracemind_otel as tm

    imported = time.process_time()
    idle_mib = rss_mib()
    telemetry = tm.configure(service_name="benchmark", endpoint=sink_url)
    configured = time.process_time()
    figures = asyncio.run(_first_call(base_url))
    telemetry.flush()
    return {
        "import_cpu_ms": (imported - started) * 1000,
        "configure_cpu_ms": (configured - imported) * 1000,
        **figures,
        "peak_over_idle_mib": peak_mib() - idle_mib,
    }


def figures(base_url: str, sink_url: str, processes: int) -> dict[str, float]:
    """Medians over fresh processes."""
    command = [sys.executable, __file__, "--measure", base_url, sink_url]
    runs: list[dict[str, float]] = [
        json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout) for _ in range(processes)
    ]
    return {name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5, help="fresh processes (default 5)")
    parser.add_argument("--measure", nargs=2, metavar="URL", help="be one of them (used by the program itself)")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(*options.measure)))
        return
    from benchmarks import server, sink

    with server.running_server() as base_url, sink.running_sink() as sink_url:
        print(json.dumps(figures(base_url, sink_url, options.processes), indent=2))


if __name__ == "__main__":
    main()
