"""Spans for the tests of spools, told apart by their numbers, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable

from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from tracemind_otel.otel.export import disk_spool
from tracemind_otel.otel.export.disk_spool import DiskSpool
from tracemind_otel.otel.export.otlp_request import Item
from tracemind_otel.otel.export.spool import Spool

RESOURCES = (b"\x0a\x00", b"\x0a\x02\x10\x01")
SCOPES = (b"\x0a\x03\x0a\x01s", b"")
SMALLEST = 34


def numbered(number: int, size: int = SMALLEST, count: int = 1) -> Item:
    """An encoded span of about this size, whose id is the number."""
    span = Span(trace_id=b"t" * 16, span_id=number.to_bytes(8, "big"), name="." * max(size - SMALLEST, 0))
    record = ScopeSpans(spans=[span]).SerializeToString()
    return Item(RESOURCES[number % 2], SCOPES[number // 2 % 2], record, count)


def spans(items: Iterable[Item]) -> list[Span]:
    """The spans of these items, in order."""
    return [span for item in items for span in ScopeSpans.FromString(item.record).spans]


def numbers(items: Iterable[Item]) -> list[int]:
    """The numbers of these items, in order."""
    return [int.from_bytes(span.span_id, "big") for span in spans(items)]


def drained(spool: Spool, max_items: int = 100) -> list[Item]:
    """Everything that waits, taken and settled."""
    items = list[Item]()
    while (batch := spool.take(1 << 20, max_items)) is not None:
        items += batch.items
        spool.settle(batch)
    return items


# --- Processes ---


def forked(work: Callable[[int], object]) -> tuple[int, int]:
    """Run a function in a child, which ends without any clean-up; returns its process and what it reports to."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reading)
            work(writing)
        finally:
            os._exit(0)
    os.close(writing)
    return process, reading


def ended(process: int) -> None:
    os.waitpid(process, 0)


def read_all(descriptor: int) -> bytes:
    """What is reported until everybody has closed the other end."""
    with open(descriptor, "rb") as file:
        return file.read()


def tell(report: int, what: str, *told: int) -> None:
    os.write(report, f"{what} {' '.join(map(str, told))}\n".encode())


def work_until_killed(root: str, first: int, seed: int) -> Callable[[int], None]:
    """Start spans, append them, send what waits, and say before and after each step what is done."""

    def work(report: int) -> None:
        chance = random.Random(seed)
        disk_spool.SEGMENT_BYTES = 1 << 15
        spool = DiskSpool(root)
        spool.adopt()
        for number in range(first, first + 3000):
            if number % 3 == 0:
                spool.append_start(number.to_bytes(8, "big"), numbered(number))
                tell(report, "started", number)
            if number % 9:
                spool.append(numbered(number, chance.randint(40, 400)))
                tell(report, "kept", number)
            if number % 40 == 39:
                batch = spool.take(1 << 16, chance.randint(1, 60))
                if batch is not None and chance.random() < 0.2:
                    spool.give_back(batch)
                elif batch is not None:
                    tell(report, "sent", *numbers(batch.items))
                    spool.settle(batch)
                    tell(report, "settled", *numbers(batch.items))
        time.sleep(60)

    return work


def killed(process: int, report: int, after: int) -> list[tuple[str, list[int]]]:
    """Kill a process when it has reported so many bytes; returns everything that it reported."""
    read = b""
    while len(read) < after and (more := os.read(report, 4096)):
        read += more
    os.kill(process, signal.SIGKILL)
    read += read_all(report)
    ended(process)
    lines = [line.split() for line in read.decode().splitlines(keepends=True) if line.endswith("\n")]
    return [(what, [*map(int, told)]) for what, *told in lines]
