"""aimock, a server that nobody here wrote: installed with npm into the cache of the project."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from collector import stack
from tests.servers.fixture import closed_port

PACKAGE = "@copilotkit/aimock"
VERSION = "1.43.0"
_READY_S = 30.0


def npm() -> str | None:
    """The program npm, where there is one."""
    return shutil.which("npm")


def _folder() -> Path:
    return stack.cache_dir() / f"aimock-{VERSION}"


def installed() -> Path:
    """The program, installed the first time."""
    program = _folder() / "node_modules" / ".bin" / "llmock"
    if not program.exists():
        _folder().mkdir(parents=True, exist_ok=True)
        command = [
            npm() or "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(_folder()),
            f"{PACKAGE}@{VERSION}",
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return program


class Aimock:
    """A running aimock."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def journal(self) -> list[dict[str, Any]]:
        """What it got."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal", timeout=10) as reply:
            return list(json.load(reply))


@contextmanager
def running(folder: Path, fixtures: list[dict[str, Any]]) -> Generator[Aimock]:
    """aimock, while it answers with these fixtures."""
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    port = closed_port()
    options = ["-p", str(port), "-f", str(folder), "--journal-max", "0", "--log-level", "warn", "--strict"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([installed(), *options], stdout=log, stderr=log) as process,
    ):
        try:
            _wait_for(server := Aimock(port), process)
            yield server
        finally:
            process.terminate()


def _wait_for(server: Aimock, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _READY_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            server.journal()
            return
        time.sleep(0.05)
    raise RuntimeError("aimock did not start")
