"""The examples with the SDKs and tools that people have run as a reader would run them, without a key."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.programs import clean_environment
from tests.servers import application_environment
from tests.servers.fixture import REPOSITORY
from tracemind_otel.cli.otlp_file import FileSpan, read_spans

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def their_python(visibly: Callable[[], AbstractContextManager[None]]) -> Path:
    """The Python that has these SDKs and tools."""
    with visibly():
        return application_environment.python()


def output_of(python: Path, example: str, directory: Path) -> str:
    """What an example prints; its files are in the directory."""
    done = subprocess.run(
        [python, REPOSITORY / "examples" / f"{example}.py"],
        cwd=directory,
        env=clean_environment(PYTHONPATH=str(REPOSITORY / "src")),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def spans_in(path: Path) -> list[FileSpan]:
    with path.open(encoding="utf-8") as lines:
        return list(read_spans(lines))


def named(spans: list[FileSpan], name: str) -> list[FileSpan]:
    return [span for span in spans if span.name == name]


def test_a_langchain_flow(their_python: Path, tmp_path: Path) -> None:
    """Calls that chains make, three of them in threads, are below their steps, and the flow has their cost."""
    printed = output_of(their_python, "langchain_flow", tmp_path)
    assert "4 calls, 1 retries, $0.0000" in printed
    spans = spans_in(tmp_path / "langchain_flow.otlp.jsonl")
    (flow,), calls = named(spans, "invoke_workflow digest"), named(spans, "chat gpt-4o-mini")
    steps = {span.span_id: span.name for span in spans if span.parent_id == flow.span_id}
    assert sorted(steps[call.parent_id] for call in calls) == ["summaries_of"] * 3 + ["title_of"]
    cost = sum(float(call.attributes["tracemind.cost_usd"]) for call in calls)
    assert flow.attributes["tracemind.flow.cost_usd"] == pytest.approx(cost, rel=1e-9)
    assert cost > 0


def test_a_celery_worker_with_the_sdk_of_anthropic(their_python: Path, tmp_path: Path) -> None:
    """The worker's flow continues the trace of the sender, with the cost of its call, and ends with the worker."""
    output_of(their_python, "celery_claude", tmp_path)
    sent = named(spans_in(tmp_path / "celery_shop.otlp.jsonl"), "invoke_workflow accept")
    spans = spans_in(tmp_path / "celery_worker.otlp.jsonl")
    done = named(spans, "invoke_workflow summarize")
    assert [(flow.trace_id, flow.parent_id) for flow in done] == [(flow.trace_id, flow.span_id) for flow in sent]
    assert {(flow.service, flow.attributes["session.id"]) for flow in done} == {("worker", "s-1")}
    calls = [span for span in spans if span.attributes.get("gen_ai.request.model") == "claude-haiku-4-5"]
    assert len(done) == len(calls) == 2
    for flow, call in zip(done, calls, strict=True):
        assert flow.attributes["tracemind.flow.cost_usd"] == call.attributes["tracemind.cost_usd"]
