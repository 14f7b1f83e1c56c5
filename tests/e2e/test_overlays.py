"""base.yaml and its overlays on the real Collector, with a recording OTLP receiver as the destination."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from collector.stack.processes import wait_until
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e import otlp_requests as otlp
from tests.e2e.backends import wait_for_metric
from tests.e2e.collectors import (
    OVERLAYS,
    WAIT_S,
    Collector,
    await_spans,
    collecting,
    export_by_grpc,
    go_program,
    post,
    read,
    storing,
    to_sink,
    validate,
)
from tests.e2e.prometheus_server import serving
from tests.programs import REPOSITORY, clean_environment
from tests.required import prometheus_program
from tests.servers.otlp_sink import Sink, listening, plain
from tests.servers.otlp_sink import sink as sink
from tests.wire.certificates import server_context

pytestmark = pytest.mark.e2e

NAMES = sorted(path.stem for path in OVERLAYS.glob("*.yaml"))


@pytest.fixture(scope="module")
def program() -> Path:
    return go_program("otelcol")


# --- validation


def test_every_combination_of_three_overlays_is_valid(program: Path, tmp_path: Path) -> None:
    """The Collector accepts base.yaml alone, with each overlay, with all, and with sets in which any three overlays are
    present or absent in each way, in any order. No two overlays set the same key, so that larger sets add nothing."""
    chosen = random.Random(16)
    sets: list[list[str]] = [[], list(NAMES), list(reversed(NAMES)), *([name] for name in NAMES)]
    seen: set[tuple[int, ...]] = set()
    triples = list(itertools.combinations(range(len(NAMES)), 3))
    while len(seen) < 8 * len(triples):
        present = [chosen.random() < 0.5 for _ in NAMES]
        seen |= {(*each, *(present[index] for index in each)) for each in triples}
        names = [name for name, is_in in zip(NAMES, present, strict=True) if is_in]
        sets.append(chosen.sample(names, len(names)))

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(partial(validate, program, state=tmp_path), sets))

    assert [(names, done.stderr) for names, done in zip(sets, results, strict=True) if done.returncode != 0] == []
    assert not [done.stderr for done in results if "deprecated" in done.stderr]


# --- destinations


@dataclass(frozen=True)
class Destination:
    """What an APM expects of the requests that reach it."""

    setting: str
    base: str
    headers: Mapping[str, str]
    secrets: Mapping[str, str]
    is_delta: bool = False
    paths: tuple[str, ...] = ("/v1/traces", "/v1/metrics", "/v1/logs")
    metric_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers of requests with metrics only."""


DESTINATIONS = {
    "otlp": Destination(
        "TRACEMIND_APM_ENDPOINT", "", {"authorization": "Bearer s1"}, {"TRACEMIND_APM_AUTHORIZATION": "Bearer s1"}
    ),
    "datadog": Destination(
        "DD_OTLP_ENDPOINT", "", {"dd-api-key": "s2", "dd-otlp-source": "llmobs"}, {"DD_API_KEY": "s2"}, is_delta=True
    ),
    "newrelic": Destination(
        "NEW_RELIC_OTLP_ENDPOINT", "", {"api-key": "s3"}, {"NEW_RELIC_LICENSE_KEY": "s3"}, is_delta=True
    ),
    "grafana-cloud": Destination(
        "GRAFANA_OTLP_ENDPOINT",
        "/otlp",
        {"authorization": "Basic czQ6czQ="},
        {"GRAFANA_OTLP_BASIC": "czQ6czQ="},
        paths=("/otlp/v1/traces", "/otlp/v1/metrics", "/otlp/v1/logs"),
    ),
    "dynatrace": Destination(
        "DT_ENDPOINT",
        "",
        {"authorization": "Api-Token s5"},
        {"DT_API_TOKEN": "s5"},
        is_delta=True,
        paths=("/api/v2/otlp/v1/traces", "/api/v2/otlp/v1/metrics", "/api/v2/otlp/v1/logs"),
    ),
    "elastic": Destination(
        "ELASTIC_OTLP_ENDPOINT", "", {"authorization": "ApiKey s6"}, {"ELASTIC_API_KEY": "s6"}, is_delta=True
    ),
    "honeycomb": Destination(
        "HONEYCOMB_ENDPOINT",
        "",
        {"x-honeycomb-team": "s7"},
        {"HONEYCOMB_API_KEY": "s7"},
        metric_headers={"x-honeycomb-dataset": "tracemind-metrics"},
    ),
    "signoz": Destination("SIGNOZ_ENDPOINT", "", {"signoz-ingestion-key": "s8"}, {"SIGNOZ_INGESTION_KEY": "s8"}),
    "splunk": Destination(
        "SPLUNK_INGEST_URL",
        "",
        {"x-sf-token": "s9"},
        {"SPLUNK_ACCESS_TOKEN": "s9"},
        paths=("/v2/trace/otlp", "/v2/datapoint/otlp"),
    ),
    "prometheus-otlp": Destination(
        "PROMETHEUS_URL",
        "",
        {"authorization": "Bearer s10"},
        {"PROMETHEUS_AUTHORIZATION": "Bearer s10"},
        paths=("/api/v1/otlp/v1/metrics",),
    ),
}
"""By the documentation of each service, read in November 2026."""


