"""`tracemind-otel doctor`, run as a user runs it: what it finds, and where it finds nothing."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.programs import Finished, run
from tests.servers.fixture import closed_port
from tests.servers.grpc_sink import grpc_listening
from tests.servers.otlp_sink import Sink, listening
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.slow

MODULE = ("-m", "tracemind_otel", "doctor")


def doctor(directory: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> Finished:
    """The report for a person."""
    return run(*MODULE, *arguments, directory=directory, environment=environment)


def examined(directory: Path, *arguments: object, **environment: str) -> dict[str, Any]:
    """The report as JSON, after a check that the exit code is the one that it names."""
    done = doctor(directory, "--json", *arguments, environment=environment)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == report["exit_code"], done.stderr
    return report


def errors(report: Mapping[str, Any]) -> list[str]:
    """The checks that found an error; each has a fix."""
    assert all(finding["fix"] for finding in report["findings"])
    return [finding["check"] for finding in report["findings"] if finding["severity"] == "error"]


def write_app(directory: Path, source: str) -> str:
    """An application in a module of its own; returns what `--app` takes."""
    (directory / "service.py").write_text(source, encoding="utf-8")
    return "service:main"


# --- A healthy set-up


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_healthy_environment_has_no_findings(tmp_path: Path, protocol: str) -> None:
    """A receiver that takes exports by the protocol that is set: no finding, and the exit code is 0."""
    with grpc_listening() if protocol == "grpc" else listening() as receiver:
        report = examined(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_SERVICE_NAME="support",
            OPENAI_API_KEY="sk-not-shown",
        )
    assert report["findings"] == []
    assert report["exit_code"] == 0
    assert report["facts"]["service"] == "support"
    assert "takes exports of metrics and traces" in report["facts"][receiver.url]
    assert "OPENAI_API_KEY" in report["facts"]["keys"]
    assert "sk-not-shown" not in json.dumps(report)


HEALTHY_APP = """
import tracemind_otel as tm

@tm.flow(name="answer")
def answer():
    return tm.llm_call_sync("fake/any-model", "Say hi").text

def main():
    tm.configure()
    print(answer())
"""


def test_a_healthy_application_has_no_findings(tmp_path: Path, sink: Sink) -> None:
    """An application that configures, runs a flow and prints: no finding, its spans arrive, and stdout stays JSON."""
    report = examined(tmp_path, "--app", write_app(tmp_path, HEALTHY_APP), OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert report["findings"] == []
    assert report["exit_code"] == 0
    assert report["facts"]["SIGTERM"].startswith("configure() sends what waits")
    assert {span.name for span in sink.spans()} >= {"invoke_workflow answer"}


def test_a_healthy_file_has_no_findings(tmp_path: Path) -> None:
    """The demo's file, with no receiver anywhere: `configure(file=...)` needs none, so nothing is unreachable."""
    path = tmp_path / "demo.otlp.jsonl"
    assert run("-m", "tracemind_otel", "demo", "--file", path, directory=tmp_path).returncode == 0
    assert examined(tmp_path, path)["findings"] == []


# --- Ten planted misconfigurations


def test_a_port_of_the_other_protocol_is_found(tmp_path: Path) -> None:
    """HTTP to a port that speaks gRPC: the finding names the protocol to set."""
    with grpc_listening() as receiver:
        report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    assert errors(report) == ["wrong-protocol"]
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=grpc" in report["findings"][0]["fix"]


def test_an_unreachable_endpoint_is_found(tmp_path: Path) -> None:
    """Nobody listens there: the finding names the receiver, once for both signals."""
    endpoint = f"http://127.0.0.1:{closed_port()}"
    report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    assert errors(report) == ["unreachable"]
    assert endpoint in report["findings"][0]["what"]


def test_tls_to_a_plain_port_is_found(tmp_path: Path, sink: Sink) -> None:
    """`https://` in front of a receiver without TLS: the fix is `http://`."""
    report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url.replace("http://", "https://"))
    assert errors(report) == ["tls-mismatch"]
    assert report["findings"][0]["fix"].startswith("write http://")


