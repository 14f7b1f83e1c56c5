"""Runs of the real trace-mind runtime in the real Jaeger, with the costs of the server that was called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.backends import Span, Stack, poll
from tests.programs import clean_environment
from tests.sdks.auto_instrumented import declare_entry_points
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.provider_server import Action
from tests.servers import trace_mind
from tests.servers.fixture import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.tools]

RUNS = 50
STEPS = ("plan", "search", "write")
"""Steps that ask a model: by our step, by OpenAI's SDK, and by the runtime's own client."""

PROGRAM = """
import asyncio, json, sys

job = json.load(sys.stdin)
sys.path.append(job["packages"])

import httpx
from openai import AsyncOpenAI
from tm.ai.llm_client import make_client
from tm.flow.operations import Operation
from tm.flow.runtime import FlowRuntime
from tm.flow.spec import FlowSpec, StepDef

import tracemind_otel as tm
from tracemind_otel.integrations.trace_mind import TraceMindInstrumentor, llm_call_step

# One client: fifty would hold up the event loop while each makes its TLS settings, longer than connecting may take.
http = httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=None))
openai = AsyncOpenAI(api_key="k", http_client=http, timeout=60)


class Transport:
    async def post(self, *, url, headers, json):
        return (await http.post(url, headers=headers, json=json)).raise_for_status().json()


async def search(ctx, state):
    client = openai.with_options(base_url=state["search_base"] + "/v1")
    reply = await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "find"}])
    return {**state, "found": reply.choices[0].message.content}


async def write(ctx, state):
    url = state["write_base"] + "/v1/chat/completions"
    client = make_client("openai", api_key="k", base_url=url, transport=Transport())
    result = await client.call(model="gpt-4o", prompt="write", max_retries=3)
    return {**state, "text": result.output_text}


class Research:
    name = "research"

    def spec(self):
        spec = FlowSpec(name="research")
        config = {"provider": "openai", "model": "gpt-4o", "template": "{{ topic }}", "max_retries": 40}
        spec.add_step(StepDef("plan", Operation.TASK, ("search",), config, run=llm_call_step))
        spec.add_step(StepDef("search", Operation.TASK, ("write",), run=search))
        spec.add_step(StepDef("write", Operation.TASK, run=write))
        return spec


async def main():
    runtime = FlowRuntime({"research": Research()}, max_concurrency=50)
    runs = (runtime.run("research", inputs=each, ctx={"run_id": each["topic"]}) for each in job["runs"])
    results = await asyncio.gather(*runs)
    await runtime.aclose()
    await http.aclose()
    print(json.dumps([result["error_message"] or result["status"] for result in results]))


with tm.configure(endpoint=job["endpoint"], hosts={job["host"]: "openai"}) as telemetry:
    TraceMindInstrumentor().instrument()
    asyncio.run(main())
    assert telemetry.flush(20)
"""

RECIPE = """
import json, sys

job = json.load(sys.stdin)
sys.path.append(job["packages"])

from tm.run_recipe import run_recipe

import tracemind_otel as tm
from tracemind_otel.integrations.trace_mind import TraceMindInstrumentor

with tm.configure(endpoint=job["endpoint"]):
    TraceMindInstrumentor().instrument()
    print(json.dumps([run_recipe(path, {"topic": "tides"})["status"] for path in job["recipes"]]))
"""

APP = """
import json, sys

job = json.load(sys.stdin)
sys.path.append(job["packages"])

import asyncio
from tm.ai.llm_client import make_client
from tm.flow.operations import Operation
from tm.flow.runtime import FlowRuntime
from tm.flow.spec import FlowSpec, StepDef


async def ask(ctx, state):
    await make_client("fake").call(model="m-1", prompt="hi")


class Plain:
    name = "plain"

    def spec(self):
        spec = FlowSpec(name="plain")
        spec.add_step(StepDef("ask", Operation.TASK, run=ask))
        return spec


async def main():
    runtime = FlowRuntime({"plain": Plain()})
    print(json.dumps([(await runtime.run("plain"))["status"]]))
    await runtime.aclose()


asyncio.run(main())
"""
AUTO_INSTRUMENTED = """
import sys
from opentelemetry.instrumentation.auto_instrumentation import run

sys.argv = ["opentelemetry-instrument", sys.executable, "app.py"]
run()
"""

STORED = """
import json, sys

job = json.load(sys.stdin)
sys.path.append(job["packages"])

import asyncio
from tm.flow.operations import Operation
from tm.flow.runtime import FlowRuntime
from tm.flow.spec import FlowSpec, StepDef
from tm.flow.trace_store import FlowTraceSink

import tracemind_otel as tm
from tracemind_otel.integrations.trace_mind import import_runs


class Stored:
    name = "stored"

    def spec(self):
        spec = FlowSpec(name="stored")
        spec.add_step(StepDef("one", Operation.TASK, ("two",)))
        spec.add_step(StepDef("two", Operation.TASK))
        return spec


