"""What users rely on when the Collector or the process goes away: `configure(spool=...)` and `SpoolSpanProcessor`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider

import tracemind_otel as tm
from tests.programs import REPOSITORY, Finished, clean_environment, run_program
from tests.servers.fixture import closed_port
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink
from tracemind_otel.otel import semconv

pytestmark = pytest.mark.slow

PRELUDE = """
import os, sys, time
from dataclasses import replace
import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

class Priced(FakeLLMClient):
    async def complete(self, req):
        reply = await super().complete(req)
        return replace(reply, usage=replace(reply.usage, cost_usd=0.25))

telemetry = tm.configure(service_name="outage", endpoint=sys.argv[1], spool=sys.argv[2] or None)

@tm.flow
def work(calls):
    for _ in range(calls):
        tm.llm_call_sync("fake/m", "Hello", client=Priced())
"""


def program(body: str, endpoint: str, spool: object = "", **environment: str) -> Finished:
    return run_program(PRELUDE + body, endpoint, spool, environment=environment)


def dead_endpoint() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{closed_port()}"


def named(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def killed(body: str, endpoint: str, spool: Path) -> None:
    """Run a program until it prints a line, and kill it."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + body, endpoint, str(spool)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=clean_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)


# --- A spool on disk ---


def test_what_waits_on_disk_is_sent_by_the_next_process(tmp_path: Path, sink: Sink) -> None:
    """Without a Collector nothing is lost: one line says where it lies, and the next process sends it, once."""
    first = program("work(3)", dead_endpoint(), tmp_path / "spool")
    assert (first.returncode, first.stdout) == (0, "")
    assert re.search(rf"kept: 4 of 4 spans|kept: 4 spans wait in {tmp_path / 'spool'}", first.stderr), first.stderr
    assert "spans did not reach" not in first.stderr

    second = program("work(1)", sink.url, tmp_path / "spool")
    assert (second.returncode, second.stderr) == (0, "")
    spans = sink.spans()
    assert len(spans) == len({span.span_id for span in spans}) == 6
    assert (
        len(
            {
                plain(part.resource.attributes)["service.instance.id"]
                for each in sink.traces()
                for part in each.resource_spans
            }
        )
        == 2
    )

    third = program("work(1)", sink.url, tmp_path / "spool")
    assert (third.returncode, len(sink.spans())) == (0, 8)


def test_a_killed_process_loses_nothing_that_had_ended(tmp_path: Path, sink: Sink) -> None:
    """After `kill -9` the next process sends the calls, ends the flow as interrupted, and exports the cost."""
    body = """
@tm.flow
def long():
    work(3)
    print("now", flush=True)
    time.sleep(60)

long()
"""
    killed(body, dead_endpoint(), tmp_path / "spool")
    before_s = time.time()
    done = program("telemetry.flush(10)", sink.url, tmp_path / "spool")
    assert (done.returncode, done.stderr) == (0, "")

    spans = sink.spans()
    calls, (interrupted,) = named(spans, "chat m"), named(spans, "invoke_workflow long")
    assert [plain(span.attributes)["tracemind.cost_usd"] for span in calls] == [0.25] * 3
    assert plain(interrupted.attributes)[semconv.TRACEMIND_INTERRUPTED] is True
    assert interrupted.status.code == Status.STATUS_CODE_ERROR
    assert interrupted.start_time_unix_nano < interrupted.end_time_unix_nano < before_s * 1e9
    assert {span.parent_span_id for span in spans} - {b""} <= {span.span_id for span in spans}
    (cost,) = sink.metrics()[semconv.METRIC_LLM_COST].sum.data_points
    assert cost.as_double == 0.75


def test_what_ends_after_the_shut_down_waits_for_the_next_process(tmp_path: Path, sink: Sink) -> None:
    """Threads that still work while a process ends, as after SIGTERM, lose nothing."""
    body = """
span = telemetry.tracer_provider.get_tracer("theirs").start_span("late")
work(1)
print(telemetry.shutdown())
span.end()
"""
    first = program(body, sink.url, tmp_path / "spool")
    assert (first.returncode, first.stdout, first.stderr) == (0, "True\n", "")
    assert not named(sink.spans(), "late")
    second = program("work(1)", sink.url, tmp_path / "spool")
    assert (second.returncode, second.stderr) == (0, "")
    assert len(named(sink.spans(), "late")) == 1
    assert len(sink.spans()) == 5


def test_what_ends_with_the_interpreter_waits_for_the_next_process(tmp_path: Path, sink: Sink) -> None:
    """An object that ends a span when the interpreter deletes it does so in time."""
    body = """
class Job:
    def __init__(self):
        self.span = telemetry.tracer_provider.get_tracer("theirs").start_span("job")
    def __del__(self):
        self.span.end()

jobs = [Job(), Job()]
"""
    first = program(body, sink.url, tmp_path / "spool")
    assert (first.returncode, first.stderr) == (0, "")
    second = program("work(1)", sink.url, tmp_path / "spool")
    assert (second.returncode, second.stderr) == (0, "")
    assert len(named(sink.spans(), "job")) == 2


