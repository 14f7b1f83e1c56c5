"""`configure()`: join what is there, or make it; deliver; say what was lost.

Global providers are once a process, so most of these run a program of their own, against a real OTLP receiver here.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import AF_INET, SOCK_STREAM, socket
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

import tracemind_otel as tm
from tests.programs import clean_environment
from tests.servers.grpc_sink import grpc_listening
from tests.servers.otlp_sink import Sink, listening, plain
from tests.servers.otlp_sink import sink as sink
from tests.support import Captured
from tracemind_otel.ai.llm.pricing import price_reply
from tracemind_otel.ai.llm.types import LLMResponse, LLMUsage, ReportedCost
from tracemind_otel.errors import ConfigError
from tracemind_otel.otel.current import Providers, configured_providers

PRELUDE = """
import asyncio, sys
import tracemind_otel as tm
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient

async def call(recorder):
    client = FakeLLMClient(0, usage=LLMUsage(10, 5, 15, 0.25, cache_read_tokens=4))
    return await tm.run_llm_call("f", "s", tm.LLMCallConfig("fake", "toy-1", "hi"), recorder, client=client)

@tm.flow
def work(recorder):
    return asyncio.run(call(recorder))

"""


# --- A receiver, and programs ---


@pytest.fixture
def refused() -> Iterator[str]:
    """An address where nobody listens, reserved so that no other process takes it."""
    with socket(AF_INET, SOCK_STREAM) as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    stdout: str
    stderr: str
    at: float


def python(program: str, *arguments: str, **environment: str) -> Ended:
    """Run a program in a process of its own, with warnings as errors and without `OTEL_*` variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRACEMIND_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program), *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr, time.time())


def passes(program: str, *arguments: str, **environment: str) -> Ended:
    """Run a program that must succeed and write nothing to stderr."""
    ended = python(program, *arguments, **environment)
    assert (ended.code, ended.stderr) == (0, ""), ended
    return ended


# --- Joining ---


def test_it_joins_global_providers() -> None:
    """The application's providers are used, never replaced, and not shut down."""
    passes(
        """
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracer_provider, meter_provider = TracerProvider(), MeterProvider([reader])
        tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(tracer_provider)
        metrics.set_meter_provider(meter_provider)

        telemetry = tm.configure(service_name="ignored", endpoint="http://127.0.0.1:9")
        assert trace.get_tracer_provider() is telemetry.tracer_provider is tracer_provider
        assert metrics.get_meter_provider() is telemetry.meter_provider is meter_provider
        work(telemetry.recorder)
        assert [s.name for s in exporter.get_finished_spans()] == ["chat toy-1", "invoke_workflow work"]
        assert telemetry.flush() and telemetry.shutdown()

        work(tm.OTelRecorder())
        assert len(exporter.get_finished_spans()) == 4
        names = {m.name for r in reader.get_metrics_data().resource_metrics for s in r.scope_metrics for m in s.metrics}
        assert {"tracemind.llm.cost", "gen_ai.invoke_workflow.duration"} <= names
        """
    )


@pytest.mark.parametrize(("arguments", "paths"), [("", set[str]()), ("endpoint=sys.argv[1]", {"/v1/metrics"})])
def test_a_tracer_provider_alone_is_joined(sink: Sink, arguments: str, paths: set[str]) -> None:
    """Beside an application's tracer provider, metrics are exported only to an endpoint that was given."""
    passes(
        f"""
        from opentelemetry import metrics, trace
        from opentelemetry.sdk.trace import TracerProvider

        theirs = TracerProvider()
        trace.set_tracer_provider(theirs)
        telemetry = tm.configure({arguments})
        assert trace.get_tracer_provider() is telemetry.tracer_provider is theirs
        work(telemetry.recorder)
        telemetry.shutdown()
        """,
        sink.url,
    )
    assert sink.paths == paths


