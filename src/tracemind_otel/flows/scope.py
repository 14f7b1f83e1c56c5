"""A run of a flow without its span: the sums, the ids and the budget of everything below."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._base.context import Setting
from ..errors import ConfigError
from .budget import Budget, BudgetLimits, Share, current_budget, enter_budget
from .budget.accounts import Sharing
from .correlation import NO_CORRELATION, NO_PROMPT, Correlation, Prompt, enter_correlation, enter_step
from .sources import NO_SOURCES, ArgumentFunction, CorrelationSources
from .totals import NO_ATTRIBUTES, AttributeValue, FlowRun, current_flow, enter_flow, flow_ends


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSpec:
    """The settings of a flow, the same for every run."""

    ids: CorrelationSources = NO_SOURCES
    """Ids and tags of everything below."""
    limits: BudgetLimits | None = None
    """Limits of all calls below; `None` for no budget."""
    sharing: Sharing | None = None
    """How the limits are shared by many processes; `None` for a budget of each run."""
    key_of: ArgumentFunction | None = None
    """Computes the key of the shared budget from the arguments; `None` for the key of `sharing`."""

    def ids_of(self, flow: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Correlation:
        """The ids of one run with these arguments."""
        return self.ids.of_call(flow, args, kwargs)

    def share_of(self, flow: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Share | None:
        """The account of one run with these arguments; `None` for a budget of this run alone.

        Raises:
            ConfigError: there is no state, or no key: a limit that cannot be held is no limit.
        """
        if self.sharing is None or self.limits is None:
            return None
        if self.key_of is None:
            return self.sharing.share(flow, self.limits)
        try:
            key: Any = self.key_of(args, kwargs)
        except Exception as error:
            raise ConfigError(
                f"key of @flow {flow!r} raised {type(error).__name__}; it must return a string for the arguments"
            ) from error
        return self.sharing.by_key(key).share(flow, self.limits)

    def beside(self, signature: inspect.Signature) -> FlowSpec:
        """The same for a decorated function of this signature."""
        key_of = None if self.key_of is None else self.key_of.beside(signature)
        return replace(self, ids=self.ids.beside(signature), key_of=key_of)

    @property
    def reads_arguments(self) -> bool:
        """Whether an id or the key depends on the arguments of a call."""
        return bool(self.ids.called.functions) or self.key_of is not None


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


def plain_budget(limits: BudgetLimits, name: str, share: Share | None) -> Budget:
    """A budget inside the ones around it."""
    return Budget(limits, name=name, parent=current_budget(), share=share)


class FlowContext(NoScope):
    """A run without a span, nested in the flow, the ids and the budget around it."""

    __slots__ = ("_budget", "_ids", "_settings", "run")

    def __init__(
        self,
        name: str,
        spec: FlowSpec,
        ids: Correlation,
        attributes: Mapping[str, AttributeValue] = NO_ATTRIBUTES,
        share: Share | None = None,
        make_budget: Callable[[BudgetLimits, str, Share | None], Budget] = plain_budget,
    ) -> None:
        self.run = FlowRun(name, attributes, current_flow())
        self._ids = ids
        self._budget: Budget | None = None
        if spec.limits is not None:
            self._budget = make_budget(spec.limits, name, share)
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
