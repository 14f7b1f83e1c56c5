"""Every code block that a reader can copy works."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import tracemind_otel as tm
import tracemind_otel.errors
from tests.pages import DOCS, OPERATIONS, PAGES, ROOT, Block, blocks, blocks_in, write_files
from tracemind_otel.otel import semconv

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
METRIC = re.compile(r"\b(?:gen_ai|tracemind)_\w+_(?:total|bucket|count|sum)\b")


def in_language(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language]


def shell_lines() -> list[str]:
    """The shell commands of the pages; tests/e2e/test_commands.py has those of the pages about production."""
    shell = [block for block in in_language("bash") if block.page not in OPERATIONS]
    return sorted({line for block in shell for line in block.code.splitlines() if line})


def test_every_block_about_production_is_run_or_says_why_not() -> None:
    """On the pages about production each block is run by a test, or says what it needs."""
    problems = [f"{b.page}:{b.line}: {b.problem}" for b in blocks() if b.page in OPERATIONS and b.problem]
    assert problems == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```text\notelcol --config x.yaml\n```\n", "make it a block of bash"),
        ("<!-- shows: output -->\n```text\nready\n```\n", ""),
        ("```bash\ndocker compose up -d\n```\n", ""),
        ("<!-- needs: docker -->\n\n```bash\ndocker compose up -d\n```\n", ""),
        ("<!-- needs: docker -->\n```bash\nls\n```\n", "no command in it needs: docker"),
        ("<!-- needs: luck -->\n```bash\nls\n```\n", "needs what? Known are account, cluster, docker"),
        ("<!-- run by: tests/test_nothing.py -->\n```bash\nls\n```\n", "the file tests/test_nothing.py does not exist"),
        ("<!-- run by: tests/pages.py -->\n```bash\nA=1 uvicorn x\n```\n", "tests/pages.py does not name uvicorn"),
        ("1. A step:\n\n   ```console\n   $ ls\n   ```\n", "make it a block of bash"),
    ],
)
def test_a_block_that_nobody_runs_is_found(text: str, problem: str) -> None:
    """A command without a mark in a block that no test runs, and a mark that is not true, are named with their line."""
    (block,) = blocks_in("page.md", f"# Page\n\n{text}")
    assert block.problem.partition(",")[0] == problem.partition(",")[0]
    assert block.line == 3 + text.partition("```")[0].count("\n")


@pytest.mark.parametrize("block", [b for b in in_language("python") if not b.title and b.is_run], ids=str)
def test_python_block_prints_what_it_says(block: Block, tmp_path: Path) -> None:
    """A Python block runs as it is, beside the files that its page shows, and prints what its comments say."""
    write_files(block.page, tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block.code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    promised = [match[1].split(":")[0] for match in re.finditer(r"print\(.*\)  # (.*)$", block.code, re.MULTILINE)]
    if promised:
        assert [line.split(":")[0] for line in done.stdout.splitlines()] == promised


@pytest.mark.parametrize("block", [b for b in in_language("python") if b.title], ids=str)
def test_a_file_that_a_page_shows_is_python(block: Block) -> None:
    """A Python file of a page compiles; the tests of servers and workers run it."""
    compile(block.code, block.title, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # a cell of a notebook may await


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_target_exists(line: str) -> None:
    """Each make command of the documentation is a target of the Makefile that says what it does in `make help`."""
    target = line.split()[1]
    assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False).returncode == 0
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  make {target} +\S", told, re.MULTILINE)


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("pip install ")])
def test_what_is_installed_is_known_to_the_project(line: str) -> None:
    """A page installs this package, with extras that it has, and otherwise what its tests install too."""
    requirements = [need for needs in PROJECT["optional-dependencies"].values() for need in needs]
    known = {re.split(r"[^\w-]", need)[0] for need in requirements}
    for argument in line.replace("'", "").split()[2:]:
        name, _, extras = argument.rstrip("]").partition("[")
        assert name == PROJECT["name"] or name in known
        assert set(filter(None, extras.split(","))) <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("line", [line for line in shell_lines() if not line.startswith(("make ", "pip install "))])
def test_shell_command_runs(line: str, tmp_path: Path) -> None:
    """Any other shell command runs with this environment's programs, also where the Collector it names is down."""
    program, *arguments = line.split()
    found = shutil.which(Path(sys.executable).parent / program)
    assert found, f"{program} is not installed"
    assert subprocess.run([found, *arguments], cwd=tmp_path, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("block", in_language("yaml"), ids=str)
def test_yaml_block_is_yaml(block: Block) -> None:
    """A YAML block can be read by whoever copies it."""
    assert list(yaml.safe_load_all(block.code))


@pytest.mark.parametrize("block", in_language("promql"), ids=str)
def test_a_query_names_metrics_that_exist(block: Block) -> None:
    """A PromQL query asks for metrics of the table in docs/telemetry.md, and counts the first sample of a series."""
    table = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    for metric in METRIC.findall(block.code):
        assert re.search(rf"`{re.escape(metric)}`|`{re.escape(metric.rpartition('_')[0])}_\*`", table), metric
    if "increase(" in block.code:
        assert "last_over_time(" in block.code


def test_blocks_are_found() -> None:
    """There are blocks to run at all, and none in a language that nothing here checks, but for drawings."""
    languages = {block.language for block in blocks()}
    assert {"python", "bash"} <= languages <= {"python", "bash", "promql", "yaml", "text"}


def test_links_lead_somewhere() -> None:
    """A relative link leads to a file that exists, and to a heading that it has."""
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"(?:\]\(|src=\")(?!https?://)([^)\"]+)[)\"]", page.read_text(encoding="utf-8"))
        if not _exists(page, *link.partition("#")[::2])
    ]
    assert not broken


