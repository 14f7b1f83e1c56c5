"""The flow that is running, and the sums of the model calls under it.

Kept in a context variable, so that it follows `asyncio` tasks and `asyncio.to_thread` by itself, and other
threads by `carry_context`. The step feeds it once a call, whatever recorder it was given.
"""

from __future__ import annotations

import contextvars
import functools
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import ParamSpec, TypeVar

from ..ai.llm.types import LLMUsage

P = ParamSpec("P")
R = TypeVar("R")

AttributeValue = str | bool | int | float
"""What a flow's attribute may hold."""

_NO_ATTRIBUTES: Mapping[str, AttributeValue] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FlowTotals:
    """Sums over all model calls under a flow, those of flows nested in it included."""

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


class FlowScope:
    """One running flow. Calls may end in any thread."""

    def __init__(
        self,
        name: str,
        *,
        attributes: Mapping[str, AttributeValue] = _NO_ATTRIBUTES,
        parent: FlowScope | None = None,
    ) -> None:
        self.name = name
        self.attributes = attributes
        self.parent = parent
        # Re-entrant: a stream dropped unread ends its call in a garbage collection, which may strike in here.
        self._lock = threading.RLock()
        self._cost_usd: float | None = None
        self._input_tokens = 0
        self._output_tokens = 0
        self._llm_calls = 0
        self._retries = 0

    def add_call(self, usage: LLMUsage | None, *, retries: int) -> None:
        """Count one call, here and in every flow around this one."""
        scope: FlowScope | None = self
        while scope is not None:
            scope._add(usage, retries)
            scope = scope.parent

    def _add(self, usage: LLMUsage | None, retries: int) -> None:
        with self._lock:
            self._llm_calls += 1
            self._retries += retries
            if usage is None:
                return
            self._input_tokens += usage.prompt_tokens
            self._output_tokens += usage.completion_tokens
            if usage.cost_usd is not None:
                self._cost_usd = (self._cost_usd or 0.0) + usage.cost_usd

    def attribute(self, name: str) -> AttributeValue | None:
        """An attribute of this flow, else of the nearest flow around it that has it."""
        scope: FlowScope | None = self
        while scope is not None:
            if name in scope.attributes:
                return scope.attributes[name]
            scope = scope.parent
        return None

    def totals(self) -> FlowTotals:
        """The sums so far."""
        with self._lock:
            return FlowTotals(self._cost_usd, self._input_tokens, self._output_tokens, self._llm_calls, self._retries)


_current: contextvars.ContextVar[FlowScope | None] = contextvars.ContextVar("tracemind_flow", default=None)


def current_flow() -> FlowScope | None:
    """The innermost flow that is running here, or `None`."""
    return _current.get()


@contextmanager
def enter_flow(name: str, attributes: Mapping[str, AttributeValue] = _NO_ATTRIBUTES) -> Generator[FlowScope]:
    """Make a new flow the current one, nested in the one that was."""
    scope = FlowScope(name, attributes=attributes, parent=_current.get())
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)


def carry_context(function: Callable[P, R]) -> Callable[P, R]:
    """Bind a function to the context of here and now, for a thread or an executor that would lose it.

    The flow, its span and every other context variable are found by whatever the function calls. It may be
    called many times, and from several threads at once.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as pool:
        ...     pool.submit(carry_context(print), "in the caller's flow").result()
        in the caller's flow
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def in_context(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(function, *args, **kwargs)

    return in_context
