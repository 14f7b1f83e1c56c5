"""Prices the model calls that other instrumentations record without passing our wire: over gRPC, or in the process.

All model calls of other instrumentations get the names of the flow and the agent around them, too.

An ended span cannot be changed, and the SDK has no public callback before its end: `_on_ending` is private, and the
concurrent processor of SDK 1.45 never calls it. A wrapping exporter would reach only our own exporters. So the `end` of
each such span is wrapped on the span itself, which takes nothing but public names and serves every exporter.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Span as AnySpan
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from ..._base.once import report_fault
from ...ai.llm.pricing import price_reply_soon, warm_up
from ...ai.llm.types import LLMResponse, LLMUsage
from ...errors import LLMClientError
from ...flows.budget import Budget, current_budget, spend
from ...flows.correlation import current_correlation, current_step
from ...flows.totals import FlowRun, current_flow
from ...recording.port import StepEnd, StepStart, begin_safely, listeners
from ..double_spans import name_double_span
from ..genai_spans import (
    attributes_of,
    has_input_without_cache,
    is_model_call,
    is_model_span,
    measured_by_maker,
    scope_of,
)
from ..genai_usage import ToldCall, told_call
from ..instruments import SCOPE_NAME, is_ours
from ..names_around import Names, names_around, names_inside
from ..open_spans import (
    CallTellers,
    OpenSpan,
    close_span,
    counted_call_told_by,
    keep_own_reply,
    keep_told_call,
    open_around,
    open_span,
)
from ..recorder import JoinedSpan, OTelRecorder, add_cost
from ..sanitize import encodable
from ..semconv import ERROR_TYPE, GEN_AI_AGENT_NAME, GEN_AI_RESPONSE_ID

log = logging.getLogger(__name__)

STEP_TYPE = "span.llm_call"
"""The kind of step that such a call is."""
_KINDS = frozenset({SpanKind.CLIENT, SpanKind.INTERNAL})
_OTHER_CALLS = ("http.", "db.", "rpc.", "messaging.", "url.")


@functools.lru_cache(maxsize=1)
def _recorder() -> OTelRecorder:
    """The recorder that follows `configure()`; made at the first call, when the providers are set."""
    return OTelRecorder()


class SpanPrices(SpanProcessor):
    """Adds the cost to the spans of model calls before they end, and counts each call once."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        try:
            self._begin(span, parent_context)
        except Exception:
            report_fault(log, "SpanPrices", "on_start")

    def _begin(self, span: Span, parent_context: Context | None) -> None:
        if span.kind not in _KINDS:
            return
        attributes = attributes_of(span)
        if is_ours(span) and is_model_call(attributes):
            if span.parent is not None:
                _begin_own_call(span, get_current_span(parent_context), attributes)
            return
        parent = get_current_span(parent_context)
        opened = open_span(span, parent, scope_of(span))
        if opened.parent is not None:
            opened.names = _names_inside(opened.parent, parent)
        if is_ours(span):
            return
        if is_model_span(span):
            told = told_call(attributes)
            opened.begin_call(span, told.model, measured_by_maker(span))
            warm_up(told.priced_as, told.model)
        elif any(name.startswith(_OTHER_CALLS) for name in attributes):
            return
        ending = _Ending(span, opened, span.end)
        span.end = ending.end  # type: ignore[method-assign]

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is not None:
            close_span(context)
            if is_ours(span):
                reply = attributes_of(span).get(GEN_AI_RESPONSE_ID)
                if isinstance(reply, str):
                    keep_own_reply(reply)


def _names_inside(opened: OpenSpan, span: object) -> Names:
    """The names for what is inside an open span, found out when the first span inside it begins."""
    if opened.names_inside is None:
        opened.names_inside = names_inside(span, opened.names)
    return opened.names_inside


def _begin_own_call(span: Span, parent: AnySpan, attributes: Mapping[str, Any]) -> None:
    """Count a call of ours on the spans around it, which report the same call.

    Where another instrumentation's span tells of an agent nearer to it than our own, the call gets that name.
    """
    around = open_around(parent)
    if around is None:
        return
    around.count_inside()
    agent = _names_inside(around, parent).get(GEN_AI_AGENT_NAME)
    if agent is not None and agent != attributes.get(GEN_AI_AGENT_NAME):
        span.set_attributes(encodable({GEN_AI_AGENT_NAME: agent}))


