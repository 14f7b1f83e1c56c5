"""The sender brings what waits in a spool to its receiver, and says what arrived, what is lost and what is unknown."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.context import get_value
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from tests.programs import run_program
from tests.servers.fixture import closed_port
from tests.servers.scripted_receiver import TAKES, Receiver, Reply, Request, grpc_receiver, http_receiver
from tracemind_otel.otel.export.answers import Answer, Delivered, Later, Refused, TooLarge, Transport, Unknown, ignore
from tracemind_otel.otel.export.delivery_stats import SpoolStats
from tracemind_otel.otel.export.disk_spool import DiskSpool
from tracemind_otel.otel.export.otlp_options import otlp_options
from tracemind_otel.otel.export.otlp_request import MAX_REQUEST_BYTES, Item
from tracemind_otel.otel.export.pace import exponential_s
from tracemind_otel.otel.export.sender import Sender
from tracemind_otel.otel.export.spool import MemorySpool
from tracemind_otel.otel.export.transports import make_transport

SECRET = "Zq81LmmT0x9vB3"
RECEIVERS: dict[str, Callable[..., AbstractContextManager[Receiver]]] = {
    "http/protobuf": http_receiver,
    "grpc": grpc_receiver,
}


def span_id(number: int) -> bytes:
    return number.to_bytes(8)


def item(number: int, size: int = 0) -> Item:
    """One span, with a name of about so many bytes."""
    span = Span(span_id=span_id(number), trace_id=bytes(15) + b"t", name="s" * size)
    return Item(b"", b"", ScopeSpans(spans=[span]).SerializeToString())


@dataclass
class Sending:
    """A sender, its spool, and what it counts."""

    spool: MemorySpool
    stats: SpoolStats
    sender: Sender

    def append(self, *numbers: int, size: int = 0) -> None:
        """Keep spans, as their ends do."""
        for number in numbers:
            made = item(number, size)
            self.spool.append(made)
            self.sender.notify(len(made.record))


@contextmanager
def sending(
    transport: Transport, *, destination: str = "the receiver", max_spool: int = 2**26, **options: Any
) -> Generator[Sending]:
    """A sender that runs; it waits for a minute before it sends a batch that is not full."""
    spool = MemorySpool(max_spool)
    stats = SpoolStats(destination, spool)
    settled: dict[str, Any] = {"name": "test-sender", "delay_s": 60.0, **options}
    sender = Sender(spool, transport, stats, **settled)
    sender.start()
    try:
        yield Sending(spool, stats, sender)
    finally:
        sender.shutdown(0.0)


@contextmanager
def sending_to(receiver: Receiver, protocol: str = "http/protobuf", **options: Any) -> Generator[Sending]:
    """The same, to a receiver, with attempts that follow each other at once."""
    settled: dict[str, Any] = {"wait_s": at_once, "destination": receiver.url, **options}
    with sending(transport_to(receiver.url, protocol), **settled) as made:
        yield made


def transport_to(url: str, protocol: Any = "http/protobuf") -> Transport:
    return make_transport("traces", protocol, url, {"api-key": SECRET}, otlp_options("traces", protocol, url))


def at_once(failures: int) -> float:
    """The wait between two attempts."""
    return 0.01


def no_wait(failures: int) -> float:
    return 0.0


def ids(*numbers: int) -> list[bytes]:
    return [*map(span_id, numbers)]


def rejecting(count: int, message: str) -> Reply:
    """A request that is taken, but for some of its spans."""
    partial = ExportTracePartialSuccess(rejected_spans=count, error_message=message)
    return Reply(body=ExportTraceServiceResponse(partial_success=partial).SerializeToString())


# --- When it sends ---


def test_a_full_batch_is_sent_at_once() -> None:
    """As soon as a batch is full it is sent; what is left over waits for the delay."""
    with http_receiver() as receiver, sending_to(receiver, max_items=10) as made:
        made.append(*range(25))
        assert [len(request.span_ids) for request in receiver.wait_for(2)] == [10, 10]
        assert made.sender.flush(20)
        assert receiver.span_ids() == ids(*range(25))
        assert len(receiver.requests) == 3


def test_a_batch_that_is_not_full_is_sent_after_the_delay() -> None:
    """Nobody has to flush: a single span leaves when the delay is over."""
    with http_receiver() as receiver, sending_to(receiver, delay_s=0.05) as made:
        made.append(1)
        assert receiver.wait_for(1)[0].span_ids == ids(1)


def test_large_spans_do_not_wait_for_a_full_batch() -> None:
    """A few large spans fill a request by their bytes, which is sent at once too, or they would fill the spool."""
    with http_receiver() as receiver, sending_to(receiver) as made:
        made.append(*range(50), size=100_000)
        assert len(receiver.wait_for(1)[0].body) > 3_800_000


def test_flush_sends_what_waits() -> None:
    """A flush sends at once, over one connection, in the order of the ends."""
    with http_receiver() as receiver, sending_to(receiver, max_items=10) as made:
        made.append(*range(35))
        assert made.sender.flush(20)
        assert receiver.span_ids() == ids(*range(35))
        assert len({request.client for request in receiver.requests}) == 1
        assert made.stats.loss() is None


def test_flush_of_nothing() -> None:
    """A flush when nothing waits is true, and asks nobody."""
    with sending(transport_to(f"http://127.0.0.1:{closed_port()}")) as made:
        assert made.sender.flush(20)
        assert made.sender.shutdown(20)


def test_a_flush_while_the_process_works_on() -> None:
    """A flush ends when what waited has arrived, also if more comes all the time."""
    stop = threading.Event()
    with http_receiver() as receiver, sending_to(receiver, max_items=50) as made:

        def work() -> None:
            for number in range(1_000_000):
                made.append(number)
                if stop.wait(0.0001):
                    return

        worker = threading.Thread(target=work)
        worker.start()
        receiver.wait_for(1)
        try:
            assert made.sender.flush(20)
        finally:
            stop.set()
            worker.join()


def test_requests_stay_below_the_limit_of_grpc() -> None:
    """Batches are cut by bytes too, below the 4 MiB that a gRPC receiver takes."""
    with grpc_receiver() as receiver, sending_to(receiver, "grpc") as made:
        made.append(*range(100), size=100_000)
        assert made.sender.flush(20)
        assert receiver.span_ids() == ids(*range(100))
        assert all(len(request.body) <= MAX_REQUEST_BYTES for request in receiver.requests)


def test_no_instrumentation_sees_the_requests() -> None:
    """While it sends, the key is set that keeps instrumentations of HTTP clients from making spans."""
    seen = list[object]()
    transport = ScriptedTransport([], on_send=lambda: seen.append(get_value("suppress_instrumentation")))
    with sending(transport) as made:
        made.append(1)
        assert made.sender.flush(20)
    assert seen == [True]


# --- Answers ---


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_receiver_that_cannot_now(status: int) -> None:
    """After a status that says `later` the same request is sent again, and nothing is lost."""
    with http_receiver(Reply(status), Reply(status)) as receiver, sending_to(receiver) as made:
        made.append(1, 2)
        assert made.sender.flush(20)
        assert [request.span_ids for request in receiver.requests] == [ids(1, 2)] * 3
        assert made.stats.loss() is None


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(status: int) -> None:
    """The receiver says how long to wait, and no request comes earlier, not even for a full batch."""
    with (
        http_receiver(Reply(status, headers={"retry-after": "0.4"})) as receiver,
        sending_to(receiver, max_items=2) as made,
    ):
        made.append(1, 2)
        receiver.wait_for(1)
        made.append(3, 4, 5, 6)
        first, second = receiver.wait_for(2)
        assert second.came_at - first.came_at >= 0.4
        assert first.body == second.body


def test_the_waits_grow_and_differ() -> None:
    """A receiver that is away is asked less often, never later than after some seconds, and not by all at once."""
    waits = [[exponential_s(failures) for _ in range(50)] for failures in (1, 2, 3, 4, 5, 50, 5000)]
    assert [round(sum(each) / 50) for each in waits[:3]] == [1, 2, 4]
    assert all(0.75 <= min(each) <= max(each) <= 12.5 for each in waits)
    assert all(len(set(each)) > 1 for each in waits)


def test_retry_after_of_nothing() -> None:
    """A receiver that asks for no wait, and is busy all the same, is not asked without any pause."""

    def pause(failures: int) -> float:
        return 0.2

    busy = Reply(503, headers={"retry-after": "0"})
    with http_receiver(busy, busy) as receiver, sending_to(receiver, max_items=2, wait_s=pause) as made:
        made.append(1, 2)
        first, second, third = receiver.wait_for(3)
        assert second.came_at - first.came_at >= 0.2
        assert third.came_at - second.came_at >= 0.2


def test_retry_after_has_no_limit() -> None:
    """A wait of an hour is kept: the spans stay, a flush asks once and then says that they have not arrived."""
    hour = Reply(503, headers={"retry-after": "3600"})
    with http_receiver(hour, hour) as receiver, sending_to(receiver, max_items=2) as made:
        made.append(1, 2)
        receiver.wait_for(1)
        assert not made.sender.flush(20)
        assert len(receiver.requests) == 2
        assert made.spool.waiting == 2
        assert made.sender.flush(20)
        assert receiver.span_ids()[-2:] == ids(1, 2)
        assert made.stats.loss() is None


def test_a_collector_that_is_started_late() -> None:
    """Spans that nobody listened for arrive as soon as somebody does."""
    receiver_url = f"http://127.0.0.1:{closed_port()}/v1/traces"
    spool = MemorySpool()
    stats = SpoolStats(receiver_url, spool)
    switched = SwitchedTransport(transport_to(receiver_url))
    sender = Sender(spool, switched, stats, name="test-sender", max_items=3, wait_s=at_once)
    sender.start()
    for number in range(3):
        spool.append(item(number))
    sender.notify()
    assert switched.failed.wait(20)
    assert "3 of 3 spans" in (stats.loss() or "")
    with http_receiver() as receiver:
        switched.transport = transport_to(receiver.url)
        assert receiver.wait_for(1)[0].span_ids == ids(0, 1, 2)
        assert sender.shutdown(20)
    assert stats.loss() is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "400 Bad Request"),
        (401, "401 Unauthorized: the key in the headers is probably missing or wrong"),
        (403, "403 Forbidden: the key in the headers is probably missing or wrong"),
        (404, "404 Not Found: no OTLP receiver has this path"),
        (500, "500 Internal Server Error"),
        (302, "the answer is 302, a redirect, which is not followed"),
    ],
)
def test_a_receiver_that_never_will(status: int, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """A permanent refusal is not repeated: its spans are counted and said once, and the next ones are sent."""
    with http_receiver(Reply(status), Reply(status)) as receiver, sending_to(receiver) as made:
        made.append(1, 2)
        assert not made.sender.flush(20)
        made.append(3)
        assert not made.sender.flush(20)
        made.append(4, 5)
        assert made.sender.flush(20)
        assert [request.span_ids for request in receiver.requests] == [ids(1, 2), ids(3), ids(4, 5)]
        assert made.stats.loss() == f"3 of 5 spans did not reach {receiver.url} ({reason})"
        assert not made.sender.shutdown(20)
    said = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert said == [f"Failed to export spans: {receiver.url} refused 2 spans, which are lost: {reason}"]


def test_a_loss_between_two_flushes_is_told_by_the_second() -> None:
    """A batch that is refused in the background makes the next flush false, and only that one."""
    with http_receiver(Reply(400)) as receiver, sending_to(receiver, max_items=2) as made:
        made.append(1, 2)
        receiver.wait_for(1)
        assert not made.sender.flush(20)
        assert made.sender.flush(20)


def test_a_part_that_is_rejected(caplog: pytest.LogCaptureFixture) -> None:
    """What a receiver rejects of a request that it takes is lost, and is said with its reason and without the key."""
    with http_receiver(rejecting(2, f"name\ntoo long, key {SECRET}")) as receiver, sending_to(receiver) as made:
        made.append(1, 2, 3)
        assert not made.sender.flush(20)
        assert len(receiver.requests) == 1
        reason = "name too long, key [redacted]"
        assert made.stats.loss() == f"2 of 3 spans did not reach {receiver.url} ({reason})"
    assert f"{receiver.url} rejected 2 spans: {reason}" in caplog.text
    assert SECRET not in caplog.text


def test_a_part_that_is_rejected_over_grpc() -> None:
    """Over gRPC the answer is read too."""
    with grpc_receiver(rejecting(1, "no")) as receiver, sending_to(receiver, "grpc") as made:
        made.append(1, 2, 3)
        assert not made.sender.flush(20)
        assert made.stats.loss() == f"1 of 3 spans did not reach {receiver.url} (no)"


def test_a_warning_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A receiver's message without a rejection is said, and nothing is lost."""
    with http_receiver(rejecting(0, "use the new endpoint")) as receiver, sending_to(receiver) as made:
        made.append(1)
        assert made.sender.flush(20)
    assert "use the new endpoint" in caplog.text


