"""Under trio, functions that need asyncio say so, and the others understand trio's cancellations."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
import trio
from opentelemetry.trace import StatusCode

import tracemind_otel as tm
from tests.support import Captured, attributes

CONFIG = tm.LLMCallConfig("fake", "toy-1", prompt="ping")


async def call(recorder: tm.Recorder) -> None:
    await tm.run_llm_call("f", "s", CONFIG, recorder)


async def read(recorder: tm.Recorder) -> None:
    async with tm.stream_llm_call("f", "s", CONFIG, recorder) as stream:
        async for _ in stream:
            pass


@pytest.mark.parametrize(("work", "name"), [(call, "run_llm_call"), (read, "stream_llm_call")])
def test_a_call_says_that_it_needs_asyncio(
    capture: Captured, work: Callable[[tm.Recorder], Awaitable[None]], name: str
) -> None:
    """A ConfigError names the function and how to start the program, and nothing is recorded."""
    with pytest.raises(tm.ConfigError, match=rf"{name} needs an asyncio event loop.*anyio.*asyncio\.run"):
        trio.run(work, capture.recorder())
    assert capture.spans == []


async def sleeps() -> None:
    await trio.sleep_forever()


async def yields() -> AsyncGenerator[int]:
    yield 1
    await trio.sleep_forever()


async def sleeps_in_tasks() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(trio.sleep_forever)


async def awaited(work: Callable[[], Any]) -> None:
    await work()


async def read_all(work: Callable[[], Any]) -> None:
    async for _ in work():
        pass


@pytest.mark.parametrize("decorate", [tm.flow, tm.agent, tm.tool, tm.step])
@pytest.mark.parametrize(("body", "run"), [(sleeps, awaited), (sleeps_in_tasks, awaited), (yields, read_all)])
def test_a_cancellation_is_no_error(
    capture: Captured, decorate: Any, body: Callable[[], Any], run: Callable[[Callable[[], Any]], Awaitable[None]]
) -> None:
    """A function that a cancel scope ends has an unset status, and a mark of the cancellation."""
    work = decorate(name="work")(body)

    async def main() -> None:
        with trio.move_on_after(0.01):
            await run(work)

    trio.run(main)
    (span,) = capture.spans
    assert (span.status.status_code, attributes(span)["tracemind.cancelled"]) == (StatusCode.UNSET, True)
    assert "error.type" not in attributes(span)


def test_an_error_is_an_error(capture: Captured) -> None:
    """An error under trio is recorded as under asyncio."""

    @tm.step(name="work")
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("secret")

    with pytest.raises(KeyError):
        trio.run(work)
    assert attributes(capture.span("work"))["error.type"] == "KeyError"
