"""The processes around the application: the provider, the store, and the real Collector between."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from collector.stack.golang import build_program, find_built, find_go
from collector.stack.programs import GO_PROGRAMS

from benchmarks.processes import running

HERE = Path(__file__).resolve().parent
CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: "127.0.0.1:{port}"
exporters:
  # Without a queue: what the receiver answers 200 to is in the store.
  otlp_http:
    endpoint: "{sink}"
    sending_queue: {{enabled: false}}
    retry_on_failure: {{enabled: false}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
    metrics: {{receivers: [otlp], exporters: [otlp_http]}}
  telemetry:
    logs: {{level: error}}
    metrics: {{level: none}}
"""
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def server(module: str, *arguments: str) -> AbstractContextManager[str]:
    """The base URL of one of the servers beside this file."""
    return running(f"benchmarks.chaos.{module}", *arguments)


@contextmanager
def small_disk(directory: Path) -> Generator[None]:
    """A file system of two megabytes at a directory, which takes root to mount."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)]
    try:
        subprocess.run(mount, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"a small file system cannot be mounted, which takes root: {error}") from None
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def ask(url: str, method: str = "GET") -> Any:
    """The JSON at an address; `None` where the answer is empty."""
    with _NO_PROXY.open(urllib.request.Request(url, method=method), timeout=60.0) as response:
        body = response.read()
    return json.loads(body) if body else None


class Collector:
    """The real Collector, in front of the store."""

    def __init__(self, folder: Path, sink_url: str) -> None:
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._config = folder / "otelcol.yaml"
        self._config.write_text(CONFIG.format(port=self._port, sink=sink_url))
        program = next(each for each in GO_PROGRAMS if each.name == "otelcol")
        go = find_go()
        self._binary = find_built(program, go) or build_program(program, go)
        self._log = folder / "otelcol.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        with self._log.open("ab") as log:
            command = [str(self._binary), f"--config={self._config}"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30.0
        while not _listens(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the Collector does not start; see {self._log}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


class Application:
    """The application, which can be killed and started again."""

    def __init__(self, folder: Path, provider_url: str, collector_url: str, rate: float, spool: Path | None) -> None:
        self._folder, self._rate = folder, rate
        self._arguments = [str(folder), provider_url, collector_url]
        self._spool = [] if spool is None else [str(spool)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float) -> None:
        """Start it for so many seconds of calls."""
        command = [sys.executable, "-m", "benchmarks.chaos.application", *self._arguments]
        with (self._folder / "application.log").open("ab") as log:
            arguments = [*command, str(self._rate), str(seconds), *self._spool]
            self._process = subprocess.Popen(arguments, cwd=HERE.parents[1], stderr=log)

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        assert self._process is not None
        return self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
