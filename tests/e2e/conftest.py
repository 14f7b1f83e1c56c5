"""Starts the real Collector, Jaeger and Prometheus once for all end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.e2e.backends import ROOT, STACK_COMMAND, Stack, run_stack
from tests.e2e.fleet import Fleet, running_fleet
from tests.required import missing

NEITHER_GO_NOR_DOCKER = 3


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the start of the stack, which takes minutes the first time, out of a test's time.

    The tests of the fleet come last, one after the other: they ask for its last 15 minutes.
    """
    items.sort(key=lambda item: "fleet" in getattr(item, "fixturenames", ()))
    for item in items:
        if item.get_closest_marker("e2e") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(120, func_only=True))


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack on free ports, scraped each second, and built first where necessary."""
    state = tmp_path_factory.mktemp("stack")
    try:
        yield Stack(state=state, **start_stack(request.config, state))
    finally:
        run_stack("down", "--state", str(state))


@pytest.fixture(scope="session")
def fleet(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The scripted fleet, whose metrics are in a Prometheus with the rules."""
    with running_fleet(stack, tmp_path_factory.mktemp("fleet") / "prometheus") as running:
        yield running


def start_stack(config: pytest.Config, state: Path) -> dict[str, str]:
    done = up_visibly(config, state)
    if done.returncode == NEITHER_GO_NOR_DOCKER:
        missing(done.stderr.strip())
    if done.returncode != 0:
        pytest.fail(f"the stack did not start (exit code {done.returncode}):\n{done.stderr}", pytrace=False)
    return cast("dict[str, str]", json.loads(done.stdout))


def up_visibly(config: pytest.Config, state: Path) -> subprocess.CompletedProcess[str]:
    """Run `up`, with its progress on the terminal, since a first build takes minutes."""
    command = [*STACK_COMMAND, "up", "--ports", "auto", "--json", "--state", str(state)]
    capture = cast("Any", config.pluginmanager.getplugin("capturemanager"))
    lines: list[str] = []
    environment = {**os.environ, "TRACEMIND_COLLECTOR_EVENTS": "detailed"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            with capture.global_and_fixture_disabled():
                print(f"\n{line.rstrip()}", end="", file=sys.stderr, flush=True)
        stdout = process.stdout.read()
    return subprocess.CompletedProcess(command, process.returncode, stdout, "".join(lines))
