"""The flow that is running, and the sums of the model calls under it.

Kept in a context variable, so that it follows `asyncio` tasks and `asyncio.to_thread` by itself, and other
threads by `carry_context`; a forked process begins without. The step feeds it once a call, whatever recorder it was
given.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._base.context import Setting, set_here
from .._base.fork import in_forked_child
from ..ai.llm.usage import LLMUsage

AttributeValue = str | bool | int | float
"""What a flow's attribute may hold."""

NO_ATTRIBUTES: Mapping[str, AttributeValue] = MappingProxyType({})

# Re-entrant: a stream dropped unread ends its call in a garbage collection, which may strike while it is held.
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class FlowTotals:
    """Sums over model calls."""

    cost_usd: float | None
    """USD of the calls that had a price; `None` when none had."""
    input_tokens: int
    """Input tokens, cached ones included."""
    output_tokens: int
    """Output tokens, reasoning included."""
    llm_calls: int
    """Model calls that ended, however they ended."""
    retries: int
    """Failed attempts that were repeated."""


class _Sums:
    """Adds in place: nothing in here may start a garbage collection between reading a sum and writing it."""

    __slots__ = ("_cost_usd", "_input_tokens", "_llm_calls", "_output_tokens", "_retries")

    def __init__(self) -> None:
        self._cost_usd: float | None = None
        self._input_tokens = self._output_tokens = self._llm_calls = self._retries = 0

    def add(self, usage: LLMUsage | None, retries: int) -> None:
        self._llm_calls += 1
        self._retries += retries
        if usage is None:
            return
        self._input_tokens += usage.prompt_tokens or 0
        self._output_tokens += usage.completion_tokens or 0
        if usage.cost_usd is not None:
            self._cost_usd = (self._cost_usd or 0.0) + usage.cost_usd

    def totals(self) -> FlowTotals:
        return FlowTotals(self._cost_usd, self._input_tokens, self._output_tokens, self._llm_calls, self._retries)


_NOTHING = _Sums()


class FlowScope:
    """One running flow. Calls may end in any thread."""

    __slots__ = ("_all", "_own", "attributes", "name", "parent")

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] = NO_ATTRIBUTES,
        parent: FlowScope | None = None,
    ) -> None:
        self.name = name
        self.attributes = attributes
        self.parent = parent
        self._own: _Sums | None = None
        self._all: _Sums | None = None

    def add_call(self, usage: LLMUsage | None, *, retries: int) -> None:
        """Count one call, here and in every flow around this one."""
        own, everything = _Sums(), _Sums()  # before the sums are looked at: what allocates may collect garbage
        with _lock:
            self._own = self._own or own
            self._own.add(usage, retries)
        scope: FlowScope | None = self
        while scope is not None:
            with _lock:
                scope._all = scope._all or everything
                scope._all.add(usage, retries)
            scope, everything = scope.parent, _Sums()

    def attribute(self, name: str) -> AttributeValue | None:
        """An attribute of this flow, else of the nearest flow around it that has it."""
        scope: FlowScope | None = self
        while scope is not None:
            if name in scope.attributes:
                return scope.attributes[name]
            scope = scope.parent
        return None

    def totals(self) -> FlowTotals:
        """The sums so far over all calls below, those of nested flows included."""
        with _lock:
            return (self._all or _NOTHING).totals()

    def own_totals(self) -> FlowTotals:
        """The sums so far over the calls of this flow alone: those of nested flows are left to them."""
        with _lock:
            return (self._own or _NOTHING).totals()


_current: contextvars.ContextVar[FlowScope | None] = contextvars.ContextVar("tracemind_flow", default=None)


def current_flow() -> FlowScope | None:
    """The innermost flow that is running here, or `None`."""
    return _current.get()


def enter_flow(scope: FlowScope) -> Setting:
    """Make a flow the current one, until the setting is undone."""
    return set_here(_current, scope)


def _forget() -> None:
    """In a forked child: its parent's flow is out of reach, and another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()
    _current.set(None)


in_forked_child(_forget)
