"""Spans of model calls that other instrumentations make: which they are, and what their makers measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal, cast

from opentelemetry.trace import Span, get_current_span

from .instruments import is_ours
from .semconv import GEN_AI_OPERATION_NAME, TOLD_BY

MODEL_OPERATIONS = frozenset({"chat", "text_completion", "generate_content", "embeddings"})
"""The values of `gen_ai.operation.name` that call a model once."""
_OPENINFERENCE_KINDS = frozenset({"LLM", "EMBEDDING"})

Measured = Literal["nothing", "tokens", "everything"]
"""What the maker of a span measures itself, by the conventions' names: tokens, or duration, tokens and chunks."""
_MEASURED: tuple[tuple[str, Measured], ...] = (
    ("opentelemetry.instrumentation.", "everything"),  # the official ones and OpenLLMetry's
    ("opentelemetry.util.genai", "everything"),
    ("openlit", "everything"),
    ("pydantic-ai", "tokens"),
)
"""By the beginning of the instrumentation scope's name, as of 2026-11."""


_USUAL_MAPPINGS = frozenset({dict, MappingProxyType})
"""The types of a span's attributes, mostly; to ask for any mapping takes longer."""
_MOST: tuple[Measured, ...] = ("everything", "tokens")
_NAMED_BEFORE = ("openlit.",)
"""Scopes whose spans get their attributes at the end; their names begin with the operation."""
_INPUT_WITHOUT_CACHE = ("openlit.",)
"""Scopes that count the tokens of Anthropic's cache beside the input tokens, not in them."""


def most_measured(of_each: Iterable[Measured]) -> Measured:
    """What several makers of spans measure, together."""
    found = set(of_each)
    for each in _MOST:
        if each in found:
            return each
    return "nothing"


def scope_of(span: object) -> str:
    """The name of a span's instrumentation scope."""
    return getattr(getattr(span, "instrumentation_scope", None), "name", None) or ""


def is_model_span(span: object) -> bool:
    """Whether an open span is one call of a model."""
    if is_model_call(attributes_of(span)):
        return True
    is_named_before = scope_of(span).startswith(_NAMED_BEFORE)
    return is_named_before and str(getattr(span, "name", "")).partition(" ")[0] in MODEL_OPERATIONS


def has_input_without_cache(scope: str) -> bool:
    """Whether a maker of spans counts cached tokens beside the input."""
    return scope.startswith(_INPUT_WITHOUT_CACHE)


def attributes_of(span: object) -> Mapping[str, Any]:
    """The attributes of a span of the SDK; of any other none can be read."""
    found: object = getattr(span, "attributes", None)
    is_mapping = type(found) in _USUAL_MAPPINGS or isinstance(found, Mapping)
    return cast("Mapping[str, Any]", found) if is_mapping else {}


def is_model_call(attributes: Mapping[str, Any]) -> bool:
    """Whether a span with these attributes is one call of a model, by the names of any instrumentation."""
    operation = attributes.get(GEN_AI_OPERATION_NAME)
    if operation is not None:
        return operation in MODEL_OPERATIONS
    kind = attributes.get("openinference.span.kind")
    if kind is not None:
        return kind in _OPENINFERENCE_KINDS
    return not TOLD_BY.isdisjoint(attributes)


def is_own_call(span: Span) -> bool:
    """Whether an open span is one of our calls of a model."""
    return is_ours(span) and span.is_recording() and is_model_call(attributes_of(span))


def measured_by_maker(span: object) -> Measured:
    """What the maker of a span measures itself."""
    scope = scope_of(span)
    for beginning, measured in _MEASURED:
        if scope.startswith(beginning):
            return measured
    return "nothing"


def current_model_span() -> Span | None:
    """The current span where it is that of a model call and records; ours or somebody else's."""
    span = get_current_span()
    return span if span.is_recording() and is_model_span(span) else None
