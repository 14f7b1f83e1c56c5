"""Spans as trees for the terminal: durations, tokens, cost, retries, failures.

Values of a file are shown as plain text: markup and escape sequences in them have no effect.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.text import Text
from rich.tree import Tree

from ..otel import semconv
from .breakdown import cost_usd, duration_s, has_no_price, is_call, number, sums_of
from .folding import FOLDED_FROM, grouped, shapes
from .otlp_file import FileEvent, FileSpan, Scalar

_MAX_TEXT = 300
"""The length at which a value is cut, in characters."""
_INDENT = 4
"""Columns of each level of a tree."""
_LABEL_COLUMNS = 30
"""Columns in which a wrapped label is still readable."""

_Part = tuple[str, str]
"""A piece of a label and its style."""


def trace_trees(spans: Iterable[FileSpan], *, fold_from: int = FOLDED_FROM) -> Iterator[Tree]:
    """One tree for each trace, the earliest trace first.

    Args:
        spans: the spans.
        fold_from: the number of equal siblings that become one line.
    """
    traces: defaultdict[str, dict[object, FileSpan]] = defaultdict(dict)
    for span in spans:
        # A Collector that retries an export writes the same span twice.
        traces[span.trace_id].setdefault((span.span_id, span.name, span.start_ns, span.end_ns), span)
    ordered = [sorted(found.values(), key=lambda span: span.start_ns) for found in traces.values()]
    for trace in sorted(ordered, key=lambda trace: trace[0].start_ns):
        yield _TraceTree(_without_attempts(trace), fold_from).build()


def _without_attempts(trace: Sequence[FileSpan]) -> list[FileSpan]:
    """The spans without those of attempts, each of which the call's own line of a retry tells already."""
    ids = {span.span_id for span in trace}
    return [
        span for span in trace if semconv.TRACEMIND_RETRY_ATTEMPT not in span.attributes or span.parent_id not in ids
    ]


def needed_columns(tree: Tree) -> int:
    """The columns that the deepest label needs beside its indent."""
    depth, level = 0, [tree]
    while level := [child for node in level for child in node.children]:
        depth += 1
    return depth * _INDENT + _LABEL_COLUMNS


class _TraceTree:
    """The tree of one trace, built without recursion because a file may nest deeper than Python allows."""

    def __init__(self, spans: Sequence[FileSpan], fold_from: int) -> None:
        self._spans = spans
        self._fold_from = fold_from
        self._placed: set[int] = set()
        self._children: dict[str, list[FileSpan]] = {span.span_id: [] for span in spans if span.span_id}
        for span in spans:
            if span.parent_id in self._children:
                self._children[span.parent_id].append(span)

    def build(self) -> Tree:
        tops = [span for span in self._spans if span.parent_id not in self._children]
        tree = Tree(_header((tops or self._spans)[0]), guide_style="dim", highlight=False)
        self._parents = {span.span_id: span for span in self._spans}
        self._shapes = shapes((*tops, *self._spans), self._children, self._look)
        # The spans that remain after the tops have parents that form a circle.
        for spans in (*grouped(tops, self._shapes, self._fold_from), *([span] for span in self._spans)):
            self._place(spans, tree)
        return tree

    def _look(self, span: FileSpan) -> tuple[str, ...] | None:
        """What a line says besides figures. A span with an error, a retry or a warning has a line of its own."""
        parent = self._parents.get(span.parent_id)
        is_plain = not _error(span) and not any(event.name in _EVENTS for event in span.events)
        texts = [text for text, style in self._parts_of(span, parent) if style in ("bold", "dim", "magenta", "yellow")]
        return tuple(texts) if is_plain else None

    def _place(self, tops: list[FileSpan], tree: Tree) -> None:
        waiting: list[tuple[list[FileSpan] | FileEvent, FileSpan | None, Tree]] = [(tops, None, tree)]
        while waiting:
            item, parent, node = waiting.pop()
            if isinstance(item, FileEvent):
                node.add(_label(_EVENTS[item.name](item.attributes)))
            elif not self._placed.issuperset(map(id, item)):
                self._placed.update(map(id, item))
                parts = self._parts_of(item[0], parent) if len(item) == 1 else _group_parts(item)
                below_it = node.add(_label(parts))
                waiting += [(below, item[0], below_it) for below in reversed(self._below(item))]

    def _below(self, spans: list[FileSpan]) -> list[list[FileSpan] | FileEvent]:
        """Child spans and events in order of time. Equal spans have equal children, which are folded with them."""
        events = [event for span in spans for event in span.events if event.name in _EVENTS]
        children = [child for span in spans for child in self._children.get(span.span_id, ())]
        fold_from = self._fold_from if len(spans) == 1 else 2
        items: list[list[FileSpan] | FileEvent] = [*events, *grouped(children, self._shapes, fold_from)]
        return sorted(items, key=lambda item: item.time_ns if isinstance(item, FileEvent) else item[0].start_ns)

    def _parts_of(self, span: FileSpan, parent: FileSpan | None) -> list[_Part]:
        parts = _span_parts(span)
        if parent is not None and span.service and span.service != parent.service:
            parts.append((f"[{span.service}]", "dim"))
        parts.append((_ids(span.attributes, {} if parent is None else parent.attributes), "dim"))
        if parent is None and span.parent_id:
            why = "parents form a circle" if span.parent_id in self._children else "parent not in this file"
            parts.append((f"({why})", "dim"))
        return parts