# --- Sizes ---


def limit(max_bytes: int) -> Callable[[Request], Reply]:
    return lambda request: Reply(413) if len(request.body) > max_bytes else TAKES


def test_a_receiver_with_a_limit_of_its_own() -> None:
    """After 413 requests are halved until they fit: every span arrives once, and later requests fit at once."""
    with http_receiver(script=limit(50_000)) as receiver, sending_to(receiver) as made:
        made.append(*range(300), size=1000)
        assert made.sender.flush(20)
        taken = [request for request in receiver.requests if len(request.body) <= 50_000]
        assert receiver.span_ids(taken) == ids(*range(300))
        too_large = len(receiver.requests) - len(taken)
        assert 0 < too_large < 10
        assert made.stats.loss() is None


def test_a_grpc_receiver_with_a_limit_of_its_own() -> None:
    """After RESOURCE_EXHAUSTED with a size, which is how gRPC servers say 413, requests are halved until they fit."""
    too_large = Reply("RESOURCE_EXHAUSTED", message="grpc: received message larger than max (99999 vs. 50000)")
    with (
        grpc_receiver(script=lambda request: too_large if len(request.body) > 50_000 else TAKES) as receiver,
        sending_to(receiver, "grpc") as made,
    ):
        made.append(*range(300), size=1000)
        assert made.sender.flush(20)
        taken = [request for request in receiver.requests if len(request.body) <= 50_000]
        assert receiver.span_ids(taken) == ids(*range(300))