def test_a_wrong_header_is_found(tmp_path: Path) -> None:
    """A receiver that rejects the key: the finding names the headers that are sent, never their values."""
    settings = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=not-shown"}
    with listening(401) as receiver:
        report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **settings)
    assert errors(report) == ["wrong-header"]
    assert "x-key" in report["findings"][0]["what"]
    assert "not-shown" not in json.dumps(report)


def test_a_header_that_cannot_be_read_is_found(tmp_path: Path, sink: Sink) -> None:
    """A header in HTTP's own spelling is not what the variable takes, and `configure()` rejects it."""
    header = "authorization: Bearer not-shown"
    report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, OTEL_EXPORTER_OTLP_HEADERS=header)
    assert errors(report) == ["wrong-header"]
    assert "not-shown" not in json.dumps(report)


def test_a_disabled_sdk_is_found(tmp_path: Path, sink: Sink) -> None:
    """`OTEL_SDK_DISABLED` switches everything off."""
    assert errors(examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, OTEL_SDK_DISABLED="TRUE")) == [
        "sdk-disabled"
    ]


def test_a_sampler_that_keeps_nothing_is_found(tmp_path: Path, sink: Sink) -> None:
    """A sampler that keeps no trace, by the variable that the SDK reads."""
    settings = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    assert errors(examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **settings)) == ["sampler-off"]


PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import tracemind_otel as tm

def other():
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    return provider
"""


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("tm.configure(); trace.set_tracer_provider(other())", ["second-provider"]),
        ("kept = other(); tm.configure()", ["second-provider"]),
        ("trace.set_tracer_provider(other()); tm.configure()", []),
        ("tm.configure(tracer_provider=other())", []),
        ("tm.configure().shutdown(); tm.configure()", []),
    ],
    ids=["after", "before", "global before", "passed", "configured anew"],
)
def test_a_second_provider_is_found(tmp_path: Path, sink: Sink, body: str, found: list[str]) -> None:
    """A provider beside the one in use is found with the line that makes it; one that was joined is fine."""
    app = write_app(tmp_path, f"{PROVIDER}\ndef main():\n    {body}\n")
    report = examined(tmp_path, "--app", app, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert errors(report) == found
    if found:
        assert "service.py:9" in report["findings"][0]["what"]


UNPRICED = """
import tracemind_otel as tm
from tracemind_otel.ai.llm.client import AsyncLLMClient
from tracemind_otel.ai.llm.types import LLMResponse
from tracemind_otel.ai.llm.usage import LLMUsage

class Own(AsyncLLMClient):
    provider_name = "own"

    def __init__(self, *, api_key=None, base_url=None): ...

    async def complete(self, req):
        return LLMResponse(text="hi", usage=LLMUsage(100, 10, 110))

@tm.flow(name="answer")
def answer(model):
    tm.llm_call_sync(model, "hi", provider="own")

def main():
    tm.LLMClientFactory.register("own", Own)
    tm.configure(SETTINGS)
    answer(MODEL)
"""


def unpriced(directory: Path, *, model: str, settings: str = "") -> str:
    return write_app(directory, UNPRICED.replace("SETTINGS", settings).replace("MODEL", repr(model)))


def test_an_unpriced_model_in_use_is_found(tmp_path: Path, sink: Sink) -> None:
    """An application that calls a model without a price: the finding names it with its provider."""
    report = examined(
        tmp_path, "--app", unpriced(tmp_path, model="no-such-model"), OTEL_EXPORTER_OTLP_ENDPOINT=sink.url
    )
    assert errors(report) == ["unpriced-model"]
    assert "own/no-such-model (1)" in report["findings"][0]["what"]


def test_an_unpriced_model_in_a_file_is_found(tmp_path: Path) -> None:
    """The same from the spans of a file alone."""
    app = unpriced(tmp_path, model="no-such-model", settings="file='spans.jsonl'")
    assert run("-c", f"import service; service.{app.partition(':')[2]}()", directory=tmp_path).returncode == 0
    report = examined(tmp_path, "spans.jsonl")
    assert errors(report) == ["unpriced-model"]
    assert "spans.jsonl" in report["findings"][0]["what"]


PER_THOUSAND = "file='spans.jsonl', prices=[{'model': 'gpt-4o-mini', 'input': 0.00015, 'output': 0.0006}]"


def test_prices_per_thousand_are_found(tmp_path: Path) -> None:
    """Prices in USD per thousand tokens, where they are set and in the spans of calls at these prices."""
    app = unpriced(tmp_path, model="gpt-4o-mini", settings=PER_THOUSAND)
    ran = examined(tmp_path, "--app", app)
    assert errors(ran) == ["prices-per-thousand"]
    from_file = examined(tmp_path, "spans.jsonl")
    assert errors(from_file) == ["prices-per-thousand"]
    assert "gpt-4o-mini" in from_file["findings"][0]["what"]


WITHOUT_BOTOCORE = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "botocore" else find(name, *more)
"""