def test_a_file_that_is_not_written_is_said(sink: Sink) -> None:
    """With an application's tracer provider a file is not written, and the log says why."""
    ended = python(
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        tm.configure(file="never.jsonl")
        """
    )
    assert (ended.code, ended.stderr.count("\n")) == (0, 1)
    assert "never.jsonl is not written: there is a tracer provider already" in ended.stderr


def test_durations_arrive_without_any_call(sink: Sink) -> None:
    """Flows and tools without a model call are measured."""
    passes(
        """
        telemetry = tm.configure(endpoint=sys.argv[1])
        tm.flow(name="flow")(tm.tool(name="tool")(lambda: None))()
        telemetry.shutdown()
        """,
        sink.url,
    )
    metrics = sink.metrics()
    assert set(metrics) == {"gen_ai.invoke_workflow.duration", "gen_ai.execute_tool.duration"}
    assert all(metric.histogram.data_points[0].count == 1 for metric in metrics.values())


def test_passed_providers_are_joined(capture: Captured) -> None:
    """Given providers are used without becoming global, and shutting down leaves them open."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider) as telemetry:
        assert telemetry.tracer_provider is capture.tracer_provider
        assert telemetry.meter_provider is capture.meter_provider
        assert configured_providers().tracer_provider is capture.tracer_provider
        tm.step(name="inside")(lambda: None)()
    assert configured_providers().tracer_provider is None
    capture.tracer_provider.get_tracer("mine").start_span("afterwards").end()
    assert [span.name for span in capture.spans] == ["inside", "afterwards"]


# --- Making ---


def test_it_makes_providers_from_the_environment(sink: Sink) -> None:
    """Without arguments the standard variables set endpoint, headers, service name and resource attributes."""
    passes(
        """
        from opentelemetry import metrics, trace
        telemetry = tm.configure()
        assert trace.get_tracer_provider() is telemetry.tracer_provider
        assert metrics.get_meter_provider() is telemetry.meter_provider
        work(telemetry.recorder)
        """,
        OTEL_EXPORTER_OTLP_ENDPOINT=sink.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-tenant=blue",
        OTEL_SERVICE_NAME="billing",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.name=not-this",
    )
    assert {span.name for span in sink.spans()} == {"chat toy-1", "invoke_workflow work"}
    assert {post.headers.get("x-tenant") for post in sink.posts} == {"blue"}
    assert sink.resource().items() >= {"service.name": "billing", "deployment.environment.name": "test"}.items()


def test_arguments_win_over_the_environment(sink: Sink) -> None:
    """Arguments win over variables, and what only one of them sets is kept."""
    passes(
        """
        tm.configure(
            service_name="argument",
            endpoint=sys.argv[1],
            headers={"Authorization": "Bearer argument"},
            resource={"tier": 2, "both": "argument"},
        )
        work(tm.OTelRecorder())
        """,
        sink.url,
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20environment",
        OTEL_SERVICE_NAME="environment",
        OTEL_RESOURCE_ATTRIBUTES="both=environment,only=environment",
    )
    assert {post.headers["authorization"] for post in sink.posts} == {"Bearer argument"}
    expected = {"service.name": "argument", "tier": 2, "both": "argument", "only": "environment"}
    assert sink.resource().items() >= expected.items()


@pytest.mark.parametrize("suffix", ["", "/", "/v1/traces", "/v1/metrics", "/v1/traces/"])
def test_an_endpoint_is_a_base_url(sink: Sink, suffix: str) -> None:
    """Both signals' paths are added, also to an endpoint that already has one of them."""
    passes("tm.configure(endpoint=sys.argv[1]); work(tm.OTelRecorder())", sink.url + suffix)
    assert sink.paths == {"/v1/traces", "/v1/metrics"}


def test_a_base_url_may_have_a_path(sink: Sink) -> None:
    """The path of a receiver behind a gateway is kept before the signal's path."""
    passes("tm.configure(endpoint=sys.argv[1]); work(tm.OTelRecorder())", f"{sink.url}/otlp")
    assert sink.paths == {"/otlp/v1/traces", "/otlp/v1/metrics"}


def test_the_sampler_of_the_environment(sink: Sink) -> None:
    """`OTEL_TRACES_SAMPLER` reduces the traces, and the metrics have every call."""
    passes("tm.configure(endpoint=sys.argv[1]); work(tm.OTelRecorder())", sink.url, OTEL_TRACES_SAMPLER="always_off")
    assert sink.paths == {"/v1/metrics"}
    assert sink.metrics()["tracemind.llm.cost"].sum.data_points[0].as_double == 0.25


@pytest.mark.parametrize(
    ("variable", "value", "paths"),
    [
        ("OTEL_TRACES_EXPORTER", "none", {"/v1/metrics"}),
        ("OTEL_METRICS_EXPORTER", "none", {"/v1/traces"}),
        ("OTEL_METRICS_EXPORTER", "otlp", {"/v1/traces", "/v1/metrics"}),
        ("OTEL_SDK_DISABLED", "true", set[str]()),
        ("OTEL_SDK_DISABLED", "false", {"/v1/traces", "/v1/metrics"}),
    ],
)
def test_signals_can_be_switched_off(sink: Sink, variable: str, value: str, paths: set[str]) -> None:
    """The standard variables switch off one signal or all; calls succeed, and flushing is no failure."""
    passes(
        """
        telemetry = tm.configure(endpoint=sys.argv[1])
        assert work(telemetry.recorder)["status"] == "ok"
        assert telemetry.flush() and telemetry.shutdown()
        """,
        sink.url,
        **{variable: value},
    )
    assert sink.paths == paths


def test_what_arrives(sink: Sink) -> None:
    """Spans and metrics arrive complete: nested, with the same cost, and with exemplars that lead to the trace."""
    passes("tm.configure(endpoint=sys.argv[1]); work(tm.OTelRecorder()); work(tm.OTelRecorder())", sink.url)
    calls = [span for span in sink.spans() if span.name == "chat toy-1"]
    flows = {span.span_id for span in sink.spans() if span.name == "invoke_workflow work"}
    assert {span.parent_span_id for span in calls} == flows
    assert [plain(span.attributes)["gen_ai.usage.cost"] for span in calls] == [0.25, 0.25]
    metrics = sink.metrics()
    cost, tokens = metrics["tracemind.llm.cost"], metrics["gen_ai.client.token.usage"]
    assert (cost.unit, cost.sum.is_monotonic, [point.as_double for point in cost.sum.data_points]) == (
        "USD",
        True,
        [0.5],
    )
    assert {plain(p.attributes)["gen_ai.token.type"]: p.sum for p in tokens.histogram.data_points} == {
        "input": 20.0,
        "output": 10.0,
    }
    (duration,) = metrics["gen_ai.client.operation.duration"].histogram.data_points
    assert (duration.count, sum(duration.bucket_counts), len(duration.explicit_bounds)) == (2, 2, 14)
    # Each export has the exemplars since the one before.
    durations = [
        metric
        for request in sink.metric_requests()
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "gen_ai.client.operation.duration"
    ]
    exemplars = [each for metric in durations for point in metric.histogram.data_points for each in point.exemplars]
    assert {exemplar.span_id for exemplar in exemplars} <= {span.span_id for span in calls}
    assert exemplars
    assert "gen_ai.invoke_workflow.duration" in metrics


def test_metrics_are_exported_at_an_interval(sink: Sink) -> None:
    """`OTEL_METRIC_EXPORT_INTERVAL` exports metrics while the program runs."""
    arrived = threading.Event()
    sink.hold = lambda post: arrived.set() if post.path == "/v1/metrics" else None
    program = "tm.configure(endpoint=sys.argv[1])\nwork(tm.OTelRecorder())\nsys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program, sink.url],
        env=clean_environment(OTEL_METRIC_EXPORT_INTERVAL="20"),
        stdin=subprocess.PIPE,
    ) as process:
        try:
            assert arrived.wait(30)
        finally:
            process.communicate(b"\n")


