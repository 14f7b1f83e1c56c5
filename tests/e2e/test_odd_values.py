"""Overlays meet values and requests that no SDK should send, and lose nothing else over them."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from collector.stack.processes import wait_until
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from tests.e2e import otlp_requests as otlp
from tests.e2e.collectors import WAIT_S, await_spans, collecting, export_by_grpc, go_program, post, to_sink
from tests.servers.otlp_sink import Sink, listening, plain
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.e2e

STEPS = ("normalize", "redaction", "truncation", "derived-metrics", "tail-sampling", "otlp")
KEEP_ALL = {"TRACEMIND_COLLECTOR_DECISION_WAIT": "1s", "TRACEMIND_COLLECTOR_SAMPLE_PERCENT": "100"}
CALL: dict[str, otlp.Value] = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
MIB = 2**20
NO_AMOUNTS: list[otlp.Value] = [math.nan, math.inf, -1.0, -5, True, "free", ["1"], 2**62]


@pytest.fixture(scope="module")
def program() -> Path:
    return go_program("otelcol")


def last_values(sink: Sink) -> dict[str, float]:
    """The last value of each derived counter, of all series."""
    series: dict[tuple[str, bytes], float] = {}
    for request in sink.metric_requests():
        for metric in (m for part in request.resource_metrics for scope in part.scope_metrics for m in scope.metrics):
            for point in metric.sum.data_points:
                labels = b"".join(sorted(item.SerializeToString() for item in point.attributes))
                series[metric.name, labels] = point.as_double or point.as_int
    return {
        name: sum(value for (other, _), value in series.items() if other == f"tracemind.derived.llm.{name}")
        for name in ("calls", "cost", "input_tokens", "output_tokens")
    }


def test_what_is_no_amount_is_in_no_sum(program: Path, tmp_path: Path, sink: Sink) -> None:
    """A cost or a number of tokens that is NaN, infinite, negative, a boolean, a word or a list is left out of the
    derived metrics; the call counts, and so does a cost under another name. A number in a string counts."""
    spans = [otlp.span({**CALL, "tracemind.cost_usd": 0.5, "gen_ai.usage.input_tokens": 3})]
    spans += [otlp.span({**CALL, "tracemind.cost_usd": odd, "gen_ai.usage.cost": 0.25}) for odd in NO_AMOUNTS]
    spans += [otlp.span({**CALL, "gen_ai.usage.input_tokens": odd}) for odd in NO_AMOUNTS]
    spans += [otlp.span({**CALL, "gen_ai.usage.output_tokens": odd}) for odd in NO_AMOUNTS]
    spans += [otlp.span({**CALL, "tracemind.cost_usd": "0.125", "gen_ai.usage.output_tokens": "7"})]
    sums = {
        "calls": 2 + 3 * len(NO_AMOUNTS),
        "cost": 0.5 + 0.25 * len(NO_AMOUNTS) + 0.125,
        "input_tokens": 3,
        "output_tokens": 7,
    }
    with collecting(program, tmp_path, *STEPS, settings=to_sink(sink, **KEEP_ALL)) as collector:
        assert collector.send("/v1/traces", otlp.traces(spans)) == 200
        await_spans(sink, len(spans))
        wait_until(lambda: last_values(sink) == sums, WAIT_S)
        assert last_values(sink) == sums
        assert "\terror\t" not in collector.log.read_text()


def test_odd_requests_are_answered_and_nothing_else_is_lost(program: Path, tmp_path: Path, sink: Sink) -> None:
    """A request that is no OTLP, too large, or unpacks to 40 MB is rejected in little memory. One that is empty,
    without a resource or without ids is accepted. What is sent after them arrives."""
    large = otlp.traces([otlp.span({"note": "x" * 40_000_000})])
    bomb = gzip.compress(large.SerializeToString(), compresslevel=1)
    bare = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[otlp.span(CALL), Span()])]), ResourceSpans()]
    )
    no_resource = otlp.metrics(1.5, 1)
    no_resource.resource_metrics[0].ClearField("resource")
    with collecting(program, tmp_path, *STEPS, settings=to_sink(sink, **KEEP_ALL)) as collector:
        address = f"{collector.otlp_http}/v1/traces"
        assert post(address, b"\xff no OTLP") == 400
        assert post(address, b"no gzip", {"content-encoding": "gzip"}) == 400
        assert post(address, bomb, {"content-encoding": "gzip"}) == 400
        assert post(address, bytes(16 * MIB + 1)) == 400
        assert export_by_grpc(collector, large) == "RESOURCE_EXHAUSTED"
        assert export_by_grpc(collector, large, gzip=True) == "RESOURCE_EXHAUSTED"
        for empty in (ExportTraceServiceRequest(), bare):
            assert collector.send("/v1/traces", empty) == 200
        for metrics in (ExportMetricsServiceRequest(), no_resource):
            assert collector.send("/v1/metrics", metrics) == 200
        assert collector.send("/v1/traces", otlp.traces([otlp.span({"last": True})])) == 200
        assert wait_until(lambda: any("last" in plain(span.attributes) for span in sink.spans()), WAIT_S)
        assert peak_memory(collector.process.pid) < 300 * MIB


def peak_memory(pid: int) -> int:
    """The largest resident memory of a process so far; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def value_of(text: str) -> Mapping[str, AnyValue]:
    """What a string is in each type that can be large."""
    return {
        "string": AnyValue(string_value=text),
        "bytes": AnyValue(bytes_value=text.encode()),
        "list": AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=text[:1000])] * (len(text) // 1000))),
        "map": AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="a", value=AnyValue(string_value=text))])),
    }


