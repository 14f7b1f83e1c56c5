"""One request to the runtime: a span from the call of `run` to its result, with the time in the queue."""

from __future__ import annotations

import contextvars
import logging
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Final, cast

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from ..._base.context import set_here
from ..._base.once import report_fault
from ...flows.sources import AttributeSources
from ...otel import semconv
from ...otel.sanitize import sanitized
from ...otel.span_scope import Kind, SpanSpec, start_scope
from ...otel.surroundings import Surroundings
from .run_scope import RunScope, failure_in

log = logging.getLogger(__name__)

REQUEST: Final = Kind(decorator="request")
_KEPT = 1024
"""Shared runs whose spans are remembered: as many as the runtime keeps results."""


class Request:
    """A request, which begins a run unless it gets the result of another one."""

    def __init__(self, flow: str) -> None:
        self._scope = start_scope(_spec(flow), (), {})
        self._scope.enter()
        self._inside = Surroundings()
        self._span = trace.get_current_span()
        self._scope.leave()
        self.run: RunScope | None = None

    def active(self) -> AbstractContextManager[None]:
        """A block in which the runtime gets the request."""
        return self._inside.entered()

    def current(self) -> AbstractContextManager[None]:
        """A block in which `current_request()` finds it."""
        return set_here(_current, self)

    def failed(self, exc: BaseException) -> None:
        """End with what the runtime raised."""
        self._scope.end(exc)

    def answered(self, result: Mapping[str, Any], shared: SharedRuns, *, is_keyed: bool) -> None:
        """End with the runtime's result, whose status may hide that the flow failed."""
        try:
            self._describe(result, shared, is_keyed=is_keyed)
        except Exception:
            report_fault(log, "TraceMindInstrumentor", "execute")
        finally:
            self._scope.end(None)

    def _describe(self, result: Mapping[str, Any], shared: SharedRuns, *, is_keyed: bool) -> None:
        run_id, status = str(result.get("run_id")), str(result.get("status"))
        self._span.set_attributes(
            {semconv.TRACEMIND_FLOW_ID: sanitized(run_id), semconv.TRACEMIND_REQUEST_STATUS: sanitized(status)}
        )
        failure = _failure_of(result, status)
        if failure is not None:
            self._scope.fail(failure)
        if self.run is not None and self.run.has_begun:
            # The flow has ended by now, unless the runtime failed between two of its steps.
            self.run.end_failed(failure or "error")
            self._span.set_attribute(semconv.TRACEMIND_REQUEST_QUEUED_S, float(result.get("queued_ms") or 0) / 1000)
            if is_keyed:
                shared.remember(run_id, self.run.span_context)
        elif is_keyed and (context := shared.find(run_id)) is not None:
            self._span.set_attribute(semconv.TRACEMIND_REQUEST_SHARED, True)
            self._span.add_link(context)


def _failure_of(result: Mapping[str, Any], status: str) -> str | None:
    if status in ("error", "rejected"):
        return str(result.get("error_code") or status)
    output: object = result.get("output")
    if not isinstance(output, Mapping):
        return None
    payload = cast("Mapping[str, object]", output)
    return failure_in(payload) or failure_in(payload.get("state"))


class SharedRuns:
    """The spans of runs whose results later requests with the same idempotency key get."""

    def __init__(self) -> None:
        self._contexts: OrderedDict[str, SpanContext] = OrderedDict()

    def remember(self, run_id: str, context: SpanContext | None) -> None:
        """Keep the span of a run."""
        if context is not None and context.is_valid:
            self._contexts[run_id] = context
            while len(self._contexts) > _KEPT:
                self._contexts.popitem(last=False)

    def find(self, run_id: str) -> SpanContext | None:
        """The span of a run, unless it is forgotten."""
        return self._contexts.get(run_id)


_current: contextvars.ContextVar[Request | None] = contextvars.ContextVar("tracemind_request", default=None)


def current_request() -> Request | None:
    """The request that the runtime is being given; `None` outside of one, as where a specification is inspected."""
    return _current.get()


@lru_cache(maxsize=1024)
def _spec(flow: str) -> SpanSpec:
    return SpanSpec.of(REQUEST, f"request {flow}", AttributeSources.of({}))