def test_metrics_are_exported_when_a_flow_ends(sink: Sink) -> None:
    """A script's metrics arrive at the end of its flow, whatever the interval is and however the process ends."""
    arrived = threading.Event()
    sink.hold = lambda post: arrived.set() if post.path == "/v1/metrics" else None
    program = """
    tm.configure(endpoint=sys.argv[1])
    tm.flow(name="work")(work)(tm.OTelRecorder())
    sys.stdin.readline()
    """
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), sink.url],
        env=clean_environment(OTEL_METRIC_EXPORT_INTERVAL="3600000"),
        stdin=subprocess.PIPE,
    ) as process:
        try:
            assert arrived.wait(30)
        finally:
            process.kill()


def test_metric_attributes_arrive(sink: Sink) -> None:
    """`metric_attributes` puts a flow's attribute on the cost."""
    passes(
        """
        telemetry = tm.configure(endpoint=sys.argv[1], metric_attributes=["team"])
        for team in ("search", "ads"):
            tm.flow(name="work", attributes={"team": team, "ticket": "T-1"})(work)(telemetry.recorder)
        """,
        sink.url,
    )
    points = sink.metrics()["tracemind.llm.cost"].sum.data_points
    assert {plain(point.attributes)["team"]: point.as_double for point in points} == {"search": 0.25, "ads": 0.25}
    assert "ticket" not in plain(points[0].attributes)


