"""Passes a job to a worker process. Both processes share one trace and one session.

The job contains the prompt and the W3C headers `traceparent` and `baggage`, which carry the trace and the ids. The
headers never contain the prompt. The example needs no key and no server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tracemind_otel as tm

TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens


@tm.flow
def accept(order: str) -> dict[str, object]:
    """Turn an order into a job, in the parent process."""
    return {"prompt": f"Confirm this order: {order}", "headers": tm.inject_context()}


@tm.flow
def confirm(prompt: str) -> str:
    """Process the job, in the worker."""
    return tm.llm_call_sync("fake/toy-1", prompt).text


def work(file: str) -> None:
    """Read a job from standard input, continue its trace and process it."""
    job = json.load(sys.stdin)
    with tm.configure(service_name="worker", file=file, prices=[TOY_PRICE]), tm.continue_trace(job["headers"]):
        print(confirm(job["prompt"]))


def hand_over(job: dict[str, object], file: str) -> str:
    """Send the job to a worker. An application would use a queue, whose messages have headers."""
    command = [sys.executable, __file__, "--worker", "--file", file]
    return subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", help="run as the worker: read a job from standard input")
    parser.add_argument("--file", default="worker.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
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
        # Each process writes its own file. With a Collector, both would arrive in one place.
        with Path(arguments.file).open("a", encoding="utf-8") as both:
            both.write(workers_file.read_text(encoding="utf-8"))
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
