"""`tracemind-otel doctor`, run as a user runs it: what it finds, and where it finds nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.programs import Finished, run
from tests.servers.fixture import closed_port
from tests.servers.grpc_sink import grpc_listening
from tests.servers.otlp_sink import Sink, listening
from tests.servers.otlp_sink import sink as sink
from tests.wire.certificates import server_context

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
    assert {span.name for span in sink.spans()} >= {"invoke_workflow answer"}


def test_a_healthy_file_has_no_findings(tmp_path: Path) -> None:
    """The demo's file, with no receiver anywhere: `configure(file=...)` needs none, so nothing is unreachable."""
    path = tmp_path / "demo.otlp.jsonl"
    assert run("-m", "tracemind_otel", "demo", "--file", path, directory=tmp_path).returncode == 0
    assert examined(tmp_path, path)["findings"] == []


# --- Ten planted misconfigurations


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_port_of_the_other_protocol_is_found(tmp_path: Path, protocol: str) -> None:
    """gRPC to a port that speaks HTTP, and the other way round: the finding names the protocol to set."""
    with listening() if protocol == "grpc" else grpc_listening() as receiver:
        report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert errors(report) == ["wrong-protocol"]
    other = "grpc" if protocol == "http/protobuf" else "http/protobuf"
    assert f"OTEL_EXPORTER_OTLP_PROTOCOL={other}" in report["findings"][0]["fix"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("host", ["127.0.0.1", "receiver.invalid"])
def test_an_unreachable_endpoint_is_found(tmp_path: Path, protocol: str, host: str) -> None:
    """A port on which nobody listens, and a name that nobody knows: the finding names the receiver, once."""
    endpoint = f"http://{host}:{closed_port()}"
    report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert errors(report) == ["unreachable"]
    assert endpoint in report["findings"][0]["what"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_tls_to_a_plain_port_is_found(tmp_path: Path, protocol: str) -> None:
    """`https://` in front of a receiver without TLS: the fix is `http://`."""
    with grpc_listening() if protocol == "grpc" else listening() as receiver:
        endpoint = receiver.url.replace("http://", "https://")
        report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert errors(report) == ["tls-mismatch"]
    assert report["findings"][0]["fix"].startswith("write http://")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_plain_to_a_tls_port_is_found(tmp_path: Path, protocol: str) -> None:
    """`http://` in front of a receiver with TLS: the fix is `https://`."""
    context, _ = server_context(tmp_path)
    with listening(tls=context) as receiver:
        endpoint = receiver.url.replace("https://", "http://")
        report = examined(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert errors(report) == ["tls-mismatch"]
    assert report["findings"][0]["fix"].startswith("write https://")


def test_an_unknown_authority_is_found(tmp_path: Path) -> None:
    """A certificate that nobody here knows is a finding, and naming its file in the variable is the cure."""
    context, authority = server_context(tmp_path)
    settings = {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": ""}
    with listening(tls=context) as receiver:
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
        assert errors(examined(tmp_path, **settings)) == ["certificate"]
        settings["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(authority)
        assert errors(examined(tmp_path, **settings)) == []


def test_a_variable_that_hides_the_certificate_is_named(tmp_path: Path) -> None:
    """`requests` lets REQUESTS_CA_BUNDLE win over the exporter's own setting; the fix says so."""
    context, authority = server_context(tmp_path)
    (other := tmp_path / "other").mkdir()
    _, wrong = server_context(other)
    with listening(tls=context) as receiver:
        report = examined(
            tmp_path,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_CERTIFICATE=str(authority),
            REQUESTS_CA_BUNDLE=str(wrong),
        )
    assert errors(report) == ["certificate"]
    assert "REQUESTS_CA_BUNDLE" in report["findings"][0]["fix"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_header_is_found(tmp_path: Path, status: int) -> None:
    """A receiver that rejects the key: the finding names the headers that are sent, never their values."""
    with listening(status) as receiver:
        report = examined(
            tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_HEADERS="x-key=not-shown"
        )
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


@pytest.mark.parametrize(
    ("sampler", "argument", "found"),
    [
        ("always_off", "", ["sampler-off"]),
        ("parentbased_always_off", "", ["sampler-off"]),
        ("traceidratio", "0", ["sampler-off"]),
        ("parentbased_traceidratio", "0.0", ["sampler-off"]),
        ("parentbased_traceidratio", "0.2", []),
    ],
)
def test_a_sampler_that_keeps_nothing_is_found(
    tmp_path: Path, sink: Sink, sampler: str, argument: str, found: list[str]
) -> None:
    """However it is spelled; a sampler that keeps a part of the traces is a choice, and no finding."""
    report = examined(
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
        OTEL_TRACES_SAMPLER=sampler,
        OTEL_TRACES_SAMPLER_ARG=argument,
    )
    assert errors(report) == found


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


def test_a_missing_extra_is_found(tmp_path: Path, sink: Sink) -> None:
    """A key for Bedrock, and no botocore: the fix is the command that installs the extra."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_BOTOCORE, encoding="utf-8")
    report = examined(
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
        PYTHONPATH=str(tmp_path),
        AWS_BEARER_TOKEN_BEDROCK="not-shown",
        AWS_REGION="eu-central-1",
    )
    assert errors(report) == ["missing-extra"]
    assert report["findings"][0]["fix"] == "pip install 'tracemind-otel[bedrock]'"
