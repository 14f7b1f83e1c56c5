"""All figures of performance in one run, each beside what it should be.

Each benchmark runs in a process of its own, and compares ways to do the same in short slices that alternate, so that
what else the machine does hits all of them alike. Absolute figures follow the machine; ratios hold.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that is reported."""

    benchmark: str
    """The program that measures it."""
    path: str
    """Where it is in that program's output, keys joined by dots."""
    words: str
    """What it tells."""
    aim: float | None = None
    """The most that it should be; `None` where it is only reported."""


FIGURES = (
    Figure("many_calls", "ratio_to_httpx", "a call with its telemetry, 32 at a time, to a bare httpx request", 0.35),
    Figure("many_calls", "ratio_to_hand", "the same, to httpx with hand-written OpenTelemetry"),
    Figure("many_calls", "step_calls_per_s", "calls a second, 32 at a time"),
    Figure("exporting", "ratio", "telemetry and export of a call, to the same by hand and the official exporters", 0.4),
    Figure("overhead", "joined_telemetry_ratio", "telemetry on a provider of yours, to the same by hand", 1.0),
    Figure("encoding", "ratio", "encoding and sending a span, to the official exporter", 0.25),
    Figure("encoding", "ours_us", "encoding and sending a span, us of CPU"),
    Figure("streaming", "in_one_write.ratio_to_httpx", "a streamed chunk of many in one read, to httpx by hand", 0.5),
    Figure("streaming", "alone.over_aiohttp_us", "a chunk that comes alone, us over reading it by hand", 12.0),
    Figure("start", "configure_cpu_ms", "configure(), ms of CPU", 350.0),
    Figure("start", "first_call_stall_ms", "longest stall of the event loop by the first call, ms", 20.0),
    Figure("start", "peak_over_idle_mib", "peak memory over the idle interpreter, MiB", 30.0),
    Figure("config", "us", "LLMCallConfig() and request(), us of CPU", 12.0),
    Figure("shared_budget", "sqlite.p99_ms", "a reservation in a shared SQLite file, 8 processes, 99 of 100, ms", 2.0),
    Figure("shared_budget", "redis.p99_ms", "the same in a Redis server of this machine, ms", 2.0),
    Figure("shared_budget", "redis.hop_p99_ms", "meanwhile, a round trip through a thread that does nothing, ms"),
    Figure("decorators", "function_us.flow", "a decorated function where nothing is traced, us of CPU", 3.0),
)  # fmt: skip


def output_of(benchmark: str, arguments: list[str]) -> Mapping[str, Any]:
    """Run one benchmark."""
    command = [sys.executable, str(HERE / f"{benchmark}.py"), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def value_at(output: Mapping[str, Any], path: str) -> float:
    found: Any = output
    for key in path.split("."):
        found = found[key]
    return float(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute instead of some")
    options = parser.parse_args()
    outputs: dict[str, Mapping[str, Any]] = {}
    for benchmark in dict.fromkeys(figure.benchmark for figure in FIGURES):
        started = time.monotonic()
        rounds = "--processes" if benchmark == "start" else "--rounds"
        outputs[benchmark] = output_of(benchmark, [rounds, "4"] if options.quick else [])
        print(f"{benchmark}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"{date.today()}, CPython {platform.python_version()}, {platform.system()} {platform.machine()}")
    for figure in FIGURES:
        value = value_at(outputs[figure.benchmark], figure.path)
        aim = "" if figure.aim is None else f"at most {figure.aim:g}: {'yes' if value <= figure.aim else 'NO'}"
        print(f"{value:10.2f}  {figure.words:80}  {aim}")


if __name__ == "__main__":
    main()
