"""Do something to a module as soon as it is imported, without importing it."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from .once import report_fault

log = logging.getLogger(__name__)

Change = Callable[[ModuleType], None]


class ImportHooks(importlib.abc.MetaPathFinder):
    """Changes to modules: at once to those that are imported, to the others when they are."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self._changes = changes

    def install(self) -> None:
        """Change what is imported, and wait for the rest."""
        for name, change in self._changes.items():
            if name in sys.modules:
                _run(change, sys.modules[name])
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Wait for no more modules."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The specification that the other finders have, with a loader that makes the change."""
        if name not in self._changes:
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ChangingLoader(spec.loader, self._changes[name])
                return spec
        return None


class _ChangingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, change: Change) -> None:
        self._loader = loader
        self._change = change

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _run(self._change, module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


def _run(change: Change, module: ModuleType) -> None:
    try:
        change(module)
    except Exception:
        report_fault(log, module.__name__, "import")
