"""Methods wrapped on a class, or on one object, and put back only where they are still ours."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

_MARK = "__tracemind__"
"""The attribute of our wrappers that has the wrapper itself.

`functools.wraps` copies it to a wrapper that somebody puts over ours. So to have it means that calls pass ours, and to
be its value means to be ours.
"""
_ORIGINAL = "__tracemind_original__"


def wrap_on_class(owner: Any, name: str, wrapper_of: Callable[[Any], Any]) -> None:
    """Wrap a method for all objects of a class, unless its calls pass a wrapper of ours already."""
    method = getattr(owner, name)
    if hasattr(method, _MARK):
        return
    wrapper = wrapper_of(method)
    setattr(wrapper, _MARK, wrapper)
    setattr(wrapper, _ORIGINAL, _own(owner).get(name, method))
    setattr(owner, name, wrapper)


def _own(owner: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", vars(owner))


def unwrap_on_class(owner: Any, name: str) -> None:
    """Put the method back, unless somebody has wrapped it since: to put it back would remove that wrapper too."""
    method = _own(owner).get(name)
    if method is not None and getattr(method, _MARK, None) is method:
        setattr(owner, name, getattr(method, _ORIGINAL))


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


@dataclass(frozen=True, slots=True)
class Hook:
    """The methods of a library through which its requests pass."""

    methods: tuple[tuple[str, str, Callable[..., Any]], ...]
    """Class, method, and what makes the wrapper of it, given the library and, for one client, the user's hosts."""
    patch_below: Callable[[ModuleType], None] | None = None
    """Wraps what is below the clients, for all of them."""
    unpatch_below: Callable[[ModuleType], None] | None = None
    """Puts that back."""

    def patch(self, library: ModuleType) -> None:
        """Wrap the methods for all clients; one that is wrapped already stays as it is."""
        for owner, method, wrapper_of in self.methods:
            wrap_on_class(getattr(library, owner), method, functools.partial(wrapper_of, library=library))
        if self.patch_below is not None:
            self.patch_below(library)

    def unpatch(self, library: ModuleType) -> None:
        """Put the methods back that are still ours; one that somebody has wrapped since passes every call through."""
        for owner, method, _ in self.methods:
            unwrap_on_class(getattr(library, owner), method)
        if self.unpatch_below is not None:
            self.unpatch_below(library)

    def wrap(self, client: Any, library: ModuleType, hosts: Mapping[str, str]) -> bool:
        """Wrap the method of one client; returns whether it is one of the library's."""
        for owner, method, wrapper_of in self.methods:
            if isinstance(client, getattr(library, owner)):
                wrap_method(client, method, functools.partial(wrapper_of, library=library, hosts=hosts))
                if self.patch_below is not None:
                    self.patch_below(library)
                return True
        return False