def test_prices_are_set(capture: Captured, tmp_path: Path) -> None:
    """`prices=` takes a file or rows, and rejects a mistake in them at once."""
    path = tmp_path / "prices.toml"
    path.write_text('[[price]]\nmodel = "house"\ninput = 1\noutput = 2\n')
    providers: dict[str, Any] = {
        "tracer_provider": capture.tracer_provider,
        "meter_provider": capture.meter_provider,
    }
    with tm.configure(prices=path, **providers):
        assert tm.estimate_cost("any", "house", 1_000_000, 1_000_000) == 3.0
    with pytest.raises(ConfigError, match="'input'"):
        tm.configure(prices=[{"model": "house", "output": 1}], **providers)


async def test_prices_can_win_over_the_reply(capture: Captured) -> None:
    """With `prices_over_reply=True` the user's prices win over a reply's cost."""
    providers: dict[str, Any] = {"tracer_provider": capture.tracer_provider, "meter_provider": capture.meter_provider}
    reply = LLMResponse("", LLMUsage(1_000_000, 0, 1_000_000), reported_cost=ReportedCost(usd=0.5))
    with tm.configure(prices=[{"model": "house", "input": 1, "output": 2}], prices_over_reply=True, **providers):
        usage = await price_reply("any", ("house",), reply, at=datetime.now(UTC))
    assert (usage.cost_usd, usage.cost_source) == (1.0, "override")


def test_grpc() -> None:
    """`protocol="grpc"` sends to an `http://` address without TLS, with the headers as metadata."""
    with grpc_listening() as grpc_sink:
        passes(
            """
            telemetry = tm.configure(endpoint=sys.argv[1], protocol="grpc", headers={"X-Tenant": "blue"})
            work(telemetry.recorder)
            assert telemetry.shutdown()
            """,
            grpc_sink.url,
            OTEL_METRICS_EXPORTER="none",
        )
    assert {span.name for span in grpc_sink.spans()} == {"chat toy-1", "invoke_workflow work"}
    assert grpc_sink.metadata[0]["x-tenant"] == "blue"


# --- A file ---


def spans_in(path: Path) -> set[str]:
    return {
        span["name"]
        for line in path.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }


