"""A row of the table of backends: what one reads, what its preset adds, how it is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from .derived import SpanType, Value

Field = Literal[
    "kind", "model", "input_tokens", "output_tokens", "cache_read", "cache_write", "reasoning",
    "cost", "session", "user", "messages", "tool", "error",
]  # fmt: skip
"""What a backend may show of a span."""


ANY = "*"
"""In `KindRead.known`: any value of the attribute; `name=*` is any value of the attribute of that name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """Where a backend finds one thing that it shows."""

    names: tuple[str, ...] = ()
    """Attributes, of which the first that the span has is shown; `name#key` is a key of an attribute's JSON."""
    status: bool = False
    """Whether it is the span's status."""
    span_name: bool = False
    """Whether it is the span's name."""
    event: str = ""
    """The event of the logs signal from which it is shown, where spans have no say."""
    metric: str = ""
    """The metric from which it is shown, where spans have no say."""
    note: str = ""
    """Why it is not shown, or what else it takes."""


_UNSAID = Read(note="nothing is known of it")


@dataclass(frozen=True, kw_only=True, slots=True)
class KindRead:
    """How a backend finds out what a span is."""

    names: tuple[str, ...]
    """Attributes, of which the first whose value is known decides."""
    known: Mapping[str, str]
    """What the backend calls a span, by the attribute's value."""
    note: str = ""
    """What else is to be known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """An attribute that a preset adds, unless the span has it."""

    name: str
    """The attribute."""
    value: Value
    """Its value."""
    on: tuple[SpanType, ...] = ("call",)
    """The spans that get it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """What a preset does only if it is asked for by `name+option`."""

    adds: tuple[Added, ...]
    """What is added besides."""
    reads: Mapping[Field, Read]
    """What shows then, and from where."""
    why: str
    """Why it has to be asked for, as a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backend:
    """A backend, what it reads, and what a preset does for it."""

    name: str
    """The name of the preset."""
    title: str
    """The name in documentation and messages."""
    reads: Mapping[Field, Read]
    """Where it finds what it shows; what is missing does not show."""
    kind: KindRead
    """How it finds out what a span is."""
    adds: tuple[Added, ...] = ()
    """What the preset adds; empty where nothing is needed."""
    adds_when_sent: tuple[Added, ...] = ()
    """What only the spans that are sent there get, since others would count it twice. A file does not have it."""
    names_reasons: bool = False
    """Whether an attempt without an HTTP status is sent under a name that says why it failed.

    For a list of spans that shows names and HTTP statuses, and nothing else that would tell it.
    """
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    """What it does only on request, by name: `azure+users` is the preset `azure` with its option `users`."""
    leaves_out: tuple[str, ...] = ()
    """Beginnings of the names of attributes that are not sent there."""
    resource: tuple[str, ...] = ()
    """Attributes of the resource that get the value of `service.name`."""
    endpoint: str
    """The form of the address."""
    headers: tuple[tuple[str, str], ...] = ()
    """Headers that the user sets, with placeholders."""
    own_headers: tuple[tuple[str, str], ...] = ()
    """Headers that the preset sets."""
    is_http_only: bool = False
    """Whether it takes OTLP over HTTP but not over gRPC."""
    takes_metrics: bool = True
    """Whether its address takes metrics."""
    temporality: Literal["delta", "cumulative"] | None = None
    """The temporality that its metrics need."""
    metrics: tuple[str, ...] = ()
    """The metrics that it reads by their names. They are sent even where only newer names were opted in to."""
    has_token_types: bool = False
    """Whether its token metric needs cached and reasoning tokens as types."""
    notes: tuple[str, ...] = ()
    """What a reader should know besides, each a sentence."""
    source: str
    """How this is known: the backend's source, its documentation, or a run."""
    as_of: str
    """The day or month for which it holds."""

    def read(self, field_: Field) -> Read:
        """Where it finds one thing."""
        return self.reads.get(field_, _UNSAID)

    def with_option(self, name: str) -> Backend:
        """The same with one of its options."""
        option = self.options[name]
        return replace(
            self, name=f"{self.name}+{name}", adds=self.adds + option.adds, reads={**self.reads, **option.reads}
        )
