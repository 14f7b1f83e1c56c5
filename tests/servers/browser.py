"""A Chromium without a window, for pages that people open in a browser."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from collector.stack.console import StackError

from tests.servers import installs

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PACKAGES = ("chromium", "chromium-driver")


@dataclass(frozen=True)
class Browser:
    """The programs that drive a browser."""

    program: str
    """The browser."""
    driver: str
    """Its WebDriver server."""


def browser() -> Browser | None:
    """The browser of this machine; in a container that runs as root, one that apt installs. `None` without one."""
    found = _found()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with tempfile.TemporaryDirectory() as folder:
            command = ["apt-get", "install", "--yes", "--no-install-recommends", *_PACKAGES]
            environment = {"DEBIAN_FRONTEND": "noninteractive"}
            try:
                installs.run_step("Chromium: updating the lists of apt", ["apt-get", "update"], Path(folder))
                installs.run_step("Chromium: installing with apt", command, Path(folder), environment)
            except StackError:
                return None
        found = _found()
    return found


def _found() -> Browser | None:
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    return None if program is None or driver is None else Browser(program, driver)