@pytest.mark.parametrize(
    ("key", "severity"), [("AWS_BEARER_TOKEN_BEDROCK", "error"), ("AWS_SECRET_ACCESS_KEY", "warning")]
)
def test_a_missing_extra_is_found(tmp_path: Path, sink: Sink, key: str, severity: str) -> None:
    """A key for Bedrock, and no botocore: the fix installs it. A key for all of AWS may be there for something else."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_BOTOCORE, encoding="utf-8")
    settings = {"PYTHONPATH": str(tmp_path), "AWS_REGION": "eu-central-1", key: "not-shown"}
    [finding] = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **settings)["findings"]
    assert (finding["check"], finding["severity"]) == ("missing-extra", severity)
    assert finding["fix"] == "pip install 'tracemind-otel[bedrock]'"


def test_an_application_that_lacks_an_extra_is_found(tmp_path: Path, sink: Sink) -> None:
    """The application calls Bedrock, with or without a key: what it raises is the same finding."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_BOTOCORE, encoding="utf-8")
    app = write_app(tmp_path, HEALTHY_APP.replace("fake/any-model", "bedrock/amazon.nova-lite-v1:0"))
    settings = {"PYTHONPATH": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
    assert errors(examined(tmp_path, "--app", app, **settings)) == ["missing-extra"]


# --- More of the environment


def test_the_report_names_what_decides_and_the_receiver(tmp_path: Path, sink: Sink) -> None:
    """For each signal: where to, by which protocol, and which variable says so; the default is named as such."""
    done = doctor(tmp_path, environment={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{sink.url}/v1/traces"})
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert f"{sink.url}/v1/traces, http/protobuf, by OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in lines["traces"]
    assert "http://localhost:4318/v1/metrics, http/protobuf, the default" in lines["metrics"]
    assert "genai-prices" in lines["prices"]
    assert done.stdout.endswith((" warnings\n", "No findings.\n"))  # a receiver may run at the default address


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
        ("OTEL_PYTHON_TRACER_PROVIDER", "no_such_provider"),
    ],
)
def test_a_value_that_configure_rejects_is_found(tmp_path: Path, sink: Sink, name: str, value: str) -> None:
    """Whatever `configure()` would raise is a finding that names the variable."""
    report = examined(tmp_path, **{"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, name: value})
    assert errors(report) == ["rejected"]
    assert name in report["findings"][0]["what"]
    in_app = examined(tmp_path, "--app", write_app(tmp_path, HEALTHY_APP), **{name: value})
    assert errors(in_app) == ["rejected"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp,zipkin"}, "zipkin"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "much"}, "SAMPLER_ARG"),
    ],
    ids=["exporter", "ratio"],
)
def test_what_configure_warns_of_is_found(tmp_path: Path, sink: Sink, settings: dict[str, str], named: str) -> None:
    """What `configure()` and the SDK log and ignore is a warning here too."""
    report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **settings)
    assert [finding["check"] for finding in report["findings"]] == ["logged"]
    assert named in report["findings"][0]["what"]


def test_a_provider_that_a_variable_names_sends_nothing(tmp_path: Path, sink: Sink) -> None:
    """The API makes the SDK's bare provider, and `configure()` joins what is there: no span goes anywhere."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider"}
    report = examined(tmp_path, **settings)
    assert errors(report) == ["no-exporter"]
    assert "OTEL_PYTHON_TRACER_PROVIDER" in report["findings"][0]["what"]
    assert "joined" in report["facts"]["traces"]


def test_a_key_for_a_whole_cloud_is_no_finding(tmp_path: Path, sink: Sink) -> None:
    """AWS keys without a region make no client of Bedrock, and most programs with AWS keys want none."""
    settings = {"AWS_ACCESS_KEY_ID": "not-shown", "AWS_SECRET_ACCESS_KEY": "not-shown", "AWS_REGION": ""}
    report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, AWS_DEFAULT_REGION="", **settings)
    assert report["findings"] == []
    assert "AWS_ACCESS_KEY_ID" in report["facts"]["keys"]


def test_a_key_whose_client_cannot_be_made_is_a_warning(tmp_path: Path, sink: Sink) -> None:
    """A key for Azure without an endpoint: the variable may be another program's, so the exit code stays 0."""
    report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, AZURE_OPENAI_API_KEY="not-shown")
    assert {finding["severity"] for finding in report["findings"]} == {"warning"}
    assert "AZURE_OPENAI_API_KEY is set" in report["findings"][0]["what"]
    assert "not-shown" not in json.dumps(report)


