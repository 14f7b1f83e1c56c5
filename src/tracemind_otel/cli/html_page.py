"""Spans as one HTML page: a table of sums by step and a waterfall for each trace. Needs no network.

Names, prompts and errors come from strangers. All of it is escaped, characters that steer text are spelled out, and the
page's content security policy allows its own style sheet and script alone, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from ..otel import semconv
from .breakdown import (
    Sums,
    breakdown,
    cost_usd,
    duration_s,
    has_failed,
    has_no_price,
    is_call,
    model_calls,
    number,
    sums_of,
)
from .otlp_file import FileEvent, FileSpan
from .sums_table import format_cost
from .trace_tree import format_duration, format_usd, presumed_cost

_SPELLED_OUT = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are shown by number: control, format (bidirectional marks are), surrogate, unassigned."""
_JOINERS = "\u200c\u200d"
"""Format characters that belong to words and emoji."""
_MAX_CHARACTERS = 300
"""Characters of one value that are shown."""
_MAX_DEPTH = 40
"""Levels that are indented; deeper ones stand below the last."""
_CHART = 1000
"""Units of a waterfall's width."""


def html_page(spans: Sequence[FileSpan], *, title: str) -> Iterator[str]:
    """The page, piece by piece.

    Args:
        spans: what to show.
        title: the page's title; a file's name, for instance.
    """
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    calls = list(model_calls(spans))
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n<h1>{_text(title)}</h1>\n"
    )
    yield _summary(sums_of("all", calls))
    yield _table_by_step(breakdown(spans, "step"))
    yield from (_waterfall(trace) for trace in _traces(spans))
    yield f"</main>\n<script>{script}</script>\n</body>\n</html>\n"


def _asset(name: str) -> str:
    return resources.files(__name__.rpartition(".")[0]).joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _text(value: object) -> str:
    """A value of a stranger as text that has no effect on the text around it."""
    return f"<bdi>{_escaped(value)}</bdi>"


def _escaped(value: object) -> str:
    shown = str(value)
    cut = shown if len(shown) <= _MAX_CHARACTERS else f"{shown[:_MAX_CHARACTERS]}..."
    return html.escape(_spelled_out(cut))


def _spelled_out(value: str) -> str:
    if value.isascii() and value.isprintable():
        return value
    return "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in _SPELLED_OUT and c not in _JOINERS else c for c in value
    )


# --- Sums


def _summary(total: Sums) -> str:
    figures = (
        ("Cost", format_cost(total)),
        ("Model calls", f"{total.calls:,}"),
        ("Failed", f"{total.errors:,}"),
        ("Retries", f"{total.retries:,}"),
        ("Tokens in", f"{total.input_tokens:,}"),
        ("Tokens out", f"{total.output_tokens:,}"),
    )
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures) + "</dl>\n"


_COLUMNS = ("Step", "Calls", "Tokens in", "Cached", "Tokens out", "Cost", "Retries", "Failed", "p50", "p95")


def _table_by_step(rows: Sequence[Sums]) -> str:
    heads = "".join(f'<th scope="col" aria-sort="none"><button type="button">{name}</button></th>' for name in _COLUMNS)
    body = "".join(_step_row(row) for row in rows)
    return (
        f'<h2>By step</h2>\n<div class="wide"><table class="sums" id="by-step"><caption>What the model calls of each '
        f"step did and cost. Choose a heading to sort by it.</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>\n"
    )


def _step_row(row: Sums) -> str:
    share = row.cached_share
    cells = (
        (row.calls, f"{row.calls:,}"),
        (row.input_tokens, f"{row.input_tokens:,}"),
        (share, "" if share is None else f"{share:.0%}"),
        (row.output_tokens, f"{row.output_tokens:,}"),
        (row.cost_usd, format_cost(row)),
        (row.retries, f"{row.retries:,}"),
        (row.errors, f"{row.errors:,}"),
        (row.p50_s, "" if row.p50_s is None else format_duration(row.p50_s)),
        (row.p95_s, "" if row.p95_s is None else format_duration(row.p95_s)),
    )
    values = "".join(f'<td data-value="{-1 if value is None else value}">{shown}</td>' for value, shown in cells)
    return f'<tr><th scope="row">{_text(row.name)}</th>{values}</tr>\n'


# --- Waterfall


@dataclass(frozen=True, slots=True)
class _Row:
    """A span at its place in the tree."""

    span: FileSpan
    """The span."""
    depth: int
    """Its level, from 0."""


def _traces(spans: Iterable[FileSpan]) -> list[list[_Row]]:
    """The rows of each trace, the earliest trace first."""
    traces: defaultdict[str, dict[object, FileSpan]] = defaultdict(dict)
    for span in spans:
        # A Collector that sends again writes the same span twice.
        traces[span.trace_id].setdefault((span.span_id, span.name, span.start_ns, span.end_ns), span)
    ordered = sorted(traces.values(), key=lambda found: min(span.start_ns for span in found.values()))
    return [_rows(sorted(found.values(), key=lambda span: span.start_ns)) for found in ordered]


def _rows(spans: Sequence[FileSpan]) -> list[_Row]:
    """Depth first, by start. Without recursion: a file may nest deeper than Python does."""
    ids = {span.span_id for span in spans}
    below: defaultdict[str, list[FileSpan]] = defaultdict(list)
    for span in spans:
        if span.parent_id in ids:
            below[span.parent_id].append(span)
    tops = [span for span in spans if span.parent_id not in ids]
    rows: list[_Row] = []
    placed: set[int] = set()
    # What is left after the tops are spans whose parents form a circle.
    waiting = [_Row(span, 0) for span in reversed([*tops, *spans])]
    while waiting:
        row = waiting.pop()
        if id(row.span) not in placed:
            placed.add(id(row.span))
            rows.append(row)
            waiting += [_Row(child, row.depth + 1) for child in reversed(below[row.span.span_id])]
    return rows