DELTA, CUMULATIVE = 1, 2
FORM = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
SENT_METRICS = ("tracemind.llm.cost", "gen_ai.client.operation.duration")


def metric_points(sink: Sink) -> list[tuple[str, int, float]]:
    """Name, temporality and value of each point of a sum or a histogram."""
    found: list[tuple[str, int, float]] = []
    for request in sink.posts:
        if not request.path.endswith(("metrics", "datapoint/otlp")):
            continue
        for part in ExportMetricsServiceRequest.FromString(request.body).resource_metrics:
            for metric in (metric for scope in part.scope_metrics for metric in scope.metrics):
                if metric.WhichOneof("data") == "sum":
                    values = [point.as_double or point.as_int for point in metric.sum.data_points]
                    found += [(metric.name, metric.sum.aggregation_temporality, value) for value in values]
                else:
                    values = [point.count for point in metric.histogram.data_points]
                    found += [(metric.name, metric.histogram.aggregation_temporality, value) for value in values]
    return found


def test_each_apm_gets_its_path_headers_and_temporality(program: Path, tmp_path: Path) -> None:
    """All destinations at once: each gets every signal that it takes, compressed, at its own path, with its own secret
    and no other's, and metrics of the temporality that it stores, whose sum is the application's."""
    assert mistakes_at_destinations(program, tmp_path, OVERLAYS) == {}


WRONG = {
    "newrelic": ("processors: [cumulativetodelta/newrelic]", "processors: []"),
    "datadog": ("dd-api-key:", "dd-app-key:"),
    "elastic": ('"ApiKey ${env:ELASTIC_API_KEY}"', '"ApiKey ${env:DT_API_TOKEN}"'),
    "dynatrace": ("/api/v2/otlp", ""),
    "honeycomb": ("x-honeycomb-dataset:", "x-dataset:"),
    "grafana-cloud": ("sending_queue:", "compression: none\n    sending_queue:"),
    "signoz": ("    metrics/signoz:\n", "    metrics/signoz:\n      processors: [cumulativetodelta/dynatrace]\n"),
    "splunk": ("traces_endpoint:", "endpoint: http://127.0.0.1:1\n    logs_endpoint:"),
}
"""A mistake in each file of an APM: what stands there, and what would be wrong in its place."""


def test_a_mistake_in_any_file_of_an_apm_is_found(program: Path, tmp_path: Path) -> None:
    """A wrong temporality, header, path, secret or compression is found at each APM."""
    changed = tmp_path / "overlays"
    shutil.copytree(OVERLAYS, changed)
    for name, (right, wrong) in WRONG.items():
        path = changed / f"{name}.yaml"
        assert right in path.read_text(), name
        path.write_text(path.read_text().replace(right, wrong))

    assert mistakes_at_destinations(program, tmp_path, changed).keys() == WRONG.keys()


