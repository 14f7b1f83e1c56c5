"""The ids, tags and step that calls are made for: set once, found by everything below.

Context variables hold them, so they follow `asyncio` tasks and `asyncio.to_thread`, and other threads with
`carry_context`. A forked process begins without them.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from .._base.context import Setting, set_here, surrounding_variable
from .._base.fork import in_forked_child
from .._base.once import Once
from ..errors import ConfigError

log = logging.getLogger(__name__)

MAX_LENGTH = 256
"""The length of an id or tag, in characters, that still fits into a baggage header."""

MAX_TAGS = 64
"""Tags of one setting; every span below carries them."""

_JOINERS = "\u200c\u200d"
"""Invisible characters that belong to words in several scripts, and to emoji."""
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """Ids and tags; `None` for an id that is not set."""

    flow_id: str | None = None
    """The caller's id of a run of the flow."""
    session_id: str | None = None
    """The session of a user (`session.id`)."""
    conversation_id: str | None = None
    """The conversation kept by the provider or the application (`gen_ai.conversation.id`)."""
    user_id: str | None = None
    """The user (`user.id`)."""
    tags: tuple[str, ...] = ()
    """Search terms (`tracemind.tags`)."""

    def below(self, outer: Correlation) -> Correlation:
        """These combined with outer ones: an id set here wins, tags are added to the outer tags."""
        if outer is NO_CORRELATION:
            return self
        return Correlation(
            flow_id=self.flow_id or outer.flow_id,
            session_id=self.session_id or outer.session_id,
            conversation_id=self.conversation_id or outer.conversation_id,
            user_id=self.user_id or outer.user_id,
            tags=tuple(dict.fromkeys((*outer.tags, *self.tags))),
        )


NO_CORRELATION = Correlation()

_current: contextvars.ContextVar[Correlation] = surrounding_variable("tracemind_ids", default=NO_CORRELATION)


def current_correlation() -> Correlation:
    """The ids and tags in force here, or `NO_CORRELATION`."""
    return _current.get()


def enter_correlation(ids: Correlation) -> Setting:
    """Add these to the ones in force, until the setting is undone."""
    return set_here(_current, ids.below(_current.get()))


in_forked_child(lambda: _current.set(NO_CORRELATION))


_hide: contextvars.ContextVar[Callable[[], AbstractContextManager[object]]] = surrounding_variable(
    "tracemind_hide", default=nullcontext
)


def hide_with(hide: Callable[[], AbstractContextManager[object]]) -> Setting:
    """Set how model calls keep the ids out of their requests; for a block that adds them to requests."""
    return set_here(_hide, hide)


def hidden_correlation() -> AbstractContextManager[object]:
    """A block in which no request carries the ids, because a model provider must not see them."""
    return _hide.get()()


# --- The step ---


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """The prompt of a library or a registry that a model call uses."""

    name: str | None = None
    """Its name (`gen_ai.prompt.name`)."""
    version: str | None = None
    """Its version (`gen_ai.prompt.version`)."""


NO_PROMPT = Prompt()

_NO_STEP: tuple[str | None, Prompt] = (None, NO_PROMPT)

_step: contextvars.ContextVar[tuple[str | None, Prompt]] = surrounding_variable("tracemind_step", default=_NO_STEP)


def current_step() -> str | None:
    """The name of the innermost running step, which names the model calls below it; `None` outside of any."""
    return _step.get()[0]


def current_prompt() -> Prompt:
    """The prompt that the innermost running step names, or `NO_PROMPT`."""
    return _step.get()[1]


def enter_step(name: str, prompt: Prompt = NO_PROMPT) -> Setting:
    """Make a step the current one, with the prompt of the model calls below it, until the setting is undone."""
    return set_here(_step, (name, prompt))


def checked_prompt(name: object, version: object) -> Prompt:
    """A prompt from user input.

    Raises:
        ConfigError: a value is not a string that fits an attribute, or there is a version without a name.
    """
    if version is not None and name is None:
        raise ConfigError("prompt_version needs prompt_name: the name of the prompt whose version it is")
    if name is None:
        return NO_PROMPT
    return Prompt(
        name=_usable("prompt_name", name), version=None if version is None else _usable("prompt_version", version)
    )


in_forked_child(lambda: _step.set(_NO_STEP))

# --- Checks ---

LEFT_OUT = Once()
"""What was logged as left out."""

Reject = Callable[[str, ConfigError], None]
"""What happens to an unusable value of a field."""


def checked_correlation(**values: object) -> Correlation:
    """Ids and tags from user input.

    Raises:
        ConfigError: an id or a tag is not a string, empty, over 256 characters or unprintable; the message names it.
    """

    def reject(_: str, error: ConfigError) -> None:
        raise error

    return _correlation(values, reject)


def usable_correlation(who: str, values: Mapping[str, object]) -> Correlation:
    """Ids and tags from data: an unusable one is left out and logged once.

    Args:
        who: the name of what sets them, for the log.
        values: ids and tags by field of `Correlation`.
    """
    return _correlation(values, functools.partial(leave_out, who))


def leave_out(who: str, name: str, error: ConfigError) -> None:
    """Log a value that is left out: as a warning the first time."""
    level = logging.WARNING if LEFT_OUT.is_new(who, name) else logging.DEBUG
    log.log(level, "%s: %s; it is left out", who, error)


def reject_wrong_types(values: Mapping[str, object]) -> None:
    """Reject values of the wrong type, which are mistakes in code and not in data.

    Raises:
        ConfigError: an id is not a string, or the tags are not a list of strings; the message names it.
    """
    for field, value in values.items():
        if field == "tags":
            for index, tag in enumerate(_items(field, value)):
                _string(f"{field}[{index}]", tag)
        elif value is not None:
            _string(field, value)


def _correlation(values: Mapping[str, object], reject: Reject) -> Correlation:
    found: dict[str, Any] = {}
    for field, value in values.items():
        try:
            if field == "tags":
                found[field] = _tags(value, reject)
            elif value is not None:
                found[field] = _usable(field, value)
        except ConfigError as error:
            reject(field, error)
    ids = Correlation(**found)
    return NO_CORRELATION if ids == NO_CORRELATION else ids


def _tags(values: object, reject: Reject) -> tuple[str, ...]:
    items = _items("tags", values)
    if len(items) > MAX_TAGS:
        reject("tags", ConfigError(f"tags has {len(items)} strings; it may have {MAX_TAGS}"))
    tags: list[str] = []
    for index, tag in enumerate(items[:MAX_TAGS]):
        try:
            tags.append(_usable(f"tags[{index}]", tag))
        except ConfigError as error:
            reject("tags", error)
    return tuple(dict.fromkeys(tags))


def _items(field: str, values: object) -> Sequence[object]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{field} is {type(values).__name__}; it must be a list of strings")
    return cast("Sequence[object]", values)


def _string(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{field} is {type(value).__name__}; it must be a string")
    return value


def _usable(field: str, value: object) -> str:
    text = _string(field, value)
    if not 0 < len(text) <= MAX_LENGTH:
        raise ConfigError(f"{field} has {len(text)} characters; it must have 1 to {MAX_LENGTH}")
    if not (text.isprintable() or all(map(_is_printable, text))):
        raise ConfigError(f"{field} has unprintable characters, such as a line break; remove them")
    return text


def _is_printable(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _UNPRINTABLE
