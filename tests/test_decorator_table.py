"""Every decorator works on every kind of function, however the body ends: one span, nothing else changed."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

import tracemind_otel as tm
from tests.support import Captured, attributes, events, next_call
from tracemind_otel.flows.totals import current_flow

pytestmark = pytest.mark.filterwarnings("error")

DECORATORS: dict[str, tuple[Callable[..., Any], str]] = {
    "flow": (tm.flow, "invoke_workflow work"),
    "agent": (tm.agent, "invoke_agent work"),
    "tool": (tm.tool, "execute_tool work"),
    "step": (tm.step, "work"),
}

Decorate = Callable[[Callable[..., Any]], Callable[..., Any]]


class Probe:
    """What the body and its consumer record, for the checks."""

    def __init__(self, capture: Captured) -> None:
        self.tracer = capture.tracer_provider.get_tracer("the application's")
        self.began_ns: list[int] = []
        self.ended_ns: list[int] = []
        self.was_inside = asyncio.Event()

    def inside(self) -> None:
        """The body opens a span."""
        self.began_ns.append(time.time_ns())
        with self.tracer.start_as_current_span("inside"):
            self.ended_ns.append(time.time_ns())
        self.was_inside.set()

    def between(self) -> None:
        """The consumer opens a span between two items."""
        with self.tracer.start_as_current_span("between"):
            pass


# --- Bodies ---


def function(probe: Probe, error: BaseException | None = None) -> str:
    probe.inside()
    if error is not None:
        raise error
    return "result"


class Service:
    def method(self, probe: Probe, error: BaseException | None = None) -> str:
        return function(probe, error)

    async def async_method(self, probe: Probe, error: BaseException | None = None) -> str:
        return await coroutine(probe, error)


async def coroutine(probe: Probe, error: BaseException | None = None, *, hangs: bool = False) -> str:
    probe.inside()
    await asyncio.sleep(0)
    if hangs:
        await asyncio.Event().wait()
    return function(probe, error)


def generator(
    probe: Probe, error: BaseException | None = None, *, catches: bool = False
) -> Generator[int, object, str]:
    try:
        for item in range(3):
            probe.inside()
            try:
                yield item
            except KeyError:
                if not catches:
                    raise
        if error is not None:
            raise error
        return "result"
    finally:
        probe.inside()


async def async_generator(
    probe: Probe, error: BaseException | None = None, *, catches: bool = False, hangs: bool = False
) -> AsyncGenerator[int, object]:
    try:
        for item in range(3):
            probe.inside()
            await asyncio.sleep(0)
            if hangs and item:
                await asyncio.Event().wait()
            try:
                yield item
            except KeyError:
                if not catches:
                    raise
        if error is not None:
            raise error
    finally:
        probe.inside()


@contextlib.contextmanager
def manager(probe: Probe, error: BaseException | None = None, *, suppresses: bool = False) -> Generator[str]:
    probe.inside()
    if error is not None:
        raise error
    try:
        yield "value"
    except KeyError:
        if not suppresses:
            raise
    finally:
        probe.inside()


@contextlib.asynccontextmanager
async def async_manager(
    probe: Probe, error: BaseException | None = None, *, suppresses: bool = False
) -> AsyncGenerator[str]:
    await asyncio.sleep(0)
    with manager(probe, error, suppresses=suppresses) as value:
        yield value


# --- Endings: each drives one decorated body to its end ---


async def maybe(result: object) -> object:
    return await cast("Awaitable[object]", result) if inspect.isawaitable(result) else result


async def returns(work: Callable[..., Any], probe: Probe) -> None:
    assert await maybe(work(probe)) == "result"


async def raises(work: Callable[..., Any], probe: Probe) -> None:
    error = KeyError("the prompt: my secret")
    with pytest.raises(KeyError) as caught:
        await maybe(work(probe, error))
    assert caught.value is error


async def exits(work: Callable[..., Any], probe: Probe) -> None:
    with pytest.raises(GeneratorStop):
        await maybe(work(probe, GeneratorStop()))


class GeneratorStop(BaseException):
    """Like `SystemExit` and `KeyboardInterrupt`: not an error of the user's code, but harmless to an event loop."""


