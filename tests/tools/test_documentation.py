"""`make docs` builds the documentation, and fails where a reader would meet a dead link."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pages import DOCS, PAGES, ROOT

pytestmark = pytest.mark.tools

BUILD = (".venv-docs/bin/python", "-m", "mkdocs", "build", "--strict")


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """The documentation, built as a contributor builds it."""
    subprocess.run(["make", "docs"], cwd=ROOT, check=True, timeout=280)


def test_every_page_is_built(built: None) -> None:
    """Each page of docs/ is a page of the site, and the API page shows the signature of a function."""
    for page in PAGES:
        if DOCS in page.parents:
            assert (ROOT / "site" / page.relative_to(DOCS).with_suffix(".html")).is_file()
    assert "deadline_ms" in (ROOT / "site" / "api.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("addition", "named"),
    [
        ("[x](nowhere.md)", "nowhere.md"),
        ("[x](flows.md#nothing)", "#nothing"),
        ("::: tracemind_otel.no_such_name", "no_such_name"),
    ],
    ids=["page", "anchor", "name"],
)
def test_a_dead_link_fails_the_build(tmp_path: Path, addition: str, named: str) -> None:
    """A link to a page, a heading or a name that does not exist ends the build with its name."""
    for part in ("docs", "src"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "tutorial.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{addition}\n")
    command = [str(ROOT / BUILD[0]), *BUILD[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert named in done.stderr + done.stdout