def _header(span: FileSpan) -> Text:
    service = ("unknown service", "dim") if not span.service else (span.service, "bold")
    return _label([service, (f"trace {span.trace_id or 'without id'}", "dim")])


def _label(parts: Iterable[_Part]) -> Text:
    """The pieces, two spaces apart; `Text` interprets no markup in them."""
    return Text("  ").join(Text(printable(text), style=style) for text, style in parts if text)


def printable(text: str) -> str:
    """The text without control characters, cut to a length that fits."""
    kept = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in text[: _MAX_TEXT + 1])
    return kept if len(text) <= _MAX_TEXT else f"{kept[:_MAX_TEXT]}..."


def _span_parts(span: FileSpan) -> list[_Part]:
    return [
        (span.name or "span without name", "bold"),
        (_duration(span), "cyan"),
        (_tokens(span.attributes), ""),
        *_cost_parts(span),
        (_flow_sums(span.attributes), "green"),
        ("cancelled" if span.attributes.get(semconv.TRACEMIND_CANCELLED) is True else "", "magenta"),
        ("closed early" if span.attributes.get(semconv.TRACEMIND_STREAM_CLOSED_EARLY) is True else "", "magenta"),
        (_error(span), "bold red"),
    ]


def _group_parts(spans: Sequence[FileSpan]) -> list[_Part]:
    """Equal spans in one line: `50 x chat gpt-4o-mini  12.5 s in all, median 250 ms  5,000 in / 500 out  $0.01`."""
    sums = sums_of("", spans)
    durations = [seconds for span in spans if (seconds := duration_s(span)) is not None]
    took = (
        "" if sums.p50_s is None else f"{format_duration(sum(durations))} in all, median {format_duration(sums.p50_s)}"
    )
    tokens = f"{sums.input_tokens:,} in / {sums.output_tokens:,} out" if sums.input_tokens or sums.output_tokens else ""
    cost = "" if sums.cost_usd is None else format_usd(sums.cost_usd)
    unpriced = "price unknown" if is_call(spans[0]) and sums.unpriced else ""
    name = spans[0].name or "span without name"
    return [(f"{len(spans):,} x {name}", "bold"), (took, "cyan"), (tokens, ""), (cost, "green"), (unpriced, "yellow")]


_IDS = {semconv.SESSION_ID: "session", semconv.USER_ID: "user", semconv.GEN_AI_CONVERSATION_ID: "conversation"}


def _ids(attributes: Mapping[str, Scalar], above: Mapping[str, Scalar]) -> str:
    """`session s-17, user ada`: the ids that differ from those of the parent."""
    begun = {name: attributes[name] for name in _IDS if attributes.get(name) not in (None, above.get(name))}
    return ", ".join(f"{_IDS[name]} {value}" for name, value in begun.items())


def _duration(span: FileSpan) -> str:
    seconds = duration_s(span)
    return "duration unknown" if seconds is None else format_duration(seconds)


def format_duration(seconds: float) -> str:
    """Seconds for a person: `0.42 ms`, `153 ms`, `1.53 s`, `2 min 5 s`."""
    if seconds < 0.001:
        return f"{seconds * 1000:.2f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def format_usd(usd: float) -> str:
    """Dollars with four significant digits: `$0.00045`, `$1.23`, `$0`. A small cost never looks like zero."""
    if usd == 0:
        return "$0"
    sign, usd = "-" if usd < 0 else "", abs(usd)
    if usd < 1e-9:
        return f"{sign}${usd:.3g}"
    whole, _, cents = f"{usd:,.{max(2, 3 - math.floor(math.log10(usd)))}f}".partition(".")
    return f"{sign}${whole}.{cents.rstrip('0').ljust(2, '0')}"


def _count(attributes: Mapping[str, Scalar], name: str) -> str:
    value = number(attributes, name)
    return "" if value is None else f"{value:,.0f}"


def _tokens(attributes: Mapping[str, Scalar]) -> str:
    """`1,000 in (200 cached) / 500 out (64 reasoning)`; unreported parts are left out."""
    shown = " / ".join(filter(None, (_side(attributes, *side) for side in _SIDES)))
    return f"{shown} (estimated)" if shown and attributes.get(semconv.TRACEMIND_USAGE_ESTIMATED) is True else shown


_SIDES = (
    (
        semconv.GEN_AI_USAGE_INPUT_TOKENS,
        "in",
        (
            (semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, "cached"),
            (semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS, "written to cache"),
        ),
    ),
    (semconv.GEN_AI_USAGE_OUTPUT_TOKENS, "out", ((semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, "reasoning"),)),
)


