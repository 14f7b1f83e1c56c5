"""How many series a process and a fleet make, and that restarts do not pile up behind aggregate-instances.yaml."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from collector.stack.ports import free_ports, url
from collector.stack.processes import wait_until
from collector.stack.programs import Ports
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Gauge, Metric, NumberDataPoint, Sum

from tests.e2e import otlp_requests as otlp
from tests.e2e.backends import wait_for_metric
from tests.e2e.collectors import WAIT_S, Collector, collecting, go_program, read
from tests.e2e.prometheus_server import serving
from tests.programs import REPOSITORY, clean_environment
from tests.required import prometheus_program
from tests.servers.otlp_sink import Post, Sink
from tests.servers.otlp_sink import plain as plain_values
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.e2e

OF_A_PROCESS = 1
"""Series of each process: `target_info`."""
OF_A_FLOW = 14
"""Series of each flow: the histogram of its duration, with 12 buckets."""
OF_A_COMBINATION = 78
"""Series of each model with each flow, and each value of a label that the application names: one histogram of
durations with 15 buckets, two of tokens with 15, one of costs with 23, and the counters of cost and retries."""
OF_A_STREAM = 34
"""Further series of a combination that is streamed: two histograms of durations."""
OF_AN_ERROR = 18
"""Further series of a combination for each type of error: one histogram of durations, and retries."""
RESTARTS_A_DAY = 240
"""Of a service that starts anew ten times an hour."""

PAGE = (REPOSITORY / "docs" / "how-to" / "prometheus.md").read_text()
OVERFLOW = "otel.metric.overflow"
COST = "tracemind_llm_cost_USD_total"
CALLS = "gen_ai_client_operation_duration_seconds_count"
SAMPLE = re.compile(r"(?P<name>[\w:]+)\{(?P<labels>.*)\} (?P<value>\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

PROCESS = """
import contextlib
import json
import sys
import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

plan = json.loads(sys.argv[1])
prices = [{"provider": "fake", "model": model, "input": 150, "output": 600} for model in plan["models"]]
costs = []


def call(model, streamed):
    if streamed:
        with tm.llm_stream_sync(model, "one two three") as stream:
            list(stream)
    else:
        costs.append(tm.llm_call_sync(model, "one two three").cost_usd)


with tm.configure(
    service_name=plan["job"], endpoint=plan["endpoint"], prices=prices, metric_attributes=plan["labels"]
):
    for name in plan["flows"]:
        with tm.flow(name, attributes={"team": plan["team"]}):
            for step in plan["steps"]:
                with tm.step(step):
                    for model in plan["models"]:
                        call(f"fake/{model}", False)
                        if plan["streamed"]:
                            call(f"fake/{model}", True)
                        for status in plan["errors"]:
                            with contextlib.suppress(tm.LLMError):
                                tm.llm_call_sync(model, "Hello", client=FakeLLMClient(1, script=[status]))
print(json.dumps(sum(costs)))
"""


MANY_USERS = """
import asyncio
import sys
import tracemind_otel as tm

prices = [{"provider": "fake", "model": "toy-1", "input": 150, "output": 600}]
names = {"metric_attributes": ["user.id"], "metric_attribute_limit": 5000}


async def call(number):
    with tm.using_attributes(user_id=f"user-{number}"):
        return (await tm.llm_call("fake/toy-1", "one two three")).cost_usd


async def main():
    return await asyncio.gather(*map(call, range(int(sys.argv[2]))))


with tm.configure(service_name="users", endpoint=sys.argv[1], prices=prices, **names):
    print(sum(asyncio.run(main())))
"""


LONG_LIVED = """
import sys
import tracemind_otel as tm

prices = [{"provider": "fake", "model": "toy-1", "input": 150, "output": 600}]
with tm.configure(service_name="long-lived", endpoint=sys.argv[1], prices=prices) as telemetry:
    for line in sys.stdin:
        cost_usd = tm.llm_call_sync("fake/toy-1", line.strip()).cost_usd
        telemetry.flush(2.0)
        print(cost_usd, flush=True)
