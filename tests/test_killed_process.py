"""A process that is killed loses nothing, if `configure(spool=...)` named a directory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

import tracemind_otel as tm
from tests.ended import AS_PROCESS_1, IN_A_CONTAINER
from tests.programs import REPOSITORY, clean_environment, run_program
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink

KILLED = """
import os, signal, sys
import tracemind_otel as tm
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient

telemetry = tm.configure(endpoint=sys.argv[1], spool=sys.argv[2])

class Killing(FakeLLMClient):
    async def complete(self, req):
        os.kill(os.getpid(), signal.SIGKILL)

async def call(make=FakeLLMClient):
    client = make(0, usage=LLMUsage(10, 5, 15, 0.25))
    await tm.run_llm_call("f", "s", tm.LLMCallConfig("fake", "toy-1", "hi"), telemetry.recorder, client=client)

@tm.flow(name="killed flow")
async def flow():
    await call()
    await call()
    await call(Killing)

import asyncio
asyncio.run(flow())
"""

NEXT = """
import sys
import tracemind_otel as tm
telemetry = tm.configure(endpoint=sys.argv[1], spool=sys.argv[2])
assert telemetry.shutdown(20)
"""

UNSENT = {"OTEL_METRIC_EXPORT_INTERVAL": "600000", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
"""Nothing is sent before the end."""
DELTA = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, DELTA], ids=["cumulative", "delta"])
def test_the_next_process_sends_spans_and_sums(tmp_path: Path, sink: Sink, environment: Mapping[str, str]) -> None:
    """Every span arrives once, the flow and the call that were open end as interrupted, the counter equals the cost."""
    killed = run_program(KILLED, sink.url, tmp_path, environment={**UNSENT, **environment})
    assert killed.returncode == -9
    assert sink.posts == []
    for _ in range(2):
        done = run_program(NEXT, sink.url, tmp_path, environment=environment)
        assert (done.returncode, done.stderr) == (0, "")
    spans = sink.spans()
    assert len(spans) == len({span.span_id for span in spans}) == 4
    assert len({span.trace_id for span in spans}) == 1
    open_spans = [span for span in spans if "tracemind.interrupted" in plain(span.attributes)]
    assert sorted(span.name for span in open_spans) == ["chat toy-1", "invoke_workflow killed flow"]
    for span in open_spans:
        assert span.status.code == Status.STATUS_CODE_ERROR
        assert span.end_time_unix_nano == max(each.end_time_unix_nano for each in spans) >= span.start_time_unix_nano
    [totals] = sink.counters("tracemind.llm.cost").values()
    assert totals == [0.5]
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.slow
@AS_PROCESS_1
def test_a_container_that_starts_again_sends_what_the_one_before_left(tmp_path: Path, sink: Sink) -> None:
    """Each container's program is process 1: a number that is taken again is not taken for a process that lives."""
    killed, following = (
        subprocess.run(
            [*IN_A_CONTAINER, sys.executable, "-c", source, sink.url, str(tmp_path)],
            env=clean_environment(**UNSENT),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        for source in (KILLED.replace("SIGKILL)", "SIGKILL) or os._exit(9)"), NEXT)
    )
    assert killed.returncode == 9, killed.stderr
    assert (following.returncode, following.stderr) == (0, "")
    assert len(sink.spans()) == 4
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


FORKED = """
import asyncio, os, signal, sys
import tracemind_otel as tm
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient

telemetry = tm.configure(endpoint=sys.argv[1], spool=sys.argv[2])

async def call():
    client = FakeLLMClient(0, usage=LLMUsage(10, 5, 15, 0.25))
    await tm.run_llm_call("f", "s", tm.LLMCallConfig("fake", "toy-1", "hi"), telemetry.recorder, client=client)

asyncio.run(call())
child = os.fork()
asyncio.run(call())
if child:
    os.waitpid(child, 0)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_killed_child_and_its_parent_leave_what_each_of_them_did(tmp_path: Path, sink: Sink) -> None:
    """Neither repeats what the other has; each has its own sums."""
    options = ("-W", "ignore::DeprecationWarning")  # Python 3.12 warns of a fork beside threads
    killed = run_program(FORKED, sink.url, tmp_path, options=options, environment=UNSENT)
    assert killed.returncode == -9
    done = run_program(NEXT, sink.url, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(sink.spans()) == len({span.span_id for span in sink.spans()}) == 3
    assert sorted(sink.counters("tracemind.llm.cost").values()) == [[0.25], [0.5]]
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


SYNCED = """
import os, sys
synced, fsync = [], os.fsync
os.fsync = lambda descriptor: synced.append(descriptor) or fsync(descriptor)
import tracemind_otel as tm
telemetry = tm.configure(endpoint=sys.argv[1], spool=sys.argv[2])
tm.step(name="a step")(lambda: None)()
print(len(synced) > 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("value", "printed"), [("", "False"), ("false", "False"), ("true", "True")])
def test_a_variable_asks_for_the_disk(tmp_path: Path, sink: Sink, value: str, printed: str) -> None:
    """With `TRACEMIND_SPOOL_FSYNC=true` a span is on the disk when it has ended, otherwise in the page cache."""
    done = run_program(SYNCED, sink.url, tmp_path, environment={"TRACEMIND_SPOOL_FSYNC": value})
    assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr


def test_a_variable_with_another_value_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the variable and what it may be."""
    monkeypatch.setenv("TRACEMIND_SPOOL_FSYNC", "sometimes")
    with pytest.raises(tm.ConfigError, match="TRACEMIND_SPOOL_FSYNC is 'sometimes'; it must be true or false"):
        tm.SpoolSpanProcessor(endpoint="http://localhost:1", spool=tmp_path)
