"""Presets: each of them shows every kind of span as its backend reads it, and disturbs no other destination."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import tracemind_otel as tm
from tests.backend_reads import ALSO, KINDS, KINDS_BY_OPERATION_TOO, READS, TOOL_NAMES, Kind, Shows, first, read
from tests.backend_scenes import ANSWER, PRICES, PROMPT, SCENES, SESSION, TOOL, USER, shop
from tests.backends_page import PAGE
from tests.programs import run, run_program
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink
from tests.support import attributes
from tracemind_otel.ai.llm.pricing import Price
from tracemind_otel.cli.main import main
from tracemind_otel.errors import ConfigError
from tracemind_otel.otel.backends import BACKENDS, Field, SpanFacts, SpanView, backend_named, chosen_presets, shown
from tracemind_otel.otel.backends.words import backend_section, backends_page
from tracemind_otel.otel.setup.settings import export_config

NAMES = (
    "jaeger",
    "phoenix",
    "mlflow",
    "langfuse",
    "opik",
    "weave",
    "laminar",
    "langsmith",
    "signoz",
    "openobserve",
    "openlit",
    "datadog",
    "grafana",
    "honeycomb",
    "dynatrace",
    "newrelic",
    "elastic",
    "azure",
    "aws",
    "splunk",
    "sentry",
)
"""The presets that there must be."""

LANGFUSE = "langfuse.observation"


@functools.cache
def recorded(preset: str | None) -> dict[str, ReadableSpan]:
    """The spans of a run with a preset: flows and functions by name, calls by kind, attempts by number."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tm.configure(
        tracer_provider=provider, meter_provider=MeterProvider(), prices=PRICES, preset=preset, capture_content=True
    ):
        asyncio.run(shop())
    kinds = {scene.model: kind for kind, scene in SCENES.items()}
    return {kinds.get(span.name.split()[-1], span.name): span for span in exporter.get_finished_spans()}


def found(preset: str | None, kind: str) -> Mapping[str, Any]:
    """The attributes of one kind of span."""
    return attributes(recorded(preset)[kind])


BLOCKS = {"flow": "invoke_workflow shop", "nested flow": "invoke_workflow inner", "agent": "invoke_agent clerk",
          "tool": f"execute_tool {TOOL}", "step": "prepare"}  # fmt: skip
"""The names of the spans that are no calls."""


# --- The table, and what arrives


def test_the_presets_that_were_asked_for_are_there() -> None:
    """Each backend of the list has a row, with its source, its day and a reason for whatever it does not show."""
    assert tuple(BACKENDS) == NAMES
    for backend in BACKENDS.values():
        assert backend.source
        assert backend.as_of.startswith("2026-")
        assert set(backend.reads) == {*get_args(Field)} - {"kind"}
        for field, told in backend.reads.items():
            is_read = told.names or told.status or told.span_name or told.metric or told.event
            assert is_read or told.note, (backend.name, field)


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("kind", SCENES)
def test_a_call_shows_what_its_backend_reads(preset: str, kind: str) -> None:
    """Model, tokens with their parts, cost, session, user and answer arrive where the backend looks for them.

    The cost is ours to the last digit, 0 of a free call, and absent where nobody knows it, as counts of a call are that
    failed.
    """
    attributes_, scene = found(preset, kind), SCENES[kind]
    usage = scene.usage
    expected: dict[Shows, object] = {
        "model": scene.model,
        "input": None if usage is None else usage.prompt_tokens,
        "output": None if usage is None else usage.completion_tokens,
        "cache_read": None if usage is None else usage.cache_read_tokens,
        "cache_write": None if usage is None else usage.cache_write_tokens,
        "reasoning": None if usage is None else usage.reasoning_tokens,
        "cost": None if scene.cost_usd is None else pytest.approx(scene.cost_usd, rel=1e-12),
        "session": SESSION,
        "user": USER,
    }
    if preset == "jaeger":  # it reads conversations, and none was named
        expected["session"] = None
    for field in READS[preset]:
        if field in expected:
            assert read(preset, field, attributes_) == expected[field], field
    if "answer" in READS[preset]:
        answer = read(preset, "answer", attributes_)
        assert answer is None if usage is None else ANSWER.replace("acme-plain", scene.model) in str(answer)
    if scene.cost_usd is None:
        assert not [name for name in attributes_ if "cost" in name]
    if usage is None:
        assert not [name for name in attributes_ if "token" in name]


@pytest.mark.parametrize("kind", SCENES)
def test_the_parts_of_langfuses_usage_add_up(kind: str) -> None:
    """It adds up what it finds, so its input and output have no part twice."""
    usage, details = SCENES[kind].usage, found("langfuse", kind).get(f"{LANGFUSE}.usage_details")
    if usage is None:
        assert details is None
        return
    parts = json.loads(str(details))
    assert sum(count for part, count in parts.items() if part.startswith("input")) == usage.prompt_tokens
    assert sum(count for part, count in parts.items() if part.startswith("output")) == usage.completion_tokens
    assert parts["total"] == usage.total_tokens


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("kind", [*BLOCKS, *SCENES])
def test_a_span_shows_what_it_is(preset: str, kind: str) -> None:
    """Flows, nested or not, agents, tools, steps and calls have what makes the backend show them as such."""
    attributes_ = found(preset, BLOCKS.get(kind, kind))
    told = KINDS[preset].get(type_of(kind))
    if told is not None:
        name, _, value = told.partition("=")
        assert name in attributes_
        assert value in ("*", attributes_[name])
    if kind == "tool":
        names = TOOL_NAMES.get(preset)
        assert (first(names, attributes_) if names else recorded(preset)[BLOCKS["tool"]].name.split()[-1]) == TOOL
    if kind == "call":
        assert {name: attributes_.get(name) for name in ALSO.get(preset, {})} == ALSO.get(preset, {})


