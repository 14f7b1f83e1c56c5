"""The recorder that turns steps into OpenTelemetry spans and metrics. Needs the API only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry.context import Context, get_current
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider, set_span_in_context

from ..ai.llm.types import LLMResponse, LLMUsage
from ..errors import BudgetExceededError, LLMError
from ..flows.correlation import NO_CORRELATION, Prompt, current_correlation
from ..flows.totals import AttributeValue, current_flow
from ..recording.port import Recorder, StepEnd, StepHandle, StepRetry, StepStart
from . import semconv
from .attempt_spans import AttemptSpans
from .attributes import Attached, correlation_attributes, without_ids
from .content_recording import record_content
from .current import Providers, configured_providers, hint_at_configure, instruments, tracer
from .genai_spans import Measured, attributes_of
from .instruments import Attributes
from .labels import MetricLabels, prompt_of
from .metrics import AttributeCache, AttributeSets, CallMetrics, EndedCall, latest_cost_names, metric_names
from .names_around import names_around
from .open_spans import count_call_of
from .sanitize import encodable, sanitized
from .span_names import call_name

_METRIC_ATTRIBUTES = (
    semconv.GEN_AI_OPERATION_NAME,
    semconv.GEN_AI_PROVIDER_NAME,
    semconv.GEN_AI_REQUEST_MODEL,
    semconv.SERVER_ADDRESS,
    semconv.SERVER_PORT,
    semconv.GEN_AI_RESPONSE_MODEL,
    semconv.ERROR_TYPE,
    semconv.GEN_AI_WORKFLOW_NAME,
)


SAMPLING_ATTRIBUTES: Mapping[str, tuple[str, Callable[[Any], AttributeValue]]] = {
    "temperature": (semconv.GEN_AI_REQUEST_TEMPERATURE, float),
    "top_p": (semconv.GEN_AI_REQUEST_TOP_P, float),
    "max_tokens": (semconv.GEN_AI_REQUEST_MAX_TOKENS, int),
    "stop": (semconv.GEN_AI_REQUEST_STOP_SEQUENCES, tuple),
    "seed": (semconv.GEN_AI_REQUEST_SEED, int),
    "top_k": (semconv.GEN_AI_REQUEST_TOP_K, int),
    "frequency_penalty": (semconv.GEN_AI_REQUEST_FREQUENCY_PENALTY, float),
    "presence_penalty": (semconv.GEN_AI_REQUEST_PRESENCE_PENALTY, float),
    "reasoning_effort": (semconv.GEN_AI_REQUEST_REASONING_LEVEL, str),
}
"""The attribute of each sampling option, and its type there."""


class OTelRecorder(Recorder):
    """One CLIENT span for each call, a span event for each retry, and the metrics of cost, tokens and time.

    Args:
        tracer_provider: makes the spans; the default is the one `configure()` set, else the global one.
        meter_provider: makes the metrics; the default likewise.
        metric_attributes: more attributes of the metrics: names of flow attributes
            (`@flow(attributes={"team": ...})`), ids (`user.id`, `session.id`), or `step`, whose label is
            `tracemind.step.id`; the default is what `configure()` was told. Each value is a time series of its own.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        metric_attributes: Sequence[str] | None = None,
    ) -> None:
        self._tracer_provider, self._meter_provider = tracer_provider, meter_provider
        self._labels = None if metric_attributes is None else MetricLabels(metric_attributes)
        self._outlet = self._new_outlet(configured_providers())

    def begin_step(self, start: StepStart) -> StepHandle:
        return self.begin(start, "nothing")

    def begin(self, start: StepStart, measured: Measured) -> StepHandle:
        """Begin a step that another instrumentation measures too.

        Args:
            start: what is known at the start.
            measured: what the other one measures.
        """
        hint_at_configure()
        outlet = self._latest_outlet()
        start_ns = time.time_ns()
        name = call_name(start.operation, start.model)
        span = outlet.start_span(name, encodable(_start_attributes(start)), start_ns)
        return _CallHandle(outlet, start, span, start_ns, measured)

    def join(self, start: StepStart, joined: JoinedSpan) -> StepHandle:
        """Record a call on a span that somebody else has made and ends."""
        return _JoinedHandle(self._latest_outlet(), start, joined)

    def begin_inside(self, start: StepStart, span: Span) -> StepHandle:
        """Record the retries of a call inside a call of ours, whose span has everything else."""
        return _InsideHandle(self._latest_outlet(), start, span, time.time_ns())

    def _latest_outlet(self) -> _Outlet:
        if self._outlet.providers is not configured_providers():
            # A recorder may be older than the `configure()` that it follows. Calls that began before keep the old one.
            self._outlet = self._new_outlet(configured_providers())
        return self._outlet

    def _new_outlet(self, providers: Providers) -> _Outlet:
        labels = providers.labels if self._labels is None else self._labels
        provider = self._tracer_provider or providers.tracer_provider
        return _Outlet(
            providers=providers,
            tracer=tracer(provider),
            start_call_span=getattr(provider, "start_call_span", None),
            metrics=CallMetrics(
                instruments(self._meter_provider),
                metric_names(needs_todays=providers.needs_todays_metrics),
                has_cost_by_kind=providers.has_cost_by_kind,
                has_cost_histogram=providers.has_cost_histogram,
                has_latest_cost_names=latest_cost_names(),
                has_token_types=providers.has_token_types,
            ),
            has_latest_cost_names=latest_cost_names(),
            labels=labels,
            metric_attributes=_METRIC_ATTRIBUTES + labels.names,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outlet:
    """Where the calls of one recorder go, from one `configure()` to the next: all of it changes at once."""

    providers: Providers
    """What was configured when this was made."""
    tracer: Tracer
    """Makes the spans."""
    start_call_span: Callable[[str, Mapping[str, Any], int], Span] | None
    """Starts the span of a call at less cost, where the provider can."""
    metrics: CallMetrics
    """Gets the measurements."""
    has_latest_cost_names: bool
    """Whether the cost has the names that the conventions are about to adopt."""
    labels: MetricLabels
    """Attributes of the metrics that the user named."""
    metric_attributes: tuple[str, ...]
    """The names of all attributes of the metrics."""
    cache: AttributeCache = field(default_factory=AttributeCache)
    """The attributes of series that were seen before."""

    def start_span(self, name: str, attributes: Mapping[str, Any], start_ns: int) -> Span:
        """Start the span of a call."""
        if self.start_call_span is not None:
            return self.start_call_span(name, attributes, start_ns)
        return self.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=start_ns)

    def record(self, call: _CallHandle, end: StepEnd, duration_s: float) -> None:
        """Measure a call that ended."""
        response, error = end.response, end.error
        if isinstance(error, BudgetExceededError):
            self.metrics.record_denial(self.attributes_of_denial(call, error))
            return
        model = None if response is None else response.response_model
        attributes = self.attribute_sets(call, model, None if error is None else error.error_type)
        if end.presumed_cost_usd is not None:
            self.metrics.record_presumed(end.presumed_cost_usd, attributes.plain)
        self.metrics.record(
            EndedCall(
                duration_s,
                end.usage,
                error is not None,
                attributes,
                call.context,
                call.first_chunk_s,
                call.measured,
                call.start.operation,
            )
        )

    def record_retry(self, call: _CallHandle, retry: StepRetry) -> None:
        """Measure an attempt that failed and is repeated."""
        also = ((semconv.TRACEMIND_RETRY_REASON, retry.reason),)
        self.metrics.record_retry(self.attribute_sets(call, None, retry.error_type, also).plain)
        if retry.presumed_cost_usd is not None:
            attributes = self.attribute_sets(call, None, retry.error_type).plain
            self.metrics.record_presumed(retry.presumed_cost_usd, attributes)

    def attributes_of_denial(self, call: _CallHandle, error: BudgetExceededError) -> Attributes:
        """The attributes of a call that a budget denied."""
        also = ((semconv.TRACEMIND_BUDGET_NAME, error.budget), (semconv.TRACEMIND_BUDGET_KIND, error.kind))
        return self.attribute_sets(call, None, None, also).plain

    def attribute_sets(
        self,
        call: _CallHandle,
        response_model: str | None,
        error_type: str | None,
        also: tuple[tuple[str, str], ...] = (),
    ) -> AttributeSets:
        """The attributes of a call's series."""
        start, flow = call.start, call.flow
        values = (
            start.operation,
            start.provider,
            start.model or None,
            start.server_address,
            start.server_port,
            response_model,
            error_type,
            flow.name if flow is not None else None,
        )
        return self.cache.get(self.metric_attributes, values, call.labels, also)


