"""Phoenix and MLflow themselves: their conversion of our spans, and what their servers show of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.backend_scenes import ANSWER, INPUT_USD, OUTPUT_USD, PROMPT, READ_USD, SCENES, SESSION, TOOL, USER, WRITE_USD
from tests.programs import clean_environment
from tests.servers import backend_servers, instrumentation_environment
from tests.servers.backend_servers import TRACES, BackendServer
from tests.servers.backend_servers import mlflow_server as mlflow_server
from tests.servers.backend_servers import phoenix_server as phoenix_server
from tests.servers.fixture import REPOSITORY, OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.otlp_sink import listening

pytestmark = [pytest.mark.tools, pytest.mark.slow, pytest.mark.timeout(900)]

Visibly = Callable[[], AbstractContextManager[None]]
FOREIGN_COST_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6
"""1,000 input tokens, 400 of them cached, and 200 output tokens of gpt-4o-mini."""
OI = "llm.token_count"

_PATIENT = {"NO_PROXY": "*", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
"""For servers that answer slowly on a busy machine: seconds."""
CALLS = {f"chat {scene.model}": scene for scene in SCENES.values()}


def run_flow(preset: str, url: str, *, service: str = "shop", headers: str = "") -> None:
    """Our flow, in a process of its own, sent to a server."""
    command = [sys.executable, "-m", "tests.backend_scenes", preset, url, service, headers]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=clean_environment(**_PATIENT), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def requests_with(preset: str) -> list[bytes]:
    """The OTLP requests that the flow makes with a preset."""
    with listening() as sink:
        run_flow(preset, sink.url)
        return [post.body for post in sink.posts if post.path == "/v1/traces"]


def converted(python: Path, program: str, preset: str, folder: Path) -> dict[str, Any]:
    """What a backend's own code makes of these requests, by the span's name."""
    found: dict[str, Any] = {}
    for number, body in enumerate(requests_with(preset)):
        (file := folder / f"{preset}-{number}").write_bytes(body)
        done = subprocess.run(
            [python, "-c", program, file], capture_output=True, text=True, timeout=300, check=False,
            env=clean_environment(MLFLOW_DISABLE_TELEMETRY="true"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found |= json.loads(done.stdout.splitlines()[-1])
    return found


# --- Their code, called in process

IN_PHOENIX = """
import json, sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from phoenix.trace.otel import decode_otlp_span

request = ExportTraceServiceRequest.FromString(open(sys.argv[1], "rb").read())
spans = [span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans]
decoded = [decode_otlp_span(span) for span in spans]
print(json.dumps({
    span.name: {"kind": span.span_kind.value, "status": span.status_code.value, "attributes": span.attributes}
    for span in decoded
}, default=str))
"""
IN_MLFLOW = """
import json, sys
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from mlflow.entities.span import Span
from mlflow.tracing.otel.translation import translate_span_when_storing

