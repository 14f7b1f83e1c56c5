"""Runs that the real runtime stored become traces."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

import tracemind_otel as tm
from tests.servers.trace_mind import StepsFlow
from tests.servers.trace_mind import trace_mind as trace_mind
from tests.support import Captured, attributes
from tracemind_otel.integrations.trace_mind import import_runs

pytestmark = [pytest.mark.tools, pytest.mark.slow]


def one(ctx: Mapping[str, Any], state: object) -> None:
    """A step that does nothing."""


def two(ctx: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    if state.get("fails"):
        raise LookupError("a prompt")


async def stored(trace_mind: Any, sink: Any) -> list[dict[str, Any]]:
    """Two runs at once and one that fails, in a sink; the results of the runtime."""
    flow = StepsFlow(trace_mind, "stored", one=one, two=two)
    engine = trace_mind.FlowRuntime({flow.name: flow}, trace_sink=sink, max_concurrency=2)

    async def request(**inputs: bool) -> dict[str, Any]:
        result: dict[str, Any] = await engine.run("stored", inputs=inputs)
        return result

    results = [*await asyncio.gather(request(), request()), await request(fails=True)]
    await engine.aclose()
    return results


def check(capture: Captured, results: list[dict[str, Any]]) -> None:
    """Each run is a trace of the flow and its two steps, with the stored times and the error."""
    flows = [span for span in capture.spans if span.name == "invoke_workflow stored"]
    assert {attributes(span)["tracemind.flow.id"] for span in flows} == {result["run_id"] for result in results}
    assert {attributes(span)["tracemind.flow.revision"] for span in flows} == {results[0]["flow_rev"]}
    contexts = [context for span in flows if (context := span.get_span_context()) is not None]
    assert len({context.trace_id for context in contexts}) == 3
    for flow in flows:
        steps = [span for span in capture.spans if span.parent == flow.get_span_context()]
        assert [span.name for span in steps] == ["one", "two"]
        assert flow.start_time == steps[0].start_time
        assert flow.end_time == steps[1].end_time
    failed = [span for span in capture.spans if span.status.status_code is StatusCode.ERROR]
    assert sorted(span.name for span in failed) == ["invoke_workflow stored", "two"]
    assert {attributes(span)["error.type"] for span in failed} == {"LookupError"}


async def test_the_files_of_a_trace_sink_are_traces(trace_mind: Any, capture: Captured, tmp_path: Path) -> None:
    """What the runtime's own sink wrote to a directory is read by the runtime's own reader."""
    results = await stored(trace_mind, trace_mind.FlowTraceSink(str(tmp_path / "runs")))
    assert import_runs(tmp_path / "runs") == 3
    check(capture, results)


async def test_the_spans_of_a_sink_of_ones_own_are_traces(trace_mind: Any, capture: Captured) -> None:
    """A list is a trace sink, and what it has kept can be imported."""
    spans = list[Any]()
    results = await stored(trace_mind, spans)
    assert import_runs(spans) == 3
    check(capture, results)


def test_a_missing_directory_is_named(trace_mind: Any, tmp_path: Path) -> None:
    """The message has the path."""
    with pytest.raises(tm.ConfigError, match=r"there is no directory .*nowhere"):
        import_runs(tmp_path / "nowhere")
