"""Requests stay apart though asgiref copies contexts back and forth for Django's hooks."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from opentelemetry import baggage, trace

import tracemind_otel as tm
from tests.support import Captured
from tracemind_otel.flows.budget import current_budget
from tracemind_otel.flows.correlation import NO_CORRELATION, current_correlation
from tracemind_otel.flows.totals import current_flow

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

BLOCKS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "using_attributes": lambda: tm.using_attributes(session_id="s-1", user_id="u-1", baggage=True),
    "continue_trace": lambda: tm.continue_trace({"traceparent": TRACEPARENT, "baggage": "session.id=s-1"}),
    "budget": lambda: tm.budget(max_llm_calls=1),
    "flow": lambda: tm.flow(name="request", session_id="s-1", max_llm_calls=1),
    "step": lambda: tm.step(name="request"),
}
every_block = pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)


def nothing_holds() -> bool:
    """Whether no flow, budget, id, span or baggage is active here."""
    scopes = current_flow(), current_budget()
    return (
        scopes == (None, None)
        and current_correlation() is NO_CORRELATION
        and trace.get_current_span() is trace.INVALID_SPAN
        and not baggage.get_all()
    )


async def begin(block: AbstractContextManager[Any]) -> None:
    """A hook at the beginning of a request."""
    await sync_to_async(block.__enter__)()


async def end(block: AbstractContextManager[Any]) -> None:
    """A hook at the end of a request, in another copy of the context."""
    await sync_to_async(block.__exit__)(None, None, None)


@every_block
async def test_begun_and_ended_by_sync_hooks(
    capture: Captured, caplog: pytest.LogCaptureFixture, make: Callable[[], AbstractContextManager[Any]]
) -> None:
    """After the last hook nothing is active and nothing is logged, though each hook runs in a copied context."""
    for _ in range(3):
        block = make()
        await begin(block)
        assert not nothing_holds()
        await end(block)
        assert nothing_holds()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@every_block
async def test_begun_by_a_sync_hook_and_ended_on_the_loop(
    capture: Captured, make: Callable[[], AbstractContextManager[Any]]
) -> None:
    """The loop's context has what was copied back, and not what was set in the thread."""
    block = make()
    await begin(block)
    block.__exit__(None, None, None)
    assert nothing_holds()


@every_block
def test_begun_in_a_coroutine_and_ended_outside(
    capture: Captured, make: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Sync code that awaits through `async_to_sync` leaves nothing active either."""

    async def begins(block: AbstractContextManager[Any]) -> None:
        block.__enter__()

    def request() -> None:
        block = make()
        async_to_sync(begins)(block)
        assert not nothing_holds()
        block.__exit__(None, None, None)
        assert nothing_holds()

    contextvars.copy_context().run(request)


async def test_a_block_within_keeps_what_it_has_set(capture: Captured) -> None:
    """A hook that ends a block late removes nothing that other code has set meanwhile."""
    outer, inner = tm.using_attributes(session_id="outer"), tm.using_attributes(session_id="inner")
    await begin(outer)
    with inner:
        await end(outer)
        assert current_correlation().session_id == "inner"


async def test_an_outer_block_comes_back(capture: Captured) -> None:
    """After the last hook, the block that was active before the first one is active again."""
    with tm.using_attributes(session_id="application"):
        block = tm.using_attributes(session_id="request")
        await begin(block)
        await end(block)
        assert current_correlation().session_id == "application"
    assert current_correlation() is NO_CORRELATION


async def test_one_block_object_for_requests_at_once(capture: Captured) -> None:
    """Each request leaves its own block, in whatever order the hooks end."""
    shared = tm.using_attributes(session_id="shared")

    async def request(*, waits: int) -> bool:
        await begin(shared)
        for _ in range(waits):
            await asyncio.sleep(0)
        await end(shared)
        return nothing_holds()

    assert all(await asyncio.gather(*(request(waits=waits) for waits in (9, 3, 6, 0))))