def test_a_file_alone_opens_no_socket(tmp_path: Path) -> None:
    """With `file=` and no endpoint, spans go to the file and nothing to the network."""
    path = tmp_path / "spans.otlp.jsonl"
    passes(
        """
        connected = []
        sys.addaudithook(lambda event, _: connected.append(event) if event == "socket.connect" else None)
        with tm.configure(file=sys.argv[1]) as telemetry:
            work(telemetry.recorder)
            assert telemetry.flush()
        assert connected == []
        """,
        str(path),
    )
    assert spans_in(path) == {"chat toy-1", "invoke_workflow work"}


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_file_beside_an_address(tmp_path: Path, sink: Sink, by: str) -> None:
    """With a file and an endpoint, both get the spans."""
    path = tmp_path / "spans.otlp.jsonl"
    options, environment = (
        (", endpoint=sys.argv[2]", {}) if by == "argument" else ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url})
    )
    passes(f"tm.configure(file=sys.argv[1]{options}); work(tm.OTelRecorder())", str(path), sink.url, **environment)
    assert spans_in(path) == {span.name for span in sink.spans()} == {"chat toy-1", "invoke_workflow work"}
    assert "/v1/metrics" in sink.paths


# --- Twice, and afterwards ---


def test_a_second_configure_shares_the_first(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """The end of a second `configure()` leaves the first one running, and the log names what had no effect."""
    providers: dict[str, Any] = {
        "tracer_provider": capture.tracer_provider,
        "meter_provider": capture.meter_provider,
    }
    with tm.configure(**providers, metric_attributes=["team"]) as first:
        with tm.configure(service_name="other", endpoint="http://secret@127.0.0.1:9", file="other.jsonl") as second:
            assert second.recorder is first.recorder
        assert configured_providers().labels.names == ("team",)
    assert "configure() was called before: service_name, endpoint, file of this call had no effect" in caplog.text
    assert "secret" not in caplog.text


def test_the_end_of_a_second_configure_sends_and_goes_on(sink: Sink) -> None:
    """The end of a library's own `configure()` delivers what there is, and later spans still arrive."""
    passes(
        """
        telemetry = tm.configure(endpoint=sys.argv[1])
        import logging; logging.disable()
        with tm.configure(endpoint="http://127.0.0.1:9"):
            work(telemetry.recorder)
        work(telemetry.recorder)
        assert telemetry.shutdown()
        """,
        sink.url,
    )
    assert sorted(span.name for span in sink.spans()) == ["chat toy-1"] * 2 + ["invoke_workflow work"] * 2


def test_a_new_one_after_shutdown(sink: Sink) -> None:
    """After shutdown, recorder and decorators work with a new set-up at another endpoint."""
    with listening() as second:
        passes(
            """
            for url in sys.argv[1:]:
                telemetry = tm.configure(endpoint=url)
                work(telemetry.recorder)
                assert telemetry.shutdown()
            """,
            sink.url,
            second.url,
        )
        for found in (sink, second):
            assert sorted(span.name for span in found.spans()) == ["chat toy-1", "invoke_workflow work"]
            assert found.metrics()["tracemind.llm.cost"].sum.data_points[0].as_double == 0.25
            assert "gen_ai.invoke_workflow.duration" in found.metrics()


def test_shutting_down_twice(capture: Captured) -> None:
    """A second shutdown, sync or async, does nothing and returns the same."""
    telemetry = tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider)
    assert [telemetry.shutdown(), telemetry.shutdown(), asyncio.run(telemetry.ashutdown())] == [True] * 3
    assert telemetry.flush()


def test_an_old_handle_does_not_forget_the_new_one(capture: Captured) -> None:
    """A second shutdown of an old handle leaves a later set-up running."""
    providers: dict[str, Any] = {
        "tracer_provider": capture.tracer_provider,
        "meter_provider": capture.meter_provider,
    }
    old = tm.configure(**providers)
    old.shutdown()
    with tm.configure(**providers) as new:
        old.shutdown()
        assert tm.configure().recorder is new.recorder


async def test_context_managers(capture: Captured) -> None:
    """`with` and `async with` shut down at their end, after an exception too."""
    providers: dict[str, Any] = {
        "tracer_provider": capture.tracer_provider,
        "meter_provider": capture.meter_provider,
    }
    with pytest.raises(KeyError), tm.configure(**providers) as first:
        raise KeyError
    async with tm.configure(**providers) as second:
        assert second is not first
        assert await second.aflush()
    with pytest.raises(KeyError):
        async with tm.configure(**providers):
            raise KeyError
    assert configured_providers().tracer_provider is None