def mistakes_at_destinations(program: Path, state: Path, folder: Path) -> dict[str, str]:
    """What is wrong in the requests that each destination gets by the overlays of a folder, by its name."""
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(listening()) for name in DESTINATIONS}
        settings: dict[str, str] = {}
        for name, destination in DESTINATIONS.items():
            settings |= {destination.setting: sinks[name].url + destination.base, **destination.secrets}
        overlays = [str(folder / name) for name in DESTINATIONS]
        with collecting(program, state, *overlays, settings=settings) as collector:
            began = time.time_ns()
            assert collector.send("/v1/traces", otlp.traces([otlp.span(otlp.KEPT)])) == 200
            assert collector.send("/v1/logs", otlp.logs("gen_ai.test", otlp.KEPT)) == 200
            for cost, calls in ((1.5, 1), (4.0, 3)):
                assert collector.send("/v1/metrics", otlp.metrics(cost, calls, began=began)) == 200
    found = {name: mistake_at(destination, sinks[name]) for name, destination in DESTINATIONS.items()}
    return {name: mistake for name, mistake in found.items() if mistake}


def mistake_at(destination: Destination, sink: Sink) -> str:
    """The first mistake in what one destination got; empty if there is none."""
    if sink.paths != set(destination.paths):
        return f"paths {sink.paths}"
    for request in sink.posts:
        has_metrics = request.path.endswith("/v1/metrics")
        wanted = {**FORM, **destination.headers, **(destination.metric_headers if has_metrics else {})}
        if {name: request.headers.get(name) for name in wanted} != wanted:
            return f"headers {request.headers}"
        if not has_metrics and destination.metric_headers.keys() & request.headers.keys():
            return f"headers of metrics at {request.path}"
    points = metric_points(sink)
    kind = DELTA if destination.is_delta else CUMULATIVE
    if {(metric, found) for metric, found, _ in points} != {(metric, kind) for metric in SENT_METRICS}:
        return f"temporality {points}"
    costs = [value for metric, _, value in points if metric == "tracemind.llm.cost"]
    total = sum(costs) if destination.is_delta else max(costs)
    return "" if math.isclose(total, 4.0) else f"cost {total}"


def test_deltas_become_sums_at_prometheus(program: Path, tmp_path: Path, sink: Sink) -> None:
    """Deltas of an application reach Prometheus as one growing sum: by scrape, and as OTLP."""
    settings = {"GRAFANA_OTLP_ENDPOINT": f"{sink.url}/otlp", "GRAFANA_OTLP_BASIC": "b"}
    with collecting(program, tmp_path, "grafana-cloud", "prometheus-scrape", settings=settings) as collector:
        since = time.time_ns()
        for cost in (1.0, 2.0, 3.0):
            request = otlp.metrics(cost, 1, temporality=otlp.DELTA, began=since)
            assert collector.send("/v1/metrics", request) == 200
            since = time.time_ns()
        assert wait_until(lambda: "} 6" in read(collector.metrics), WAIT_S), read(collector.metrics)
        assert wait_until(lambda: ("tracemind.llm.cost", CUMULATIVE, 6.0) in metric_points(sink), WAIT_S)

    assert {kind for _, kind, _ in metric_points(sink)} == {CUMULATIVE}


def test_metrics_are_written_to_and_scraped_by_prometheus(program: Path, tmp_path: Path) -> None:
    """Remote write reaches the address as it is, with its header; the page to scrape shows the sum."""
    with listening() as prometheus:
        settings = {
            "PROMETHEUS_REMOTE_WRITE_URL": f"{prometheus.url}/api/v1/write",
            "PROMETHEUS_AUTHORIZATION": "Bearer p",
        }
        overlays = ("prometheus-remote-write", "prometheus-scrape")
        with collecting(program, tmp_path, *overlays, settings=settings) as collector:
            assert collector.send("/v1/metrics", otlp.metrics(4.0, 3, {"team": "search"})) == 200
            assert wait_until(lambda: prometheus.posts != [], WAIT_S)
            page = read(collector.metrics)

    (post,) = prometheus.posts
    assert (post.path, post.headers["authorization"]) == ("/api/v1/write", "Bearer p")
    assert post.headers["content-encoding"] == "snappy"
    assert re.search(r'^tracemind_llm_cost_USD_total\{.*job="test".*team="search".*\} 4(\.0)?$', page, re.MULTILINE), (
        page
    )


