"""Runs that the real runtime stored become traces."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
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


def test_a_file_is_no_directory(trace_mind: Any, tmp_path: Path) -> None:
    """So is a file in the place of one."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(tm.ConfigError, match="there is no directory"):
        import_runs(tmp_path / "runs")


SPAN = {
    "flow": "f",
    "flow_id": "f",
    "flow_rev": "rev-1",
    "run_id": "r",
    "step": "one",
    "step_id": "s",
    "seq": 0,
    "start_ts": 100.0,
    "end_ts": 101.5,
    "status": "ok",
    "error_code": None,
    "error_message": None,
}


def spans_of(capture: Captured) -> Iterator[tuple[str, int, int, int]]:
    """Name, trace, span and parent of each span, in order."""
    for span in capture.spans:
        context = span.get_span_context()
        assert context is not None
        yield span.name, context.trace_id, context.span_id, span.parent.span_id if span.parent else 0


async def test_a_run_that_is_imported_again_has_the_same_ids(
    trace_mind: Any, capture: Captured, tmp_path: Path
) -> None:
    """A backend that compares ids shows it once; two runs never share an id."""
    await stored(trace_mind, trace_mind.FlowTraceSink(str(tmp_path / "runs")))
    import_runs(tmp_path / "runs")
    first = set(spans_of(capture))
    import_runs(tmp_path / "runs")
    assert set(spans_of(capture)) == first
    assert len(capture.spans) == 2 * len(first) == 18


def test_a_run_id_that_is_used_again_is_two_traces(capture: Captured) -> None:
    """The same run id at another time, or of another flow, is another run."""
    assert import_runs([SPAN, SPAN | {"start_ts": 200.0, "end_ts": 201.0}, SPAN | {"flow": "g"}]) == 3
    assert len({trace_id for _, trace_id, _, _ in spans_of(capture)}) == 3


def test_mappings_are_spans_too(capture: Captured) -> None:
    """Spans that were kept as JSON are imported with their times."""
    assert import_runs([SPAN, SPAN | {"seq": 1, "step": "two", "start_ts": 101.5, "end_ts": 101.0}]) == 1
    times = {span.name: (span.start_time, span.end_time) for span in capture.spans}
    assert times == {
        "one": (100_000_000_000, 101_500_000_000),
        "two": (101_500_000_000, 101_500_000_000),
        "invoke_workflow f": (100_000_000_000, 101_500_000_000),
    }


def test_an_approval_that_was_awaited_is_no_error(capture: Captured) -> None:
    """The runtime stores it as an error; nothing failed."""
    import_runs([SPAN | {"status": "error", "error_code": "PendingApproval"}])
    assert {span.status.status_code for span in capture.spans} == {StatusCode.UNSET}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"start_ts": float("nan")}, "span 2 .* its time is nan"),
        ({"end_ts": "today"}, "span 2 .* its time is 'today'"),
        ({"seq": "first"}, "span 2 is not one of trace-mind's"),
    ],
)
def test_a_wrong_field_is_named(capture: Captured, change: dict[str, Any], reason: str) -> None:
    """The message says which span it is, and what is wrong with it."""
    with pytest.raises(tm.ConfigError, match=reason):
        import_runs([SPAN, SPAN | change])


def test_a_missing_field_is_named(capture: Captured) -> None:
    """The message has the name of the field."""
    with pytest.raises(tm.ConfigError, match="span 1 has no 'run_id'"):
        import_runs([{name: value for name, value in SPAN.items() if name != "run_id"}])


def test_more_runs_than_the_queue_of_an_exporter_holds() -> None:
    """None of thousands of spans is dropped because they come all at once."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(kept, schedule_delay_millis=60_000))
    assert import_runs((SPAN | {"run_id": str(n)} for n in range(3000)), tracer_provider=provider) == 3000
    spans: tuple[ReadableSpan, ...] = kept.get_finished_spans()
    assert len(spans) == 6000
    provider.shutdown()