def test_async_with_delivers(sink: Sink) -> None:
    """In a coroutine, flush and shutdown are awaited without blocking the event loop."""
    passes(
        """
        async def main():
            async with tm.configure(endpoint=sys.argv[1]) as telemetry:
                await call(telemetry.recorder)
                assert await telemetry.aflush()
        asyncio.run(main())
        """,
        sink.url,
    )
    assert [span.name for span in sink.spans()] == ["chat toy-1"]


# --- Delivery ---


def test_flush_delivers(sink: Sink) -> None:
    """When `flush` returns True, everything recorded has arrived."""
    ended = passes(
        """
        telemetry = tm.configure(endpoint=sys.argv[1])
        work(telemetry.recorder)
        print(telemetry.flush(), flush=True)
        import os
        os._exit(0)
        """,
        sink.url,
    )
    assert ended.stdout == "True\n"
    assert {span.name for span in sink.spans()} == {"chat toy-1", "invoke_workflow work"}
    assert "tracemind.llm.cost" in sink.metrics()


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise SystemExit(3)"])
def test_the_end_of_the_process_delivers(sink: Sink, ending: str) -> None:
    """A program that never shuts down loses nothing, and keeps its exit code."""
    ended = python(f"tm.configure(endpoint=sys.argv[1])\nwork(tm.OTelRecorder())\n{ending}", sink.url)
    assert (ended.code, ended.stderr) == (3 if ending else 0, "")
    assert {span.name for span in sink.spans()} == {"chat toy-1", "invoke_workflow work"}


def test_the_end_of_the_process_closes_its_connections() -> None:
    """The last export uses the kept connection, and no socket stays open."""
    program = """
    telemetry = tm.configure(endpoint=sys.argv[1])
    for _ in range(2):
        work(tm.OTelRecorder())
        telemetry.flush()
    work(tm.OTelRecorder())
    """
    with listening(protocol="HTTP/1.1") as sink:
        passes(program, sink.url)
    assert len(sink.spans()) == 6
    assert len({post.client for post in sink.posts}) == 2


def test_a_program_that_crashes_delivers(sink: Sink) -> None:
    """A program that ends by an uncaught exception delivers its spans."""
    ended = python("tm.configure(endpoint=sys.argv[1])\nwork(tm.OTelRecorder())\nraise KeyError('boom')", sink.url)
    assert ended.code == 1
    assert ended.stderr.rstrip().endswith("KeyError: 'boom'")
    assert {span.name for span in sink.spans()} == {"chat toy-1", "invoke_workflow work"}


def test_with_nobody_there(refused: str) -> None:
    """With the Collector down `flush` returns False in time, and the process ends within 5 s and says what was lost."""
    ended = python(
        """
        import logging, time
        import logging; logging.disable()
        telemetry = tm.configure(endpoint=sys.argv[1])
        assert work(telemetry.recorder)["status"] == "ok"
        started = time.monotonic()
        print(telemetry.flush(timeout_s=1.0), time.monotonic() - started < 5)
        print(time.time())
        """,
        refused.replace("http://", "http://user:secret@"),
    )
    flushed, last_line_at = ended.stdout.splitlines()
    assert (ended.code, flushed) == (0, "False True")
    assert ended.at - float(last_line_at) < 5.0
    (line,) = ended.stderr.splitlines()
    assert line.startswith("tracemind-otel: lost: ")
    assert f"2 of 2 spans did not reach {refused}/v1/traces" in line
    assert f"metric points did not reach {refused}/v1/metrics" in line
    assert "secret" not in line


