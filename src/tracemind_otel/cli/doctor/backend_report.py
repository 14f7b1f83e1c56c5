"""What a backend will show of the spans of a file, and what not and why: `doctor --backend NAME`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from ...otel import semconv
from ...otel.backends.backend import Backend, Field, Read
from ...otel.backends.derived import SpanFacts, SpanType, span_type
from ...otel.backends.readings import FIELDS_OF, SpanView, has_source, shown, with_additions
from ...otel.backends.words import FIELD_WORDS, SPAN_WORDS
from ...otel.instruments import SCOPE_NAME
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
    """The span as a backend receives it; `None` for one that has nothing to do with models."""
    found = span_type(span.attributes, is_ours=span.scope == SCOPE_NAME)
    if found is None:
        return None
    facts = SpanFacts(type=found, attributes=span.attributes, started_ns=span.start_ns)
    return SpanView(facts=facts, is_error=span.is_error, name=span.name)


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
    return backend.kind.note if field == "kind" else backend.read(field).note


def backend_text(backend: Backend, name: str, lines: Sequence[Line]) -> str:
    """The report for a person."""
    told = [f"What {backend.title} will show of {printable(name)}, known from {backend.source}, {backend.as_of}:"]
    if not lines:
        return f"{told[0]}\n\nThe file has no spans of model calls, flows, agents, tools or steps.\n"
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
    elsewhere = _elsewhere(backend, line.field)
    if elsewhere:
        return elsewhere
    also = f"; {line.why}" if line.why else ""
    if line.count == 0:
        return f"none in this file{_ADVICE.get(line.field, '')}"
    if line.shown == line.count:
        return f"yes{_example(line)}{also if line.field != 'kind' else ''}"
    if line.shown_with_preset > line.shown:
        return (
            f"needs preset={backend.name!r}: now on {line.shown:,} of {line.count:,}, then on "
            f"{line.shown_with_preset:,}{also}"
        )
    if line.shown:
        return f"on {line.shown:,} of {line.count:,}{also}"
    if line.field == "kind":
        return f"no: {line.why or 'it does not tell them from other spans'}"
    return f"no: {line.why or _unread(backend.read(line.field))}"


def _example(line: Line) -> str:
    if line.field in _UNSEEN:
        return ""
    return f", {line.example}" if line.field == "kind" else f", such as {line.example}"


def _unread(read: Read) -> str:
    """What the spans would have to have."""
    advice = f"; {_SETS_CONVERSATION}" if semconv.GEN_AI_CONVERSATION_ID in read.names else ""
    return f"it reads {' or '.join(read.names)}, which these spans do not have{advice}"


def _elsewhere(backend: Backend, field: Field) -> str:
    """Where it is read, if not from spans, so that the file cannot tell whether it shows."""
    if field == "kind":
        return ""
    read = backend.read(field)
    also = f"; {read.note}" if read.note else ""
    if read.metric:
        return f"from the metric {read.metric}, of which a file of spans tells nothing{also}"
    if read.event:
        return f"from the event {read.event}, of which a file of spans tells nothing; {_SENDS_EVENTS}{also}"
    return ""


_UNSEEN = frozenset({"messages", "error", "user", "session"})
"""What is said without an example: it may be private, or says nothing."""
_SETS_CONVERSATION = "using_attributes(conversation_id=...) sets it"
_SENDS_EVENTS = "capture_content='EVENT_ONLY' sends it"
_ADVICE: Mapping[Field, str] = {
    "messages": "; capture_content=True records them",
    "session": "; using_attributes(session_id=...) sets it",
    "user": "; using_attributes(user_id=...) sets it",
    "cost": "; set_prices() sets prices",
}
"""What to do about what no span has."""


def _sentence(backend: Backend, lines: Sequence[Line]) -> str:
    """The whole in a sentence: what shows, what the preset brings, what does not show."""
    words: dict[str, list[str]] = {"yes": [], "elsewhere": [], "preset": [], "no": []}
    for field, group in _by_field(lines):
        told = [line for line in group if line.count or _elsewhere(backend, field)]
        verdicts: dict[SpanType, str] = {line.spans: _verdict(backend, line) for line in told}
        for verdict in dict.fromkeys(verdicts.values()):
            spans: list[SpanType] = [spans for spans, each in verdicts.items() if each == verdict]
            words[verdict].append(_named(field, spans, verdicts))
    parts = [f"{backend.title} will show {', '.join(words['yes']) or 'nothing'}"]
    if words["elsewhere"]:
        parts.append(f"from metrics or events {', '.join(words['elsewhere'])}")
    if words["preset"]:
        parts.append(f"with preset={backend.name!r} also {', '.join(words['preset'])}")
    if words["no"]:
        parts.append(f"not {', '.join(words['no'])}")
    return "; ".join(parts) + "."


def _verdict(backend: Backend, line: Line) -> str:
    if _elsewhere(backend, line.field):
        return "elsewhere"
    if line.shown == line.count:
        return "yes"
    return "preset" if line.shown_with_preset > line.shown else "no"


def _named(field: Field, spans: Sequence[SpanType], among: Mapping[SpanType, str]) -> str:
    """What shows, with the spans on which it does if there are others."""
    if len(spans) == len(among):
        return FIELD_WORDS[field]
    return f"{FIELD_WORDS[field]} ({', '.join(SPAN_WORDS[each] for each in spans)})"


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
