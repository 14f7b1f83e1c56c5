"""The running flow, and the sums of the model calls under it.

A context variable holds it, so it follows `asyncio` tasks and `asyncio.to_thread`, and other threads with
`carry_context`. A forked process begins without one. Every call is added once, whatever its recorder.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .._base.context import Setting, set_here, surrounding_variable
from .._base.fork import in_forked_child
from .._base.once import Once, report_fault
from ..ai.llm.usage import LLMUsage

log = logging.getLogger(__name__)

LabelValue = str | bool | int | float
"""A value of an attribute of a metric."""

AttributeValue = LabelValue | tuple[str, ...] | tuple[bool, ...] | tuple[int, ...] | tuple[float, ...]
"""A value of a span's attribute."""

NO_ATTRIBUTES: Mapping[str, AttributeValue] = MappingProxyType({})

_MISTAKES = Once()
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
    unpriced_calls: int = 0
    """Calls that used something whose price is unknown, so that `cost_usd` lacks it."""
    presumed_cost_usd: float | None = None
    """USD that lost replies presumably cost, which `cost_usd` lacks; `None` when none was lost that has a price."""

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


class _Sums:
    """Sums under the lock."""

    __slots__ = (
        "_cost_usd",
        "_input_tokens",
        "_llm_calls",
        "_output_tokens",
        "_presumed_usd",
        "_retries",
        "_unpriced_calls",
    )

    def __init__(self) -> None:
        self._cost_usd: float | None = None
        self._presumed_usd: float | None = None
        self._input_tokens = self._output_tokens = self._llm_calls = self._retries = self._unpriced_calls = 0

    def add(self, usage: LLMUsage | None, retries: int, presumed_usd: float | None) -> None:
        self._llm_calls += 1
        self._retries += retries
        self._presumed_usd = _sum(self._presumed_usd, presumed_usd)
        if usage is None:
            return
        self._input_tokens += usage.prompt_tokens or 0
        self._output_tokens += usage.completion_tokens or 0
        if usage.cost_usd is None:
            self._unpriced_calls += 1
        self._cost_usd = _sum(self._cost_usd, usage.cost_usd)

    def join(self, other: _Sums) -> None:
        self._llm_calls += other._llm_calls
        self._retries += other._retries
        self._input_tokens += other._input_tokens
        self._output_tokens += other._output_tokens
        self._unpriced_calls += other._unpriced_calls
        self._cost_usd = _sum(self._cost_usd, other._cost_usd)
        self._presumed_usd = _sum(self._presumed_usd, other._presumed_usd)

    def totals(self) -> FlowTotals:
        return FlowTotals(
            self._cost_usd,
            self._input_tokens,
            self._output_tokens,
            self._llm_calls,
            self._retries,
            self._unpriced_calls,
            self._presumed_usd,
        )


def _sum(sum_usd: float | None, usd: float | None) -> float | None:
    return sum_usd if usd is None else (sum_usd or 0.0) + usd


_MAX_PARTS = 1000
"""Pairs of step and model that are told apart in one run; a step of a program may be named after its data."""
_OTHER = ("_other", "_other")


