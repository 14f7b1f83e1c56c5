"""`llm_call_span`: a span around code that calls a model by any means."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from .._base.context import Block
from .._base.once import report_fault
from ..ai.llm.types import LLMUsage
from ..errors import ConfigError
from ..otel.wrapping.body import Body, abandon, code_of, end_call
from ..otel.wrapping.functions import wrap
from ..otel.wrapping.managers import ASYNC_MANAGER_CODES, MANAGER_CODES
from .observation import until_priceable
from .read_along import ReadAlong, comes_later
from .spanned_call import CallRun

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def llm_call_span(*, provider: str, model: str, operation: str = "chat", name: str | None = None) -> LLMCallSpans:
    """A span for code that calls a model by any means: over gRPC, in the process, by a client of your own.

    It is a decorator for functions of every kind, and the `with` or `async with` of one block at a time. The span is as
    that of any other model call: a CLIENT span with tokens and cost, which count for the flow and the budgets around.
    What a decorated function returns is read for its usage: the object of an SDK, a dict in a provider's format, an
    `LLMResponse` or an `LLMUsage`. So are the pieces of a stream that it returns or, as a generator, yields. In a block
    call `set_response` or `set_usage` of the span.

    Args:
        provider: the provider by whose prices the call is priced: `openai`, or a name of your own with `set_prices`.
        model: the model that is asked for.
        operation: `gen_ai.operation.name`: `chat`, `text_completion`, `generate_content` or `embeddings`.
        name: the name of the step in the flow's sums; the default is the running step, else the model.

    Raises:
        ConfigError: an argument is no string, or an empty one.
        BudgetExceededError: a budget around the call is spent; the code has not run. A decorated function raises it
            when it is called, a block when it is entered.

    Example:
        >>> with llm_call_span(provider="fake", model="own-model") as span:
        ...     span.set_usage(input_tokens=12, output_tokens=3)
    """
    named = {"provider": provider, "model": model, "operation": operation}
    for argument, value in (named if name is None else {**named, "name": name}).items():
        if not isinstance(cast("object", value), str) or not value:
            raise ConfigError(f"{argument} is {value!r}; it must be a string that is not empty")
    return LLMCallSpans(provider, model, operation, name)


class LLMCallSpans(Block["LLMCallSpan"]):
    """What `llm_call_span(...)` returns: a decorator, and the `with` of one block at a time, whose `as` is the span."""

    def __init__(self, provider: str, model: str, operation: str, name: str | None) -> None:
        self._provider, self._model, self._operation, self._name = provider, model, operation, name
        self._block: Body | None = None

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """Decorate a function."""
        if not callable(cast("object", function)) or isinstance(function, type):
            raise TypeError(f"@llm_call_span decorates functions, not {function!r}")
        if _has_a_body_of_its_own(function):
            if _is_awaited(function):
                return wrap(function, lambda args, kwargs: self._begin(), CallRun.ask_soon)
            return wrap(function, lambda args, kwargs: self._begin_blocking())
        if inspect.iscoroutinefunction(function):
            return cast("Callable[P, R]", self._around_coroutine(cast("Callable[P, Awaitable[object]]", function)))
        return self._around_function(function)

    def _around_function(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            run = self._begin_blocking()
            run.enter()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                end_call(run, error)
                raise
            run.leave()
            return cast("R", _returned(run, result))

        return call

    def _around_coroutine(self, function: Callable[P, Awaitable[object]]) -> Callable[P, Awaitable[object]]:
        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> object:
            return await _awaited(self._begin(), lambda: function(*args, **kwargs))

        return call

    def _begin(self) -> CallRun:
        return CallRun(self._provider, self._model, self._operation, self._name)

    def _begin_blocking(self) -> CallRun:
        run = self._begin()
        run.ask_blocking()
        return run

    def _enter(self) -> LLMCallSpan:
        self._reject_second_block()
        return self._entered(self._begin_blocking())

    async def __aenter__(self) -> LLMCallSpan:
        self._reject_second_block()
        run = self._begin()
        await run.ask_soon()
        return self._entered(run)

    def _reject_second_block(self) -> None:
        if self._block is not None:
            raise RuntimeError("this llm_call_span(...) is in use; make one for each block")

    def _entered(self, run: CallRun) -> LLMCallSpan:
        run.enter()
        self._block = Body(run)
        return LLMCallSpan(run)

    def _leave(self, exc: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.leave(exc)


def _has_a_body_of_its_own(function: Callable[..., object]) -> bool:
    """Whether it is a generator, or makes the `with` of a block: its body goes on after the call."""
    is_manager = code_of(function) in (*MANAGER_CODES, *ASYNC_MANAGER_CODES)
    return is_manager or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _is_awaited(function: Callable[..., object]) -> bool:
    """Whether its body begins where something can be awaited."""
    return inspect.isasyncgenfunction(function) or code_of(function) in ASYNC_MANAGER_CODES


async def _awaited(run: CallRun, make: Callable[[], Awaitable[object]]) -> object:
    await run.ask_soon()
    run.enter()
    try:
        result = await make()
        await until_priceable()
    except GeneratorExit:
        abandon(run)
        raise
    except BaseException as error:
        end_call(run, error)
        raise
    run.leave()
    return _returned(run, result)


def _returned(run: CallRun, result: object) -> object:
    """End the span with what the function returned; of a stream, at its end. Returns what the caller gets."""
    try:
        if inspect.isawaitable(result):
            return _awaited(run, lambda: result)
        if comes_later(result):
            return ReadAlong(result, Body(run, is_closed_by_loop=True), run)
    except Exception:
        report_fault(log, type(result).__name__, "stream")
    run.end(None, result)
    return result


class LLMCallSpan:
    """The span of a block.

    Args:
        run: the call that runs.
    """

    def __init__(self, run: CallRun) -> None:
        self._run = run

    def set_usage(self, usage: LLMUsage | None = None, /, **counts: Any) -> None:
        """Say what the call used; the last word counts, before what a reply says.

        Args:
            usage: the usage.
            counts: the same by name: `input_tokens`, which includes cached ones, `output_tokens`, which includes
                reasoning, and any other field of `LLMUsage`: `cache_read_tokens`, or `cost_usd` where the reply has it.

        Raises:
            TypeError: `usage` is no `LLMUsage`, or that has no such field.
        """
        if usage is not None and not isinstance(cast("object", usage), LLMUsage):
            raise TypeError(f"set_usage takes an LLMUsage, or counts by name, not {type(usage).__name__}")
        given = usage or LLMUsage(None, None, None)
        self._run.usage = _with_counts(given, counts) if counts else given

    def set_response(self, reply: object, /) -> None:
        """Read a reply for its usage, model, id and finish reason: what an SDK returned, or a provider's JSON."""
        self._run.read(reply)

    def add_chunk(self, chunk: object, /) -> None:
        """Read a piece of a stream, as an SDK handed it out."""
        self._run.item(chunk)


_COUNTS = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
"""The conventions' names of the counts that `LLMUsage` names otherwise."""
_SIDES = ("prompt_tokens", "completion_tokens", "total_tokens")


def _with_counts(usage: LLMUsage, counts: dict[str, Any]) -> LLMUsage:
    held = vars(usage) | {_COUNTS.get(name, name): value for name, value in counts.items()}
    prompt, completion, total = (held.pop(name, None) for name in _SIDES)
    if total is None and isinstance(prompt, int) and isinstance(completion, int):
        total = prompt + completion
    return LLMUsage.of_reply(prompt, completion, total, **held)