def type_of(kind: str) -> Kind:
    """The type of a scene's span."""
    return "flow" if kind == "nested flow" else "call" if kind in SCENES else kind  # type: ignore[return-value]


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_span_around_calls_has_ids_and_no_figures(preset: str, kind: str) -> None:
    """Session and user show on them too where the backend takes these from any span, and no figure that it adds up."""
    attributes_ = found(preset, BLOCKS[kind])
    if kind != "flow":  # the outermost began before the ids were set
        ids: dict[Shows, str] = {"session": SESSION, "user": USER}
        for field, value in ids.items():
            names = READS[preset].get(field, "")
            if names and names != "gen_ai.conversation.id":
                assert read(preset, field, attributes_) == value, field
    added = {name for name in attributes_ if name not in found(None, BLOCKS[kind])}
    assert not [name for name in added if "usage" in name or "cost" in name or "token" in name]


def test_honeycombs_timeline_has_every_span_of_a_conversation() -> None:
    """It shows only spans that have a conversation and an agent."""
    for kind in ("nested flow", "agent", "tool"):
        assert found("honeycomb", BLOCKS[kind])["gen_ai.conversation.id"] == SESSION
    assert found("honeycomb", BLOCKS["tool"])["gen_ai.agent.name"] == "clerk"


FIELDS: dict[Field, Shows] = {
    "model": "model",
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read": "cache_read",
    "cache_write": "cache_write",
    "reasoning": "reasoning",
    "cost": "cost",
    "session": "session",
    "user": "user",
    "messages": "answer",
}


@pytest.mark.parametrize("preset", NAMES)
@pytest.mark.parametrize("kind", [*SCENES, *BLOCKS])
def test_the_rows_say_what_the_backend_reads(preset: str, kind: str) -> None:
    """What `doctor` and the documentation say by our rows is what the table by hand says of the same real span."""
    span = recorded(preset)[BLOCKS.get(kind, kind)]
    attributes_ = attributes(span)
    facts = SpanFacts(type=type_of(kind), attributes=attributes_)
    view = SpanView(facts=facts, is_error=span.status.status_code is StatusCode.ERROR, name=span.name)
    backend = BACKENDS[preset]
    assert shown(backend, view, "error").value == (True if kind == "failed" else None)
    told = KINDS[preset].get(type_of(kind))
    assert shown(backend, view, "kind").name == ("" if told is None else told.partition("=")[0])
    if kind == "tool":
        assert TOOL in str(shown(backend, view, "tool").value)
    if kind in SCENES:
        for field, by_hand in FIELDS.items():
            said = shown(backend, view, field).value
            if (preset, by_hand) in (("langfuse", "input"), ("langfuse", "output")):
                assert (said is None) == (SCENES[kind].usage is None)
            elif SCENES[kind].usage is None and by_hand == "answer":
                assert said in (None, PROMPT, attributes_["gen_ai.input.messages"])
            else:
                assert said == read(preset, by_hand, attributes_), field


@pytest.mark.parametrize("preset", NAMES)
def test_nothing_of_ours_is_removed_or_changed(preset: str) -> None:
    """With a preset every span has the attributes that it has without one, and each addition is one of the row's."""
    allowed = {added.name for added in BACKENDS[preset].adds}
    volatile = ("duration", "time_to_first", "stacktrace")
    for kind, span in recorded(None).items():
        with_preset = found(preset, kind)
        for name, value in attributes(span).items():
            if not any(word in name for word in volatile):
                assert with_preset[name] == value, (kind, name)
        assert {*with_preset} - {*attributes(span)} <= allowed


@pytest.mark.parametrize("preset", NAMES)
def test_the_attempts_of_a_call_stay_plain(preset: str) -> None:
    """No backend takes an attempt for a call: it gets nothing from a preset."""
    attempts = [name for name in recorded(preset) if name.startswith("attempt ")]
    assert attempts == ["attempt 1", "attempt 2", "attempt 3"]
    for name in attempts:
        assert {*found(preset, name)} == {*found(None, name)}


def test_a_stream_tells_when_its_first_chunk_came() -> None:
    """Langfuse and SigNoz get it in their own form: a time as JSON, and seconds."""
    moment = json.loads(found("langfuse", "streamed")["langfuse.observation.completion_start_time"])
    assert moment[10] == "T"
    assert moment.endswith("Z")
    streamed = found("signoz", "streamed")
    assert streamed["gen_ai.server.ttft"] == streamed["gen_ai.response.time_to_first_chunk"]
    assert "langfuse.observation.completion_start_time" not in found("langfuse", "call")


def test_phoenix_shows_the_answer_and_not_the_models_id() -> None:
    """Its columns input and output have the captured texts, and those of tools their arguments and result."""
    call = found("phoenix", "call")
    assert call["input.value"] == "What is in stock?"
    assert call["output.value"] == ANSWER
    assert call["output.mime_type"] == "text/plain"
    tool = found("phoenix", BLOCKS["tool"])
    assert (json.loads(tool["input.value"]), json.loads(tool["output.value"])) == (
        {"word": "stock"},
        {"found": "stock"},
    )


