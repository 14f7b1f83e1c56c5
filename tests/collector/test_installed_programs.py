"""`collector.stack` uses installed programs that fit, says why it does not use others, and what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import REPOSITORY

pytestmark = pytest.mark.slow

COMPONENTS = """\
buildinfo:
    command: otelcol
    version: {version}
receivers:
    - name: otlp
processors:
    - name: memory_limiter
exporters:
    - name: {exporter}
    - name: prometheus
    - name: debug
extensions:
    - name: health_check
"""


def script(path: Path, body: str) -> Path:
    """A small program."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def collector(path: Path, version: str = "0.155.0", exporter: str = "otlp_grpc", validate: str = "exit 0") -> Path:
    """A program that answers as a Collector does."""
    answer = COMPONENTS.format(version=version, exporter=exporter)
    return script(path, f"if [ \"$1\" = validate ]; then {validate}; fi\necho '{answer}'")


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """An empty folder, the only one on the PATH."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def environment(folder: Path, **variables: str) -> dict[str, str]:
    home = folder.parent
    return {"PATH": str(folder), "HOME": str(home), "TRACEMIND_STACK_CACHE": str(home / "cache"), **variables}


def stack(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector.stack", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=REPOSITORY, timeout=60)


def test_without_any_program_up_says_what_to_install_on_each_system(programs: Path) -> None:
    """Without Go, Docker and the programs, `up` ends with exit code 3 and names what to install, and how."""
    done = stack(environment(programs), "up")

    assert done.returncode == 3
    what, install, *systems, otherwise = done.stderr.splitlines()
    assert what == ("stack: otelcol, jaeger and prometheus are missing, Go was not found and no Docker engine answers.")
    assert "Go 1.26 or newer" in install
    assert "Docker" in install
    assert [line.split(":")[0].strip() for line in systems] == ["Debian", "Ubuntu", "macOS", "Fedora"]
    assert all("docker" in line for line in systems)
    assert "`tracemind-otel view FILE`" in otherwise
    assert "`tracemind-otel view FILE --html PAGE`" in otherwise


@pytest.mark.skipif(shutil.which("make") is None or not Path("/bin/bash").exists(), reason="needs make and bash")
def test_make_stack_says_it_too(programs: Path) -> None:
    """`make stack` with an empty PATH prints the same advice and passes the exit code on."""
    make = str(shutil.which("make"))
    done = subprocess.run(
        [make, "stack", f"PYTHON={sys.executable}"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(programs, PATH=""),
        cwd=REPOSITORY,
        timeout=60,
    )

    assert done.returncode == 2
    assert "Error 3" in done.stderr
    assert "Debian: " in done.stderr


@pytest.mark.parametrize(
    ("mode", "named", "not_named"), [("native", "sudo snap install go", "docker"), ("docker", "docker.io", "snap")]
)
def test_the_advice_suits_the_mode(programs: Path, mode: str, named: str, not_named: str) -> None:
    """With --mode, the advice is about Go or about Docker only."""
    done = stack(environment(programs), "up", "--mode", mode)

    assert done.returncode == 3
    assert named in done.stderr
    assert not_named not in done.stderr


def test_an_old_go_is_named_with_its_version(programs: Path) -> None:
    """A Go that is too old is not called missing."""
    script(programs / "go", "echo go1.19.8; echo linux; echo amd64")

    done = stack(environment(programs), "up")

    assert done.returncode == 3
    assert "the installed Go is go1.19.8, not 1.26 or newer" in done.stderr


BROKEN = "exit 1"
UNFIT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "too old": (lambda path: collector(path, version="0.99.0"), "has version 0.99.0, but 0.155.0 or newer is needed"),
    "without a component": (
        lambda path: collector(path, exporter="otlp"),
        "has version 0.155.0, which lacks the exporter otlp_grpc",
    ),
    "broken": (lambda path: script(path, BROKEN), "does not answer `components`"),
    "another program": (lambda path: script(path, "echo hello"), "has version unknown, which lacks the receiver otlp"),
    "stricter": (
        lambda path: collector(path, version="0.199.0", validate='echo "unknown key: tls" >&2; exit 1'),
        "rejects collector/otelcol.yaml: unknown key: tls",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_program_that_cannot_run_the_stack_is_named_with_the_reason(programs: Path, name: str) -> None:
    """A Collector that is too old, incomplete, broken or too strict is left out, and the message says why."""
    make, reason = UNFIT[name]
    path = make(programs / "otelcol")

    done = stack(environment(programs), "up")

    assert done.returncode == 3
    assert f"{path} {reason}" in done.stderr
    assert "it is not used" in done.stderr


def test_an_old_prometheus_is_named_with_the_reason(programs: Path) -> None:
    """A Prometheus that is too old for the rules is left out, and the message says why."""
    path = script(programs / "prometheus", "echo 'prometheus, version 2.20.1 (branch: HEAD)'")

    done = stack(environment(programs), "up")

    assert f"{path} has version 2.20.1, but 2.42.0 or newer is needed; it is not used" in done.stderr


def test_the_next_program_on_the_path_is_used(programs: Path) -> None:
    """A broken program does not hide a good one behind it, nor one of the other name that its packages have."""
    collector(programs / "otelcol", version="0.99.0")
    good = collector(programs.parent / "more" / "otelcol-contrib", version="0.160.2")
    path = os.pathsep.join([str(programs), str(good.parent)])

    done = stack(environment(programs, PATH=path), "up")

    assert "jaeger and prometheus are missing" in done.stderr
    assert str(good) not in done.stderr


def test_a_variable_with_a_program_that_does_not_fit_is_an_error(programs: Path) -> None:
    """A variable with a program gives that program or an error, never another one."""
    collector(programs / "otelcol")
    old = collector(programs.parent / "old" / "otelcol", version="0.99.0")

    done = stack(environment(programs, TRACEMIND_STACK_OTELCOL=str(old)), "up")

    assert done.returncode == 1
    assert done.stderr.startswith(f"stack: TRACEMIND_STACK_OTELCOL={old} has version 0.99.0, but 0.155.0")
    assert "set the path of another program, or 'build' to build one" in done.stderr


def test_a_variable_with_a_path_that_does_not_exist_is_an_error(programs: Path) -> None:
    """A mistyped path is named as such, although a program on the PATH would do."""
    collector(programs / "otelcol")

    done = stack(environment(programs, TRACEMIND_STACK_OTELCOL="/no/otelcol"), "up")

    assert done.returncode == 1
    assert done.stderr.startswith("stack: TRACEMIND_STACK_OTELCOL=/no/otelcol is not a file")


def test_a_variable_can_leave_out_the_path(programs: Path) -> None:
    """With `build`, what is on the PATH is not used."""
    collector(programs / "otelcol")

    done = stack(environment(programs, TRACEMIND_STACK_OTELCOL="build"), "up")

    assert done.returncode == 3
    assert "otelcol, jaeger and prometheus are missing" in done.stderr


def test_a_storage_that_does_not_exist_is_rejected(programs: Path) -> None:
    """A wrong value of the variable is named with the right ones."""
    done = stack(environment(programs, TRACEMIND_JAEGER_STORAGE="postgres"), "up")

    assert done.returncode == 1
    assert "TRACEMIND_JAEGER_STORAGE=postgres is not a storage" in done.stderr
    assert "badger, cassandra, clickhouse, memory, opensearch" in done.stderr
