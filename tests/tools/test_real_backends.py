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
            return by_name(nodes)
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
    """Its API gives kinds, models, tokens with their parts, ids, tools, errors, messages, and our cost within 1e-9.

    The cost is that of its own table, into which our prices were put.
    """
    priced = "|".join(f"^{SCENES[kind].model}$" for kind in ("call", "streamed", "retried", "cached", "failed"))
    price_in_phoenix(
        phoenix_server, priced, input=INPUT_USD, output=OUTPUT_USD, cache_read=READ_USD, cache_write=WRITE_USD
    )
    price_in_phoenix(phoenix_server, "^acme-free$", input=0, output=0)
    spans = flow_in_phoenix_with_prices(phoenix_server)
    assert kinds_in(spans, "spanKind") == {
        "invoke_workflow shop": "chain",
        "invoke_workflow inner": "chain",
        "invoke_agent clerk": "agent",
        f"execute_tool {TOOL}": "tool",
        "prepare": "chain",
        **dict.fromkeys(CALLS, "llm"),
    }
    tool = json.loads(spans[f"execute_tool {TOOL}"]["attributes"])
    assert (tool["tool"]["name"], tool["tool"]["parameters"]) == (TOOL, {"word": "stock"})
    assert json.loads(tool["output"]["value"]) == {"found": "stock"}
    for name, scene in CALLS.items():
        span = spans[name]
        attributes = json.loads(span["attributes"])
        assert attributes["llm"]["model_name"] == scene.model
        assert (attributes["session"]["id"], attributes["user"]["id"]) == (SESSION, USER)
        [asked] = attributes["llm"]["input_messages"]
        assert (asked["message"]["role"], asked["message"]["content"]) == ("user", PROMPT)
        assert attributes["input"]["value"] == PROMPT
        if scene.usage is None:
            assert span["statusCode"] == "ERROR"
            assert "output_messages" not in attributes["llm"]
            continue
        [answered] = attributes["llm"]["output_messages"]
        answer = answered["message"]["content"]
        assert answer == attributes["output"]["value"] == ANSWER.replace("acme-plain", scene.model)
        assert span["statusCode"] != "ERROR"
        assert (span["tokenCountPrompt"], span["tokenCountCompletion"]) == (1_200, 300)
        count = attributes["llm"]["token_count"]
        assert count.get("prompt_details", {}) == (
            {"cache_read": 900, "cache_write": 100} if scene.model == SCENES["cached"].model else {}
        )
        assert count.get("completion_details", {}).get("reasoning") == scene.usage.reasoning_tokens
        if scene.model != SCENES["reported"].model:  # a cost that only the provider knows is in nobody's table
            cost = span["costSummary"]["total"]["cost"]
            # Without a rate above 0 it shows no cost, of a free call either.
            assert cost == (pytest.approx(scene.cost_usd, abs=1e-9) if scene.cost_usd else None)


def kinds_in(spans: dict[str, Any], field: str) -> dict[str, Any]:
    """What each span is, but for the attempts of a call, which are of no kind."""
    return {name: span.get(field) for name, span in spans.items() if not name.startswith("attempt ")}


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
    """The spans of a trace by name: their attributes of MLflow, their counts of tokens, and the status."""
    document = server.ask(f"/api/3.0/mlflow/traces/get?trace_id={trace['trace_id']}")
    return by_name(
        [
            {
                **{
                    item["key"]: _plain(item.get("value", {}))
                    for item in span["attributes"]
                    if item["key"].startswith(("mlflow.", "gen_ai.usage."))
                },
                "name": span["name"],
                "status": span.get("status", {}).get("code"),
            }
            for span in document["trace"]["spans"]
        ]
    )


