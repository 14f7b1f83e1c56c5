"""Checks of spans, from files or from an application."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from ...ai.llm.pricing import Price, estimate_cost, is_in_wrong_unit
from ...ai.llm.providers._hosts import UNKNOWN, provider_at
from ...otel import semconv
from ...wire.logical_call import STEP_TYPE as SDK_CALL
from ..breakdown import cost_usd, has_no_price, is_call, model_calls, number
from ..otlp_file import FileSpan
from .evidence import Evidence, SpanSource
from .finding import Finding
from .setup_checks import per_thousand

_MAX_NAMED = 5
"""The number of models, traces or flows that a finding names."""
_FUTURE_NS = 60 * 10**9
"""Nanoseconds by which a span may be ahead of this clock."""
_CHANCE = 1e-6
"""The chance at which ids count as sampled rather than as random."""
_HALF = 2**64
"""The number of values of half a trace id."""
_OPERATIONS_AROUND = (semconv.INVOKE_WORKFLOW, semconv.INVOKE_AGENT)


def spans_of_sources(evidence: Evidence) -> Iterator[Finding]:
    """Every check of spans, on every source of spans."""
    for source in evidence.sources:
        for check in _CHECKS:
            yield from check(source)


def _is_ours(span: FileSpan) -> bool:
    """Whether our recorder made it. Spans of others may have the ids of our flow."""
    return semconv.TRACEMIND_STEP_TYPE in span.attributes


def _our_calls(source: SpanSource) -> list[FileSpan]:
    return [call for call in model_calls(source.spans) if _is_ours(call)]


def _model(call: FileSpan) -> str:
    values = call.attributes
    model = values.get(semconv.GEN_AI_RESPONSE_MODEL) or values.get(semconv.GEN_AI_REQUEST_MODEL)
    return f"{_provider(call)}/{model}"


def _provider(call: FileSpan) -> str:
    return str(call.attributes.get(semconv.GEN_AI_PROVIDER_NAME, "unknown provider"))


def _counted(names: Iterable[str]) -> str:
    """Names with how often each occurs, the most frequent first."""
    counts = Counter(names).most_common()
    shown = ", ".join(f"{name} ({count:,})" for name, count in counts[:_MAX_NAMED])
    more = len(counts) - _MAX_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _empty(source: SpanSource) -> Iterator[Finding]:
    if not source.spans:
        fix = "let the program run to its end after configure(file=...); OTEL_SDK_DISABLED or a sampler may be in force"
        yield Finding("no-spans", "error", f"{source.name} has no spans", fix)


# --- Cost


def _unpriced(source: SpanSource) -> Iterator[Finding]:
    unpriced = [call for call in _our_calls(source) if has_no_price(call)]
    counted = [call for call in unpriced if _has_tokens(call)]
    at_unknown = {server: _provider(call) for call in counted if (server := _unknown_server(call)) is not None}
    if at_unknown:
        names = (f"{_model(call)} at {server}" for call in counted if (server := _unknown_server(call)) is not None)
        what = f"{source.name}: calls have no cost, because nobody knows whose prices hold there: {_counted(names)}"
        fix = f"name whose prices hold: configure(hosts={at_unknown}) or TRACEMIND_HOSTS; or add prices by set_prices()"
        yield Finding("unpriced-model", "error", what, fix)
    models = [_model(call) for call in counted if _unknown_server(call) is None]
    if models:
        fix = "add prices for these models: tracemind_otel.set_prices(...) or configure(prices='prices.toml')"
        yield Finding("unpriced-model", "error", f"{source.name}: calls have no cost: {_counted(models)}", fix)
    silent = [_model(call) for call in unpriced if not _has_tokens(call)]
    if silent:
        what = f"{source.name}: replies without tokens, so without a cost: {_counted(silent)}"
        yield Finding("no-usage", "warning", what, "let the server report usage; for streams it often is an option")


def _unknown_server(call: FileSpan) -> str | None:
    """The server of another SDK's call, if only that nobody knows it keeps the call from having a price."""
    values = call.attributes
    host, port = str(values.get(semconv.SERVER_ADDRESS, "")), number(values, semconv.SERVER_PORT)
    if values.get(semconv.TRACEMIND_STEP_TYPE) != SDK_CALL or not host or provider_at(host, None, {}) != UNKNOWN:
        return None
    models = (values.get(semconv.GEN_AI_RESPONSE_MODEL), values.get(semconv.GEN_AI_REQUEST_MODEL))
    if all(estimate_cost(_provider(call), str(model), 1, 1) is None for model in models if model):
        return None
    return host if port is None else f"{host}:{int(port)}"


