"""One run of a decorated function: a span that is current in its body and ends with it, and what goes with a flow."""

from __future__ import annotations

import inspect
import logging
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context

from .._base.context import Setting
from .._base.dropped import end_dropped
from .._base.once import report_fault
from .._base.waiting import is_cancellation
from ..flows.agents import AgentRun, current_agent, enter_agent
from ..flows.budget import Share
from ..flows.correlation import (
    NO_CORRELATION,
    NO_PROMPT,
    Correlation,
    Prompt,
    current_correlation,
    current_step,
    enter_step,
)
from ..flows.scope import NO_SCOPE, FlowContext, FlowSpec, NoScope, StepContext
from ..flows.sources import AttributeSources
from ..flows.totals import AttributeValue, FlowTotals, LabelValue, current_flow, flow_ends
from . import semconv
from .attributes import attach, correlation_attributes, with_same_baggage
from .budget_scope import measured_budget
from .capture import call_json, named_arguments, result_json
from .current import Providers, configured_providers, hint_at_configure, instruments, nothing_is_recorded, tracer
from .instruments import NO_SPAN, Attributes, Histogram
from .sanitize import sanitized, sanitized_attributes
from .span_names import function_name

log = logging.getLogger(__name__)

_KEPT_ITEMS = 100
"""Items of a generator that are kept for its result, where that is asked for."""


def _no_attributes() -> Mapping[str, LabelValue]:
    return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What a decorator makes of a function."""

    decorator: str
    """The decorator's name."""
    operation: str | None = None
    """`gen_ai.operation.name`, and the first word of the span's name."""
    name_attribute: str | None = None
    """The attribute that holds the name."""
    fixed: Mapping[str, LabelValue] = field(default_factory=_no_attributes)
    """Attributes of every span and measurement of this kind."""
    metric: str | None = None
    """The histogram of durations, where the conventions have one."""
    arguments: str = semconv.TRACEMIND_FUNCTION_ARGUMENTS
    """The attribute for the arguments."""
    result: str = semconv.TRACEMIND_FUNCTION_RESULT
    """The attribute for the result."""


FLOW = Kind(
    decorator="flow",
    operation=semconv.INVOKE_WORKFLOW,
    name_attribute=semconv.GEN_AI_WORKFLOW_NAME,
    metric=semconv.METRIC_WORKFLOW_DURATION,
)
AGENT = Kind(
    decorator="agent",
    operation=semconv.INVOKE_AGENT,
    name_attribute=semconv.GEN_AI_AGENT_NAME,
    metric=semconv.METRIC_AGENT_DURATION,
)
TOOL = Kind(
    decorator="tool",
    operation=semconv.EXECUTE_TOOL,
    name_attribute=semconv.GEN_AI_TOOL_NAME,
    fixed={semconv.GEN_AI_TOOL_TYPE: semconv.TOOL_TYPE_FUNCTION},
    metric=semconv.METRIC_TOOL_DURATION,
    arguments=semconv.GEN_AI_TOOL_CALL_ARGUMENTS,
    result=semconv.GEN_AI_TOOL_CALL_RESULT,
)
STEP = Kind(decorator="step")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanSpec:
    """The settings of one decorated function, the same for every run."""

    kind: Kind
    """The kind of span."""
    name: str
    """The name of the flow, step, tool or agent."""
    span_name: str
    """The name of the span."""
    sources: AttributeSources
    """Attributes that the user added."""
    own: Mapping[str, AttributeValue]
    """Attributes that tell what the span is."""
    attributes: Mapping[str, AttributeValue]
    """Attributes of every run: the user's that are fixed, and `own`."""
    metric_attributes: Attributes
    """Attributes of the duration."""
    signature: inspect.Signature | None
    """Names the arguments, where they may be captured."""
    captures_arguments: bool | None
    """Whether the arguments are captured; `None` for a tool's as `configure()` says."""
    captures_result: bool | None
    """Whether the result is captured, likewise."""
    prompt: Prompt
    """The prompt of the model calls below a step."""

    @classmethod
    def of(
        cls,
        kind: Kind,
        name: str,
        sources: AttributeSources,
        *,
        signature: inspect.Signature | None = None,
        captures_arguments: bool | None = None,
        captures_result: bool | None = None,
        prompt: Prompt = NO_PROMPT,
    ) -> SpanSpec:
        """The settings for a name, and the attributes that the user added."""
        name = sanitized(name)
        identity = dict(kind.fixed) if kind.name_attribute is None else {kind.name_attribute: name, **kind.fixed}
        own = identity if kind.operation is None else {semconv.GEN_AI_OPERATION_NAME: kind.operation, **identity}
        return cls(
            kind=kind,
            name=name,
            span_name=function_name(kind.operation, name),
            sources=sources,
            own=own,
            attributes={**sanitized_attributes(sources.fixed), **own},
            metric_attributes=identity,
            signature=signature,
            captures_arguments=captures_arguments,
            captures_result=captures_result,
            prompt=prompt,
        )

    def attributes_of(self, added: Mapping[str, AttributeValue]) -> Mapping[str, AttributeValue]:
        """The attributes of a run with these of the user's."""
        return self.attributes if added is self.sources.fixed else {**sanitized_attributes(added), **self.own}