class _Ending:
    """The end of a span that may be a model call's.

    Args:
        span: the span.
        opened: its place among the open ones.
        end: the SDK's own end.
    """

    def __init__(self, span: Span, opened: OpenSpan, end: Callable[..., None]) -> None:
        self._span, self._opened = span, opened
        self._end: Callable[..., None] | None = end
        self._flow: FlowRun | None = current_flow()
        self._budget: Budget | None = current_budget()
        self._step = current_step()
        self._names = names_around()

    def end(self, end_time: int | None = None) -> None:
        """End the span, with its cost where it has one. A price that is still looked up holds the end back."""
        end, self._end = self._end, None
        if end is None:
            return
        vars(self._span).pop("end", None)
        ended_ns = time.time_ns() if end_time is None else end_time
        finish = functools.partial(end, ended_ns)
        try:
            told = None
            if self._span.is_recording() and is_model_call(attributes_of(self._span)):
                self._name_what_is_around()
                told = self._told(ended_ns)
            if told is not None:
                self._opened.count()
                call = keep_told_call(self._opened, told.model, self._span.start_time or ended_ns)
                if told.response is not None:
                    call.replied(told.response, ended_ns)
                self._count(told, ended_ns, finish)
                return
        except Exception:
            report_fault(log, "SpanPrices", "end")
        finish()

    def _name_what_is_around(self) -> None:
        """Add the flow and the agent; names that the maker has set stay."""
        own = attributes_of(self._span)
        names = {**self._names, **self._opened.names}
        added = {name: value for name, value in names.items() if value is not None and name not in own}
        self._span.set_attributes(encodable(added))

    def _told(self, ended_ns: int) -> ToldCall | None:
        """The call to count; `None` where it was counted."""
        attributes = attributes_of(self._span)
        if self._opened.is_told:
            return None
        told = told_call(attributes, has_cache_apart=has_input_without_cache(self._opened.scope))
        # A span without counts may be one of several of a call. Only a failure tells that no other will have them.
        if told.response is None and (not self._has_failed() or self._opened.is_inside_call):
            return None
        is_log = attributes.get("logfire.span_type") == "log"
        times_ns = self._span.start_time or ended_ns, ended_ns
        answered_by = None if told.response is None else told.response.response_model
        models = told.model, answered_by or told.model
        call = counted_call_told_by(self._opened, models, told.response, times_ns, is_log=is_log)
        if call is None:
            return told
        self._tell_again(call)
        return None

    def _tell_again(self, call: CallTellers) -> None:
        """The call of this span is counted: give it the cost that no span has, or say that there are two spans."""
        usage, call.unwritten = call.unwritten, None
        if usage is not None:
            add_cost(self._span, usage)
        if self._opened.scope in call.beside:
            name_double_span(self._opened.scope, SCOPE_NAME if call.span is None else scope_of(call.span))

    def _has_failed(self) -> bool:
        return self._span.status.status_code is StatusCode.ERROR or ERROR_TYPE in attributes_of(self._span)

    def _count(self, told: ToldCall, ended_ns: int, finish: Callable[[], None]) -> None:
        def end(usage: LLMUsage | None) -> None:
            try:
                self._record(told, usage, ended_ns)
            except Exception:
                report_fault(log, "SpanPrices", "record")
            finally:
                finish()

        response = told.response
        if response is None:
            end(None)
            return
        models = tuple(filter(None, (response.response_model, told.model)))
        price_reply_soon(told.priced_as, models, response, end, at=datetime.now(UTC))

    def _record(self, told: ToldCall, usage: LLMUsage | None, ended_ns: int) -> None:
        step = self._step or told.model or "model call"
        joined = JoinedSpan(_recorder(), self._span, measured_by_maker(self._span), self._span.start_time)
        handle = begin_safely(_start_of(told, step), joined, *listeners())
        if self._flow is not None:
            self._flow.add_call(usage, retries=0, step=step, model=f"{told.priced_as}/{told.model}")
        if self._budget is not None:
            spend(self._budget, f"{told.priced_as}/{told.model}", usage)
        handle.end(_end_of(told.response, usage, ended_ns))


def _start_of(told: ToldCall, step: str) -> StepStart:
    return StepStart(
        flow_id=current_correlation().flow_id or "",
        step_id=step,
        step_type=STEP_TYPE,
        operation=told.operation,
        provider=told.provider,
        model=told.model,
    )


def _end_of(response: LLMResponse | None, usage: LLMUsage | None, ended_ns: int) -> StepEnd:
    if response is None:
        failed: dict[str, Any] = {"status": "error"}
        error = LLMClientError("the call failed")
        return StepEnd(status="error", payload=failed, error=error, ended_ns=ended_ns)
    return StepEnd(status="success", payload={"status": "ok"}, response=response, usage=usage, ended_ns=ended_ns)
