"""What a backend will show of the spans of a file, and what not and why: `doctor --backend NAME`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from ...otel.backends.backend import Backend, Field
from ...otel.backends.derived import SpanFacts, SpanType, span_type
from ...otel.backends.readings import FIELDS_OF, SpanView, has_source, shown, with_additions
from ...otel.backends.words import FIELD_WORDS, SPAN_WORDS
from ..otlp_file import FileSpan
from ..trace_tree import printable


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What is shown of one thing, on the spans of one type."""

    spans: SpanType
    """The type of the spans."""
    count: int
    """How many spans there are."""
    field: Field
    """What is looked for."""
    shown: int
    """On how many it is shown as the file is."""
    shown_with_preset: int
    """On how many it would be shown with the preset."""
    example: str
    """The value that is shown first."""
    why: str
    """Why it is not shown, or what else is to be known."""


def backend_lines(backend: Backend, spans: Iterable[FileSpan]) -> list[Line]:
    """What the backend shows of these spans, by type of span and thing to show."""
    views: dict[SpanType, list[SpanView]] = {}
    for span in spans:
        view = _view(span)
        if view is not None:
            views.setdefault(view.facts.type, []).append(view)
    return [
        _line(backend, found, field) for type_ in SPAN_WORDS if (found := views.get(type_))
        for field in FIELDS_OF[type_]
    ]  # fmt: skip


def _view(span: FileSpan) -> SpanView | None:
    """The span as a backend receives it; a file does not say who made one, so steps are not told apart from others."""
    found = span_type(span.attributes, is_ours=False)
    if found is None:
        return None
    facts = SpanFacts(type=found, attributes=span.attributes, started_ns=span.start_ns)
    return SpanView(facts=facts, is_error=span.is_error)


def _line(backend: Backend, views: Sequence[SpanView], field: Field) -> Line:
    relevant = [view for view in views if has_source(view, field)]
    now = [found.value for view in relevant if (found := shown(backend, view, field)).value is not None]
    then = [shown(backend, with_additions(view, backend), field) for view in relevant]
    return Line(
        spans=views[0].facts.type,
        count=len(relevant),
        field=field,
        shown=len(now),
        shown_with_preset=sum(found.value is not None for found in then),
        example=str((now or [found.value for found in then if found.value is not None] or [""])[0])[:60],
        why=_why(backend, field),
    )


def _why(backend: Backend, field: Field) -> str:
    return backend.kind.note if field == "kind" else backend.reads[field].note


def backend_text(backend: Backend, name: str, lines: Sequence[Line]) -> str:
    """The report for a person."""
    told = [f"What {backend.title} will show of {printable(name)} ({backend.source}, {backend.as_of}):"]
    if not lines:
        return f"{told[0]}\n\nIt has no spans of model calls, flows, agents or tools.\n"
    for span_words, group in _by_spans(lines):
        told += ["", span_words]
        told += [f"  {FIELD_WORDS[line.field]:15} {printable(_said(backend, line))}" for line in group]
    return "\n".join([*told, "", *backend.notes, *([""] if backend.notes else []), _sentence(backend, lines)]) + "\n"


def _by_spans(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    for type_, words in SPAN_WORDS.items():
        group = [line for line in lines if line.spans == type_]
        if group:
            yield f"{words} ({max(line.count for line in group):,})", group


def _said(backend: Backend, line: Line) -> str:
    also = f"; {line.why}" if line.why else ""
    metric = "" if line.field == "kind" else backend.reads[line.field].metric
    if metric:
        return f"from the metric {metric}{also}"
    if line.count == 0:
        return "the file has none"
    if line.shown == line.count:
        return f"yes, {line.example}{also}" if line.field not in _UNSEEN else f"yes{also}"
    if line.shown_with_preset > line.shown:
        return (
            f"on {line.shown_with_preset:,} of {line.count:,} with preset={backend.name!r}, now on {line.shown:,}{also}"
        )
    if line.shown:
        return f"on {line.shown:,} of {line.count:,}{also}"
    return f"no{': ' + line.why if line.why else ': it reads no attribute that the spans have'}"


_UNSEEN = frozenset({"messages", "error", "user", "session"})
"""What is said without an example: it may be private, or says nothing."""


def _sentence(backend: Backend, lines: Sequence[Line]) -> str:
    """The whole in a sentence: what shows, what the preset brings, what does not show."""
    words: Mapping[str, list[str]] = {"yes": [], "preset": [], "no": []}
    for field, group in _by_field(lines):
        metric = field != "kind" and backend.reads[field].metric
        if not metric and not any(line.count for line in group):
            continue
        is_shown = metric or all(line.shown == line.count for line in group)
        gains = any(line.shown_with_preset > line.shown for line in group)
        words["yes" if is_shown else "preset" if gains else "no"].append(FIELD_WORDS[field])
    parts = [f"{backend.title} will show {', '.join(words['yes']) or 'nothing'}"]
    if words["preset"]:
        parts.append(f"with preset={backend.name!r} also {', '.join(words['preset'])}")
    if words["no"]:
        parts.append(f"not, or not everywhere, {', '.join(words['no'])}")
    return "; ".join(parts) + "."


def _by_field(lines: Sequence[Line]) -> Iterator[tuple[Field, list[Line]]]:
    for field in FIELD_WORDS:
        group = [line for line in lines if line.field == field]
        if group:
            yield field, group


def backend_json(backend: Backend, name: str, lines: Sequence[Line]) -> str:
    """The same for a script."""
    document = {
        "backend": backend.name,
        "file": name,
        "source": backend.source,
        "as_of": backend.as_of,
        "summary": _sentence(backend, lines),
        "lines": [{**asdict(line), "example": "" if line.field in _UNSEEN else line.example} for line in lines],
        "reads_metrics": sorted({read.metric for read in backend.reads.values() if read.metric}),
    }
    return json.dumps(document, indent=2) + "\n"