async def main():
    runtime = FlowRuntime({"stored": Stored()}, trace_sink=FlowTraceSink("runs"))
    await runtime.run("stored")
    await runtime.aclose()


asyncio.run(main())
with tm.configure(endpoint=job["endpoint"]):
    print(json.dumps([import_runs("runs"), import_runs("runs")]))
"""


@pytest.fixture(scope="module")
def packages(visibly: Callable[[], AbstractContextManager[None]]) -> str:
    """The folder that has the runtime."""
    with visibly():
        return str(trace_mind.packages())


def run_in_a_process(program: str, directory: Path, job: Mapping[str, Any], **variables: str) -> list[Any]:
    """What the program prints, in JSON."""
    path = os.pathsep.join((str(REPOSITORY / "src"), str(directory)))
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(job),
        cwd=directory,
        env=clean_environment(PYTHONPATH=path, NO_PROXY="127.0.0.1", **variables),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed: list[Any] = json.loads(done.stdout)
    return printed


@dataclass(frozen=True)
class Researched:
    """What the runs left in Jaeger, and what the server has answered."""

    service: str
    traces: list[list[Span]]
    plan_base: str
    bases: Mapping[str, Mapping[str, str]]
    """The address of each step of each run."""


@pytest.fixture(scope="module")
def researched(
    stack: Stack, packages: str, provider_server: ProviderServer, tmp_path_factory: pytest.TempPathFactory
) -> Researched:
    """Fifty runs at once; the server turns each call away at first, at least once on average."""
    service = f"research-{uuid4().hex}"
    turned_away: list[Action] = [{"status": 429}] * RUNS
    plan_base = provider_server.case("openai", *turned_away, {})
    bases = {
        f"run-{number}": {
            "search": provider_server.case("openai", {"status": 429}, {"status": 500}, {}),
            "write": provider_server.case("openai", {"status": 500}, {}),
        }
        for number in range(RUNS)
    }
    runs = [{"topic": run, **{f"{step}_base": base for step, base in each.items()}} for run, each in bases.items()]
    job = {"packages": packages, "endpoint": stack.otlp_http, "runs": runs, "host": f"127.0.0.1:{provider_server.port}"}
    statuses = run_in_a_process(
        PROGRAM,
        tmp_path_factory.mktemp("research"),
        job,
        OTEL_SERVICE_NAME=service,
        OPENAI_API_KEY="k",
        OPENAI_BASE_URL=f"{plan_base}/v1",
    )
    assert set(statuses) == {"ok"}
    traces = poll(
        lambda: stack.search_traces(service),
        lambda found: len(found) >= RUNS and all(len(tree(spans)) >= 8 for spans in found.values()),
        30.0,
        f"{RUNS} traces of {service}",
    )
    return Researched(service, list(traces.values()), plan_base, bases)


def tree(spans: list[Span]) -> list[tuple[str, str | None]]:
    """The name of each span, and that of its parent; without the attempts of calls."""
    names = {span["span_id"]: span["name"] for span in spans}
    found = [(span["name"], names.get(span["parent_id"] or "")) for span in spans]
    return [(name, parent) for name, parent in found if not name.startswith("attempt ")]


def call_of(spans: list[Span], step: str) -> Span:
    """The model call of a step."""
    (parent,) = (span for span in spans if span["name"] == step)
    (call,) = (span for span in spans if span["parent_id"] == parent["span_id"])
    return call


def retries(call: Span) -> list[Any]:
    """The reasons of the retries of a call."""
    return [e["attributes"]["tracemind.retry.reason"] for e in call["events"] if e["name"] == "tracemind.retry"]


def test_fifty_concurrent_runs_are_fifty_traces(researched: Researched) -> None:
    """Each trace has its request, flow, steps and model calls, each below the right one, with the run's id."""
    assert len(researched.traces) == RUNS
    run_ids = set[str]()
    for spans in researched.traces:
        assert sorted(tree(spans), key=str) == sorted(
            [
                ("request research", None),
                ("invoke_workflow research", "request research"),
                *((step, "invoke_workflow research") for step in STEPS),
                *(("chat gpt-4o", step) for step in STEPS),
            ],
            key=str,
        )
        below = [span for span in spans if span["parent_id"] is not None]
        (run_id,) = {span["attributes"]["tracemind.flow.id"] for span in below}
        run_ids.add(run_id)
        assert {span["status"] for span in below if not span["name"].startswith("attempt ")} == {"UNSET"}
    assert run_ids == set(researched.bases)


def test_retries_are_events_of_the_right_call(researched: Researched, provider_server: ProviderServer) -> None:
    """Each call has an event for each attempt that the server turned away, whoever made the call."""
    for spans in researched.traces:
        assert retries(call_of(spans, "search")) == ["rate_limit", "server_error"]
        assert len(retries(call_of(spans, "write"))) == 1
    planned = Counter(reason for spans in researched.traces for reason in retries(call_of(spans, "plan")))
    assert planned == {"rate_limit": provider_server.ledger(researched.plan_base).statuses.count(429)}


