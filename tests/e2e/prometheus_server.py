"""Starts a Prometheus for one test."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from collector.stack.ports import free_ports, url
from collector.stack.processes import answers, wait_until

from tests.e2e.collectors import WAIT_S
from tests.servers.installs import stop


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
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        ready = wait_until(lambda: process.poll() is not None or answers(f"{address}/-/ready"), WAIT_S)
        assert ready, log.read_text()
        assert process.poll() is None, log.read_text()
        yield address
    finally:
        stop(process, WAIT_S)