def _exists(page: Path, target: str, anchor: str) -> bool:
    path = page.parent / target if target else page
    return path.exists() and (not anchor or anchor in _anchors(path))


def _anchors(page: Path) -> set[str]:
    """The headings as GitHub and MkDocs both spell them in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml lists each page of docs/ once."""
    listed = re.findall(r"^ +- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES if DOCS in page.parents)


def test_the_api_reference_has_every_public_name() -> None:
    """docs/api.md shows each name of the package, the errors by their module."""
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: tracemind_otel\.(\w+)$", page, re.MULTILINE))
    errors = {name for name in tm.__all__ if hasattr(tracemind_otel.errors, name)}
    assert shown - {"errors", "testing"} == set(tm.__all__) - errors - {"__version__"}


def test_no_example_passes_a_recorder_that_records_nothing() -> None:
    """`tm.Recorder()` stands only on the page about recorders, so that no copied example loses its telemetry."""
    assert not [path.name for path in (ROOT / "examples").glob("*.*") if "Recorder(" in path.read_text("utf-8")]
    assert {block.page for block in blocks() if "tm.Recorder()" in block.code} == {"docs/recorders.md"}


def _source_files() -> list[str]:
    return [path.relative_to(ROOT).as_posix() for top in ("src", "tests") for path in (ROOT / top).rglob("*.py")]


def test_the_page_about_production_names_tests_that_exist() -> None:
    """Whoever doubts a line of docs/production.md finds the test that shows it."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (DOCS / "production.md").read_text(encoding="utf-8")))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_a_page_about_the_source_names_files_that_exist(page: str) -> None:
    """Whoever looks for a file that the page names finds it."""
    named = set(re.findall(r"[\w/]+\.py\b", (ROOT / page).read_text(encoding="utf-8")))
    assert [
        name for name in sorted(named) if not any(f"/{file}".endswith(f"/{name}") for file in _source_files())
    ] == []


def test_the_picture_of_the_tree_has_every_package() -> None:
    """docs/architecture.md shows each folder of the package once."""
    tree = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## The ranks")[0]
    shown = [name for row in re.findall(r"^  .*", tree, re.MULTILINE) for name in re.findall(r"([\w/]+)/(?= )", row)]
    package = ROOT / "src" / "tracemind_otel"
    folders = {path.parent.relative_to(package).parts for path in package.rglob("__init__.py")} - {()}
    known = {parts[-1] for parts in folders}
    assert sorted(known - {part for name in shown for part in name.split("/")}) == []


def test_the_way_of_a_call_names_functions_that_exist() -> None:
    """Each function in the drawings of docs/architecture.md is defined in the source."""
    drawings = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## The way of one call")[2]
    named = set(re.findall(r"(?:attempts|call|account|cfg|client)\.(\w+)|(\w+)\(", drawings))
    source = "".join((ROOT / file).read_text(encoding="utf-8") for file in _source_files() if file.startswith("src"))
    functions = {first or second for first, second in named} - {"py"}
    assert [name for name in sorted(functions) if not re.search(rf"(?:def|class) {name}\b", source)] == []


@pytest.mark.parametrize("command", ["demo", "view", "doctor"])
def test_the_reference_of_the_command_line_has_every_option(command: str) -> None:
    """docs/cli.md describes the options that `--help` lists, and no others."""
    section = (DOCS / "cli.md").read_text(encoding="utf-8").partition(f"## {command}\n")[2].partition("\n## ")[0]
    told = subprocess.run(
        [sys.executable, "-m", "tracemind_otel", command, "--help"], capture_output=True, text=True, check=True
    )
    assert set(re.findall(r"--[a-z]+", section)) == set(re.findall(r"--[a-z]+", told.stdout)) - {"--help"}


def test_the_configuration_page_has_every_argument() -> None:
    """docs/configuration.md has a row for each argument of `configure()`."""
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    rows = {name for row in re.findall(r"^\| (`\w.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert rows == inspect.signature(tm.configure).parameters.keys()


def test_the_telemetry_page_has_every_metric() -> None:
    """docs/telemetry.md names each metric of this package in full."""
    page = (DOCS / "telemetry.md").read_text(encoding="utf-8")
    metrics = [value for name, value in vars(semconv).items() if name.startswith("METRIC_")]
    assert [name for name in metrics if name.startswith("tracemind.") and f"| `{name}` |" not in page] == []


def test_the_telemetry_page_has_every_attribute() -> None:
    """docs/telemetry.md names each attribute in full, or by its end after another one of its family."""
    page = (DOCS / "telemetry.md").read_text(encoding="utf-8")
    names = [value for name, value in vars(semconv).items() if name.startswith(("TRACEMIND_", "GEN_AI_", "EXCEPTION_"))]
    ends = {
        name: [name, *(f"`.{name.split('.', cut)[-1]}`" for cut in range(1, name.count(".") + 1))] for name in names
    }
    assert [name for name in names if not any(end in page for end in ends[name])] == []
