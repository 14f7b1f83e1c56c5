"""The sums of a process outlive it: the next process exports what a killed one did not, once."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.metrics.export import ResourceMetrics as CollectedResource
from opentelemetry.sdk.resources import Resource

from tests.programs import run_program
from tests.servers.scripted_receiver import Reply, Request, http_receiver
from tracemind_otel.otel.export.delivery_stats import MetricsDeliveryStats
from tracemind_otel.otel.export.kept_sums import KeptSums
from tracemind_otel.otel.export.left_sums import LeftSums, left_sums
from tracemind_otel.otel.export.metric_exporter import OtlpMetricExporter
from tracemind_otel.otel.export.otlp_metrics import metric_items
from tracemind_otel.otel.export.otlp_options import otlp_options
from tracemind_otel.otel.export.otlp_request import Item, request_body
from tracemind_otel.otel.export.otlp_values import resource_fields
from tracemind_otel.otel.export.transports import make_transport
from tracemind_otel.otel.instruments import NO_SPAN, Attributes
from tracemind_otel.otel.setup.aggregation import OwnInstruments
from tracemind_otel.otel.setup.metric_reader import OwnReader

RESOURCE = Resource({"service.name": "test"}, "https://example.com/schema")
BOUNDARIES = (1.0, 10.0, 100.0)
TEMPORALITIES = pytest.mark.parametrize("is_delta", [False, True], ids=["cumulative", "delta"])


def keeping(directory: str | Path, *, is_delta: bool = False) -> OwnInstruments:
    """Instruments whose sums are kept in a directory."""
    return OwnInstruments(is_delta=is_delta, sums=KeptSums(str(directory), resource_fields(RESOURCE)))


def left_after_a_kill(directory: str) -> list[Item]:
    """What another process would find if this one were killed now: in a copy, which nobody has locked."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        return [item for left in left_sums(copy) for item in left.items]


def exported(items: Iterable[Item]) -> list[ResourceMetrics]:
    return [*ExportMetricsServiceRequest.FromString(request_body(items)).resource_metrics]


def comparable(items: Iterable[Item]) -> dict[str, Any]:
    """Everything about these metrics but the order of their points, their exemplars and the time of the export."""
    found: dict[str, Any] = {}
    for group in exported(items):
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                data: Any = metric.sum if metric.HasField("sum") else metric.histogram
                for point in data.data_points:
                    assert point.time_unix_nano >= point.start_time_unix_nano > 0
                    point.ClearField("exemplars")
                    point.ClearField("time_unix_nano")
                points = sorted(str(point) for point in data.data_points)
                data.ClearField("data_points")
                rest = ScopeMetrics(scope=scope.scope, schema_url=scope.schema_url)
                found[f"{group.resource} {group.schema_url} {rest} {metric}"] = points
    return found


values = st.one_of(st.text(st.characters(), max_size=3), st.integers(), st.floats(), st.booleans())
attribute_sets = st.lists(st.dictionaries(st.sampled_from("ab"), values, max_size=2), min_size=1, max_size=3)
amounts = st.one_of(st.integers(0, 200), st.floats(0, 200))
measurements = st.lists(st.tuples(st.integers(0, 3), amounts, st.integers(0, 2)), max_size=30)


@TEMPORALITIES
@given(sets=attribute_sets, rounds=st.lists(measurements, min_size=1, max_size=3))
@settings(deadline=None)
def test_what_is_left_is_what_would_have_been_exported(
    is_delta: bool, sets: list[Attributes], rounds: list[list[tuple[int, float, int]]]
) -> None:
    """Name, unit, description, temporality, resource, scope, attributes, start and all figures are the same."""
    with tempfile.TemporaryDirectory() as directory:
        own = keeping(directory, is_delta=is_delta)
        counters = [own.create_counter("c", "1", "calls"), own.create_counter("d")]
        histograms = [own.create_histogram(name, "s", explicit_bucket_boundaries_advisory=BOUNDARIES) for name in "hi"]
        for measured in rounds:
            for kind, amount, number in measured:
                attributes = sets[number % len(sets)]
                if kind < 2:
                    counters[kind].add(amount, attributes, NO_SPAN)
                else:
                    histograms[kind - 2].record(amount, attributes, NO_SPAN)
            left = left_after_a_kill(directory)
            collected = own.collect()
            groups = [] if collected is None else [CollectedResource(RESOURCE, [collected], RESOURCE.schema_url)]
            assert comparable(left) == comparable(metric_items(MetricsData(groups)))
            own.exported()
        own.end(is_exported=True)
        assert left_after_a_kill(directory) == []