def remote_write_prometheus(state: Path) -> AbstractContextManager[str]:
    """A Prometheus that takes remote writes."""
    config = state / "prometheus.yml"
    config.write_text("global: {}\n")
    return serving(prometheus_program(), config, "--web.enable-remote-write-receiver")


def test_a_real_prometheus_takes_what_is_written(program: Path, tmp_path: Path) -> None:
    """Prometheus stores the cost that remote write brings, with the service as its job."""
    with remote_write_prometheus(tmp_path) as address:
        settings = {"PROMETHEUS_REMOTE_WRITE_URL": f"{address}/api/v1/write"}
        with collecting(program, tmp_path, "prometheus-remote-write", settings=settings) as collector:
            assert collector.send("/v1/metrics", otlp.metrics(4.0, 3, {"team": "search"})) == 200
        (sample,) = wait_for_metric(address, "tracemind_llm_cost_USD_total")

    assert (sample["value"], sample["labels"]["job"], sample["labels"]["team"]) == (4.0, "test", "search")


# --- the queue on disk


def test_a_killed_collector_loses_nothing_while_its_destination_is_away(program: Path, tmp_path: Path) -> None:
    """What the Collector accepted while the destination was away arrives after a kill -9 and a restart."""
    overlays = ("persistent-queue", "otlp")
    with listening() as placeholder:
        port = int(placeholder.url.rpartition(":")[2])
    settings = {"TRACEMIND_APM_ENDPOINT": f"http://127.0.0.1:{port}"}
    spans = [otlp.span({**otlp.KEPT, "number": number}) for number in range(1000)]
    with collecting(program, tmp_path, *overlays, settings=settings) as collector:
        for start in range(0, 1000, 10):
            assert collector.send("/v1/traces", otlp.traces(spans[start : start + 10])) == 200
        assert collector.send("/v1/logs", otlp.logs("gen_ai.test", otlp.KEPT)) == 200
        assert collector.send("/v1/metrics", otlp.metrics(4.0, 3)) == 200
        collector.kill()

    with listening(port=port) as sink, collecting(program, tmp_path, *overlays, settings=settings):
        await_spans(sink, 1000)
        assert wait_until(lambda: {"/v1/logs", "/v1/metrics"} <= sink.paths, WAIT_S)
    assert sorted({plain(span.attributes)["number"] for span in sink.spans()}) == list(range(1000))


def test_a_full_queue_is_told_to_the_sender(program: Path, tmp_path: Path) -> None:
    """A Collector whose queue is full answers 503, so that the sender keeps what it has."""
    large: dict[str, otlp.Value] = {**otlp.KEPT, "note": "x" * 300_000}
    settings = {"TRACEMIND_COLLECTOR_QUEUE_SIZE": "5"}
    with collecting(program, tmp_path, "persistent-queue", "otlp", settings=settings) as collector:
        answered = Counter(collector.send("/v1/traces", otlp.traces([otlp.span(large)])) for _ in range(20))
        collector.kill()

    assert answered.keys() == {200, 503}


# --- tail sampling


def test_tail_sampling_keeps_every_error_retry_slow_and_expensive_trace_of_2000(
    program: Path, tmp_path: Path, sink: Sink
) -> None:
    """Of 2,000 traces every one with an error, a retry, a slow call or an expensive call or flow is kept whole, and
    about one in ten of the others; spans that come in later batches follow the decision about their trace."""
    kinds = {
        "error": 60,
        "named error": 60,
        "retried event": 60,
        "retried count": 60,
        "slow": 60,
        "expensive": 60,
        "expensive flow": 60,
        "provider cost": 60,
    }
    labels = [kind for kind, count in kinds.items() for _ in range(count)]
    labels += ["plain"] * (2000 - len(labels))
    calls, flows = zip(*(two_spans(kind, number) for number, kind in enumerate(labels)), strict=True)
    settings = to_sink(sink, TRACEMIND_COLLECTOR_DECISION_WAIT="2s", TRACEMIND_COLLECTOR_SLOW_MS="10000")
    with collecting(program, tmp_path, "tail-sampling", "otlp", settings=settings) as collector:
        for spans in (calls, flows):
            for start in range(0, 2000, 250):
                assert collector.send("/v1/traces", otlp.traces(spans[start : start + 250])) == 200
        await_spans(sink, 2 * sum(kinds.values()))

    found: dict[bytes, list[Span]] = {}
    for span in sink.spans():
        found.setdefault(span.trace_id, []).append(span)
    kept = Counter(str(plain(spans[0].attributes)["kind"]) for spans in found.values())
    assert {kind: kept[kind] for kind in kinds} == kinds
    assert all(len(spans) == 2 for spans in found.values())
    assert 0.05 < kept["plain"] / (2000 - sum(kinds.values())) < 0.15