def test_a_receiver_that_answers_with_an_error(sink: Sink) -> None:
    """After an answer that is no success, flush and shutdown return False."""
    sink.status = 400
    ended = python(
        """
        import logging
        import logging; logging.disable()
        telemetry = tm.configure(endpoint=sys.argv[1])
        work(telemetry.recorder)
        print(telemetry.flush(), telemetry.shutdown(), telemetry.shutdown())
        """,
        sink.url,
    )
    assert (ended.code, ended.stdout) == (0, "False False False\n")
    assert len(ended.stderr.splitlines()) == 1


def test_nothing_recorded_is_nothing_lost(refused: str) -> None:
    """A program that recorded nothing writes nothing at its end."""
    passes("tm.configure(endpoint=sys.argv[1])", refused)


# --- Mistakes ---


@pytest.mark.parametrize(
    ("options", "environment", "named"),
    [
        ({"protocol": "http/json"}, {}, ("protocol", "'http/json'", "http/protobuf, grpc")),
        ({"protocol": "udp"}, {}, ("protocol", "'udp'")),
        ({}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, ("OTEL_EXPORTER_OTLP_PROTOCOL", "'http/json'")),
        ({"endpoint": "localhost:4318"}, {}, ("endpoint", "'localhost:4318'", "http://localhost:4318")),
        ({"endpoint": "ftp://localhost"}, {}, ("endpoint", "'ftp://localhost'")),
        ({"endpoint": "http://"}, {}, ("endpoint",)),
        ({"endpoint": ""}, {}, ("endpoint",)),
        ({"endpoint": "grpc://user:secret@host:4317"}, {}, ("endpoint", "grpc://host:4317")),
    ],
)
def test_mistakes_are_named(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], environment: dict[str, str], named: tuple[str, ...]
) -> None:
    """A wrong argument or variable is rejected with a ConfigError that names it and shows no password."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        tm.configure(**options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert all(part in str(caught.value) for part in named), str(caught.value)
    assert "secret" not in str(caught.value)
    assert configured_providers() == Providers()


def of_one_part(part: dict[str, Any]) -> dict[str, Any]:
    return part


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attempt_spans": "false"}, "attempt_spans is str; it must be True or False"),
        ({"cost_by_kind": 2}, "cost_by_kind is int; it must be True or False"),
        ({"prices_over_reply": None}, "prices_over_reply is NoneType; it must be True or False"),
        ({"tracer_provider": 3}, r"tracer_provider is int; it must be a provider with a get_tracer\(\)"),
        ({"meter_provider": "otlp"}, r"meter_provider is str; it must be a provider with a get_meter\(\)"),
        ({"prices": 3}, "prices is int; it must be the path of a TOML file, or a list of rows"),
        ({"prices": {"model": "m", "input": 1, "output": 2}}, "prices is dict; it must be"),
        ({"spool": ""}, "spool is empty; it must be the path of a directory"),
        ({"file": ""}, "file is empty; it must be the path of a file"),
        ({"redact": of_one_part}, "redact cannot be called with a part and its role"),
    ],
)
def test_a_value_of_a_wrong_kind_is_rejected(options: dict[str, Any], message: str) -> None:
    """A value that cannot be meant, such as "false" in place of False, is rejected by its argument's name."""
    with pytest.raises(ConfigError, match=message):
        tm.configure(**options)
    assert configured_providers() == Providers()


def of_any_arguments(*arguments: Any) -> Any:
    return arguments[0]


def of_an_optional_role(part: dict[str, Any], role: str = "user") -> dict[str, Any]:
    return {**part, "role": role}


@pytest.mark.parametrize("redact", [of_any_arguments, of_an_optional_role, dict])
def test_a_redact_that_takes_two_arguments_in_any_way_is_accepted(redact: Any, tmp_path: Path) -> None:
    """Optional and variable parameters are no mistake, and neither is a callable that does not tell its parameters."""
    tm.configure(file=tmp_path / "trace.jsonl", redact=redact).shutdown()