def test_the_sums_are_those_of_the_server(researched: Researched, provider_server: ProviderServer) -> None:
    """The sums of each flow are what the server charged for its three calls, those of a foreign SDK too."""
    plans = usd(provider_server.ledger(researched.plan_base))
    assert plans is not None
    assert sum(call_of(spans, "plan")["attributes"]["tracemind.cost_usd"] for spans in researched.traces) == (
        pytest.approx(plans, rel=1e-9)
    )
    for spans in researched.traces:
        (flow,) = (span["attributes"] for span in spans if span["name"].startswith("invoke_workflow"))
        costs = [usd(provider_server.ledger(base)) for base in researched.bases[flow["tracemind.flow.id"]].values()]
        charged = plans / RUNS + sum(cost for cost in costs if cost is not None)
        assert None not in costs
        assert flow["tracemind.flow.cost_usd"] == pytest.approx(charged, rel=1e-9)
        assert flow["tracemind.flow.llm_calls"] == 3
        calls = [call_of(spans, step) for step in STEPS]
        assert flow["tracemind.flow.retries"] == sum(len(retries(call)) for call in calls)
        for kind in ("input_tokens", "output_tokens"):
            assert flow[f"tracemind.flow.{kind}"] == sum(c["attributes"][f"gen_ai.usage.{kind}"] for c in calls)


def test_prometheus_has_the_counters_of_the_runtime(stack: Stack, researched: Researched) -> None:
    """What the runtime counts is a metric, and so is the cost of its calls."""
    found = stack.wait_for_metric(f'tracemind_runtime_flows_finished_total{{job="{researched.service}"}}')
    assert [(sample["labels"]["status"], sample["value"]) for sample in found] == [("ok", RUNS)]


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_a_recipe_file_is_a_trace(stack: Stack, packages: str, tmp_path: Path, form: str) -> None:
    """A recipe whose steps are ours is one trace: its request, its flow, its steps and their calls."""
    service = f"recipe-{uuid4().hex}"
    step = {
        "id": "summarize",
        "kind": "task",
        "hooks": {"run": "tracemind_otel.integrations.trace_mind.llm_call_step"},
        "config": {"provider": "fake", "model": "toy-1", "template": "Summarize {{ topic }}"},
    }
    steps = [step, {"id": "end", "kind": "finish"}]
    edges = [{"from": "summarize", "to": "end"}]
    recipe = {"flow": {"id": "answer", "version": "1", "entry": "summarize", "steps": steps, "edges": edges}}
    path = tmp_path / f"recipe.{form}"
    path.write_text(json.dumps(recipe))  # which is YAML too
    job = {"packages": packages, "endpoint": stack.otlp_http, "recipes": [str(path)]}
    assert run_in_a_process(RECIPE, tmp_path, job, OTEL_SERVICE_NAME=service) == ["ok"]
    ((spans),) = poll(lambda: stack.search_traces(service), bool, 30.0, f"a trace of {service}").values()
    assert tree(spans) == [
        ("request answer", None),
        ("invoke_workflow answer", "request answer"),
        ("summarize", "invoke_workflow answer"),
        ("chat toy-1", "summarize"),
        ("end", "invoke_workflow answer"),
    ]


def test_a_stored_run_is_shown_once(stack: Stack, packages: str, tmp_path: Path) -> None:
    """A run that was imported twice is one trace of Jaeger's, with each of its spans once."""
    service = f"stored-{uuid4().hex}"
    job = {"packages": packages, "endpoint": stack.otlp_http}
    assert run_in_a_process(STORED, tmp_path, job, OTEL_SERVICE_NAME=service) == [1, 1]
    (trace_id,) = poll(lambda: stack.search_traces(service), bool, 30.0, f"a trace of {service}")
    spans = stack.wait_for_trace(trace_id, spans=3)
    assert Counter(span["name"] for span in spans) == {"invoke_workflow stored": 1, "one": 1, "two": 1}


def test_an_application_without_a_line_of_ours(stack: Stack, packages: str, tmp_path: Path) -> None:
    """`opentelemetry-instrument python app.py` traces the runs of an application that knows nothing of us."""
    service = f"plain-{uuid4().hex}"
    declare_entry_points(tmp_path)
    (tmp_path / "app.py").write_text(APP)
    variables = {"OTEL_SERVICE_NAME": service, "OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http}
    assert run_in_a_process(AUTO_INSTRUMENTED, tmp_path, {"packages": packages}, **variables) == ["ok"]
    ((spans),) = poll(lambda: stack.search_traces(service), bool, 30.0, f"a trace of {service}").values()
    assert tree(spans) == [
        ("request plain", None),
        ("invoke_workflow plain", "request plain"),
        ("ask", "invoke_workflow plain"),
        ("chat m-1", "ask"),
    ]
    found = stack.wait_for_metric(f'tracemind_runtime_flows_started_total{{job="{service}"}}')
    assert [sample["value"] for sample in found] == [1]
