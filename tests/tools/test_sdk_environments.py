"""The matrix of SDKs in environments of their own: the newest release of each, and one that is a year old."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.servers import sdk_environments
from tests.servers.fixture import REPOSITORY

pytestmark = [pytest.mark.tools, pytest.mark.slow]

WARNINGS = "filterwarnings=ignore\nerror:::tracemind_otel"
"""Releases that were not made for each other warn of much; a warning of ours is an error all the same."""


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("age", sdk_environments.AGES)
@pytest.mark.parametrize("environment", sdk_environments.SDKS)
def test_every_sdk_in_every_way(
    environment: str, age: str, tmp_path: Path, visibly: Callable[[], AbstractContextManager[None]]
) -> None:
    """Each way to ask each SDK passes what `test_sdk_matrix.py` asserts, run by pytest in the environment."""
    with visibly():
        python = sdk_environments.python(environment, age)
    report = tmp_path / "report.xml"
    command: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        WARNINGS,
        f"--junit-xml={report}",
    ]
    ended = subprocess.run(
        [*command, "tests/sdks/test_sdk_matrix.py"],
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / "src"),
            "TRACEMIND_TEST_SDKS": sdk_environments.SDKS[environment],
        },
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    passed = {case.get("name", "").partition("[")[2] for case in ElementTree.parse(report).iter("testcase")}
    for sdk in sdk_environments.SDKS[environment].split():
        assert any(name.startswith(sdk) for name in passed), f"no test asked {sdk}"
