"""The dashboard of the Collector, compared with what three real Collectors in trouble are known to have done."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from collector.stack.ports import free_ports
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.dashboards import DASHBOARDS, Known, expressions
from tests.e2e import otlp_requests as otlp
from tests.e2e.backends import ROOT, poll
from tests.e2e.collectors import Collector, collecting, go_program
from tests.e2e.dashboard_truth import wait_until_true
from tests.e2e.fleet import FLEET, RESTARTED, Fleet
from tests.e2e.prometheus_server import serving
from tests.required import prometheus_program

pytestmark = pytest.mark.e2e

EXPRESSIONS = {f"{each.panel}-{each.reference}": each for each in expressions(DASHBOARDS / "collector.json")}
ACCEPTED, POINTS = 5, 2
"""Spans and points of metrics that the first Collector accepts."""
AWAY = "http://127.0.0.1:1"
EXPORTER = "otlp_http/otlp"


@dataclass(frozen=True)
class Troubled:
    """Collectors in trouble, and a Prometheus that has read their own metrics."""

    prometheus: str
    """Its address."""
    gives_up: str
    """The instance whose destination does not know its path, so that it gives up."""
    refuses: str
    """The instance that has no memory left."""
    is_full: str
    """The instance whose destination is away, and that has room for one request."""
    taken: int
    """Spans that the last two took before they rejected one each."""


def instance(collector: Collector) -> str:
    return f"127.0.0.1:{collector.ports['collector_telemetry']}"


def spans(count: int) -> ExportTraceServiceRequest:
    return otlp.traces([otlp.span({}) for _ in range(count)])


def send_until_rejected(collector: Collector) -> int:
    """Send single spans until the Collector takes no more; returns how many it took."""
    answers: list[int] = []

    def send() -> int:
        answers.append(collector.send("/v1/traces", spans(1)))
        return answers[-1]

    poll(send, lambda status: status == 503, 30.0, "a rejected span")
    return len(answers) - 1


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Troubled]:
    """Three Collectors have got their data, and Prometheus reads them each second."""
    program = go_program("otelcol")
    folder = tmp_path_factory.mktemp("troubled")
    with ExitStack() as stack:

        def started(name: str, **changes: str) -> Collector:
            (folder / name).mkdir()
            return stack.enter_context(collecting(program, folder / name, "otlp", settings=changes))

        refuses = started("refuses", TRACEMIND_APM_ENDPOINT=AWAY, TRACEMIND_COLLECTOR_MEMORY_MIB="101")
        is_full = started("is_full", TRACEMIND_APM_ENDPOINT=AWAY, TRACEMIND_COLLECTOR_QUEUE_SIZE="1")
        # A page of metrics answers 404 to everything else, and no exporter repeats that.
        gives_up = started("gives_up", TRACEMIND_APM_ENDPOINT=f"http://{instance(refuses)}")
        assert gives_up.send("/v1/traces", spans(ACCEPTED)) == 200
        assert gives_up.send("/v1/metrics", otlp.metrics(0.5, 1)) == 200
        taken = send_until_rejected(refuses) + send_until_rejected(is_full)
        instances = map(instance, (gives_up, refuses, is_full))
        prometheus = stack.enter_context(serving(prometheus_program(), configured(folder, instances)))
        yield Troubled(prometheus, instance(gives_up), instance(refuses), instance(is_full), taken)


def configured(folder: Path, instances: Iterable[str]) -> Path:
    """The configuration of the stack's Prometheus, for these pages and one that nobody serves."""
    config = folder / "prometheus.yml"
    shutil.copy(ROOT / "collector" / "prometheus.yml", config)
    (folder / "rules").mkdir()
    nobody = f"127.0.0.1:{free_ports()['prometheus']}"
    labels = {"endpoint": "collector", "__scrape_interval__": "1s", "__scrape_timeout__": "1s"}
    (folder / "targets.json").write_text(json.dumps([{"targets": [*instances, nobody], "labels": labels}]))
    return config


