"""Runs an application as `opentelemetry-instrument python app.py` does; the application knows nothing of us."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.servers.fixture import REPOSITORY

APP = """
import sys
from openai import OpenAI

with OpenAI(api_key="sk-test", base_url=sys.argv[1]) as client:
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
print(reply.choices[0].message.content)
"""
_COMMAND = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
"""What the script `opentelemetry-instrument` runs."""


def declare_entry_points(folder: Path) -> None:
    """Declare the package's entry points in a folder of the import path, as its installation does."""
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items())
    declared = folder / "tracemind_otel-1.dist-info"
    declared.mkdir()
    (declared / "METADATA").write_text("Name: tracemind-otel\nVersion: 1\n")
    (declared / "entry_points.txt").write_text("\n".join(lines))


def run_instrumented(
    folder: Path, base_url: str, python: Path | str = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the application in a folder that has the entry points, with these variables of the environment."""
    app = folder / "app.py"
    app.write_text(APP)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TRACEMIND_"))},
        "PYTHONPATH": os.pathsep.join((str(folder), str(REPOSITORY / "src"))),
        "NO_PROXY": "127.0.0.1",
        **variables,
    }
    return subprocess.run(
        [python, "-c", _COMMAND, python, str(app), base_url],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
