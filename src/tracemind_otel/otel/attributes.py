"""OpenTelemetry's context, and the ids of a flow in it: attributes of spans, entries of W3C baggage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from types import TracebackType
from urllib.parse import quote_plus

from opentelemetry import baggage as otel_baggage
from opentelemetry import context as otel_context
from opentelemetry.context import Context

from .._base.context import Block, Entries, Setting
from .._base.fork import in_forked_child
from ..flows.correlation import (
    Correlation,
    current_correlation,
    enter_correlation,
    hide_with,
    reject_wrong_types,
    usable_correlation,
)
from . import semconv


def attach(context: Context) -> Setting:
    """Make a context current until the setting is undone."""
    return Setting(otel_context.attach(context), context)


class Attached(AbstractContextManager[object]):
    """Makes a context current, for a body that runs in one task."""

    __slots__ = ("_context", "_setting")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._setting = attach(self._context)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._setting.undo()


IdAttributes = Mapping[str, str | tuple[str, ...]]

FIELDS: Mapping[str, str] = {
    semconv.TRACEMIND_FLOW_ID: "flow_id",
    semconv.SESSION_ID: "session_id",
    semconv.GEN_AI_CONVERSATION_ID: "conversation_id",
    semconv.USER_ID: "user_id",
}
"""The fields of `Correlation` by attribute name, which is the key in baggage too."""


_GO_ALONG = otel_context.create_key("tracemind-ids-in-baggage")
"""True in a context whose baggage gets the ids. Entries of the same names may be the application's own."""
_BAGGAGE_KEYS = {*FIELDS, semconv.TRACEMIND_TAGS}
_MAX_TAGS_LENGTH = 4000
"""Characters of the tags in baggage: OpenTelemetry drops an entry of more than 4,096."""


@lru_cache(maxsize=256)
def correlation_attributes(ids: Correlation) -> IdAttributes:
    """The attributes of a span with these ids; an absent id has none."""
    attributes: dict[str, str | tuple[str, ...]] = {
        name: value for name, field in FIELDS.items() if (value := getattr(ids, field)) is not None
    }
    if ids.tags:
        attributes[semconv.TRACEMIND_TAGS] = ids.tags
    return attributes


def with_baggage(ids: Correlation, context: Context) -> Context:
    """A context whose baggage has these ids, the tags as a JSON list, before all other entries.

    A header that gets too long loses what comes last (W3C Baggage, "Limits").
    """
    own = {
        name: value if isinstance(value, str) else _tags_text(value)
        for name, value in correlation_attributes(ids).items()
    }
    entries = own | {name: value for name, value in otel_baggage.get_all(context).items() if name not in own}
    context = otel_context.set_value(_GO_ALONG, True, otel_baggage.clear(context))
    for name, value in entries.items():
        context = otel_baggage.set_baggage(name, value, context)
    return context


def _tags_text(tags: tuple[str, ...]) -> str:
    """The tags as JSON, as many as one entry may hold; without spaces, which some readers do not decode."""
    while True:
        text = json.dumps(tags, ensure_ascii=False, separators=(",", ":"))
        if len(quote_plus(text)) <= _MAX_TAGS_LENGTH:
            return text
        tags = tags[:-1]


def with_same_baggage(ids: Correlation, context: Context) -> Context:
    """The context with these ids in its baggage, if its baggage gets the ids."""
    return with_baggage(ids, context) if ids_go_along(context) else context


def ids_go_along(context: Context) -> bool:
    """Whether the baggage of a context gets the ids."""
    return otel_context.get_value(_GO_ALONG, context) is True


def without_baggage(context: Context) -> Context:
    """The context without ids in its baggage, also those of other libraries."""
    for name in otel_baggage.get_all(context).keys() & _BAGGAGE_KEYS:
        context = otel_baggage.remove_baggage(name, context)
    return context


def without_ids(context: Context) -> Context:
    """The context with no id in its baggage, and none that is set in it added later."""
    if not context or (not otel_baggage.get_all(context) and not ids_go_along(context)):
        return context
    return otel_context.set_value(_GO_ALONG, False, without_baggage(context))


def attach_baggage(context: Context) -> tuple[Setting, Setting]:
    """Make a context current whose baggage may have ids; model calls leave them out."""
    return attach(context), hide_with(lambda: Attached(without_ids(otel_context.get_current())))


in_forked_child(lambda: otel_context.attach(without_ids(otel_context.get_current())))


class using_attributes(Block[None]):  # noqa: N801  used like a function
    """Set ids once, for every span and log in a `with` block: those of model calls, of flows and of other libraries.

    Inside another one the inner ids win, and tags are added. They go along in tasks and `asyncio.to_thread`, in other
    threads by `carry_context`, and to other processes by `inject_context`.

    Args:
        flow_id: `tracemind.flow.id`, the run of a flow as you number it.
        session_id: `session.id`.
        conversation_id: `gen_ai.conversation.id`.
        user_id: `user.id`.
        tags: `tracemind.tags`, words to search by.
        baggage: put them into the W3C baggage too, with those already set, so that every instrumented HTTP
            client sends them along. The requests of model calls never carry them.

    An id of `None` is not set. One that is empty, longer than 256 characters or unprintable comes from the data, so it
    is left out and the log says so, instead of failing the request.

    Raises:
        ConfigError: an id is not a string; the message names it.

    Example:
        >>> with using_attributes(session_id="s-17", tags=["beta"]):
        ...     pass
    """

    __slots__ = ("_entries", "_ids", "_is_baggage")

    def __init__(
        self,
        *,
        flow_id: str | None = None,
        session_id: str | None = None,
        conversation_id: str | None = None,
        user_id: str | None = None,
        tags: Sequence[str] = (),
        baggage: bool = False,
    ) -> None:
        values: dict[str, object] = {
            "flow_id": flow_id,
            "session_id": session_id,
            "conversation_id": conversation_id,
            "user_id": user_id,
            "tags": tags,
        }
        reject_wrong_types(values)
        self._ids = usable_correlation("using_attributes", values)
        self._is_baggage = baggage
        self._entries = Entries()

    def _enter(self) -> None:
        setting = enter_correlation(self._ids)
        context = otel_context.get_current()
        put = with_baggage if self._is_baggage else with_same_baggage
        changed = put(current_correlation(), context)
        if changed is context:
            self._entries.add(setting)
        else:
            self._entries.add(setting, *attach_baggage(changed))

    def _leave(self, exc: BaseException | None) -> None:
        self._entries.leave()
