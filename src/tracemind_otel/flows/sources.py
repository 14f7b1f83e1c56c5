"""The user's attributes and ids of flows, agents, tools and steps: values, and functions of a call's arguments."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from .._base.once import report_fault
from ..errors import ConfigError
from .correlation import NO_CORRELATION, Correlation, checked_correlation, leave_out, usable_correlation
from .totals import AttributeValue

log = logging.getLogger(__name__)

IdSource = str | Callable[..., str | None]
"""An id, or a function that takes the call's arguments and returns one."""

AttributeSource = AttributeValue | list[str] | list[bool] | list[int] | list[float] | Callable[..., object]
"""A value, a list of values of one type, or a function that takes the call's arguments and returns either."""

_ALLOWED = "a string, a number, a bool, a list of one of these, or a function of the call's arguments"
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class ArgumentFunction:
    """A user's function that computes a value from the arguments of a call."""

    function: Callable[..., object]
    """The function itself."""
    takes: frozenset[str] | None
    """The keyword arguments it accepts; `None` for any."""
    signature: inspect.Signature | None = None
    """The signature of the decorated function, whose defaults it gets where it accepts them."""

    @classmethod
    def of(cls, field: str, function: Callable[..., object]) -> Self:
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

    def beside(self, signature: inspect.Signature) -> ArgumentFunction:
        """The same for a decorated function of this signature."""
        parameters = signature.parameters.values()
        has_defaults = any(self._accepts(each.name) and each.default is not each.empty for each in parameters)
        return replace(self, signature=signature) if has_defaults else self

    def _accepts(self, name: str) -> bool:
        return self.takes is None or name in self.takes

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """The value for the arguments of a call, including defaults."""
        if self.signature is None:
            return self.function(*args, **kwargs)
        given = self.signature.bind(*args, **kwargs).arguments
        left_out = {
            each.name: each.default
            for each in self.signature.parameters.values()
            if each.kind in _BY_NAME and each.default is not each.empty
            if each.name not in given and self._accepts(each.name)
        }
        return self.function(*args, **kwargs, **left_out)


@dataclass(frozen=True, slots=True)
class CalledSources:
    """Values that depend on the arguments of a call, by name."""

    functions: tuple[tuple[str, ArgumentFunction], ...] = ()
    """The functions that compute them."""

    def beside(self, signature: inspect.Signature) -> CalledSources:
        """The same for a decorated function of this signature."""
        return CalledSources(tuple((name, function.beside(signature)) for name, function in self.functions))

    def of_call(self, who: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, object]]:
        """The values of one run; one whose function fails is left out and logged once."""
        for name, function in self.functions:
            try:
                value = function(args, kwargs)
            except Exception:
                report_fault(log, who, name, is_users=True)
            else:
                yield name, value


@dataclass(frozen=True, slots=True)
class AttributeSources:
    """The sources of the attributes of one decorated function."""

    fixed: Mapping[str, AttributeValue]
    """Attributes that are the same for every run."""
    called: CalledSources = CalledSources()
    """Attributes that depend on the arguments."""

    @classmethod
    def of(cls, attributes: object) -> AttributeSources:
        """Sources from user input.

        Raises:
            ConfigError: it is no mapping, or a name or a value is of a type that no attribute has.
        """
        if not isinstance(attributes, Mapping):
            raise ConfigError(f"attributes is {type(attributes).__name__}; it must be a mapping of names to values")
        fixed: dict[str, AttributeValue] = {}
        called: list[tuple[str, ArgumentFunction]] = []
        for name, value in cast("Mapping[object, object]", attributes).items():
            if not isinstance(name, str) or not name:
                raise ConfigError(f"attributes has the name {name!r}; a name must be a string that is not empty")
            if callable(value):
                called.append((name, ArgumentFunction.of(f"attributes[{name!r}]", value)))
            else:
                fixed[name] = _checked(name, value)
        return cls(fixed, CalledSources(tuple(called)))

    def beside(self, signature: inspect.Signature) -> AttributeSources:
        """The same for a decorated function of this signature."""
        return replace(self, called=self.called.beside(signature))

    def of_call(self, who: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, AttributeValue]:
        """The attributes of one run; an unusable one is left out and logged once."""
        if not self.called.functions:
            return self.fixed
        values = dict(self.fixed)
        for name, value in self.called.of_call(who, args, kwargs):
            try:
                if value is not None:
                    values[name] = _checked(name, value)
            except ConfigError as error:
                leave_out(who, name, error)
        return values


def _checked(name: str, value: object) -> AttributeValue:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        items = tuple(cast("list[object]", value))
        if len(set(map(type, items))) <= 1 and isinstance(next(iter(items), ""), str | bool | int | float):
            return cast("tuple[str, ...]", items)
        raise ConfigError(f"attributes[{name!r}] is a list of different or other types; it must be {_ALLOWED}")
    raise ConfigError(f"attributes[{name!r}] is {type(value).__name__}; it must be {_ALLOWED}")


@dataclass(frozen=True, slots=True)
class CorrelationSources:
    """The sources of a flow's ids and tags."""

    fixed: Correlation = NO_CORRELATION
    """Ids and tags that are the same for every run."""
    called: CalledSources = CalledSources()
    """Ids that depend on the arguments."""

    @classmethod
    def of(cls, tags: Sequence[str], **sources: IdSource | None) -> CorrelationSources:
        """Sources from user input.

        Raises:
            ConfigError: an id or tag is of the wrong type or size.
        """
        called = tuple(
            (name, ArgumentFunction.of(name, source)) for name, source in sources.items() if callable(source)
        )
        fixed = {name: source for name, source in sources.items() if not callable(source)}
        return cls(checked_correlation(**fixed, tags=tags), CalledSources(called))

    def beside(self, signature: inspect.Signature) -> CorrelationSources:
        """The same for a decorated function of this signature."""
        return replace(self, called=self.called.beside(signature))

    def of_call(self, flow: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Correlation:
        """The ids of one run; an unusable one is left out and logged once for each flow."""
        if not self.called.functions:
            return self.fixed
        who = f"@flow {flow}"
        return usable_correlation(who, dict(self.called.of_call(who, args, kwargs))).below(self.fixed)


NO_SOURCES = CorrelationSources()
