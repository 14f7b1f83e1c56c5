"""The trace-mind runtime (PyPI `trace-mind`), installed with pip into the project's cache, for tests to import."""

from __future__ import annotations

import sys
from pathlib import Path

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
