"""Every kind of function, run between the start and the end of something: the mechanics under the decorators.

A function and a coroutine run in the context of their caller, which is put back at their end. The body of a
generator runs in a context of its own, a copy of the one in which it began: what it sets its consumer never sees,
however the two take turns, and so nothing has to be put back, whoever closes it. A function that was made by
`contextlib.contextmanager` has the `with` block as its body.

No OpenTelemetry here.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from types import AsyncGeneratorType, CoroutineType, GeneratorType, TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


class Run(Protocol):
    """One run of a decorated function. None of its methods raises."""

    def enter(self) -> None:
        """Make it current in the context of here and now."""
        ...

    def leave(self) -> None:
        """Put that context back, where it is still the one."""
        ...

    def item(self, value: object) -> None:
        """A generator's body yielded a value."""
        ...

    def end(self, exc: BaseException | None, result: object = None) -> None:
        """The body is over, with what it raised or returned."""
        ...

    def close(self) -> None:
        """The body is over because its consumer wanted no more; told instead of `end`."""
        ...


Start = Callable[[tuple[Any, ...], dict[str, Any]], Run]
"""Starts a run for the arguments of a call; leaves the context as it is, and does not raise."""


def wrap(function: Callable[P, R], start: Start) -> Callable[P, R]:
    """A function of the same kind, name and signature, each call of which is a run."""
    wrapper = _wrapper_for(function)(function, start)
    return functools.wraps(function)(cast("Callable[P, R]", wrapper))


def _wrapper_for(function: Callable[..., Any]) -> Callable[[Callable[..., Any], Start], Callable[..., Any]]:
    code = getattr(function, "__code__", None)
    if code is _MANAGER_CODE:
        return _wrap_manager_function
    if code is _ASYNC_MANAGER_CODE:
        return _wrap_async_manager_function
    if _is(inspect.isasyncgenfunction, function):
        return _wrap_async_generator_function
    if _is(inspect.isgeneratorfunction, function):
        return _wrap_generator_function
    if _is(inspect.iscoroutinefunction, function):
        return _wrap_coroutine_function
    return _wrap_function


