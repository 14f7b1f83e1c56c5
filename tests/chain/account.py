"""What became of each trace: read from Kafka by a Collector of our own, and from Jaeger by trace id."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from collector.gateway.chain import Chain
from collector.gateway.layout import AGENTS, SAMPLERS
from collector.stack.processes import wait_until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.chain.traffic import Trace
from tests.e2e.backends import get_json, spans_of
from tests.e2e.collectors import read
from tests.servers.otlp_sink import Sink, listening

QUIET_S = 20.0
"""So long after the last message nothing more is on its way: more than a decision's wait and the longest back-off."""
LIMIT_S = 240.0

READER = """
receivers:
  kafka:
    brokers: ["{broker}"]
    group_id: account
    initial_offset: earliest
exporters:
  otlp_http:
    endpoint: {sink}
service:
  pipelines:
    traces:
      receivers: [kafka]
      exporters: [otlp_http]
  telemetry:
    metrics:
      level: none
"""


@dataclass
class Topic:
    """Every span of the topic, as often as it is there."""

    sink: Sink
    spans: Counter[tuple[bytes, bytes]] = field(default_factory=Counter[tuple[bytes, bytes]])
    """By trace and span id."""
    last_message: float = 0.0
    _read: int = 0

    def update(self) -> None:
        for request in self.sink.posts[self._read :]:
            self._read += 1
            self.last_message = time.monotonic()
            for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                for scope in resource.scope_spans:
                    self.spans.update((span.trace_id, span.span_id) for span in scope.spans)

    def has(self, trace: Trace) -> frozenset[bytes]:
        return frozenset(span for span in trace.span_ids if self.spans[trace.trace_id, span])


@contextmanager
def reading(chain: Chain, otelcol: Path, folder: Path) -> Generator[Topic]:
    """A Collector with a consumer group of its own reads the topic from its start."""
    with listening() as sink:
        config = folder / "reader.yaml"
        config.write_text(READER.format(broker=chain.layout.address("kafka", "broker"), sink=sink.url))
        log = (folder / "reader.log").open("wb")
        with log, subprocess.Popen([str(otelcol), f"--config={config}"], stdout=log, stderr=log) as process:
            try:
                yield Topic(sink, last_message=time.monotonic())
            finally:
                process.terminate()


@dataclass(frozen=True, repr=False)
class Account:
    """What became of the traces of one phase."""

    kept: Sequence[Trace]
    """Whole in Jaeger, as the policies ask."""
    dropped: Sequence[Trace]
    """Nowhere, as the policies ask."""
    partial: Sequence[Trace]
    """In Jaeger, but not all of its spans."""
    lost: Sequence[Trace]
    """The policies keep it, and no span of it is in Jaeger."""
    wrongly_kept: Sequence[Trace]
    """The policies drop it, and it is in Jaeger."""
    lost_after_kafka: int
    """Spans that are in Kafka and not in Jaeger."""
    duplicates: int
    """Spans that are in Kafka again; Cassandra writes them over themselves."""
    twice_in_jaeger: int
    """Spans that Jaeger gives twice."""

    def __repr__(self) -> str:
        total = sum(map(len, (self.kept, self.dropped, self.partial, self.lost, self.wrongly_kept)))
        return (
            f"{total} traces: {len(self.kept)} kept, {len(self.dropped)} dropped by policy, "
            f"{len(self.partial)} partial, {len(self.lost)} lost, {len(self.wrongly_kept)} kept against the policies; "
            f"{self.lost_after_kafka} spans lost after Kafka, {self.duplicates} spans twice in Kafka, "
            f"{self.twice_in_jaeger} twice in Jaeger"
        )


def settle(chain: Chain, topic: Topic, traces: Sequence[Trace]) -> None:
    """Wait until all that is to be kept is in Kafka, or nothing more can come."""
    expected = [trace for trace in traces if trace.is_kept]
    started = time.monotonic()

    def settled() -> bool:
        topic.update()
        if all(topic.has(trace) == trace.span_ids for trace in expected):
            return True
        quiet = time.monotonic() - max(topic.last_message, started)
        return quiet > QUIET_S and waiting(chain) == 0

    assert wait_until(settled, LIMIT_S), f"spans still arrive after {LIMIT_S:.0f} s; waiting: {waiting(chain)}"


def waiting(chain: Chain) -> float:
    """Requests and bytes in the queues of agents and samplers."""
    return sum(metric(chain, name, "otelcol_exporter_queue_size") for name in (*AGENTS, *SAMPLERS))


def metric(chain: Chain, program: str, name: str, labels: str = "") -> float:
    """The sum of a metric of a Collector over all label sets that contain `labels`."""
    page = read(chain.layout.url(program, "collector_telemetry") + "/metrics")
    lines = re.findall(rf"^{name}(?:_total|__\w+)?(\{{.*\}})? (\S+)$", page, re.MULTILINE)
    return sum(float(value) for found, value in lines if labels in found)


def account(chain: Chain, topic: Topic, traces: Sequence[Trace]) -> Account:
    """Wait until the chain has come to rest, and compare what is in Jaeger with what was sent."""
    settle(chain, topic, traces)
    in_kafka = {trace.trace_id: topic.has(trace) for trace in traces}
    in_jaeger = {trace.trace_id: Counter[bytes]() for trace in traces}

    def all_arrived() -> bool:
        behind = [trace for trace in traces if not in_kafka[trace.trace_id] <= in_jaeger[trace.trace_id].keys()]
        in_jaeger.update({trace.trace_id: spans_in_jaeger(chain, trace) for trace in behind})
        return all(in_kafka[trace.trace_id] <= in_jaeger[trace.trace_id].keys() for trace in behind)

    wait_until(all_arrived, LIMIT_S)
    for trace in traces:
        in_jaeger[trace.trace_id] = spans_in_jaeger(chain, trace)
    return classified(topic, traces, in_kafka, in_jaeger)


def spans_in_jaeger(chain: Chain, trace: Trace) -> Counter[bytes]:
    answer = get_json(chain.layout.url("query", "jaeger_http"), f"/api/v3/traces/{trace.trace_id.hex()}")
    return Counter(bytes.fromhex(span["span_id"]) for span in spans_of(answer))


def classified(
    topic: Topic,
    traces: Sequence[Trace],
    in_kafka: Mapping[bytes, frozenset[bytes]],
    in_jaeger: Mapping[bytes, Counter[bytes]],
) -> Account:
    kept, dropped, partial, lost, wrongly = (list[Trace]() for _ in range(5))
    for trace in traces:
        there = in_jaeger[trace.trace_id].keys()
        if not trace.is_kept:
            (wrongly if there else dropped).append(trace)
        elif there == trace.span_ids:
            kept.append(trace)
        else:
            (partial if there else lost).append(trace)
    sent = {(trace.trace_id, span) for trace in traces for span in trace.span_ids}
    return Account(
        kept,
        dropped,
        partial,
        lost,
        wrongly,
        sum(len(in_kafka[trace.trace_id] - in_jaeger[trace.trace_id].keys()) for trace in traces),
        sum(count - 1 for span, count in topic.spans.items() if span in sent),
        sum(count - 1 for counts in in_jaeger.values() for count in counts.values()),
    )
