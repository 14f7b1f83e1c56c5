"""The Python of an application with other instrumentations, installed with pip into the project's cache."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path

from tests.servers import installs
from tests.servers.fixture import REPOSITORY

_INSTRUMENTATIONS = (
    "openai",
    "openinference-instrumentation-openai==0.1.66",
    "opentelemetry-instrumentation-genai-openai==1.3b0",
)


def python() -> Path:
    """That Python, installed the first time. What it runs finds our package by `PYTHONPATH`."""
    wanted = hashlib.sha256(" ".join(_requirements()).encode()).hexdigest()[:12]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return installs.installed(f"instrumentations-{wanted}-python-{version}", "bin/python", _install)


def _requirements() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *_INSTRUMENTATIONS]


def _install(folder: Path) -> None:
    installs.run_step("Instrumentations: making their environment", [sys.executable, "-m", "venv", folder], folder)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    installs.run_step("Instrumentations: installing", [*pip, *_requirements()], folder)
