"""What we use of the runtime's objects, by their public names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

Hook: TypeAlias = Callable[..., Any]
"""A function of a step, plain or asynchronous."""

StepContext: TypeAlias = Mapping[str, Any]
"""What the runtime tells the functions of a step: `flow`, `run_id`, `step`, `seq`, `config` and more."""


class Operation(Protocol):
    """`tm.flow.operations.Operation`."""

    @property
    def value(self) -> str: ...


class Step(Protocol):
    """`tm.flow.spec.StepDef`, a frozen dataclass."""

    @property
    def name(self) -> str: ...
    @property
    def operation(self) -> Operation: ...
    @property
    def next_steps(self) -> tuple[str, ...]: ...
    @property
    def config(self) -> Mapping[str, object]: ...
    @property
    def before(self) -> Hook | None: ...
    @property
    def run(self) -> Hook | None: ...
    @property
    def after(self) -> Hook | None: ...
    @property
    def on_error(self) -> Hook | None: ...


class Spec(Protocol):
    """`tm.flow.spec.FlowSpec`."""

    name: str
    steps: dict[str, Any]


class Flow(Protocol):
    """`tm.flow.flow.Flow`."""

    @property
    def name(self) -> str: ...

    def spec(self) -> Any: ...