def test_a_receiver_that_cuts_what_is_too_large() -> None:
    """Some receivers do not answer a large request, and cut it: after three attempts smaller ones arrive."""

    def cut(request: Request) -> Reply:
        return Reply(behaviour="cuts before answering") if len(request.body) > 200_000 else TAKES

    with http_receiver(script=cut) as receiver, sending_to(receiver) as made:
        made.append(*range(300), size=1000)
        assert made.sender.flush(20)
        large = [request for request in receiver.requests if len(request.body) > 200_000]
        assert len({request.body for request in large[:3]}) == 1
        taken = [request for request in receiver.requests if len(request.body) <= 200_000]
        assert receiver.span_ids(taken) == ids(*range(300))
        assert made.stats.loss() is None


def test_one_span_that_is_too_large() -> None:
    """A span that no request can carry is lost alone, and those around it arrive."""
    with http_receiver(script=limit(50_000)) as receiver, sending_to(receiver) as made:
        made.append(*range(50), size=1000)
        made.append(50, size=60_000)
        made.append(*range(51, 100), size=1000)
        assert not made.sender.flush(20)
        taken = [request for request in receiver.requests if len(request.body) <= 50_000]
        assert receiver.span_ids(taken) == ids(*range(50), *range(51, 100))
        assert made.stats.loss() == f"1 of 100 spans did not reach {receiver.url} (413 Request Entity Too Large)"
        assert len(receiver.requests) < 20


