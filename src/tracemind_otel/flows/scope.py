"""A run of a flow without its span: the sums, the ids and the budget of everything below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .._base.context import Setting
from .budget import Budget, BudgetLimits, current_budget, enter_budget
from .correlation import NO_CORRELATION, NO_PROMPT, Correlation, Prompt, enter_correlation, enter_step
from .sources import NO_SOURCES, CorrelationSources
from .totals import NO_ATTRIBUTES, AttributeValue, FlowRun, current_flow, enter_flow, flow_ends


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSpec:
    """The settings of a flow, the same for every run."""

    ids: CorrelationSources = NO_SOURCES
    """Ids and tags of everything below."""
    limits: BudgetLimits | None = None
    """Limits of all calls below; `None` for no budget."""

    def ids_of(self, flow: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Correlation:
        """The ids of one run with these arguments."""
        return self.ids.of_call(flow, args, kwargs)


class NoScope:
    """A run without a span or sums."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return "a decorated function"

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def item(self, value: object) -> None: ...

    def fail(self, error_type: str) -> None: ...

    def end(self, exc: BaseException | None, result: object = None, *, ended_ns: int | None = None) -> None: ...

    def close(self, ended_ns: int | None = None) -> None: ...


NO_SCOPE = NoScope()


class StepContext(NoScope):
    """A step without a span: model calls below it have its name."""

    __slots__ = ("_name", "_prompt", "_setting")

    def __init__(self, name: str, prompt: Prompt = NO_PROMPT) -> None:
        self._name = name
        self._prompt = prompt
        self._setting: Setting | None = None

    def enter(self) -> None:
        self._setting = enter_step(self._name, self._prompt)

    def leave(self) -> None:
        if self._setting is not None:
            self._setting.undo()


def plain_budget(limits: BudgetLimits, name: str) -> Budget:
    """A budget inside the ones around it."""
    return Budget(limits, name=name, parent=current_budget())


class FlowContext(NoScope):
    """A run without a span, nested in the flow, the ids and the budget around it."""

    __slots__ = ("_budget", "_ids", "_settings", "run")

    def __init__(
        self,
        name: str,
        spec: FlowSpec,
        ids: Correlation,
        attributes: Mapping[str, AttributeValue] = NO_ATTRIBUTES,
        make_budget: Callable[[BudgetLimits, str], Budget] = plain_budget,
    ) -> None:
        self.run = FlowRun(name, attributes, current_flow())
        self._ids = ids
        self._budget: Budget | None = None
        if spec.limits is not None:
            self._budget = make_budget(spec.limits, name)
        self._settings: list[Setting] = []

    def enter(self) -> None:
        self._settings = [enter_flow(self.run)]
        if self._ids is not NO_CORRELATION:
            self._settings.append(enter_correlation(self._ids))
        if self._budget is not None:
            self._settings.append(enter_budget(self._budget))

    def leave(self) -> None:
        for setting in self._settings:
            setting.undo()

    def end(self, exc: BaseException | None, result: object = None, *, ended_ns: int | None = None) -> None:
        flow_ends(self.run)

    def close(self, ended_ns: int | None = None) -> None:
        flow_ends(self.run)