def _is(is_kind: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Also true of an object whose `__call__` is of that kind."""
    return is_kind(function) or is_kind(getattr(function, "__call__", None))  # noqa: B004


# --- Functions and coroutines: in the context of the caller ---


def _wrap_function(function: Callable[..., Any], start: Start) -> Callable[..., Any]:
    def run_function(*args: Any, **kwargs: Any) -> Any:
        run = start(args, kwargs)
        run.enter()
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            run.leave()
            run.end(exc)
            raise
        return _returned(run, result)

    return run_function


def _wrap_coroutine_function(function: Callable[..., Awaitable[Any]], start: Start) -> Callable[..., Any]:
    async def run_coroutine_function(*args: Any, **kwargs: Any) -> Any:
        run = start(args, kwargs)
        run.enter()
        try:
            result = await function(*args, **kwargs)
        except BaseException as exc:
            run.leave()
            run.end(exc)
            raise
        return _returned(run, result)

    return run_coroutine_function


def _returned(run: Run, result: Any) -> Any:
    """End the run, unless what was returned is a body that has yet to run: then that is the run's."""
    adopt = _ADOPTERS.get(type(cast("object", result)))
    if adopt is None or not _is_new(result):
        run.leave()
        run.end(None, result)
        return result
    body = _Body(run, copy_context())
    run.leave()
    adopted = adopt(lambda: (result, body))()
    adopted.__name__, adopted.__qualname__ = result.__name__, result.__qualname__
    return adopted


def _is_new(body: Any) -> bool:
    """Whether it has not begun: what has is somebody else's already. Python 3.11 cannot tell of async generators."""
    if inspect.iscoroutine(body):
        return inspect.getcoroutinestate(body) == inspect.CORO_CREATED
    if inspect.isgenerator(body):
        return inspect.getgeneratorstate(body) == inspect.GEN_CREATED
    state_of = getattr(inspect, "getasyncgenstate", None)
    return state_of is None or state_of(body) == "AGEN_CREATED"


class _Body:
    """The run of a body that goes on after its call returned, and may never run at all."""

    __slots__ = ("_run", "context")

    def __init__(self, run: Run, context: Context) -> None:
        self._run: Run | None = run
        self.context = context

    @classmethod
    def starting(cls, run: Run) -> Self:
        """A body that begins here and now."""
        context = copy_context()
        context.run(run.enter)
        return cls(run, context)

    def enter(self) -> None:
        if self._run is not None:
            self._run.enter()

    def leave(self) -> None:
        if self._run is not None:
            self._run.leave()

    def item(self, value: object) -> None:
        if self._run is not None:
            self._run.item(value)

    def end(self, exc: BaseException | None, result: object = None) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.end(exc, result)

    def close(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def __del__(self) -> None:
        # Dropped before it began, or in the middle where no event loop was left to close it.
        self.close()


def _coroutine(begin: Callable[[], tuple[Coroutine[Any, Any, Any], _Body]]) -> Callable[[], Coroutine[Any, Any, Any]]:
    async def run_coroutine() -> Any:
        coroutine, body = begin()
        body.enter()
        try:
            result = await coroutine
        except BaseException as exc:
            body.leave()
            body.end(exc)
            raise
        body.leave()
        body.end(None, result)
        return result

    return run_coroutine


# --- Generators: in a context of their own ---


class _InContext(Generator[Any, Any, Any]):
    """A generator, or an awaitable's iterator, each step of which runs in that context."""

    __slots__ = ("_context", "_item", "_steps")

    def __init__(self, context: Context, steps: Any, item: Callable[[object], None] | None = None) -> None:
        self._context = context
        self._steps = steps
        self._item = item

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def send(self, value: Any, /) -> Any:
        return self._came(self._context.run(self._steps.send, value))

    def throw(self, *error: Any) -> Any:
        return self._came(self._context.run(self._steps.throw, *error))

    def close(self) -> None:
        self._context.run(self._steps.close)

    def _came(self, value: Any) -> Any:
        if self._item is not None:
            self._item(value)
        return value


def _wrap_generator_function(function: Callable[..., Generator[Any, Any, Any]], start: Start) -> Callable[..., Any]:
    def begin(*args: Any, **kwargs: Any) -> tuple[Generator[Any, Any, Any], _Body]:
        generator = function(*args, **kwargs)
        return generator, _Body.starting(start(args, kwargs))

    return _generator(begin)


def _generator(begin: Callable[P, tuple[Generator[Any, Any, Any], _Body]]) -> Callable[P, Generator[Any, Any, Any]]:
    def run_generator(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
        generator, body = begin(*args, **kwargs)
        try:
            result = yield from _InContext(body.context, generator, body.item)
        except GeneratorExit:
            body.close()
            raise
        except BaseException as exc:
            body.end(exc)
            raise
        body.end(None, result)
        return result

    return run_generator


def _wrap_async_generator_function(
    function: Callable[..., AsyncGenerator[Any, Any]], start: Start
) -> Callable[..., Any]:
    def begin(*args: Any, **kwargs: Any) -> tuple[AsyncGenerator[Any, Any], _Body]:
        generator = function(*args, **kwargs)
        return generator, _Body.starting(start(args, kwargs))

    return _async_generator(begin)


def _async_generator(begin: Callable[P, tuple[AsyncGenerator[Any, Any], _Body]]) -> Callable[P, AsyncGenerator[Any]]:
    async def run_async_generator(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        # In this order they are dropped: a body that nobody closed ends before its run does.
        generator, body = begin(*args, **kwargs)
        try:
            step: Awaitable[Any] = _first_step(generator, body.context)
            while True:
                try:
                    value = await _InContext(body.context, step.__await__())
                except StopAsyncIteration:
                    break
                del step  # it refers to the generator, which may be dropped now
                body.item(value)
                try:
                    sent = yield value
                except GeneratorExit:
                    await _InContext(body.context, generator.aclose().__await__())
                    raise
                except BaseException as exc:
                    step = generator.athrow(exc)
                else:
                    step = generator.asend(sent)
        except GeneratorExit:
            body.close()
            raise
        except BaseException as exc:
            body.end(exc)
            raise
        body.end(None)

    return run_async_generator


def _first_step(generator: AsyncGenerator[Any, Any], context: Context) -> Awaitable[Any]:
    """Begin an async generator out of the event loop's sight, which would close it while the one around it does."""

    def finalize(generator: AsyncGenerator[Any, Any]) -> None:
        """No event loop was left to close the one around it: what can be done without one is done."""
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


_ADOPTERS: dict[type, Callable[[Callable[[], Any]], Callable[[], Any]]] = {
    CoroutineType: _coroutine,
    GeneratorType: _generator,
    AsyncGeneratorType: _async_generator,
}


# --- Context managers: the `with` block is the body ---


class _Manager(contextlib.ContextDecorator, contextlib.AbstractContextManager[Any]):
    """What a decorated `contextmanager` function returns."""

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager[Any]], start: Callable[[], Run]) -> None:
        self._make = make
        self._manager = make()
        self._start = start

    def _recreate_cm(self) -> Self:
        """As a decorator it is entered anew at every call."""
        return type(self)(self._make, self._start)

    def __enter__(self) -> Any:
        self._run = self._start()
        self._run.enter()
        try:
            return self._manager.__enter__()
        except BaseException as exc:
            leave_block(self._run, exc)
            raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            suppressed = self._manager.__exit__(exc_type, exc, traceback)
        except BaseException as own:
            leave_block(self._run, own)
            raise
        leave_block(self._run, None if suppressed else exc)
        return suppressed


class _AsyncManager(contextlib.AsyncContextDecorator, contextlib.AbstractAsyncContextManager[Any]):
    """What a decorated `asynccontextmanager` function returns."""

    def __init__(
        self, make: Callable[[], contextlib.AbstractAsyncContextManager[Any]], start: Callable[[], Run]
    ) -> None:
        self._make = make
        self._manager = make()
        self._start = start

    def _recreate_cm(self) -> Self:
        """As a decorator it is entered anew at every call."""
        return type(self)(self._make, self._start)

    async def __aenter__(self) -> Any:
        self._run = self._start()
        self._run.enter()
        try:
            return await self._manager.__aenter__()
        except BaseException as exc:
            leave_block(self._run, exc)
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            suppressed = await self._manager.__aexit__(exc_type, exc, traceback)
        except BaseException as own:
            leave_block(self._run, own)
            raise
        leave_block(self._run, None if suppressed else exc)
        return suppressed


def leave_block(run: Run, exc: BaseException | None) -> None:
    """End the run of a `with` block; one in a generator that is closed is closed with it."""
    run.leave()
    if isinstance(exc, GeneratorExit):
        run.close()
    else:
        run.end(exc)


def _wrap_manager_function(function: Callable[..., Any], start: Start) -> Callable[..., Any]:
    def run_manager_function(*args: Any, **kwargs: Any) -> _Manager:
        return _Manager(lambda: function(*args, **kwargs), lambda: start(args, kwargs))

    return run_manager_function


def _wrap_async_manager_function(function: Callable[..., Any], start: Start) -> Callable[..., Any]:
    def run_async_manager_function(*args: Any, **kwargs: Any) -> _AsyncManager:
        return _AsyncManager(lambda: function(*args, **kwargs), lambda: start(args, kwargs))

    return run_async_manager_function


def _code_of(decorator: Callable[[Callable[..., Any]], Callable[..., Any]]) -> object:
    """All functions that one decorator of `contextlib` makes share their code."""

    def function() -> Generator[None]:
        yield

    return decorator(function).__code__


_MANAGER_CODE = _code_of(contextlib.contextmanager)
_ASYNC_MANAGER_CODE = _code_of(contextlib.asynccontextmanager)