def test_a_full_spool_drops_the_oldest_and_says_so() -> None:
    """What is dropped at the bound is counted, and the newest spans arrive when the receiver is back."""
    gate = GatedTransport()
    with sending(gate, max_spool=100_000, max_items=10) as made:
        made.append(*range(10), size=1000)
        assert gate.entered.wait(20)
        made.append(*range(10, 300), size=1000)
        gate.opened.set()
        assert not made.sender.flush(20)
        arrived = [each for body in gate.bodies for each in Request("", {}, body, 0, None).span_ids]
        lost = 300 - len(arrived)
        assert arrived == ids(*range(10), *range(10 + lost, 300))
        assert lost > 100
        assert made.stats.loss() == (
            f"{lost} of 300 spans did not reach the receiver (dropped, because the spool was full)"
        )


# --- What is unknown ---


@pytest.mark.parametrize("behaviour", ["cuts before answering", "cuts before reading"])
def test_a_connection_that_is_cut(behaviour: Any) -> None:
    """A request without an answer is sent again, byte for byte, so that a receiver can tell it was the same."""
    with http_receiver(Reply(behaviour=behaviour)) as receiver, sending_to(receiver) as made:
        made.append(1, 2)
        assert made.sender.flush(20)
        assert set(receiver.span_ids()) == {*ids(1, 2)}
        assert len({request.body for request in receiver.requests}) == 1
        assert made.stats.loss() is None


