"""Spools keep each item once, in order, until it is settled, and no more bytes than they may."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.spooling import SMALLEST, drained, numbered, numbers
from tracemind_otel.otel.export.disk_spool import DiskSpool
from tracemind_otel.otel.export.otlp_request import Item, request_body
from tracemind_otel.otel.export.spool import MemorySpool, Spool

kinds = pytest.mark.parametrize("kind", ["memory", "disk"])


def made(kind: str, directory: str, max_bytes: int) -> Spool:
    return DiskSpool(directory, max_bytes) if kind == "disk" else MemorySpool(max_bytes)


def room(kind: str) -> AbstractContextManager[str]:
    """A directory for a spool that needs one."""
    return tempfile.TemporaryDirectory() if kind == "disk" else nullcontext("")


appends = st.tuples(st.just("append"), st.integers(SMALLEST, 400), st.integers(1, 3))
takes = st.tuples(st.just("take"), st.integers(1, 1000), st.integers(1, 5))
operations = st.lists(
    st.one_of(appends, takes, st.sampled_from([("settle", 0, 0), ("give back", 0, 0), ("reopen", 0, 0)])), max_size=60
)


@kinds
@given(operations=operations)
@settings(deadline=None)
def test_a_spool_is_a_queue_whose_items_stay_until_they_are_settled(
    kind: str, operations: list[tuple[str, int, int]]
) -> None:
    """Whatever the order of appends, takes, settlements and returns: no item is lost, twice, or out of order."""
    with room(kind) as directory:
        spool = made(kind, directory, 1 << 20)
        waiting, number, batch = list[Item](), 0, None
        for name, first, second in operations:
            if name == "append":
                waiting.append(numbered(number := number + 1, first, second))
                spool.append(waiting[-1])
            elif name == "take" and batch is None:
                batch = spool.take(first, second)
                assert (batch is None) == (not waiting)
                if batch is not None:
                    assert list(batch.items) == waiting[: len(batch.items)]
                    assert len(batch.items) == 1 or batch.byte_size <= first
                    assert len(batch.items) <= second
                    assert len(request_body(batch.items)) <= batch.byte_size
                    assert batch.count == sum(item.count for item in batch.items)
            elif name == "settle" and batch is not None:
                spool.settle(batch)
                del waiting[: len(batch.items)]
                batch = None
            elif name == "give back" and batch is not None:
                spool.give_back(batch)
                batch = None
            elif name == "reopen" and kind == "disk":
                spool.close()
                spool, batch = DiskSpool(directory, 1 << 20), None
                spool.adopt()  # what the closed one left
            assert spool.waiting == sum(item.count for item in waiting)
            assert spool.dropped == 0
        if batch is not None:
            spool.give_back(batch)
        assert drained(spool) == waiting
        assert spool.waiting == 0
        spool.close()


@kinds
@given(sizes=st.lists(st.integers(SMALLEST, 3000), max_size=60), taken=st.integers(0, 60))
@settings(deadline=None)
def test_a_full_spool_drops_its_oldest_items_and_counts_them(kind: str, sizes: list[int], taken: int) -> None:
    """A full spool keeps the newest items; what was taken before is not dropped; the counts add up."""
    with room(kind) as directory:
        spool = made(kind, directory, 20_000)
        batch = None
        for number, size in enumerate(sizes):
            if number == taken:
                batch = spool.take(500, 5)
            spool.append(numbered(number, size))
        held = numbers(list(batch.items)) if batch is not None else []
        assert spool.waiting + spool.dropped == len(sizes)
        if batch is not None:
            spool.give_back(batch)
        left = numbers(drained(spool))
        assert left[: len(held)] == held
        assert left == sorted({*left})
        if kind == "memory" or not held:  # else the rest of the file that is being sent stays too
            newest = left[len(held) :]
            assert newest == list(range(len(sizes)))[len(sizes) - len(newest) :]
        assert len(left) == len(sizes) - spool.dropped
        assert spool.dropped == 0 or sum(sizes) > 10_000
        spool.close()


@kinds
def test_an_item_larger_than_the_spool_is_dropped(kind: str) -> None:
    """An item that no spool can hold is counted as dropped, and no other item is."""
    with room(kind) as directory:
        spool = made(kind, directory, 10_000)
        spool.append(numbered(1, 20_000, count=3))
        assert (spool.waiting, spool.dropped, spool.take(1 << 20, 10)) == (0, 3, None)
        spool.close()


@kinds
def test_an_item_larger_than_a_request_is_taken_alone(kind: str) -> None:
    """An item above the limit of a request is taken alone, so that the sender learns whether the receiver takes it."""
    with room(kind) as directory:
        spool = made(kind, directory, 1 << 24)
        for number, size in enumerate((300_000, 20, 300_000)):
            spool.append(numbered(number, size))
        assert [settled(spool, 1000) for _ in range(4)] == [[0], [1], [2], []]
        spool.close()


def settled(spool: Spool, max_bytes: int) -> list[int]:
    """The numbers of one batch, which is settled."""
    batch = spool.take(max_bytes, 10)
    if batch is None:
        return []
    spool.settle(batch)
    return numbers(batch.items)


@kinds
def test_threads_append_while_another_sends(kind: str) -> None:
    """Each item of each thread is taken once, in the order in which its thread appended it."""
    with room(kind) as directory:
        spool = made(kind, directory, 1 << 24)

        def append(first: int) -> None:
            for number in range(first, first + 500):
                spool.append(numbered(number))

        threads = [threading.Thread(target=append, args=(first,)) for first in range(0, 4000, 500)]
        for thread in threads:
            thread.start()
        taken = list[Item]()
        while any(thread.is_alive() for thread in threads):
            taken += drained(spool)
        taken += drained(spool)
        for thread in threads:
            thread.join()
        assert sorted(numbers(taken)) == list(range(4000))
        for first in range(0, 4000, 500):
            assert [n for n in numbers(taken) if first <= n < first + 500] == list(range(first, first + 500))
        spool.close()


@pytest.fixture
def every_millisecond() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Runs a function in a signal handler again and again, until the test ends."""
    before = signal.getsignal(signal.SIGALRM)

    def begin(interrupt: Callable[[], object]) -> None:
        def handle(number: int, frame: object) -> None:
            interrupt()

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)

    yield begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@kinds
