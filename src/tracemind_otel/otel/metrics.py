"""The metrics of a model call."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from opentelemetry.context import Context

from ..ai.llm.types import LLMUsage
from ..flows.totals import LabelValue
from . import semconv
from .genai_spans import Measured
from .instruments import NO_SPAN, Attributes, Counter, Histogram, Instruments
from .sanitize import sanitized_attributes

MetricNames = Literal["legacy", "latest", "both"]
"""Which names of the GenAI metrics are sent."""

_MAX_SETS = 1024


def metric_names(*, needs_todays: bool = False) -> MetricNames:
    """Which metric names are opted in to; values for other conventions are ignored.

    Args:
        needs_todays: whether a preset's backend reads today's names, which are then sent besides.
    """
    if "gen_ai_latest_experimental/dup" in _opted_in():
        return "both"
    if "gen_ai_latest_experimental" in _opted_in():
        return "both" if needs_todays else "latest"
    return "legacy"


def metrics_schema_url(*, needs_todays: bool = False) -> str | None:
    """The schema of the metrics; none where names are sent that the newest schema no longer has.

    Spans have the newest names and its URL always, so that no other version is claimed in a process.
    """
    return semconv.SCHEMA_URL if metric_names(needs_todays=needs_todays) == "latest" else None


def latest_cost_names() -> bool:
    """Whether the cost gets the names that the conventions are about to adopt."""
    return "gen_ai_cost" in _opted_in()


def latest_workflow_names() -> bool:
    """Whether flows have the counts of calls that the conventions are about to adopt (#523)."""
    return "gen_ai_workflow" in _opted_in()


def _opted_in() -> set[str]:
    return {value.strip() for value in os.getenv("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}


class AttributeSets:
    """The attributes of a call's measurements, built once for all calls that share them."""

    __slots__ = ("_more", "_with", "plain")

    def __init__(self, plain: Attributes) -> None:
        self.plain = plain
        """Operation, provider, models, server, error type, flow, and what the user named."""
        self._more: dict[tuple[str, str], Attributes] = {}
        self._with: dict[tuple[str, str], AttributeSets] = {}

    def also(self, name: str, value: str) -> Attributes:
        """`plain` with one attribute more; the same object each time, by which a series is found fastest."""
        key = (name, value)
        found = self._more.get(key)
        if found is None:
            found = self._more[key] = {**self.plain, name: value}
        return found

    def with_(self, name: str, value: str) -> AttributeSets:
        """The same sets with one attribute more in each."""
        key = (name, value)
        found = self._with.get(key)
        if found is None:
            found = self._with[key] = AttributeSets(self.also(name, value))
        return found


class AttributeCache:
    """Keeps attribute sets by the values they are made of; bounded, since models come and go."""

    def __init__(self) -> None:
        self._sets: dict[tuple[object, ...], AttributeSets] = {}

    def get(
        self,
        names: tuple[str, ...],
        values: tuple[LabelValue | None, ...],
        labels: tuple[LabelValue | None, ...] = (),
        also: tuple[tuple[str, str], ...] = (),
    ) -> AttributeSets:
        """The sets for these values, the labels and these pairs; `None` leaves an attribute out."""
        key: tuple[object, ...] = values
        if labels or also:
            key = (values, also, labels, *map(type, labels))  # Python takes 1, True and 1.0 for equal
        found = self._sets.get(key)
        if found is None:
            if len(self._sets) >= _MAX_SETS:
                self._sets = {}
            plain: Attributes = {
                name: value for name, value in zip(names, values + labels, strict=True) if value is not None
            }
            found = self._sets[key] = AttributeSets(sanitized_attributes({**plain, **dict(also)}))
        return found


@dataclass(frozen=True, slots=True)
class EndedCall:
    """What is measured of a call."""

    duration_s: float
    """Seconds from start to end; equals the span's duration."""
    usage: LLMUsage | None
    """Tokens and cost, where a reply came."""
    failed: bool
    """Whether the call ended in an error."""
    attributes: AttributeSets
    """The attributes of the measurements."""
    context: Context
    """The context of the call's span, for exemplars."""
    first_chunk_s: float | None = None
    """Seconds from start to the first piece of a stream."""
    measured: Measured = "nothing"
    """What another instrumentation measures of the same call."""
    operation: str = "chat"
    """The GenAI operation."""


class CallMetrics:
    """All metrics of model calls, by the names that were asked for."""

    def __init__(
        self,
        instruments: Instruments,
        names: MetricNames,
        *,
        has_cost_by_kind: bool = False,
        has_cost_histogram: bool = False,
        has_latest_cost_names: bool = False,
        has_token_types: bool = False,
    ) -> None:
        self._ours = _OurMetrics(
            instruments,
            has_cost_by_kind=has_cost_by_kind,
            has_cost_histogram=has_cost_histogram,
            has_latest_cost_names=has_latest_cost_names,
        )
        self.record_retry = self._ours.record_retry
        self.record_presumed = self._ours.record_presumed
        self.record_denial = self._ours.record_denial
        self._conventional: list[_ConventionalMetrics] = []
        if names != "latest":
            todays = _TypedTokenMetrics if has_token_types else _TodaysMetrics
            self._conventional.append(todays(instruments))
        self._of_embeddings: list[_ConventionalMetrics | _EmbeddingMetrics] = [*self._conventional]
        if names != "legacy":
            self._conventional.append(_NewestMetrics(instruments))
            self._of_embeddings.append(_EmbeddingMetrics(instruments))

    def record(self, call: EndedCall) -> None:
        """Measure one ended call."""
        self._ours.record(call)
        if call.measured != "everything":
            is_embedding = call.operation == semconv.OPERATION_EMBEDDINGS
            for metric_set in self._of_embeddings if is_embedding else self._conventional:
                metric_set.record(call)

    def record_gaps(self, gaps_s: Sequence[float], attributes: Attributes) -> None:
        """Measure the times between the pieces of a stream."""
        for metric_set in self._conventional:
            record = metric_set.chunk_gap.record
            for gap_s in gaps_s:
                record(gap_s, attributes, NO_SPAN)


class _OurMetrics:
    def __init__(
        self,
        instruments: Instruments,
        *,
        has_cost_by_kind: bool,
        has_cost_histogram: bool,
        has_latest_cost_names: bool,
    ) -> None:
        self._has_cost_by_kind = has_cost_by_kind
        self._cost = instruments.create_counter(semconv.METRIC_LLM_COST, "USD", "Cost of model calls that have a price")
        self._call_cost = instruments.create_histogram(
            semconv.METRIC_LLM_CALL_COST,
            "USD",
            "Cost of one model call",
            explicit_bucket_boundaries_advisory=semconv.COST_BOUNDARIES_USD,
        )
        self._usage_cost = (
            instruments.create_histogram(
                semconv.METRIC_USAGE_COST,
                "USD",
                "Cost of one model call, by the name that some dashboards read",
                explicit_bucket_boundaries_advisory=semconv.COST_BOUNDARIES_USD,
            )
            if has_cost_histogram
            else None
        )
        self._operation_cost = (
            instruments.create_histogram(
                semconv.METRIC_OPERATION_COST,
                "USD",
                "Cost of one model call, by the name that the conventions are about to adopt",
                explicit_bucket_boundaries_advisory=semconv.COST_BOUNDARIES_USD,
            )
            if has_latest_cost_names
            else None
        )
        self._presumed_cost = instruments.create_counter(
            semconv.METRIC_LLM_PRESUMED_COST, "USD", "Presumed cost of attempts whose reply was lost"
        )
        self._retries = instruments.create_counter(semconv.METRIC_LLM_RETRIES, "{retry}", "Attempts that were repeated")
        self._unpriced = instruments.create_counter(
            semconv.METRIC_LLM_UNPRICED_CALLS, "{call}", "Model calls that succeeded and whose price is unknown"
        )
        self._denied = instruments.create_counter(
            semconv.METRIC_LLM_DENIED_CALLS, "{call}", "Model calls that a budget denied and that were not sent"
        )

    def record_retry(self, attributes: Attributes) -> None:
        """Measure an attempt that failed and is repeated."""
        self._retries.add(1, attributes, NO_SPAN)

    def record_presumed(self, cost_usd: float, attributes: Attributes) -> None:
        """Measure what an attempt presumably cost whose reply was lost."""
        self._presumed_cost.add(cost_usd, attributes, NO_SPAN)

    def record_denial(self, attributes: Attributes) -> None:
        """Measure a call that a budget denied."""
        self._denied.add(1, attributes, NO_SPAN)

    def record(self, call: EndedCall) -> None:
        attributes = call.attributes.plain
        # So that a dashboard of retries shows zero where there was none, and not "no data".
        self._retries.add(0, attributes, NO_SPAN)
        usage = call.usage
        if usage is None:
            return
        if usage.cost_usd is None:
            self._unpriced.add(1, attributes, NO_SPAN)
        else:
            if self._has_cost_by_kind:
                for kind, usd in _cost_by_kind(usage, usage.cost_usd):
                    self._cost.add(usd, call.attributes.also(semconv.TRACEMIND_COST_KIND, kind), NO_SPAN)
            else:
                self._cost.add(usage.cost_usd, attributes, NO_SPAN)
            self._call_cost.record(usage.cost_usd, attributes, call.context)
            if self._usage_cost is not None:
                self._usage_cost.record(usage.cost_usd, attributes, call.context)
            if self._operation_cost is not None:
                in_usd = call.attributes.also(semconv.GEN_AI_USAGE_COST_CURRENCY, semconv.CURRENCY_USD)
                self._operation_cost.record(usage.cost_usd, in_usd, call.context)


_ROUNDING_USD = 1e-12
"""Less than any price, and more than sums of floats are off."""


def _cost_by_kind(usage: LLMUsage, cost_usd: float) -> Iterator[tuple[str, float]]:
    """The parts of a cost, which add up to it; `whole` is what belongs to no known part."""
    if usage.input_cost_usd is None or usage.output_cost_usd is None:
        yield "whole", cost_usd
        return
    cached_usd = usage.cached_cost_usd or 0.0
    parts = {
        "input": usage.input_cost_usd - cached_usd,
        "cached": cached_usd,
        "output": usage.output_cost_usd,
        "fee": usage.fees_usd or 0.0,
    }
    yield from ((kind, usd) for kind, usd in parts.items() if usd > 0.0 or kind == "input")
    unnamed_usd = cost_usd - sum(parts.values())
    if unnamed_usd > _ROUNDING_USD:
        yield "whole", unnamed_usd


class _ConventionalMetrics:
    """What the conventions measure under any of their names: the duration, and the pieces of a stream."""

    def __init__(self, instruments: Instruments, duration: str, what: str, first_chunk: str, chunk_gap: str) -> None:
        def seconds(name: str, description: str) -> Histogram:
            return instruments.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=semconv.DURATION_BOUNDARIES_S
            )

        self._duration = seconds(duration, what)
        self._first_chunk = seconds(first_chunk, "Time to the first chunk of a stream")
        self.chunk_gap = seconds(chunk_gap, "Time per chunk after the first")

    def record(self, call: EndedCall) -> None:
        attributes, context = call.attributes.plain, call.context
        self._duration.record(call.duration_s, attributes, context)
        if call.first_chunk_s is not None:
            self._first_chunk.record(call.first_chunk_s, attributes, context)
        usage = call.usage
        if call.measured == "tokens":
            return
        if usage is not None and usage.is_known and not usage.estimated:
            self.record_tokens(call.attributes, usage)
        elif call.failed:
            self.record_no_tokens(call.attributes)

    def record_tokens(self, attributes: AttributeSets, usage: LLMUsage) -> None:
        """Measure what the provider reported."""

    def record_no_tokens(self, attributes: AttributeSets) -> None:
        """Measure a failed call without a report."""


_INPUT = (semconv.GEN_AI_TOKEN_TYPE, semconv.TOKEN_TYPE_INPUT)
_OUTPUT = (semconv.GEN_AI_TOKEN_TYPE, semconv.TOKEN_TYPE_OUTPUT)
_READ = (semconv.TRACEMIND_CACHE_OPERATION, semconv.CACHE_READ)
_WRITE = (semconv.TRACEMIND_CACHE_OPERATION, semconv.CACHE_WRITE)
_INCLUSIVE = (semconv.GEN_AI_TOKEN_SEMANTICS, semconv.TOKEN_SEMANTICS_INCLUSIVE)
_TEXT = (semconv.GEN_AI_TOKEN_MODALITY, semconv.MODALITY_TEXT)
_UNKNOWN = (semconv.GEN_AI_TOKEN_MODALITY, semconv.MODALITY_UNKNOWN)


class _TodaysMetrics(_ConventionalMetrics):
    """The names that dashboards read today (conventions up to v1.41)."""

    def __init__(self, instruments: Instruments) -> None:
        super().__init__(
            instruments,
            semconv.METRIC_OPERATION_DURATION,
            "Duration of a GenAI operation",
            semconv.METRIC_OPERATION_TIME_TO_FIRST_CHUNK,
            semconv.METRIC_OPERATION_TIME_PER_OUTPUT_CHUNK,
        )
        self._tokens = instruments.create_histogram(
            semconv.METRIC_TOKEN_USAGE,
            "{token}",
            "Input and output tokens used",
            explicit_bucket_boundaries_advisory=semconv.TOKEN_BOUNDARIES,
        )
        self._cache_tokens = instruments.create_counter(
            semconv.METRIC_LLM_CACHE_TOKENS, "{token}", "Input tokens read from a cache and written to one"
        )

    def record_tokens(self, attributes: AttributeSets, usage: LLMUsage) -> None:
        if usage.prompt_tokens is not None:
            self._tokens.record(usage.prompt_tokens, attributes.also(*_INPUT), NO_SPAN)
        if usage.completion_tokens is not None:
            self._tokens.record(usage.completion_tokens, attributes.also(*_OUTPUT), NO_SPAN)
        for operation, tokens in ((_READ, usage.cache_read_tokens), (_WRITE, usage.cache_write_tokens)):
            if tokens is not None:
                self._cache_tokens.add(tokens, attributes.also(*operation), NO_SPAN)


class _TypedTokenMetrics(_TodaysMetrics):
    """The same with cached and reasoning tokens as types of the token metric, as backends read it that price it."""

    def record_tokens(self, attributes: AttributeSets, usage: LLMUsage) -> None:
        super().record_tokens(attributes.with_(*_INCLUSIVE), usage)
        for kind, tokens in (
            (semconv.TOKEN_TYPE_CACHE_READ, usage.cache_read_tokens),
            (semconv.TOKEN_TYPE_CACHE_WRITE, usage.cache_write_tokens),
            (semconv.TOKEN_TYPE_REASONING, usage.reasoning_tokens),
        ):
            if tokens is not None:
                typed = attributes.with_(*_INCLUSIVE).also(semconv.GEN_AI_TOKEN_TYPE, kind)
                self._tokens.record(tokens, typed, NO_SPAN)


class _NewestMetrics(_ConventionalMetrics):
    """The newest names of the conventions (semantic-conventions-genai, metrics.yaml)."""

    def __init__(self, instruments: Instruments) -> None:
        super().__init__(
            instruments,
            semconv.METRIC_INFERENCE_DURATION,
            "Duration of an inference",
            semconv.METRIC_INFERENCE_TIME_TO_FIRST_CHUNK,
            semconv.METRIC_INFERENCE_TIME_PER_OUTPUT_CHUNK,
        )

        def counter(name: str, description: str) -> Counter:
            return instruments.create_counter(name, "{token}", description)

        def histogram(name: str, description: str) -> Histogram:
            return instruments.create_histogram(
                name, "{token}", description, explicit_bucket_boundaries_advisory=semconv.TOKEN_BOUNDARIES
            )

        self._input = counter(semconv.METRIC_INFERENCE_INPUT_TOKENS, "Input tokens used")
        self._output = counter(semconv.METRIC_INFERENCE_OUTPUT_TOKENS, "Output tokens used")
        self._subsets = (
            counter(semconv.METRIC_INFERENCE_CACHE_READ_TOKENS, "Input tokens read from a cache"),
            counter(semconv.METRIC_INFERENCE_CACHE_WRITE_TOKENS, "Input tokens written to a cache"),
            counter(semconv.METRIC_INFERENCE_REASONING_TOKENS, "Output tokens spent on reasoning"),
        )
        self._operation_input = histogram(semconv.METRIC_INFERENCE_OPERATION_INPUT_TOKENS, "Input tokens of a call")
        self._operation_output = histogram(semconv.METRIC_INFERENCE_OPERATION_OUTPUT_TOKENS, "Output tokens of a call")

    def record_tokens(self, attributes: AttributeSets, usage: LLMUsage) -> None:
        text = attributes.also(*_TEXT)
        if usage.prompt_tokens is not None:
            self._input.add(usage.prompt_tokens, text, NO_SPAN)
            self._operation_input.record(usage.prompt_tokens, attributes.plain, NO_SPAN)
        if usage.completion_tokens is not None:
            self._output.add(usage.completion_tokens, text, NO_SPAN)
            self._operation_output.record(usage.completion_tokens, attributes.plain, NO_SPAN)
        parts = (usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens)
        for counter, tokens in zip(self._subsets, parts, strict=True):
            if tokens is not None:
                counter.add(tokens, text, NO_SPAN)

    def record_no_tokens(self, attributes: AttributeSets) -> None:
        """Zero tokens of unknown modality (conventions, "token metrics")."""
        self._input.add(0, attributes.also(*_UNKNOWN), NO_SPAN)
        self._output.add(0, attributes.also(*_UNKNOWN), NO_SPAN)


class _EmbeddingMetrics:
    """The newest names of the conventions for embeddings, which are no inference."""

    def __init__(self, instruments: Instruments) -> None:
        self._duration = instruments.create_histogram(
            semconv.METRIC_EMBEDDINGS_DURATION,
            "s",
            "Duration of a request for embeddings",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BOUNDARIES_S,
        )
        self._input = instruments.create_histogram(
            semconv.METRIC_EMBEDDINGS_INPUT_TOKENS,
            "{token}",
            "Input tokens of a request for embeddings",
            explicit_bucket_boundaries_advisory=semconv.TOKEN_BOUNDARIES,
        )

    def record(self, call: EndedCall) -> None:
        attributes, usage = call.attributes.plain, call.usage
        self._duration.record(call.duration_s, attributes, call.context)
        if call.measured == "nothing" and usage is not None and usage.prompt_tokens is not None and not usage.estimated:
            self._input.record(usage.prompt_tokens, attributes, NO_SPAN)