_GAPS_EVERY_S = 1.0
"""Seconds of a stream after which the gaps between its chunks are measured; the rest is measured at its end."""
_MAX_GAPS = 64
"""Gaps that wait to be measured."""


class _CallHandle(StepHandle):
    """The span of one call."""

    __slots__ = (
        "_attempts",
        "_ended",
        "_gaps_s",
        "_outlet",
        "_response_model",
        "_span",
        "_start_ns",
        "_unmeasured_s",
        "context",
        "first_chunk_s",
        "flow",
        "labels",
        "measured",
        "start",
    )

    def __init__(
        self, outlet: _Outlet, start: StepStart, span: Span, start_ns: int, measured: Measured = "nothing"
    ) -> None:
        self.measured: Measured = measured
        self._outlet = outlet
        self._span = span
        self._start_ns = start_ns
        self._ended = False
        self._attempts: AttemptSpans | None = None
        self.first_chunk_s: float | None = None
        self._gaps_s: list[float] = []
        self._unmeasured_s = 0.0
        self._response_model: str | None = None
        self.start = start
        self.flow = current_flow()
        named = outlet.labels
        self.labels = (
            named.values(self.flow, current_correlation(), start.step_id, prompt_of(start)) if named.names else ()
        )
        self.context: Context = set_span_in_context(span, without_ids(get_current()))

    def active(self) -> AbstractContextManager[object]:
        return Attached(self.context) if self._span.get_span_context().is_valid else nullcontext()

    def retry(self, retry: StepRetry) -> None:
        if self._span.is_recording():
            self._span.add_event(semconv.RETRY_EVENT, _retry_attributes(retry), retry.failed_ns)
            if self._outlet.providers.has_attempt_spans:
                self._attempt_failed(retry)
        self._outlet.record_retry(self, retry)

    def _attempt_failed(self, retry: StepRetry) -> None:
        if self._attempts is None:
            parent = set_span_in_context(self._span, self.context)
            self._attempts = AttemptSpans(self._outlet.tracer, parent, self._start_ns)
        self._attempts.failed(retry)

    def next_attempt(self) -> None:
        if self._attempts is not None:
            self._attempts.begin()

    def first_chunk(self) -> None:
        self.first_chunk_s = max(time.time_ns() - self._start_ns, 0) / 1e9

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        self._gaps_s.append(gap_s)
        self._unmeasured_s += gap_s
        if self._response_model is None:
            self._response_model = response_model
        if self._unmeasured_s >= _GAPS_EVERY_S or len(self._gaps_s) >= _MAX_GAPS:
            self._measure_gaps()

    def _measure_gaps(self) -> None:
        """Measure the gaps that have come since the last time: many at once take a third of the time."""
        if self._gaps_s:
            attributes = self._outlet.attribute_sets(self, self._response_model, None).plain
            self._outlet.metrics.record_gaps(self._gaps_s, attributes)
            self._gaps_s, self._unmeasured_s = [], 0.0

    def end(self, end: StepEnd) -> None:
        if self._ended:
            return
        self._ended = True
        ended_ns = max(end.ended_ns or time.time_ns(), self._start_ns)
        try:
            if self._attempts is not None:
                self._attempts.end(end, ended_ns)
            if self._span.is_recording():
                is_latest = self._outlet.has_latest_cost_names
                attributes = _end_attributes(
                    end, self.start.provider, self.first_chunk_s, has_latest_cost_names=is_latest
                )
                self._span.set_attributes(encodable(attributes))
                if self._outlet.providers.content.is_captured:
                    self._record_content(self._span, end, ended_ns)
                if end.error is not None:
                    self._record_failure(end.error, ended_ns)
        finally:
            self._span.end(ended_ns)
        self._measure_gaps()
        if end.is_counted:
            self._outlet.record(self, end, (ended_ns - self._start_ns) / 1e9)

    def _record_content(self, span: Span, end: StepEnd, ended_ns: int) -> None:
        providers = self._outlet.providers
        record_content(
            span, self.start, end, providers.content, logger_provider=providers.logger_provider, ended_ns=ended_ns
        )

    def _record_failure(self, error: LLMError, ended_ns: int) -> None:
        message = sanitized(error.message)
        self._span.set_status(Status(StatusCode.ERROR, message))
        self._span.add_event(
            semconv.EXCEPTION_EVENT,
            {semconv.EXCEPTION_TYPE: type(error).__qualname__, semconv.EXCEPTION_MESSAGE: message},
            timestamp=ended_ns,
        )