MEASURING = """
import itertools, json, os, random, signal, sys
from tests.spooling import ended, forked, read_all
from tests.test_kept_sums import exported, keeping
from tracemind_otel.otel.export.left_sums import left_sums
from tracemind_otel.otel.instruments import NO_SPAN

root, chance = sys.argv[1], random.Random(1)

def measure(report):
    own = keeping(root)
    counter = own.create_counter("c")
    histogram = own.create_histogram("h", explicit_bucket_boundaries_advisory=(1.0, 10.0, 100.0))
    for count in itertools.count(1):
        counter.add(count % 7, {"a": 1}, NO_SPAN)
        histogram.record(count % 150, {"a": 1}, NO_SPAN)
        os.write(report, b"x")

seen = []
for kill in range(30):
    process, report = forked(measure)
    finished, enough = 0, chance.randint(1, 3000)
    while finished < enough:
        finished += len(os.read(report, 4096))
    os.kill(process, signal.SIGKILL)
    finished += len(read_all(report))
    ended(process)
    [left] = left_sums(root)
    [group] = exported(left.items)
    counter, histogram = sorted(group.scope_metrics[0].metrics, key=lambda metric: metric.name)
    [total], [point] = counter.sum.data_points, histogram.histogram.data_points
    seen.append([finished, total.as_int, point.sum, point.min, point.max, *point.bucket_counts])
    left.settle()
print(json.dumps({"seen": seen, "files": os.listdir(root)}))
"""


