"""What we use of the runtime's objects, by their public names, and the name under which we record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from ...otel.instruments import SCOPE_NAME

SCOPE: Final = f"{SCOPE_NAME}.integrations.trace_mind"
"""The instrumentation scope of what is not recorded as it happens: the runtime's metrics, and stored runs.

An export has our other metrics under the scope of the package, and OTLP's encoder keeps one group for each scope.
"""

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
