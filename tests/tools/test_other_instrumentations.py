"""The real instrumentations of OpenAI's SDK beside ours: one span, which is theirs, with cost, and one call."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import instrumentation_environment
from tests.servers.fixture import REPOSITORY, OpenAIServer
from tests.servers.fixture import openai_server as openai_server

pytestmark = [pytest.mark.tools, pytest.mark.slow]

COST_USD = 600 * 0.15e-6 + 400 * 0.075e-6 + 200 * 0.60e-6
"""1,000 input tokens, 400 of them cached, and 200 output tokens of gpt-4o-mini."""
PROGRAM = """
import importlib, json, sys
import openai
import tracemind_otel as tm
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

module, url, is_seen, has_meter = sys.argv[1:]
spans, traces = InMemorySpanExporter(), TracerProvider()
traces.add_span_processor(SimpleSpanProcessor(spans))
reader = InMemoryMetricReader()
meters = MeterProvider([reader])
given = {"meter_provider": meters} if has_meter == "yes" else {}
importlib.import_module(module).OpenAIInstrumentor().instrument(tracer_provider=traces, **given)
tm.configure(tracer_provider=traces, meter_provider=meters)
tm.uninstrument()
if is_seen == "yes":
    tm.instrument(hosts={url.split("/")[2]: "openai"})
with tm.flow("work") as run, openai.OpenAI(api_key="sk-test", base_url=url) as client:
    client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])
durations = [
    point.count
    for resource in reader.get_metrics_data().resource_metrics
    for scope in resource.scope_metrics
    for metric in scope.metrics
    if metric.name == "gen_ai.client.operation.duration"
    for point in metric.data.data_points
]
ended = spans.get_finished_spans()
found = [(span.instrumentation_scope.name, span.attributes.get("tracemind.cost_usd")) for span in ended]
print(json.dumps({"calls": run.llm_calls, "cost": run.cost_usd, "spans": found, "durations": sum(durations)}))
"""


@pytest.fixture(scope="module")
def their_python(visibly: Callable[[], AbstractContextManager[None]]) -> Path:
    """The Python that has the instrumentations."""
    with visibly():
        return instrumentation_environment.python()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_seen", ["yes", "no"])
@pytest.mark.parametrize(
    ("module", "has_meter"),
    [("opentelemetry.instrumentation.genai.openai", "yes"), ("openinference.instrumentation.openai", "no")],
)
def test_a_call_is_counted_once(
    their_python: Path, openai_server: OpenAIServer, module: str, has_meter: str, is_seen: str
) -> None:
    """Whether the wire sees the call or their span tells it: one call, its cost on their span, one duration.

    A span that names a host which is no provider's own has no price; the wire is told whose host it is.
    """
    ended = subprocess.run(
        [their_python, "-c", PROGRAM, module, openai_server.base_url, is_seen, has_meter],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "", "NO_PROXY": "*"},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert (found["calls"], found["durations"]) == (1, 1)
    names_host = module.startswith("opentelemetry.") and is_seen == "no"
    assert found["cost"] == (None if names_host else pytest.approx(COST_USD, rel=1e-9))
    theirs = [cost for scope, cost in found["spans"] if scope != "tracemind_otel"]
    assert theirs == [found["cost"]]
    assert len(found["spans"]) == 2  # theirs and the flow's