# --- Spans of others


def foreign_span(preset: str, **told: Any) -> Mapping[str, Any]:
    """A model call that another instrumentation tells, with a preset."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    prices = [Price(model="acme-other", input=Decimal(2), output=Decimal(8))]
    with tm.configure(tracer_provider=provider, meter_provider=MeterProvider(), preset=preset, prices=prices):
        tracer = provider.get_tracer("some.instrumentation")
        with tm.flow("work"), tracer.start_as_current_span("chat", kind=SpanKind.CLIENT, attributes=told):
            pass
        with tracer.start_as_current_span("GET", kind=SpanKind.CLIENT, attributes={"http.request.method": "GET"}):
            pass
    spans = {span.name: attributes(span) for span in exporter.get_finished_spans()}
    assert set(spans["GET"]) == {"http.request.method"}
    return spans["chat"]


TOLD: dict[str, dict[str, str | int]] = {
    "the newest names": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "acme-other",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
    },
    "older names": {
        "gen_ai.system": "openai",
        "gen_ai.request.model": "acme-other",
        "gen_ai.usage.prompt_tokens": 1_000,
        "gen_ai.usage.completion_tokens": 100,
    },
    "OpenInference's": {
        "openinference.span.kind": "LLM",
        "llm.provider": "openai",
        "llm.model_name": "acme-other",
        "llm.token_count.prompt": 1_000,
        "llm.token_count.completion": 100,
    },
}


@pytest.mark.parametrize("names", TOLD)
@pytest.mark.parametrize("preset", [name for name in NAMES if "cost" in READS[name]])
def test_a_span_of_another_instrumentation_shows_our_cost(preset: str, names: str) -> None:
    """Its cost is computed before its end, and put where the backend reads it, by whatever names it tells the call."""
    chat = foreign_span(preset, **TOLD[names])
    assert read(preset, "cost", chat) == pytest.approx(0.0028, rel=1e-12)


@pytest.mark.parametrize("preset", ["phoenix", "mlflow"])
def test_the_rows_know_that_a_backend_reads_openinference(preset: str) -> None:
    """Of a span with nothing but OpenInference's names, doctor says what their own servers show of one."""
    facts = SpanFacts(type="call", attributes=TOLD["OpenInference's"])
    view = SpanView(facts=facts)
    fields: tuple[Field, ...] = ("kind", "model", "input_tokens", "output_tokens")
    said = [shown(BACKENDS[preset], view, field).value for field in fields]
    assert said == ["model call", "acme-other", 1_000, 100]


def test_what_a_span_of_another_instrumentation_has_stays() -> None:
    """A name that the maker has set keeps its value."""
    chat = foreign_span("mlflow,phoenix", **TOLD["the newest names"], **{"mlflow.llm.cost": "theirs"})
    assert chat["mlflow.llm.cost"] == "theirs"


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"openinference.span.kind": "TOOL"}, "tool"),
        ({"openinference.span.kind": "AGENT"}, "chain"),
        ({"traceloop.span.kind": "workflow"}, "chain"),
        ({"traceloop.span.kind": "tool"}, "tool"),
        ({"gen_ai.operation.name": "execute_tool"}, "tool"),
        ({"openinference.span.kind": "CHAIN"}, None),
        ({"db.system": "sqlite"}, None),
    ],
)
def test_flows_agents_and_tools_of_other_instrumentations_are_told_apart(
    told: dict[str, str], kind: str | None
) -> None:
    """By whichever convention they are made, a preset adds the kind and the session that its backend reads."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tm.configure(tracer_provider=provider, meter_provider=MeterProvider(), preset="langsmith"):
        tracer = provider.get_tracer("some.instrumentation")
        with tm.flow("work"), tm.using_attributes(session_id=SESSION):
            tracer.start_span("theirs", attributes=told).end()
    theirs = next(attributes(span) for span in exporter.get_finished_spans() if span.name == "theirs")
    assert theirs.get("langsmith.span.kind") == kind
    assert theirs.get("langsmith.trace.session_id") == (None if kind is None else SESSION)


@pytest.mark.parametrize("preset", ["honeycomb", "splunk"])
def test_a_span_of_another_instrumentation_is_in_its_flow_and_agent(preset: str) -> None:
    """Backends that group by these names find them on spans that are not ours, too."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tm.configure(tracer_provider=provider, meter_provider=MeterProvider(), preset=preset):
        tracer = provider.get_tracer("some.instrumentation")
        with tm.flow("work"), tm.agent("clerk"), tm.using_attributes(session_id=SESSION):
            tracer.start_span("chat", attributes=TOLD["the newest names"]).end()
    chat = next(attributes(span) for span in exporter.get_finished_spans() if span.name == "chat")
    assert (chat["gen_ai.workflow.name"], chat["gen_ai.agent.name"]) == ("work", "clerk")
    assert chat["gen_ai.conversation.id"] == SESSION


