"""`opentelemetry-instrument python app.py` on an application that knows nothing of us."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.sdks.auto_instrumented import declare_entry_points, run_instrumented
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.slow

COST_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that declares the package's entry points, as its installation does."""
    declare_entry_points(tmp_path)
    return tmp_path


def run(folder: Path, server: OpenAIServer, sink: Sink, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_instrumented(folder, server.base_url, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **variables)


def test_an_application_without_a_line_of_ours(installed: Path, openai_server: OpenAIServer, sink: Sink) -> None:
    """Its call is a span with a price, by the variables alone, and its own output is what it was."""
    hosts = f"127.0.0.1:{openai_server.port}=openai"
    ran = run(installed, openai_server, sink, OTEL_SERVICE_NAME="shop", TRACEMIND_HOSTS=hosts)
    assert (ran.stdout, ran.stderr) == ("echo: hi\n", "")
    (span,) = sink.spans()
    found = plain(span.attributes)
    assert span.name == "chat gpt-4o-mini"
    assert found["tracemind.cost_usd"] == pytest.approx(COST_USD, rel=1e-9)
    assert plain(sink.traces()[0].resource_spans[0].resource.attributes)["service.name"] == "shop"


def test_a_configuration_file_that_nothing_reads(installed: Path, openai_server: OpenAIServer, sink: Sink) -> None:
    """Without a distribution the variables hold, and the log says what `OTEL_CONFIG_FILE` needs."""
    ran = run(installed, openai_server, sink, OTEL_CONFIG_FILE="otel.yaml")
    assert ran.stdout == "echo: hi\n"
    assert "OTEL_CONFIG_FILE is set, but nothing has applied it" in ran.stderr
    assert len(sink.spans()) == 1


def test_a_variable_that_is_wrong(installed: Path, openai_server: OpenAIServer, sink: Sink) -> None:
    """The application runs as it did, and the log names the variable and its form."""
    ran = run(installed, openai_server, sink, TRACEMIND_HOSTS="gateway.acme.example")
    assert ran.stdout == "echo: hi\n"
    assert "TRACEMIND_HOSTS must be host=provider" in ran.stderr
    assert sink.spans() == []
