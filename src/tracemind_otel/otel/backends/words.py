"""The table of backends in words: for the documentation and for `doctor`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .. import semconv
from .backend import Added, Backend, Field, Read
from .derived import SpanFacts, SpanType
from .readings import SpanView, shown, with_additions
from .rows import BACKENDS

FIELD_WORDS: Mapping[Field, str] = {
    "kind": "kind of span",
    "model": "model",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "cache_read": "cache reads",
    "cache_write": "cache writes",
    "reasoning": "reasoning",
    "cost": "cost",
    "session": "session",
    "user": "user",
    "messages": "messages",
    "tool": "tool",
    "error": "errors",
}
"""How each thing is called."""
SPAN_WORDS: Mapping[SpanType, str] = {
    "flow": "flows",
    "agent": "agents",
    "tool": "tools",
    "step": "steps",
    "call": "model calls",
}
"""How each type of span is called, in the plural."""

_COLUMNS: Mapping[str, tuple[Field, ...]] = {
    "flows": (),
    "model": ("model",),
    "tokens": ("input_tokens", "output_tokens"),
    "cached tokens": ("cache_read", "cache_write"),
    "reasoning": ("reasoning",),
    "cost": ("cost",),
    "session": ("session",),
    "user": ("user",),
    "messages": ("messages",),
    "tool": ("tool",),
    "errors": ("error",),
}
_LEGEND = """\
- `✓`: it shows without a preset
- `+`: it shows because the preset adds what the backend reads
- `m`: it is read from a metric
- `e`: it is read from an event; pass `capture_content="EVENT_ONLY"` or `"SPAN_AND_EVENT"`
- `–`: it does not show; the section of the backend says why

Where two marks stand, the first is for input tokens or cache reads and the second for output tokens or cache writes.
Messages show only if you [capture content](how-to/content.md)."""


_INTRODUCTION = """\
# Backends

<!-- Generated from otel/backends/rows.py by `python -m tests.backends_page`; a test holds both equal. -->

Backends read different attributes. A preset adds to each span those that yours reads, with our cost and our counts, so
that a call looks the same everywhere:

```python
import tracemind_otel as tm

tm.configure(preset="jaeger,phoenix", file="trace.jsonl").shutdown()
```

`TRACEMIND_PRESET` does the same without code. Spans of other instrumentations get the attributes too. What a span has
stays as it is. Without a preset nothing is added. A preset sends nothing anywhere: endpoint and headers stay yours.
Some presets have an option, which you add to their name: `azure+users`.

Each section below has the lines to set in the environment. Words in capitals are yours to fill in, and `BASE64(a:b)`
stands for the output of `printf %s a:b | base64`. In headers `%20` is a space.

The presets of one `configure()` share one address, usually a Collector's. Metrics are not sent if none of the backends
takes any, unless `OTEL_METRICS_EXPORTER` or `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` is set.

Some presets change only what is sent: they leave attributes out, or add sums of a flow under names that other backends
would add to the calls below. A file and the spans themselves do not change. If several presets share the address, an
attribute is left out only if all of them leave it out, and sums are not added; the log says so. The backends behind a
Collector share an address too, so name each of them in `preset`. With a tracer provider of your own nothing of this
happens, since `configure()` sends no spans then; the log says what to do there.

`tracemind-otel doctor --backend NAME FILE` says what a backend will show of a file of yours, and why not the rest.

## What each backend shows
"""
_OWN = f"""\
## Adding a backend

A backend is a row: a `Backend` that says what it reads and what is to be added. A package of yours adds one by an entry
point, whose name is the name of the preset:

```text
[project.entry-points."tracemind_otel.presets"]
acme = "acme_telemetry:BACKEND"
```

```python
from tracemind_otel.otel.backends import Added, Backend, KindRead, Read, copied

BACKEND = Backend(
    name="acme",
    title="Acme Traces",
    kind=KindRead(names=("{semconv.GEN_AI_OPERATION_NAME}",), known={{"chat": "model call", "execute_tool": "tool"}}),
    reads={{
        "model": Read(names=("{semconv.GEN_AI_REQUEST_MODEL}",)),
        "cost": Read(names=("acme.price",)),
        "user": Read(note="it has no view of users"),
    }},
    adds=(Added(name="acme.price", value=copied("{semconv.GEN_AI_USAGE_COST}")),),
    endpoint="https://otlp.acme.example",
    source="its documentation",
    as_of="2026-11",
)
```