class JoinedSpan(Recorder):
    """Records one call on a span that another instrumentation has made: cost, retries, and our metrics.

    Args:
        recorder: has the tracer, the instruments and the labels.
        span: the span.
        measured: what its maker measures.
        started_ns: the start of the call, in nanoseconds since the epoch; the default is now.
    """

    def __init__(self, recorder: OTelRecorder, span: Span, measured: Measured, started_ns: int | None = None) -> None:
        self._recorder = recorder
        self.span = span
        """The span; another one where each attempt has its own."""
        self.measured: Measured = measured
        self.started_ns = started_ns

    def begin_step(self, start: StepStart) -> StepHandle:
        return self._recorder.join(start, self)


class _JoinedHandle(_CallHandle):
    """A call on somebody else's span, which may end before we are told of the call's end."""

    __slots__ = ("_joined", "_retries")

    def __init__(self, outlet: _Outlet, start: StepStart, joined: JoinedSpan) -> None:
        super().__init__(outlet, start, joined.span, joined.started_ns or time.time_ns(), joined.measured)
        count_call_of(joined.span)
        self._joined = joined
        self._retries: list[StepRetry] = []

    def active(self) -> AbstractContextManager[object]:
        return Attached(set_span_in_context(self._joined.span, without_ids(get_current())))

    def retry(self, retry: StepRetry) -> None:
        if self._span is not self._joined.span:
            self._move()
        self._retries.append(retry)
        super().retry(retry)

    def _move(self) -> None:
        """Go on with a new span: an SDK may make one for each attempt, and never end that of a repeated one."""
        self._span = self._joined.span
        count_call_of(self._span)
        if self._span.is_recording():
            for retry in self._retries:
                self._span.add_event(semconv.RETRY_EVENT, _retry_attributes(retry), retry.failed_ns)

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        if self.measured != "everything":
            super().next_chunk(gap_s, response_model)

    def end(self, end: StepEnd) -> None:
        if self._ended:
            return
        self._ended = True
        ended_ns = max(end.ended_ns or time.time_ns(), self._start_ns)
        span = self._joined.span
        if self._attempts is not None:
            self._attempts.end(end, ended_ns)
        if span.is_recording():
            attributes: dict[str, AttributeValue] = {semconv.TRACEMIND_RETRY_COUNT: end.retries}
            if end.presumed_cost_usd is not None:
                attributes[semconv.TRACEMIND_COST_PRESUMED_USD] = end.presumed_cost_usd
            if end.usage is not None:
                _add_cost_of(attributes, end.usage, has_latest_names=self._outlet.has_latest_cost_names)
            own = attributes_of(span)  # a figure of its maker stays
            span.set_attributes(encodable({name: value for name, value in attributes.items() if name not in own}))
            content = self._outlet.providers.content
            if content.on_span:  # an event is their maker's, which reads the same variable
                record_content(span, self.start, end, replace(content, on_event=False), present=own)
        self._measure_gaps()
        self._outlet.record(self, end, (ended_ns - self._start_ns) / 1e9)