def test_more_traces_than_the_sampler_holds_make_senders_wait(program: Path, tmp_path: Path, sink: Sink) -> None:
    """A burst beyond the number of traces that the sampler holds loses no trace with an error."""
    settings = to_sink(sink, TRACEMIND_COLLECTOR_DECISION_WAIT="1s", TRACEMIND_COLLECTOR_SAMPLED_TRACES="100")
    with collecting(program, tmp_path, "tail-sampling", "otlp", settings=settings) as collector:
        for _ in range(2):
            failed = [otlp.span(otlp.KEPT, error="refused") for _ in range(100)]
            assert collector.send("/v1/traces", otlp.traces(failed)) == 200
        await_spans(sink, 200)


def two_spans(kind: str, number: int) -> tuple[Span, Span]:
    """A model call of this kind, and the flow around it."""
    values: dict[str, otlp.Value] = {**otlp.KEPT, "kind": kind, "number": number, "gen_ai.usage.cost": 0.001}
    flow_values: dict[str, otlp.Value] = {"gen_ai.operation.name": "invoke_workflow", "kind": kind}
    match kind:
        case "named error":
            values["error.type"] = "429"
        case "retried count":
            values["tracemind.retry.count"] = 1
        case "expensive":
            values["tracemind.cost_usd"] = 0.05
        case "provider cost":
            values["gen_ai.usage.cost"] = 0.06
        case "expensive flow":
            flow_values["tracemind.flow.cost_usd"] = 2
        case _:
            pass
    call = otlp.span(
        values,
        events={"tracemind.retry": {"tracemind.retry.attempt": 1}} if kind == "retried event" else None,
        error="refused" if kind == "error" else None,
        seconds=11 if kind == "slow" else 0.2,
    )
    flow = otlp.span(flow_values, name="invoke_workflow answer", seconds=0.3)
    flow.trace_id, call.parent_span_id = call.trace_id, flow.span_id
    return call, flow


# --- token and TLS


def test_the_receiver_refuses_a_wrong_token_and_accepts_the_right_one(
    program: Path, tmp_path: Path, sink: Sink
) -> None:
    """Over HTTP and gRPC, data without the token or with another one is rejected, and with the right one arrives."""
    settings = to_sink(sink, TRACEMIND_COLLECTOR_TOKEN="right")
    request = otlp.traces([otlp.span(otlp.KEPT)])
    with collecting(program, tmp_path, "receiver-token", "otlp", settings=settings) as collector:
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}):
            assert collector.send("/v1/traces", request, header) == 401
        assert collector.send("/v1/traces", request, {"authorization": "Bearer right"}) == 200
        assert export_by_grpc(collector, request, "wrong") == "UNAUTHENTICATED"
        assert export_by_grpc(collector, request, "right") == "OK"
        await_spans(sink, 2)
    assert len(sink.spans()) == 2