def test_an_answer_that_is_cut_is_an_answer() -> None:
    """The status says that the request was taken, so it is not sent again."""
    with http_receiver(Reply(behaviour="cuts the answer")) as receiver, sending_to(receiver) as made:
        made.append(1, 2)
        assert made.sender.flush(20)
        assert receiver.span_ids() == ids(1, 2)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_that_does_not_answer(protocol: str) -> None:
    """Spans of a request without an answer are not called lost: they may have arrived. The others are lost."""
    hangs = Reply(behaviour="hangs")
    with (
        RECEIVERS[protocol](hangs, hangs, hangs) as receiver,
        sending_to(receiver, protocol, timeout_s=0.3, max_items=2) as made,
    ):
        made.append(1, 2, 3)
        receiver.wait_for(1)
        assert not made.sender.shutdown(0.2)
        told = made.stats.loss()
    assert told is not None
    assert "1 of 3 spans did not reach" in told
    assert "2 of 3 spans may or may not have arrived at" in told


def test_a_request_that_was_never_sent() -> None:
    """While TLS is not agreed on nothing has been sent, so at the end the spans are lost and not in doubt."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        with sending(transport_to(url), destination=url, max_items=2, timeout_s=60.0) as made:
            made.append(1, 2)
            connection, _ = silent.accept()
            with connection:
                assert not made.sender.shutdown(0.1)
                assert made.stats.loss() == f"2 of 2 spans did not reach {url} (not sent)"


def test_unknown_then_refused() -> None:
    """A request that is refused the second time may have arrived the first time, so it is not called lost."""
    with sending(ScriptedTransport([Unknown("cut"), Refused("400")]), wait_s=at_once) as made:
        made.append(1, 2)
        assert not made.sender.flush(20)
        assert made.stats.loss() == "2 of 2 spans may or may not have arrived at the receiver (400)"


def test_unknown_then_too_large() -> None:
    """The halves of such a request are in doubt too, until they arrive."""
    answers: list[Answer] = [Unknown("cut"), TooLarge("413"), Refused("400")]
    with sending(ScriptedTransport(answers), wait_s=at_once) as made:
        made.append(1, 2, 3, 4, size=1000)
        assert not made.sender.flush(20)
        told = made.stats.loss()
    assert told is not None
    assert "may or may not have arrived" in told
    assert "did not reach" not in told


# --- The end ---


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_shutdown_without_a_receiver(protocol: str) -> None:
    """If nobody listens, shutdown ends within its time-out and says how many spans are lost, and why."""
    url = f"http://127.0.0.1:{closed_port()}"
    with sending(transport_to(url, protocol), destination=url) as made:
        made.append(*range(30))
        began = time.monotonic()
        assert not made.sender.shutdown(1.0)
        assert time.monotonic() - began < 5.0
        told = made.stats.loss()
    assert told is not None
    assert told.startswith(f"30 of 30 spans did not reach {url} (")
    assert "refused" in told


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_shutdown_while_a_request_hangs(protocol: str) -> None:
    """A request that hangs does not delay the end: shutdown returns when its time is over."""
    hangs = Reply(behaviour="hangs")
    with (
        RECEIVERS[protocol](hangs) as receiver,
        sending_to(receiver, protocol, max_items=2, timeout_s=60.0) as made,
    ):
        made.append(1, 2)
        receiver.wait_for(1)
        began = time.monotonic()
        assert not made.sender.shutdown(0.3)
        assert time.monotonic() - began < 5.0
        assert "2 of 2 spans may or may not have arrived" in (made.stats.loss() or "")


def test_shutdown_sends_what_waits() -> None:
    """The last spans are sent, and the thread ends."""
    with http_receiver() as receiver, sending_to(receiver, name="ends") as made:
        made.append(1, 2)
        assert made.sender.shutdown(20)
        assert receiver.span_ids() == ids(1, 2)
        assert "ends" not in {thread.name for thread in threading.enumerate()}
        assert made.sender.shutdown(20)
        assert made.sender.flush(20)


def test_a_second_shutdown_waits_for_the_first() -> None:
    """An answer that comes after the time-out still counts."""
    gate = GatedTransport()
    with sending(gate) as made:
        made.append(1)
        assert not made.sender.shutdown(0.05)
        gate.opened.set()
        assert made.sender.shutdown(20)
        assert made.stats.loss() is None
        assert len(gate.bodies) == 1


def test_shutdown_in_the_middle_of_a_wait() -> None:
    """Shutdown does not sit out the wait between two attempts: it asks once more."""
    transport = ScriptedTransport([Later("busy", after_s=3600.0)])
    with sending(transport, max_items=1) as made:
        made.append(1)
        assert transport.answered.wait(20)
        assert made.sender.shutdown(20)
    assert len(transport.sent) == 2


def test_a_fault_of_the_transport_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on after an exception that nobody expected, and the spans arrive."""
    faults = iter([ValueError("a fault")])

    def fail_once() -> None:
        for fault in faults:
            raise fault

    with sending(ScriptedTransport([], on_send=fail_once), wait_s=at_once) as made:
        made.append(1)
        assert made.sender.flush(20)
    assert "a fault" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_forked_child_sends_its_own(protocol: str) -> None:
    """What waits at the fork is the parent's; the child sends what it appends, over a connection of its own."""
    with RECEIVERS[protocol]() as receiver:
        done = run_program(FORKS, receiver.url, protocol)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["child", "True", "parent", "True"]
        assert sorted(receiver.span_ids()) == ids(1, 2, 3, 4)
        [child] = [request for request in receiver.requests if span_id(3) in request.span_ids]
        assert child.span_ids == ids(3)
        assert child.client not in [request.client for request in receiver.requests if request is not child]


