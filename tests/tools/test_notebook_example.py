"""The example notebook, run headless by nbclient in a real kernel."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.programs import clean_environment
from tests.servers.fixture import REPOSITORY

pytestmark = pytest.mark.tools

RUN = """
import json, sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=60).execute()
print(json.dumps([cell for cell in notebook.cells if cell.cell_type == "code"]))
"""


def test_the_notebook_has_its_cost_per_step_in_three_lines(python: Path, tmp_path: Path) -> None:
    """A kernel has a running loop: the cells await, and a loop over the sums of the flow prints each step."""
    environment = clean_environment(
        PYTHONPATH=str(REPOSITORY / "src"),
        IPYTHONDIR=str(tmp_path),
        JUPYTER_RUNTIME_DIR=str(tmp_path),
        PATH=f"{python.parent}:/usr/bin:/bin",
    )
    done = subprocess.run(
        [python, "-c", RUN, REPOSITORY / "examples" / "notebook.ipynb"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, _, flow, view = json.loads(done.stdout.splitlines()[-1])
    printed = "".join(output.get("text", "") for output in flow["outputs"])
    assert re.findall(r"^(\w+) +1 call  \d+ tokens  \$0\.00\d+$", printed, re.MULTILINE) == ["write", "research"]
    lines = flow["source"].splitlines()
    assert len([line for line in lines if line.startswith(("with", "for")) or "print(" in line]) == 3
    assert "invoke_workflow report" in "".join(output.get("text", "") for output in view["outputs"])
