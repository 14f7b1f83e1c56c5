"""Runs of the real trace-mind runtime are traces: request, flow, steps and model calls."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

import tracemind_otel as tm
from tests.servers.trace_mind import StepsFlow
from tests.servers.trace_mind import trace_mind as trace_mind
from tests.support import Captured, attributes
from tracemind_otel.integrations.trace_mind import instrument_flow

pytestmark = [pytest.mark.tools, pytest.mark.slow]


async def ask(ctx: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """A step that asks a model."""
    reply = await tm.llm_call("fake/fake-1", f"{state['topic']} {ctx['step']}")
    return {**state, ctx["step"]: reply.text}


def of(span: ReadableSpan) -> SpanContext:
    context: SpanContext | None = span.context
    assert context is not None
    return context


def children(spans: list[ReadableSpan], parent: ReadableSpan) -> list[ReadableSpan]:
    found = [span for span in spans if span.parent and span.parent.span_id == of(parent).span_id]
    return sorted(found, key=lambda span: span.start_time or 0)


async def test_fifty_concurrent_runs_are_fifty_traces(trace_mind: Any, capture: Captured) -> None:
    """Each caller's request is the root of one trace with its own flow, three steps and three model calls."""
    flow = StepsFlow(trace_mind, "research", plan=ask, search=ask, write=ask)
    engine = trace_mind.FlowRuntime({flow.name: instrument_flow(flow)}, max_concurrency=4)

    async def request(number: int) -> dict[str, Any]:
        with trace.get_tracer("caller", tracer_provider=capture.tracer_provider).start_as_current_span("request"):
            result: dict[str, Any] = await engine.run(
                "research", inputs={"topic": str(number)}, ctx={"run_id": f"run-{number}"}
            )
        return result

    results = await asyncio.gather(*(request(number) for number in range(50)))
    await engine.aclose()

    assert {result["status"] for result in results} == {"ok"}
    traces = defaultdict[int, list[ReadableSpan]](list)
    for span in capture.spans:
        traces[of(span).trace_id].append(span)
    assert len(traces) == 50
    for spans in traces.values():
        assert Counter(span.name for span in spans) == {
            "request": 1,
            "invoke_workflow research": 1,
            "plan": 1,
            "search": 1,
            "write": 1,
            "chat fake-1": 3,
        }
        (request_span,) = (span for span in spans if span.parent is None)
        (flow_span,) = children(spans, request_span)
        steps = children(spans, flow_span)
        assert [step.name for step in steps] == ["plan", "search", "write"]
        for step in steps:
            (call,) = children(spans, step)
            assert attributes(call)["tracemind.step.id"] == step.name
        assert attributes(flow_span)["tracemind.flow.llm_calls"] == 3
        assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    runs = {attributes(span)["tracemind.flow.id"] for span in capture.spans if span.name.startswith("invoke")}
    assert runs == {f"run-{number}" for number in range(50)}
