"""Find Go, and build the Collector and Jaeger from their lock files with it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
import shutil
from pathlib import Path

from .cache import cache_dir, publish, work_folder
from .console import EXIT_NOTHING_TO_RUN_WITH, StackError, output_of, run_step
from .programs import GO_PROGRAMS, GoProgram, Source


@dataclasses.dataclass(frozen=True)
class Go:
    path: str
    version: str
    platform: str


def find_go() -> Go | None:
    """The installed Go; `None` if it is missing or older than the lock files require."""
    go = any_go()
    return go if go is not None and version_numbers(go.version) >= max(needed_versions()) else None


def any_go() -> Go | None:
    """The installed Go, of any version."""
    path = shutil.which("go")
    answer = output_of([path, "env", "GOVERSION", "GOOS", "GOARCH"]) if path else None
    if path is None or answer is None:
        return None
    version, system, machine = answer.splitlines()
    return Go(path, version, f"{system}-{machine}")


def why_no_go() -> str:
    """Why `find_go` found none."""
    go = any_go()
    return f"the installed Go is {go.version}, not {needed_go_version()} or newer" if go else "Go was not found"


def version_numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", text)
    return tuple(int(number) for number in found.groups()) if found else (0, 0)


def needed_versions() -> list[tuple[int, ...]]:
    """What each program's go.mod requires."""
    modules = [(program.lock_dir / "go.mod").read_text() for program in GO_PROGRAMS]
    directives = [re.search(r"^go \S+$", module, re.MULTILINE) for module in modules]
    return [version_numbers(found.group()) for found in directives if found]


def needed_go_version() -> str:
    return ".".join(str(number) for number in max(needed_versions()))


def lock_hash(program: GoProgram) -> str:
    digest = hashlib.sha256()
    for path in sorted(program.lock_dir.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def this_platform() -> str:
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def built_dir(program: GoProgram, go: Go) -> Path:
    return cache_dir() / f"{program.name}-{lock_hash(program)}-{go.platform}-{go.version}"


def find_built(program: GoProgram, go: Go | None) -> Path | None:
    """The finished binary of the same lock files: built by this Go, or by any version if Go is missing."""
    if go is not None:
        folders = [built_dir(program, go)]
    else:
        folders = sorted(cache_dir().glob(f"{program.name}-{lock_hash(program)}-{this_platform()}-*"))
    binaries = [folder / program.name for folder in folders]
    return next((binary for binary in reversed(binaries) if binary.is_file()), None)


def built_source(program: GoProgram, path: Path) -> Source:
    return Source(path, program.version, f"built from source{f' without {program.lacks}' if program.lacks else ''}")


def go_environment() -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def build_builder(version: str, go: Go) -> Path:
    """The Collector's source generator, at the version of the Collector."""
    final = cache_dir() / f"builder-{version}-{go.platform}-{go.version}"
    with work_folder("builder") as folder:
        if not (final / "builder").is_file():
            module = f"go.opentelemetry.io/collector/cmd/builder@v{version}"
            env = {**go_environment(), "GOBIN": str(folder / "bin")}
            what = f"builder {version}: installing"
            run_step(what, [go.path, "install", "-trimpath", module], folder, folder / "log", env)
            publish(folder / "bin", final)
    return final / "builder"


def build_program(program: GoProgram, go: Go | None) -> Path:
    if go is None:
        raise StackError(
            f"{program.name} is not built and {why_no_go()}; install Go {needed_go_version()} or newer",
            EXIT_NOTHING_TO_RUN_WITH,
        )
    final = built_dir(program, go)
    builder = build_builder(program.version, go) if program.generated and find_built(program, go) is None else None
    with work_folder(program.name) as folder:
        if (final / program.name).is_file():
            return final / program.name
        source, log = folder / "src", folder / "log"
        shutil.copytree(program.lock_dir, source)
        if builder is not None:
            source = generate_source(program.name, builder, source, log)
        out = folder / "out" / program.name
        flags = ["-mod=readonly", "-trimpath", "-ldflags=-s -w", "-buildvcs=false"]
        command = [go.path, "build", *flags, "-o", str(out), program.package]
        what = f"{program.name}: building (takes minutes the first time)"
        run_step(what, command, source, log, go_environment())
        publish(out.parent, final)
    return final / program.name


def generate_source(name: str, builder: Path, source: Path, log: Path) -> Path:
    """Write main.go and components.go, which needs no network, and copy the lock files beside them."""
    command = [str(builder), "--config", "builder.yaml", "--skip-get-modules", "--skip-compilation"]
    run_step(f"{name}: writing its sources", command, source, log, go_environment())
    generated = source / "_build"
    for name in ("go.mod", "go.sum"):
        shutil.copy(source / name, generated / name)
    return generated
