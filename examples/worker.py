"""A job that is handed to a worker in a process of its own: one trace and one session, across both.

The trace and the ids travel in W3C headers, `traceparent` and `baggage`, as a part of the job. The prompt is a part of
the job as well, and not of the headers. Needs no key and no server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tracemind_otel as tm

TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens


@tm.flow
def accept(order: str) -> dict[str, object]:
    """The parent: takes an order, and makes a job of it."""
    return {"prompt": f"Confirm this order: {order}", "headers": tm.inject_context()}


@tm.flow
async def confirm(prompt: str) -> str:
    """The worker: does the job."""
    config = tm.LLMCallConfig("fake", "toy-1", prompt=prompt)
    result = await tm.run_llm_call("", "confirm", config, tm.OTelRecorder())
    return str(result["text"])


def work(file: str) -> None:
    """What the worker's process does: read a job, continue its trace, do it."""
    job = json.load(sys.stdin)
    with tm.configure(service_name="worker", file=file, prices=[TOY_PRICE]), tm.continue_trace(job["headers"]):
        print(asyncio.run(confirm(job["prompt"])))


def hand_over(job: dict[str, object], file: str) -> str:
    """A queue would stand here; its messages have a place for headers."""
    command = [sys.executable, __file__, "--worker", "--file", file]
    return subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", help="be the worker: read a job from standard input")
    parser.add_argument("--file", default="worker.otlp.jsonl", help="where the trace goes, as OTLP JSON lines")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.file)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        workers_file = Path(directory, "worker.otlp.jsonl")
        with tm.configure(service_name="shop", file=arguments.file):
            with tm.using_attributes(session_id="s-1", user_id="ada"):
                job = accept("two lamps")
            print(f"handed over: {json.dumps(job['headers'])}")
            print(f"the worker says: {hand_over(job, str(workers_file))}", end="")
        # Two processes, two files; a Collector would bring both together.
        with Path(arguments.file).open("a", encoding="utf-8") as both:
            both.write(workers_file.read_text(encoding="utf-8"))
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
