"""From one process to another by W3C headers: `traceparent`, `tracestate` and `baggage`.

The trace and the ids travel, and whatever baggage the application set itself; prompts, arguments, results, keys and
attributes of flows never do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Protocol, cast, overload

from opentelemetry import baggage as otel_baggage
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import INVALID_SPAN, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .._base.context import Block, Entries
from .._base.fork import in_forked_child
from ..errors import ConfigError
from ..flows.correlation import Correlation, current_correlation, enter_correlation, usable_correlation
from . import semconv
from .attributes import FIELDS, attach_baggage, ids_go_along, with_baggage, without_baggage
from .instruments import is_ours

log = logging.getLogger(__name__)

_MAX_HEADER_LENGTH = 8192
"""Characters (W3C Baggage, "Limits")."""

_TRACE = TraceContextTextMapPropagator()
_BAGGAGE = W3CBaggagePropagator()


@overload
def inject_context(headers: None = None) -> dict[str, str]: ...
@overload
def inject_context(headers: MutableMapping[str, str]) -> MutableMapping[str, str]: ...
def inject_context(headers: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Headers with which another process of yours continues this trace, with the ids that hold here.

    They are plain text, for a message, a job, a command line or an environment variable (as JSON). All ids go along,
    so hand them to nobody to whom a user's id is no business.

    Args:
        headers: a mapping to add them to; the default is a new one.

    Returns:
        The mapping, with `traceparent` and, where there is any, `tracestate` and `baggage`.

    Example:
        >>> inject_context({"content-type": "application/json"})
        {'content-type': 'application/json'}
    """
    carrier: MutableMapping[str, str] = {} if headers is None else headers
    context = with_baggage(current_correlation(), otel_context.get_current())
    _TRACE.inject(carrier, context)
    _BAGGAGE.inject(carrier, context)
    return carrier


class HasItems(Protocol):
    """Headers as werkzeug, `http.client` and others have them."""

    def items(self) -> Iterable[tuple[Any, Any]]:
        """The names and values."""
        ...


Headers = HasItems | Iterable[tuple[str | bytes, Any]] | None
"""The headers of a request or a message, as frameworks have them."""

_Pairs = Sequence[tuple[Any, Any]]


class continue_trace(Block[None]):  # noqa: N801  a function to whoever uses it
    """Continue the trace of another process in a `with` block, with the ids that it handed over.

    Where a span of that very trace is current already, because a server's instrumentation has read the headers, it
    stays the parent, and only the ids are taken. A header that cannot be read is ignored.

    Args:
        headers: what `inject_context` made, or the headers of a request or a message, as frameworks have them: a
            mapping, an object with `items()`, pairs of strings or bytes (gRPC, Kafka), or `None`. Names in any case.
        baggage: put the ids into the W3C baggage, as `using_attributes(baggage=True)` does; else only
            `inject_context` hands them on.

    Raises:
        ConfigError: the headers are something else.

    Example:
        >>> with continue_trace({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}):
        ...     pass
    """

    __slots__ = ("_entries", "_headers", "_is_baggage")

    def __init__(self, headers: Headers, *, baggage: bool = False) -> None:
        self._headers = _pairs_of(headers)
        self._is_baggage = baggage
        self._entries = Entries()

    def _enter(self) -> None:
        context = _with_parent(self._headers, otel_context.get_current())
        handed_over = _BAGGAGE.extract(self._headers, Context(), _ANY_CASE)
        setting = enter_correlation(_ids_in(handed_over))
        for name, value in otel_baggage.get_all(without_baggage(handed_over)).items():
            context = otel_baggage.set_baggage(name, value, context)
        if self._is_baggage or ids_go_along(context):
            context = with_baggage(current_correlation(), context)
        self._entries.add(*attach_baggage(context), setting)

    def _leave(self, exc: BaseException | None) -> None:
        self._entries.leave()


def _leave_flow_of_parent() -> None:
    """In a forked child: a decorator's span is its parent's, and long over when a pool's worker gets its second job."""
    if is_ours(get_current_span()):
        otel_context.attach(set_span_in_context(INVALID_SPAN))


in_forked_child(_leave_flow_of_parent)


def _with_parent(headers: _Pairs, context: Context) -> Context:
    """The context below the span that handed over, unless a span of that trace is current already."""
    handed_over = _TRACE.extract(headers, context, _ANY_CASE)
    here, there = (get_current_span(each).get_span_context() for each in (context, handed_over))
    return context if here.trace_id == there.trace_id else handed_over


def _ids_in(context: Context) -> Correlation:
    """The ids in a context's baggage; what is none is left out, since anybody may have sent it."""
    values: dict[str, object] = {field: otel_baggage.get_baggage(name, context) for name, field in FIELDS.items()}
    values["tags"] = _tags(otel_baggage.get_baggage(semconv.TRACEMIND_TAGS, context))
    return usable_correlation("continue_trace", values)


def _tags(text: object) -> object:
    if not isinstance(text, str):
        return ()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _pairs_of(headers: Any) -> _Pairs:
    """The names and values of headers, whatever holds them."""
    if headers is None:
        return ()
    try:
        items: Any = headers.items() if hasattr(headers, "items") else headers
        return [(name, value) for name, value in items]
    except (TypeError, ValueError):
        raise ConfigError(
            f"headers is {type(headers).__name__}; it must be a mapping of names to values, or pairs of them"
        ) from None


class _AnyCase(Getter[_Pairs]):
    """Reads headers whatever the case of their names, and one that comes in parts as a whole.

    Brokers hand over bytes. What is no header is none: OpenTelemetry would write it into its log, line breaks and all.
    """

    def get(self, carrier: _Pairs, key: str) -> list[str] | None:
        parts = [text for name, value in carrier if (_text(name) or "").lower() == key for text in _texts(value)]
        value = ",".join(parts)
        if key == "baggage":
            value = _without_properties(value)
        if value.isprintable() and len(value) <= _MAX_HEADER_LENGTH:
            return [value] if value else None
        log.debug("header %s of %d characters is ignored: it is too long, or not printable", key, len(value))
        return None

    def keys(self, carrier: _Pairs) -> list[str]:
        return [text for name, _ in carrier if (text := _text(name)) is not None]


def _without_properties(baggage: str) -> str:
    """Properties stand behind a semicolon and are no part of a value (W3C Baggage, "property")."""
    return ",".join(entry.partition(";")[0] for entry in baggage.split(","))


def _texts(value: object) -> list[str]:
    """The strings of a header: some frameworks have a list of values for each name."""
    values = cast("Sequence[object]", value) if isinstance(value, list | tuple) else [value]
    return [text for each in values if (text := _text(each)) is not None]


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


_ANY_CASE = _AnyCase()
