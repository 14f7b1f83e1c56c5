"""Carries a trace to another process by W3C headers: `traceparent`, `tracestate` and `baggage`.

The trace and its ids go along, with the application's own baggage. Prompts, arguments, results, keys and attributes of
flows never do.
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
_READ = ("traceparent", "tracestate", "baggage")

_TRACE = TraceContextTextMapPropagator()
_BAGGAGE = W3CBaggagePropagator()


@overload
def inject_context(headers: None = None) -> dict[str, str]: ...
@overload
def inject_context(headers: MutableMapping[str, str]) -> MutableMapping[str, str]: ...
def inject_context(headers: MutableMapping[str, str] | None = None) -> MutableMapping[str, str]:
    """Headers with which another process of yours continues this trace, with the ids that hold here.

    They are strings, for a message, a job, a command line or an environment variable (as JSON). They hold all ids, so
    send them only to those who may see a user's id.

    Args:
        headers: a mapping to add them to; the default is a new one.

    Returns:
        The mapping, with `traceparent` and, if there are any, `tracestate` and `baggage`.

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
    """The headers of werkzeug, `http.client` and others."""

    def items(self) -> Iterable[tuple[Any, Any]]:
        """The names and values."""
        ...


Headers = HasItems | Iterable[tuple[str | bytes, Any]] | None
"""The headers of a request or a message, in the forms that frameworks use."""


class continue_trace(Block[None]):  # noqa: N801  used like a function
    """Continue the trace of another process in a `with` block, with the ids that it sent.

    If a server's instrumentation has read the headers already, a span of that trace is current: it stays the parent,
    and only the ids are read. A header that cannot be read is ignored.

    Args:
        headers: what `inject_context` made, or the headers of a request or a message: a mapping, an object with
            `items()`, pairs of strings or bytes (gRPC, Kafka), or `None`. The case of their names does not matter.
        baggage: put the ids into the W3C baggage, as `using_attributes(baggage=True)` does; otherwise only
            `inject_context` sends them on.

    Raises:
        ConfigError: the headers are something else.

    Example:
        >>> with continue_trace({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}):
        ...     pass
    """

    __slots__ = ("_entries", "_headers", "_is_baggage")

    def __init__(self, headers: Headers, *, baggage: bool = False) -> None:
        self._headers = _carrier(headers)
        self._is_baggage = baggage
        self._entries = Entries()

    def _enter(self) -> None:
        context = _with_parent(self._headers, otel_context.get_current())
        handed_over = _BAGGAGE.extract(self._headers, Context())
        setting = enter_correlation(_ids_in(handed_over))
        for name, value in otel_baggage.get_all(without_baggage(handed_over)).items():
            context = otel_baggage.set_baggage(name, value, context)
        if self._is_baggage or ids_go_along(context):
            context = with_baggage(current_correlation(), context)
        self._entries.add(*attach_baggage(context), setting)

    def _leave(self, exc: BaseException | None) -> None:
        self._entries.leave()


def _leave_flow_of_parent() -> None:
    """In a forked child: a decorator's span is its parent's, and has ended when a pool's worker gets its second job."""
    if is_ours(get_current_span()):
        otel_context.attach(set_span_in_context(INVALID_SPAN))


in_forked_child(_leave_flow_of_parent)


def _with_parent(headers: dict[str, str], context: Context) -> Context:
    """The context below the span that handed over, unless a span of that trace is current already."""
    handed_over = _TRACE.extract(headers, context)
    here, there = (get_current_span(each).get_span_context() for each in (context, handed_over))
    return context if here.trace_id == there.trace_id else handed_over


def _ids_in(context: Context) -> Correlation:
    """The ids in a context's baggage, without invalid ones: anybody may have sent it."""
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


def _carrier(headers: Any) -> dict[str, str]:
    """The headers that are read here, by their names in lower case. One that comes in parts is put together."""
    parts: dict[str, list[str]] = {name: [] for name in _READ}
    for name, value in _pairs_of(headers):
        parts.get((_text(name) or "").lower(), []).extend(_texts(value))
    whole = {name: ",".join(texts) for name, texts in parts.items()}
    # Properties stand behind a semicolon and are not part of a value (W3C Baggage, "property").
    whole["baggage"] = ",".join(entry.partition(";")[0] for entry in whole["baggage"].split(","))
    return {name: value for name, value in whole.items() if value and _is_header(name, value)}


def _pairs_of(headers: Any) -> Sequence[tuple[Any, Any]]:
    if headers is None:
        return ()
    try:
        items: Any = headers.items() if hasattr(headers, "items") else headers
        return [(name, value) for name, value in items]
    except (TypeError, ValueError):
        raise ConfigError(
            f"headers is {type(headers).__name__}; it must be a mapping of names to values, or pairs of them"
        ) from None


def _is_header(name: str, value: str) -> bool:
    """Whether OpenTelemetry may read it: what it cannot read it writes into its log, line breaks and all."""
    if value.isprintable() and len(value) <= _MAX_HEADER_LENGTH:
        return True
    log.debug("header %s of %d characters is ignored: it is too long, or not printable", name, len(value))
    return False


def _texts(value: object) -> list[str]:
    """The strings of a header: some frameworks have a list of values for each name."""
    values = cast("Sequence[object]", value) if isinstance(value, list | tuple) else [value]
    return [text for each in values if (text := _text(each)) is not None]


def _text(value: object) -> str | None:
    """A name or a value as a string; brokers hand over bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None
