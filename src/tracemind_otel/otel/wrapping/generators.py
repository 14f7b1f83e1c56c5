"""Generators. The body of each runs in a context of its own, a copy of the one in which it began.

The consumer never sees what the body sets, however the two take turns, so there is nothing to restore at the end.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context, copy_context
from typing import Any

from ..._base.context import inside
from .body import Body, Ready, SpanScope, Start


def wrap_generator_function(function: Callable[..., Generator[Any, Any, Any]], start: Start) -> Callable[..., Any]:
    """Whatever its consumer sends or throws, a close included, the body gets as it is.

    No `yield from`: each level of a recursion would take three frames, and the recursion would end so much earlier.
    """

    def run_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        run = start(args, kwargs)
        context, body, is_closing = _context_of(run), Body(run), False
        step: Callable[[Any], Any] = generator.send
        given: Any = None
        try:
            while True:
                try:
                    value = context.run(step, given)
                finally:
                    del given  # the traceback of an exception refers to this frame
                run.item(value)
                try:
                    given = yield value
                except BaseException as exc:
                    step, given, is_closing = generator.throw, exc, isinstance(exc, GeneratorExit)
                else:
                    step, is_closing = generator.send, False
                del value  # it may go while the next is made
        except StopIteration as stop:
            body.end(GeneratorExit() if is_closing else None, stop.value)
            return stop.value
        except BaseException as exc:
            body.end(exc)
            raise

    return run_generator


def wrap_async_generator_function(
    function: Callable[..., AsyncGenerator[Any, Any]], start: Start, ready: Ready | None = None
) -> Callable[..., Any]:
    """As `wrap_generator_function`."""

    async def run_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        # In this order they are dropped: a body that nobody closed ends before its run does.
        generator = function(*args, **kwargs)
        has_loop = sys.get_asyncgen_hooks().finalizer is not None
        run = start(args, kwargs)
        if ready is not None:
            await ready(run)
        context, body, is_closing = _context_of(run), Body(run, is_closed_by_loop=has_loop), False
        try:
            step: Awaitable[Any] = _first_step(generator, context)
            while True:
                try:
                    value = await inside(context, step.__await__())
                except StopAsyncIteration:
                    break
                finally:
                    del step  # it refers to the generator, which may be dropped now, and to what was thrown
                run.item(value)
                try:
                    sent = yield value
                except BaseException as exc:
                    step, is_closing = generator.athrow(exc), isinstance(exc, GeneratorExit)
                else:
                    step, is_closing = generator.asend(sent), False
                del value
        except BaseException as exc:
            body.end(exc)
            raise
        body.end(GeneratorExit() if is_closing else None)

    return run_async_generator


def _context_of(run: SpanScope) -> Context:
    """A copy of the current context, in which the run is current."""
    context = copy_context()
    context.run(run.enter)
    return context


def _first_step(generator: AsyncGenerator[Any, Any], context: Context) -> Awaitable[Any]:
    """Begin an async generator unseen by the event loop, which would close it while the outer one does."""

    def finalize(generator: Any) -> None:
        """Close it as far as that is possible without an event loop: none was left to close the outer one."""
        if generator.ag_running:
            return  # it waits for something that will never come
        try:
            context.run(generator.aclose().__await__().send, None)
        except StopIteration:
            pass

    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, finalize)
    try:
        return generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)