def test_personal_data_and_private_names_are_added_only_on_request() -> None:
    """Azure's user and SigNoz's private cost come with an option of the preset, and doctor reads them then."""
    for plain_name, asked, name, value in (
        ("azure", "azure+users", "enduser.id", USER),
        ("signoz", "signoz+cost", "_signoz.gen_ai.total_cost", pytest.approx(0.0048)),
    ):
        assert name not in found(plain_name, "call")
        assert found(asked, "call")[name] == value
        backend, facts = backend_named(asked), SpanFacts(type="call", attributes=found(asked, "call"))
        view = SpanView(facts=facts)
        assert value in (shown(backend, view, "user").value, shown(backend, view, "cost").value)
    assert found("azure+users", BLOCKS["tool"])["enduser.id"] == USER


def test_an_unknown_option_is_rejected_with_the_known_ones() -> None:
    """The message names the preset, the option, and what there is."""
    with pytest.raises(ConfigError, match=r"'azure\+user', but azure has no option 'user'; its options are users"):
        chosen_presets("azure+user")
    with pytest.raises(ConfigError, match="jaeger has no option 'x'; it has no options"):
        chosen_presets("jaeger+x")


def test_a_second_configure_on_the_same_provider_has_its_own_preset() -> None:
    """A provider that was joined before gets the new presets, and loses the old ones."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for preset in ("langsmith", None, "phoenix"):
        with tm.configure(tracer_provider=provider, meter_provider=MeterProvider(), preset=preset), tm.flow("f"):
            pass
    kinds = [{*attributes(span)} & {"langsmith.span.kind", "openinference.span.kind"} for span in
             exporter.get_finished_spans()]  # fmt: skip
    assert kinds == [{"langsmith.span.kind"}, set(), {"openinference.span.kind"}]


# --- Names and combinations


def test_an_unknown_name_is_rejected_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the argument or the variable, the name, and every preset."""
    with pytest.raises(ConfigError, match=r"preset names 'pheonix', which is no preset; known are aws, azure, .*weave"):
        tm.configure(preset="jaeger,pheonix")
    monkeypatch.setenv("TRACEMIND_PRESET", "nobody")
    with pytest.raises(ConfigError, match="TRACEMIND_PRESET names 'nobody'"):
        tm.configure()
    for wrong in (7, ["jaeger"], " , "):
        with pytest.raises(ConfigError, match=r"^preset is"):
            chosen_presets(wrong)


def test_presets_that_need_different_temporalities_are_rejected() -> None:
    """One export has one temporality: the message names both presets and the way out."""
    with pytest.raises(ConfigError, match=r"dynatrace, which needs delta metrics, and grafana, .* Collector"):
        tm.configure(preset="dynatrace,grafana")


def test_an_omission_reaches_no_other_backend(caplog: pytest.LogCaptureFixture) -> None:
    """Where two backends share an address, what only one is better off without is sent, and the log says so."""
    assert chosen_presets("opik").leaves_out == ("tracemind.",)
    assert not caplog.records
    assert chosen_presets("opik,jaeger").leaves_out == ()
    assert "tracemind.* are sent" in caplog.text


def test_sums_that_others_would_count_twice_are_left_out_where_they_share_an_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Alone, Jaeger gets a flow's sums; beside a backend that adds up a trace it does not, and the log says so."""
    caplog.set_level("INFO")
    assert [added.name for added in chosen_presets("jaeger").adds_when_sent] == [*SUMS]
    assert not caplog.records
    assert chosen_presets("langfuse,jaeger").adds_when_sent == ()
    assert "flows are sent without gen_ai.usage.cost, " in caplog.text
    assert "Send to Jaeger alone" in caplog.text


def test_grpc_to_a_backend_that_takes_http_only_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """It is allowed, since the endpoint may be a Collector's."""
    provider = TracerProvider()
    with tm.configure(tracer_provider=provider, protocol="grpc", preset="mlflow"):
        pass
    assert "MLflow takes OTLP over HTTP only" in caplog.text