def by_name(spans: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The spans by name; a name that comes again gets a number."""
    found: dict[str, dict[str, Any]] = {}
    for span in spans:
        same = sum(name.split(" #")[0] == span["name"] for name in found)
        found[f"{span['name']} #{same + 1}" if same else span["name"]] = span
    return found


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
    """Its API gives kinds, models, tokens with their parts, ids, tools, errors, messages, and our cost, also in sum."""
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
    assert kinds_in(spans, "mlflow.spanType") == {
        "invoke_workflow shop": "CHAIN",
        "invoke_workflow inner": "CHAIN",
        "invoke_agent clerk": "AGENT",
        f"execute_tool {TOOL}": "TOOL",
        "prepare": "CHAIN",
        **dict.fromkeys(CALLS, "CHAT_MODEL"),
    }
    tool = spans[f"execute_tool {TOOL}"]
    assert (tool["mlflow.spanInputs"], tool["mlflow.spanOutputs"]) == ({"word": "stock"}, {"found": "stock"})
    for name, scene in CALLS.items():
        span = spans[name]
        assert span["mlflow.llm.model"] == scene.model
        cost: dict[str, Any] = span.get("mlflow.llm.cost") or {}
        assert cost.get("total_cost") == (None if scene.cost_usd is None else pytest.approx(scene.cost_usd, rel=1e-12))
        assert PROMPT in json.dumps(span["mlflow.spanInputs"])
        if scene.usage is None:
            assert span["status"] == "STATUS_CODE_ERROR"
            continue
        assert span["status"] != "STATUS_CODE_ERROR"
        assert ANSWER.replace("acme-plain", scene.model) in json.dumps(span["mlflow.spanOutputs"])
        stored = span["mlflow.chat.tokenUsage"]
        assert (stored["input_tokens"], stored["output_tokens"]) == (1_200, 300)
        assert stored.get("cache_read_input_tokens") == scene.usage.cache_read_tokens
        assert stored.get("cache_creation_input_tokens") == scene.usage.cache_write_tokens
        # It has no column for reasoning tokens; they stay among the attributes of the span.
        assert span.get("gen_ai.usage.reasoning.output_tokens") == scene.usage.reasoning_tokens


# --- The trace of another instrumentation

FOREIGN = """
import importlib, json, sys
import openai
import tracemind_otel as tm
from opentelemetry.trace import Status, StatusCode

module, url, preset, endpoint, service, good, bad, tool, *headers = sys.argv[1:]
given = dict(pair.split("=", 1) for pair in headers)
telemetry = tm.configure(
    service_name=service, endpoint=endpoint, preset=preset, headers=given, hosts={url.split("/")[2]: "openai"}
)
importlib.import_module(module).OpenAIInstrumentor().instrument(tracer_provider=telemetry.tracer_provider)
tracer = telemetry.tracer_provider.get_tracer("their.agents")
tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
with tm.using_attributes(session_id="session-2", user_id="user-2"), tm.flow("theirs"):
    with openai.OpenAI(api_key="sk-test", base_url=url, max_retries=0) as client:
        asked = [{"role": "user", "content": "What is in stock?"}]
        client.chat.completions.create(model=good, messages=asked, tools=tools)
        with tracer.start_as_current_span("their tool", attributes=json.loads(tool)) as span:
            span.set_status(Status(StatusCode.ERROR, "out of stock"))
        try:
            client.chat.completions.create(model=bad, messages=[{"role": "user", "content": "And tomorrow?"}])
        except openai.BadRequestError:
            pass
sys.exit(0 if telemetry.shutdown(90) else 1)
"""
MODULES = {
    "theirs-genai": "opentelemetry.instrumentation.genai.openai",
    "theirs-openinference": "openinference.instrumentation.openai",
}
TOOL_SPANS = {
    "theirs-genai": {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": TOOL,
        "gen_ai.tool.call.arguments": '{"word": "stock"}',
    },
    "theirs-openinference": {
        "openinference.span.kind": "TOOL",
        "tool.name": TOOL,
        "input.value": '{"word": "stock"}',
        "input.mime_type": "application/json",
    },
}
"""The span of a tool, as each maker names its attributes."""
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "I look it up.",
                "tool_calls": [
                    {"id": "call-1", "type": "function", "function": {"name": TOOL, "arguments": '{"word": "stock"}'}}
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 1_000,
        "completion_tokens": 200,
        "total_tokens": 1_200,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 50},
    },
}
_CONTENT = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
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
    """Runs a flow whose calls and tool another instrumentation records: a call, a tool that fails, a call that fails.

    The second call is rejected by the provider.
    """
    service = str(request.param)

    def run(preset: str, endpoint: str, *headers: str) -> None:
        good = openai_server.script({"body": json.dumps(REPLY)})
        bad = openai_server.script({"status": 400, "body": json.dumps({"error": {"message": "no"}})})
        arguments = [MODULES[service], openai_server.base_url, preset, endpoint, service, good, bad]
        environment = {"PYTHONPATH": str(REPOSITORY / "src"), "PATH": os.defpath, **_PATIENT, **_CONTENT}
        done = subprocess.run(
            [their_python, "-c", FOREIGN, *arguments, json.dumps(TOOL_SPANS[service]), *headers],
            capture_output=True, text=True, timeout=120, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    return service, run


def test_phoenix_shows_a_trace_of_another_instrumentation(
    phoenix_server: BackendServer, run_theirs: tuple[str, Callable[..., None]]
) -> None:
    """Kinds, model, tokens with their parts, cost, ids, tool, errors and messages of spans that are not ours."""
    service, run = run_theirs
    run("phoenix", phoenix_server.url)
    spans = spans_in_phoenix(phoenix_server, service, 4)
    attributes = {key: json.loads(span["attributes"]) for key, span in spans.items()}
    assert spans["invoke_workflow theirs"]["spanKind"] == "chain"
    assert {(found["session"]["id"], found["user"]["id"]) for found in attributes.values()} == {("session-2", "user-2")}
    tool = attributes["their tool"]
    assert (spans["their tool"]["spanKind"], spans["their tool"]["statusCode"]) == ("tool", "ERROR")
    assert tool["tool"]["name"] == TOOL
    assert json.loads(tool["input"]["value"]) == {"word": "stock"}
    [(name, call)] = [(key, span) for key, span in spans.items() if span["tokenCountPrompt"]]
    [failed] = [span for key, span in spans.items() if span["spanKind"] == "llm" and key != name]
    assert (call["spanKind"], failed["statusCode"]) == ("llm", "ERROR")
    assert (call["tokenCountPrompt"], call["tokenCountCompletion"]) == (1_000, 200)
    llm = attributes[name]["llm"]
    assert llm["model_name"].startswith("gpt-4o-mini")
    assert llm["token_count"]["prompt_details"]["cache_read"] == 400
    assert llm["token_count"]["completion_details"]["reasoning"] == 50
    assert "What is in stock?" in json.dumps(llm["input_messages"])
    assert "I look it up." in json.dumps(llm["output_messages"])
    [asked] = llm["output_messages"][0]["message"]["tool_calls"]
    assert asked["tool_call"]["function"]["name"] == TOOL
    assert call["costSummary"]["total"]["cost"] == pytest.approx(FOREIGN_COST_USD, abs=1e-9)


def test_mlflow_shows_our_cost_of_a_trace_of_another_instrumentation(
    mlflow_server: BackendServer, run_theirs: tuple[str, Callable[..., None]]
) -> None:
    """Kinds, model, tokens with their parts, ids, tool, errors and messages that are not ours, and our cost."""
    service, run = run_theirs
    run("mlflow", mlflow_server.url, "x-mlflow-experiment-id=0")
    [trace] = traces_in_mlflow(mlflow_server, service)
    told = trace["trace_metadata"]
    assert (told["mlflow.trace.session"], told["mlflow.trace.user"]) == ("session-2", "user-2")
    assert json.loads(told["mlflow.trace.cost"])["total_cost"] == pytest.approx(FOREIGN_COST_USD, rel=1e-9)
    spans = spans_in_mlflow(mlflow_server, trace)
    assert spans["invoke_workflow theirs"]["mlflow.spanType"] == "CHAIN"
    tool = spans["their tool"]
    assert (tool["mlflow.spanType"], tool["status"]) == ("TOOL", "STATUS_CODE_ERROR")
    assert tool["mlflow.spanInputs"] == {"word": "stock"}
    [(name, call)] = [(key, span) for key, span in spans.items() if "mlflow.chat.tokenUsage" in span]
    [failed] = [span for key, span in spans.items() if span.get("mlflow.spanType") == call["mlflow.spanType"] and
                key != name]  # fmt: skip
    assert (call["mlflow.spanType"], failed["status"]) == (THEIR_KINDS[service], "STATUS_CODE_ERROR")
    counts = call["mlflow.chat.tokenUsage"]
    assert (counts["input_tokens"], counts["output_tokens"]) == (1_000, 200)
    assert counts["cache_read_input_tokens"] == 400
    assert call["mlflow.llm.model"].startswith("gpt-4o-mini")
    assert call["mlflow.llm.cost"]["total_cost"] == pytest.approx(FOREIGN_COST_USD, rel=1e-9)
    assert "What is in stock?" in json.dumps(call["mlflow.spanInputs"])
    assert "I look it up." in json.dumps(call["mlflow.spanOutputs"])
    assert TOOL in json.dumps(call["mlflow.spanOutputs"])


THEIR_KINDS = {"theirs-genai": "CHAT_MODEL", "theirs-openinference": "LLM"}
"""What MLflow takes a call of each maker for."""