class FlowRun:
    """One run of a flow: what the model calls below it used and cost, while it runs and afterwards.

    The figures include those of nested flows. Calls may end in any thread.
    """

    __slots__ = ("_all", "_own", "_parts", "_tool_calls", "attributes", "name", "parent", "trace_id")

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] = NO_ATTRIBUTES,
        parent: FlowRun | None = None,
    ) -> None:
        self.name = name
        self.attributes = attributes
        self.parent = parent
        self.trace_id: str | None = None
        self._own = _Sums()
        self._all = _Sums()
        self._parts: dict[tuple[str, str], _Sums] = {}
        self._tool_calls = 0

    @property
    def cost_usd(self) -> float | None:
        """USD of the priced calls so far; `None` when no call had a price."""
        return self.totals().cost_usd

    @property
    def input_tokens(self) -> int:
        """Input tokens so far, including cached ones."""
        return self.totals().input_tokens

    @property
    def output_tokens(self) -> int:
        """Output tokens so far, including reasoning."""
        return self.totals().output_tokens

    @property
    def tokens(self) -> int:
        """Input and output tokens so far."""
        return self.totals().tokens

    @property
    def llm_calls(self) -> int:
        """Model calls that have ended so far, with or without success."""
        return self.totals().llm_calls

    @property
    def retries(self) -> int:
        """Failed attempts that were repeated so far."""
        return self.totals().retries

    @property
    def tool_calls(self) -> int:
        """Runs of `@tool` that have ended so far, with or without success."""
        return self._tool_calls

    @property
    def presumed_cost_usd(self) -> float | None:
        """USD so far that lost replies presumably cost, which `cost_usd` lacks; `None` when none was lost."""
        return self.totals().presumed_cost_usd

    @property
    def unpriced_calls(self) -> int:
        """Calls so far that used something whose price is unknown, so that `cost_usd` lacks it."""
        return self.totals().unpriced_calls

    @property
    def by_model(self) -> dict[str, FlowTotals]:
        """The sums of each model by `provider/model` as it was asked for, the most expensive first."""
        return self._sums_by(1)

    @property
    def by_step(self) -> dict[str, FlowTotals]:
        """The sums of each step by its id, the most expensive first."""
        return self._sums_by(0)

    @property
    def url(self) -> str | None:
        """The address of the trace: in a local Jaeger, or by `TRACEMIND_TRACE_URL="https://.../{trace_id}"`.

        `TRACEMIND_JAEGER_URL` is the address of another Jaeger. `None` when nothing records spans.
        """
        return None if self.trace_id is None else _trace_url(self.trace_id)

    def totals(self) -> FlowTotals:
        """All sums so far at one moment."""
        with _lock:
            return self._all.totals()

    def own_totals(self) -> FlowTotals:
        """The sums so far over the calls of this flow, without those of nested flows."""
        with _lock:
            return self._own.totals()

    def add_call(
        self, usage: LLMUsage | None, *, retries: int, step: str, model: str, presumed_cost_usd: float | None = None
    ) -> None:
        """Count one call, here and in every flow around this one.

        Args:
            usage: its tokens and cost, where a reply came.
            retries: failed attempts that were repeated.
            step: the id of its step.
            model: `provider/model`.
            presumed_cost_usd: USD that its lost replies presumably cost.
        """
        with _lock:
            self._own.add(usage, retries, presumed_cost_usd)
            run: FlowRun | None = self
            while run is not None:
                run._all.add(usage, retries, presumed_cost_usd)
                run._part(step, model).add(usage, retries, presumed_cost_usd)
                run = run.parent

    def add_tool_call(self) -> None:
        """Count one run of a tool, here and in every flow around this one."""
        with _lock:
            run: FlowRun | None = self
            while run is not None:
                run._tool_calls += 1
                run = run.parent

    def _part(self, step: str, model: str) -> _Sums:
        key = (step, model)
        if key not in self._parts and len(self._parts) >= _MAX_PARTS:
            key = _OTHER
        return self._parts.setdefault(key, _Sums())

    def _sums_by(self, index: int) -> dict[str, FlowTotals]:
        joined: dict[str, _Sums] = {}
        with _lock:
            for key, sums in self._parts.items():
                joined.setdefault(key[index], _Sums()).join(sums)
        totals = {name: sums.totals() for name, sums in joined.items()}
        return dict(sorted(totals.items(), key=lambda item: (-(item[1].cost_usd or 0.0), -item[1].llm_calls, item[0])))

    def label(self, name: str) -> LabelValue | None:
        """An attribute as metrics can have it: a list is joined by commas."""
        value = self.attribute(name)
        return ",".join(map(str, value)) if isinstance(value, tuple) else value

    def attribute(self, name: str) -> AttributeValue | None:
        """An attribute of this flow, or of the nearest flow around it that has it."""
        run: FlowRun | None = self
        while run is not None:
            if name in run.attributes:
                return run.attributes[name]
            run = run.parent
        return None

    def __repr__(self) -> str:
        totals = self.totals()
        cost = "unknown" if totals.cost_usd is None else f"${totals.cost_usd:.6g}"
        return f"FlowRun({self.name!r}, llm_calls={totals.llm_calls}, tokens={totals.tokens}, cost={cost})"


JAEGER_VARIABLE = "TRACEMIND_JAEGER_URL"
DEFAULT_JAEGER = "http://localhost:16686"
_TRACE_URL = "TRACEMIND_TRACE_URL"


def _trace_url(trace_id: str) -> str:
    jaeger = os.environ.get(JAEGER_VARIABLE, "").strip() or DEFAULT_JAEGER
    template = os.environ.get(_TRACE_URL, "").strip()
    if template and "{trace_id}" not in template and _MISTAKES.is_new(_TRACE_URL):
        log.warning(
            "%s has no {trace_id}, so it names no trace; put {trace_id} where the id belongs. %s is used until then",
            _TRACE_URL,
            jaeger,
        )
    if "{trace_id}" not in template:
        template = jaeger.rstrip("/") + "/trace/{trace_id}"
    return template.replace("{trace_id}", trace_id)


_listeners: tuple[Callable[[FlowRun], object], ...] = ()


def before_flow_ends(listener: Callable[[FlowRun], object]) -> None:
    """Call a function before the sums of any flow are final."""
    global _listeners
    _listeners = (*(each for each in _listeners if each is not listener), listener)


def flow_ends(run: FlowRun) -> None:
    """Tell the listeners that a flow ends; a fault of theirs is logged."""
    for listener in _listeners:
        try:
            listener(run)
        except Exception:
            report_fault(log, "flow", "end")


_current: contextvars.ContextVar[FlowRun | None] = surrounding_variable("tracemind_flow", default=None)


def current_flow() -> FlowRun | None:
    """The run of the innermost flow around this code; `None` outside of any flow.

    It holds in tasks and `asyncio.to_thread`, and in other threads by `carry_context`.
    """
    return _current.get()


def enter_flow(run: FlowRun) -> Setting:
    """Make a flow the current one, until the setting is undone."""
    return set_here(_current, run)


def _forget() -> None:
    """Begin anew in a forked child, whose copy of the lock may be held for ever."""
    global _lock
    _lock = threading.RLock()
    _current.set(None)


in_forked_child(_forget)