class _InsideHandle(_CallHandle):
    """A call inside a call of ours: its retries belong to the span of the outer one, which ends by itself."""

    __slots__ = ()

    def active(self) -> AbstractContextManager[object]:
        return nullcontext()

    def first_chunk(self) -> None:
        """The outer call has it."""

    def next_chunk(self, gap_s: float, response_model: str | None) -> None:
        """The outer call has it."""

    def end(self, end: StepEnd) -> None:
        if not self._ended:
            self._ended = True
            if self._attempts is not None:
                self._attempts.end(end, max(end.ended_ns or time.time_ns(), self._start_ns))


class MeasuredElsewhere(Recorder):
    """Makes spans whose calls another instrumentation measures too.

    Args:
        recorder: makes the spans.
        measured: what the other one measures.
    """

    def __init__(self, recorder: OTelRecorder, measured: Measured) -> None:
        self._recorder = recorder
        self._measured: Measured = measured

    def begin_step(self, start: StepStart) -> StepHandle:
        return self._recorder.begin(start, self._measured)


def add_cost(span: Span, usage: LLMUsage) -> None:
    """Add the cost of a call to somebody else's span; a figure of its maker stays."""
    attributes: dict[str, AttributeValue] = {}
    _add_cost_of(attributes, usage, has_latest_names=latest_cost_names())
    own = attributes_of(span)
    span.set_attributes(encodable({name: value for name, value in attributes.items() if name not in own}))