def test_only_the_user_can_read_a_spool(tmp_path: Path) -> None:
    """Directories of a spool are 0700, and its files 0600."""
    program("work(1)", dead_endpoint(), tmp_path / "spool")
    paths = [*(tmp_path / "spool").rglob("*")]
    assert paths
    assert {oct(path.stat().st_mode & 0o777) for path in paths} == {"0o700", "0o600"}


def test_the_variable_names_the_spool(tmp_path: Path) -> None:
    """`TRACEMIND_SPOOL_DIR` does what `spool=` does."""
    done = program("work(1)", dead_endpoint(), TRACEMIND_SPOOL_DIR=str(tmp_path / "here"))
    assert str(tmp_path / "here") in done.stderr
    assert list((tmp_path / "here").rglob("*"))


def test_no_prompt_reaches_the_disk(tmp_path: Path) -> None:
    """A spool holds what spans hold: no prompt and no answer, unless that was asked for."""
    program('tm.llm_call_sync("fake/m", "my-secret-prompt")', dead_endpoint(), tmp_path / "spool")
    files = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    assert files
    assert all(b"my-secret-prompt" not in path.read_bytes() for path in files)


@pytest.mark.parametrize("spool", [3, ""])
def test_a_spool_that_is_no_path_is_rejected(spool: Any) -> None:
    """What is no path of a directory is a ConfigError that names the argument."""
    with pytest.raises(tm.ConfigError, match="spool"):
        tm.configure(spool=spool)


def test_a_forked_child_sends_its_own(tmp_path: Path, sink: Sink) -> None:
    """Parent and child each send what they recorded, once."""
    body = """
work(1)
child = os.fork()
work(2)
if child == 0:
    telemetry.shutdown()
    os._exit(0)
os.waitpid(child, 0)
"""
    done = program(body, sink.url, tmp_path / "spool")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(named(sink.spans(), "chat m")) == len({span.span_id for span in named(sink.spans(), "chat m")}) == 5


# --- A spool in memory ---


def test_an_outage_loses_nothing_while_the_process_lives(sink: Sink) -> None:
    """A Collector that refuses for a while gets everything afterwards, once."""
    sink.status = 503
    body = """
for _ in range(30):
    work(100)
print("now", flush=True)
sys.stdin.readline()
print(telemetry.flush(30), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PRELUDE + body, sink.url, ""],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        refused = len(sink.posts)
        sink.status = 200
        out, errors = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("True\n", 0), errors
    assert "lost" not in errors
    posts, sink.posts = sink.posts, sink.posts[refused:]
    assert posts
    assert len({span.span_id for span in sink.spans()}) == 3030


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_end_waits_two_seconds_for_a_dead_collector(protocol: str) -> None:
    """A process ends about two seconds after its last line, and says in one line what was lost."""
    body = "work(2)\nprint(time.time(), flush=True)"
    done = program(body, dead_endpoint(), OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    assert time.time() - float(done.stdout) < 4.0
    assert len([line for line in done.stderr.splitlines() if "tracemind-otel: lost" in line]) == 1
    assert "3 of 3 spans did not reach" in done.stderr
    assert "metric points did not reach" in done.stderr


# --- On a provider of the user's ---


def test_the_processor_serves_a_provider_of_yours(sink: Sink) -> None:
    """`SpoolSpanProcessor` sends the spans of any tracer provider, and its flush tells the truth."""
    provider = TracerProvider(shutdown_on_exit=False)
    processor = tm.SpoolSpanProcessor(endpoint=sink.url)
    provider.add_span_processor(processor)
    with provider.get_tracer("theirs").start_as_current_span("request"):
        pass
    assert provider.force_flush(10_000)
    sink.status = 401
    with provider.get_tracer("theirs").start_as_current_span("another"):
        pass
    assert not processor.force_flush(10_000)
    provider.shutdown()
    assert [span.name for span in sink.spans()][:1] == ["request"]


def test_a_process_that_only_flushes_adopts_nothing_twice(tmp_path: Path, sink: Sink) -> None:
    """Two processes that start at once share what a third one left."""
    program("work(50)", dead_endpoint(), tmp_path / "spool")
    command = [sys.executable, "-W", "error", "-c", PRELUDE + "telemetry.flush(20)", sink.url, str(tmp_path / "spool")]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, env=clean_environment(), stderr=subprocess.PIPE) for _ in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, b"")
    spans = sink.spans()
    assert len(spans) == len({span.span_id for span in spans}) == 51
    assert not [path for path in (tmp_path / "spool").rglob("*.seg") if os.path.getsize(path)]
