"""The running agent, and how many model calls and tools ran below it.

A context variable holds it, as it does the flow. A forked process begins without one.
"""

from __future__ import annotations

import contextvars
import threading

from .._base.context import Setting, set_here, surrounding_variable
from .._base.fork import in_forked_child

_lock = threading.RLock()


class AgentRun:
    """One run of an agent. The figures include those of agents below it; they may be counted in any thread.

    Args:
        name: the agent's name.
        outer: the agent around it.
    """

    __slots__ = ("inference_calls", "name", "outer", "tool_calls")

    def __init__(self, name: str, outer: AgentRun | None = None) -> None:
        self.name = name
        self.outer = outer
        self.inference_calls = 0
        """Model calls that have ended, with or without success."""
        self.tool_calls = 0
        """Tools that have ended."""

    def count_inference(self) -> None:
        """Count a model call, here and in every agent around this one."""
        with _lock:
            for run in self._and_outer():
                run.inference_calls += 1

    def count_tool(self) -> None:
        """Count a tool likewise."""
        with _lock:
            for run in self._and_outer():
                run.tool_calls += 1

    def _and_outer(self) -> list[AgentRun]:
        runs: list[AgentRun] = []
        run: AgentRun | None = self
        while run is not None:
            runs.append(run)
            run = run.outer
        return runs


_current: contextvars.ContextVar[AgentRun | None] = surrounding_variable("tracemind_agent", default=None)


def current_agent() -> AgentRun | None:
    """The run of the innermost agent around this code; `None` outside of any."""
    return _current.get()


def enter_agent(run: AgentRun) -> Setting:
    """Make an agent the current one, until the setting is undone."""
    return set_here(_current, run)


def _forget() -> None:
    """Begin anew in a forked child, whose copy of the lock may be held for ever."""
    global _lock
    _lock = threading.RLock()
    _current.set(None)


in_forked_child(_forget)