def _start_attributes(start: StepStart) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        semconv.GEN_AI_OPERATION_NAME: start.operation,
        semconv.GEN_AI_PROVIDER_NAME: start.provider,
        semconv.TRACEMIND_STEP_ID: start.step_id,
        semconv.TRACEMIND_STEP_TYPE: start.step_type,
    }
    if start.model:
        attributes[semconv.GEN_AI_REQUEST_MODEL] = start.model
    if start.output_type is not None:
        attributes[semconv.GEN_AI_OUTPUT_TYPE] = start.output_type
    ids = current_correlation()
    if ids is not NO_CORRELATION:
        attributes.update(correlation_attributes(ids))
    if start.flow_id:
        attributes[semconv.TRACEMIND_FLOW_ID] = start.flow_id
    if start.server_address is not None:
        attributes[semconv.SERVER_ADDRESS] = start.server_address
    if start.server_port is not None:
        attributes[semconv.SERVER_PORT] = start.server_port
    if start.is_stream:
        attributes[semconv.GEN_AI_REQUEST_STREAM] = True
    attributes.update(names_around())
    _add_prompt(attributes, prompt_of(start))
    _add_parameters(attributes, start)
    return attributes


def _add_prompt(attributes: dict[str, AttributeValue], prompt: Prompt) -> None:
    if prompt.name is not None:
        attributes[semconv.GEN_AI_PROMPT_NAME] = prompt.name
    if prompt.version is not None:
        attributes[semconv.GEN_AI_PROMPT_VERSION] = prompt.version


def _add_parameters(attributes: dict[str, AttributeValue], start: StepStart) -> None:
    """What was asked for; what was not gets no attribute."""
    for option, (name, as_attribute) in SAMPLING_ATTRIBUTES.items():
        value = getattr(start, option)
        if value is not None and value != ():
            attributes[name] = as_attribute(value)


def _retry_attributes(retry: StepRetry) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        semconv.TRACEMIND_RETRY_ATTEMPT: retry.attempt,
        semconv.TRACEMIND_RETRY_DELAY_S: retry.delay_s,
        semconv.TRACEMIND_RETRY_REASON: retry.reason,
        semconv.ERROR_TYPE: retry.error_type,
    }
    if retry.max_attempts is not None:
        attributes[semconv.TRACEMIND_RETRY_MAX_ATTEMPTS] = retry.max_attempts
    if retry.status_code is not None:
        attributes[semconv.HTTP_RESPONSE_STATUS_CODE] = retry.status_code
    if retry.presumed_cost_usd is not None:
        attributes[semconv.TRACEMIND_COST_PRESUMED_USD] = retry.presumed_cost_usd
    return attributes