# --- Applications


def test_the_receiver_of_the_application_is_asked(tmp_path: Path, sink: Sink) -> None:
    """An endpoint in the code, and none in the environment: the receiver in the code is what is asked."""
    app = write_app(
        tmp_path, f"import tracemind_otel as tm\n\nasync def main():\n    tm.configure(endpoint={sink.url!r})\n"
    )
    report = examined(tmp_path, "--app", app)
    assert report["findings"] == []
    assert f"{sink.url}/v1/traces, http/protobuf, by endpoint" in report["facts"]["traces"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("pass", ["not-configured"]),
        ("tm.configure(protocol='carrier pigeon')", ["rejected"]),
        ("tm.configure(file='spans'); raise ValueError('secret words')", ["application-failed"]),
        ("tm.configure(file='spans'); raise SystemExit(3)", ["application-failed"]),
        ("tm.configure(file='spans'); raise SystemExit", []),
        ("tm.configure(file='spans'); import argparse; argparse.ArgumentParser().parse_args()", []),
        ("trace.set_tracer_provider(TracerProvider()); tm.configure()", ["no-exporter"]),
        ("trace.set_tracer_provider(failing()); tm.configure(); tm.step(print, name='s')()", ["export-failed"]),
        ("with tm.configure(file='spans'): pass", []),
    ],
)
def test_what_an_application_does_wrong_is_found(tmp_path: Path, body: str, found: list[str]) -> None:
    """Never configured, rejected, raised, joined a provider that sends nothing or fails; no message is shown."""
    failing = """
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

def failing():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter("http://127.0.0.1:1/v1/traces", timeout=0.1)))
    return provider
"""
    app = write_app(tmp_path, f"{PROVIDER}{failing}\ndef main():\n    {body}\n")
    report = examined(tmp_path, "--app", app)
    assert sorted(set(errors(report))) == found
    assert found != ["application-failed"] or "service.py:" in report["findings"][0]["what"]
    assert "secret words" not in json.dumps(report)


@pytest.mark.parametrize(
    ("line", "found"),
    [("raise RuntimeError('secret words')", "application-failed"), ("tm.configure(endpoint='here')", "rejected")],
)
def test_what_fails_at_import_is_found(tmp_path: Path, line: str, found: str) -> None:
    """Many programs configure at import: what that raises is a finding too."""
    app = write_app(tmp_path, f"import tracemind_otel as tm\n{line}\n\ndef main(): ...\n")
    report = examined(tmp_path, "--app", app)
    assert errors(report) == [found]
    assert "secret words" not in json.dumps(report)


ASGI = """
import uvicorn
import tracemind_otel as tm

class App:
    async def __call__(self, scope, receive, send): ...

tm.configure()
main = App()
"""


