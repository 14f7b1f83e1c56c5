"""A decorated function behaves like the bare one, however it is called, read, closed or dropped."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import sys
import types
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace

import tracemind_otel as tm
from tests.support import NEXT_CALL, Captured, attributes, captured, next_call

# --- Bodies at random, driven at random ---

ERRORS = ("ValueError", "KeyError", "StopIteration", "StopAsyncIteration", "RuntimeError", "asyncio.CancelledError")
CAUGHT = (*ERRORS, "Exception", "BaseException", "GeneratorExit")

leaves = (
    st.just(("yield",))
    | st.just(("await",))
    | st.just(("mark",))
    | st.just(("return",))
    | st.tuples(st.just("raise"), st.sampled_from((*ERRORS, "GeneratorExit", "")))
)


def compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    block = st.lists(inner, min_size=1, max_size=3)
    return (
        st.tuples(st.just("loop"), block)
        | st.tuples(st.just("span"), block)
        | st.tuples(st.just("except"), block, st.sampled_from(CAUGHT), block)
        | st.tuples(st.just("finally"), block, block)
    )


programs = st.lists(st.recursive(leaves, compound, max_leaves=12), min_size=1, max_size=4)
operations = st.lists(
    st.just(("next", ""))
    | st.just(("send", ""))
    | st.just(("close", ""))
    | st.tuples(st.just("throw"), st.sampled_from((*ERRORS, "GeneratorExit"))),
    min_size=1,
    max_size=8,
)


def source(program: list[Any], *, is_async: bool) -> str:
    """The body as Python; each statement logs what it saw. It may catch a close, and then ends."""
    lines = [f"{'async ' if is_async else ''}def work(log, tracer):", "    log('begin')"]

    def write(statements: list[Any], depth: int, *, may_yield: bool = True) -> None:
        def line(text: str) -> None:
            lines.append("    " * depth + text)

        for statement in statements:
            number, kind = len(lines), statement[0]
            if kind == "yield" and may_yield:
                line(f"log({number}, (yield {number}))")
            elif kind == "await":
                line(f"log({number}, await asyncio.sleep(0))" if is_async else f"log({number})")
            elif kind in ("mark", "yield"):
                line(f"log({number}, type(sys.exception()).__name__)")
            elif kind == "return":
                line("return" if is_async else f"return {number}")
            elif kind == "raise":
                line(f"raise {statement[1]}({number})" if statement[1] else "raise")
            elif kind == "loop":
                line("for _ in range(2):")
                write(statement[1], depth + 1, may_yield=may_yield)
            elif kind == "span":
                line("with tracer.start_as_current_span('inner'):")
                write(statement[1], depth + 1, may_yield=may_yield)
            else:
                line("try:")
                write(statement[1], depth + 1, may_yield=may_yield)
                line(f"except {statement[2]} as error:" if kind == "except" else "finally:")
                line(f"    log({number}, type(sys.exception()).__name__)")
                catches_close = kind == "finally" or statement[2] in ("BaseException", "GeneratorExit")
                write(statement[-1], depth + 1, may_yield=may_yield and not catches_close)
                if kind == "except" and catches_close:
                    line("    raise")

    write(program, 1)
    return "\n".join([*lines, "    yield 'last'"])


def body_of(text: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"asyncio": asyncio, "sys": sys}
    exec(compile(text, "<body>", "exec"), names)
    return cast("Callable[..., Any]", names["work"])


def shown(error: BaseException | None, depth: int = 4) -> object:
    if error is None or not depth:
        return None
    around = shown(error.__cause__, depth - 1), shown(error.__context__, depth - 1), error.__suppress_context__
    return type(error).__name__, [str(each) for each in error.args], around


def new_error(name: str) -> BaseException:
    return cast("BaseException", eval(name)("thrown"))


def log_into(seen: list[object]) -> Callable[..., None]:
    def log(*what: object) -> None:
        seen.append(what)

    return log


def driven(work: Callable[..., Any], script: list[tuple[str, str]], tracer: trace.Tracer) -> list[object]:
    """What the consumer of a generator sees, and the body of that consumer."""
    seen = list[object]()
    running = work(log_into(seen), tracer)
    for operation, error in (*script, ("close", "")):
        try:
            if operation == "next":
                seen.append(next(running))
            elif operation == "send":
                seen.append(running.send("sent"))
            elif operation == "throw":
                seen.append(running.throw(new_error(error)))
            else:
                running.close()  # what it returns is new in Python 3.13
        except BaseException as caught:
            seen.append(shown(caught))
    return seen


async def driven_async(work: Callable[..., Any], script: list[tuple[str, str]], tracer: trace.Tracer) -> list[object]:
    """Like `driven`, for an async generator."""
    seen = list[object]()
    running = work(log_into(seen), tracer)
    for operation, error in (*script, ("close", "")):
        try:
            if operation == "next":
                seen.append(await anext(running))
            elif operation == "send":
                seen.append(await running.asend("sent"))
            elif operation == "throw":
                seen.append(await running.athrow(new_error(error)))
            else:
                await running.aclose()
        except BaseException as caught:
            seen.append(shown(caught))
    return seen


def check_spans(capture: Captured, seen: list[object]) -> None:
    """A body that has begun has one span, around everything that it opened."""
    next_call()
    roots = [span.name for span in capture.spans if span.parent is None and span.name != NEXT_CALL]
    assert roots == ["work"] * (("begin",) in seen)
    assert {span.name for span in capture.spans} <= {"work", "inner", NEXT_CALL}
    assert trace.get_current_span() is trace.INVALID_SPAN


@settings(max_examples=300, deadline=None)
@given(programs, operations)
def test_a_generator_is_what_it_was(program: list[Any], script: list[tuple[str, str]]) -> None:
    """Items, results, errors with their causes, and what the body sees are as without the decorator."""
    work = body_of(source(program, is_async=False))
    with captured() as capture:
        tracer = capture.tracer_provider.get_tracer("the application's")
        seen = contextvars.copy_context().run(driven, tm.step(name="work")(work), script, tracer)
        check_spans(capture, seen)
    assert seen == contextvars.copy_context().run(driven, work, script, trace.NoOpTracer())


@settings(max_examples=300, deadline=None)
@given(programs, operations)
def test_an_async_generator_is_what_it_was(program: list[Any], script: list[tuple[str, str]]) -> None:
    """An async generator behaves as without the decorator."""
    work = body_of(source(program, is_async=True))
    with captured() as capture:
        tracer = capture.tracer_provider.get_tracer("the application's")
        seen = asyncio.run(driven_async(tm.step(name="work")(work), script, tracer))
        check_spans(capture, seen)
    assert seen == asyncio.run(driven_async(work, script, trace.NoOpTracer()))


# --- Context managers ---


@contextlib.contextmanager
def opened(a: int) -> Generator[int]:
    yield a


@contextlib.asynccontextmanager
async def opened_later(a: int) -> AsyncGenerator[int]:
    yield a


def parent_name(capture: Captured, name: str) -> str | None:
    parent = capture.span(name).parent
    names = {span.context.span_id: span.name for span in capture.spans if span.context is not None}
    return None if parent is None else names[parent.span_id]


async def test_two_decorators_on_a_context_manager(capture: Captured) -> None:
    """Two decorators make two nested spans around the block."""
    work = tm.step(name="work")(lambda: None)
    with tm.flow(name="outer")(tm.step(name="inner")(opened))(1) as value:
        work()
    assert value == 1
    assert (parent_name(capture, "work"), parent_name(capture, "inner")) == ("inner", "invoke_workflow outer")
    capture.exporter.clear()
    async with tm.flow(name="outer")(tm.step(name="inner")(opened_later))(1):
        work()
    assert (parent_name(capture, "work"), parent_name(capture, "inner")) == ("inner", "invoke_workflow outer")


def test_a_partial_context_manager(capture: Captured) -> None:
    """A `functools.partial` of a context manager is decorated like the manager."""
    with tm.step(name="block")(functools.partial(opened, 1))() as value:
        tm.step(name="work")(lambda: None)()
    assert (value, parent_name(capture, "work")) == (1, "block")


def test_a_manager_that_is_misused(capture: Captured) -> None:
    """Entering or leaving twice, or leaving first, raises the usual error, and the span ends."""
    manager = tm.step(name="work")(opened)(1)
    with manager, pytest.raises(AttributeError):
        manager.__enter__()
    assert manager.__exit__(None, None, None) is False
    with pytest.raises(RuntimeError):
        tm.step(name="never")(opened)(1).__exit__(None, None, None)
    assert [span.name for span in capture.spans] == ["work"]
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.soak
def test_a_manager_that_is_dropped_in_its_block(capture: Captured) -> None:
    """A manager that is dropped inside its block gives a warning, and the next call ends its span."""

    def drop() -> None:
        tm.step(name="work")(opened)(1).__enter__()

    with pytest.warns(ResourceWarning, match="work was dropped before its end"):
        contextvars.copy_context().run(drop)
        gc.collect()
    next_call()
    assert attributes(capture.span("work"))["tracemind.stream.closed_early"] is True


# --- What a plain function returns ---


def number() -> Generator[int]:
    yield 1


async def number_later() -> AsyncGenerator[int]:
    yield 1


async def work() -> int:
    return 1


@pytest.mark.parametrize("body", [number, number_later, work], ids=lambda body: body.__name__)
async def test_a_plain_function_that_returns_a_body(capture: Captured, body: Callable[[], Any]) -> None:
    """A plain function that returns a generator or coroutine has a span of its call, and the body is the caller's."""
    made = body()
    assert tm.step(name="work")(lambda: made)() is made
    assert capture.span("work").status.status_code is trace.StatusCode.UNSET
    if inspect.isgenerator(made):
        assert list(made) == [1]
    elif inspect.isasyncgen(made):
        assert [item async for item in made] == [1]
    else:
        assert await made == 1
    assert len(capture.spans) == 1