def _side(attributes: Mapping[str, Scalar], name: str, word: str, subsets: Sequence[tuple[str, str]]) -> str:
    total = _count(attributes, name)
    if not total:
        return ""
    parts = [f"{count} {what}" for name, what in subsets if (count := _count(attributes, name)) not in ("", "0")]
    return f"{total} {word} ({', '.join(parts)})" if parts else f"{total} {word}"


def _cost_parts(span: FileSpan) -> list[_Part]:
    if (cost := cost_usd(span.attributes)) is not None:
        return [(format_usd(cost), "green")]
    if presumed := presumed_cost(span.attributes):
        return [(presumed, "yellow")]
    return [("price unknown", "yellow")] if is_call(span) and has_no_price(span) else []


def presumed_cost(attributes: Mapping[str, Scalar], name: str = semconv.TRACEMIND_COST_PRESUMED_USD) -> str:
    """`$0.00045 presumed`, for a reply that was lost; empty where none was."""
    cost = number(attributes, name)
    return "" if cost is None else f"{format_usd(cost)} presumed"


def _flow_sums(attributes: Mapping[str, Scalar]) -> str:
    """`3 calls, 2 retries, 1,000 in / 500 out, $0.00045, $0.0001 presumed in all`; empty for a span without sums."""
    calls = _count(attributes, semconv.TRACEMIND_FLOW_LLM_CALLS)
    if not calls:
        return ""
    retries = _count(attributes, semconv.TRACEMIND_FLOW_RETRIES) or "0"
    tokens_in = _count(attributes, semconv.TRACEMIND_FLOW_INPUT_TOKENS) or "0"
    tokens_out = _count(attributes, semconv.TRACEMIND_FLOW_OUTPUT_TOKENS) or "0"
    cost = number(attributes, semconv.TRACEMIND_FLOW_COST_USD)
    sums = [_plural(calls, "call"), _plural(retries, "retry"), f"{tokens_in} in / {tokens_out} out"]
    costs = (
        "" if cost is None else format_usd(cost),
        presumed_cost(attributes, semconv.TRACEMIND_FLOW_PRESUMED_COST_USD),
    )
    return f"{', '.join(filter(None, (*sums, *costs)))} in all"


def _plural(count: str, word: str) -> str:
    return f"{count} {word}" if count == "1" else f"{count} {word.removesuffix('y')}{'ies' if word[-1] == 'y' else 's'}"


def _error(span: FileSpan) -> str:
    """`ERROR 503: HTTP 503: scripted`; empty for a span without an error."""
    error_type = str(span.attributes.get(semconv.ERROR_TYPE, ""))
    if not span.is_error and not error_type:
        return ""
    said = span.status_message if span.status_message != error_type else ""
    return ": ".join(filter(None, (f"ERROR {error_type}".strip(), said)))


def _retry_parts(attributes: Mapping[str, Scalar]) -> list[_Part]:
    """`retry 1/3 rate_limit (429), waited 0.2 s`; `retry 1 ...` where the limit is not known, as with other SDKs."""
    attempt = _count(attributes, semconv.TRACEMIND_RETRY_ATTEMPT) or "?"
    attempts = _count(attributes, semconv.TRACEMIND_RETRY_MAX_ATTEMPTS)
    which = f"{attempt}/{attempts}" if attempts else attempt
    reason = str(attributes.get(semconv.TRACEMIND_RETRY_REASON, "unknown reason"))
    detail = str(attributes.get(semconv.HTTP_RESPONSE_STATUS_CODE, attributes.get(semconv.ERROR_TYPE, reason)))
    delay_s = number(attributes, semconv.TRACEMIND_RETRY_DELAY_S)
    why = reason if detail == reason else f"{reason} ({detail})"
    waited = "" if delay_s is None else f", waited {delay_s:.3g} s"
    presumed = presumed_cost(attributes)
    return [(f"retry {which} {why}{waited}{presumed and f', {presumed}'}", "yellow")]


def _budget_parts(attributes: Mapping[str, Scalar]) -> list[_Part]:
    """`budget research: 80 % of $1.00 reached, $0.85 spent`."""
    name = attributes.get(semconv.TRACEMIND_BUDGET_NAME)
    budget = f"budget {name}" if isinstance(name, str) and name != "budget" else "budget"
    is_money = attributes.get(semconv.TRACEMIND_BUDGET_KIND) == "cost_usd"
    fraction = number(attributes, semconv.TRACEMIND_BUDGET_FRACTION)
    reached = "?" if fraction is None else f"{fraction * 100:.0f} %"
    figures = (number(attributes, name) for name in (semconv.TRACEMIND_BUDGET_LIMIT, semconv.TRACEMIND_BUDGET_SPENT))
    limit, spent = ("?" if n is None else format_usd(n) if is_money else f"{n:,.0f}" for n in figures)
    unit = "" if is_money else " tokens" if attributes.get(semconv.TRACEMIND_BUDGET_KIND) == "tokens" else " calls"
    return [(f"{budget}: {reached} of {limit}{unit} reached, {spent} spent", "yellow")]


_EVENTS = {semconv.RETRY_EVENT: _retry_parts, semconv.BUDGET_EVENT: _budget_parts}
