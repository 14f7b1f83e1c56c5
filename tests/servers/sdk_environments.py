"""Environments with SDKs, the newest and a year old, installed with pip into the project's cache."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.servers import installs
from tests.servers.fixture import REPOSITORY

LISTS = REPOSITORY / "tests" / "sdks" / "environments"
SDKS: Mapping[str, str] = {
    "providers": "openai anthropic google mistral cohere ollama boto3",
    "frameworks": "langchain pydantic_ai openai_agents",
    "inference": "groq together hugging_face instructor litellm",
}
"""The modules `tests/sdks/calls_*.py` that run in each environment."""
AGES = ("newest", "year-old")


def python(environment: str, age: str) -> Path:
    """The Python of an environment, installed the first time. What it runs finds our package by `PYTHONPATH`."""
    packages = LISTS / f"{environment}-{age}.txt"
    wanted = hashlib.sha256(packages.read_bytes()).hexdigest()[:12]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    def install(folder: Path) -> None:
        installs.run_step(f"{packages.stem}: making the environment", [sys.executable, "-m", "venv", folder], folder)
        pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
        installs.run_step(f"{packages.stem}: installing", [*pip, "--requirement", packages], folder)

    return installs.installed(f"sdks-{packages.stem}-{wanted}-python-{version}", "bin/python", install)
