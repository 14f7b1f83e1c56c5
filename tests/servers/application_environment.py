"""The Python of applications with the SDKs that people have, installed with pip into the project's cache."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path

from tests.servers import installs
from tests.servers.fixture import REPOSITORY

_PACKAGES = (
    "anthropic==2.10.0",
    "celery==5.7.0",
    "fastapi==0.165.0",
    "langchain-core==1.8.1",
    "langchain-openai==1.7.4",
    "openai==3.51.0",
    "opentelemetry-configuration==0.66b2",
    "opentelemetry-distro==0.66b2",
    "uvicorn==0.54.0",
)


def python() -> Path:
    """That Python, installed the first time. What it runs finds our package by `PYTHONPATH`."""
    wanted = hashlib.sha256(" ".join(_requirements()).encode()).hexdigest()[:12]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return installs.installed(f"applications-{wanted}-python-{version}", "bin/python", _install)


def _requirements() -> list[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *_PACKAGES]


def _install(folder: Path) -> None:
    installs.run_step("Applications: making their environment", [sys.executable, "-m", "venv", folder], folder)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    installs.run_step("Applications: installing", [*pip, *_requirements()], folder)
