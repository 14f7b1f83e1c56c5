"""Wrappers for every kind of function; the decorators build on them.

A function and a coroutine run in the context of their caller, which is put back at their end. A generator's body runs
in a context of its own. The body of a function that `contextlib.contextmanager` made is the `with` block.

No OpenTelemetry here.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from .body import Ready, Start, abandon, code_of, end_call
from .generators import wrap_async_generator_function, wrap_generator_function
from .managers import ASYNC_MANAGER_CODES, MANAGER_CODES, wrap_async_manager_function, wrap_manager_function

P = ParamSpec("P")
R = TypeVar("R")


_PLAIN_FUNCTIONS = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    functools.partial,
)
"""What a plain wrapper can stand for, because it offers nothing but its call."""


def wrap(function: Callable[P, R], start: Start, ready: Ready | None = None) -> Callable[P, R]:
    """A function of the same kind, name and signature, each call of which is a run.

    Args:
        function: the function.
        start: starts a run.
        ready: what an async generator and an async context manager await before their body begins.
    """
    wrap_kind = _wrapper_for(function, ready)
    wrapper = wrap_kind(function, start)
    if wrap_kind is _wrap_function and not isinstance(cast("object", function), _PLAIN_FUNCTIONS):
        return cast("Callable[P, R]", ForwardingCallable(wrapper, function))
    return functools.wraps(function)(cast("Callable[P, R]", wrapper))


def _wrapper_for(
    function: Callable[..., Any], ready: Ready | None
) -> Callable[[Callable[..., Any], Start], Callable[..., Any]]:
    code = code_of(function)
    if code in MANAGER_CODES:
        return wrap_manager_function
    if code in ASYNC_MANAGER_CODES:
        return functools.partial(wrap_async_manager_function, ready=ready)
    if _is(inspect.isasyncgenfunction, function):
        return functools.partial(wrap_async_generator_function, ready=ready)
    if _is(inspect.iscoroutinefunction, function) or _is_awaitable_generator(code):
        return _wrap_coroutine_function
    if _is(inspect.isgeneratorfunction, function):
        return wrap_generator_function
    return _wrap_function


def _is(is_kind: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Whether a function, or the `__call__` of an object, is of that kind."""
    return is_kind(function) or is_kind(getattr(function, "__call__", None))  # noqa: B004


def _is_awaitable_generator(code: object) -> bool:
    """Whether it is the code of a generator that `types.coroutine` made awaitable."""
    return isinstance(code, types.CodeType) and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _wrap_function(function: Callable[..., Any], start: Start) -> Callable[..., Any]:
    def run_function(*args: Any, **kwargs: Any) -> Any:
        run = start(args, kwargs)
        run.enter()
        try:
            result = function(*args, **kwargs)
        except BaseException as exc:
            end_call(run, exc)
            raise
        end_call(run, None, result)
        return result

    return run_function


def _wrap_coroutine_function(function: Callable[..., Awaitable[Any]], start: Start) -> Callable[..., Any]:
    async def run_coroutine_function(*args: Any, **kwargs: Any) -> Any:
        run = start(args, kwargs)
        run.enter()
        try:
            result = await function(*args, **kwargs)
        except GeneratorExit:
            abandon(run)
            raise
        except BaseException as exc:
            end_call(run, exc)
            raise
        end_call(run, None, result)
        return result

    return run_coroutine_function


class ForwardingCallable:
    """A wrapper of a callable that is not a function: what `functools.lru_cache` returns, a Celery task, a command.

    It looks up each attribute in the callable when it is asked for: the callable may be a proxy that is not ready yet.
    """

    def __init__(self, wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
        self._wrapper = wrapper
        self.__wrapped__ = function
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind it, if a class would bind the callable."""
        if instance is None or not hasattr(type(self.__wrapped__), "__get__"):
            return self
        return types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return f"<traced {self.__wrapped__!r}>"