def test_exporters_of_both_are_told_apart(tmp_path: Path) -> None:
    """A joined tracer provider that sends nothing, and metrics of ours to a receiver that is away: one finding each."""
    body = f"trace.set_tracer_provider(TracerProvider()); tm.configure(endpoint='http://127.0.0.1:{closed_port()}')"
    app = write_app(tmp_path, f"{PROVIDER}\ndef main():\n    {body}\n    tm.flow(print, name='f')()\n")
    assert sorted(errors(examined(tmp_path, "--app", app))) == ["no-exporter", "unreachable"]


def test_an_application_of_a_server_is_imported_only(tmp_path: Path, sink: Sink) -> None:
    """An ASGI application takes arguments that only a server has; what its import configures is looked at."""
    write_app(tmp_path, ASGI)
    report = examined(tmp_path, "--app", "service:main", OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert report["findings"] == []
    assert "uvicorn" in report["facts"]


def test_a_second_exporter_is_found(tmp_path: Path, sink: Sink) -> None:
    """FastAPI's own exporter, which a variable turns on, sends every span a second time."""
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "FASTAPI_OTEL_AUTO_CONFIGURE": "True"}
    (finding,) = examined(tmp_path, **settings)["findings"]
    assert (finding["check"], finding["severity"]) == ("doubled-exports", "warning")
    assert "FASTAPI_OTEL_AUTO_CONFIGURE" in finding["fix"]


INSTRUMENTOR = """
from opentelemetry import trace

class OpenAIInstrumentor:
    is_instrumented_by_opentelemetry = True
"""


def test_an_active_instrumentation_of_a_model_sdk_is_found(tmp_path: Path, sink: Sink) -> None:
    """It is found by its entry point, as `opentelemetry-instrument` finds it, and only where it is active."""
    (tmp_path / "openai_instrumentation.py").write_text(INSTRUMENTOR, encoding="utf-8")
    (tmp_path / "openai_instrumentation-1.dist-info").mkdir()
    (tmp_path / "openai_instrumentation-1.dist-info" / "METADATA").write_text(
        "Name: openai-instrumentation\nVersion: 1\n"
    )
    (tmp_path / "openai_instrumentation-1.dist-info" / "entry_points.txt").write_text(
        "[opentelemetry_instrumentor]\nopenai = openai_instrumentation:OpenAIInstrumentor\n"
    )
    app = write_app(tmp_path, f"import openai_instrumentation\n{HEALTHY_APP}")
    report = examined(tmp_path, "--app", app, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert [finding["check"] for finding in report["findings"]] == ["doubled-spans"]
    assert "OpenAIInstrumentor" in report["findings"][0]["what"]


# --- The state of shared budgets


def test_a_shared_state_is_described(tmp_path: Path, sink: Sink) -> None:
    """How long it takes, how many accounts it has, and what holds while it is away; nothing is spent by asking."""
    state = {"TRACEMIND_STATE": f"sqlite:///{tmp_path / 'limits.db'}?timeout=30"}
    source = """
        import tracemind_otel as tm

        def main():
            tm.configure()
            with tm.budget(name="team-a", per="1d", max_llm_calls=10):
                tm.llm_call_sync("fake/toy-1", "hi", max_tokens=5)
    """
    app = write_app(tmp_path, textwrap.dedent(source))
    report = examined(tmp_path, "--app", app, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **state)
    assert "state-away" not in errors(report)
    assert re.search(
        r"limits\.db answers in [\d.]+ ms, 1 account in use; a call waits for 30 s", report["facts"]["state"]
    )
    assert "limits.db" in examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **state)["facts"]["state"]


def test_a_shared_state_that_is_away_is_found(tmp_path: Path, sink: Sink) -> None:
    """The finding says where and why, and what budgets do; no output has the password."""
    url = f"redis://app:not-shown@127.0.0.1:{closed_port()}/0"
    done = doctor(tmp_path, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "TRACEMIND_STATE": url})
    assert done.returncode == 1
    assert "state-away" in done.stdout
    assert "no server can be reached there" in done.stdout
    assert "not-shown" not in done.stdout + done.stderr
