"""The page about the trace-mind runtime and its example do what they say, with the runtime itself."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.pages import write_files
from tests.programs import clean_environment
from tests.servers import trace_mind
from tests.servers.fixture import REPOSITORY
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink
from tracemind_otel.cli.otlp_file import FileSpan, read_spans

pytestmark = pytest.mark.tools

PAGE = "docs/how-to/trace-mind.md"
START = """
import runpy, sys
program, packages, folder = sys.argv[1:]
sys.path = [folder, *sys.path, packages]
runpy.run_path(program, run_name="__main__")
"""


@pytest.fixture(scope="module")
def packages(visibly: Callable[[], AbstractContextManager[None]]) -> Path:
    """The folder that has the runtime."""
    with visibly():
        return trace_mind.packages()


def run(packages: Path, program: Path, directory: Path, **environment: str) -> str:
    """What a program prints; the runtime is behind our own packages, whose versions apply."""
    done = subprocess.run(
        [sys.executable, "-c", START, program, packages, program.parent],
        cwd=directory,
        env=clean_environment(PYTHONPATH=str(REPOSITORY / "src"), NO_PROXY="127.0.0.1", **environment),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_recipe_of_the_page(packages: Path, tmp_path: Path, sink: Sink) -> None:
    """The set-up and the recipe of the page give a trace with its model call."""
    write_files(PAGE, tmp_path)
    printed = run(packages, tmp_path / "run_it.py", tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert printed.startswith("ok ")
    names = Counter(span.name for span in sink.spans())
    assert names == Counter(("request answer", "invoke_workflow answer", "summarize", "chat toy-1", "end"))


RUN_AND_STORE = """
import asyncio
from one_flow import research
from tm.flow.runtime import FlowRuntime
from tm.flow.trace_store import FlowTraceSink
import tracemind_otel
from tracemind_otel.integrations.trace_mind import instrument_flow


async def main():
    runtime = FlowRuntime({"research": instrument_flow(research)}, trace_sink=FlowTraceSink("runs"))
    print((await runtime.run("research", inputs={"topic": "tides"}))["output"]["state"]["status"])
    await runtime.aclose()


with tracemind_otel.configure():
    asyncio.run(main())
"""


def test_one_flow_and_its_stored_runs(packages: Path, tmp_path: Path, sink: Sink) -> None:
    """The flow of the page is traced by itself, and what the runtime has stored of it can be imported."""
    write_files(PAGE, tmp_path)
    (tmp_path / "run_and_store.py").write_text(RUN_AND_STORE)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
    assert run(packages, tmp_path / "run_and_store.py", tmp_path, **environment) == "ok\n"
    once = Counter(("invoke_workflow research", "plan", "chat toy-1", "write", "chat toy-1"))
    assert Counter(span.name for span in sink.spans()) == once
    assert run(packages, tmp_path / "import_stored.py", tmp_path, **environment) == "1 runs\n"
    imported = Counter(("invoke_workflow research", "plan", "write"))
    assert Counter(span.name for span in sink.spans()) == once + imported


def spans_in(path: Path) -> list[FileSpan]:
    with path.open(encoding="utf-8") as lines:
        return list(read_spans(lines))


def test_the_example(packages: Path, tmp_path: Path) -> None:
    """Three runs at once are three traces, each with the sums of its own two calls; the busy server is a retry."""
    printed = run(packages, REPOSITORY / "examples" / "trace_mind_flow.py", tmp_path)
    assert printed.count("In short: ") == 3
    spans = spans_in(tmp_path / "trace_mind_flow.otlp.jsonl")
    flows = [span for span in spans if span.name == "invoke_workflow digest"]
    assert len({flow.trace_id for flow in flows}) == len(flows) == 3
    for flow in flows:
        costs = [
            float(span.attributes["tracemind.cost_usd"])
            for span in spans
            if span.trace_id == flow.trace_id and span.name == "chat gpt-4o-mini"
        ]
        assert len(costs) == 2
        assert flow.attributes["tracemind.flow.cost_usd"] == pytest.approx(sum(costs), rel=1e-9)
        assert f"${sum(costs):.6f}" in printed
    assert sum(int(flow.attributes["tracemind.flow.retries"]) for flow in flows) == 1
