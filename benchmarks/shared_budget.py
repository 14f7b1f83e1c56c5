"""How long a reservation takes in a budget that eight processes share, each with 100 model calls in flight.

A call lasts 0.5 to 1.5 s, as a model's do, and another follows it. So the eight processes make 800 reservations a
second, in SQLite and then in a Redis server of this machine. The time of a reservation is what a coroutine waits for:
from its request to its grant. Beside it stands a *hop*, the round trip of a coroutine through a thread that does
nothing: what the machine allows where each reservation asks the state. The first seconds stand apart, in which all
calls begin at once and nothing is reserved ahead yet.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.servers.state_servers import running

from tracemind_otel.ai.llm.usage import LLMUsage
from tracemind_otel.flows.budget import Budget, BudgetLimits, Estimate, Share, reserve_soon
from tracemind_otel.flows.shared.state_client import StateClient
from tracemind_otel.flows.shared.state_port import Account
from tracemind_otel.flows.shared.states import state_at

PROCESSES, CONCURRENT = 8, 100
WARM_UP_S = 3.0
ESTIMATE = Estimate(model="openai/gpt-4o-mini", tokens=600, cost_usd=0.001)
USED = LLMUsage(prompt_tokens=200, completion_tokens=150, cost_usd=0.0006)
LIMITS = BudgetLimits(max_cost_usd=1_000)


@dataclass(frozen=True)
class Times:
    """Milliseconds."""

    first: list[float] = field(default_factory=list[float])
    """Reservations while the process warms up."""
    later: list[float] = field(default_factory=list[float])
    """Reservations after that."""
    hops: list[float] = field(default_factory=list[float])
    """Round trips through a thread that does nothing, after that."""


class Load:
    """What one process does for some seconds."""

    def __init__(self, client: StateClient, seconds: float) -> None:
        self.share = Share(client, Account("benchmark", "", 365 * 86_400), LIMITS, "deny")
        self.times = Times()
        self.warm_at = time.monotonic() + WARM_UP_S
        self.ends_at = self.warm_at + seconds

    async def run(self) -> None:
        await asyncio.gather(self._hop(), *(self._call() for _ in range(CONCURRENT)))

    async def _call(self) -> None:
        while time.monotonic() < self.ends_at:
            budget = Budget(LIMITS, name="benchmark", share=self.share)
            began = time.perf_counter()
            held = await reserve_soon(budget, ESTIMATE)
            took_ms = (time.perf_counter() - began) * 1e3
            (self.times.first if time.monotonic() < self.warm_at else self.times.later).append(took_ms)
            await asyncio.sleep(random.uniform(0.5, 1.5))
            held.settle(USED, assume_billed=False)

    async def _hop(self) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while time.monotonic() < self.ends_at:
                began = time.perf_counter()
                await loop.run_in_executor(thread, int)
                if time.monotonic() >= self.warm_at:
                    self.times.hops.append((time.perf_counter() - began) * 1e3)
                await asyncio.sleep(0.02)


def spend(url: str, seconds: float) -> None:
    """What each process runs: it connects, waits for the others, and prints its times."""
    client = state_at(url, timeout_s=10)
    assert client is not None
    client.start()
    print("ready", flush=True)
    sys.stdin.readline()
    load = Load(client, seconds)
    asyncio.run(load.run())
    client.close()
    print(json.dumps(vars(load.times)))


def measured(url: str, seconds: float) -> dict[str, float]:
    """The figures of all processes together."""
    command = [sys.executable, __file__, "--state", url, "--rounds", str(seconds)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    times = [Times(**json.loads(process.communicate()[0])) for process in processes]
    later = sorted(each for process in times for each in process.later)
    return {
        "reservations": len(later),
        "p50_ms": part(later, 0.5),
        "p99_ms": part(later, 0.99),
        "p999_ms": part(later, 0.999),
        "hop_p99_ms": part(sorted(each for process in times for each in process.hops), 0.99),
        "first_p50_ms": part(sorted(each for process in times for each in process.first), 0.5),
        "first_p99_ms": part(sorted(each for process in times for each in process.first), 0.99),
    }


def part(times: Sequence[float], fraction: float) -> float:
    return round(times[int(len(times) * fraction)], 3)


@contextmanager
def states() -> Generator[dict[str, str]]:
    """The URLs of an empty state of each kind."""
    with tempfile.TemporaryDirectory() as folder, running("redis", Path(folder)) as server:
        yield {"sqlite": f"sqlite:///{folder}/limits.db", "redis": server.url}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=float, default=15, help="seconds of each state, after the first ones")
    parser.add_argument("--state", help="be one process, for the state at this URL")
    options = parser.parse_args()
    if options.state is not None:
        spend(options.state, options.rounds)
        return
    with states() as urls:
        print(json.dumps({name: measured(url, options.rounds) for name, url in urls.items()}, indent=2))


if __name__ == "__main__":
    main()