@pytest.mark.slow
def test_a_kill_costs_no_measurement_and_tears_none(tmp_path: Path) -> None:
    """Whenever a process is killed, its sums are those after some measurement, and after all that were finished."""
    done = run_program(MEASURING, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["files"] == []
    for finished, total, *figures in found["seen"]:
        # The measurement in which it was killed may count, though nobody was told that it was finished.
        assert total in [sum(count % 7 for count in range(1, upto + 1)) for upto in (finished, finished + 1)]
        assert figures in [distribution(upto) for upto in (finished, finished + 1)]


def distribution(upto: int) -> list[float]:
    """Sum, minimum, maximum and buckets after so many measurements."""
    amounts = [count % 150 for count in range(1, upto + 1)]
    bounds = itertools.pairwise([-1.0, *BOUNDARIES, 1000.0])
    return [sum(amounts), min(amounts), max(amounts), *(sum(low < a <= high for a in amounts) for low, high in bounds)]


# --- Export ---


def reader_to(url: str, directory: Path) -> OwnReader:
    """A reader that exports when it is told, and belongs to a provider."""
    transport = make_transport("metrics", "http/protobuf", url, {}, otlp_options("metrics", "http/protobuf", url))
    exporter = OtlpMetricExporter(transport, MetricsDeliveryStats(url), metric_items, timeout_s=5.0)
    reader = OwnReader(exporter, RESOURCE, float("inf"), 10.0, sums_in=str(directory))
    MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    return reader


def totals(requests: Iterable[Request]) -> list[int]:
    """The values of the counter, in the order in which they came."""
    groups = [
        group for each in requests for group in ExportMetricsServiceRequest.FromString(each.body).resource_metrics
    ]
    metrics = [metric for group in groups for scope in group.scope_metrics for metric in scope.metrics]
    return [point.as_int for metric in metrics for point in metric.sum.data_points]


KILLED = """
import os, sys
from tests.test_kept_sums import keeping
from tracemind_otel.otel.instruments import NO_SPAN
keeping(sys.argv[1]).create_counter("c").add(5, {}, NO_SPAN)
os._exit(0)
"""


@pytest.mark.slow
def test_the_next_process_exports_what_a_killed_one_measured(tmp_path: Path) -> None:
    """A process that starts exports the sums of a killed one once, beside its own, and no file stays behind."""
    assert run_program(KILLED, tmp_path).returncode == 0
    with http_receiver() as receiver:
        for own in (2, 3):
            reader = reader_to(receiver.url, tmp_path)
            reader.start()
            reader.instruments.create_counter("c").add(own, {}, NO_SPAN)
            reader.shutdown()
        assert totals(receiver.requests) == [5, 2, 3]
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.parametrize(("reply", "others"), [(Reply(503, headers={"retry-after": "60"}), 2), (Reply(400), 1)])
def test_what_a_receiver_does_not_take_now_waits(tmp_path: Path, reply: Reply, others: int) -> None:
    """A busy receiver gets it from the process after the next; one that refuses it gets it no more."""
    assert run_program(KILLED, tmp_path).returncode == 0
    with http_receiver(reply) as receiver:
        for _ in range(3):
            reader = reader_to(receiver.url, tmp_path)
            reader.start()
            receiver.wait_for(1)
            reader.shutdown()
        assert totals(receiver.requests) == [5] * others
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("is_up", [True, False])
def test_a_process_that_ends_leaves_its_sums_only_if_the_last_export_failed(tmp_path: Path, is_up: bool) -> None:
    """If the last export of a process failed, the next process exports its sums."""
    with http_receiver() as receiver:
        reader = reader_to(receiver.url, tmp_path)
        reader.start()
        counter = reader.instruments.create_counter("c")
        counter.add(5, {}, NO_SPAN)
        reader.force_flush()
        counter.add(1, {}, NO_SPAN)
        if not is_up:
            receiver.answer_next(Reply(400))
        reader.shutdown()
        counter.add(1, {}, NO_SPAN)  # too late, which does no harm
    left = [exported(left.items) for left in left_sums(str(tmp_path))]
    assert len(left) == (0 if is_up else 1)
    assert is_up or left[0][0].scope_metrics[0].metrics[0].sum.data_points[0].as_int == 6


def test_sums_of_an_interval_are_kept_until_it_is_exported(tmp_path: Path) -> None:
    """In delta temporality a kill costs no interval that is on its way, and repeats none that has arrived."""
    own = keeping(tmp_path, is_delta=True)
    counter = own.create_counter("c")
    for amount in (1, 2):
        counter.add(amount, {}, NO_SPAN)
        own.collect()
        left = [point.as_int for group in exported(left_after_a_kill(str(tmp_path))) for point in points(group)]
        assert left == [amount]
        own.exported()
    counter.add(4, {}, NO_SPAN)
    own.end(is_exported=True)  # this was measured after the last export
    [last] = left_sums(str(tmp_path))
    assert [point.as_int for point in points(exported(last.items)[0])] == [4]


def points(group: ResourceMetrics) -> list[Any]:
    return [point for scope in group.scope_metrics for metric in scope.metrics for point in metric.sum.data_points]


FORKED = """
import json, os, sys
from tests.test_kept_sums import RESOURCE, keeping
from opentelemetry.sdk.resources import Resource
from tracemind_otel.otel.export.kept_sums import KeptSums
from tracemind_otel.otel.export.otlp_values import resource_fields
from tracemind_otel.otel.instruments import NO_SPAN
from tracemind_otel.otel.setup.aggregation import OwnInstruments

sums = KeptSums(sys.argv[1], resource_fields(RESOURCE))
own = OwnInstruments(is_delta=False, sums=sums)
counter = own.create_counter("c")
counter.add(5, {}, NO_SPAN)
if os.fork() == 0:
    own.begin_anew()
    sums.begin_anew(resource_fields(Resource({"service.name": "child"})))
    counter.add(1, {}, NO_SPAN)
    os._exit(0)
os.wait()
counter.add(2, {}, NO_SPAN)
os._exit(0)
"""


@pytest.mark.slow
def test_a_forked_child_keeps_its_own_sums(tmp_path: Path) -> None:
    """Parent and forked child keep separate sums, each under its own resource."""
    assert run_program(FORKED, tmp_path).returncode == 0
    groups = [group for left in left_sums(str(tmp_path)) for group in exported(left.items)]
    found = {group.resource.attributes[0].value.string_value: points(group)[0].as_int for group in groups}
    assert found == {"test": 7, "child": 1}


# --- The disk ---


def test_measuring_goes_on_where_nothing_can_be_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that cannot be made is said once, with what to do."""
    (tmp_path / "file").write_text("")
    own = keeping(tmp_path / "file" / "sums")
    counter = own.create_counter("c")
    histogram = own.create_histogram("h", explicit_bucket_boundaries_advisory=BOUNDARIES)
    for number in range(3):
        counter.add(1, {"number": number}, NO_SPAN)
        histogram.record(1, {"number": number}, NO_SPAN)
    collected = own.collect()
    assert collected is not None
    assert len(collected.metrics) == 2
    own.end(is_exported=False)
    [message] = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "file" / "sums") in message
    assert "TRACEMIND_SPOOL_DIR" in message


def test_many_series_have_many_files_which_only_this_user_reads(tmp_path: Path) -> None:
    """Sums of many series are all found by the next process, and their files are private, whatever the umask is."""
    before = os.umask(0)
    try:
        own = keeping(tmp_path)
        counter = own.create_counter("c")
        for number in range(1500):
            counter.add(number, {"number": number, "padding": "x" * 200}, NO_SPAN)
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 2
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    finally:
        os.umask(before)
    groups = exported(left_after_a_kill(str(tmp_path)))
    assert sorted(point.as_int for group in groups for point in points(group)) == [*range(1500)]
    own.end(is_exported=True)


@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=60)
def test_a_damaged_file_breaks_nothing(place: float, byte: int) -> None:
    """Whatever one byte of it becomes, the rest is read, or it is said that it cannot be."""
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as copy:
        own = keeping(directory)
        own.create_counter("c").add(5, {"a": "b"}, NO_SPAN)
        own.create_histogram("h", explicit_bucket_boundaries_advisory=BOUNDARIES).record(5, {"a": "b"}, NO_SPAN)
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        own.end(is_exported=True)
        [file] = Path(copy).glob("*/sums-*")
        data = bytearray(file.read_bytes())
        used = data.rindex(b"[") + 400
        data[int(place * used)] = byte
        file.write_bytes(data)
        assert all(isinstance(left, LeftSums) for left in left_sums(copy))


def test_sums_that_nobody_exports_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A process that crashes again and again, without a receiver, does not fill the disk."""
    for number in range(1010):
        (tmp_path / f"{10**18 + number}-1").mkdir()
    own = keeping(tmp_path)
    own.create_counter("c").add(5, {}, NO_SPAN)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 1001
    assert names[0] == f"{10**18 + 10}-1", "the oldest are deleted"
    assert "10 processes" in caplog.text
    own.end(is_exported=True)


def test_garbage_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is none of ours, or damaged at its beginning, is named, and deleted."""
    own = keeping(tmp_path / "own")
    own.create_counter("c").add(5, {}, NO_SPAN)
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    own.end(is_exported=True)
    [file] = (tmp_path / "copy").glob("*/sums-*")
    file.write_bytes(os.urandom(100))
    assert [*left_sums(str(tmp_path / "copy"))] == []
    assert [str(file) in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        True
    ]
    assert [*(tmp_path / "copy").iterdir()] == []


def test_amounts_beyond_a_double_are_kept_as_infinite(tmp_path: Path) -> None:
    """An integer of hundreds of digits harms neither the sum nor what is kept."""
    own = keeping(tmp_path)
    own.create_counter("c").add(10**400, {}, NO_SPAN)
    [group] = exported(left_after_a_kill(str(tmp_path)))
    assert points(group)[0].as_double == float("inf")
    own.end(is_exported=True)