@pytest.mark.parametrize(
    ("preset", "told"),
    [
        ("datadog", "preset datadog needs .* do it there: send the header dd-otlp-source: llmobs"),
        ("phoenix", "preset phoenix .*set openinference.project.name of the resource to the service's name"),
        ("opik", r"preset opik .*drop the attributes tracemind\.\*"),
    ],
)
def test_what_a_preset_cannot_do_for_a_provider_of_yours_is_warned_of(
    preset: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its exporter is yours, so the header, the resource and what is left out are yours too."""
    with tm.configure(tracer_provider=TracerProvider(), meter_provider=MeterProvider(), preset=preset):
        pass
    assert re.search(told, caplog.text)
    caplog.clear()
    with tm.configure(tracer_provider=TracerProvider(), meter_provider=MeterProvider(), preset="mlflow"):
        pass
    assert "needs more" not in caplog.text


PROGRAM = """
import asyncio, sys
import tracemind_otel as tm
from tests.backend_scenes import PRICES, shop
endpoint, preset, file = sys.argv[1:]
with tm.configure(service_name="shop", endpoint=endpoint, preset=preset or None, file=file or None, prices=PRICES):
    asyncio.run(shop())
"""


def sent(sink: Sink, preset: str, file: str = "", **environment: str) -> Sink:
    """What a program with a preset sends to a receiver."""
    done = run_program(PROGRAM, sink.url, preset, file, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    return sink


@pytest.mark.slow
def test_what_is_left_out_for_the_receiver_is_in_the_file(sink: Sink, tmp_path: Path) -> None:
    """Opik gets no `tracemind.*`; a file beside it has them."""
    file = tmp_path / "trace.jsonl"
    spans = sent(sink, "opik", str(file)).spans()
    assert spans
    assert not [name for span in spans for name in plain(span.attributes) if name.startswith("tracemind.")]
    assert {plain(span.attributes).get("thread_id") for span in spans if span.name.startswith("chat")} == {SESSION}
    assert "tracemind.cost_usd" in file.read_text()


SUMS = {
    "gen_ai.usage.cost": "tracemind.flow.cost_usd",
    "gen_ai.usage.input_tokens": "tracemind.flow.input_tokens",
    "gen_ai.usage.output_tokens": "tracemind.flow.output_tokens",
}
"""The sums of a flow, by the names that Jaeger's tab GenAI shows."""


@pytest.mark.slow
def test_jaegers_tab_shows_the_sums_of_a_flow_and_nobody_else_counts_them(sink: Sink, tmp_path: Path) -> None:
    """What is sent has them under `gen_ai.usage.*` on each flow; the file of the same run has none there."""
    file = tmp_path / "trace.jsonl"
    spans = {span.name: plain(span.attributes) for span in sent(sink, "jaeger", str(file)).spans()}
    for flow in ("invoke_workflow shop", "invoke_workflow inner"):
        assert spans[flow]["gen_ai.usage.input_tokens"] > 0
        assert [spans[flow][name] for name in SUMS] == [spans[flow][name] for name in SUMS.values()]
    assert spans["invoke_workflow shop"]["gen_ai.usage.cost"] > spans["invoke_workflow inner"]["gen_ai.usage.cost"]
    assert spans["chat acme-plain"]["gen_ai.usage.cost"] == pytest.approx(SCENES["call"].cost_usd, rel=1e-12)
    assert not set(SUMS) & {*spans["invoke_agent clerk"], *spans["prepare"]}
    written = flows_in(file)
    assert len(written) == 2
    for flow_attributes in written:
        assert not set(SUMS) & set(flow_attributes)
        assert set(SUMS.values()) <= set(flow_attributes)


def flows_in(file: Path) -> list[set[str]]:
    """The names of the attributes of each flow in a file."""
    return [
        {pair["key"] for pair in span["attributes"]}
        for line in file.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["name"].startswith("invoke_workflow")
    ]


@pytest.mark.slow
def test_no_sums_of_flows_reach_a_backend_beside_jaeger(sink: Sink) -> None:
    """Langfuse adds up a trace: with both presets a flow has no figures that its calls have."""
    flows = [span for span in sent(sink, "jaeger,langfuse").spans() if span.name.startswith("invoke_workflow")]
    assert len(flows) == 2
    assert not [name for flow in flows for name in plain(flow.attributes) if name in SUMS]


RETRIES = """
import asyncio, sys
import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient
endpoint, preset, file = sys.argv[1:]
client = FakeLLMClient(script=["timeout", "connection", "429 retry-after=0.01", "ok"])
config = tm.LLMCallConfig("fake", "m", prompt="hi", max_retries=3, timeout_ms=1000)
with tm.configure(endpoint=endpoint, preset=preset or None, file=file):
    asyncio.run(tm.run_llm_call("f", "s", config, client=client))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "first_names"),
    [
        ("jaeger", ["attempt 1: timeout", "attempt 2: connection"]),
        ("langfuse,jaeger", ["attempt 1: timeout", "attempt 2: connection"]),
        ("langfuse", ["attempt 1", "attempt 2"]),
    ],
)
def test_a_row_of_jaeger_says_why_an_attempt_got_no_reply(
    sink: Sink, tmp_path: Path, preset: str, first_names: list[str]
) -> None:
    """Its list shows a name and an HTTP status: without a status the name has the reason, in what is sent only."""
    file = tmp_path / "trace.jsonl"
    done = run_program(RETRIES, sink.url, preset, file)
    assert done.returncode == 0, done.stderr
    names = sorted(span.name for span in sink.spans() if span.name.startswith("attempt"))
    assert names == [*first_names, "attempt 3", "attempt 4"]
    assert {f'"name":"attempt {number}"' in file.read_text().replace(": ", ":") for number in (1, 2, 3, 4)} == {True}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["opik", "jaeger"])
def test_a_span_that_is_changed_on_its_way_says_what_it_dropped(sink: Sink, preset: str) -> None:
    """The counts of attributes and events over the SDK's limits arrive as without a preset."""
    without = dropped_of(sink, "")
    assert without["chat acme-retried"][1] == 1
    assert without["invoke_workflow inner"][0] > 0
    sink.posts.clear()
    assert dropped_of(sink, preset) == without


def dropped_of(sink: Sink, preset: str) -> dict[str, tuple[int, int]]:
    """The counts of dropped attributes and events of two spans, by their names."""
    limits = {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "8", "OTEL_SPAN_EVENT_COUNT_LIMIT": "1"}
    return {
        span.name: (span.dropped_attributes_count, span.dropped_events_count)
        for span in sent(sink, preset, **limits).spans()
        if span.name in ("invoke_workflow inner", "chat acme-retried")
    }


KILLED = """
import asyncio, os, sys
import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

class Dies(FakeLLMClient):
    async def complete(self, req):
        os._exit(9)

endpoint, spool = sys.argv[1:]
tm.configure(endpoint=endpoint, preset="opik", spool=spool)
with tm.flow("work"):
    asyncio.run(tm.llm_call("fake/m", "hi", client=Dies()))
"""


@pytest.mark.slow
def test_what_is_left_out_stays_out_of_spans_that_a_killed_process_began(sink: Sink, tmp_path: Path) -> None:
    """The next process sends the flow and the call that never ended, with nothing that their backend does without."""
    assert run_program(KILLED, sink.url, tmp_path).returncode == 9
    following = "import sys, tracemind_otel as tm\nwith tm.configure(endpoint=sys.argv[1], spool=sys.argv[2]): pass"
    done = run_program(following, sink.url, tmp_path)
    assert done.returncode == 0, done.stderr
    spans = {span.name: set(plain(span.attributes)) for span in sink.spans()}
    assert set(spans) == {"invoke_workflow work", "chat m"}
    left = {name for names in spans.values() for name in names if name.startswith("tracemind.")}
    assert left == {"tracemind.interrupted"}


@pytest.mark.slow
def test_a_backend_without_metrics_gets_none(sink: Sink) -> None:
    """Phoenix gets traces, named after the service; metrics would be rejected there."""
    assert sent(sink, "phoenix").paths == {"/v1/traces"}
    assert sink.resource()["openinference.project.name"] == "shop"
    sink.posts.clear()
    assert sent(sink, "phoenix,jaeger").paths == {"/v1/traces", "/v1/metrics"}
    sink.posts.clear()
    assert sent(sink, "phoenix", OTEL_METRICS_EXPORTER="otlp").paths == {"/v1/traces", "/v1/metrics"}


@pytest.mark.slow
def test_datadog_gets_its_header_and_delta_metrics(sink: Sink) -> None:
    """The header that makes spans appear there, and the temporality that its intake takes."""
    sent(sink, "", TRACEMIND_PRESET="datadog")
    assert {post.headers.get("dd-otlp-source") for post in sink.posts} == {"llmobs"}
    assert sink.metrics()["tracemind.llm.cost"].sum.aggregation_temporality == 1  # delta


@pytest.mark.slow
def test_a_temporality_of_the_environment_wins_and_is_warned_of(sink: Sink) -> None:
    """The user's choice holds; the log says what the backend needs."""
    done = run_program(
        "import logging; logging.basicConfig()\n" + PROGRAM,
        sink.url,
        "dynatrace",
        "",
        environment={"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "cumulative"},
    )
    assert "needs delta metrics" in done.stderr
    assert sink.metrics()["tracemind.llm.cost"].sum.aggregation_temporality == 2


@pytest.mark.slow
def test_grafana_gets_the_types_that_it_prices_and_the_cost_it_charts(sink: Sink) -> None:
    """Five token types that say that they are inclusive, and the histogram of the cost; without the preset neither."""
    metrics = sent(sink, "grafana").metrics()
    tokens = {
        plain(point.attributes)["gen_ai.token.type"]: point.sum
        for point in metrics["gen_ai.client.token.usage"].histogram.data_points
        if plain(point.attributes)["gen_ai.request.model"] == SCENES["cached"].model
    }
    assert tokens == {"input": 1_200, "output": 300, "cache_read": 900, "cache_write": 100, "reasoning": 120}
    points = metrics["gen_ai.client.token.usage"].histogram.data_points
    assert {plain(point.attributes)["gen_ai.token.semantics"] for point in points} == {"inclusive"}
    costs = metrics["gen_ai.usage.cost"].histogram.data_points
    expected = sum(scene.cost_usd or 0.0 for scene in SCENES.values())
    assert sum(point.sum for point in costs) == pytest.approx(expected, rel=1e-12)
    sink.posts.clear()
    without = sent(sink, "").metrics()
    assert "gen_ai.usage.cost" not in without
    types = {plain(point.attributes)["gen_ai.token.type"] for point in
             without["gen_ai.client.token.usage"].histogram.data_points}  # fmt: skip
    assert types == {"input", "output"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["grafana", "dynatrace", "splunk", "openlit"])
def test_a_backend_that_reads_todays_metrics_gets_them_whatever_is_opted_in(sink: Sink, preset: str) -> None:
    """The newest names come too, and no schema is claimed that has not got both."""
    metrics = sent(sink, preset, OTEL_SEMCONV_STABILITY_OPT_IN="gen_ai_latest_experimental").metrics()
    assert {"gen_ai.client.token.usage", "gen_ai.client.inference.duration"} <= {*metrics}
    for request in sink.metric_requests():
        assert {scope.schema_url for part in request.resource_metrics for scope in part.scope_metrics} == {""}
    sink.posts.clear()
    without = sent(sink, "jaeger", OTEL_SEMCONV_STABILITY_OPT_IN="gen_ai_latest_experimental").metrics()
    assert "gen_ai.client.token.usage" not in without


@pytest.mark.slow
def test_the_cost_has_the_histogram_of_the_open_proposal_if_it_is_opted_in(sink: Sink) -> None:
    """`gen_ai_cost` sends it with its currency, for each call that has a price, and nobody else gets it."""
    metrics = sent(sink, "", OTEL_SEMCONV_STABILITY_OPT_IN="gen_ai_cost").metrics()
    points = metrics["gen_ai.client.operation.cost"].histogram.data_points
    assert {plain(point.attributes)["gen_ai.usage.cost.currency"] for point in points} == {"USD"}
    assert sum(point.count for point in points) == sum(scene.cost_usd is not None for scene in SCENES.values())
    expected = sum(scene.cost_usd or 0.0 for scene in SCENES.values())
    assert sum(point.sum for point in points) == pytest.approx(expected, rel=1e-12)
    sink.posts.clear()
    assert "gen_ai.client.operation.cost" not in sent(sink, "grafana").metrics()


@pytest.mark.slow
def test_who_uses_no_preset_does_not_load_the_table() -> None:
    """`configure()` without a preset imports no row."""
    done = run_program(
        "import sys, tracemind_otel as tm\n"
        "tm.configure(file=sys.argv[1]).shutdown()\n"
        "print([name for name in sys.modules if name.endswith('backends.rows')])",
        "/dev/stdout",
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done


# --- Backends of others


OWN_ROW = PAGE.read_text(encoding="utf-8").split("## Adding a backend")[1].split("```python\n")[1].split("```")[0]
"""The row that the page shows."""
OUTSIDE = f"{OWN_ROW}\nNO_BACKEND = 7\n"


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that adds a backend."""
    (tmp_path / "acme_telemetry.py").write_text(OUTSIDE)
    (folder := tmp_path / "acme_telemetry-1.0.dist-info").mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-telemetry\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[tracemind_otel.presets]\nacme = acme_telemetry:BACKEND\nbroken = acme_telemetry:NO_BACKEND\n"
        "missing = acme_telemetry:NOTHING\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield
    sys.modules.pop("acme_telemetry", None)


@pytest.mark.usefixtures("outside")
def test_a_package_adds_a_backend_by_a_row() -> None:
    """Its preset works like one of the table: spans get what it reads, and an unknown name lists it too."""
    assert backend_named("acme").title == "Acme Traces"
    chat = foreign_span("acme,mlflow", **TOLD["the newest names"])
    assert chat["acme.price"] == pytest.approx(0.0028, rel=1e-12)
    with pytest.raises(ConfigError, match="known are acme, aws"):
        backend_named("acne")


@pytest.mark.slow
@pytest.mark.usefixtures("outside")
def test_a_backend_of_another_package_goes_the_whole_way(sink: Sink, tmp_path: Path) -> None:
    """By the variable, in what is sent, in `doctor`, and in the words of the page, as if it stood in our table."""
    environment = {"PYTHONPATH": str(tmp_path)}
    file = tmp_path / "trace.jsonl"
    chat = next(span for span in sent(sink, "acme", **environment).spans() if span.name == "chat acme-plain")
    assert plain(chat.attributes)["acme.price"] == pytest.approx(SCENES["call"].cost_usd)
    sent(sink, "", str(file), **environment)
    done = run("-m", "tracemind_otel", "doctor", "--backend", "acme", file, directory=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "What Acme Traces will show" in done.stdout
    assert "  cost            needs preset='acme': now on 0 of 6, then on 6" in done.stdout
    assert "  user            no: it has no view of users" in done.stdout
    section = backend_section(backend_named("acme"))
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=https://otlp.acme.example\nTRACEMIND_PRESET=acme" in section
    assert "- cost: `acme.price`" in section
    assert "- `acme.price`, on model calls: `gen_ai.usage.cost`" in section


FAULTY = """
import tracemind_otel as tm, sys
from dataclasses import replace
from tracemind_otel.otel.backends import BACKENDS, Added, Value
from tracemind_otel.otel.backends import rows

def broken(facts):
    raise KeyError("a mistake of theirs")

faulty = Added(name="acme.sum", value=Value("broken", broken), on=("flow",))
rows.BACKENDS["acme"] = replace(BACKENDS["jaeger"], name="acme", adds=(faulty,), adds_when_sent=(faulty,))
with tm.configure(endpoint=sys.argv[1], preset="acme"), tm.flow("work"):
    pass
"""


@pytest.mark.slow
def test_a_row_that_raises_costs_no_span(sink: Sink) -> None:
    """A mistake in a row of another package is logged; the span arrives without what the row would add."""
    done = run_program(FAULTY, sink.url)
    assert done.returncode == 0, done.stderr
    assert [span.name for span in sink.spans()] == ["invoke_workflow work"]
    assert "preset failed" in done.stderr
    assert "lost" not in done.stderr


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(("name", "why"), [("broken", "is int, not a Backend"), ("missing", "loading it failed")])
def test_a_package_whose_backend_is_none_is_named(name: str, why: str) -> None:
    """The message says which entry point is at fault."""
    with pytest.raises(ConfigError, match=why):
        backend_named(name)


# --- The page and doctor


def test_the_page_is_what_the_table_says() -> None:
    """docs/backends.md equals its generator's output; `python -m tests.backends_page` writes it anew."""
    assert PAGE.read_text(encoding="utf-8") == backends_page()


@pytest.mark.parametrize("preset", NAMES)
def test_the_page_has_the_lines_to_set(preset: str) -> None:
    """Each backend has its address, its headers with placeholders, and its preset."""
    section = backends_page().split(f"\nTRACEMIND_PRESET={preset}\n")
    assert len(section) == 2
    block = section[0].rpartition("```text\n")[2]
    assert block.startswith("OTEL_EXPORTER_OTLP_ENDPOINT=http")
    assert len(block.splitlines()) in (1, 2)


@pytest.mark.slow
def test_doctor_says_what_to_do_about_each_thing_that_does_not_show(
    trace_files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """No line of any backend is a bare no: it has the reason, the preset, or the call that brings it."""
    for preset in NAMES:
        assert main(["doctor", "--backend", preset, str(trace_files["plain"])]) == 0
        report = capsys.readouterr().out
        for line in [line[18:] for line in report.splitlines() if line.startswith("  ")]:
            assert line.startswith(("yes", "none in this file", "needs preset=", "no: ", "from the ")), line
            assert "None" not in line
        assert report.rstrip().endswith(".")


@pytest.mark.parametrize("preset", NAMES)
def test_the_lines_of_the_page_are_what_configure_takes(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set as they stand, they send spans to the backend's address with its headers decoded."""
    section = backend_section(BACKENDS[preset])
    lines = dict(line.split("=", 1) for line in section.split("```text\n")[1].split("```")[0].splitlines())
    for name, value in lines.items():
        monkeypatch.setenv(name, value)
    config = export_config(endpoint=None, protocol=None, headers=None, file=None)
    assert [backend.name for backend in config.presets.backends] == [preset] if config.presets else False
    assert config.signal_endpoint("traces") == lines["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
    headers = config.signal_headers("traces")
    assert {name for name, _ in BACKENDS[preset].headers + BACKENDS[preset].own_headers} == {*headers}
    assert "%20" not in str(headers)
    assert config.protocols["traces"] == "http/protobuf"


def doctor(tmp_path: Path, *arguments: object) -> str:
    done = run("-m", "tracemind_otel", "doctor", *arguments, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trace_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of the same run: without a preset, and with MLflow's."""
    folder = tmp_path_factory.mktemp("traces")
    files = {"plain": folder / "plain.jsonl", "mlflow": folder / "mlflow.jsonl"}
    for preset, file in files.items():
        done = run_program(PROGRAM.replace("endpoint=endpoint, ", ""), "", "" if preset == "plain" else preset, file)
        assert done.returncode == 0, done.stderr
    return files


@pytest.mark.slow
def test_doctor_says_what_a_file_will_show(trace_files: dict[str, Path], tmp_path: Path) -> None:
    """Of the same run MLflow shows the cost with its preset only, and doctor says that and why."""
    plain_report = doctor(tmp_path, "--backend", "mlflow", trace_files["plain"])
    assert "with preset='mlflow' also kind of span (flows, steps), cost; not reasoning." in plain_report
    assert "  reasoning       no: it keeps no count of reasoning tokens" in plain_report
    assert "  cost            needs preset='mlflow': now on 0 of 6, then on 6" in plain_report
    assert "  messages        none in this file; capture_content=True records them" in plain_report
    with_preset = doctor(tmp_path, "--backend", "mlflow", trace_files["mlflow"])
    assert "also" not in with_preset.splitlines()[-1]
    assert "cost" in with_preset.splitlines()[-1].partition(";")[0]


@pytest.mark.slow
@pytest.mark.parametrize("preset", NAMES)
def test_doctor_says_of_each_backend_what_the_table_by_hand_says(
    preset: str, trace_files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """On how many spans each thing shows, as the file is and with the preset; steps are told from other spans."""
    assert main(["doctor", "--backend", preset, "--json", str(trace_files["plain"])]) == 0
    report = json.loads(capsys.readouterr().out)
    lines = {(line["spans"], line["field"]): line for line in report["lines"]}
    types: dict[str, list[str]] = {}
    for kind in (*BLOCKS, *SCENES):
        types.setdefault(type_of(kind), []).append(BLOCKS.get(kind, kind))
    assert {spans for spans, _ in lines} == {*types}
    for spans, names in types.items():
        told = KINDS[preset].get(type_of(spans), "").partition("=")[0]
        kind_line = lines[spans, "kind"]
        assert kind_line["count"] == len(names)
        assert kind_line["shown_with_preset"] == (len(names) if told else 0)
        by_operation = preset in KINDS_BY_OPERATION_TOO and spans in ("agent", "tool", "call")
        assert kind_line["shown"] == sum(by_operation or told in found(None, name) for name in names)
    for field, by_hand in FIELDS.items():
        if field == "messages" or preset == "langfuse":
            continue
        line = lines["call", field]
        for key, with_preset in (("shown", None), ("shown_with_preset", preset)):
            shows = [kind for kind in SCENES if read(preset, by_hand, found(with_preset, kind)) is not None]
            assert line[key] == len(shows), (field, key)


@pytest.mark.slow
def test_doctor_says_it_to_a_script(trace_files: dict[str, Path], tmp_path: Path) -> None:
    """`--json` has each line with its counts, and no user or session."""
    text = doctor(tmp_path, "--backend", "phoenix", "--json", trace_files["plain"])
    report = json.loads(text)
    lines = {(line["spans"], line["field"]): line for line in report["lines"]}
    assert (lines["flow", "kind"]["shown"], lines["flow", "kind"]["shown_with_preset"]) == (0, 2)
    assert lines["call", "cost"]["shown_with_preset"] == 0
    assert "unless your prices are in its table" in lines["call", "cost"]["why"]
    assert USER not in text
    assert SESSION not in text


@pytest.mark.slow
def test_doctor_rejects_what_it_cannot_say(tmp_path: Path) -> None:
    """A backend that nobody knows, or none of a file to look at, is a fault in one line."""
    for arguments, said in (
        (("--backend", "nobody", "x"), "known are"),
        (("--backend", "mlflow"), "needs files"),
    ):
        done = run("-m", "tracemind_otel", "doctor", *arguments, directory=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
