"""The user's attributes of flows, agents, tools and steps: values, and functions of a call's arguments."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from .._base.once import report_fault
from ..errors import ConfigError
from .correlation import LEFT_OUT, CorrelationFunction
from .totals import NO_ATTRIBUTES, AttributeValue

log = logging.getLogger(__name__)

AttributeSource = AttributeValue | list[str] | list[bool] | list[int] | list[float] | Callable[..., object]
"""A value, a list of values of one type, or a function that takes the call's arguments and returns either."""

_ALLOWED = "a string, a number, a bool, a list of one of these, or a function of the call's arguments"


@dataclass(frozen=True, slots=True)
class AttributeSources:
    """The sources of the attributes of one decorated function."""

    fixed: Mapping[str, AttributeValue]
    """Attributes that are the same for every run."""
    called: tuple[tuple[str, CorrelationFunction], ...] = ()
    """Attributes that depend on the arguments, by name."""

    @classmethod
    def of(cls, attributes: object) -> AttributeSources:
        """Sources from user input.

        Raises:
            ConfigError: it is no mapping, or a name or a value is of a type that no attribute has.
        """
        if not isinstance(attributes, Mapping):
            raise ConfigError(f"attributes is {type(attributes).__name__}; it must be a mapping of names to values")
        fixed: dict[str, AttributeValue] = {}
        called: list[tuple[str, CorrelationFunction]] = []
        for name, value in cast("Mapping[object, object]", attributes).items():
            if not isinstance(name, str) or not name:
                raise ConfigError(f"attributes has the name {name!r}; a name must be a string that is not empty")
            if callable(value):
                called.append((name, CorrelationFunction.of(f"attributes[{name!r}]", cast("Any", value))))
            else:
                fixed[name] = _checked(name, value)
        return cls(fixed, tuple(called))

    def beside(self, signature: inspect.Signature) -> AttributeSources:
        """The same, with the defaults of a decorated function."""
        return replace(self, called=tuple((name, source.beside(signature)) for name, source in self.called))

    def of_call(self, who: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, AttributeValue]:
        """The attributes of one run; one that cannot be had is left out and logged once."""
        if not self.called:
            return self.fixed
        values = dict(self.fixed)
        for name, source in self.called:
            try:
                value: object = source(args, kwargs)
            except Exception:
                report_fault(log, who, name, is_users=True)
                continue
            try:
                if value is not None:
                    values[name] = _checked(name, value)
            except ConfigError as error:
                level = logging.WARNING if LEFT_OUT.is_new(who, name) else logging.DEBUG
                log.log(level, "%s: %s; it is left out", who, error)
        return values


NO_SOURCES = AttributeSources(NO_ATTRIBUTES)


def _checked(name: str, value: object) -> AttributeValue:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple):
        items = tuple(cast("list[object]", value))
        if len(set(map(type, items))) <= 1 and isinstance(next(iter(items), ""), str | bool | int | float):
            return cast("tuple[str, ...]", items)
        raise ConfigError(f"attributes[{name!r}] is a list of different or other types; it must be {_ALLOWED}")
    raise ConfigError(f"attributes[{name!r}] is {type(value).__name__}; it must be {_ALLOWED}")