def test_the_receiver_takes_tls_only_and_asks_for_certificates_where_told(
    program: Path, tmp_path: Path, sink: Sink
) -> None:
    """Data over TLS arrives, by HTTP and gRPC, and without TLS it is refused; with an authority, so is a client without
    its certificate."""
    _, trusted = server_context(tmp_path)
    pem = str(tmp_path / "server.pem")
    settings = to_sink(sink, TRACEMIND_COLLECTOR_TLS_CERT=pem, TRACEMIND_COLLECTOR_TLS_KEY=pem)
    request = otlp.traces([otlp.span(otlp.KEPT)])
    body = request.SerializeToString()
    stranger, known = (ssl.create_default_context(cafile=str(trusted)) for _ in range(2))
    known.load_cert_chain(pem)
    with collecting(program, tmp_path, "receiver-tls", "otlp", settings=settings) as collector:
        address = collector.otlp_http.replace("http:", "https:") + "/v1/traces"
        assert post(address, body, tls=stranger) == 200
        assert post(collector.otlp_http + "/v1/traces", body) == 400
        assert export_by_grpc(collector, request, "none", trusted=trusted) == "OK"
        assert export_by_grpc(collector, request, "none") == "UNAVAILABLE"
        await_spans(sink, 2)

    settings["TRACEMIND_COLLECTOR_TLS_CLIENT_CA"] = str(trusted)
    with collecting(program, tmp_path, "receiver-tls", "otlp", settings=settings) as collector:
        address = collector.otlp_http.replace("http:", "https:") + "/v1/traces"
        with pytest.raises(OSError, match=r"(?i)certificate required|EOF|reset|broken pipe"):
            post(address, body, tls=stranger)
        assert post(address, body, tls=known) == 200
        assert export_by_grpc(collector, request, "none", trusted=trusted) == "UNAVAILABLE"
        assert export_by_grpc(collector, request, "none", trusted=trusted, own=pem) == "OK"
    assert len(sink.spans()) == 4


def test_the_inert_token_of_the_base_opens_nothing(program: Path, tmp_path: Path) -> None:
    """Without a token the Collector does not start: it never falls back to the one that stands in base.yaml."""
    done = validate(program, ["receiver-token"], tmp_path, without=["TRACEMIND_COLLECTOR_TOKEN"])

    assert done.returncode != 0
    assert "no bearer token provided" in done.stderr


def test_a_queue_on_disk_is_never_forgotten(program: Path, tmp_path: Path) -> None:
    """With the file but without its variable the Collector does not start, instead of keeping the queue in memory."""
    done = validate(program, ["persistent-queue", "jaeger"], tmp_path, without=["TRACEMIND_COLLECTOR_QUEUE"])

    assert done.returncode != 0
    assert "extensions" in done.stderr


# --- metrics from spans


def test_derived_and_sdk_metrics_each_equal_the_ledger(program: Path, tmp_path: Path, sink: Sink) -> None:
    """The cost of the spans, the cost of the SDK's metric and the cost that the program adds up are the same to the
    cent, at a destination of cumulative metrics and at one of delta metrics; all calls count although sampling keeps no
    trace; and the two have no name in common."""
    with listening() as delta:
        settings = to_sink(
            sink,
            NEW_RELIC_OTLP_ENDPOINT=delta.url,
            TRACEMIND_COLLECTOR_SAMPLE_PERCENT="0",
            TRACEMIND_COLLECTOR_DECISION_WAIT="1s",
            TRACEMIND_COLLECTOR_EXPENSIVE_USD="1000",
        )
        overlays = ("derived-metrics", "tail-sampling", "otlp", "newrelic")
        with collecting(program, tmp_path, *overlays, settings=settings) as collector:
            ledger = sum(run_platform_example(collector) for _ in range(2))

    assert ledger > 0
    sums = last_sums(sink)
    for values in (sums, all_sums(delta)):
        assert values["tracemind.llm.cost"] == pytest.approx(ledger, abs=1e-6)
        assert values["tracemind.derived.llm.cost"] == pytest.approx(ledger, abs=1e-6)
        assert values["tracemind.derived.llm.calls"] == 10
    ours = {name for name in sums if name.startswith("tracemind.derived.")}
    assert ours == {f"tracemind.derived.llm.{name}" for name in ("calls", "cost", "input_tokens", "output_tokens")}


def test_derived_metrics_count_every_call_of_parallel_senders(program: Path, tmp_path: Path) -> None:
    """Of calls that arrive on many connections at once none is left out, also when one batch overtakes another."""
    call: dict[str, otlp.Value] = {"gen_ai.operation.name": "chat", "tracemind.cost_usd": 0.25}
    batches = [otlp.traces([otlp.span(call)]) for _ in range(1600)]
    with collecting(program, tmp_path, "derived-metrics", "prometheus-scrape") as collector:
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(partial(collector.send, "/v1/traces"), batches)) == {200}

        def counted() -> dict[str, float]:
            found = re.findall(
                r"^tracemind_derived_llm_(\w+?)_total\{.*\} (\S+)$", read(collector.metrics), re.MULTILINE
            )
            return {name: float(value) for name, value in found}

        wait_until(lambda: counted() == {"calls": 1600, "cost_USD": 400}, WAIT_S)
        assert counted() == {"calls": 1600, "cost_USD": 400}