`configure(preset="acme")` and `doctor --backend acme` then work as above. The rows of this page are in
`tracemind_otel.otel.backends.rows`.
"""


def backends_page() -> str:
    """The page docs/backends.md, whole."""
    return "\n".join(
        [_INTRODUCTION, *_table(BACKENDS.values()), "", _LEGEND, "", *map(backend_section, BACKENDS.values()), _OWN]
    )


def _table(backends: Iterable[Backend]) -> Iterator[str]:
    yield f"| preset | backend | {' | '.join(_COLUMNS)} | as of |"
    yield "|" + "---|" * (len(_COLUMNS) + 3)
    for backend in backends:
        cells = [_cell(backend, fields) for fields in _COLUMNS.values()]
        link = f"[`{backend.name}`](#{_anchor(backend.title)})"
        yield f"| {link} | {backend.title} | {' | '.join(cells)} | {backend.as_of} |"


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -")
    return "-".join(kept.split())


def _cell(backend: Backend, fields: tuple[Field, ...]) -> str:
    marks = [mark_of(backend, field) for field in fields] or [_mark_of_flow(backend)]
    return marks[0] if len(set(marks)) == 1 else " ".join(marks)


def _mark_of_flow(backend: Backend) -> str:
    """How the table marks whether the backend knows what a flow is."""
    flow = SpanView(facts=SpanFacts(type="flow", attributes={semconv.GEN_AI_OPERATION_NAME: semconv.INVOKE_WORKFLOW}))
    if shown(backend, flow, "kind").value is not None:
        return "✓"
    return "+" if shown(backend, with_additions(flow, backend), "kind").value is not None else "–"


def mark_of(backend: Backend, field: Field) -> str:
    """How the table marks what a backend shows."""
    read = backend.read(field)
    if read.metric or read.event:
        return "m" if read.metric else "e"
    if read.status or read.span_name:
        return "✓"
    if not read.names:
        return "–"
    view = _SAMPLES["tool" if field == "tool" else "call"]
    if shown(backend, view, field).value is not None:
        return "✓"
    return "+" if shown(backend, with_additions(view, backend), field).value is not None else "–"


_SAMPLES: Mapping[SpanType, SpanView] = {
    "call": SpanView(
        facts=SpanFacts(
            type="call",
            attributes={
                semconv.GEN_AI_OPERATION_NAME: "chat",
                semconv.GEN_AI_PROVIDER_NAME: "openai",
                semconv.GEN_AI_REQUEST_MODEL: "gpt-4o",
                semconv.GEN_AI_RESPONSE_MODEL: "gpt-4o",
                semconv.GEN_AI_USAGE_INPUT_TOKENS: 30,
                semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 20,
                semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 10,
                semconv.GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS: 5,
                semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 5,
                semconv.TRACEMIND_COST_USD: 0.1,
                semconv.GEN_AI_USAGE_COST: 0.1,
                semconv.SESSION_ID: "s",
                semconv.USER_ID: "u",
                semconv.GEN_AI_INPUT_MESSAGES: '[{"role":"user","parts":[{"type":"text","content":"a"}]}]',
                semconv.GEN_AI_OUTPUT_MESSAGES: '[{"role":"assistant","parts":[{"type":"text","content":"b"}]}]',
            },
        )
    ),
    "tool": SpanView(
        facts=SpanFacts(
            type="tool",
            attributes={semconv.GEN_AI_OPERATION_NAME: semconv.EXECUTE_TOOL, semconv.GEN_AI_TOOL_NAME: "look_up"},
        ),
        name="execute_tool look_up",
    ),
}
"""Spans as ours are without a preset, with all that a call or a tool may have."""


def backend_section(backend: Backend) -> str:
    """What the page says of one backend: the lines to set, what shows, what does not and why, what the preset adds."""
    return "\n".join([f"## {backend.title}", "", *_section(backend)])


def _section(backend: Backend) -> Iterator[str]:
    yield from _three_lines(backend)
    yield from _shown(backend)
    yield from _not_shown(backend)
    yield from _notes(backend)


def _three_lines(backend: Backend) -> Iterator[str]:
    yield "```text"
    yield f"OTEL_EXPORTER_OTLP_ENDPOINT={backend.endpoint}"
    if backend.headers:
        yield f"OTEL_EXPORTER_OTLP_HEADERS={','.join(f'{name}={value}' for name, value in backend.headers)}"
    yield f"TRACEMIND_PRESET={backend.name}"
    yield "```"
    yield ""


def _shown(backend: Backend) -> Iterator[str]:
    yield "Shows:"
    yield ""
    kinds = ", ".join(dict.fromkeys(backend.kind.known.values())) or "none"
    yield f"- kinds of span: {kinds}{_also(backend.kind.note)}"
    for field, words in FIELD_WORDS.items():
        if field == "kind" or mark_of(backend, field) == "–":
            continue
        yield f"- {words}: {_source(backend.read(field))}{_also(backend.read(field).note)}"
    yield ""


def _source(read: Read) -> str:
    if read.metric:
        return f"the metric `{read.metric}`"
    if read.event:
        return f"the event `{read.event}`"
    if read.status or read.span_name:
        return "the span's status" if read.status else "the span's name"
    return ", else ".join(f"`{_path(path)}`" for path in read.names)


def _path(path: str) -> str:
    name, _, key = path.partition("#")
    return f"{name}` with the key `{key}" if key else name


def _also(note: str) -> str:
    return f"; {note}" if note else ""


def _not_shown(backend: Backend) -> Iterator[str]:
    missing: list[Field] = [field for field in FIELD_WORDS if field != "kind" and mark_of(backend, field) == "–"]
    if missing:
        yield "Does not show:"
        yield ""
        yield from (f"- {FIELD_WORDS[field]}: {backend.read(field).note}" for field in missing)
        yield ""


def _added(backend: Backend) -> Iterator[str]:
    if not backend.adds:
        yield "The preset adds no attribute."
    else:
        yield "The preset adds, unless the span has it:"
        yield from _list_of(backend.adds)
    if backend.adds_when_sent:
        yield "Only what `configure()` sends gets these, and only if no other preset shares the address:"
        yield from _list_of(backend.adds_when_sent)


def _list_of(adds: Iterable[Added]) -> Iterator[str]:
    yield ""
    for added in adds:
        yield f"- `{added.name}`, on {', '.join(SPAN_WORDS[span] for span in added.on)}: {added.value.says}"
    yield ""


def _metrics(backend: Backend) -> Iterator[str]:
    read = _listed(f"`{name}`" for name in backend.metrics)
    yield f"It reads {read}, which the preset sends even if you opted in to newer names of metrics only."
    if backend.has_token_types:
        yield f"Its preset gives `{semconv.METRIC_TOKEN_USAGE}` the types of cached and reasoning tokens too."


def _listed(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _notes(backend: Backend) -> Iterator[str]:
    yield from _added(backend)
    for name, option in backend.options.items():
        added = _listed(f"`{each.name}` ({each.value.says})" for each in option.adds)
        yield f"The preset `{backend.name}+{name}` also adds {added}. {option.why}"
    if backend.leaves_out:
        yield f"It leaves out {', '.join(f'`{name}*`' for name in backend.leaves_out)} of what is sent there."
    if backend.names_reasons:
        yield "What is sent names an attempt that got no HTTP status with its reason, such as `attempt 1: timeout`."
    if backend.own_headers:
        yield f"It sets the header {', '.join(f'`{name}: {value}`' for name, value in backend.own_headers)}."
    if backend.temporality:
        yield f"It sends metrics with {backend.temporality} temporality."
    if backend.metrics:
        yield from _metrics(backend)
    if backend.resource:
        yield f"It sets {', '.join(f'`{name}`' for name in backend.resource)} of the resource to the service's name."
    yield from backend.notes
    yield f"Source: {backend.source}, {backend.as_of}."
    yield ""
