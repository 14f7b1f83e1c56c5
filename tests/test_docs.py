"""Every code block that a reader can copy works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    page: str
    language: str
    code: str
    number: int

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def blocks() -> list[Block]:
    return [
        Block(page.name, match[1], match[2], number)
        for page in PAGES
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), 1)
    ]


def shell_lines() -> list[str]:
    return sorted({line for block in blocks() if block.language == "bash" for line in block.code.splitlines()})


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "python"], ids=str)
def test_python_block_prints_what_it_says(block: Block, tmp_path: Path) -> None:
    """A Python block runs as it is, without a key, and prints what its comments say."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    promised = [match[1].split(":")[0] for match in re.finditer(r"print\(.*\)  # (.*)$", block.code, re.MULTILINE)]
    if promised:
        assert done.stdout.splitlines() == promised


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_target_exists(line: str) -> None:
    """Each make command of the documentation is a target of the Makefile that says what it does in `make help`."""
    target = line.split()[1]
    assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False).returncode == 0
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  make {target} +\S", told, re.MULTILINE)


@pytest.mark.parametrize("line", [line for line in shell_lines() if not line.startswith("make ")])
def test_shell_command_runs(line: str, tmp_path: Path) -> None:
    """Any other shell command runs, with this environment's Python; where it sends to a Collector that is down, too."""
    command = line.replace(".venv-demo/bin/python", shutil.which(sys.executable) or sys.executable).split()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_blocks_are_found() -> None:
    """There are blocks to run at all, and none in a language that nothing here runs, but for drawings."""
    languages = {block.language for block in blocks()}
    assert languages - {"text"} == {"python", "bash"}


def test_links_lead_somewhere() -> None:
    """A relative link in a page leads to a file that is there."""
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken
