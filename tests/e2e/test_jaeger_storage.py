"""Where Jaeger keeps traces: its own check of each file, and Badger across restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.e2e.backends import Stack, get_json, run_stack
from tests.e2e.collectors import go_program
from tests.programs import REPOSITORY

pytestmark = pytest.mark.e2e

COLLECTOR = REPOSITORY / "collector"
STORAGES = sorted(path.stem for path in (COLLECTOR / "jaeger").glob("*.yaml"))
NUMBER = "12345"
"""A password that would be a number."""
SECRETS = {
    f"TRACEMIND_{storage}_{name}": NUMBER
    for storage in ("CASSANDRA", "CLICKHOUSE", "OPENSEARCH")
    for name in ("USERNAME", "PASSWORD")
}
NEWER_KEYS = {"clickhouse": "'clickhouse' has invalid keys: tls, ttl"}
"""What the Jaeger that is built does not know yet; it knows the rest of these files."""


def run_jaeger(command: str, storage: str, *options: str) -> subprocess.CompletedProcess[str]:
    files = [COLLECTOR / "jaeger.yaml", COLLECTOR / "jaeger" / f"{storage}.yaml"]
    return subprocess.run(
        [str(go_program("jaeger")), command, *options, *(f"--config={file}" for file in files)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], **SECRETS},
        timeout=60,
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_jaeger_accepts_the_file_of_each_storage(storage: str) -> None:
    """`jaeger validate` accepts each storage; of ClickHouse's keys, it knows all but the two of Jaeger 2.19."""
    done = run_jaeger("validate", storage)

    faults = [line for line in done.stderr.splitlines() if line.startswith("'") and "decoding failed" not in line]
    if storage in NEWER_KEYS:
        assert set(faults) == {NEWER_KEYS[storage]}
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("storage", sorted(set(STORAGES) - NEWER_KEYS.keys()))
def test_each_storage_goes_together_with_the_monitor_tab(storage: str) -> None:
    """The metrics of the Monitor tab stay in Prometheus, wherever traces are kept."""
    done = run_jaeger("validate", storage, f"--config={COLLECTOR / 'jaeger-monitor.yaml'}")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("storage", ["cassandra", "opensearch"])
def test_a_password_of_digits_reaches_the_storage_as_it_is(storage: str) -> None:
    """A password that looks like a number is a string in Jaeger."""
    done = run_jaeger("print-config", storage, "--mode=unredacted", "--feature-gates=otelcol.printInitialConfig")

    assert done.stdout.count(f'password: "{NUMBER}"') == 1, done.stderr


@pytest.fixture
def native_only(stack: Stack) -> None:
    """Skip the test where the stack runs in Docker."""
    if stack.mode != "native":
        pytest.skip("the stack runs in Docker")


@contextmanager
def stack_with_badger(state: Path) -> Generator[Stack]:
    """The stack with traces on disk; what it started ends at the end."""
    done = run_stack("up", "--storage", "badger", "--ports", "auto", "--json", "--state", str(state))
    assert done.returncode == 0, done.stderr
    try:
        yield Stack(state=state, **json.loads(done.stdout))
    finally:
        run_stack("down", "--state", str(state))


def send(stack: Stack, service: str) -> str:
    """Send a trace of two spans; returns its id."""
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{stack.otlp_http}/v1/traces")))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("flow") as flow, tracer.start_as_current_span("call") as call:
        call.set_attribute("gen_ai.request.model", "fake-1")
        call.set_attribute("tracemind.retry.attempt", 2)
    provider.shutdown()
    return f"{flow.get_span_context().trace_id:032x}"


def found(stack: Stack, service: str, **tags: str) -> set[str]:
    """The ids of the traces of a service with a span that has these attributes."""
    parameters = {"service": service, "limit": "20", "lookback": "1h", "tags": json.dumps(tags)}
    answer = get_json(stack.jaeger_http, "/api/traces", parameters)
    traces: list[dict[str, Any]] = answer["data"] if answer else []
    return {trace["traceID"] for trace in traces}


def assert_kept(stack: Stack, service: str, *traces: str) -> None:
    """The traces are found by id, by service and by attribute."""
    for trace_id in traces:
        flow, call = stack.wait_for_trace(trace_id, spans=2)
        assert (flow["name"], call["attributes"]["tracemind.retry.attempt"]) == ("flow", 2)
    assert stack.search_traces(service).keys() == set(traces)
    assert found(stack, service, **{"tracemind.retry.attempt": "2"}) == set(traces)
    assert found(stack, service, **{"gen_ai.request.model": "fake-1"}) == set(traces)
    assert found(stack, service, **{"tracemind.retry.attempt": "1"}) == set()


@pytest.mark.usefixtures("native_only")
def test_badger_keeps_traces_when_jaeger_is_stopped_and_when_it_is_killed(tmp_path: Path) -> None:
    """With --storage badger, traces are there after a stop and after a kill, and new ones join them."""
    service = f"badger-{uuid.uuid4().hex}"
    with stack_with_badger(tmp_path) as stack:
        before_kill = send(stack, service)
        stack.wait_for_trace(before_kill, spans=2)
        pid = int((tmp_path / "jaeger.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
    with stack_with_badger(tmp_path) as stack:
        assert_kept(stack, service, before_kill)
        before_stop = send(stack, service)
        stack.wait_for_trace(before_stop, spans=2)
    with stack_with_badger(tmp_path) as stack:
        assert_kept(stack, service, before_kill, before_stop)
        other = run_stack("up", "--storage", "memory", "--ports", "auto", "--state", str(tmp_path))

    assert other.returncode == 1
    assert "the stack runs with the storage badger; stop it with `down`" in other.stderr


@pytest.mark.usefixtures("native_only")
def test_a_storage_that_this_jaeger_does_not_know_is_named_before_anything_starts(tmp_path: Path) -> None:
    """ClickHouse with the Jaeger that is built ends with what it does not know, and with the ways out."""
    state = ("--state", str(tmp_path), "--ports", "auto")
    built = {"TRACEMIND_STACK_JAEGER": str(go_program("jaeger"))}

    done = run_stack("up", "--storage", "clickhouse", *state, env={"TRACEMIND_STACK_JAEGER": "build"})
    named = run_stack("up", "--storage", "clickhouse", *state, env=built)

    assert done.returncode == named.returncode == 1
    assert "rejects collector/jaeger/clickhouse.yaml: 'clickhouse' has invalid keys: tls, ttl" in done.stderr
    assert "put a newer jaeger on the PATH, or use Docker" in done.stderr
    assert f"TRACEMIND_STACK_JAEGER={go_program('jaeger')} rejects collector/jaeger/clickhouse.yaml" in named.stderr
    assert list(tmp_path.glob("*.pid")) == []


@pytest.fixture
def installed(tmp_path: Path, stack: Stack) -> dict[str, str]:
    """An environment without Go and without a cache, whose PATH has the programs and, before them, a broken one."""
    built = {line.split()[0]: line.split(maxsplit=1)[1] for line in stack.run("build").stdout.splitlines()}
    for folder in ("broken", "bin"):
        (tmp_path / folder).mkdir()
    programs = {
        "otelcol-contrib": go_program("otelcol"),
        "jaeger": go_program("jaeger"),
        "prometheus": Path(built["prometheus"]),
    }
    for name, program in programs.items():
        (tmp_path / "bin" / name).symlink_to(program)
    (tmp_path / "broken" / "jaeger").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "broken" / "jaeger").chmod(0o755)
    folders = [tmp_path / "broken", tmp_path / "bin"]
    return {"PATH": os.pathsep.join(map(str, folders)), "TRACEMIND_STACK_CACHE": str(tmp_path / "cache")}


@pytest.mark.usefixtures("native_only")
def test_installed_programs_are_used_before_one_is_built(installed: dict[str, str], tmp_path: Path) -> None:
    """With the programs on the PATH, the stack needs no Go, builds nothing, and says what it runs and from where."""
    state = tmp_path / "state"
    up = run_stack("up", "--ports", "auto", "--state", str(state), env=installed)
    try:
        status = run_stack("status", "--state", str(state), env=installed)
    finally:
        run_stack("down", "--state", str(state), env=installed)

    assert up.returncode == status.returncode == 0, up.stderr
    assert f"{tmp_path}/broken/jaeger does not answer `components`" in up.stderr
    for name, program, version in (
        ("otelcol", "otelcol-contrib", r"0.155.0"),
        ("jaeger", "jaeger", "unknown version"),
        ("prometheus", "prometheus", ""),
    ):
        (line,) = [line for line in status.stdout.splitlines() if line.startswith(f"{name} ")]
        assert version in line
        assert line.endswith(f"on the PATH: {tmp_path}/bin/{program}")
        assert f"{name}: " in up.stderr
    assert [path.name for path in (tmp_path / "cache").glob("*-*") if not path.name.startswith(".")] == []
