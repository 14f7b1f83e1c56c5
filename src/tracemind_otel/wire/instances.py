"""A method of one object, wrapped: its class stays as it is."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any


def wrap_method(holder: Any, name: str, wrapper_of: Callable[[Any], Any]) -> None:
    """Wrap a method on one object, once: a second time replaces the first wrapper.

    Args:
        holder: the object.
        name: the method's name.
        wrapper_of: makes the wrapper of a function that takes the object first.
    """
    bound = getattr(holder, name)
    if isinstance(bound, types.MethodType):  # not what somebody has put over our wrapper
        bound = getattr(bound.__func__, "__tracemind_inner__", bound)

    @functools.wraps(bound)
    def method(_: Any, *args: Any, **options: Any) -> Any:
        return bound(*args, **options)

    wrapper = wrapper_of(method)
    wrapper.__tracemind_inner__ = bound
    # Past an object's own `__setattr__`, which may refuse or warn of names that it does not know.
    object.__setattr__(holder, name, types.MethodType(wrapper, holder))
