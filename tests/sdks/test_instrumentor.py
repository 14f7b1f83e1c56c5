"""`opentelemetry-instrument python app.py` on an application that knows nothing of us."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
COST_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6
APP = """
import sys
from openai import OpenAI

with OpenAI(api_key="sk-test", base_url=sys.argv[1]) as client:
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
print(reply.choices[0].message.content)
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that declares the package's entry points, as its installation does."""
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items())
    folder = tmp_path / "tracemind_otel-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: tracemind-otel\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def run(folder: Path, server: OpenAIServer, sink: Sink, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the application as `opentelemetry-instrument` does."""
    app = folder / "app.py"
    app.write_text(APP)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRACEMIND_"))},
        "PYTHONPATH": os.pathsep.join((str(folder), str(REPOSITORY / "src"))),
        "NO_PROXY": "127.0.0.1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        **variables,
    }
    wrapper = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
    return subprocess.run(
        [sys.executable, "-c", wrapper, sys.executable, str(app), server.base_url],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


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


def test_a_variable_that_is_wrong(installed: Path, openai_server: OpenAIServer, sink: Sink) -> None:
    """The application runs as it did, and the log names the variable and its form."""
    ran = run(installed, openai_server, sink, TRACEMIND_HOSTS="gateway.acme.example")
    assert ran.stdout == "echo: hi\n"
    assert "TRACEMIND_HOSTS must be host=provider" in ran.stderr
    assert sink.spans() == []