request = ExportTraceServiceRequest.FromString(open(sys.argv[1], "rb").read())
spans = [span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans]
found = {}
for span in spans:
    stored = translate_span_when_storing(Span.from_otel_proto(span))["attributes"]
    found[span.name] = {name: json.loads(value) for name, value in stored.items() if name.startswith("mlflow.")}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def in_phoenix(visibly: Visibly, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Our spans with its preset, as Phoenix decodes them."""
    with visibly():
        python = backend_servers.python("phoenix")
    return converted(python, IN_PHOENIX, "phoenix", tmp_path_factory.mktemp("in_phoenix"))


@pytest.fixture(scope="module")
def in_mlflow(visibly: Visibly, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Our spans with its preset, as MLflow stores them."""
    with visibly():
        python = backend_servers.python("mlflow")
    return converted(python, IN_MLFLOW, "mlflow", tmp_path_factory.mktemp("in_mlflow"))


def test_phoenix_decodes_kinds(in_phoenix: dict[str, Any]) -> None:
    """Flows and steps are chains, and each other span is what it is; attempts are of no kind."""
    kinds = {name: span["kind"] for name, span in in_phoenix.items() if not name.startswith("chat ")}
    assert kinds == {
        "invoke_workflow shop": "CHAIN",
        "invoke_workflow inner": "CHAIN",
        "invoke_agent clerk": "AGENT",
        f"execute_tool {TOOL}": "TOOL",
        "prepare": "CHAIN",
        **{f"attempt {number}": "UNKNOWN" for number in (1, 2, 3)},
    }
    assert {in_phoenix[name]["kind"] for name in CALLS} == {"LLM"}


def test_phoenix_decodes_calls(in_phoenix: dict[str, Any]) -> None:
    """Model, tokens with their parts, session, user, content and errors."""
    for name, scene in CALLS.items():
        span = in_phoenix[name]
        llm, usage = span["attributes"]["llm"], scene.usage
        assert llm["model_name"] == scene.model
        assert (span["attributes"]["session"]["id"], span["attributes"]["user"]["id"]) == (SESSION, USER)
        assert span["attributes"]["input"]["value"] == PROMPT
        assert span["status"] == ("ERROR" if usage is None else "UNSET")
        if usage is None:
            assert "token_count" not in llm
            continue
        count = llm["token_count"]
        assert (count["prompt"], count["completion"]) == (usage.prompt_tokens, usage.completion_tokens)
        parts = count.get("prompt_details", {})
        assert (parts.get("cache_read"), parts.get("cache_write")) == (
            usage.cache_read_tokens,
            usage.cache_write_tokens,
        )
        assert count.get("completion_details", {}).get("reasoning") == usage.reasoning_tokens
    assert in_phoenix["chat acme-plain"]["attributes"]["output"] == {"value": ANSWER, "mime_type": "text/plain"}
    tool = in_phoenix[f"execute_tool {TOOL}"]["attributes"]
    assert (tool["tool"]["name"], tool["tool"]["parameters"]) == (TOOL, {"word": "stock"})


def test_mlflow_stores_kinds(in_mlflow: dict[str, Any]) -> None:
    """Flows and steps are chains, and each other span is what it is."""
    kinds = {name: span.get("mlflow.spanType") for name, span in in_mlflow.items() if not name.startswith("chat ")}
    assert kinds["invoke_workflow shop"] == kinds["invoke_workflow inner"] == kinds["prepare"] == "CHAIN"
    assert (kinds["invoke_agent clerk"], kinds[f"execute_tool {TOOL}"]) == ("AGENT", "TOOL")
    assert {kinds[f"attempt {number}"] for number in (1, 2, 3)} <= {None, "UNKNOWN"}
    assert {in_mlflow[name]["mlflow.spanType"] for name in CALLS} == {"CHAT_MODEL"}


def test_mlflow_stores_calls(in_mlflow: dict[str, Any]) -> None:
    """Model, tokens with their parts, and our cost, not one of its own; none where nobody knows it."""
    for name, scene in CALLS.items():
        span, usage = in_mlflow[name], scene.usage
        assert span["mlflow.llm.model"] == scene.model
        assert PROMPT in json.dumps(span["mlflow.spanInputs"])
        cost = span.get("mlflow.llm.cost")
        assert (None if cost is None else cost["total_cost"]) == (
            None if scene.cost_usd is None else pytest.approx(scene.cost_usd, rel=1e-12)
        )
        if usage is not None:
            stored = span["mlflow.chat.tokenUsage"]
            assert (stored["input_tokens"], stored["output_tokens"]) == (usage.prompt_tokens, usage.completion_tokens)
            assert stored.get("cache_read_input_tokens") == usage.cache_read_tokens
            assert stored.get("cache_creation_input_tokens") == usage.cache_write_tokens
    assert ANSWER in json.dumps(in_mlflow["chat acme-plain"]["mlflow.spanOutputs"])


# --- Their servers

PRICE = """
mutation($input: CreateModelMutationInput!) { createModel(input: $input) { model { name } } }
"""
SPANS = """
{ projects { edges { node { name spans(first: 500) { edges { node {
  name spanKind statusCode tokenCountPrompt tokenCountCompletion costSummary { total { cost } } attributes
} } } } } } }
"""


def price_in_phoenix(server: BackendServer, pattern: str, **rates: Any) -> None:
    """Put a price into Phoenix's table."""
    sides = {"output": "COMPLETION"}
    costs = [
        {"tokenType": kind, "costPerMillionTokens": float(usd), "kind": sides.get(kind, "PROMPT")}
        for kind, usd in rates.items()
    ]
    given = {"name": pattern, "namePattern": pattern, "costs": costs}
    answer = server.ask("/graphql", {"query": PRICE, "variables": {"input": given}})
    assert "errors" not in answer, answer


def spans_in_phoenix(server: BackendServer, project: str, count: int) -> dict[str, Any]:
    """The spans of a project by name, when so many have come and have their costs."""
    for _ in range(120):
        answer = server.ask("/graphql", {"query": SPANS})
        edges = [edge["node"] for edge in answer["data"]["projects"]["edges"] if edge["node"]["name"] == project]
        nodes = [edge["node"] for project_ in edges for edge in project_["spans"]["edges"]]
        calls = [node for node in nodes if node["spanKind"] == "llm" and node["tokenCountPrompt"]]
        if len(nodes) >= count and all(node["costSummary"] for node in calls):
            return {node["name"]: node for node in nodes}
        time.sleep(0.5)
    raise AssertionError(f"fewer than {count} spans of {project} came, or they have no cost")


def flow_in_phoenix_with_prices(server: BackendServer) -> dict[str, Any]:
    """The spans of a run of our flow that Phoenix priced: it reads its table every few seconds only."""
    for number in range(10):
        run_flow("phoenix", server.url, service=f"shop-{number}")
        spans = spans_in_phoenix(server, f"shop-{number}", 8 + len(CALLS))
        if spans["chat acme-plain"]["costSummary"]["total"]["cost"] is not None:
            return spans
    raise AssertionError("Phoenix took none of the prices")


def test_phoenix_shows_our_flow(phoenix_server: BackendServer) -> None:
    """Its API gives kinds, tokens, ids and errors, and our cost within 1e-9 once our prices are in its table."""
    priced = "|".join(f"^{SCENES[kind].model}$" for kind in ("call", "streamed", "retried", "cached", "failed"))
    price_in_phoenix(
        phoenix_server, priced, input=INPUT_USD, output=OUTPUT_USD, cache_read=READ_USD, cache_write=WRITE_USD
    )
    price_in_phoenix(phoenix_server, "^acme-free$", input=0, output=0)
    spans = flow_in_phoenix_with_prices(phoenix_server)
    assert (spans["invoke_workflow shop"]["spanKind"], spans["prepare"]["spanKind"]) == ("chain", "chain")
    assert (spans["invoke_agent clerk"]["spanKind"], spans[f"execute_tool {TOOL}"]["spanKind"]) == ("agent", "tool")
    for name, scene in CALLS.items():
        span = spans[name]
        attributes = json.loads(span["attributes"])
        assert (attributes["session"]["id"], attributes["user"]["id"]) == (SESSION, USER)
        if scene.usage is None:
            assert span["statusCode"] == "ERROR"
            continue
        assert (span["tokenCountPrompt"], span["tokenCountCompletion"]) == (1_200, 300)
        if scene.model != SCENES["reported"].model:  # a cost that only the provider knows is in nobody's table
            cost = span["costSummary"]["total"]["cost"]
            # Without a rate above 0 it shows no cost, of a free call either.
            assert cost == (pytest.approx(scene.cost_usd, abs=1e-9) if scene.cost_usd else None)


def traces_in_mlflow(server: BackendServer, service: str) -> list[dict[str, Any]]:
    """The traces of a service, when there are any."""
    for _ in range(120):
        traces = server.ask("/api/3.0/mlflow/traces/search", TRACES).get("traces", [])
        found = [trace for trace in traces if trace["tags"].get("service.name") == service]
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"no trace of {service} came")