@types.coroutine
def old_style(value: int) -> Generator[Any, Any, int]:
    yield from asyncio.sleep(0).__await__()
    return value


async def test_a_generator_that_is_awaited(capture: Captured) -> None:
    """A generator of `types.coroutine` stays awaitable, decorated or returned."""

    def returns(value: int) -> Awaitable[int]:
        return old_style(value)

    assert await tm.step(name="one")(old_style)(1) == 1
    assert await tm.step(name="two")(returns)(2) == 2
    assert [span.name for span in capture.spans] == ["one", "two"]


# --- What it costs ---


def test_a_recursive_generator(capture: Captured) -> None:
    """A deep recursion of decorated generators does not reach Python's limit."""

    @tm.step
    def down(n: int) -> Generator[int]:
        yield n
        if n:
            yield from down(n - 1)

    assert sum(down(250)) == 250 * 251 / 2


async def test_nothing_is_left_for_the_garbage_collector(capture: Captured) -> None:
    """An error thrown into an async generator does not keep its frames alive."""

    class Prompt: ...

    prompts = weakref.WeakSet[Prompt]()

    @tm.step(name="work")
    async def work(prompt: Prompt) -> AsyncGenerator[int]:
        yield 1

    async def throws() -> None:
        prompt = Prompt()
        prompts.add(prompt)
        running = work(prompt)
        await anext(running)
        with contextlib.suppress(KeyError):
            await running.athrow(KeyError())

    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await throws()
        assert len(prompts) == 0
    finally:
        gc.enable()


async def test_an_item_may_go_while_the_next_is_made(capture: Captured) -> None:
    """A reader of large items holds one of them, not two."""

    class Item: ...

    alive = list[int]()

    def new(items: weakref.WeakSet[Item]) -> Item:
        alive.append(len(items))
        item = Item()
        items.add(item)
        return item

    @tm.step
    def generator(items: weakref.WeakSet[Item]) -> Generator[Item]:
        for _ in range(3):
            yield new(items)

    @tm.step
    async def async_generator(items: weakref.WeakSet[Item]) -> AsyncGenerator[Item]:
        for _ in range(3):
            yield new(items)

    running, running_async = generator(weakref.WeakSet()), async_generator(weakref.WeakSet())
    for _ in range(3):
        next(running)
    for _ in range(3):
        await anext(running_async)
    assert alive == [0] * 6