def start_scope(spec: SpanSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SpanRun | NoScope:
    """Start a run that is a span; it does nothing where nothing is recorded, or recording fails."""
    if not nothing_is_recorded():
        end_dropped()
        try:
            return _RUNS.get(spec.kind.decorator, SpanRun)(
                spec, args, kwargs, spec.sources.of_call(spec.span_name, args, kwargs)
            )
        except Exception:
            report_fault(log, spec.kind.decorator, "start")
    return NO_SCOPE


def start_step(spec: SpanSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StepRun | StepContext:
    """Start a run that is a step; without a span it still names the model calls below it."""
    if not nothing_is_recorded():
        end_dropped()
        try:
            return StepRun(spec, args, kwargs, spec.sources.of_call(spec.span_name, args, kwargs))
        except Exception:
            report_fault(log, spec.kind.decorator, "start")
    return StepContext(spec.name, spec.prompt)


def start_flow(
    spec: SpanSpec, flow: FlowSpec, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> FlowSpanRun | FlowContext:
    """Start a run that is a flow; without a span it still has its sums, ids and budget.

    Raises:
        ConfigError: its budget is shared, and there is no state or no key.
    """
    share = flow.share_of(spec.name, args, kwargs)
    ids, added = flow.ids_of(spec.name, args, kwargs), spec.sources.of_call(spec.span_name, args, kwargs)
    if not nothing_is_recorded():
        end_dropped()
        try:
            return FlowSpanRun(spec, flow, ids, args, kwargs, added, share)
        except Exception:
            report_fault(log, spec.kind.decorator, "start")
    hint_at_configure()
    return FlowContext(spec.name, flow, ids, added, share)


class SpanRun:
    """A run that is a span."""

    __slots__ = (
        "_context",
        "_error_type",
        "_flow_run",
        "_ids",
        "_items",
        "_setting",
        "_span",
        "_spec",
        "_started_s",
        "_tools",
    )

    def __init__(
        self,
        spec: SpanSpec,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        added: Mapping[str, AttributeValue],
        ids: Correlation = NO_CORRELATION,
    ) -> None:
        self._spec = spec
        self._tools = tools = _tools()
        self._flow_run = current_flow()
        self._context: Context | None = None
        self._setting: Setting | None = None
        self._items: list[object] | None = None
        self._error_type: str | None = None
        self._started_s = time.perf_counter()
        self._ids = all_ids = current_correlation() if ids is NO_CORRELATION else ids.below(current_correlation())
        self._span = span = _start_span(tools.tracer, spec, spec.attributes_of(added), all_ids)
        if span.get_span_context().is_valid:
            context = set_span_in_context(span)
            self._context = context if ids is NO_CORRELATION else with_same_baggage(all_ids, context)
        if span.is_recording():
            by_default = spec.kind is TOOL and tools.providers.content.on_span
            if by_default if spec.captures_result is None else spec.captures_result:
                self._items = []
            if spec.signature is not None and (spec.captures_arguments or by_default):
                self._capture_arguments(spec.signature, args, kwargs)

    def _capture_arguments(self, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = named_arguments(signature, args, kwargs)
        if arguments is None:
            return
        try:
            shown = call_json(self._spec.name, arguments, self._tools.providers.redact)
            if shown is not None:
                self._span.set_attribute(self._spec.kind.arguments, shown)
        except Exception:
            report_fault(log, type(self._span).__name__, "set_attribute")

    def enter(self) -> None:
        """Make the span current."""
        if self._context is not None:
            self._setting = attach(self._context)

    def leave(self) -> None:
        """Make the span current that was."""
        if self._setting is not None:
            self._setting.undo()

    def item(self, value: object) -> None:
        """Keep what a generator yields, where results are captured."""
        if self._items is not None and len(self._items) < _KEPT_ITEMS:
            self._items.append(value)

    def fail(self, error_type: str) -> None:
        """Note the failure of a body that returns it instead of raising."""
        self._error_type = sanitized(error_type)

    @property
    def name(self) -> str:
        """The name of the span."""
        return self._spec.span_name

    def close(self, ended_ns: int | None = None) -> None:
        """End the span of a generator that was not read to its end."""
        self.end(None, closed_early=True, ended_ns=ended_ns)

    def end(
        self,
        exc: BaseException | None,
        result: object = None,
        *,
        closed_early: bool = False,
        ended_ns: int | None = None,
    ) -> None:
        """End the span. Only an error of the user's code sets its status."""
        ago_s = 0.0 if ended_ns is None else (time.time_ns() - ended_ns) / 1e9
        duration_s = max(time.perf_counter() - self._started_s - ago_s, 0.0)
        try:
            self._describe(self._span, exc, result, closed_early=closed_early)
        except Exception:
            report_fault(log, self._spec.kind.decorator, "end")
        finally:
            _end_span(self._span, ended_ns)
        metric = self._spec.kind.metric
        if metric is not None:
            self._measure(self._tools.durations[metric], duration_s, exc)

    def _describe(self, span: Span, exc: BaseException | None, result: object, *, closed_early: bool) -> None:
        if not span.is_recording():
            return
        self._before_end(span)
        if closed_early:
            span.set_attribute(semconv.TRACEMIND_STREAM_CLOSED_EARLY, True)
        if exc is not None:
            _record_exception(span, exc)
        elif self._error_type is not None:
            span.set_status(Status(StatusCode.ERROR, self._error_type))
            span.set_attribute(semconv.ERROR_TYPE, self._error_type)
        elif self._items is not None:
            shown = result_json(self._items or result, self._tools.providers.redact)
            if shown is not None:
                span.set_attribute(self._spec.kind.result, shown)

    def _before_end(self, span: Span) -> None:
        """Set what is known at the end only."""

    def _measure(self, durations: Histogram, duration_s: float, exc: BaseException | None) -> None:
        also = self._flow_attributes()
        if isinstance(exc, Exception):
            also[semconv.ERROR_TYPE] = type(exc).__qualname__
        elif exc is None and self._error_type is not None:
            also[semconv.ERROR_TYPE] = self._error_type
        # The spec's own where there is nothing to add: a series is found fastest by the identity of its attributes.
        attributes = self._spec.metric_attributes | also if also else self._spec.metric_attributes
        try:
            durations.record(duration_s, attributes, self._context or NO_SPAN)
        except Exception:
            report_fault(log, self._spec.kind.decorator, "measure")

    def _flow_attributes(self) -> Attributes:
        """The attributes of the flow and its ids that the user named in `metric_attributes`."""
        labels = self._tools.providers.labels
        if not labels.names:
            return {}
        values = zip(labels.names, labels.values(self._flow_run, self._ids, current_step()), strict=True)
        return sanitized_attributes({name: value for name, value in values if value is not None})


class StepRun(SpanRun):
    """A run that names the model calls below it."""

    __slots__ = ("_step",)

    def enter(self) -> None:
        """Make the span and the step current."""
        super().enter()
        self._step = enter_step(self._spec.name, self._spec.prompt)

    def leave(self) -> None:
        """Put back what was current."""
        self._step.undo()
        super().leave()


class ToolRun(SpanRun):
    """A run of a tool, which counts for the agent and the flow around it."""

    __slots__ = ("_agent",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._agent = current_agent()

    def _before_end(self, span: Span) -> None:
        if self._agent is not None:
            self._agent.count_tool()
        if self._flow_run is not None:
            self._flow_run.add_tool_call()


class AgentSpanRun(SpanRun):
    """A run of an agent: model calls below it have its name, and its span tells how many there were."""

    __slots__ = ("_agent", "_entered")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._agent = AgentRun(self._spec.name, current_agent())

    def enter(self) -> None:
        """Make the span and the agent current."""
        super().enter()
        self._entered = enter_agent(self._agent)

    def leave(self) -> None:
        """Put back what was current."""
        self._entered.undo()
        super().leave()

    def _before_end(self, span: Span) -> None:
        if not self._tools.providers.sees_sdk_calls:
            return  # some may not have been seen
        counts = {
            semconv.METRIC_AGENT_INFERENCE_CALLS: self._agent.inference_calls,
            semconv.METRIC_AGENT_TOOL_CALLS: self._agent.tool_calls,
        }
        span.set_attributes(counts)
        for name, count in counts.items():
            self._tools.counts[name].record(count, self._spec.metric_attributes, self._context or NO_SPAN)


_RUNS: Mapping[str, type[SpanRun]] = {AGENT.decorator: AgentSpanRun, TOOL.decorator: ToolRun}


class FlowSpanRun(SpanRun):
    """A run that is a flow: its span carries the sums of what was called below."""

    __slots__ = ("_flow", "run")

    def __init__(
        self,
        spec: SpanSpec,
        flow: FlowSpec,
        ids: Correlation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        added: Mapping[str, AttributeValue],
        share: Share | None,
    ) -> None:
        super().__init__(spec, args, kwargs, added, ids)
        self._flow = FlowContext(spec.name, flow, ids, added, share, partial(measured_budget, self._span))
        self.run = self._flow_run = self._flow.run
        if self._context is not None:
            self.run.trace_id = format_trace_id(self._span.get_span_context().trace_id)

    def enter(self) -> None:
        """Make the span and the flow current."""
        super().enter()
        self._flow.enter()

    def leave(self) -> None:
        """Put back what was current."""
        self._flow.leave()
        super().leave()

    def end(
        self,
        exc: BaseException | None,
        result: object = None,
        *,
        closed_early: bool = False,
        ended_ns: int | None = None,
    ) -> None:
        """End the span with the sums of all calls; those still open end now, because their flow does."""
        flow_ends(self.run)
        super().end(exc, result, closed_early=closed_early, ended_ns=ended_ns)

    def _before_end(self, span: Span) -> None:
        totals = self.run.totals()
        span.set_attributes(_totals_attributes(_ALL, totals) | _totals_attributes(_OWN, self.run.own_totals()))
        providers = self._tools.providers
        if providers.has_workflow_calls and providers.sees_sdk_calls:
            span.set_attribute(semconv.GEN_AI_INVOKE_WORKFLOW_INFERENCE_CALLS, totals.llm_calls)
            span.set_attribute(semconv.GEN_AI_INVOKE_WORKFLOW_TOOL_CALLS, self.run.tool_calls)


_ALL = (
    semconv.TRACEMIND_FLOW_COST_USD,
    semconv.TRACEMIND_FLOW_PRESUMED_COST_USD,
    semconv.TRACEMIND_FLOW_INPUT_TOKENS,
    semconv.TRACEMIND_FLOW_OUTPUT_TOKENS,
    semconv.TRACEMIND_FLOW_LLM_CALLS,
    semconv.TRACEMIND_FLOW_RETRIES,
)
_OWN = (
    semconv.TRACEMIND_FLOW_OWN_COST_USD,
    semconv.TRACEMIND_FLOW_OWN_PRESUMED_COST_USD,
    semconv.TRACEMIND_FLOW_OWN_INPUT_TOKENS,
    semconv.TRACEMIND_FLOW_OWN_OUTPUT_TOKENS,
    semconv.TRACEMIND_FLOW_OWN_LLM_CALLS,
    semconv.TRACEMIND_FLOW_OWN_RETRIES,
)


def _totals_attributes(names: tuple[str, ...], totals: FlowTotals) -> dict[str, int | float]:
    costs = (totals.cost_usd, totals.presumed_cost_usd)
    values = (*costs, totals.input_tokens, totals.output_tokens, totals.llm_calls, totals.retries)
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _start_span(tracer: Tracer, spec: SpanSpec, attributes: Mapping[str, AttributeValue], ids: Correlation) -> Span:
    if ids is not NO_CORRELATION:
        attributes = {**correlation_attributes(ids), **attributes}
    return tracer.start_span(spec.span_name, kind=SpanKind.INTERNAL, attributes=attributes)


def _end_span(span: Span, ended_ns: int | None) -> None:
    try:
        span.end(ended_ns)
    except Exception:
        report_fault(log, type(span).__name__, "end")


def _record_exception(span: Span, exc: BaseException) -> None:
    """Record the type and the places, not the message, which may hold a prompt."""
    if not isinstance(exc, Exception):
        if is_cancellation(exc):
            span.set_attribute(semconv.TRACEMIND_CANCELLED, True)
        return
    name = type(exc).__qualname__
    span.set_status(Status(StatusCode.ERROR, name))
    span.set_attribute(semconv.ERROR_TYPE, name)
    places = "\n".join(
        f'File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_name}'
        for frame, line in traceback.walk_tb(exc.__traceback__)
    )
    span.add_event(
        semconv.EXCEPTION_EVENT, {semconv.EXCEPTION_TYPE: name, semconv.EXCEPTION_STACKTRACE: sanitized(places)}
    )


class _Tools:
    """The tracer and the histograms of one set-up."""

    def __init__(self, providers: Providers) -> None:
        self.providers = providers
        self.tracer: Tracer = tracer(providers.tracer_provider)
        made = instruments(providers.meter_provider)
        self.durations: dict[str, Histogram] = {
            name: made.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=boundaries)
            for name, description, boundaries in (
                (semconv.METRIC_WORKFLOW_DURATION, "Duration of a flow", semconv.WORKFLOW_DURATION_BOUNDARIES_S),
                (semconv.METRIC_AGENT_DURATION, "Duration of an agent", semconv.AGENT_DURATION_BOUNDARIES_S),
                (semconv.METRIC_TOOL_DURATION, "Duration of a tool", semconv.DURATION_BOUNDARIES_S),
            )
        }
        self.counts: dict[str, Histogram] = {
            name: made.create_histogram(
                name, unit, description, explicit_bucket_boundaries_advisory=semconv.CALLS_BOUNDARIES
            )
            for name, unit, description in (
                (semconv.METRIC_AGENT_INFERENCE_CALLS, "{inference_call}", "Model calls of a run of an agent"),
                (semconv.METRIC_AGENT_TOOL_CALLS, "{tool_call}", "Tools of a run of an agent"),
            )
        }


_latest: _Tools | None = None


def _tools() -> _Tools:
    """Made anew when `configure()` was called: a decorated function may be older than that."""
    global _latest
    providers = configured_providers()
    if _latest is None or _latest.providers is not providers:
        _latest = _Tools(providers)
    return _latest
