"""Sums over the model calls of some spans, by step, model, flow, tool or user. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..otel import semconv
from .otlp_file import FileSpan, Scalar

GroupBy = Literal["step", "model", "flow", "endpoint", "tool", "user"]
"""What the calls are summed by."""

NOT_KNOWN = "(none)"
"""The group of the calls that belong to none, to no step for instance."""

CALL_OPERATIONS = frozenset({"", "chat", "text_completion", "generate_content", "embeddings"})
"""Operations that are model calls: those of flows, agents and tools only hold such calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """What the calls of one group did and cost."""

    name: str
    """The group's name."""
    calls: int
    """Model calls, failed ones included."""
    errors: int
    """Calls that failed."""
    input_tokens: int
    """Input tokens, cached ones included."""
    cached_tokens: int
    """Input tokens that were read from a cache."""
    output_tokens: int
    """Output tokens, reasoning included."""
    cost_usd: float | None
    """USD of the calls that have a price; `None` when none has."""
    unpriced: int
    """Calls that succeeded and whose price is unknown."""
    retries: int
    """Failed attempts that were repeated."""
    p50_s: float | None
    """Median duration in seconds; `None` when no duration is known."""
    p95_s: float | None
    """Duration in seconds that 95 % of the calls did not exceed."""

    @property
    def cached_share(self) -> float | None:
        """The part of the input that was read from a cache, 0 to 1; `None` without input."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else None

    def as_dict(self) -> dict[str, Any]:
        """The sums as plain values that JSON can hold."""
        return {**asdict(self), "cached_share": self.cached_share}


def breakdown(spans: Sequence[FileSpan], by: GroupBy) -> list[Sums]:
    """The sums of each group, the most expensive first."""
    name_of = _Names(spans, by).of
    groups: defaultdict[str, list[FileSpan]] = defaultdict(list)
    for call in model_calls(spans):
        groups[name_of(call)].append(call)
    sums = [sums_of(name, calls) for name, calls in groups.items()]
    return sorted(sums, key=lambda row: (-(row.cost_usd or 0.0), -row.calls, row.name))


def sums_of(name: str, calls: Sequence[FileSpan]) -> Sums:
    """The sums of some calls."""
    costs = [cost for call in calls if (cost := cost_usd(call.attributes)) is not None]
    durations = sorted(seconds for call in calls if (seconds := duration_s(call)) is not None)
    return Sums(
        name=name,
        calls=len(calls),
        errors=sum(map(has_failed, calls)),
        input_tokens=_sum(calls, semconv.GEN_AI_USAGE_INPUT_TOKENS),
        cached_tokens=_sum(calls, semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
        output_tokens=_sum(calls, semconv.GEN_AI_USAGE_OUTPUT_TOKENS),
        cost_usd=math.fsum(costs) if costs else None,
        unpriced=sum(has_no_price(call) for call in calls),
        retries=_sum(calls, semconv.TRACEMIND_RETRY_COUNT),
        p50_s=_percentile(durations, 0.50),
        p95_s=_percentile(durations, 0.95),
    )


def model_calls(spans: Iterable[FileSpan]) -> Iterator[FileSpan]:
    """The spans of model calls. Of calls within calls, as two instrumentations make them, the outermost."""
    calls = {(span.trace_id, span.span_id): span for span in spans if is_call(span)}
    around = {(span.trace_id, span.parent_id) for span in calls.values()}
    calls = {key: span for key, span in calls.items() if key not in around or _has_usage(span)}
    for call in calls.values():
        if (call.trace_id, call.parent_id) not in calls:
            yield call


def _has_usage(span: FileSpan) -> bool:
    """Whether a call names what it used; one that does not leaves that to the call inside it."""
    return not span.attributes.keys().isdisjoint((semconv.GEN_AI_USAGE_INPUT_TOKENS, semconv.TRACEMIND_COST_USD))


def is_call(span: FileSpan) -> bool:
    """Whether a span is a model call."""
    has_model = not span.attributes.keys().isdisjoint((semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_RESPONSE_MODEL))
    return has_model and span.attributes.get(semconv.GEN_AI_OPERATION_NAME, "") in CALL_OPERATIONS


def has_failed(span: FileSpan) -> bool:
    """Whether a span ended in an error."""
    return span.is_error or semconv.ERROR_TYPE in span.attributes


def has_no_price(call: FileSpan) -> bool:
    """Whether a call succeeded and nobody knows what it cost."""
    was_cancelled = call.attributes.get(semconv.TRACEMIND_CANCELLED) is True
    return not has_failed(call) and not was_cancelled and cost_usd(call.attributes) is None


def cost_usd(attributes: Mapping[str, Scalar]) -> float | None:
    """A call's cost, by whichever name it has; `None` when it has none."""
    for name in (semconv.TRACEMIND_COST_USD, semconv.GEN_AI_USAGE_COST, semconv.GEN_AI_USAGE_COST_AMOUNT):
        if (cost := number(attributes, name)) is not None:
            return cost
    return None