def one(value: float) -> Known:
    """A single figure."""
    return Known((), {(): value})


def between(low: float, high: float, *labels: str, **series: str) -> Known:
    """A figure of which only the order is known."""
    key = tuple(series.values())
    return Known((*labels, *series), {key: low}, {key: high}, only=False)


def of_otlp(spans: float) -> Known:
    """What came over HTTP."""
    return Known(("receiver", "transport"), {("otlp", "http"): spans})


def of_exporters(**spans: float) -> Known:
    """What went to the destination, and to the end of the pipelines."""
    names = {"destination": EXPORTER, "end": "debug/end"}
    return Known(("exporter",), {(names[name],): value for name, value in spans.items()}, only=False)


Truth = Callable[[Troubled], Known]

TRUTH: Mapping[str, Truth] = {
    "Endpoints that do not answer-A": lambda _: one(1),
    "Spans accepted-A": lambda of: one(ACCEPTED + of.taken),
    "Metric points accepted-A": lambda _: one(POINTS),
    "Spans and points rejected-A": lambda _: one(2),
    "Spans not delivered-A": lambda _: one(ACCEPTED + 1),
    "Fullest queue-A": lambda _: one(1),
    "Spans received-A": lambda of: of_otlp(ACCEPTED + of.taken),
    "Spans received-B": lambda _: of_otlp(2),
    "Spans received-C": lambda _: of_otlp(0),
    "Spans sent-A": lambda of: of_exporters(end=ACCEPTED + of.taken + 1),  # the end got what found the queue full
    "Spans sent-B": lambda _: of_exporters(destination=ACCEPTED),
    "Spans sent-C": lambda _: of_exporters(destination=1),
    "Metric points received-A": lambda _: of_otlp(POINTS),
    "Metric points received-B": lambda _: of_otlp(0),
    "Metric points received-C": lambda _: of_otlp(0),
    "Metric points sent-A": lambda _: of_exporters(end=POINTS),
    "Metric points sent-B": lambda _: of_exporters(destination=POINTS),
    "Queues-A": lambda of: Known(("instance", "data_type"), {(of.is_full, "traces"): 1}, only=False),
    "Memory-A": lambda of: between(1e7, 1e9, instance=of.gives_up),
    "Memory-B": lambda of: between(1e5, 1e9, instance=of.gives_up),
    "CPU-A": lambda of: between(1e-6, 2, instance=of.gives_up),
    "Series of each scrape-A": lambda of: between(10, 1000, instance=of.gives_up),
    "Time since the start of the Collector-A": lambda of: between(0.1, 600, instance=of.gives_up),
}
"""What is known of each expression, by panel and letter."""
OF_THE_FLEET = "Processes that send metrics, by job-A"


def test_the_truth_of_every_panel_is_known() -> None:
    """A panel that is added without a truth to compare it with fails here."""
    assert set(EXPRESSIONS) == {*TRUTH, OF_THE_FLEET}


@pytest.mark.parametrize("name", TRUTH)
def test_each_panel_shows_what_the_collectors_did(troubled: Troubled, name: str) -> None:
    """Each figure is what was accepted, rejected, given up or kept waiting."""
    wait_until_true(troubled.prometheus, EXPRESSIONS[name], TRUTH[name](troubled), {})


def test_a_chosen_collector_is_the_only_one_in_a_panel(troubled: Troubled) -> None:
    """The list at the top filters by Collector."""
    expression = EXPRESSIONS["Spans accepted-A"]

    wait_until_true(troubled.prometheus, expression, one(ACCEPTED), {"collector": troubled.gives_up})


def test_processes_are_counted_by_job(fleet: Fleet) -> None:
    """Each process of the fleet is counted, and the one that started again twice."""
    counts: dict[tuple[str, ...], float] = dict(Counter((member.job,) for member in (*FLEET, RESTARTED)))

    wait_until_true(fleet.prometheus, EXPRESSIONS[OF_THE_FLEET], Known(("job",), counts, only=False), {})