"""


@dataclass(frozen=True)
class Point:
    """One series of the page that Prometheus scrapes."""

    name: str
    labels: Mapping[str, str]
    value: float


def series_of(collector: Collector, job: str) -> list[Point]:
    """The series of a job on the page that Prometheus scrapes."""
    lines = (line for line in read(collector.metrics).splitlines() if f'job="{job}"' in line)
    found = (SAMPLE.match(line) for line in lines)
    return [Point(m["name"], dict(LABEL.findall(m["labels"])), float(m["value"])) for m in found if m]


def total(points: Sequence[Point], name: str = COST) -> float:
    return sum(point.value for point in points if point.name == name)


def await_total(collector: Collector, job: str, expected: float, name: str = COST) -> list[Point]:
    """The series of a job, once a sum is right to a millionth of a cent."""
    last: list[Point] = []

    def is_right() -> bool:
        last[:] = series_of(collector, job)
        return total(last, name) == pytest.approx(expected, abs=1e-8)

    assert wait_until(is_right, WAIT_S), f"{name} is {total(last, name)} in place of {expected}"
    return last


def run_process(
    endpoint: str,
    *,
    job: str,
    team: str = "search",
    flows: Sequence[str] = ("answer",),
    models: Sequence[str] = ("toy-1",),
    steps: Sequence[str] = ("draft",),
    labels: Sequence[str] = (),
    errors: Sequence[str] = (),
    streamed: bool = False,
    variables: Mapping[str, str] | None = None,
) -> float:
    """Run a process of the SDK to its end; returns what its replies cost."""
    plan = {
        "endpoint": endpoint,
        "job": job,
        "team": team,
        "flows": flows,
        "models": models,
        "steps": steps,
        "labels": labels,
        "errors": errors,
        "streamed": streamed,
    }
    command = [sys.executable, "-c", PROCESS, json.dumps(plan)]
    environment = clean_environment(**(variables or {}))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout))


@pytest.fixture(scope="module")
def program() -> Path:
    return go_program("otelcol")


@contextmanager
def aggregating(program: Path, state: Path, ports: Ports | None = None) -> Generator[Collector]:
    with collecting(program, state, "prometheus-scrape", "aggregate-instances", ports=ports) as collector:
        yield collector


@pytest.fixture(scope="module")
def plain(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A Collector without the overlay. Each test has jobs of its own."""
    with collecting(program, tmp_path_factory.mktemp("plain"), "prometheus-scrape") as collector:
        yield collector