async def cancelled(work: Callable[..., Any], probe: Probe) -> None:
    task = asyncio.create_task(work(probe, hangs=True))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def timed_out(work: Callable[..., Any], probe: Probe) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await work(probe, hangs=True)


async def closed_coroutine(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    running.send(None)
    running.close()


async def exhausted(work: Callable[..., Any], probe: Probe) -> None:
    items, returned = list[int](), None
    running = work(probe)
    while True:
        try:
            items.append(next(running))
        except StopIteration as stop:
            returned = stop.value
            break
        probe.between()
    assert (items, returned) == ([0, 1, 2], "result")


async def generator_raises(work: Callable[..., Any], probe: Probe) -> None:
    error = KeyError("the prompt: my secret")
    running = work(probe, error)
    for _ in range(3):
        next(running)
        probe.between()
    with pytest.raises(KeyError) as caught:
        next(running)
    assert caught.value is error


async def broken_off(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    for _ in running:
        probe.between()
        break
    running.close()
    running.close()


async def dropped(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    next(running)
    probe.between()
    del running
    gc.collect()


async def thrown(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    next(running)
    with pytest.raises(KeyError):
        running.throw(KeyError("my secret"))


async def thrown_and_caught(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe, catches=True)
    next(running)
    assert running.throw(KeyError("my secret")) == 1
    probe.between()
    assert list(running) == [2]


async def sent(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    assert [next(running), running.send("x"), running.send("y")] == [0, 1, 2]
    probe.between()
    with pytest.raises(StopIteration):
        running.send("z")


async def closed_in_a_thread(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    next(running)
    thread = threading.Thread(target=running.close)
    thread.start()
    thread.join()


async def read_in_several_threads(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    assert [await asyncio.to_thread(next, running, None) for _ in range(4)] == [0, 1, 2, None]


async def never_begun(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    del running
    gc.collect()


async def read_to_its_end(work: Callable[..., Any], probe: Probe) -> None:
    items = list[int]()
    async for item in work(probe):
        probe.between()
        items.append(item)
    assert items == [0, 1, 2]


async def async_generator_raises(work: Callable[..., Any], probe: Probe) -> None:
    error = KeyError("the prompt: my secret")
    running = work(probe, error)
    for _ in range(3):
        await anext(running)
        probe.between()
    with pytest.raises(KeyError) as caught:
        await anext(running)
    assert caught.value is error


async def async_broken_off(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    async for _ in running:
        probe.between()
        break
    await running.aclose()
    await running.aclose()


async def async_dropped(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    await anext(running)
    probe.between()
    probe.was_inside.clear()
    del running
    gc.collect()
    await probe.was_inside.wait()
    await asyncio.sleep(0)


async def async_thrown(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    await anext(running)
    with pytest.raises(KeyError):
        await running.athrow(KeyError("my secret"))


async def async_thrown_and_caught(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe, catches=True)
    await anext(running)
    assert await running.athrow(KeyError("my secret")) == 1
    probe.between()
    assert [item async for item in running] == [2]


async def async_sent(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)
    assert [await running.asend(None), await running.asend("x"), await running.asend("y")] == [0, 1, 2]
    probe.between()
    with pytest.raises(StopAsyncIteration):
        await running.asend("z")


async def closed_in_another_task(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe)

    async def first() -> None:
        await anext(running)
        probe.between()

    await asyncio.create_task(first())
    await asyncio.create_task(running.aclose())


async def cancelled_between_items(work: Callable[..., Any], probe: Probe) -> None:
    running = work(probe, hangs=True)
    await anext(running)
    task = asyncio.create_task(running.__anext__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def open_when_the_loop_ends(work: Callable[..., Any], probe: Probe) -> None:
    kept = list[Any]()

    async def begin() -> None:
        kept.append(work(probe))
        await anext(kept[0])

    await asyncio.to_thread(asyncio.run, begin())


async def dropped_without_a_loop(work: Callable[..., Any], probe: Probe) -> None:
    kept = list[Any]()

    async def begin() -> None:
        kept.append(work(probe))
        await anext(kept[0])

    def in_a_thread() -> None:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.close()
        kept.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="work was dropped before its end"):
        await asyncio.to_thread(in_a_thread)


async def in_block(work: Callable[..., Any], probe: Probe, body: Callable[[], Any], **options: Any) -> None:
    entered: AbstractContextManager[str] | AbstractAsyncContextManager[str] = work(probe, **options)
    if isinstance(entered, AbstractAsyncContextManager):
        async with entered as value:
            assert value == "value"
            probe.inside()
            await maybe(body())
    else:
        with entered as value:
            assert value == "value"
            probe.inside()
            body()


def fail() -> None:
    raise KeyError("the prompt: my secret")


async def block_ends(work: Callable[..., Any], probe: Probe) -> None:
    await in_block(work, probe, lambda: None)


async def block_raises(work: Callable[..., Any], probe: Probe) -> None:
    with pytest.raises(KeyError):
        await in_block(work, probe, fail)


async def block_is_suppressed(work: Callable[..., Any], probe: Probe) -> None:
    await in_block(work, probe, fail, suppresses=True)


async def entering_raises(work: Callable[..., Any], probe: Probe) -> None:
    with pytest.raises(KeyError):
        await in_block(work, probe, fail, error=KeyError("my secret"))


async def block_is_cancelled(work: Callable[..., Any], probe: Probe) -> None:
    is_in_block = asyncio.Event()

    async def hang() -> None:
        is_in_block.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(in_block(work, probe, hang))
    await is_in_block.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def as_a_decorator(work: Callable[..., Any], probe: Probe) -> None:
    def body() -> int:
        probe.inside()
        return 7

    assert work(probe)(body)() == 7


# --- The table ---


@dataclass(frozen=True)
class Outcome:
    """The expected span after an ending."""

    status: StatusCode = StatusCode.UNSET
    marks: dict[str, object] = field(default_factory=dict[str, object])
    spans: int = 1


FINE = Outcome()
FAILED = Outcome(StatusCode.ERROR, {"error.type": "KeyError"})
CANCELLED = Outcome(marks={"tracemind.cancelled": True})
CLOSED_EARLY = Outcome(marks={"tracemind.stream.closed_early": True})
NOT_RUN = Outcome(spans=0)
MARKS = ("error.type", "tracemind.cancelled", "tracemind.stream.closed_early")

Ending = Callable[[Callable[..., Any], Probe], Awaitable[None]]

ENDINGS: list[tuple[Callable[..., Any], Ending, Outcome]] = [
    (function, returns, FINE),
    (function, raises, FAILED),
    (function, exits, FINE),
    (Service.method, returns, FINE),
    (Service.method, raises, FAILED),
    (Service.async_method, returns, FINE),
    (Service.async_method, raises, FAILED),
    (coroutine, returns, FINE),
    (coroutine, raises, FAILED),
    (coroutine, exits, FINE),
    (coroutine, cancelled, CANCELLED),
    (coroutine, timed_out, CANCELLED),
    (coroutine, closed_coroutine, CANCELLED),
    (generator, exhausted, FINE),
    (generator, generator_raises, FAILED),
    (generator, broken_off, CLOSED_EARLY),
    (generator, dropped, CLOSED_EARLY),
    (generator, thrown, FAILED),
    (generator, thrown_and_caught, FINE),
    (generator, sent, FINE),
    (generator, closed_in_a_thread, CLOSED_EARLY),
    (generator, read_in_several_threads, FINE),
    (generator, never_begun, NOT_RUN),
    (async_generator, read_to_its_end, FINE),
    (async_generator, async_generator_raises, FAILED),
    (async_generator, async_broken_off, CLOSED_EARLY),
    (async_generator, async_dropped, CLOSED_EARLY),
    (async_generator, async_thrown, FAILED),
    (async_generator, async_thrown_and_caught, FINE),
    (async_generator, async_sent, FINE),
    (async_generator, closed_in_another_task, CLOSED_EARLY),
    (async_generator, cancelled_between_items, CANCELLED),
    (async_generator, open_when_the_loop_ends, CLOSED_EARLY),
    (async_generator, dropped_without_a_loop, CLOSED_EARLY),
    (async_generator, never_begun, NOT_RUN),
    (manager, block_ends, FINE),
    (manager, block_raises, FAILED),
    (manager, block_is_suppressed, FINE),
    (manager, entering_raises, FAILED),
    (manager, as_a_decorator, FINE),
    (async_manager, block_ends, FINE),
    (async_manager, block_raises, FAILED),
    (async_manager, block_is_suppressed, FINE),
    (async_manager, entering_raises, FAILED),
    (async_manager, block_is_cancelled, CANCELLED),
]


class EndCounter(SpanProcessor):
    """Counts how often each span ends."""

    def __init__(self) -> None:
        self.ends: Counter[int] = Counter()

    def on_end(self, span: ReadableSpan) -> None:
        self.ends[id_of(span)] += 1


def id_of(span: ReadableSpan) -> int:
    assert isinstance(span.context, SpanContext)
    return span.context.span_id


def variables() -> dict[contextvars.ContextVar[Any], object]:
    """All context variables that are set here."""
    return dict(contextvars.copy_context().items())


@pytest.mark.parametrize(
    ("body", "ending", "outcome"),
    ENDINGS,
    ids=[f"{body.__qualname__}-{ending.__name__}" for body, ending, _ in ENDINGS],
)
@pytest.mark.parametrize("decorator", DECORATORS)
async def test_one_span_at_its_place(
    capture: Captured,
    caplog: pytest.LogCaptureFixture,
    decorator: str,
    body: Callable[..., Any],
    ending: Ending,
    outcome: Outcome,
) -> None:
    """A function has one span with the right parent, interval and status; the caller's context is unchanged."""
    decorate, name = DECORATORS[decorator]
    decorated = decorate(name="work")(body)
    work = decorated.__get__(Service()) if "Service" in body.__qualname__ else decorated
    counter, probe = EndCounter(), Probe(capture)
    capture.tracer_provider.add_span_processor(counter)
    caplog.set_level(logging.DEBUG)
    with probe.tracer.start_as_current_span("caller"):
        before = variables()
        await ending(work, probe)
        gc.collect()
        assert variables() == before
        next_call()
    assert current_flow() is None
    assert [record.getMessage() for record in caplog.records if record.name != "asyncio"] == []
    assert all(record.levelno < logging.WARNING for record in caplog.records)
    assert set(counter.ends.values()) == {1}

    caller = capture.span("caller")
    found = [span for span in capture.spans if span.name == name]
    assert len(found) == outcome.spans
    for span in found:
        check_span(span, caller, probe, outcome)
        below = [each for each in capture.spans if each.name == "inside"]
        assert {each.parent.span_id for each in below if each.parent} <= {id_of(span)}
    for each in capture.spans:
        if each.name == "between":
            assert each.parent is not None
            assert each.parent.span_id == id_of(caller)


def check_span(span: ReadableSpan, caller: ReadableSpan, probe: Probe, outcome: Outcome) -> None:
    assert span.kind is SpanKind.INTERNAL
    assert span.parent is not None
    assert span.parent.span_id == id_of(caller)
    assert span.start_time is not None
    assert span.end_time is not None
    noted = [*probe.began_ns, *probe.ended_ns] or [span.start_time]
    assert span.start_time <= min(noted) <= max(noted) <= span.end_time
    assert span.status.status_code is outcome.status
    assert {mark: attributes(span)[mark] for mark in MARKS if mark in attributes(span)} == outcome.marks
    assert len(events(span, "exception")) == (outcome.status is StatusCode.ERROR)
    assert "secret" not in span.to_json()


# --- The six cases in which the peers differ (`async generator`, `break`, another task, cancellation) ---


async def test_what_an_async_generator_calls_nests_below_it(capture: Captured) -> None:
    """Spans of the body are children of the generator's span, which lasts until the last item."""
    await read_to_its_end(tm.step(name="work")(async_generator), Probe(capture))
    inside = [span for span in capture.spans if span.name == "inside"]
    assert len(inside) == 4
    assert {span.parent.span_id for span in inside if span.parent} == {id_of(capture.span("work"))}


async def test_the_consumer_of_an_async_generator_is_not_below_it(capture: Captured) -> None:
    """Spans that the consumer opens between two items are no children of the generator's span."""
    await read_to_its_end(tm.step(name="work")(async_generator), Probe(capture))
    assert [span.parent for span in capture.spans if span.name == "between"] == [None] * 3


async def test_the_consumer_of_a_generator_is_not_below_it(capture: Captured) -> None:
    """Spans that the consumer of a sync generator opens are no children of the generator's span."""
    await exhausted(tm.step(name="work")(generator), Probe(capture))
    assert [span.parent for span in capture.spans if span.name == "between"] == [None] * 3


async def test_break_and_aclose_end_the_span_without_an_error(capture: Captured) -> None:
    """A consumer that stops early is no error."""
    await async_broken_off(tm.step(name="work")(async_generator), Probe(capture))
    assert capture.span("work").status.status_code is StatusCode.UNSET


async def test_opened_in_one_task_and_closed_in_another(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """The span ends once, and no context error is logged."""
    await closed_in_another_task(tm.step(name="work")(async_generator), Probe(capture))
    assert len([span for span in capture.spans if span.name == "work"]) == 1
    assert caplog.records == []


@pytest.mark.soak
async def test_a_cancelled_coroutine_is_neither_fine_nor_failed(capture: Captured) -> None:
    """A cancelled coroutine has a span with an unset status, no error, and a mark of the cancellation."""
    await cancelled(tm.step(name="work")(coroutine), Probe(capture))
    span = capture.span("work")
    assert (span.status.status_code, attributes(span)["tracemind.cancelled"]) == (StatusCode.UNSET, True)
    assert "error.type" not in attributes(span)


# --- Many at once ---


async def test_nested_generators_at_once(capture: Captured) -> None:
    """Fifty tasks read nested generators in turns, and each span is below its own parent."""

    @tm.agent(name="agent")
    async def agent(number: int) -> AsyncGenerator[int]:
        async for item in inner(number):
            yield item

    @tm.step(name="inner")
    async def inner(number: int) -> AsyncGenerator[int]:
        for item in range(5):
            await asyncio.sleep(0)
            with trace.get_tracer("t", tracer_provider=capture.tracer_provider).start_as_current_span(f"leaf {number}"):
                yield item

    @tm.flow(name="flow")
    async def flow(number: int) -> list[int]:
        return [item async for item in agent(number)]

    assert await asyncio.gather(*map(flow, range(50))) == [[0, 1, 2, 3, 4]] * 50
    by_id = {id_of(span): span for span in capture.spans}

    def chain(span: ReadableSpan) -> list[str]:
        names = [span.name]
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            names.append(span.name)
        return names

    leaves = [span for span in capture.spans if span.name.startswith("leaf")]
    assert len(leaves) == 250
    for leaf in leaves:
        assert chain(leaf) == [leaf.name, "inner", "invoke_agent agent", "invoke_workflow flow"]
    traces = Counter((leaf.name, leaf.context.trace_id) for leaf in leaves if leaf.context)
    assert len(traces) == 50
