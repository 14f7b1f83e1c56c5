"""Generators, each with a body that runs in a context of its own, a copy of the one in which it began.

What the body sets its consumer never sees, however the two take turns, and so nothing has to be put back, whoever
closes it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextvars import Context
from typing import Any, Self

from .body import Body, Start


def wrap_generator_function(function: Callable[..., Generator[Any, Any, Any]], start: Start) -> Callable[..., Any]:
    """Whatever its consumer sends or throws, a close included, the body gets as it is.

    No `yield from`: each level of a recursion would take three frames, and the recursion would end so much earlier.
    """

    def run_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        body = Body.starting(start(args, kwargs))
        run, is_closing = body.context.run, False
        try:
            value = run(generator.send, None)
            while True:
                body.item(value)
                try:
                    sent = yield value
                except BaseException as exc:
                    error, is_closing = exc, isinstance(exc, GeneratorExit)
                else:
                    is_closing = False
                    del value  # it may go while the next is made
                    value = run(generator.send, sent)
                    continue
                try:
                    value = run(generator.throw, error)
                finally:
                    del error  # its traceback refers to this frame
        except StopIteration as stop:
            body.finish(stop.value, is_closing=is_closing)
            return stop.value
        except BaseException as exc:
            body.end(exc)
            raise

    return run_generator


def wrap_async_generator_function(
    function: Callable[..., AsyncGenerator[Any, Any]], start: Start
) -> Callable[..., Any]:
    """As `wrap_generator_function`."""

    async def run_async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        # In this order they are dropped: a body that nobody closed ends before its run does.
        generator = function(*args, **kwargs)
        has_loop = sys.get_asyncgen_hooks().finalizer is not None
        body = Body.starting(start(args, kwargs), is_closed_by_loop=has_loop)
        is_closing = False
        try:
            step: Awaitable[Any] = _first_step(generator, body.context)
            while True:
                try:
                    value = await _InContext(body.context, step.__await__())
                except StopAsyncIteration:
                    break
                finally:
                    del step  # it refers to the generator, which may be dropped now, and to what was thrown
                body.item(value)
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
        body.finish(None, is_closing=is_closing)

    return run_async_generator


class _InContext:
    """An awaitable whose every step runs in a context."""

    __slots__ = ("_context", "_steps")

    def __init__(self, context: Context, steps: Any) -> None:
        self._context = context
        self._steps: Any = steps

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any, /) -> Any:
        try:
            return self._context.run(self._steps.send, value)
        except BaseException:
            self._steps = None  # it may hold the very exception, whose traceback refers to this frame
            raise

    def throw(self, *error: Any) -> Any:
        try:
            return self._context.run(self._steps.throw, *error)
        except BaseException:
            self._steps = None
            raise

    def close(self) -> None:
        """Close the generator with its awaiter; before Python 3.13 `asend().close()` leaves the generator as it is."""
        if self._steps is None:
            return
        try:
            self.throw(GeneratorExit())
        except (GeneratorExit, StopIteration, StopAsyncIteration):
            return
        raise RuntimeError("async generator ignored GeneratorExit")


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
