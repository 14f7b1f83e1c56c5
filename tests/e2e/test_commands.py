"""The commands of the pages about production, on the real programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from collector.stack.cache import cache_dir
from collector.stack.ports import free_ports, port_environment

from tests.e2e.collectors import go_program
from tests.pages import OPERATIONS, ROOT, Block, blocks, write_files
from tests.programs import clean_environment
from tests.required import prometheus_program

pytestmark = pytest.mark.e2e

SHELL = [block for block in blocks() if block.page in OPERATIONS and block.language == "bash"]
YAML = [block for block in blocks() if block.page in OPERATIONS and block.language == "yaml"]
SHOWN = ("collector", "docker-compose.yml", "examples")
"""What a command finds beside it, as in the root of the repository."""

VALIDATE = """\
otelcol() { case "$1" in --config*) command otelcol validate "$@" ;; *) command otelcol "$@" ;; esac; }
jaeger() { case "$1" in --config*) command jaeger validate "$@" ;; *) command jaeger "$@" ;; esac; }
prometheus() { promtool check config "${1#--config.file=}"; }
"""
"""Of servers, which would run for ever, the configuration is validated instead."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs that the commands name."""
    folder = tmp_path_factory.mktemp("programs")
    prometheus = prometheus_program()
    found = {"otelcol": go_program("otelcol"), "jaeger": go_program("jaeger"), "prometheus": prometheus}
    for name, program in {**found, "promtool": prometheus.parent / "promtool"}.items():
        (folder / name).symlink_to(program)
    for name, arguments in {"python": "", "python3": "", "tracemind-otel": " -m tracemind_otel"}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable}{arguments} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """An empty folder with what a checkout has in its root, and a cache with the builds and without a running stack."""
    (tmp_path / "cache").mkdir()
    for build in cache_dir().iterdir():
        if not build.name.startswith("."):
            (tmp_path / "cache" / build.name).symlink_to(build)
    root = tmp_path / "root"
    root.mkdir()
    for name in SHOWN:
        (root / name).symlink_to(ROOT / name)
    return root


def run_shell(code: str, programs: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(
        PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        TRACEMIND_STACK_CACHE=str(scratch.parent / "cache"),
        **port_environment(free_ports()),
    )
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", VALIDATE + code],
        cwd=scratch,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("block", [block for block in SHELL if block.is_run], ids=str)
def test_the_commands_of_a_block_run(block: Block, programs: Path, scratch: Path) -> None:
    """Whoever copies a block of a page about production into a shell gets no error."""
    write_files(block.page, scratch)
    try:
        done = run_shell(block.code, programs, scratch)
    finally:
        if "collector.stack up" in block.code:
            run_shell("python3 -m collector.stack down", programs, scratch)

    assert done.returncode == 0, f"{block.page}:{block.line}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    "code", ["otelcol --config collector/otelcool.yaml\nls", "promtool check config nothing.yml", "otelcool || false"]
)
def test_a_wrong_command_is_noticed(code: str, programs: Path, scratch: Path) -> None:
    """A file or a program that does not exist fails the block, also in its first line."""
    assert run_shell(code, programs, scratch).returncode != 0


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_marked_block_is_shell_at_least(block: Block) -> None:
    """A block that cannot run here has no error of syntax."""
    assert subprocess.run(["bash", "-n", "-c", block.code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_shown_configuration_is_valid(block: Block, programs: Path, scratch: Path) -> None:
    """A configuration of the Collector or of Prometheus is one that the program accepts."""
    (scratch / "shown.yaml").write_text(block.code)
    shown: list[dict[str, Any]] = list(yaml.safe_load_all(block.code))
    command = {
        "receivers": "otelcol --config shown.yaml",
        "scrape_configs": "promtool check config shown.yaml",
        "groups": "promtool check rules shown.yaml",
    }
    (chosen,) = [word for key, word in command.items() if key in shown[0]] or ["true"]
    done = run_shell(chosen, programs, scratch)

    assert done.returncode == 0, f"{block.page}:{block.line}\n{done.stdout}{done.stderr}"
