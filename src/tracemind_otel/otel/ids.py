"""The ids of a flow in OpenTelemetry: attributes of spans, entries of W3C baggage, and a `with` that sets them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from opentelemetry import baggage as otel_baggage
from opentelemetry import context as otel_context
from opentelemetry.context import Context

from ..errors import ConfigError
from ..runtime.context import Block, Entries
from ..runtime.ids import NO_IDS, Ids, checked_ids, enter_ids
from . import semconv

IdAttributes = Mapping[str, str | tuple[str, ...]]

FIELDS: Mapping[str, str] = {
    semconv.TRACEMIND_FLOW_ID: "flow_id",
    semconv.SESSION_ID: "session_id",
    semconv.GEN_AI_CONVERSATION_ID: "conversation_id",
    semconv.USER_ID: "user_id",
}
"""Attributes, and keys of baggage, and the fields of `Ids` that they hold."""


_BAGGAGE_KEYS = {*FIELDS, semconv.TRACEMIND_TAGS}


@lru_cache(maxsize=256)
def id_attributes(ids: Ids) -> IdAttributes:
    """The attributes of a span with these ids; what is not known has none."""
    attributes: dict[str, str | tuple[str, ...]] = {
        name: value for name, field in FIELDS.items() if (value := getattr(ids, field)) is not None
    }
    if ids.tags:
        attributes[semconv.TRACEMIND_TAGS] = ids.tags
    return attributes


def with_baggage(ids: Ids, context: Context) -> Context:
    """A context whose baggage has these ids, the tags as a JSON list."""
    for name, value in id_attributes(ids).items():
        text = value if isinstance(value, str) else json.dumps(value)
        context = otel_baggage.set_baggage(name, text, context)
    return context


def without_baggage(context: Context) -> Context:
    """The context without the ids in its baggage: they are no business of a model's provider."""
    for name in otel_baggage.get_all(context).keys() & _BAGGAGE_KEYS:
        context = otel_baggage.remove_baggage(name, context)
    return context


class using_attributes(Block[None]):  # noqa: N801  a function to whoever uses it
    """Set ids once, for every span and log in a `with` block: those of model calls, of flows and of other libraries.

    Inside another one the inner ids win, and tags are added. They go along in tasks and `asyncio.to_thread`, in other
    threads by `carry_context`, and to other processes by `inject_context`.

    Args:
        flow_id: `tracemind.flow.id`, the run of a flow as you number it.
        session_id: `session.id`.
        conversation_id: `gen_ai.conversation.id`.
        user_id: `user.id`.
        tags: `tracemind.tags`, words to search by.
        baggage: put them into the W3C baggage too, so that every instrumented HTTP client sends them along. The
            requests of model calls never carry them.

    Raises:
        ConfigError: nothing is set, or an id is no text of 1 to 256 characters; the message names it.

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
        self._ids = checked_ids(
            flow_id=flow_id, session_id=session_id, conversation_id=conversation_id, user_id=user_id, tags=tags
        )
        if self._ids == NO_IDS:
            raise ConfigError("nothing is set; pass flow_id, session_id, conversation_id, user_id or tags")
        self._is_baggage = baggage
        self._entries = Entries()

    def _enter(self) -> None:
        if self._is_baggage:
            context = with_baggage(self._ids, otel_context.get_current())
            self._entries.add(enter_ids(self._ids), otel_context.attach(context))
        else:
            self._entries.add(enter_ids(self._ids))

    def _leave(self, exc: BaseException | None) -> None:
        self._entries.leave()