def _has_tokens(call: FileSpan) -> bool:
    names = (semconv.GEN_AI_USAGE_INPUT_TOKENS, semconv.GEN_AI_USAGE_OUTPUT_TOKENS)
    return any(number(call.attributes, name) is not None for name in names)


def _per_thousand(source: SpanSource) -> Iterator[Finding]:
    prices = {price: None for call in _our_calls(source) if (price := _price_used(call)) is not None}
    for model in sorted({price.model for price in prices if _is_in_wrong_unit(price)}):
        yield per_thousand(model)


def _is_in_wrong_unit(price: Price) -> bool:
    """By the table's price at this provider, else at the one that the model's name tells."""
    return is_in_wrong_unit(price) or is_in_wrong_unit(replace(price, provider=None))


def _price_used(call: FileSpan) -> Price | None:
    """The user's own price as the span shows it; `None` for a call at another price."""
    values = call.attributes
    rates = [_rate(call, semconv.TRACEMIND_COST_INPUT_USD, semconv.GEN_AI_USAGE_INPUT_TOKENS)]
    rates.append(_rate(call, semconv.TRACEMIND_COST_OUTPUT_USD, semconv.GEN_AI_USAGE_OUTPUT_TOKENS))
    if values.get(semconv.TRACEMIND_COST_SOURCE) != "override" or not any(rates):
        return None
    _, _, model = _model(call).partition("/")
    provider = values.get(semconv.GEN_AI_PROVIDER_NAME)
    return Price(model=model, input=rates[0], output=rates[1], provider=None if provider is None else str(provider))


def _rate(call: FileSpan, cost: str, tokens: str) -> Decimal:
    """USD per million tokens, to three digits, so that equal prices are equal."""
    usd, count = number(call.attributes, cost), number(call.attributes, tokens)
    return Decimal(f"{usd * 1e6 / count:.3g}") if usd and count else Decimal(0)


# --- Flows and traces


def _without_flow(source: SpanSource) -> Iterator[Finding]:
    around = _Around(source.spans)
    loose = [call for call in _our_calls(source) if around.is_known_to_be_loose(call)]
    if loose:
        what = f"{source.name}: model calls in no flow, so in no sum: {_counted(call.name for call in loose)}"
        fix = (
            "put @tracemind_otel.flow on the function that makes them, or `with tracemind_otel.flow(name=...):` around"
        )
        yield Finding("no-flow", "warning", what, fix)


def _missing(source: SpanSource) -> Iterator[Finding]:
    around = _Around(source.spans)
    held = Counter(id(flow) for call in source.spans if is_call(call) for flow in around.flows_of(call))
    short = [
        f"{span.name or 'a flow'} counted {int(counted):,} and has {held[id(span)]:,}"
        for span in source.spans
        if (counted := number(span.attributes, semconv.TRACEMIND_FLOW_LLM_CALLS)) and held[id(span)] < counted
    ]
    if short:
        more = f" and {len(short) - _MAX_NAMED:,} more" if len(short) > _MAX_NAMED else ""
        what = f"{source.name}: flows lack spans of model calls: {'; '.join(short[:_MAX_NAMED])}{more}"
        fix = "pass all files of the trace; else a full queue, a sampler behind it or a failed export has dropped spans"
        yield Finding("missing-spans", "warning", what, fix)


