"""Backends that run on this machine: Arize Phoenix and MLflow, installed with pip into the project's cache.

Phoenix's licence (Elastic 2.0) allows its use as a tool of tests; nothing of either is a dependency of the package.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from collector.stack.ports import some_free_ports

from tests.programs import clean_environment
from tests.servers import installs
from tests.servers.fixture import REPOSITORY

LISTS = REPOSITORY / "tests" / "tools" / "environments"
_READY_S = 400.0
"""Seconds; their databases are made at the first start."""
_VERSIONS = {"phoenix": "20.26", "mlflow": "3.17"}


def python(backend: str) -> Path:
    """The Python that has a backend, installed the first time, each package in the version of its list."""
    packages = LISTS / f"{backend}-{_VERSIONS[backend]}.txt"
    wanted = hashlib.sha256(packages.read_bytes()).hexdigest()[:12]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"

    def install(folder: Path) -> None:
        installs.run_step(f"{backend}: making its environment", [sys.executable, "-m", "venv", folder], folder)
        pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
        installs.run_step(f"{backend}: installing", [*pip, "--no-deps", "--requirement", packages], folder)

    return installs.installed(f"backend-{packages.stem}-{wanted}-python-{version}", "bin/python", install)


TRACES = {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}]}
"""Asks MLflow for the traces of its first experiment."""


@dataclass(frozen=True)
class BackendServer:
    """A server that takes OTLP and shows what it took."""

    url: str

    def ask(self, path: str, document: object = None) -> Any:
        """What its API answers: a GET, or a POST of a document."""
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.url + path, body, {"content-type": "application/json"})
        with _opener.open(request, timeout=60) as reply:
            text = reply.read()
        return json.loads(text) if text.startswith((b"{", b"[")) else text


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def _serving(
    command: list[str | Path], folder: Path, port: int, health: str, environment: Mapping[str, str]
) -> Generator[BackendServer]:
    server, log = BackendServer(f"http://127.0.0.1:{port}"), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean_environment(**environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        installs.wait_until_ready(process, lambda: server.ask(health), log, _READY_S)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers; what it stored is thrown away
        process.wait()


@contextmanager
def phoenix(folder: Path) -> Generator[BackendServer]:
    """Phoenix, with its database in a folder."""
    (port,) = some_free_ports(1)
    environment = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(some_free_ports(1)[0]),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    command: list[str | Path] = [python("phoenix"), "-m", "phoenix.server.main", "serve"]
    with _serving(command, folder, port, "/healthz", environment) as server:
        yield server


@contextmanager
def mlflow(folder: Path) -> Generator[BackendServer]:
    """MLflow, with its database in a folder."""
    (port,) = some_free_ports(1)
    store = f"sqlite:///{folder / 'mlflow.db'}"
    options = ("--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    command: list[str | Path] = [python("mlflow"), "-m", "mlflow", "server", *options]
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PATH": f"{python('mlflow').parent}{os.pathsep}{os.defpath}",
    }
    with _serving(command, folder, port, "/health", environment) as server:
        yield server


@pytest.fixture(scope="session")
def phoenix_server(
    visibly: Callable[[], AbstractContextManager[None]], tmp_path_factory: pytest.TempPathFactory
) -> Generator[BackendServer]:
    with visibly():
        python("phoenix")
    with phoenix(tmp_path_factory.mktemp("phoenix")) as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server(
    visibly: Callable[[], AbstractContextManager[None]], tmp_path_factory: pytest.TempPathFactory
) -> Generator[BackendServer]:
    with visibly():
        python("mlflow")
    with mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        server.ask("/api/3.0/mlflow/traces/search", TRACES)  # the first question opens the store, which takes its time
        yield server