def large_spans(text: str) -> list[Span]:
    """A span for each place that can be too large."""
    spans = [otlp.span(CALL, name=text), otlp.span(CALL, error=text), otlp.span(CALL, events={text: {}})]
    for value in value_of(text).values():
        item = KeyValue(key="note", value=value)
        span, with_event = otlp.span(CALL), otlp.span(CALL, events={"asked": {}})
        span.attributes.append(item)
        with_event.events[0].attributes.append(item)
        spans += [span, with_event]
    return [*spans, otlp.span({**CALL, **{f"note.{number}": text[:1000] for number in range(len(text) // 1000)}})]


def await_logs(sink: Sink, count: int) -> None:
    assert wait_until(lambda: len(sink.events()) == count, WAIT_S), f"{len(sink.events())} of {count} logs came"


def test_one_value_that_is_too_large_takes_nothing_with_it(program: Path, tmp_path: Path) -> None:
    """At APMs with small requests a span or log with 5 MB anywhere is cut, and arrives with the rest of its batch."""
    text = "é" * 2_500_000
    spans = large_spans(text)
    logs = [otlp.logs("asked", CALL), otlp.logs(text, CALL), *(otlp.logs("asked", CALL) for _ in value_of(text))]
    for request, value in zip(logs[2:], value_of(text).values(), strict=True):
        request.resource_logs[0].scope_logs[0].log_records[0].body.CopyFrom(value)
    limits = {"newrelic": 943_718, "datadog": 4_194_304}
    with listening() as newrelic, listening() as datadog:
        settings = {"NEW_RELIC_OTLP_ENDPOINT": newrelic.url, "DD_OTLP_ENDPOINT": datadog.url}
        with collecting(program, tmp_path, *limits, settings=settings) as collector:
            for span in spans:
                assert collector.send("/v1/traces", otlp.traces([otlp.span({**CALL, "small": True}), span])) == 200
            in_large_resource = otlp.traces([otlp.span(CALL)], {"note": text})
            in_large_resource.MergeFrom(otlp.traces([otlp.span({**CALL, "small": True})]))
            assert collector.send("/v1/traces", in_large_resource) == 200
            for request in logs:
                assert collector.send("/v1/logs", request) == 200
            for sink in (newrelic, datadog):
                await_spans(sink, 2 * (len(spans) + 1))
                await_logs(sink, len(logs))

    for sink, limit in ((newrelic, limits["newrelic"]), (datadog, limits["datadog"])):
        assert max(len(post.body) for post in sink.posts) <= limit
        found = [plain(span.attributes) for span in sink.spans()]
        assert sum("small" in values for values in found) == len(spans) + 1
        assert [values for values in found if not CALL.items() <= values.items()] == []


def test_a_second_collector_changes_nothing(program: Path, tmp_path: Path, sink: Sink) -> None:
    """Two Collectors in a row, each with all the steps, give what one gives: names, masks and cuts are made once."""
    values: dict[str, otlp.Value] = {
        "gen_ai.system": "az.ai.openai",
        "gen_ai.usage.prompt_tokens": 10,
        "llm.request.type": "chat",
        "note": "key sk-proj-abcdefghijklmnop1234",
        "long": "é" * 50_000,
        "gen_ai.input.messages": "the prompt",
    }
    steps = ("normalize", "redaction", "truncation", "otlp")
    (tmp_path / "second").mkdir()
    (tmp_path / "first").mkdir()
    with collecting(program, tmp_path / "second", *steps, settings=to_sink(sink)) as second:
        onward = {"TRACEMIND_APM_ENDPOINT": second.otlp_http}
        with collecting(program, tmp_path / "first", *steps, settings=onward) as first:
            for collector in (second, first):
                sent = otlp.traces([otlp.span(values, name=f"chat {values['note']}", events={"asked": values})])
                assert collector.send("/v1/traces", sent) == 200
                await_spans(sink, 1 if collector is second else 2)

    once, twice = sink.spans()
    assert plain(twice.attributes) == plain(once.attributes)
    assert plain(twice.events[0].attributes) == plain(once.events[0].attributes)
    assert (twice.name, twice.events[0].name) == (once.name, once.events[0].name) == ("chat key ****", "asked")
    assert plain(once.attributes)["gen_ai.usage.input_tokens"] == 10
