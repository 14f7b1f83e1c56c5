"""Everything that is sent to the stack's Collector is in Jaeger and Prometheus."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

from tests.e2e.backends import ROOT, STACK_COMMAND, Stack

pytestmark = pytest.mark.e2e

PROTOCOLS = ("grpc", "http")


def span_exporter(stack: Stack, protocol: str) -> SpanExporter:
    if protocol == "grpc":
        return GrpcSpanExporter(endpoint=stack.otlp_grpc, insecure=True)
    return HttpSpanExporter(endpoint=f"{stack.otlp_http}/v1/traces")


def metric_exporter(stack: Stack, protocol: str) -> MetricExporter:
    if protocol == "grpc":
        return GrpcMetricExporter(endpoint=stack.otlp_grpc, insecure=True)
    return HttpMetricExporter(endpoint=f"{stack.otlp_http}/v1/metrics")


def send_trace(stack: Stack, protocol: str, service: str) -> str:
    """Send two spans, the inner one with every kind of attribute, an event and an error; returns the trace's id."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(span_exporter(stack, protocol)))
    tracer = provider.get_tracer("tests.e2e")
    with tracer.start_as_current_span("outer") as outer:
        with tracer.start_as_current_span("inner", kind=SpanKind.CLIENT) as inner:
            inner.set_attribute("gen_ai.request.model", "fake-1")
            inner.set_attribute("gen_ai.usage.input_tokens", 2**40)
            inner.set_attribute("gen_ai.usage.cost", 0.0025)
            inner.set_attribute("tracemind.cancelled", False)
            inner.set_attribute("gen_ai.response.finish_reasons", ["stop", "length"])
            inner.add_event("tracemind.retry", {"tracemind.retry.attempt": 1})
            inner.set_status(Status(StatusCode.ERROR, "overloaded"))
        trace_id = f"{outer.get_span_context().trace_id:032x}"
    provider.shutdown()
    return trace_id


def send_cost(stack: Stack, protocol: str, service: str, costs: list[float]) -> None:
    reader = PeriodicExportingMetricReader(metric_exporter(stack, protocol))
    provider = MeterProvider([reader], Resource.create({"service.name": service}))
    counter = provider.get_meter("tests.e2e").create_counter("tracemind.llm.cost", unit="USD")
    for cost in costs:
        counter.add(cost, {"gen_ai.request.model": "fake-1"})
    provider.shutdown()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_span_sent_to_the_collector_is_in_jaeger_as_it_was_recorded(stack: Stack, protocol: str) -> None:
    """Jaeger shows an application's spans completely, with either OTLP protocol."""
    service = f"spans-{uuid.uuid4().hex}"
    trace_id = send_trace(stack, protocol, service)

    outer, inner = stack.wait_for_trace(trace_id, spans=2)

    assert (outer["name"], outer["kind"], outer["parent_id"]) == ("outer", "INTERNAL", None)
    assert (inner["name"], inner["kind"], inner["parent_id"]) == ("inner", "CLIENT", outer["span_id"])
    assert (inner["status"], inner["status_message"]) == ("ERROR", "overloaded")
    assert inner["resource"]["service.name"] == service
    assert inner["attributes"] == {
        "gen_ai.request.model": "fake-1",
        "gen_ai.usage.input_tokens": 2**40,
        "gen_ai.usage.cost": 0.0025,
        "tracemind.cancelled": False,
        "gen_ai.response.finish_reasons": ["stop", "length"],
    }
    (event,) = inner["events"]
    assert (event["name"], event["attributes"]) == ("tracemind.retry", {"tracemind.retry.attempt": 1})


def test_a_trace_is_found_by_its_service(stack: Stack) -> None:
    """A search by service in Jaeger finds that service's traces and no others."""
    service = f"search-{uuid.uuid4().hex}"
    trace_id = send_trace(stack, "http", service)
    stack.wait_for_trace(trace_id, spans=2)

    assert list(stack.search_traces(service)) == [trace_id]
    assert list(stack.search_traces(service, operation="inner")) == [trace_id]
    assert stack.search_traces(f"other-{service}") == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cost_sent_to_the_collector_sums_up_in_prometheus(stack: Stack, protocol: str) -> None:
    """The cost counter has the dashboards' name in Prometheus, and the application as its job."""
    service = f"cost-{uuid.uuid4().hex}"
    send_cost(stack, protocol, service, [0.25, 0.5])

    (sample,) = stack.wait_for_metric(
        f'sum by (job, gen_ai_request_model) (tracemind_llm_cost_USD_total{{job="{service}"}})'
    )

    assert sample["labels"] == {"job": service, "gen_ai_request_model": "fake-1"}
    assert sample["value"] == pytest.approx(0.75)


def test_the_collector_reports_on_itself(stack: Stack) -> None:
    """Prometheus knows whether the Collector rejected or lost spans."""
    stack.wait_for_trace(send_trace(stack, "grpc", "self-report"), spans=2)

    samples = stack.wait_for_metric('otelcol_receiver_accepted_spans{receiver="otlp"}')

    assert sum(sample["value"] for sample in samples) >= 2


