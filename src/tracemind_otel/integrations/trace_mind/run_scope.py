"""One run of a flow of the runtime: the span of the flow, and that of the step in hand.

The runtime runs a request in a worker task, which has the context of whoever made the first request of all. So a run
takes along what surrounds the code that asks for the flow's specification, which is that of its own request.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import cast

from opentelemetry.trace import SpanContext

from ...flows.scope import FlowSpec, NoScope
from ...flows.sources import AttributeSources, CorrelationSources
from ...otel import semconv
from ...otel.span_scope import FLOW, STEP, SpanRun, SpanSpec, start_flow, start_step
from ...otel.surroundings import Surroundings
from .shapes import Step, StepContext

Scope = SpanRun | NoScope
"""A run of a flow or a step, with a span where anything records spans."""
_FAILED = frozenset({"error", "failed"})
"""Values of `status` and `outcome` in what a step returns, which the runtime itself counts as a success."""


class RunScope:
    """The run of one request."""

    def __init__(self) -> None:
        self._caller = Surroundings()
        self._flow: Scope | None = None
        self._inside: Surroundings = self._caller
        self.has_begun = False
        """Whether the runtime has begun the first step."""
        self.span_context: SpanContext | None = None
        """The span of the flow, once it has begun."""

    def begin_step(self, step: Step, ctx: StepContext) -> StepScope:
        """The runtime begins a step, and with the first one the flow."""
        if self._flow is None:
            with self._caller.entered():
                self._flow = start_flow(_flow_spec(str(ctx["flow"])), _FLOW, (ctx,), {})
                self._inside = _inside(self._flow)
            self.has_begun = True
            self.span_context = self._inside.span_context
        with self._inside.entered():
            scope = start_step(_step_spec(step.name), (ctx,), {})
            return StepScope(scope, _inside(scope))

    def end(self, exc: BaseException | None, state: object = None) -> None:
        """The run is over, with what its last step raised or returned."""
        flow, self._flow = self._flow, None
        if flow is not None:
            _end(flow, exc, state)

    def end_failed(self, error_type: str) -> None:
        """The run is over, and no step of it has told of the end."""
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.fail(error_type)
            flow.end(None)


class StepScope:
    """A step in hand."""

    def __init__(self, scope: Scope, inside: Surroundings) -> None:
        self._scope = scope
        self._inside = inside

    def active(self) -> AbstractContextManager[None]:
        """A block that belongs to the step."""
        return self._inside.entered()

    def end(self, exc: BaseException | None, state: object = None) -> None:
        """The step is over."""
        _end(self._scope, exc, state)


def failure_in(state: object) -> str | None:
    """The error that a step returned instead of raising it, by its code where it has one."""
    if not isinstance(state, Mapping):
        return None
    payload = cast("Mapping[str, object]", state)
    if payload.get("status") not in _FAILED and payload.get("outcome") not in _FAILED:
        return None
    code = payload.get("code") or payload.get("error_code")
    return code if isinstance(code, str) else "error"


def _end(scope: Scope, exc: BaseException | None, state: object) -> None:
    failure = failure_in(state) if exc is None else None
    if failure is not None:
        scope.fail(failure)
    scope.end(None if exc is not None and _awaits_approval(exc) else exc)


def _awaits_approval(exc: BaseException) -> bool:
    """Whether a step stopped until a person approves it, which the runtime says by an exception."""
    waiting = getattr(sys.modules.get("tm.governance.hitl"), "PendingApproval", None)
    return isinstance(waiting, type) and isinstance(exc, waiting)


def _inside(scope: Scope) -> Surroundings:
    scope.enter()
    try:
        return Surroundings()
    finally:
        scope.leave()


def _run_id(ctx: StepContext) -> str:
    return str(ctx["run_id"])


def _revision(ctx: StepContext) -> str:
    return str(ctx["flow_rev"])


_FLOW = FlowSpec(ids=CorrelationSources.of((), flow_id=_run_id))


@lru_cache(maxsize=1024)
def _flow_spec(name: str) -> SpanSpec:
    return SpanSpec.of(FLOW, name, AttributeSources.of({semconv.TRACEMIND_FLOW_REVISION: _revision}))


@lru_cache(maxsize=4096)
def _step_spec(name: str) -> SpanSpec:
    return SpanSpec.of(STEP, name, AttributeSources.of({}))
