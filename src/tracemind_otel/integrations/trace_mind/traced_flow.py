"""A flow of the runtime whose runs are traced, by the functions that the runtime calls for each step."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
from collections.abc import Set
from typing import Any

from ..._base.once import report_fault
from .run_scope import RunScope, StepScope, failure_in
from .shapes import Flow, Hook, Spec, Step, StepContext

log = logging.getLogger(__name__)

_MARK = "_tracemind_run"


def instrument_flow(flow: Flow) -> TracedFlow:
    """Trace every run of a flow: register what this returns in place of the flow.

    A run is an `invoke_workflow {name}` span below the span that is current where `runtime.run(...)` is called, with
    a span for each step and the sums of the model calls below it.

    Example:
        >>> runtime = FlowRuntime({flow.name: instrument_flow(flow)})  # doctest: +SKIP
    """
    return flow if isinstance(flow, TracedFlow) else TracedFlow(flow)


class TracedFlow:
    """A flow whose runs are traced; all else is the flow's own."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    @property
    def name(self) -> str:
        """The flow's name."""
        return self._flow.name

    def spec(self) -> Any:
        """The flow's specification, for one run."""
        return traced_spec(self._flow.spec())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flow, name)


def traced_spec(spec: Any) -> Any:
    """A copy of a specification for one run, which is traced below the code that calls this.

    The copy has the same revision: that is made of names and configuration, not of functions.
    """
    if hasattr(spec, _MARK):
        return spec
    try:
        run = RunScope()
        made: Spec = copy.copy(spec)
        made.steps = {name: _traced_step(step, run, spec.steps.keys()) for name, step in spec.steps.items()}
        setattr(made, _MARK, run)
    except Exception:
        report_fault(log, "TracedFlow", "spec")
        return spec
    return made


def run_of(spec: object) -> RunScope | None:
    """The run that a specification was made for."""
    run: RunScope | None = getattr(spec, _MARK, None)
    return run


def _traced_step(step: Any, run: RunScope, steps: Set[str]) -> Any:
    hooks = _StepHooks(step, run, steps)
    return dataclasses.replace(
        step,
        before=hooks.before,
        run=None if step.run is None else hooks.run,
        after=hooks.after,
        on_error=hooks.on_error,
    )


class _StepHooks:
    """The functions of one step in one run, around the user's."""

    def __init__(self, step: Step, run: RunScope, steps: Set[str]) -> None:
        self._step = step
        self._run = run
        self._steps = steps
        self._scope: StepScope | None = None
        self._given: tuple[object, str | None] | None = None
        """The state before the step ran, and the failure in it; `None` where the runtime has not run it."""

    async def before(self, ctx: StepContext) -> None:
        self._scope = self._given = None
        try:
            self._scope = self._run.begin_step(self._step, ctx)
        except Exception:
            report_fault(log, "TracedFlow", "begin_step")
        await self._call(self._step.before, ctx)

    async def run(self, ctx: StepContext, state: Any) -> Any:
        self._given = (state, failure_in(state))
        return await self._call(self._step.run, ctx, state)

    async def after(self, ctx: StepContext, output: Any) -> None:
        await self._call(self._step.after, ctx, output)
        self._end(None, None if self._hands_on(output) else output)
        try:
            if _is_last(self._step, ctx):
                self._run.end(None, output)
            elif _next_step(self._step) not in self._steps:
                self._run.end(KeyError(_next_step(self._step)))
        except Exception:
            report_fault(log, "TracedFlow", "after")

    def _hands_on(self, output: object) -> bool:
        """Whether the output is what the step was given: a failure in it is that of an earlier step."""
        if self._given is None:
            return True
        state, failure = self._given
        return output is state and failure_in(output) == failure

    async def on_error(self, ctx: StepContext, exc: BaseException) -> None:
        try:
            await self._call(self._step.on_error, ctx, exc)
        finally:
            self._end(exc)
            self._run.end(exc)

    async def _call(self, function: Hook | None, *args: Any) -> Any:
        if function is None:
            return None
        if self._scope is None:
            return await _awaited(function, *args)
        try:
            with self._scope.active():
                return await _awaited(function, *args)
        except Exception:
            raise  # the runtime calls `on_error` for it
        except BaseException as exc:
            self._end(exc)
            self._run.end(exc)
            raise

    def _end(self, exc: BaseException | None, output: object = None) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.end(exc, output)


async def _awaited(function: Hook, *args: Any) -> Any:
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


def _is_last(step: Step, ctx: StepContext) -> bool:
    """Whether the runtime goes no further after a step: it never enters one twice."""
    following = _next_step(step)
    visited = {step.name, *(each["name"] for each in ctx["executed"])}
    return following is None or following in visited


def _next_step(step: Step) -> str | None:
    """The step that the runtime goes to: the first one, but for a switch, which names it."""
    if step.operation.value == "switch":
        for key in ("key", "default"):
            named = step.config.get(key)
            if isinstance(named, str) and named in step.next_steps:
                return named
    return step.next_steps[0] if step.next_steps else None
