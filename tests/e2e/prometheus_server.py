"""Starts a Prometheus for one test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from collector.stack.ports import free_ports, url
from collector.stack.processes import answers
from collector.stack.prometheus import fetch_prometheus, find_prometheus

from tests.e2e.backends import poll


def prometheus_program() -> Path:
    """The Prometheus of this machine, which CI fetches; the test is skipped without one."""
    found = find_prometheus()
    if found is None and os.environ.get("TRACEMIND_E2E_REQUIRED") == "1":
        found = fetch_prometheus()
    if found is None:
        pytest.skip("needs Prometheus")
    return found


@contextmanager
def serving(program: Path, config: Path, *options: str) -> Generator[str]:
    """Start Prometheus on a free port, with its data beside its configuration; gives its address."""
    address = url(free_ports()["prometheus"])
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address={address.removeprefix('http://')}",
        *options,
    ]
    log = config.parent / "prometheus.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            poll(lambda: process.poll() is not None or answers(f"{address}/-/ready"), bool, 30.0, "Prometheus")
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            process.terminate()
