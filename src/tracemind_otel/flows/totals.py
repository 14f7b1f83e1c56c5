"""The running flow, and the sums of the model calls under it.

A context variable holds it, so it follows `asyncio` tasks and `asyncio.to_thread`, and other threads with
`carry_context`. A forked process begins without one. Every call is added once, whatever its recorder.
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

LabelValue = str | bool | int | float
"""A value of an attribute of a metric."""

AttributeValue = LabelValue | tuple[str, ...] | tuple[bool, ...] | tuple[int, ...] | tuple[float, ...]
"""A value of a span's attribute."""

NO_ATTRIBUTES: Mapping[str, AttributeValue] = MappingProxyType({})

# Re-entrant: a signal handler that flushes may end calls while this thread holds it.
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class FlowTotals:
    """Sums over model calls."""

    cost_usd: float | None
    """USD of the priced calls; `None` when no call had a price."""
    input_tokens: int
    """Input tokens, including cached ones."""
    output_tokens: int
    """Output tokens, including reasoning."""
    llm_calls: int
    """Model calls that have ended, with or without success."""
    retries: int
    """Failed attempts that were repeated."""


class _Sums:
    """Sums under the lock."""

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
        self._own = _Sums()
        self._all = _Sums()

    def add_call(self, usage: LLMUsage | None, *, retries: int) -> None:
        """Count one call, here and in every flow around this one."""
        with _lock:
            self._own.add(usage, retries)
            scope: FlowScope | None = self
            while scope is not None:
                scope._all.add(usage, retries)
                scope = scope.parent

    def label(self, name: str) -> LabelValue | None:
        """An attribute as metrics can have it: a list is joined by commas."""
        value = self.attribute(name)
        return ",".join(map(str, value)) if isinstance(value, tuple) else value

    def attribute(self, name: str) -> AttributeValue | None:
        """An attribute of this flow, or of the nearest flow around it that has it."""
        scope: FlowScope | None = self
        while scope is not None:
            if name in scope.attributes:
                return scope.attributes[name]
            scope = scope.parent
        return None

    def totals(self) -> FlowTotals:
        """The sums so far over all calls below, including those of nested flows."""
        with _lock:
            return self._all.totals()

    def own_totals(self) -> FlowTotals:
        """The sums so far over the calls of this flow, without those of nested flows."""
        with _lock:
            return self._own.totals()


_current: contextvars.ContextVar[FlowScope | None] = contextvars.ContextVar("tracemind_flow", default=None)


def current_flow() -> FlowScope | None:
    """The innermost flow here, or `None`."""
    return _current.get()


def enter_flow(scope: FlowScope) -> Setting:
    """Make a flow the current one, until the setting is undone."""
    return set_here(_current, scope)


def _forget() -> None:
    """Begin anew in a forked child, whose copy of the lock may be held for ever."""
    global _lock
    _lock = threading.RLock()
    _current.set(None)


in_forked_child(_forget)
