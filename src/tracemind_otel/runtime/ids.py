"""Who and what the calls are made for: set once, found by everything below.

Kept in a context variable, so that they follow `asyncio` tasks and `asyncio.to_thread` by themselves, and other
threads by `carry_context`.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..errors import ConfigError
from .faults import report_fault

log = logging.getLogger(__name__)

MAX_LENGTH = 256
"""Characters of one id or tag: what is longer is no id, and would not fit into a baggage header."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ids:
    """What is known; `None` for what is not."""

    flow_id: str | None = None
    """The run of a flow, as the caller numbers it."""
    session_id: str | None = None
    """A visit of a user (`session.id`)."""
    conversation_id: str | None = None
    """A conversation, where the provider or the application keeps one (`gen_ai.conversation.id`)."""
    user_id: str | None = None
    """The user (`user.id`)."""
    tags: tuple[str, ...] = ()
    """Words to search by."""

    def below(self, outer: Ids) -> Ids:
        """These inside others: what is set here wins, and tags are added to the outer ones."""
        if outer is NO_IDS:
            return self
        return Ids(
            flow_id=self.flow_id or outer.flow_id,
            session_id=self.session_id or outer.session_id,
            conversation_id=self.conversation_id or outer.conversation_id,
            user_id=self.user_id or outer.user_id,
            tags=tuple(dict.fromkeys((*outer.tags, *self.tags))),
        )


NO_IDS = Ids()

_current: contextvars.ContextVar[Ids] = contextvars.ContextVar("tracemind_ids", default=NO_IDS)


def current_ids() -> Ids:
    """What was set around here; `NO_IDS` where nothing was."""
    return _current.get()


def enter_ids(ids: Ids) -> contextvars.Token[Ids]:
    """Set these inside the ones that hold here, until the token is used."""
    return _current.set(ids.below(_current.get()))


def checked_ids(
    *,
    flow_id: object = None,
    session_id: object = None,
    conversation_id: object = None,
    user_id: object = None,
    tags: object = (),
) -> Ids:
    """Ids from what a user gave.

    Raises:
        ConfigError: an id or a tag is no text, empty, or longer than 256 characters; the message names it.
    """
    return Ids(
        flow_id=_text("flow_id", flow_id),
        session_id=_text("session_id", session_id),
        conversation_id=_text("conversation_id", conversation_id),
        user_id=_text("user_id", user_id),
        tags=_texts("tags", tags),
    )


def _text(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"{field} is {type(value).__name__}; it must be a text")
    if not 0 < len(value) <= MAX_LENGTH:
        raise ConfigError(f"{field} has {len(value)} characters; it must have 1 to {MAX_LENGTH}")
    if not value.isprintable():
        raise ConfigError(f"{field} has characters that cannot be printed, a line break perhaps")
    return value


def _texts(field: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{field} is {type(values).__name__}; it must be a list of texts")
    texts = (_text(f"{field}[{index}]", value) for index, value in enumerate(cast("Sequence[object]", values)))
    return tuple(text for text in texts if text is not None)


IdSource = str | Callable[..., str | None]
"""An id, or a function that gets the arguments of the call and returns it."""


@dataclass(frozen=True, slots=True)
class IdSources:
    """Where the ids of a flow come from."""

    fixed: Ids = NO_IDS
    """Those that are the same for every run."""
    called: tuple[tuple[str, Callable[..., str | None]], ...] = ()
    """Those that depend on the arguments."""

    @classmethod
    def of(cls, tags: Sequence[str], **sources: IdSource | None) -> IdSources:
        """Sort what a user gave.

        Raises:
            ConfigError: an id is of the wrong kind or size.
        """
        called = tuple((name, source) for name, source in sources.items() if callable(source))
        fixed = checked_ids(**{name: source for name, source in sources.items() if not callable(source)}, tags=tags)
        return cls(NO_IDS if fixed == NO_IDS else fixed, called)

    def of_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ids:
        """The ids of one run; one that cannot be had is left out, and the log says so."""
        ids = self.fixed
        for name, source in self.called:
            try:
                ids = checked_ids(**{name: source(*args, **kwargs)}).below(ids)
            except Exception:
                report_fault(log, "flow", name, is_users=True)
        return ids


NO_SOURCES = IdSources()
