"""Callables that are no functions: what `functools.lru_cache` returns, a Celery task, a click command."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

_FUNCTIONS = (
    types.FunctionType,
    types.MethodType,
    types.BuiltinFunctionType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    functools.partial,
)


def keeps_attributes(function: object) -> bool:
    """Whether a plain wrapper has all that the function offers."""
    return isinstance(function, _FUNCTIONS)


class ForwardingCallable:
    """Runs a wrapper when it is called; everything else is asked of the callable that it stands for.

    Attributes are asked for when somebody asks for them here: the callable may be a proxy that is not ready yet.
    """

    def __init__(self, wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
        self._wrapper = wrapper
        self.__wrapped__ = function
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._wrapper(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """As a method, if the callable is one when it stands in a class."""
        if instance is None or not hasattr(type(self.__wrapped__), "__get__"):
            return self
        return types.MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return f"<traced {self.__wrapped__!r}>"