def _end_attributes(
    end: StepEnd, provider: str, first_chunk_s: float | None, *, has_latest_cost_names: bool
) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {semconv.TRACEMIND_RETRY_COUNT: end.retries}
    if first_chunk_s is not None:
        attributes[semconv.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first_chunk_s
    if end.closed_early:
        attributes[semconv.TRACEMIND_STREAM_CLOSED_EARLY] = True
    if end.response is not None:
        _add_response(attributes, end.response, provider)
    if end.usage is not None:
        _add_usage(attributes, end.usage, has_latest_cost_names=has_latest_cost_names)
    if end.error is not None:
        attributes[semconv.ERROR_TYPE] = end.error.error_type
        if end.error.status_code is not None:
            attributes[semconv.HTTP_RESPONSE_STATUS_CODE] = end.error.status_code
    if end.cancelled:
        attributes[semconv.TRACEMIND_CANCELLED] = True
    if end.presumed_cost_usd is not None:
        attributes[semconv.TRACEMIND_COST_PRESUMED_USD] = end.presumed_cost_usd
    return attributes


def _add_response(attributes: dict[str, AttributeValue], response: LLMResponse, provider: str) -> None:
    if response.response_id is not None:
        attributes[semconv.GEN_AI_RESPONSE_ID] = response.response_id
    if response.response_model is not None:
        attributes[semconv.GEN_AI_RESPONSE_MODEL] = response.response_model
    if response.finish_reasons:
        attributes[semconv.GEN_AI_RESPONSE_FINISH_REASONS] = response.finish_reasons
    if response.service_tier is not None:
        is_openais = provider in semconv.OPENAI_PROVIDERS
        tier = semconv.OPENAI_RESPONSE_SERVICE_TIER if is_openais else semconv.TRACEMIND_RESPONSE_SERVICE_TIER
        attributes[tier] = response.service_tier
    for condition, value in response.price_conditions.items():
        if condition in semconv.RESPONSE_CONDITION_NAMES:
            attributes[semconv.RESPONSE_CONDITION_NAMES[condition]] = value


_USAGE_ATTRIBUTES = {
    "prompt_tokens": semconv.GEN_AI_USAGE_INPUT_TOKENS,
    "completion_tokens": semconv.GEN_AI_USAGE_OUTPUT_TOKENS,
    "cache_read_tokens": semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
    "cache_write_tokens": semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS,
    "reasoning_tokens": semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
    **semconv.USAGE_NAMES,
    "cost_usd": semconv.TRACEMIND_COST_USD,
    "input_cost_usd": semconv.TRACEMIND_COST_INPUT_USD,
    "cached_cost_usd": semconv.TRACEMIND_COST_CACHED_USD,
    "output_cost_usd": semconv.TRACEMIND_COST_OUTPUT_USD,
    "fees_usd": semconv.TRACEMIND_COST_FEES_USD,
    "cost_table": semconv.TRACEMIND_COST_TABLE,
}


_COST_FIELDS = ("input_cost_usd", "cached_cost_usd", "output_cost_usd", "fees_usd", "cost_usd", "cost_table")


def _add_cost_of(attributes: dict[str, AttributeValue], usage: LLMUsage, *, has_latest_names: bool) -> None:
    """The cost with its parts, without the counts."""
    if usage.cost_usd is not None:
        parts = {_USAGE_ATTRIBUTES[field]: getattr(usage, field) for field in _COST_FIELDS}
        attributes.update({name: value for name, value in parts.items() if value is not None})
        if usage.estimated:
            attributes[semconv.TRACEMIND_USAGE_ESTIMATED] = True
        _add_cost(attributes, usage, usage.cost_usd, has_latest_names=has_latest_names)


def _add_usage(attributes: dict[str, AttributeValue], usage: LLMUsage, *, has_latest_cost_names: bool) -> None:
    """Absent is not zero: what was not reported gets no attribute."""
    attributes.update(
        {
            _USAGE_ATTRIBUTES[field]: value
            for field, value in vars(usage).items()
            if value is not None and field in _USAGE_ATTRIBUTES
        }
    )
    if not usage.is_known:  # zero by zero is what a client says that counts nothing
        attributes.pop(semconv.GEN_AI_USAGE_INPUT_TOKENS, None)
        attributes.pop(semconv.GEN_AI_USAGE_OUTPUT_TOKENS, None)
    if usage.estimated:
        attributes[semconv.TRACEMIND_USAGE_ESTIMATED] = True
    if usage.cost_usd is not None:
        _add_cost(attributes, usage, usage.cost_usd, has_latest_names=has_latest_cost_names)


def _add_cost(
    attributes: dict[str, AttributeValue], usage: LLMUsage, cost_usd: float, *, has_latest_names: bool
) -> None:
    source = usage.cost_source or "provider"
    if has_latest_names:
        attributes[semconv.GEN_AI_USAGE_COST_AMOUNT] = cost_usd
        attributes[semconv.GEN_AI_USAGE_COST_CURRENCY] = semconv.CURRENCY_USD
        attributes[semconv.GEN_AI_USAGE_COST_SOURCE] = semconv.COST_SOURCES[source]
    else:
        attributes[semconv.GEN_AI_USAGE_COST] = cost_usd
    attributes[semconv.TRACEMIND_COST_SOURCE] = source
    attributes[semconv.TRACEMIND_COST_BUCKET] = semconv.cost_bucket(cost_usd)
    if usage.cost_partial:
        attributes[semconv.TRACEMIND_COST_PARTIAL] = usage.cost_partial
