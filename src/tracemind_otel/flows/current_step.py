"""The name of the running step, so that a model call without a name of its own is found by it."""

from __future__ import annotations

import contextvars

from .._base.context import Setting, set_here, surrounding_variable
from .._base.fork import in_forked_child

_current: contextvars.ContextVar[str | None] = surrounding_variable("tracemind_step", default=None)


def current_step() -> str | None:
    """The name of the innermost running step; `None` outside of any."""
    return _current.get()


def enter_step(name: str) -> Setting:
    """Make a step the current one, until the setting is undone."""
    return set_here(_current, name)


in_forked_child(lambda: _current.set(None))