FORKS = """
import os, sys
from tests.test_sender import SpoolStats, MemorySpool, Sender, item, transport_to
spool = MemorySpool()
sender = Sender(spool, transport_to(*sys.argv[1:]), SpoolStats("receiver", spool), name="sender")
sender.start()
spool.append(item(1))
assert sender.flush(20)
spool.append(item(2))
child = os.fork()
if child == 0:
    sender.begin_anew()
    spool.append(item(3))
    print("child", sender.shutdown(20), flush=True)
    os._exit(0)
os.waitpid(child, 0)
spool.append(item(4))
print("parent", sender.shutdown(20), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_fork_in_the_middle_of_a_request(protocol: str) -> None:
    """A request that hangs while the process forks is the parent's alone, and holds up no request of the child."""

    def hang_once(request: Request) -> Reply:
        is_first = request.span_ids == ids(1) and not receiver.released.is_set()
        return Reply(behaviour="hangs") if is_first else TAKES

    with RECEIVERS[protocol](script=hang_once) as receiver:

        def release() -> None:
            receiver.wait_for(2)
            receiver.released.set()

        releasing = threading.Thread(target=release)
        releasing.start()
        done = run_program(FORKS_IN_A_REQUEST, receiver.url, protocol)
        releasing.join()
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["child", "True", "parent", "True"]
        assert [request.span_ids for request in receiver.requests].count(ids(3)) == 1
        assert {*receiver.span_ids()} == {*ids(1, 3, 4)}


FORKS_IN_A_REQUEST = """
import os, sys, time
from tests.test_sender import SpoolStats, MemorySpool, Sender, item, transport_to
spool = MemorySpool()
sender = Sender(spool, transport_to(*sys.argv[1:]), SpoolStats("receiver", spool), name="sender", max_items=1)
sender.start()
spool.append(item(1))
sender.notify()
while not sender.stats.in_doubt:
    time.sleep(0.01)
child = os.fork()
if child == 0:
    sender.begin_anew()
    spool.append(item(3))
    print("child", sender.shutdown(20), flush=True)
    os._exit(0)
os.waitpid(child, 0)
spool.append(item(4))
print("parent", sender.shutdown(20), flush=True)
"""