def duration_s(span: FileSpan) -> float | None:
    """Seconds from start to end; `None` where the file does not say."""
    return (span.end_ns - span.start_ns) / 1e9 if span.start_ns and span.end_ns else None


def number(attributes: Mapping[str, Scalar], name: str) -> float | None:
    """A finite number; `None` for anything else."""
    value = attributes.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _sum(calls: Iterable[FileSpan], name: str) -> int:
    return sum(int(number(call.attributes, name) or 0) for call in calls)


def _percentile(ordered: Sequence[float], fraction: float) -> float | None:
    """By the nearest rank: always a duration that occurred."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)] if ordered else None


class _Names:
    """Finds what a call belongs to: on its own span, else on the nearest span around it that says so."""

    def __init__(self, spans: Iterable[FileSpan], by: GroupBy) -> None:
        self._by_id = {(span.trace_id, span.span_id): span for span in spans if span.span_id}
        self._own = _OWN_NAMES[by]
        self._known: dict[tuple[str, str], str] = {}

    def of(self, call: FileSpan) -> str:
        """The name of the call's group."""
        passed: dict[tuple[str, str], str] = {}
        span: FileSpan | None = call
        name = NOT_KNOWN
        while span is not None and (key := (span.trace_id, span.span_id)) not in passed:
            found = self._known.get(key) or self._own(span)
            if found:
                name = found
                break
            passed[key] = name
            span = self._by_id.get((span.trace_id, span.parent_id))
        self._known.update(dict.fromkeys(passed, name))
        return name


def _model(span: FileSpan) -> str:
    values = span.attributes
    model = values.get(semconv.GEN_AI_RESPONSE_MODEL) or values.get(semconv.GEN_AI_REQUEST_MODEL)
    provider = values.get(semconv.GEN_AI_PROVIDER_NAME)
    return "" if not model else str(model) if not provider else f"{provider}/{model}"


def _endpoint(span: FileSpan) -> str:
    """The method and the route of a request that a web framework's span names."""
    route = span.attributes.get(semconv.HTTP_ROUTE)
    return f"{span.attributes.get(semconv.HTTP_REQUEST_METHOD, '')} {route}".strip() if route else ""


def _attribute(name: str) -> Callable[[FileSpan], str]:
    return lambda span: str(span.attributes.get(name, ""))


_OWN_NAMES: Mapping[GroupBy, Callable[[FileSpan], str]] = {
    "step": _attribute(semconv.TRACEMIND_STEP_ID),
    "model": _model,
    "flow": _attribute(semconv.GEN_AI_WORKFLOW_NAME),
    "endpoint": _endpoint,
    "tool": _attribute(semconv.GEN_AI_TOOL_NAME),
    "user": _attribute(semconv.USER_ID),
}
