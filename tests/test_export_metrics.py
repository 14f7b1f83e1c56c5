"""Metrics reach their receiver: cumulative points with the next export at the latest, delta points through a spool."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from tests.programs import run_program
from tests.servers.fixture import closed_port
from tests.servers.scripted_receiver import TAKES, Receiver, Reply, Request, http_receiver
from tracemind_otel.otel.export.answers import Transport
from tracemind_otel.otel.export.delivery_stats import MetricsDeliveryStats, SpoolStats
from tracemind_otel.otel.export.metric_exporter import OtlpMetricExporter, SpooledMetricExporter
from tracemind_otel.otel.export.otlp_metrics import metric_items
from tracemind_otel.otel.export.otlp_options import otlp_options
from tracemind_otel.otel.export.sender import Sender
from tracemind_otel.otel.export.spool import MemorySpool
from tracemind_otel.otel.export.transports import make_transport

Measured = Callable[[int], object]
"""Counts once for each of so many values of an attribute; returns what was collected."""


def measured_by(temporality: AggregationTemporality) -> Iterator[Measured]:
    reader = InMemoryMetricReader(preferred_temporality={Counter: temporality})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    counter = provider.get_meter("m").create_counter("calls")

    def measured(series: int) -> object:
        for number in range(series):
            counter.add(1, {"n": number, "padding": "x" * 1000})
        return reader.get_metrics_data()

    yield measured
    provider.shutdown()


@pytest.fixture
def cumulative() -> Iterator[Measured]:
    """Sums since the start."""
    yield from measured_by(AggregationTemporality.CUMULATIVE)


@pytest.fixture
def delta() -> Iterator[Measured]:
    """Sums since the last collection."""
    yield from measured_by(AggregationTemporality.DELTA)


def transport_to(url: str) -> Transport:
    return make_transport("metrics", "http/protobuf", url, {}, otlp_options("metrics", "http/protobuf", url))


def exporter_to(url: str, timeout_s: float = 20.0) -> OtlpMetricExporter:
    return OtlpMetricExporter(transport_to(url), MetricsDeliveryStats(url), metric_items, timeout_s=timeout_s)


def values(requests: list[Request]) -> list[int]:
    """The values of all points that came, in the order of their series."""
    found = list[tuple[int, int]]()
    for request in requests:
        for resource in ExportMetricsServiceRequest.FromString(request.body).resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in metric.sum.data_points:
                    number = next(each.value.int_value for each in point.attributes if each.key == "n")
                    found.append((number, point.as_int))
    return [value for _, value in sorted(found)]


# --- Cumulative ---


def test_points_arrive(cumulative: Measured) -> None:
    """An export sends what was collected, and counts it as arrived."""
    with http_receiver() as receiver:
        exporter = exporter_to(receiver.url)
        assert exporter.export(cumulative(3))
        exporter.shutdown()
        assert values(receiver.requests) == [1, 1, 1]
        assert exporter.stats.loss() is None


@pytest.mark.parametrize("reply", [Reply(503), Reply(429), Reply(502), Reply(behaviour="cuts before answering")])
def test_a_short_trouble_costs_no_export(cumulative: Measured, reply: Reply) -> None:
    """A receiver that is busy for a moment is asked again within the same export."""
    with http_receiver(reply) as receiver:
        exporter = exporter_to(receiver.url)
        assert exporter.export(cumulative(2))
        exporter.shutdown()
        assert len(receiver.requests) == 2
        assert exporter.stats.loss() is None


def test_the_next_export_makes_up_for_a_refused_one(cumulative: Measured) -> None:
    """Points that did not arrive are lost until the next export, whose sums contain them."""
    with http_receiver(Reply(400)) as receiver:
        exporter = exporter_to(receiver.url)
        assert not exporter.export(cumulative(2))
        assert exporter.stats.loss() == f"2 of 2 metric points did not reach {receiver.url} (400 Bad Request)"
        assert exporter.export(cumulative(2))
        assert exporter.stats.loss() is None
        assert values(receiver.requests[1:]) == [2, 2]
        exporter.shutdown()


def test_nothing_is_sent_after_an_interrupt(cumulative: Measured) -> None:
    """A shut-down that has given the receiver up makes no attempt more, and knows that these points did not arrive."""
    with http_receiver(Reply(400)) as receiver:
        exporter = exporter_to(receiver.url)
        assert not exporter.export(cumulative(1))
        exporter.interrupt()
        assert not exporter.export(cumulative(2))
        assert len(receiver.requests) == 1
        assert exporter.stats.loss() == f"2 of 2 metric points did not reach {receiver.url} (400 Bad Request)"


def test_points_that_are_kept_are_not_lost(cumulative: Measured) -> None:
    """Of three points that do not arrive, the two that are kept on disk are said to wait there."""
    with http_receiver(script=lambda _: Reply(503)) as receiver:
        stats = MetricsDeliveryStats(receiver.url, kept_in="DIR")
        exporter = OtlpMetricExporter(transport_to(receiver.url), stats, metric_items, timeout_s=0.2)
        assert not exporter.export(cumulative(3), kept_points=2)
        assert (stats.loss() or "").startswith("1 of 3 metric points did not reach")
        assert stats.kept() == f"2 metric points wait in DIR ({receiver.url}: 503 Service Unavailable)"
        exporter.shutdown()


def test_points_that_are_rejected(cumulative: Measured, caplog: pytest.LogCaptureFixture) -> None:
    """A receiver that takes the request may reject points; that is counted and said."""
    part = ExportMetricsPartialSuccess(rejected_data_points=1, error_message="label too long")
    reply = Reply(body=ExportMetricsServiceResponse(partial_success=part).SerializeToString())
    with http_receiver(reply) as receiver:
        exporter = exporter_to(receiver.url)
        assert not exporter.export(cumulative(3))
        assert "1 of 3 metric points did not reach" in (exporter.stats.loss() or "")
        exporter.shutdown()
    assert f"{receiver.url} rejected 1 metric points: label too long" in caplog.text


def test_points_of_a_request_without_an_answer(cumulative: Measured) -> None:
    """Points of a request that hangs may have arrived, while it hangs and after it was given up."""
    with http_receiver(Reply(behaviour="hangs")) as receiver:
        exporter = exporter_to(receiver.url, timeout_s=0.4)
        thread = threading.Thread(target=exporter.export, args=(cumulative(2),))
        thread.start()
        receiver.wait_for(1)
        assert "2 of 2 metric points may or may not have arrived" in (exporter.stats.loss() or "")
        thread.join(20)
        told = f"2 of 2 metric points may or may not have arrived at {receiver.url} (no answer within the time-out)"
        assert exporter.stats.loss() == told
        exporter.shutdown()


def test_a_receiver_with_a_limit(cumulative: Measured) -> None:
    """After 413 the points are sent in smaller requests; each arrives once, and the next export fits at once."""

    def limit(request: Request) -> Reply:
        return Reply(413) if len(request.body) > 20_000 else TAKES

    def taken(receiver: Receiver) -> list[Request]:
        return [request for request in receiver.requests if len(request.body) <= 20_000]

    with http_receiver(script=limit) as receiver:
        exporter = exporter_to(receiver.url)
        assert exporter.export(cumulative(10))
        assert values(taken(receiver)) == [1] * 10
        exporter.shutdown()


@pytest.mark.parametrize("kind", ["nobody", "busy"])
def test_an_export_ends_with_its_time(cumulative: Measured, kind: Literal["nobody", "busy"]) -> None:
    """A receiver that is away costs an export no more than its time-out."""
    with http_receiver(script=lambda _: Reply(503)) as receiver:
        url = receiver.url if kind == "busy" else f"http://127.0.0.1:{closed_port()}"
        exporter = exporter_to(url)
        began = time.monotonic()
        assert not exporter.export(cumulative(2), timeout_millis=700)
        assert time.monotonic() - began < 5.0
        assert "2 of 2 metric points did not reach" in (exporter.stats.loss() or "")
        exporter.shutdown()


def test_shutdown_ends_a_wait(cumulative: Measured) -> None:
    """The end of the process does not sit out the wait that a receiver asks for."""
    with http_receiver(Reply(503, headers={"retry-after": "30"})) as receiver:
        exporter = exporter_to(receiver.url, timeout_s=60.0)
        thread = threading.Thread(target=exporter.export, args=(cumulative(2), 60_000))
        thread.start()
        receiver.wait_for(1)
        exporter.shutdown()
        thread.join(20)
        assert not thread.is_alive()
        assert len(receiver.requests) == 1


# --- Delta ---


def soon(failures: int) -> float:
    """The wait between two attempts."""
    return 0.05


def test_delta_points_survive_an_outage(delta: Measured) -> None:
    """Points that no later export repeats wait until the receiver is back, and each arrives once."""
    with http_receiver(Reply(503), Reply(503)) as receiver:
        spool = MemorySpool()
        stats = SpoolStats(receiver.url, spool, items="metric points")
        sender = Sender(spool, transport_to(receiver.url), stats, name="delta", delay_s=0.01, wait_s=soon)
        sender.start()
        exporter = SpooledMetricExporter(spool, sender, metric_items)
        assert exporter.export(delta(2))
        receiver.wait_for(1)
        assert exporter.export(delta(3))
        assert exporter.force_flush(20_000)
        taken = receiver.requests[2:]
        assert sum(values(taken)) == 5
        assert exporter.stats.loss() is None
        assert exporter.stats.accepted == 5
        exporter.shutdown()


FLUSHES = """
import sys
import tracemind_otel as tm
telemetry = tm.configure(endpoint=sys.argv[1])
tm.flow(name="work")(lambda: None)()
print(telemetry.flush(1.0))
"""


@pytest.mark.slow
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_flush_tells_whether_metrics_arrived(temporality: str) -> None:
    """`flush` is false while points wait for a receiver that is away, whatever their temporality."""
    variables = {
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
    }
    with http_receiver() as receiver:
        url = receiver.url.removesuffix("/v1/traces")
        assert run_program(FLUSHES, url, environment=variables).stdout == "True\n"
    assert run_program(FLUSHES, f"http://127.0.0.1:{closed_port()}", environment=variables).stdout == "False\n"