# --- A spool on disk ---


@contextmanager
def sending_from_disk(directory: Path, transport: Transport, **options: Any) -> Generator[tuple[DiskSpool, Sender]]:
    """A sender whose spool outlives the process."""
    spool = DiskSpool(str(directory))
    stats = SpoolStats("the receiver", spool, kept_in=str(directory))
    sender = Sender(spool, transport, stats, name="test-sender", delay_s=60.0, wait_s=at_once, **options)
    sender.start()
    try:
        yield spool, sender
    finally:
        sender.shutdown(0.0)


def test_what_waits_on_disk_is_not_lost(tmp_path: Path) -> None:
    """At the end without a receiver nothing is called lost: it waits, and the next process sends it as it starts."""
    with sending_from_disk(tmp_path, transport_to(f"http://127.0.0.1:{closed_port()}")) as (spool, sender):
        for number in range(3):
            spool.append(item(number))
        assert not sender.shutdown(0.3)
        assert sender.stats.loss() is None
        assert sender.stats.kept() == f"3 spans wait in {tmp_path} (the receiver: Connection refused)"
    with http_receiver() as receiver, sending_from_disk(tmp_path, transport_to(receiver.url)) as (_, sender):
        assert receiver.wait_for(1)[0].span_ids == ids(0, 1, 2)
        assert sender.shutdown(20)
        assert sender.stats.kept() is None


def test_what_no_disk_took_is_lost(tmp_path: Path) -> None:
    """Where the directory cannot be written, spans wait in memory, and at the end nothing is said to be kept."""
    (tmp_path / "file").touch()
    dead = transport_to(f"http://127.0.0.1:{closed_port()}")
    with sending_from_disk(tmp_path / "file" / "spool", dead) as (spool, sender):
        for number in range(3):
            spool.append(item(number))
        assert not sender.shutdown(0.3)
        assert sender.stats.kept() is None
        assert "3 of 3 spans did not reach" in (sender.stats.loss() or "")


def test_a_flush_of_what_was_taken_over_and_of_what_is_new(tmp_path: Path) -> None:
    """A flush waits for both, however they are ordered."""
    with sending_from_disk(tmp_path, ScriptedTransport([], on_send=fail_always)) as (spool, sender):
        for number in range(50):
            spool.append(item(number))
        sender.shutdown(0.1)
    with http_receiver() as receiver, sending_from_disk(tmp_path, transport_to(receiver.url), max_items=10) as made:
        spool, sender = made
        for number in range(50, 60):
            spool.append(item(number))
        assert sender.flush(20)
        assert {*receiver.span_ids()} >= {*ids(*range(50, 60))}
        assert sender.shutdown(20)
        assert sorted(receiver.span_ids()) == ids(*range(60))


def fail_always() -> None:
    raise OSError("no network")


# --- Transports of the tests ---


class ScriptedTransport:
    """Gives these answers, one a request, and then takes everything."""

    def __init__(self, answers: list[Answer], *, on_send: Callable[[], None] = lambda: None) -> None:
        self.sent: list[bytes] = []
        self.answered = threading.Event()
        self._answers = answers
        self._on_send = on_send

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Answer:
        self._on_send()
        self.sent.append(body)
        self.answered.set()
        return self._answers.pop(0) if self._answers else Delivered()

    def begin_anew(self) -> None:
        pass

    def close(self) -> None:
        pass


class GatedTransport(ScriptedTransport):
    """Takes everything once the gate is open."""

    def __init__(self) -> None:
        super().__init__([])
        self.entered, self.opened = threading.Event(), threading.Event()
        self.bodies: list[bytes] = []

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Answer:
        self.entered.set()
        self.opened.wait(60)
        self.bodies.append(body)
        return super().send(body, timeout_s, on_sending)


class SwitchedTransport(ScriptedTransport):
    """Sends by another transport, which may be replaced."""

    def __init__(self, transport: Transport) -> None:
        super().__init__([])
        self.transport = transport
        self.failed = threading.Event()

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Answer:
        answer = self.transport.send(body, timeout_s, on_sending)
        if not isinstance(answer, Delivered):
            self.failed.set()
        return answer

    def close(self) -> None:
        self.transport.close()