def run_platform_example(collector: Collector) -> float:
    """Run the example, a process of five calls; returns the cost that it prints."""
    example = str(REPOSITORY / "examples" / "platform_costs.py")
    command = [sys.executable, example, "--endpoint", collector.otlp_http]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=True)
    return sum(float(usd) for usd in re.findall(r"^\w+: \$([\d.]+)$", done.stdout, re.MULTILINE))


def all_sums(sink: Sink) -> dict[str, float]:
    """Each counter of delta temporality: all its values, added up."""
    values: dict[str, float] = {}
    for name, kind, value in metric_points(sink):
        if kind == DELTA:
            values[name] = values.get(name, 0.0) + value
    return values


def last_sums(sink: Sink) -> dict[str, float]:
    """Each counter: the last value of every series, added up."""
    values: dict[str, dict[tuple[bytes, bytes], float]] = {}
    for request in sink.metric_requests():
        for part in request.resource_metrics:
            for metric in (metric for scope in part.scope_metrics for metric in scope.metrics):
                for point in metric.sum.data_points:
                    labels = b"".join(sorted(item.SerializeToString() for item in point.attributes))
                    series = (part.resource.SerializeToString(deterministic=True), labels)
                    values.setdefault(metric.name, {})[series] = point.as_double or point.as_int
    return {name: sum(series.values()) for name, series in values.items()}


