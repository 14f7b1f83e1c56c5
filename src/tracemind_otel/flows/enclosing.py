"""A call that counts, with other calls inside it: the inner ones count, and the one around them gives way."""

from __future__ import annotations

import contextvars
from typing import Protocol

from .._base.context import Setting, set_here
from .._base.fork import in_forked_child


class EnclosingCall(Protocol):
    """A call that may have others inside it."""

    def give_way(self) -> None:
        """Count no more: a call inside counts itself. May be told again."""
        ...


_current: contextvars.ContextVar[EnclosingCall | None] = contextvars.ContextVar("tracemind_enclosing", default=None)


def enter_enclosing(call: EnclosingCall) -> Setting:
    """Let this call be around those that begin from now on, until the setting is undone."""
    return set_here(_current, call)


def enclosing_gives_way() -> None:
    """A call begins that counts itself."""
    around = _current.get()
    if around is not None:
        around.give_way()


in_forked_child(lambda: _current.set(None))
