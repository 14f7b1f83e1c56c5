"""The PromQL of the documentation, asked of the real Prometheus."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.backends import Sample, Stack, prometheus_query
from tests.pages import Block, blocks
from tests.programs import clean_environment

pytestmark = pytest.mark.e2e

QUERIES = [block for block in blocks() if block.language == "promql"]
JOBS = [f"short-job-{number}" for number in range(3)]
JOB = """
import sys
import tracemind_otel as tm

tm.set_prices([{"provider": "fake", "model": "toy-1", "input": 1_000_000, "output": 1_000_000}])
tm.configure(service_name=sys.argv[1], endpoint=sys.argv[2])
print(tm.llm_call_sync("fake/toy-1", "one two three").cost_usd)
"""


@pytest.mark.parametrize("block", QUERIES, ids=str)
def test_prometheus_accepts_the_query(stack: Stack, block: Block) -> None:
    """A query that a reader copies is valid PromQL."""
    prometheus_query(stack.prometheus, block.code)


def run_job(name: str, endpoint: str) -> float:
    """A process that makes one call and ends; returns the cost."""
    command = [sys.executable, "-c", JOB, name, endpoint]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=True)
    return float(done.stdout)


def test_the_cost_of_short_jobs_is_whole(stack: Stack) -> None:
    """The page's query gives what each job cost to the last digit, although no job lived for two exports."""
    (block,) = (block for block in QUERIES if "increase(" in block.code and "how-to" in block.page)
    with ThreadPoolExecutor() as pool:
        costs = dict(zip(JOBS, pool.map(run_job, JOBS, [stack.otlp_http] * len(JOBS)), strict=True))

    def is_whole(samples: list[Sample]) -> bool:
        found = {sample["labels"]["job"]: sample["value"] for sample in samples}
        return {job: found.get(job) for job in JOBS} == costs

    stack.wait_for_metric(block.code, until=is_whole)