@pytest.mark.parametrize(
    ("options", "environment", "named"),
    [
        ("endpoint=sys.argv[1], file='/no/such/folder/x'", {}, "file '/no/such/folder/x' cannot be written"),
        ("endpoint=sys.argv[1], file='a\\0b'", {}, "cannot be written"),
        ("endpoint=sys.argv[1]", {"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL"),
        ("endpoint=sys.argv[1]", {"OTEL_METRIC_EXPORT_INTERVAL": "often"}, "OTEL_METRIC_EXPORT_INTERVAL is 'often'"),
        ("endpoint=sys.argv[1]", {"OTEL_METRIC_EXPORT_TIMEOUT": "nan"}, "OTEL_METRIC_EXPORT_TIMEOUT is 'nan'"),
        ("endpoint=sys.argv[1]", {"OTEL_METRICS_EXEMPLAR_FILTER": "some"}, "OTEL_METRICS_EXEMPLAR_FILTER"),
        ("endpoint=sys.argv[1]", {"OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "OTEL_BSP_MAX_QUEUE_SIZE"),
        ("endpoint=sys.argv[1]", {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "9999"}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
        ("endpoint=sys.argv[1]", {"OTEL_SPAN_EVENT_COUNT_LIMIT": "-1"}, "OTEL_SPAN_EVENT_COUNT_LIMIT"),
        ("endpoint=sys.argv[1]", {"OTEL_EXPORTER_OTLP_HEADERS": "a"}, "OTEL_EXPORTER_OTLP_HEADERS: entry 1"),
        (
            "endpoint=sys.argv[1], protocol='grpc'",
            {"OTEL_EXPORTER_OTLP_METRICS_COMPRESSION": "zip"},
            "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
        ),
        (
            "endpoint=sys.argv[1], protocol='grpc'",
            {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
            "OTEL_EXPORTER_OTLP_TIMEOUT",
        ),
    ],
)
def test_a_mistake_leaves_nothing_behind(sink: Sink, options: str, environment: dict[str, str], named: str) -> None:
    """After a ConfigError nothing is half set up, and a second `configure()` starts afresh."""
    ended = passes(
        f"""
        import os, threading
        from opentelemetry import metrics, trace
        before = trace.get_tracer_provider(), metrics.get_meter_provider()
        try:
            tm.configure({options})
        except tm.ConfigError as error:
            print(error)
        assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == before
        assert threading.enumerate() == [threading.main_thread()]
        for name in {list(environment)}:
            del os.environ[name]
        with tm.configure(endpoint=sys.argv[1]) as telemetry:
            work(telemetry.recorder)
        """,
        sink.url,
        **environment,
    )
    assert named in ended.stdout
    assert sink.paths == {"/v1/traces", "/v1/metrics"}


@pytest.mark.parametrize(
    ("endpoint", "protocol", "is_warned"),
    [
        ("http://localhost:4317", "http/protobuf", True),
        ("http://localhost:4318", "grpc", True),
        ("http://localhost:4318", "http/protobuf", False),
        ("http://localhost:4317", "grpc", False),
    ],
)
def test_the_other_protocols_port_is_warned_of(
    caplog: pytest.LogCaptureFixture, endpoint: str, protocol: str, is_warned: bool
) -> None:
    """The log warns of gRPC to port 4318 and HTTP to port 4317."""
    providers: dict[str, Any] = {"tracer_provider": TracerProvider(), "meter_provider": MeterProvider()}
    with tm.configure(endpoint=endpoint, protocol=protocol, **providers):
        assert ("4317 is usually gRPC's port" in caplog.text) is is_warned
    for provider in providers.values():
        provider.shutdown()


def test_a_receiver_that_never_answers_costs_no_span_in_the_file(tmp_path: Path) -> None:
    """The file is complete when shutdown returns, though the receiver never answers."""
    with socket(AF_INET, SOCK_STREAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        path = tmp_path / "spans.jsonl"
        python(
            """
            telemetry = tm.configure(endpoint=sys.argv[1], file=sys.argv[2])
            work(telemetry.recorder)
            telemetry.shutdown(timeout_s=0.5)
            os._exit(0)
            """,
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            str(path),
        )
    assert spans_in(path) == {"chat toy-1", "invoke_workflow work"}
