"""Go: whether it is there and new enough, and building the Collector and Jaeger from their lock files."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
import shutil
from pathlib import Path

from .cache import cache_dir, publish, work_folder
from .console import EXIT_NOTHING_TO_RUN_WITH, StackError, output_of, run_step, say
from .programs import BUILD_DIR, GO_PROGRAMS, GoProgram


@dataclasses.dataclass(frozen=True)
class Go:
    path: str
    version: str
    platform: str


def find_go() -> Go | None:
    """The installed Go, unless it is older than the lock files ask for."""
    path = shutil.which("go")
    answer = output_of([path, "env", "GOVERSION", "GOOS", "GOARCH"]) if path else None
    if path is None or answer is None:
        return None
    version, system, machine = answer.splitlines()
    if version_numbers(version) < needed_go():
        needed = ".".join(str(number) for number in needed_go())
        say(f"the Go that is installed is {version}; these programs need {needed} or newer")
        return None
    return Go(path, version, f"{system}-{machine}")


def version_numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)", text)
    return tuple(int(number) for number in found.groups()) if found else (0, 0)


def needed_go() -> tuple[int, ...]:
    return max(version_numbers(go_directive(program)) for program in GO_PROGRAMS)


def go_directive(program: GoProgram) -> str:
    found = re.search(r"^go (\S+)$", (program.lock_dir / "go.mod").read_text(), re.MULTILINE)
    return found.group(1) if found else ""


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
    """The finished binary: of this Go, or without Go of whichever version built the same lock files."""
    if go is not None:
        folders = [built_dir(program, go)]
    else:
        folders = sorted(cache_dir().glob(f"{program.name}-{lock_hash(program)}-{this_platform()}-*"))
    binaries = [folder / program.name for folder in folders]
    return next((binary for binary in reversed(binaries) if binary.is_file()), None)


def go_environment() -> dict[str, str]:
    return {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}


def collector_version() -> str:
    text = (BUILD_DIR / "otelcol" / "builder.yaml").read_text()
    found = re.search(r"^  version: (\S+)$", text, re.MULTILINE)
    if found is None:
        raise StackError("collector/build/otelcol/builder.yaml names no dist.version")
    return found.group(1)


def build_builder(go: Go) -> Path:
    """The Collector's source generator, at the version of the Collector."""
    version = collector_version()
    final = cache_dir() / f"builder-{version}-{go.platform}-{go.version}"
    with work_folder("builder") as folder:
        if not (final / "builder").is_file():
            module = f"go.opentelemetry.io/collector/cmd/builder@v{version}"
            env = {**go_environment(), "GOBIN": str(folder / "bin")}
            what = f"builder {version}: installing"
            run_step(what, [go.path, "install", "-trimpath", module], folder, folder / "log", env)
            publish(folder / "bin", final)
    return final / "builder"


def build_program(program: GoProgram, go: Go) -> Path:
    final = built_dir(program, go)
    builder = build_builder(go) if program.generated and find_built(program, go) is None else None
    with work_folder(program.name) as folder:
        if (final / program.name).is_file():
            return final / program.name
        source, log = folder / "src", folder / "log"
        shutil.copytree(program.lock_dir, source)
        if builder is not None:
            source = generate_source(builder, source, log)
        out = folder / "out" / program.name
        flags = ["-mod=readonly", "-trimpath", "-ldflags=-s -w", "-buildvcs=false"]
        command = [go.path, "build", *flags, "-o", str(out), program.package]
        what = f"{program.name}: building (minutes, the first time)"
        run_step(what, command, source, log, go_environment())
        publish(out.parent, final)
    return final / program.name


def generate_source(builder: Path, source: Path, log: Path) -> Path:
    """Writes main.go and components.go (no network needed), then puts the lock files beside them."""
    command = [str(builder), "--config", "builder.yaml", "--skip-get-modules", "--skip-compilation"]
    run_step("otelcol: writing its sources", command, source, log, go_environment())
    generated = source / "_build"
    for name in ("go.mod", "go.sum"):
        shutil.copy(source / name, generated / name)
    return generated


def build_missing(program: GoProgram, go: Go | None) -> Path:
    if go is None:
        needed = ".".join(str(number) for number in needed_go())
        raise StackError(
            f"{program.name} has to be built, and there is no Go: install Go {needed} or newer",
            EXIT_NOTHING_TO_RUN_WITH,
        )
    return build_program(program, go)
