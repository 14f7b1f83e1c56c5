"""Decorated functions of two processes, in Jaeger and Prometheus."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from opentelemetry import trace

import tracemind_otel as tm
from tests.e2e.backends import Span, Stack
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient

pytestmark = pytest.mark.e2e

SERVICE = "tracemind-wrapped"

WORKER = """
import asyncio, json, sys
import tracemind_otel as tm

@tm.flow(name="index")
async def index(recorder):
    return await tm.run_llm_call("", "embed", tm.LLMCallConfig("fake", "toy-1", prompt="secret prompt"), recorder)

job = json.load(sys.stdin)
with tm.configure(service_name="tracemind-worker", endpoint=job["endpoint"]) as telemetry:
    with tm.continue_trace(job["headers"]):
        asyncio.run(index(telemetry.recorder))
    assert telemetry.flush(20)
"""


@tm.tool(capture_arguments=True)
def search(query: str, *, api_key: str) -> list[str]:
    return [query]


@tm.agent
async def answer(recorder: tm.Recorder) -> AsyncGenerator[str]:
    client = FakeLLMClient(0, usage=LLMUsage(100, 50, 150, 0.4))
    for question in ("first", "second", "third", "fourth"):
        config = tm.LLMCallConfig("fake", "toy-1", prompt=question)
        result = await tm.run_llm_call("", question, config, recorder, client=client)
        yield str(result.get("error_type", result["status"]))


def user_of(user: str, *_: object) -> str:
    return user


@tm.flow(name="support", user_id=user_of, tags=["e2e"], max_cost_usd=1.0)
async def support(user: str, telemetry: tm.Telemetry, endpoint: str) -> tuple[list[str], str]:
    search("a query", api_key="sk-never-to-be-seen-0000")
    answers = [each async for each in answer(telemetry.recorder)]
    with telemetry.tracer_provider.get_tracer("somebody-elses").start_as_current_span("enqueue"):
        job = json.dumps({"endpoint": endpoint, "headers": tm.inject_context()})
    await asyncio.to_thread(run_worker, job)
    return answers, f"{trace.get_current_span().get_span_context().trace_id:032x}"


def run_worker(job: str) -> None:
    """Run a second process, which gets nothing but the headers."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", WORKER], input=job, text=True, check=True, timeout=60, env=environment)


@dataclass(frozen=True)
class Wrapped:
    session: str
    answers: list[str]
    spans: list[Span]

    def span(self, name: str) -> Span:
        return next(span for span in self.spans if span["name"] == name)


@pytest.fixture(scope="module")
def wrapped(stack: Stack) -> Wrapped:
    """A flow with a tool, an agent that streams, a budget that is used up, and a worker in its own process."""
    session = f"session-{uuid4().hex}"

    async def main() -> tuple[list[str], str]:
        async with tm.configure(service_name=SERVICE, endpoint=stack.otlp_http) as telemetry:
            with tm.using_attributes(session_id=session, flow_id="run-1"):
                found = await support("ada", telemetry, stack.otlp_http)
            assert await telemetry.aflush(timeout_s=20)
            return found

    answers, trace_id = asyncio.run(main())
    return Wrapped(session, answers, stack.wait_for_trace(trace_id, spans=10))


def test_the_tree_across_two_processes(wrapped: Wrapped) -> None:
    """Each span is below its caller, and the worker's below the span that handed the job over."""
    parents = {
        "execute_tool search": "invoke_workflow support",
        "invoke_agent answer": "invoke_workflow support",
        "enqueue": "invoke_workflow support",
        "invoke_workflow index": "enqueue",
    }
    for name, parent in parents.items():
        assert wrapped.span(name)["parent_id"] == wrapped.span(parent)["span_id"]
    calls = [span for span in wrapped.spans if span["name"] == "chat toy-1"]
    below = [wrapped.span("invoke_agent answer")["span_id"]] * 4 + [wrapped.span("invoke_workflow index")["span_id"]]
    assert sorted(str(span["parent_id"]) for span in calls) == sorted(below)
    assert wrapped.span("invoke_workflow index")["resource"]["service.name"] == "tracemind-worker"


def test_the_ids_are_on_every_span(wrapped: Wrapped) -> None:
    """Ids are on every span below, those of other libraries and of the other process included."""
    for span in wrapped.spans:
        found = span["attributes"]
        assert (found["session.id"], found["user.id"], found["tracemind.flow.id"]) == (wrapped.session, "ada", "run-1")
        assert found["tracemind.tags"] == ["e2e"]


def test_jaeger_finds_a_session(stack: Stack, wrapped: Wrapped) -> None:
    """A search for the session's id finds its trace and no other."""
    traces = stack.search_traces(SERVICE, attributes={"session.id": wrapped.session})
    assert list(traces) == [wrapped.spans[0]["trace_id"]]


def test_the_budget_is_seen(wrapped: Wrapped) -> None:
    """The call over the limit was denied, and the flow's span has the budget's thresholds."""
    assert wrapped.answers == ["ok", "ok", "ok", "budget_exceeded"]
    flow = wrapped.span("invoke_workflow support")
    events = [event["attributes"] for event in flow["events"] if event["name"] == "tracemind.budget"]
    assert [(e["tracemind.budget.kind"], e["tracemind.budget.fraction"]) for e in events] == [
        ("cost_usd", 0.5),
        ("cost_usd", 0.8),
        ("cost_usd", 1.0),
    ]
    assert flow["attributes"]["tracemind.flow.cost_usd"] == pytest.approx(1.2, abs=1e-9)
    assert flow["attributes"]["tracemind.flow.llm_calls"] == 3


def test_nothing_secret_arrives(wrapped: Wrapped) -> None:
    """Captured arguments have no key, and no prompt arrives."""
    assert wrapped.span("execute_tool search")["attributes"]["gen_ai.tool.call.arguments"] == (
        '{"query": "a query", "api_key": "[redacted]"}'
    )
    everything = json.dumps(wrapped.spans)
    assert "never-to-be-seen" not in everything
    assert "secret prompt" not in everything


def test_prometheus_has_the_durations(stack: Stack, wrapped: Wrapped) -> None:
    """The durations of flows, agents and tools are metrics."""
    for metric, label, name in (
        ("gen_ai_invoke_workflow_duration_seconds_count", "gen_ai_workflow_name", "support"),
        ("gen_ai_invoke_agent_duration_seconds_count", "gen_ai_agent_name", "answer"),
        ("gen_ai_execute_tool_duration_seconds_count", "gen_ai_tool_name", "search"),
    ):
        assert stack.wait_for_metric(f'{metric}{{{label}="{name}"}}')
