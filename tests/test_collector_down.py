"""While the Collector is down, calls succeed, the process ends soon, and a few lines say what was lost."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.programs import Finished, run_program
from tests.servers.fixture import closed_port
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink

Protocol = Literal["http/protobuf", "grpc"]
CALLS = 25
MOST_LINES = 8

PROGRAM = """
import asyncio, json, sys, time
import tracemind_otel as tm

endpoint, protocol, rounds, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

async def timed(recorder):
    started = time.perf_counter()
    result = await tm.run_llm_call("flow", "step", tm.LLMCallConfig("fake", "m", prompt="ping"), recorder)
    return result["status"], time.perf_counter() - started

async def main(recorder):
    return [each for _ in range(rounds) for each in await asyncio.gather(*(timed(recorder) for _ in range(calls)))]

telemetry = tm.configure(endpoint=endpoint, protocol=protocol)
seen = asyncio.run(main(telemetry.recorder))
print(json.dumps({
    "statuses": sorted({status for status, _ in seen}),
    "calls": len(seen),
    "slowest_s": max(seconds for _, seconds in seen),
    "ended_at": time.time(),
}))
"""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield listener.getsockname()[1]


def assert_harmless(done: Finished, ended_at: float, *, says: str) -> None:
    """All calls went well, the process ended soon, and a few lines on stderr say what did not arrive."""
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["statuses"] == ["ok"]
    assert told["slowest_s"] < 5.0
    assert ended_at - told["ended_at"] < 5.0
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= MOST_LINES, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in lines if line.startswith(f"tracemind-otel: {says}")]
    assert len(said) == 1, done.stderr


def run_against(
    port: int, protocol: Protocol, *, rounds: int = 1, environment: dict[str, str] | None = None
) -> tuple[Finished, float]:
    """Run the program against a port; returns how it ended, and when."""
    endpoint = f"http://127.0.0.1:{port}"
    done = run_program(PROGRAM, endpoint, protocol, rounds, CALLS, environment=environment)
    return done, time.time()


def destination(port: int, protocol: Protocol) -> str:
    """The endpoint that the spans should have reached."""
    return f"http://127.0.0.1:{port}" + ("/v1/traces" if protocol == "http/protobuf" else "")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_nobody_listens(protocol: Protocol) -> None:
    """Without a Collector, calls succeed at full speed, and the process ends soon and says what it lost."""
    port = closed_port()

    done, ended_at = run_against(port, protocol)

    assert_harmless(done, ended_at, says=f"lost: {CALLS} of {CALLS} spans did not reach {destination(port, protocol)}")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_nobody_answers(silent_port: int, protocol: Protocol) -> None:
    """A Collector that accepts and never answers does not delay the end, and nobody claims to know what it has."""
    done, ended_at = run_against(silent_port, protocol)

    unknown = f"unknown: {CALLS} of {CALLS} spans may or may not have arrived at {destination(silent_port, protocol)}"
    assert_harmless(done, ended_at, says=unknown)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_down_while_the_process_works(protocol: Protocol) -> None:
    """Exports that fail repeatedly slow no call down, and do not flood stderr."""
    port = closed_port()

    done, ended_at = run_against(
        port,
        protocol,
        rounds=60,
        environment={"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "100"},
    )

    lost = f"lost: {60 * CALLS} of {60 * CALLS} spans did not reach {destination(port, protocol)}"
    assert_harmless(done, ended_at, says=lost)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_metrics_are_named_too(protocol: Protocol) -> None:
    """The line on stderr names the metrics that were lost, as well as the spans."""
    done, _ = run_against(closed_port(), protocol)

    assert "metric points did not reach" in done.stderr


ONE_FLOW = """
import sys
import tracemind_otel as tm

telemetry = tm.configure(endpoint=sys.argv[1], spool=sys.argv[2])
with tm.flow("nightly"):
    tm.llm_call_sync("fake/toy-1", "Hello")
"""


def test_a_disk_spool_loses_nothing(tmp_path: Path, sink: Sink) -> None:
    """Spans and sums of a process that ends meanwhile are kept, as a line says, and the next process sends them."""
    spool = tmp_path / "spool"
    url = f"http://127.0.0.1:{closed_port()}"
    done = run_program(ONE_FLOW, url, spool)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("tracemind-otel:")]
    assert re.fullmatch(
        rf"tracemind-otel: kept: 2 spans wait in {spool} \({url}/v1/traces: Connection refused\); "
        rf"\d+ metric points wait in {spool} \({url}/v1/metrics: Connection refused\)\. "
        r"The next process with this spool sends them\.",
        line,
    )
    done = run_program(
        "import sys, tracemind_otel as tm\ntm.configure(endpoint=sys.argv[1], spool=sys.argv[2])", url, spool
    )
    assert line in done.stderr, "the process after it has nothing of its own, and keeps what it found"
    done = run_program(ONE_FLOW, sink.url, spool)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(sink.spans()) == 4
    assert len(sink.counters("gen_ai.client.operation.duration")) == 2  # processes
