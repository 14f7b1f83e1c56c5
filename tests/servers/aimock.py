"""aimock, a third-party server, installed with npm into the project's cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import installs
from tests.servers.fixture import closed_port

PACKAGE = "@copilotkit/aimock"
VERSION = "1.43.0"


def npm() -> str | None:
    """The program npm, if there is one."""
    return shutil.which("npm")


def installed() -> Path:
    """The program, installed the first time."""
    return installs.installed(f"aimock-{VERSION}", "node_modules/.bin/llmock", _install)


def _install(folder: Path) -> None:
    options = ["--no-audit", "--no-fund", "--prefix", str(folder)]
    command = [npm() or "npm", "install", *options, f"{PACKAGE}@{VERSION}"]
    installs.run_step(f"aimock {VERSION}: installing", command, folder)


class Aimock:
    """A running aimock."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def journal(self) -> list[dict[str, Any]]:
        """The requests that it got."""
        with urllib.request.urlopen(f"{self.url}/__aimock/journal", timeout=10) as reply:
            return list(json.load(reply))


@contextmanager
def running(folder: Path, fixtures: list[dict[str, Any]]) -> Generator[Aimock]:
    """Run aimock with these fixtures."""
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}), encoding="utf-8")
    port = closed_port()
    options = ["-p", str(port), "-f", str(folder), "--journal-max", "0", "--log-level", "warn", "--strict"]
    log = folder / "log"
    with log.open("wb") as sink, subprocess.Popen([installed(), *options], stdout=sink, stderr=sink) as process:
        try:
            server = Aimock(port)
            installs.wait_until_ready(process, server.journal, log)
            yield server
        finally:
            installs.stop(process)
