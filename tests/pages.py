"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "collector" / "README.md", *sorted(DOCS.rglob("*.md"))]
"""Every page, the README first."""

_BLOCK = re.compile(r'^```(\w*)(?: title="([\w.-]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    page: str
    """The page's path in the repository."""
    language: str
    """The word after the fence."""
    title: str
    """The name of the file that the block shows; empty where it shows none."""
    code: str
    """What is between the fences."""
    number: int
    """The block's number on its page."""

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


@cache
def blocks() -> list[Block]:
    """Every code block of every page."""
    return [
        Block(page.relative_to(ROOT).as_posix(), match[1], match[2] or "", match[3], number)
        for page in PAGES
        for number, match in enumerate(_BLOCK.finditer(page.read_text(encoding="utf-8")), 1)
    ]


def files(page: str) -> dict[str, str]:
    """The files that a page shows, by name."""
    return {block.title: block.code for block in blocks() if block.page == page and block.title}


def write_files(page: str, directory: Path) -> None:
    """Put the files that a page shows into a directory."""
    for name, code in files(page).items():
        (directory / name).write_text(code, encoding="utf-8")