class _Around:
    """What is around a span."""

    def __init__(self, spans: Sequence[FileSpan]) -> None:
        self._by_id = {(span.trace_id, span.span_id): span for span in spans}

    def _ancestors(self, span: FileSpan) -> Iterator[FileSpan]:
        seen = {span.span_id}
        parent = self._by_id.get((span.trace_id, span.parent_id))
        while parent is not None and parent.span_id not in seen:
            yield parent
            seen.add(parent.span_id)
            parent = self._by_id.get((parent.trace_id, parent.parent_id))

    def flows_of(self, span: FileSpan) -> Iterator[FileSpan]:
        """The spans around it that have sums of model calls."""
        return (each for each in self._ancestors(span) if semconv.TRACEMIND_FLOW_LLM_CALLS in each.attributes)

    def is_known_to_be_loose(self, span: FileSpan) -> bool:
        """Whether no flow or agent is around it up to the root of the trace."""
        line = [span, *self._ancestors(span)]
        is_in_flow = any(each.attributes.get(semconv.GEN_AI_OPERATION_NAME) in _OPERATIONS_AROUND for each in line)
        return not is_in_flow and not line[-1].parent_id


def _doubled(source: SpanSource) -> Iterator[Finding]:
    calls = {(span.trace_id, span.span_id): span for span in source.spans if is_call(span)}
    inner = [call for call in calls.values() if (call.trace_id, call.parent_id) in calls]
    mixed = [call for call in inner if not (_is_ours(call) and _is_ours(calls[call.trace_id, call.parent_id]))]
    if mixed:
        what = f"{source.name}: model calls with two spans, one inside the other: {_counted(c.name for c in mixed)}"
        fix = "switch off the instrumentation of the model SDK: backends count tokens and cost of such a call twice"
        yield Finding("doubled-spans", "warning", what, fix)


def _sampled(source: SpanSource) -> Iterator[Finding]:
    share = _share_kept({span.trace_id for span in source.spans})
    if share is not None:
        what = f"{source.name}: a sampler kept about {share:.0%} of the traces: all ids lie in that part of their range"
        fix = f"sums over these spans cover that part only; take the whole from metrics, as {semconv.METRIC_LLM_COST}"
        yield Finding("sampled", "warning", what, fix)


def _share_kept(trace_ids: Iterable[str]) -> float | None:
    """The ratio of a sampler by trace id, which keeps the ids whose lower half is small; `None` without one.

    Random ids reach over their whole range: that all of n ids lie in a part r of it by chance has the likelihood r^n.
    """
    numbers = [int(each, 16) for each in trace_ids if len(each) == 32 and not each.strip("0123456789abcdef")]
    if len(numbers) < 2:
        return None
    upper = [each // _HALF / _HALF for each in numbers]
    if max(upper) < 0.5 or min(upper) > 0.5:  # no random ids: X-Ray's begin with the time, a test's with zeros
        return None
    highest = max(each % _HALF for each in numbers) / _HALF
    return highest if highest ** len(numbers) < _CHANCE else None


def _in_future(source: SpanSource) -> Iterator[Finding]:
    ahead_ns = max((span.start_ns for span in source.spans), default=0) - time.time_ns()
    if ahead_ns > _FUTURE_NS:
        what = f"{source.name}: spans begin {ahead_ns / 1e9:,.0f} s after the time of this machine"
        yield Finding("clock", "warning", what, "set the clocks of both machines by NTP")


def _estimated(source: SpanSource) -> Iterator[Finding]:
    estimated = [
        _model(call)
        for call in _our_calls(source)
        if call.attributes.get(semconv.TRACEMIND_USAGE_ESTIMATED) is True and cost_usd(call.attributes) is not None
    ]
    if estimated:
        what = f"{source.name}: costs by estimated tokens, as of streams that were cut off: {_counted(estimated)}"
        yield Finding("estimated-cost", "warning", what, "read streams to their end where the exact cost matters")


_CHECKS = (_empty, _unpriced, _per_thousand, _without_flow, _missing, _doubled, _sampled, _in_future, _estimated)
