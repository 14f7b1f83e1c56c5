"""What a call and a streamed chunk cost here, beside another source tree of this package: an earlier release, say.

    git worktree add /tmp/before v0.1.0
    python benchmarks/against.py /tmp/before

Each tree works in a process of its own, on its own core's time; slices alternate, so that what else the machine does
hits both alike. Only published names are used, so that both trees understand them. The ratios are medians of
neighbouring slices, this tree divided by the other: 1.0 says that nothing changed.
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
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
sys.path.append(str(HERE))

Slice = Callable[[], Awaitable[float]]


def _slices(call_url: str, stream_url: str) -> dict[str, Slice]:
    """The ways to spend time, each a slice of many calls; run in a worker, with the tree that it was given."""
    from benchmarks.overhead import CONFIG, cpu_us, new_providers
    from benchmarks.streaming import CHUNKS, by_step
    from tracemind_otel import OTelRecorder, Recorder, run_llm_call
    from tracemind_otel.ai.llm.providers import OpenAILLMClient

    tracer_provider, meter_provider = new_providers()
    recorders = {
        "": Recorder(),
        "_recorded": OTelRecorder(tracer_provider=tracer_provider, meter_provider=meter_provider),
    }
    client = OpenAILLMClient("benchmark", call_url, timeout_s=None)
    streaming = OpenAILLMClient("benchmark", stream_url, timeout_s=None)

    def calls(recorder: Recorder) -> Slice:
        async def call() -> None:
            result = await run_llm_call("flow", "step", CONFIG, recorder, client=client)
            assert result["status"] == "ok", result

        return lambda: cpu_us(call, 48)

    def chunks(recorder: Recorder) -> Slice:
        stream = by_step(streaming, recorder)

        async def a_chunk() -> float:
            return await cpu_us(stream, 12) / CHUNKS

        return a_chunk

    return {
        **{f"call{name}": calls(recorder) for name, recorder in recorders.items()},
        **{f"chunk{name}": chunks(recorder) for name, recorder in recorders.items()},
    }


async def _work(call_url: str, stream_url: str) -> None:
    """Answer each line of input, the name of a slice, with what it cost in microseconds."""
    slices = _slices(call_url, stream_url)
    for run in slices.values():
        for _ in range(4):
            await run()
    gc.collect()
    gc.freeze()
    print(json.dumps(list(slices)), flush=True)
    while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
        print(await slices[name](), flush=True)


class Worker:
    """A process that measures one tree."""

    def __init__(self, tree: Path, *urls: str) -> None:
        source = tree / "src"
        if not (source / "tracemind_otel").is_dir():
            sys.exit(f"{tree} is no source tree of this package: it has no src/tracemind_otel")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", *urls],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(source)},
        )
        self.names: list[str] = json.loads(self._line())

    def measure(self, name: str) -> float:
        """Microseconds of CPU for one call or chunk, over a slice of them."""
        assert self.process.stdin is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def compare(here: Worker, there: Worker, rounds: int) -> dict[str, object]:
    figures: dict[str, object] = {}
    for name in here.names:
        pairs: list[tuple[float, float]] = []
        for number in range(rounds):
            first, second = (here, there) if number % 2 else (there, here)
            costs = {first: first.measure(name), second: second.measure(name)}
            pairs.append((costs[here], costs[there]))
        figures[name] = {
            "here_us": round(statistics.median(ours for ours, _ in pairs), 1),
            "there_us": round(statistics.median(theirs for _, theirs in pairs), 1),
            "ratio": round(statistics.median(ours / theirs for ours, theirs in pairs), 3),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="the other source tree")
    parser.add_argument("--rounds", type=int, default=40, help="slices of each kind and tree (default 40)")
    options = parser.parse_args()
    from benchmarks import server, streaming

    with ExitStack() as stack:
        urls = stack.enter_context(server.running_server()), f"{stack.enter_context(streaming.running_server())}/v1"
        here, there = (Worker(tree, *urls) for tree in (HERE, options.tree.resolve()))
        print(json.dumps(compare(here, there, options.rounds), indent=2))
        for worker in (here, there):
            worker.process.communicate("")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        asyncio.run(_work(*sys.argv[2:]))
    else:
        main()