# --- Nothing gets lost on the books ---


class AccountingTransport(ScriptedTransport):
    """Keeps what a receiver would have; after an unknown outcome a coin decides whether it has it."""

    def __init__(self, script: list[tuple[Answer, bool]], rest: Answer) -> None:
        super().__init__([])
        self._script = [*script]
        self._rest = rest
        self.history: list[tuple[list[bytes], Answer, bool]] = []
        """The spans of each request, its answer, and whether they arrived."""

    def send(self, body: bytes, timeout_s: float, on_sending: Callable[[], object] = ignore) -> Answer:
        answer, is_taken = self._script.pop(0) if self._script else (self._rest, False)
        spans = Request("", {}, body, 0.0, None).span_ids
        self.history.append(
            (spans, answer, isinstance(answer, Delivered) or (isinstance(answer, Unknown) and is_taken))
        )
        self.sent.append(body)
        return answer


ANSWERS = st.one_of(
    st.builds(Delivered, st.sampled_from([0, 0, 0, 1, 1000])),
    st.just(Later("busy")),
    st.just(Unknown("cut")),
    st.just(TooLarge("413")),
    st.just(Refused("400")),
)


@settings(max_examples=80, deadline=None)
@given(
    parts=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    script=st.lists(st.tuples(ANSWERS, st.booleans()), max_size=25),
    rest=st.sampled_from([Delivered(), Later("down")]),
)
def test_the_sum_holds(parts: list[int], script: list[tuple[Answer, bool]], rest: Answer) -> None:
    """Whatever is answered, each span is counted once: as arrived, lost or unknown; none that arrived is called lost.

    A span comes a second time only if nobody could know that it had arrived, and then as the same bytes.
    """
    transport = AccountingTransport(script, rest)
    appended = 0
    with sending(transport, max_items=5, wait_s=no_wait) as made:
        for part in parts:
            made.append(*range(appended, appended + part), size=50)
            appended += part
            made.sender.flush(0.02)
        made.sender.shutdown(0.05)
        made.sender.shutdown(20)  # waits for the end of the first
        assert made.stats.accepted == appended
        loss = made.stats.loss() or ""
    lost, unknown = counted(loss, "did not reach"), counted(loss, "may or may not")
    history = transport.history
    delivered = Counter(span for spans, answer, _ in history if isinstance(answer, Delivered) for span in spans)
    rejected = sum(min(answer.rejected, len(spans)) for spans, answer, _ in history if isinstance(answer, Delivered))
    assert delivered.total() - rejected + lost + unknown == appended
    arrived = Counter(span for spans, _, has_arrived in history if has_arrived for span in spans)
    assert len(arrived) <= appended - lost + rejected
    doubted = {span for spans, answer, _ in history if isinstance(answer, Unknown) for span in spans}
    assert {span for span, count in arrived.items() if count > 1} <= doubted
    assert set(delivered.values()) <= {1}
    for number, (_, answer, _) in enumerate(history[:-1]):
        if isinstance(answer, Later | Unknown):
            assert transport.sent[number + 1] == transport.sent[number]


def counted(loss: str, fate: str) -> int:
    """The number in the clause of a message that has this fate."""
    return next((int(clause.split()[0]) for clause in loss.split("; ") if fate in clause), 0)


def test_the_books_are_right_under_load() -> None:
    """Threads append while a receiver fails now and then: at the end all spans have arrived, each once."""
    replies = [Reply(503), TAKES, Reply(429), TAKES] * 5
    with http_receiver(*replies) as receiver, sending_to(receiver, max_items=20, delay_s=0.01) as made:
        threads = [
            threading.Thread(target=made.append, args=range(start, start + 500)) for start in range(0, 2000, 500)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made.sender.shutdown(20)
        assert made.stats.accepted == 2000
        refused = [request.body for request in receiver.requests[:20:2]]
        arrived = Counter(receiver.span_ids()) - Counter(receiver.span_ids(receiver.requests[:20:2]))
        assert arrived == Counter(ids(*range(2000)))
        assert len(refused) == 10
