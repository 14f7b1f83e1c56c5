"""Nothing is lost between the Collector and the real Jaeger when both are killed."""

from __future__ import annotations

import secrets
import urllib.error
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from collector.stack.ports import free_ports
from collector.stack.processes import wait_until
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e import otlp_requests as otlp
from tests.e2e.backends import get_json
from tests.e2e.collectors import WAIT_S, Collector, Jaeger, collecting, go_program, storing

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
OVERLAYS = ("persistent-queue", "jaeger")


def traces(count: int) -> list[list[Span]]:
    """Traces of a flow and its call."""
    made: list[list[Span]] = []
    for number in range(count):
        flow = otlp.span({"number": number}, name="invoke_workflow answer", seconds=1)
        call = otlp.span({"number": number, "gen_ai.operation.name": "chat"})
        call.trace_id, call.parent_span_id = flow.trace_id, flow.span_id
        made.append([flow, call])
    return made


def send(collector: Collector, sent: list[list[Span]], service: str) -> None:
    """Send ten traces a request; each is accepted."""
    for start in range(0, len(sent), 10):
        spans = [span for trace in sent[start : start + 10] for span in trace]
        assert collector.send("/v1/traces", otlp.traces(spans, {"service.name": service})) == 200


def stored(jaeger: Jaeger, service: str) -> Counter[tuple[str, str]]:
    """How many times Jaeger has each span, by the ids of its trace and its own."""
    try:
        answer = get_json(jaeger.http, "/api/traces", {"service": service, "limit": "5000", "lookback": "1h"})
    except (AssertionError, urllib.error.URLError):
        return Counter()
    found: list[Json] = answer["data"] if answer else []
    return Counter((trace["traceID"], span["spanID"]) for trace in found for span in trace["spans"])


def ids(sent: list[list[Span]]) -> set[tuple[str, str]]:
    return {(span.trace_id.hex(), span.span_id.hex()) for trace in sent for span in trace}


def await_all(jaeger: Jaeger, service: str, sent: list[list[Span]]) -> None:
    """Each span is in Jaeger, once."""
    wait_until(lambda: len(stored(jaeger, service)) >= len(ids(sent)), WAIT_S)
    found = stored(jaeger, service)
    assert (len(ids(sent) - found.keys()), len(found.keys() - ids(sent))) == (0, 0)
    assert set(found.values()) == {1}


def test_a_collector_killed_while_jaeger_is_away_delivers_each_trace_once(tmp_path: Path) -> None:
    """Jaeger is away, the Collector is killed with -9, both are started: Jaeger has each trace, and no span twice."""
    service, sent, ports = f"killed-{secrets.token_hex(4)}", traces(500), free_ports()
    settings = {"TRACEMIND_JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{ports['jaeger_otlp']}"}
    with collecting(go_program("otelcol"), tmp_path, *OVERLAYS, settings=settings) as collector:
        send(collector, sent, service)
        collector.kill()

    with (
        storing(tmp_path, ports=ports) as jaeger,
        collecting(go_program("otelcol"), tmp_path, *OVERLAYS, settings=settings),
    ):
        await_all(jaeger, service, sent)


def test_jaeger_and_then_the_collector_killed_under_load_lose_nothing(tmp_path: Path) -> None:
    """Jaeger with Badger is killed with -9 while traces arrive, and the Collector after it. After a restart of both,
    each accepted trace is there, and no span twice: Badger keeps one span for each id."""
    service, sent, ports = f"killed-{secrets.token_hex(4)}", traces(600), free_ports()
    settings = {"TRACEMIND_JAEGER_OTLP_ENDPOINT": f"127.0.0.1:{ports['jaeger_otlp']}"}
    disk = {"TRACEMIND_JAEGER_BADGER_DIR": str(tmp_path / "badger")}
    with (
        storing(tmp_path, "jaeger/badger.yaml", ports=ports, settings=disk) as jaeger,
        collecting(go_program("otelcol"), tmp_path, *OVERLAYS, settings=settings) as collector,
    ):
        send(collector, sent[:200], service)
        assert wait_until(lambda: len(stored(jaeger, service)) > 0, WAIT_S)
        send(collector, sent[200:300], service)
        jaeger.kill()
        send(collector, sent[300:], service)
        collector.kill()

    with (
        storing(tmp_path, "jaeger/badger.yaml", ports=ports, settings=disk) as jaeger,
        collecting(go_program("otelcol"), tmp_path, *OVERLAYS, settings=settings),
    ):
        await_all(jaeger, service, sent)
