"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "collector" / "README.md", *sorted(DOCS.rglob("*.md"))]
"""Every page, the README first."""

OPERATIONS = [
    "collector/README.md",
    "docs/production.md",
    "docs/how-to/alerts.md",
    "docs/how-to/collector.md",
    "docs/how-to/dashboards.md",
    "docs/how-to/feed-your-apm.md",
    "docs/how-to/outages.md",
    "docs/how-to/prometheus.md",
    "docs/how-to/scale.md",
    "docs/how-to/shared-budgets.md",
]
"""The pages about production. On these a test runs each block, or a mark above the block says why it does not."""

NEEDS = {"account": r"\botelcol\b|https://", "cluster": r"\b(?:kubectl|helm)\b", "docker": r"\bdocker\b"}
"""What a block may need that the tests do not have, and the commands of a block that does."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+: .+?) -->\n\n?)?"
    r'^(?P<indent> *)```(?P<language>\w*)(?: title="(?P<title>[\w.-]+)")?\n(?P<code>.*?)^(?P=indent)```$',
    re.MULTILINE | re.DOTALL,
)


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
    line: int = 0
    """The line of the opening fence."""
    mark: str = ""
    """The HTML comment above the block, such as `needs: docker`; empty where there is none."""

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"

    @property
    def is_run(self) -> bool:
        """Whether the block can run here: no mark says what it needs or which other test runs it."""
        return not self.mark.startswith(("needs: ", "run by: "))

    @property
    def programs(self) -> set[str]:
        """What each line of a shell block runs: a program, or the file or module that Python runs."""
        lines = [
            re.sub(r"^(?:export )?(?:\w+=\S* *)*(?:python3? (?:-m )?)?", "", line) for line in self.code.splitlines()
        ]
        return {Path(line.split()[0]).name for line in lines if line and line[0] not in " #"}

    @property
    def problem(self) -> str:
        """Why nobody knows whether the block works; empty if a test runs it or a mark says why none does."""
        kind, _, value = self.mark.partition(": ")
        match kind:
            case "needs" if value not in NEEDS:
                return f"needs what? Known are {', '.join(NEEDS)}"
            case "needs" if not re.search(NEEDS[value], self.code):
                return f"no command in it needs: {value}"
            case "run by" if not (ROOT / value).is_file():
                return f"the file {value} does not exist"
            case "run by" if unnamed := {
                each for each in self.programs if each not in (ROOT / value).read_text("utf-8")
            }:
                return f"{value} does not name {', '.join(sorted(unnamed))}"
            case "needs" | "run by" | "shows":
                return ""
            case "" if self.language in ("bash", "promql", "python", "yaml"):
                return ""
            case _:
                return "make it a block of bash, or put <!-- shows: output --> above it if it is no command"


@cache
def blocks() -> list[Block]:
    """Every code block of every page."""
    return [block for page in PAGES for block in blocks_in(page.relative_to(ROOT).as_posix(), page.read_text("utf-8"))]


def blocks_in(page: str, text: str) -> list[Block]:
    """The code blocks of one page."""
    return [
        Block(
            page,
            match["language"],
            match["title"] or "",
            textwrap.dedent(match["code"]),
            number,
            text.count("\n", 0, match.start("language")) + 1,
            match["mark"] or "",
        )
        for number, match in enumerate(_BLOCK.finditer(text), 1)
    ]


def files(page: str) -> dict[str, str]:
    """The files that a page shows, by name."""
    return {block.title: block.code for block in blocks() if block.page == page and block.title}


def write_files(page: str, directory: Path) -> None:
    """Put the files that a page shows into a directory."""
    for name, code in files(page).items():
        (directory / name).write_text(code, encoding="utf-8")
