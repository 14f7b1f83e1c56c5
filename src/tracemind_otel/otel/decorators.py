"""`@flow` and `@step`: spans around functions that somebody already wrote."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from types import MappingProxyType, TracebackType
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from opentelemetry import context as otel_context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from ..runtime.rollup import AttributeValue, FlowScope, FlowTotals, enter_flow
from . import semconv
from .instruments import Attributes, Histogram, MeterInstruments
from .providers import Providers, configured_providers, meter, tracer

P = ParamSpec("P")
R = TypeVar("R")

_NO_ATTRIBUTES: Mapping[str, AttributeValue] = MappingProxyType({})


class Decorator(Protocol):
    """What `@flow(...)` and `@step(...)` return: it keeps the function's signature."""

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]:
        """Wrap a function."""
        ...


@overload
def flow(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def flow(*, name: str | None = None, attributes: Mapping[str, AttributeValue] | None = None) -> Decorator: ...
def flow(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Callable[P, R] | Decorator:
    """Run a function as a flow: an `invoke_workflow {name}` span with the sums of all model calls below it.

    Bare, or with options; for sync and async functions and methods. The sums (`tracemind.flow.*`) hold under
    `asyncio.gather` and in `asyncio.to_thread` too, and in other threads by `carry_context`.

    Args:
        function: the function, when used bare.
        name: the flow's name, of few values; the default is the function's own.
        attributes: attributes of the span; those named in `configure(metric_attributes=...)` go on metrics too.

    Raises:
        TypeError: the function is a generator; the message says what to do instead.
    """
    return _decorate(function, functools.partial(_FlowRun, attributes=attributes or _NO_ATTRIBUTES), "flow", name)


@overload
def step(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def step(*, name: str | None = None, attributes: Mapping[str, AttributeValue] | None = None) -> Decorator: ...
def step(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> Callable[P, R] | Decorator:
    """Run a function as a step: a span of its name, under which its model calls nest.

    Bare, or with options; for sync and async functions and methods.

    Args:
        function: the function, when used bare.
        name: the step's name; the default is the function's own.
        attributes: attributes of the span.

    Raises:
        TypeError: the function is a generator; the message says what to do instead.
    """
    return _decorate(function, functools.partial(_StepRun, attributes=attributes or _NO_ATTRIBUTES), "step", name)


def _decorate(
    function: Callable[P, R] | None,
    make_run: Callable[[str], AbstractContextManager[None]],
    decorator: str,
    name: str | None,
) -> Callable[P, R] | Decorator:
    def decorate(function: Callable[P, R], /) -> Callable[P, R]:
        _refuse_unfit(function, decorator)
        return _wrap(function, functools.partial(make_run, name or _name_of(function)))

    return decorate(function) if function is not None else cast("Decorator", decorate)


def _name_of(function: Callable[..., object]) -> str:
    """`Class.method` or `function`, without the functions it is nested in."""
    return getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]


def _wrap(function: Callable[P, R], new_run: Callable[[], AbstractContextManager[None]]) -> Callable[P, R]:
    if not _is_async(function):

        @functools.wraps(function)
        def run_sync(*args: P.args, **kwargs: P.kwargs) -> R:
            with new_run():
                return function(*args, **kwargs)

        return run_sync

    coroutine_function = cast("Callable[P, Coroutine[Any, Any, Any]]", function)

    @functools.wraps(function)
    async def run_async(*args: P.args, **kwargs: P.kwargs) -> Any:
        with new_run():
            return await coroutine_function(*args, **kwargs)

    return cast("Callable[P, R]", run_async)


def _is_async(function: Callable[..., object]) -> bool:
    """Also true of an object whose call is a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _refuse_unfit(function: Callable[..., object], decorator: str) -> None:
    if isinstance(cast("object", function), str):
        raise TypeError(f"@{decorator}({function!r}): write @{decorator}(name={function!r})")
    if type(function) in (staticmethod, classmethod):
        raise TypeError(f"@{decorator}: put it below @{type(function).__name__}, next to the function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"@{decorator}: {function.__qualname__} is a generator. Decorate the function that consumes it, "
            f"or collect its items in a function of its own and decorate that"
        )


class _SpanRun(AbstractContextManager[None]):
    """One run of a decorated function: a span that is current in its body and ends with it."""

    def __init__(self, tracer: Tracer, name: str, attributes: Mapping[str, AttributeValue]) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes

    def __enter__(self) -> None:
        self._span = self._tracer.start_span(self._name, kind=SpanKind.INTERNAL, attributes=self._attributes)
        self._token = otel_context.attach(set_span_in_context(self._span))

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        try:
            if self._span.is_recording():
                self._before_end(self._span)
                if exc is not None:
                    _record_exception(self._span, exc)
        finally:
            self._span.end()

    def _before_end(self, span: Span) -> None:
        """Set what is known at the end only."""


class _StepRun(_SpanRun):
    def __init__(self, name: str, *, attributes: Mapping[str, AttributeValue]) -> None:
        super().__init__(_tools(configured_providers()).tracer, name, attributes)


class _FlowRun(_SpanRun):
    def __init__(self, name: str, *, attributes: Mapping[str, AttributeValue]) -> None:
        self._tools = _tools(configured_providers())
        self._flow_name = name
        self._flow = enter_flow(name, attributes)
        super().__init__(
            self._tools.tracer,
            f"{semconv.INVOKE_WORKFLOW} {name}",
            {
                **attributes,
                semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW,
                semconv.GEN_AI_WORKFLOW_NAME: name,
            },
        )

    def __enter__(self) -> None:
        self._scope: FlowScope = self._flow.__enter__()
        self._started = time.perf_counter()
        super().__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(exc_type, exc, trace)
        finally:
            self._flow.__exit__(None, None, None)
            self._measure(exc)

    def _before_end(self, span: Span) -> None:
        span.set_attributes(_totals_attributes(self._scope.totals()))

    def _measure(self, exc: BaseException | None) -> None:
        attributes: Attributes = {semconv.GEN_AI_WORKFLOW_NAME: self._flow_name}
        if isinstance(exc, Exception):
            attributes[semconv.ERROR_TYPE] = type(exc).__qualname__
        self._tools.duration.record(time.perf_counter() - self._started, attributes, set_span_in_context(self._span))


def _totals_attributes(totals: FlowTotals) -> dict[str, int | float]:
    attributes: dict[str, int | float] = {
        semconv.TRACEMIND_FLOW_INPUT_TOKENS: totals.input_tokens,
        semconv.TRACEMIND_FLOW_OUTPUT_TOKENS: totals.output_tokens,
        semconv.TRACEMIND_FLOW_LLM_CALLS: totals.llm_calls,
        semconv.TRACEMIND_FLOW_RETRIES: totals.retries,
    }
    if totals.cost_usd is not None:
        attributes[semconv.TRACEMIND_FLOW_COST_USD] = totals.cost_usd
    return attributes


def _record_exception(span: Span, exc: BaseException) -> None:
    """The type and the places, not the message: the text of a user's exception may hold a prompt."""
    if not isinstance(exc, Exception):
        if isinstance(exc, asyncio.CancelledError):
            span.set_attribute(semconv.TRACEMIND_CANCELLED, True)
        return
    name = type(exc).__qualname__
    span.set_status(Status(StatusCode.ERROR, name))
    span.set_attribute(semconv.ERROR_TYPE, name)
    places = "\n".join(
        f'File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}'
        for frame, line in traceback.walk_tb(exc.__traceback__)
    )
    span.add_event(semconv.EXCEPTION_EVENT, {semconv.EXCEPTION_TYPE: name, semconv.EXCEPTION_STACKTRACE: places})


class _Tools:
    """The tracer and the histogram of one set-up."""

    def __init__(self, providers: Providers) -> None:
        self.tracer: Tracer = tracer(providers.tracer_provider)
        self.duration: Histogram = MeterInstruments(meter(providers.meter_provider)).histogram(
            semconv.METRIC_WORKFLOW_DURATION, "s", "Duration of a flow", semconv.WORKFLOW_DURATION_BOUNDARIES_S
        )


_tools = lru_cache(maxsize=8)(_Tools)
