"""Wrappers for every kind of function; the decorators build on them.

A function and a coroutine run in the context of their caller, which is put back at their end. The body of a
generator runs in a context of its own, a copy of the one in which it began: what it sets its consumer never sees,
however the two take turns, and so nothing has to be put back, whoever closes it. A function that was made by
`contextlib.contextmanager` has the `with` block as its body.

No OpenTelemetry here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from .body import Start, abandon, code_of, end_call, is_iterable_coroutine
from .forwarding import ForwardingCallable, keeps_attributes
from .generators import wrap_async_generator_function, wrap_generator_function
from .managers import ASYNC_MANAGER_CODES, MANAGER_CODES, wrap_async_manager_function, wrap_manager_function

P = ParamSpec("P")
R = TypeVar("R")


def wrap(function: Callable[P, R], start: Start) -> Callable[P, R]:
    """A function of the same kind, name and signature, each call of which is a run."""
    wrap_kind = _wrapper_for(function)
    wrapper = wrap_kind(function, start)
    if wrap_kind is _wrap_function and not keeps_attributes(function):
        return cast("Callable[P, R]", ForwardingCallable(wrapper, function))
    return functools.wraps(function)(cast("Callable[P, R]", wrapper))


def _wrapper_for(function: Callable[..., Any]) -> Callable[[Callable[..., Any], Start], Callable[..., Any]]:
    code = code_of(function)
    if code in MANAGER_CODES:
        return wrap_manager_function
    if code in ASYNC_MANAGER_CODES:
        return wrap_async_manager_function
    if _is(inspect.isasyncgenfunction, function):
        return wrap_async_generator_function
    if _is(inspect.iscoroutinefunction, function) or is_iterable_coroutine(code):
        return _wrap_coroutine_function
    if _is(inspect.isgeneratorfunction, function):
        return wrap_generator_function
    return _wrap_function


def _is(is_kind: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Whether a function, or the `__call__` of an object, is of that kind."""
    return is_kind(function) or is_kind(getattr(function, "__call__", None))  # noqa: B004


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
