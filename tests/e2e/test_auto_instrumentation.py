"""`opentelemetry-instrument python app.py`, of an application that knows nothing of us: its call is in Jaeger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.backends import Span, Stack, poll
from tests.sdks.auto_instrumented import declare_entry_points, run_instrumented
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.provider_server import Action
from tests.servers import application_environment

pytestmark = pytest.mark.e2e

FAILING: tuple[Action, ...] = ({"status": 429}, {"status": 500}, {})
SAID_BY_OPENTELEMETRY = {
    "OTEL_CONFIG_FILE is set; ignoring configurator kwargs: ['auto_instrumentation_version']",
    "Attempting to instrument while already instrumented",
}
"""What the SDK and its command say where a file sets them up."""
CONFIGURATION = """\
file_format: "1.0"
resource:
  attributes:
    - name: service.name
      value: {service}
tracer_provider:
  processors:
    - batch:
        exporter:
          otlp_http:
            endpoint: {endpoint}/v1/traces
"""
HOSTS = """\
instrumentation/development:
  python:
    tracemind_otel:
      hosts:
        {host}: openai
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the import path that has our entry points."""
    declare_entry_points(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def python(visibly: Callable[[], AbstractContextManager[None]]) -> Path:
    """The Python that has OpenTelemetry's distribution, and its reader of configuration files."""
    with visibly():
        return application_environment.python()


def the_span_of(stack: Stack, service: str) -> Span:
    """The one call of a service, once Jaeger has it; below it are its attempts alone."""
    traces = poll(lambda: stack.search_traces(service), bool, 30.0, f"a trace of {service}")
    [spans] = traces.values()
    [call] = [span for span in spans if span["kind"] == "CLIENT"]
    assert {span["parent_id"] for span in spans if span is not call} == {call["span_id"]}
    return call


def is_priced(span: Span, base: str, server: ProviderServer) -> None:
    """The call has its price and both of its retries."""
    assert span["name"] == "chat gpt-4o-mini"
    assert span["attributes"]["tracemind.cost_usd"] == pytest.approx(usd(server.ledger(base)), rel=1e-9)
    reasons = [each["attributes"]["tracemind.retry.reason"] for each in span["events"]]
    assert reasons == ["rate_limit", "server_error"]


def test_by_variables(stack: Stack, folder: Path, provider_server: ProviderServer) -> None:
    """With an endpoint and the name of a host the call is a priced span, and the application's output is its own."""
    service, base = f"shop-{uuid4().hex}", provider_server.case("openai", *FAILING)
    ran = run_instrumented(
        folder,
        f"{base}/v1",
        OTEL_SERVICE_NAME=service,
        OTEL_EXPORTER_OTLP_ENDPOINT=stack.otlp_http,
        TRACEMIND_HOSTS=f"127.0.0.1:{provider_server.port}=openai",
    )
    assert ran.stderr == ""
    is_priced(the_span_of(stack, service), base, provider_server)


@pytest.mark.tools
def test_by_variables_with_the_distribution(
    python: Path, stack: Stack, folder: Path, provider_server: ProviderServer
) -> None:
    """The providers that OpenTelemetry's distribution has made of the variables are joined."""
    service, base = f"shop-{uuid4().hex}", provider_server.case("openai", *FAILING)
    ran = run_instrumented(
        folder,
        f"{base}/v1",
        python,
        OTEL_SERVICE_NAME=service,
        OTEL_EXPORTER_OTLP_ENDPOINT=stack.otlp_http,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_LOGS_EXPORTER="none",
        TRACEMIND_HOSTS=f"127.0.0.1:{provider_server.port}=openai",
    )
    assert ran.stderr == ""
    is_priced(the_span_of(stack, service), base, provider_server)


@pytest.mark.tools
@pytest.mark.parametrize("place", ["variable", "file"])
def test_by_a_configuration_file(
    place: str, python: Path, stack: Stack, folder: Path, provider_server: ProviderServer
) -> None:
    """`OTEL_CONFIG_FILE` sets the providers up; the hosts come from `TRACEMIND_HOSTS`, or from the file too."""
    service, base = f"shop-{uuid4().hex}", provider_server.case("openai", *FAILING)
    host = f"127.0.0.1:{provider_server.port}"
    text = CONFIGURATION.format(service=service, endpoint=stack.otlp_http)
    file = folder / "otel.yaml"
    file.write_text(text + HOSTS.format(host=f'"{host}"') if place == "file" else text)
    variables = {} if place == "file" else {"TRACEMIND_HOSTS": f"{host}=openai"}
    ran = run_instrumented(folder, f"{base}/v1", python, OTEL_CONFIG_FILE=str(file), **variables)
    assert set(ran.stderr.splitlines()) <= SAID_BY_OPENTELEMETRY
    span = the_span_of(stack, service)
    is_priced(span, base, provider_server)
    assert span["resource"]["service.name"] == service
