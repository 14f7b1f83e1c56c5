"""What a backend shows of a span, as it is or with the preset. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from ...flows.totals import AttributeValue
from .backend import ANY, Added, Backend, Field
from .derived import (
    CACHE_READ_TOKENS,
    CACHE_WRITE_TOKENS,
    CONTENT,
    COST,
    INPUT_TOKENS,
    MODEL,
    OUTPUT_TOKENS,
    REASONING_TOKENS,
    THREAD,
    USER,
    SpanFacts,
    SpanType,
    Value,
)

FIELDS_OF: Mapping[SpanType, tuple[Field, ...]] = {
    "flow": ("kind", "session", "user", "error"),
    "agent": ("kind", "session", "user", "error"),
    "step": ("kind", "session", "user", "error"),
    "tool": ("kind", "tool", "session", "user", "error"),
    "call": (
        "kind", "model", "input_tokens", "output_tokens", "cache_read", "cache_write", "reasoning", "cost",
        "session", "user", "messages", "error",
    ),
}  # fmt: skip
"""What there is to show of each type of span."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanView:
    """A span as a backend receives it."""

    facts: SpanFacts
    """Its type and attributes."""
    is_error: bool = False
    """Whether its status is an error."""
    name: str = ""
    """The span's name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What a backend shows in one place."""

    value: object
    """What is shown; `None` for nothing."""
    name: str = ""
    """The attribute that it comes from."""


NOTHING = Shown(value=None)


def additions(facts: SpanFacts, adds: Iterable[Added]) -> dict[str, AttributeValue]:
    """What is added to a span: only names that it lacks, and only values that it has."""
    found: dict[str, AttributeValue] = {}
    for added in adds:
        if facts.type in added.on and added.name not in facts.attributes and added.name not in found:
            value = added.value.of(facts)
            if value is not None:
                found[added.name] = value
    return found


def with_additions(view: SpanView, backend: Backend) -> SpanView:
    """The span with what the preset adds, and without what it leaves out."""
    facts = view.facts
    attributes = {**facts.attributes, **additions(facts, backend.adds + backend.adds_when_sent)}
    return replace(view, facts=replace(facts, attributes=kept(attributes, backend.leaves_out)))


def kept(attributes: Mapping[str, Any], leaves_out: tuple[str, ...]) -> dict[str, Any]:
    """The attributes without those whose names begin so."""
    return {name: value for name, value in attributes.items() if not name.startswith(leaves_out or ("\0",))}


def shown(backend: Backend, view: SpanView, field: Field) -> Shown:
    """What the backend shows of a span in one place."""
    attributes = view.facts.attributes
    if field == "kind":
        return _shown_kind(backend, attributes)
    read = backend.read(field)
    if read.status:
        return Shown(value=view.is_error or None, name="status")
    if read.span_name:
        return Shown(value=view.name or None, name="name")
    return next(_found(attributes, read.names), NOTHING)


_SOURCES: Mapping[Field, Value] = {
    "model": MODEL,
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "cache_read": CACHE_READ_TOKENS,
    "cache_write": CACHE_WRITE_TOKENS,
    "reasoning": REASONING_TOKENS,
    "cost": COST,
    "session": THREAD,
    "user": USER,
    "messages": CONTENT,
}
"""What a span itself knows, by what there is to show."""


def has_source(view: SpanView, field: Field) -> bool:
    """Whether there is something to show: a span without a user is no fault of a backend's."""
    if field == "error":
        return view.is_error
    source = _SOURCES.get(field)
    return source is None or source.of(view.facts) is not None


def _shown_kind(backend: Backend, attributes: Mapping[str, Any]) -> Shown:
    for name in backend.kind.names:
        if name in attributes:
            keys = (str(attributes[name]), f"{name}={ANY}", ANY)
            known = next((backend.kind.known[key] for key in keys if key in backend.kind.known), None)
            if known is not None:
                return Shown(value=known, name=name)
    return NOTHING


def _found(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[Shown]:
    for path in names:
        name, _, key = path.partition("#")
        value = _in_json(attributes.get(name), key) if key else attributes.get(name)
        if value is not None:
            yield Shown(value=value, name=name)


def _in_json(text: object, key: str) -> object:
    try:
        document = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return cast("dict[str, object]", document).get(key) if isinstance(document, dict) else None