@pytest.fixture(scope="module")
def aggregator(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A Collector with the overlay. Each test has jobs of its own."""
    with aggregating(program, tmp_path_factory.mktemp("aggregator")) as collector:
        yield collector


# --- series of a process


@pytest.mark.parametrize(
    ("job", "plan", "series"),
    [
        ("one-model-and-flow", {}, OF_A_FLOW + OF_A_COMBINATION),
        (
            "flows-models-steps",
            {
                "flows": ["answer", "digest"],
                "models": ["toy-1", "toy-2"],
                "steps": ["a", "b"],
                "labels": ["step", "team"],
            },
            2 * OF_A_FLOW + 2 * 2 * 2 * OF_A_COMBINATION,
        ),
        (
            "streams-and-errors",
            {"streamed": True, "errors": ["400", "401"]},
            OF_A_FLOW + OF_A_COMBINATION + OF_A_STREAM + 2 * OF_AN_ERROR,
        ),
    ],
)
def test_the_series_of_a_process_are_those_of_the_formula(
    plain: Collector, job: str, plan: Mapping[str, Any], series: int
) -> None:
    """One model and flow make 92 series and `target_info`; each further flow, model, step, stream and type of error
    adds what docs/how-to/prometheus.md says, and a team of each flow adds nothing."""
    run_process(plain.otlp_http, job=job, **plan)

    assert len(series_of(plain, job)) == OF_A_PROCESS + series


def test_the_buckets_of_the_page_are_dropped_by_prometheus(plain: Collector, tmp_path: Path) -> None:
    """With the configuration of the page Prometheus keeps 62 series of one model and flow, and 39 of them are no
    buckets of cost: the histograms of time stay whole."""
    (config,) = (yaml.safe_load(block) for block in re.findall(r'title="fewer-buckets.yml"\n(.*?)```', PAGE, re.DOTALL))
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [plain.metrics.removeprefix("http://").removesuffix("/metrics")]}]
    scrape["scrape_interval"] = "1s"
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    run_process(plain.otlp_http, job="buckets")

    with serving(prometheus_program(), tmp_path / "prometheus.yml") as prometheus:
        kept = wait_for_metric(prometheus, 'count by (__name__) ({job="buckets", __name__!="target_info"})')

    by_name = {sample["labels"]["__name__"]: sample["value"] for sample in kept}
    costs = by_name["tracemind_llm_call_cost_USD_bucket"]
    assert (sum(by_name.values()), sum(by_name.values()) - costs) == (62, 39)
    assert by_name["gen_ai_client_operation_duration_seconds_bucket"] == 15
    assert "gen_ai_client_token_usage_bucket" not in by_name


def cost_points(post: Post) -> list[NumberDataPoint]:
    """The points of the counter of cost in a request."""
    if post.path != "/v1/metrics":
        return []
    scopes = ExportMetricsServiceRequest.FromString(post.body).resource_metrics[0].scope_metrics
    metrics = (metric for scope in scopes for metric in scope.metrics if metric.name == "tracemind.llm.cost")
    return [point for metric in metrics for point in metric.sum.data_points]


def test_the_cost_of_too_many_users_is_whole(sink: Sink) -> None:
    """Behind 2,000 users the cost of all further ones is in one series that says so, and no cent is missing."""
    command = [sys.executable, "-c", MANY_USERS, sink.url, "2050"]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

    last: dict[str, float] = {}
    for point in (point for post in sink.posts for point in cost_points(post)):
        labels = plain_values(point.attributes)
        last[OVERFLOW if OVERFLOW in labels else labels["user.id"]] = point.as_double

    assert len(last) == 2001
    assert sum(last.values()) == pytest.approx(float(done.stdout))
    assert last[OVERFLOW] == pytest.approx(50 * last["user-0"])


# --- restarts


def started_anew(recorded: ExportMetricsServiceRequest, number: int, job: str) -> ExportMetricsServiceRequest:
    """What a process sent, as it would come from another one that ran now."""
    request = ExportMetricsServiceRequest()
    request.CopyFrom(recorded)
    now = time.time_ns()
    for resource_metrics in request.resource_metrics:
        for attribute in resource_metrics.resource.attributes:
            if attribute.key in ("service.instance.id", "service.name"):
                attribute.value.string_value = job if attribute.key == "service.name" else f"process-{number}"
        for scope in resource_metrics.scope_metrics:
            for metric in scope.metrics:
                for point in getattr(metric, metric.WhichOneof("data") or "").data_points:
                    point.start_time_unix_nano, point.time_unix_nano = now - otlp.SECOND // 1000, now
    return request


@pytest.mark.parametrize("has_overlay", [True, False], ids=["aggregate-instances", "plain"])
def test_a_day_of_restarts_adds_no_series_behind_the_overlay(
    request: pytest.FixtureRequest, sink: Sink, has_overlay: bool
) -> None:
    """With the overlay 240 restarts leave the series of one process, and without it those of 240; every cent of all is
    there in both cases."""
    cost = run_process(sink.url, job="recorded", labels=["team"])
    *_, post = (post for post in sink.posts if post.path == "/v1/metrics")
    recorded = ExportMetricsServiceRequest.FromString(post.body)
    collector: Collector = request.getfixturevalue("aggregator" if has_overlay else "plain")

    with ThreadPoolExecutor(8) as pool:
        starts = (started_anew(recorded, number, "restarts") for number in range(RESTARTS_A_DAY))
        assert set(pool.map(partial(collector.send, "/v1/metrics"), starts)) == {200}
    found = await_total(collector, "restarts", RESTARTS_A_DAY * cost)

    of_one = OF_A_PROCESS + OF_A_FLOW + OF_A_COMBINATION
    assert len(found) == (of_one if has_overlay else RESTARTS_A_DAY * of_one)
    assert total(found, CALLS) == RESTARTS_A_DAY


# --- sums of many processes in one series


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_processes_that_live_for_a_second_are_counted_to_the_cent(aggregator: Collector, temporality: str) -> None:
    """Parallel and short-lived processes of the SDK are added up by team, with either temporality."""
    job, variables = f"short-{temporality}", {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality}

    def run(team: str) -> float:
        return run_process(aggregator.otlp_http, job=job, team=team, labels=["team"], variables=variables)

    with ThreadPoolExecutor() as pool:
        first, second, third = pool.map(run, ("search", "search", "ads"))
    found = await_total(aggregator, job, first + second + third)

    by_team = {point.labels["team"]: point.value for point in found if point.name == COST}
    assert by_team == pytest.approx({"search": first + second, "ads": third})


@pytest.mark.parametrize("temporality", [otlp.CUMULATIVE, otlp.DELTA], ids=["cumulative", "delta"])
def test_no_point_is_lost_when_many_processes_send_at_once(
    aggregator: Collector, temporality: AggregationTemporality.ValueType
) -> None:
    """The sums of 40 processes that send ten times each, as fast as they can, lack no point of any."""
    job, processes, exports = f"at-once-{temporality}", 40, 10

    def run(number: int) -> None:
        began, of = time.time_ns(), {"service.name": job, "service.instance.id": f"process-{number}"}
        for export in range(1, exports + 1):
            sent = export if temporality == otlp.CUMULATIVE else 1
            request = otlp.metrics(0.25 * sent, sent, began=began, of=of, temporality=temporality)
            assert aggregator.send("/v1/metrics", request) == 200

    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, range(processes)))
    await_total(aggregator, job, 0.25 * processes * exports)
    found = await_total(aggregator, job, processes * exports, CALLS)

    assert len([point for point in found if point.name == COST]) == 1


def delta(
    job: str, number: int, usd: float, more: Mapping[str, otlp.Value] | None = None
) -> ExportMetricsServiceRequest:
    """What a process spent since its last export."""
    of = {"service.name": job, "service.instance.id": f"process-{number}", **(more or {})}
    return otlp.metrics(usd, 1, of=of, temporality=otlp.DELTA)


@pytest.mark.parametrize("name", ["service.version", "deployment.environment.name", "attribute.of.the.user"])
def test_processes_that_differ_in_their_resource_do_not_overwrite_each_other(aggregator: Collector, name: str) -> None:
    """Versions and environments, which Prometheus does not show as labels, are told apart by `instance`."""
    for number in (1, 2, 1):
        assert aggregator.send("/v1/metrics", delta(name, number, 1.0, {name: str(number)})) == 200
    found = await_total(aggregator, name, 3.0)

    assert sorted(point.value for point in found if point.name == COST) == [1.0, 2.0]


def test_attributes_of_one_process_host_or_pod_are_added_up(aggregator: Collector) -> None:
    """Attributes that change with each process, host or pod make no series of their own."""
    names = ["process.pid", "host.name", "container.id", "k8s.pod.name", "k8s.pod.uid", "k8s.node.name", "host.arch"]
    for number in range(3):
        assert aggregator.send("/v1/metrics", delta("pods", number, 1.0, dict.fromkeys(names, str(number)))) == 200
    found = await_total(aggregator, "pods", 3.0)

    assert len([point for point in found if point.name == COST]) == 1


def test_processes_with_older_and_newer_conventions_are_counted_once(aggregator: Collector) -> None:
    """A schema URL, which processes with the newest names have, does not show a sum twice."""
    for schema in ("", "https://opentelemetry.io/schemas/1.42.0"):
        of = {"service.name": "schemas", "service.instance.id": f"process-{schema}"}
        request = otlp.metrics(1.0, 1, of=of, temporality=otlp.DELTA, schema_url=schema)
        assert aggregator.send("/v1/metrics", request) == 200

    await_total(aggregator, "schemas", 2.0)


def test_metrics_that_cannot_be_added_up_keep_their_process(aggregator: Collector) -> None:
    """Gauges, and sums that also fall, stay apart by process; the limit of a budget, which all share, is one series."""

    def point(value: int) -> NumberDataPoint:
        return NumberDataPoint(as_int=value, time_unix_nano=time.time_ns())

    for number in (1, 2):
        metrics = [
            Metric(name="queue.length", gauge=Gauge(data_points=[point(number)])),
            Metric(name="active", sum=Sum(data_points=[point(number)], aggregation_temporality=otlp.CUMULATIVE)),
            Metric(name="tracemind.budget.limit", gauge=Gauge(data_points=[point(50)])),
        ]
        of = {"service.name": "gauges", "service.instance.id": f"process-{number}"}
        assert aggregator.send("/v1/metrics", otlp.metrics_of(metrics, of)) == 200
    found = await_total(aggregator, "gauges", 3, "active")

    by_process = {(point.name, point.labels["instance"]): point.value for point in found}
    apart = {(name, f"process-{number}"): number for name in ("queue_length", "active") for number in (1, 2)}
    assert apart.items() <= by_process.items()
    assert [point.value for point in found if point.name == "tracemind_budget_limit"] == [50]


# --- Collectors that start anew, and several of them


def test_two_collectors_add_up(program: Path, aggregator: Collector, tmp_path: Path) -> None:
    """Two Collectors, or one before and after its restart, have an `instance` each. With delta metrics it does not
    matter which of them gets which export of a process."""
    with aggregating(program, tmp_path) as second:
        for collector, usd in ((aggregator, 1.0), (second, 0.5), (aggregator, 0.25)):
            assert collector.send("/v1/metrics", delta("collectors", 1, usd)) == 200
        found = await_total(aggregator, "collectors", 1.25) + await_total(second, "collectors", 0.5)

    assert len({point.labels["instance"] for point in found if point.name == COST}) == 2


def test_a_cumulative_process_older_than_the_collector_counts_from_its_first_export_on(aggregator: Collector) -> None:
    """After its restart a Collector does not count again what a process had spent before."""
    began = time.time_ns() - 1000 * otlp.SECOND
    for usd in (7.0, 7.25):
        request = otlp.metrics(usd, 1, began=began, of={"service.name": "older"})
        assert aggregator.send("/v1/metrics", request) == 200

    await_total(aggregator, "older", 0.25)


def spend(process: subprocess.Popen[str], prompt: str) -> float:
    """Let the process make a call and export; returns what the call cost."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{prompt}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def test_a_process_with_delta_metrics_loses_nothing_while_the_collector_starts_anew(
    program: Path, tmp_path: Path
) -> None:
    """What was scraped before a restart of the Collector, and what a process spends during and after it, is in the sums
    of both, to the cent."""
    environment = clean_environment(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta")
    ports = free_ports()
    endpoint = url(ports["otlp_http"])
    command = [sys.executable, "-c", LONG_LIVED, endpoint]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            with aggregating(program, tmp_path, ports) as first:
                await_total(first, "long-lived", before := spend(process, "one"))
            away = spend(process, "one two three four")
            with aggregating(program, tmp_path, ports) as second:
                after = spend(process, "one two")
                process.communicate(timeout=WAIT_S)
                await_total(second, "long-lived", away + after)
        finally:
            process.kill()

    assert len({before, away, after}) == 3


def test_a_collector_ends_while_processes_send(program: Path, tmp_path: Path) -> None:
    """SIGTERM ends the Collector within seconds, although requests wait for the hand-over."""
    is_ended = threading.Event()

    def send(collector: Collector, number: int) -> None:
        while not is_ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                collector.send("/v1/metrics", delta("ending", number, 1.0))

    with aggregating(program, tmp_path) as collector, ThreadPoolExecutor() as pool:
        try:
            for number in range(8):
                pool.submit(send, collector, number)
            assert wait_until(lambda: total(series_of(collector, "ending")) > 1500, WAIT_S)
            collector.process.terminate()
            assert collector.process.wait(WAIT_S) == 0
        finally:
            is_ended.set()
