"""Functions that `contextlib.contextmanager` or `asynccontextmanager` made: the `with` block is the body."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

from .body import Body, Ready, SpanScope, Start, code_of


class _Made:
    """The context manager that the decorated function made. Like it, one of these makes one block, which is the run."""

    def __init__(self, make: Callable[[], Any], start: Callable[[], SpanScope]) -> None:
        self._make, self._start = make, start
        self._manager = make()
        self._body: Body | None = None

    def _recreate_cm(self) -> Self:
        """Make a new one: contextlib enters one at every call of a function that it decorates."""
        return type(self)(self._make, self._start)

    def _begin(self) -> bool:
        """Begin the block, unless it has begun: contextlib raises then, and the open block goes on."""
        if self._body is not None:
            return False
        self._enter(self._start())
        return True

    def _enter(self, run: SpanScope) -> None:
        run.enter()
        self._body = Body(run)

    def _end(self, exc: BaseException | None) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.leave(exc)


class _Manager(_Made, contextlib.ContextDecorator, contextlib.AbstractContextManager[Any]):
    """What a decorated `contextmanager` function returns."""

    def __enter__(self) -> Any:
        is_first = self._begin()
        try:
            return self._manager.__enter__()
        except BaseException as exc:
            if is_first:
                self._end(exc)
            raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            suppressed: bool | None = self._manager.__exit__(exc_type, exc, traceback)
        except BaseException as own:
            self._end(own)
            raise
        self._end(None if suppressed else exc)
        return suppressed


class _AsyncManager(_Made, contextlib.AsyncContextDecorator, contextlib.AbstractAsyncContextManager[Any]):
    """What a decorated `asynccontextmanager` function returns."""

    def __init__(self, make: Callable[[], Any], start: Callable[[], SpanScope], ready: Ready | None) -> None:
        super().__init__(make, start)
        self._ready = ready

    def _recreate_cm(self) -> Self:
        return type(self)(self._make, self._start, self._ready)

    async def __aenter__(self) -> Any:
        is_first = self._body is None
        if is_first:
            run = self._start()
            if self._ready is not None:
                await self._ready(run)
            self._enter(run)
        try:
            return await self._manager.__aenter__()
        except BaseException as exc:
            if is_first:
                self._end(exc)
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            suppressed: bool | None = await self._manager.__aexit__(exc_type, exc, traceback)
        except BaseException as own:
            self._end(own)
            raise
        self._end(None if suppressed else exc)
        return suppressed


def wrap_manager_function(function: Callable[..., Any], start: Start) -> Callable[..., Any]:
    def run_manager_function(*args: Any, **kwargs: Any) -> _Manager:
        return _Manager(lambda: function(*args, **kwargs), lambda: start(args, kwargs))

    return run_manager_function


def wrap_async_manager_function(
    function: Callable[..., Any], start: Start, ready: Ready | None = None
) -> Callable[..., Any]:
    def run_async_manager_function(*args: Any, **kwargs: Any) -> _AsyncManager:
        return _AsyncManager(lambda: function(*args, **kwargs), lambda: start(args, kwargs), ready)

    return run_async_manager_function


def _codes(
    decorate: Callable[[Callable[..., Any]], Callable[..., Any]], own: Callable[..., Callable[..., Any]]
) -> tuple[object, ...]:
    """All functions that one decorator makes share their code: those of `contextlib`'s, and those of ours around it."""

    def function() -> Generator[None]:
        yield

    return code_of(decorate(function)), code_of(own(function, function))


MANAGER_CODES = _codes(contextlib.contextmanager, wrap_manager_function)
ASYNC_MANAGER_CODES = _codes(contextlib.asynccontextmanager, wrap_async_manager_function)