def test_a_signal_handler_appends_in_the_middle_of_an_append(
    kind: str, every_millisecond: Callable[[Callable[[], object]], None]
) -> None:
    """A signal handler that interrupts an append may append too: both items are kept, and nothing deadlocks."""
    with room(kind) as directory:
        spool = made(kind, directory, 1 << 26)
        interruptions = iter(range(1_000_000, 2_000_000))
        interrupted = list[int]()

        def interrupt() -> None:
            interrupted.append(next(interruptions))
            spool.append(numbered(interrupted[-1]))

        every_millisecond(interrupt)
        taken, number = list[Item](), 0
        while len(interrupted) < 100:
            spool.append(numbered(number))
            number += 1
            if number % 100 == 0:
                taken += drained(spool)
        signal.setitimer(signal.ITIMER_REAL, 0)
        taken += drained(spool)
        assert sorted(numbers(taken)) == [*range(number), *interrupted]
        spool.close()


def test_a_child_begins_empty() -> None:
    """After a fork the items belong to the parent, and so does a batch that was taken."""
    spool = MemorySpool()
    spool.append(numbered(1))
    spool.append(numbered(2))
    batch = spool.take(1 << 20, 1)
    assert batch is not None
    spool.begin_anew()
    spool.settle(batch)
    assert (spool.waiting, spool.dropped, spool.take(1 << 20, 1)) == (0, 0, None)
    spool.append(numbered(3))
    assert spool.waiting == 1
