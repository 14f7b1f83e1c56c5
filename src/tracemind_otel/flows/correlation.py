"""The ids and tags of what calls are made for: set once, found by everything below.

A context variable holds them, so they follow `asyncio` tasks and `asyncio.to_thread`, and other threads with
`carry_context`. A forked process begins without them.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, cast

from .._base.context import Setting, set_here
from .._base.fork import in_forked_child
from .._base.once import Once, report_fault
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

_current: contextvars.ContextVar[Correlation] = contextvars.ContextVar("tracemind_ids", default=NO_CORRELATION)


def current_correlation() -> Correlation:
    """The ids and tags in force here, or `NO_CORRELATION`."""
    return _current.get()


def enter_correlation(ids: Correlation) -> Setting:
    """Add these to the ones in force, until the setting is undone."""
    return set_here(_current, ids.below(_current.get()))


in_forked_child(lambda: _current.set(NO_CORRELATION))


_hide: contextvars.ContextVar[Callable[[], AbstractContextManager[object]]] = contextvars.ContextVar(
    "tracemind_hide", default=nullcontext
)


def hide_with(hide: Callable[[], AbstractContextManager[object]]) -> Setting:
    """Set how model calls keep the ids out of their requests; for a block that adds them to requests."""
    return set_here(_hide, hide)


def hidden_correlation() -> AbstractContextManager[object]:
    """A block in which no request carries the ids, because a model provider must not see them."""
    return _hide.get()()


def checked_correlation(
    *,
    flow_id: object = None,
    session_id: object = None,
    conversation_id: object = None,
    user_id: object = None,
    tags: object = (),
) -> Correlation:
    """Ids and tags from user input.

    Raises:
        ConfigError: an id or a tag is not a string, empty, over 256 characters or unprintable; the message names it.
    """
    ids = Correlation(
        flow_id=_id("flow_id", flow_id),
        session_id=_id("session_id", session_id),
        conversation_id=_id("conversation_id", conversation_id),
        user_id=_id("user_id", user_id),
        tags=_tags("tags", tags),
    )
    return NO_CORRELATION if ids == NO_CORRELATION else ids


def usable_correlation(who: str, values: Mapping[str, object]) -> Correlation:
    """Ids and tags from data: an unusable one is left out and logged once.

    Args:
        who: the name of what sets them, for the log.
        values: as `checked_correlation` takes them.
    """
    ids = NO_CORRELATION
    for field, check in _one_by_one(values):
        try:
            ids = check().below(ids)
        except ConfigError as error:
            level = logging.WARNING if LEFT_OUT.is_new(who, field) else logging.DEBUG
            log.log(level, "%s: %s; it is left out", who, error)
    return ids


LEFT_OUT = Once()
"""What was logged as left out."""


def _one_by_one(values: Mapping[str, object]) -> Iterator[tuple[str, Callable[[], Correlation]]]:
    """A check for each id and each tag, so that an unusable one does not affect the others."""
    for field, value in values.items():
        if field == "tags" and isinstance(value, list | tuple):
            for index, tag in enumerate(cast("Sequence[object]", value)):
                yield field, functools.partial(_with_tag, index, tag)
        else:
            yield field, functools.partial(checked_correlation, **{field: value})


def _with_tag(index: int, tag: object) -> Correlation:
    if index >= MAX_TAGS:
        raise ConfigError(f"tags has more than {MAX_TAGS} strings")
    return Correlation(tags=(_usable(f"tags[{index}]", _text(f"tags[{index}]", tag)),))


def reject_wrong_types(values: Mapping[str, object]) -> None:
    """Reject values of the wrong type, which are mistakes in code and not in data.

    Raises:
        ConfigError: an id is not a string, or the tags are not a list of strings; the message names it.
    """
    for field, value in values.items():
        if field == "tags":
            _texts(field, value)
        elif value is not None:
            _text(field, value)


def _id(field: str, value: object) -> str | None:
    return None if value is None else _usable(field, _text(field, value))


def _tags(field: str, values: object) -> tuple[str, ...]:
    texts = _texts(field, values)
    if len(texts) > MAX_TAGS:
        raise ConfigError(f"{field} has {len(texts)} strings; it may have {MAX_TAGS}")
    return tuple(dict.fromkeys(_usable(f"{field}[{index}]", text) for index, text in enumerate(texts)))


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{field} is {type(value).__name__}; it must be a string")
    return value


def _texts(field: str, values: object) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{field} is {type(values).__name__}; it must be a list of strings")
    return [_text(f"{field}[{index}]", value) for index, value in enumerate(cast("Sequence[object]", values))]


def _usable(field: str, text: str) -> str:
    if not 0 < len(text) <= MAX_LENGTH:
        raise ConfigError(f"{field} has {len(text)} characters; it must have 1 to {MAX_LENGTH}")
    if not (text.isprintable() or all(map(_is_printable, text))):
        raise ConfigError(f"{field} has unprintable characters, such as a line break; remove them")
    return text


def _is_printable(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _UNPRINTABLE


IdSource = str | Callable[..., str | None]
"""An id, or a function that takes the call's arguments and returns one."""


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Default:
    """A parameter with a default value."""

    name: str
    """The parameter's name."""
    position: int
    """The index among the positional parameters; `sys.maxsize` for a keyword-only one."""
    value: object
    """The default value."""