def test_the_collector_warns_of_nothing_deprecated(stack: Stack) -> None:
    """The Collector calls no part of its configuration deprecated."""
    log = stack.run("logs", "otelcol", "--state", str(stack.state)).stdout

    assert "Everything is ready" in log
    assert "deprecated" not in log.lower()


def test_up_again_says_that_it_runs_and_changes_nothing(stack: Stack) -> None:
    """A second `up` gives the same addresses and starts nothing."""
    again = stack.run("up", "--ports", "auto", "--json", "--state", str(stack.state))

    assert again.returncode == 0
    assert "already running" in again.stderr
    assert json.loads(again.stdout)["otlp_grpc"] == stack.otlp_grpc


def test_status_names_what_runs_and_where(stack: Stack) -> None:
    """`status` lists each program and its addresses, and its exit code says that all is well."""
    status = stack.run("status", "--state", str(stack.state))

    assert status.returncode == 0
    assert len(re.findall(r"^(otelcol|jaeger|prometheus) +running", status.stdout, re.MULTILINE)) == 3
    assert stack.jaeger_http in status.stdout


@pytest.fixture
def native(stack: Stack) -> Stack:
    """The stack, for tests that need its processes and binaries."""
    if stack.mode != "native":
        pytest.skip("the stack runs in Docker")
    return stack


def listening(address: str) -> bool:
    host, _, port = address.removeprefix("http://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_down_ends_everything_and_down_again_is_harmless(native: Stack, tmp_path: Path) -> None:
    """After `down` nothing of this stack listens, and another stack on the machine runs on."""
    state = str(tmp_path / "state")
    up = native.run("up", "--ports", "auto", "--json", "--state", state)
    addresses: dict[str, str] = json.loads(up.stdout)
    addresses.pop("mode")
    assert all(listening(address) for address in addresses.values())

    first, second = native.run("down", "--state", state), native.run("down", "--state", state)

    assert (first.returncode, first.stdout) == (0, "stopped jaeger, otelcol, prometheus\n")
    assert (second.returncode, second.stdout) == (0, "nothing was running\n")
    assert not any(listening(address) for address in addresses.values())
    assert native.run("status", "--state", state).returncode == 1
    assert listening(native.jaeger_http)


def test_down_leaves_a_process_alone_that_is_not_ours(native: Stack, tmp_path: Path) -> None:
    """`down` does not kill another program that got the process number."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        (tmp_path / "jaeger.pid").write_text(f"{bystander.pid}\n1 /some/where/jaeger\n")

        down = native.run("down", "--state", str(tmp_path))

        assert down.stdout == "nothing was running\n"
        assert bystander.poll() is None
        bystander.communicate(b"\n")


def has_ended(pid: int, timeout_s: float = 5.0) -> bool:
    """Whether a process has ended; init may take a moment to remove it."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_nothing_running(native: Stack, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C during `up` ends everything that was started."""
    command = [*STACK_COMMAND, "up", "--ports", "auto", "--state", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "jaeger.pid").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pid = int((tmp_path / "jaeger.pid").read_text().split()[0])
        process.send_signal(number)
        assert process.wait(timeout=30) == 130

    assert list(tmp_path.glob("*.pid")) == []
    assert has_ended(pid)


def test_a_taken_port_is_named_with_the_way_out(native: Stack, tmp_path: Path) -> None:
    """The message for a taken port names it and the variable that changes it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])

        up = native.run("up", "--state", str(tmp_path), env={"TRACEMIND_OTLP_GRPC_PORT": port})

    assert up.returncode == 1
    assert f"port {port} (OTLP gRPC) is in use" in up.stderr
    assert "TRACEMIND_OTLP_GRPC_PORT" in up.stderr


def test_a_program_that_dies_is_reported_with_its_log(native: Stack, tmp_path: Path) -> None:
    """When a program fails, `up` shows its log, and leaves nothing running."""
    broken = {"TRACEMIND_COLLECTOR_MEMORY_MIB": "1"}  # less than the spike limit, which the Collector rejects

    up = native.run("up", "--ports", "auto", "--state", str(tmp_path), env=broken)

    assert up.returncode == 1
    assert "otelcol has exited" in up.stderr
    assert "memory_limiter" in up.stderr
    assert list(tmp_path.glob("*.pid")) == []


def binaries(stack: Stack) -> dict[str, str]:
    lines = stack.run("build").stdout.splitlines()
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


COMPOSE_ENVIRONMENT = {"TRACEMIND_LISTEN_HOST": "0.0.0.0", "TRACEMIND_JAEGER_OTLP_ENDPOINT": "jaeger:14317"}


@pytest.mark.parametrize("environment", [{}, COMPOSE_ENVIRONMENT], ids=["native", "compose"])
@pytest.mark.parametrize("program", ["otelcol", "jaeger"])
def test_the_programs_accept_their_configuration(native: Stack, program: str, environment: dict[str, str]) -> None:
    """The programs themselves accept the repository's files, natively and in Docker."""
    command = [binaries(native)[program], "validate", f"--config={ROOT / 'collector' / program}.yaml"]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, cwd=ROOT
    )

    assert done.returncode == 0, done.stderr