def spans_in_mlflow(server: BackendServer, trace: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The spans of a trace by name: their `mlflow.*` attributes and the status."""
    document = server.ask(f"/api/3.0/mlflow/traces/get?trace_id={trace['trace_id']}")
    return {
        span["name"]: {
            **{
                item["key"]: _plain(item.get("value", {}))
                for item in span["attributes"]
                if item["key"].startswith("mlflow.")
            },
            "status": span.get("status", {}).get("code"),
        }
        for span in document["trace"]["spans"]
    }


def _plain(value: dict[str, Any]) -> Any:
    if not value:
        return None
    [(kind, content)] = value.items()
    if kind == "kvlist_value":
        return {item["key"]: _plain(item.get("value", {})) for item in content.get("values", [])}
    if kind == "array_value":
        return [_plain(item) for item in content.get("values", [])]
    return int(content) if kind == "int_value" else content


def test_mlflow_shows_our_flow(mlflow_server: BackendServer) -> None:
    """Its API gives kinds, tokens, ids, content and errors, and a cost that equals ours: of each call, and in sum."""
    run_flow("mlflow", mlflow_server.url, headers="x-mlflow-experiment-id=0")
    [trace] = traces_in_mlflow(mlflow_server, "shop")
    told = trace["trace_metadata"]
    assert (told["mlflow.trace.session"], told["mlflow.trace.user"]) == (SESSION, USER)
    total = sum(scene.cost_usd or 0.0 for scene in SCENES.values())
    assert json.loads(told["mlflow.trace.cost"])["total_cost"] == pytest.approx(total, rel=1e-12)
    counts = json.loads(told["mlflow.trace.tokenUsage"])
    answered = sum(scene.usage is not None for scene in SCENES.values())
    assert (counts["input_tokens"], counts["output_tokens"]) == (1_200 * answered, 300 * answered)
    assert (counts["cache_read_input_tokens"], counts["cache_creation_input_tokens"]) == (900, 100)
    spans = spans_in_mlflow(mlflow_server, trace)
    assert (spans["invoke_workflow shop"]["mlflow.spanType"], spans["prepare"]["mlflow.spanType"]) == ("CHAIN", "CHAIN")
    tool = spans[f"execute_tool {TOOL}"]
    assert (tool["mlflow.spanType"], tool["mlflow.spanInputs"]) == ("TOOL", {"word": "stock"})
    for name, scene in CALLS.items():
        cost: dict[str, Any] = spans[name].get("mlflow.llm.cost") or {}
        assert cost.get("total_cost") == (None if scene.cost_usd is None else pytest.approx(scene.cost_usd, rel=1e-12))
    assert spans["chat acme-failed"]["status"] == "STATUS_CODE_ERROR"
    assert ANSWER in json.dumps(spans["chat acme-plain"]["mlflow.spanOutputs"])


# --- The trace of another instrumentation

FOREIGN = """
import importlib, sys
import openai
import tracemind_otel as tm

module, url, preset, endpoint, service, *headers = sys.argv[1:]
given = dict(pair.split("=", 1) for pair in headers)
telemetry = tm.configure(
    service_name=service, endpoint=endpoint, preset=preset, headers=given, hosts={url.split("/")[2]: "openai"}
)
importlib.import_module(module).OpenAIInstrumentor().instrument(tracer_provider=telemetry.tracer_provider)
with tm.using_attributes(session_id="session-2", user_id="user-2"), tm.flow("theirs"):
    with openai.OpenAI(api_key="sk-test", base_url=url) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
sys.exit(0 if telemetry.shutdown(90) else 1)
"""
MODULES = {
    "theirs-genai": "opentelemetry.instrumentation.genai.openai",
    "theirs-openinference": "openinference.instrumentation.openai",
}


@pytest.fixture(scope="module")
def their_python(visibly: Visibly) -> Path:
    """The Python that has the instrumentations."""
    with visibly():
        return instrumentation_environment.python()


@pytest.fixture(params=MODULES)
def run_theirs(
    request: pytest.FixtureRequest, their_python: Path, openai_server: OpenAIServer
) -> tuple[str, Callable[..., None]]:
    """Runs a flow whose call another instrumentation records."""
    service = str(request.param)

    def run(preset: str, endpoint: str, *headers: str) -> None:
        arguments = [MODULES[service], openai_server.base_url, preset, endpoint, service, *headers]
        environment = {"PYTHONPATH": str(REPOSITORY / "src"), "PATH": os.defpath, **_PATIENT}
        done = subprocess.run(
            [their_python, "-c", FOREIGN, *arguments],
            capture_output=True, text=True, timeout=120, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return service, run


def test_phoenix_shows_a_call_of_another_instrumentation(
    phoenix_server: BackendServer, run_theirs: tuple[str, Callable[..., None]]
) -> None:
    """Kind, model, tokens and ids of a span that is not ours, in a flow that is."""
    service, run = run_theirs
    run("phoenix", phoenix_server.url)
    spans = spans_in_phoenix(phoenix_server, service, 2)
    [call] = [span for span in spans.values() if span["spanKind"] == "llm"]
    assert spans["invoke_workflow theirs"]["spanKind"] == "chain"
    assert (call["tokenCountPrompt"], call["tokenCountCompletion"]) == (1_000, 200)
    attributes = json.loads(call["attributes"])
    assert attributes["llm"]["model_name"].startswith("gpt-4o-mini")
    assert attributes["llm"]["token_count"]["prompt_details"]["cache_read"] == 400
    assert (attributes["session"]["id"], attributes["user"]["id"]) == ("session-2", "user-2")
    assert call["costSummary"]["total"]["cost"] == pytest.approx(FOREIGN_COST_USD, abs=1e-9)


def test_mlflow_shows_our_cost_of_a_call_of_another_instrumentation(
    mlflow_server: BackendServer, run_theirs: tuple[str, Callable[..., None]]
) -> None:
    """Kind, model, tokens and ids of a span that is not ours, and a cost that equals ours."""
    service, run = run_theirs
    run("mlflow", mlflow_server.url, "x-mlflow-experiment-id=0")
    [trace] = traces_in_mlflow(mlflow_server, service)
    told = trace["trace_metadata"]
    assert (told["mlflow.trace.session"], told["mlflow.trace.user"]) == ("session-2", "user-2")
    assert json.loads(told["mlflow.trace.cost"])["total_cost"] == pytest.approx(FOREIGN_COST_USD, rel=1e-9)
    spans = spans_in_mlflow(mlflow_server, trace)
    assert spans["invoke_workflow theirs"]["mlflow.spanType"] == "CHAIN"
    [call] = [span for span in spans.values() if "mlflow.chat.tokenUsage" in span]
    assert call["mlflow.chat.tokenUsage"]["input_tokens"] == 1_000
    assert call["mlflow.llm.model"].startswith("gpt-4o-mini")
