"""What a plain function returned: a result, or a body that has yet to run, and then is the function's own."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, cast

from .body import Body, Run, is_iterable_coroutine
from .generators import async_generator_of, generator_of


def returned(run: Run, result: Any) -> Any:
    """End the run, unless what was returned is a body that has yet to run: then that is the run's."""
    adopt = _adopter_of(result)
    if adopt is None or sys.getrefcount(result) > _REFERENCES or not _is_new(result):
        run.leave()
        run.end(None, result)
        return result
    body = Body(run, copy_context(), unbegun=result)
    run.leave()
    adopted = adopt(lambda: (result, body))()
    adopted.__name__, adopted.__qualname__ = result.__name__, result.__qualname__
    return adopted


def _adopter_of(result: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]] | None:
    kind = type(cast("object", result))
    if kind is CoroutineType or (kind is GeneratorType and is_iterable_coroutine(result.gi_code)):
        return _coroutine
    if kind is GeneratorType:
        return generator_of
    return async_generator_of if kind is AsyncGeneratorType else None


def _is_new(body: Any) -> bool:
    """Whether it has not begun: what has is somebody else's already."""
    if inspect.iscoroutine(body):
        return inspect.getcoroutinestate(body) == inspect.CORO_CREATED
    if inspect.isgenerator(body):
        return inspect.getgeneratorstate(body) == inspect.GEN_CREATED
    state_of = getattr(inspect, "getasyncgenstate", None)
    return state_of(body) == "AGEN_CREATED" if state_of is not None else _stands_at_its_beginning(body)


def _stands_at_its_beginning(generator: AsyncGeneratorType[Any, Any]) -> bool:
    """Python 3.11 has no `getasyncgenstate`: the frame stands at the instruction that made the generator."""
    frame = generator.ag_frame
    return frame is not None and generator.ag_code.co_code[frame.f_lasti] == dis.opmap["RETURN_GENERATOR"]


def _coroutine(begin: Callable[[], tuple[Coroutine[Any, Any, Any], Body]]) -> Callable[[], Coroutine[Any, Any, Any]]:
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


def _references_of_a_new_body() -> int:
    """How many references there are where `returned` looks, to a body that only its function's result refers to."""

    def body() -> Generator[None]:
        yield

    def looks(run: Run, result: Any) -> int:
        return sys.getrefcount(result)

    def returns() -> int:
        result = body()
        return looks(cast("Run", None), result)

    return returns()


_REFERENCES = _references_of_a_new_body()
