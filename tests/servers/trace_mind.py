"""The trace-mind runtime (PyPI `trace-mind`), installed with pip into the project's cache, for tests to import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.servers import installs

VERSION = "2.0.2"
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def python() -> Path:
    """The Python of an environment that has the runtime and PyYAML, installed the first time."""
    return installs.installed(f"trace-mind-{VERSION}-{_PYTHON}", "bin/python", _install)


def packages() -> Path:
    """The folder of what is installed there."""
    return python().parents[1] / "lib" / _PYTHON / "site-packages"


def _install(folder: Path) -> None:
    installs.run_step("trace-mind: making its environment", [sys.executable, "-m", "venv", folder], folder)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    installs.run_step("trace-mind: installing", [*pip, f"trace-mind=={VERSION}", "pyyaml"], folder)


MODULES = (
    *("flow.runtime", "flow.spec", "flow.operations", "flow.policies", "flow.recipe_loader", "flow.step_registry"),
    "flow.trace_store",
    *("ai.llm_client", "ai.providers.base", "ai.recorder_bridge", "run_recipe"),
    *("governance.config", "governance.manager", "governance.hitl"),
)
"""Where the names are that tests use."""


@pytest.fixture
def trace_mind(
    visibly: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Any]:
    """The runtime's public names, imported anew, in a folder of its own: it writes `state.jsonl` where it runs."""
    with visibly():
        found = packages()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(found)])
    names: dict[str, Any] = {}
    for module in MODULES:
        names |= vars(importlib.import_module(f"tm.{module}"))
    yield SimpleNamespace(**names)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tm"]:
        del sys.modules[name]


class StepsFlow:
    """A flow of steps that run one after another."""

    def __init__(self, runtime: Any, name: str, **steps: Callable[..., Any]) -> None:
        self.name = name
        names = [*steps, None]
        self._spec = runtime.FlowSpec(name=name)
        for (step, run), following in zip(steps.items(), names[1:], strict=True):
            next_steps = () if following is None else (following,)
            self._spec.add_step(runtime.StepDef(step, runtime.Operation.TASK, next_steps, run=run))

    def spec(self) -> Any:
        return self._spec