def _waterfall(rows: Sequence[_Row]) -> str:
    first = rows[0].span
    start = min(row.span.start_ns for row in rows)
    end = max(row.span.end_ns for row in rows)
    scale = _CHART / max(1, end - start)
    body = "".join(_span_row(row, start, scale) for row in rows)
    service = _text(first.service) if first.service else "unknown service"
    return (
        f"<h2>{_text(first.name)} <small>{service}, trace {_text(first.trace_id)}</small></h2>\n"
        '<div class="wide"><table class="trace"><caption>Each span, when it ran, its tokens and its cost.</caption>'
        '<thead><tr><th scope="col">Span</th><th scope="col">Time</th><th scope="col">Duration</th>'
        f'<th scope="col">Tokens</th><th scope="col">Cost</th></tr></thead><tbody>{body}</tbody></table></div>\n'
    )


def _span_row(row: _Row, start_ns: int, scale: float) -> str:
    span = row.span
    seconds = duration_s(span)
    notes = "".join(f'<span class="{kind}">{note}</span>' for kind, note in _notes(span))
    return (
        f'<tr data-depth="{row.depth}" class="{_kind(span)}"><th scope="row" class="d{min(row.depth, _MAX_DEPTH)}">'
        f"{_text(span.name or 'span without name')}{notes}</th>"
        f"<td>{_chart(span, start_ns, scale)}</td>"
        f"<td>{'unknown' if seconds is None else format_duration(seconds)}</td>"
        f"<td>{_tokens(span)}</td><td>{_span_cost(span)}</td></tr>\n"
    )


def _kind(span: FileSpan) -> str:
    return "error" if has_failed(span) else "call" if is_call(span) else "other"


def _notes(span: FileSpan) -> Iterator[tuple[str, str]]:
    """What is said beside the name: why it failed, its retries, whether it was cancelled."""
    if has_failed(span):
        said = " ".join(
            dict.fromkeys(filter(None, (str(span.attributes.get(semconv.ERROR_TYPE, "")), span.status_message)))
        )
        yield "bad", f"error {_text(said)}"
    for event in _retries(span):
        values = event.attributes
        reason = values.get(semconv.TRACEMIND_RETRY_REASON, "unknown reason")
        status = values.get(semconv.HTTP_RESPONSE_STATUS_CODE)
        delay = number(values, semconv.TRACEMIND_RETRY_DELAY_S)
        why = f"{reason} ({status})" if status is not None else str(reason)
        waited = "" if delay is None else f", waited {format_duration(delay)}"
        waited += f", {presumed}" if (presumed := presumed_cost(values)) else ""
        yield "warn", f"attempt {_text(values.get(semconv.TRACEMIND_RETRY_ATTEMPT, '?'))} failed: {_text(why)}{waited}"
    if span.attributes.get(semconv.TRACEMIND_CANCELLED) is True:
        yield "warn", "cancelled"


def _retries(span: FileSpan) -> list[FileEvent]:
    return sorted(
        (event for event in span.events if event.name == semconv.RETRY_EVENT), key=lambda event: event.time_ns
    )


def _chart(span: FileSpan, start_ns: int, scale: float) -> str:
    """The span's time as bars: one for each attempt, and between them the waits."""
    bars: list[tuple[str, int, int]] = []
    begun = span.start_ns
    for event in _retries(span):
        resumed = event.time_ns + int((number(event.attributes, semconv.TRACEMIND_RETRY_DELAY_S) or 0.0) * 1e9)
        bars += [("attempt", begun, event.time_ns), ("wait", event.time_ns, min(resumed, span.end_ns))]
        begun = min(resumed, span.end_ns)
    bars.append((_kind(span), begun, span.end_ns))
    shown = "".join(_bar(kind, (left - start_ns) * scale, (right - left) * scale) for kind, left, right in bars)
    return f'<svg viewBox="0 0 {_CHART} 10" preserveAspectRatio="none" aria-hidden="true">{shown}</svg>'


def _bar(kind: str, x: float, width: float) -> str:
    return f'<rect class="{kind}" x="{x:.2f}" y="1" width="{max(2.0, width):.2f}" height="8"/>'


def _tokens(span: FileSpan) -> str:
    sides = (
        (semconv.GEN_AI_USAGE_INPUT_TOKENS, "in"),
        (semconv.GEN_AI_USAGE_OUTPUT_TOKENS, "out"),
        (semconv.TRACEMIND_FLOW_INPUT_TOKENS, "in, in all"),
        (semconv.TRACEMIND_FLOW_OUTPUT_TOKENS, "out, in all"),
    )
    shown = [
        f"{value:,.0f}&nbsp;{word}" for name, word in sides if (value := number(span.attributes, name)) is not None
    ]
    return " / ".join(shown)


def _span_cost(span: FileSpan) -> str:
    if (cost := cost_usd(span.attributes)) is not None:
        return format_usd(cost)
    if (total := number(span.attributes, semconv.TRACEMIND_FLOW_COST_USD)) is not None:
        return f"{format_usd(total)} in all"
    if presumed := presumed_cost(span.attributes):
        return presumed
    return "price unknown" if is_call(span) and has_no_price(span) else ""
