"""Runs of the real trace-mind runtime are traces: request, flow, steps and model calls."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

import tracemind_otel as tm
from tests.servers import trace_mind as trace_mind_packages
from tests.support import Captured, attributes
from tracemind_otel.integrations.trace_mind import instrument_flow

pytestmark = [pytest.mark.tools, pytest.mark.slow]

MODULES = ("flow.runtime", "flow.spec", "flow.operations", "flow.policies", "flow.recipe_loader")


@pytest.fixture
def runtime(
    visibly: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """The runtime's public names, imported anew, in a folder of its own: it writes `state.jsonl` where it runs."""
    with visibly():
        packages = trace_mind_packages.packages()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    names: dict[str, Any] = {}
    for module in MODULES:
        names |= vars(importlib.import_module(f"tm.{module}"))
    yield SimpleNamespace(**names)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tm"]:
        del sys.modules[name]


class StepsFlow:
    """A flow of steps that run one after another."""

    def __init__(self, runtime: Any, name: str, **steps: Callable[..., Any]) -> None:
        self.name = name
        names = [*steps, None]
        self._spec = runtime.FlowSpec(name=name)
        for (step, run), following in zip(steps.items(), names[1:], strict=True):
            next_steps = () if following is None else (following,)
            self._spec.add_step(runtime.StepDef(step, runtime.Operation.TASK, next_steps, run=run))

    def spec(self) -> Any:
        return self._spec


async def ask(ctx: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """A step that asks a model."""
    reply = await tm.llm_call("fake/fake-1", f"{state['topic']} {ctx['step']}")
    return {**state, ctx["step"]: reply.text}


def of(span: ReadableSpan) -> SpanContext:
    assert span.context is not None
    return span.context


def children(spans: list[ReadableSpan], parent: ReadableSpan) -> list[ReadableSpan]:
    found = [span for span in spans if span.parent and span.parent.span_id == of(parent).span_id]
    return sorted(found, key=lambda span: span.start_time or 0)


async def test_fifty_concurrent_runs_are_fifty_traces(runtime: Any, capture: Captured) -> None:
    """Each caller's request is the root of one trace with its own flow, three steps and three model calls."""
    flow = StepsFlow(runtime, "research", plan=ask, search=ask, write=ask)
    engine = runtime.FlowRuntime({flow.name: instrument_flow(flow)}, max_concurrency=4)

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