@dataclass(frozen=True, slots=True)
class CorrelationFunction:
    """A user's function that computes an id from the arguments of a call."""

    function: Callable[..., str | None]
    """The function itself."""
    takes: frozenset[str] | None
    """The keyword arguments it accepts; `None` for any."""
    defaults: tuple[Default, ...] = ()
    """Defaults of the decorated function for parameters that this one accepts."""

    @classmethod
    def of(cls, field: str, function: Callable[..., str | None]) -> CorrelationFunction:
        """Wrap a user's function.

        Raises:
            ConfigError: it is a coroutine function.
        """
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"{field} is a coroutine function, and a flow begins without awaiting; pass a plain function"
            )
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # a C function without a signature
            return cls(function, frozenset())
        takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
        return cls(
            function, None if takes_any else frozenset(each.name for each in parameters if each.kind in _BY_NAME)
        )

    def beside(self, signature: inspect.Signature) -> CorrelationFunction:
        """The same, with the defaults of a decorated function."""
        defaults = (
            Default(each.name, position if each.kind is each.POSITIONAL_OR_KEYWORD else sys.maxsize, each.default)
            for position, each in enumerate(signature.parameters.values())
            if each.kind in _BY_NAME and each.default is not each.empty
        )
        return replace(self, defaults=tuple(each for each in defaults if self.takes is None or each.name in self.takes))

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The id for the arguments of a call, including defaults."""
        if not self.defaults:
            return self.function(*args, **kwargs)
        left_out = {
            each.name: each.value for each in self.defaults if each.position >= len(args) and each.name not in kwargs
        }
        return self.function(*args, **kwargs, **left_out)


@dataclass(frozen=True, slots=True)
class CorrelationSources:
    """The sources of a flow's ids and tags."""

    fixed: Correlation = NO_CORRELATION
    """Ids and tags that are the same for every run."""
    called: tuple[tuple[str, CorrelationFunction], ...] = ()
    """Ids that depend on the arguments, by field name."""

    @classmethod
    def of(cls, tags: Sequence[str], **sources: IdSource | None) -> CorrelationSources:
        """Sources from user input.

        Raises:
            ConfigError: an id or tag is of the wrong type or size.
        """
        called = tuple(
            (name, CorrelationFunction.of(name, source)) for name, source in sources.items() if callable(source)
        )
        fixed = checked_correlation(
            **{name: source for name, source in sources.items() if not callable(source)}, tags=tags
        )
        return cls(fixed, called)

    def beside(self, signature: inspect.Signature) -> CorrelationSources:
        """The same, with the defaults of a decorated function."""
        return replace(self, called=tuple((name, source.beside(signature)) for name, source in self.called))

    def of_call(self, flow: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Correlation:
        """The ids of one run; one whose function fails is left out and logged once for each flow."""
        ids = self.fixed
        for name, source in self.called:
            try:
                value = source(args, kwargs)
            except Exception:
                report_fault(log, f"@flow {flow}", name, is_users=True)
            else:
                ids = usable_correlation(f"@flow {flow}", {name: value}).below(ids)
        return ids


NO_SOURCES = CorrelationSources()
