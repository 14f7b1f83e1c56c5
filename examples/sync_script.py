"""Decorates a synchronous script: a `with` block as a flow, worker threads, and log lines with the session id.

The example needs no key and no server.
"""

from __future__ import annotations

import argparse
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import tracemind_otel as tm

MODELS = {"fake": "fake/toy-1", "openai": "openai/gpt-4o-mini"}
TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens
REVIEWS = ["Works as it should.", "Arrived late, but fine.", "Broke on the second day.", "Would buy again."]

log = logging.getLogger("nightly")


@tm.step
def classify(review: str, model: str) -> str:
    reply = tm.llm_call_sync(model, "One word for: {{ review }}", vars={"review": review})
    log.info("%s in %s tokens", reply.finish_reason, reply.usage.total_tokens)
    return reply.text


def show_ids_in_log_lines() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(tm.LogContextFilter())
    handler.setFormatter(logging.Formatter("%(name)s session=%(session.id)s trace=%(trace_id)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=sorted(MODELS), default="fake", help="openai needs OPENAI_API_KEY")
    parser.add_argument("--file", default="sync_script.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
    arguments = parser.parse_args()
    show_ids_in_log_lines()
    with (
        tm.configure(service_name="sync-script", file=arguments.file, prices=[TOY_PRICE]),
        tm.using_attributes(session_id="night-1123"),
        tm.flow("nightly"),
        ThreadPoolExecutor(2) as pool,
    ):
        # Threads of a pool do not inherit the current flow; carry_context passes it on.
        work = tm.carry_context(classify)
        answers = list(pool.map(work, REVIEWS, repeat(MODELS[arguments.provider])))
    print(f"{len(answers)} reviews")
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