def test_older_and_foreign_spans_count_under_the_current_names(program: Path, tmp_path: Path, sink: Sink) -> None:
    """A call by OpenLLMetry, by OpenInference and by an older convention has the current names beside its own, so the
    derived metrics count its tokens; a name that is there is not changed."""
    foreign: list[dict[str, otlp.Value]] = [
        {"gen_ai.system": "az.ai.openai", "llm.request.type": "chat", "gen_ai.request.model": "m"},
        {
            "llm.provider": "OpenAI",
            "openinference.span.kind": "LLM",
            "llm.model_name": "m",
            "llm.token_count.prompt": 7,
        },
        {"gen_ai.system": "gemini", "gen_ai.operation.name": "chat", "gen_ai.request.model": "m"},
        {"gen_ai.system": "other", "gen_ai.provider.name": "openai", "gen_ai.operation.name": "chat"},
    ]
    foreign[0] |= {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.cache_read_input_tokens": 4}
    foreign[1] |= {"llm.token_count.prompt": 7}
    foreign[2] |= {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.prompt_tokens": 99}
    with collecting(program, tmp_path, "normalize", "derived-metrics", "otlp", settings=to_sink(sink)) as collector:
        assert collector.send("/v1/traces", otlp.traces(otlp.span(values) for values in foreign)) == 200
        await_spans(sink, 4)

    found = [plain(span.attributes) for span in sink.spans()]
    names = ("gen_ai.provider.name", "gen_ai.operation.name", "gen_ai.request.model", "gen_ai.usage.input_tokens")
    assert [tuple(values.get(name) for name in names) for values in found] == [
        ("azure.ai.openai", "chat", "m", 10),
        ("openai", "chat", "m", 7),
        ("gcp.gemini", "chat", "m", 5),
        ("openai", "chat", None, None),
    ]
    assert found[0]["gen_ai.usage.cache_read.input_tokens"] == 4
    assert all(values.items() <= now.items() for values, now in zip(foreign, found, strict=True))
    assert last_sums(sink)["tracemind.derived.llm.input_tokens"] == 22


def test_jaegers_monitor_tab_finds_its_series(program: Path, tmp_path: Path) -> None:
    """Rates and durations have the names and labels that Jaeger asks Prometheus for."""
    settings = {"TRACEMIND_COLLECTOR_MONITOR_INTERVAL": "200ms"}
    with collecting(program, tmp_path, "monitor", "prometheus-scrape", settings=settings) as collector:
        assert collector.send("/v1/traces", otlp.traces([otlp.span(otlp.KEPT, error="refused")])) == 200
        assert wait_until(lambda: "traces_span_metrics" in read(collector.metrics), WAIT_S)
        page = read(collector.metrics)

    (line,) = [line for line in page.splitlines() if line.startswith("traces_span_metrics_calls_total{")]
    for label in ('service_name="test"', 'span_name="chat gpt-5"', "SPAN_KIND_CLIENT", "STATUS_CODE_ERROR"):
        assert label in line
    assert "traces_span_metrics_duration_milliseconds_bucket{" in page


def test_jaegers_monitor_tab_shows_calls_and_errors(program: Path, tmp_path: Path) -> None:
    """Jaeger with jaeger-monitor.yaml answers what its Monitor tab asks: the rate of calls and of errors by service."""
    with (
        remote_write_prometheus(tmp_path) as prometheus,
        storing(tmp_path, "jaeger-monitor.yaml", settings={"TRACEMIND_PROMETHEUS_URL": prometheus}) as jaeger,
    ):
        settings = {
            "PROMETHEUS_REMOTE_WRITE_URL": f"{prometheus}/api/v1/write",
            "TRACEMIND_COLLECTOR_MONITOR_INTERVAL": "200ms",
        }
        with collecting(program, tmp_path, "monitor", "prometheus-remote-write", settings=settings) as collector:

            def shown() -> dict[str, float]:
                assert collector.send("/v1/traces", otlp.traces([otlp.span(otlp.KEPT, error="refused")])) == 200
                return {what: rate_in_monitor(jaeger.http, what) for what in ("calls", "errors")}

            assert wait_until(lambda: shown()["calls"] > 0 and shown()["errors"] == 1, WAIT_S), shown()


def rate_in_monitor(jaeger: str, what: str) -> float:
    """The highest rate of the last minutes, of client spans; 0 if there is none."""
    now = int(time.time() * 1000)
    query = f"service=test&endTs={now}&lookback=300000&step=1000&ratePer=60000&spanKind=client"
    answer = json.loads(read(f"{jaeger}/api/metrics/{what}?{query}"))
    points = [point for metric in answer["metrics"] for point in metric["metricPoints"]]
    values = [float(point["gaugeValue"].get("doubleValue", 0)) for point in points]
    return max((value for value in values if not math.isnan(value)), default=0.0)


# --- truncation


def test_a_prompt_of_5_megabytes_passes_or_is_cut_cleanly(program: Path, tmp_path: Path, sink: Sink) -> None:
    """A prompt of 5 MB passes whole; with truncation.yaml it becomes a short conversation of valid JSON, other strings
    and bodies of logs end between two characters, and the other spans of its batch are untouched."""
    prompt = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "x" * 5_000_000}]}])
    long: dict[str, otlp.Value] = {**otlp.KEPT, "gen_ai.input.messages": prompt, "note": "é" * 40_000}
    spans = [otlp.span(otlp.KEPT), otlp.span(long, events={"details": long}), otlp.span(otlp.KEPT)]
    for overlays in (("otlp",), ("truncation", "otlp")):
        with collecting(program, tmp_path, *overlays, settings=to_sink(sink)) as collector:
            assert collector.send("/v1/traces", otlp.traces(spans)) == 200
            assert collector.send("/v1/logs", otlp.logs("details", otlp.KEPT, "a" + "é" * 40_000)) == 200
    assert [record.body.string_value for record in sink.events()] == ["a" + "é" * 40_000, "a" + "é" * 32_767]
    assert [plain(record.attributes) for record in sink.events()] == [otlp.KEPT, otlp.KEPT]
    whole, cut = ({span.span_id: span for span in half} for half in (sink.spans()[:3], sink.spans()[3:]))

    assert [whole.get(span.span_id) == span for span in spans] == [True, True, True]
    before, shortened, after = (cut[span.span_id] for span in spans)
    assert [plain(before.attributes), plain(after.attributes)] == [otlp.KEPT, otlp.KEPT]
    for values in (plain(shortened.attributes), plain(shortened.events[0].attributes)):
        (message,) = json.loads(values["gen_ai.input.messages"])
        assert message["parts"][0]["content"] == f"removed by the Collector, length {len(prompt)}"
        assert values["note"] == "é" * 32_768
        assert values["gen_ai.usage.input_tokens"] == otlp.KEPT["gen_ai.usage.input_tokens"]
