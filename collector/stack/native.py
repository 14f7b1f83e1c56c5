"""The stack as processes of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from .console import StackError, output_of, tail
from .golang import Go, build_program, built_source, find_built
from .installed import UnfitError, check_files, find_installed
from .overlays import collector_files
from .ports import default_ports, free_ports, port_environment, url
from .processes import PidFile, start, stop_processes, wait_ready
from .programs import (
    COLLECTOR_DIR,
    GO_PROGRAMS,
    HOST,
    STORAGE_GATES,
    GoProgram,
    Ports,
    Program,
    Source,
    UpOptions,
    write_targets,
)
from .prometheus import can_fetch_prometheus, fetch_prometheus, prometheus_source, unpacked_source

AUTO_PORT_TRIES = 3
BADGER_VARIABLE = "TRACEMIND_JAEGER_BADGER_DIR"


@dataclasses.dataclass(frozen=True)
class Found:
    """What there is before anything is built; `None` for what is not there yet."""

    otelcol: Source | None
    jaeger: Source | None
    prometheus: Source | None

    def missing(self, go: Go | None) -> list[str]:
        """The programs that can be neither found nor built."""
        obtainable = {"otelcol": go is not None, "jaeger": go is not None, "prometheus": can_fetch_prometheus()}
        return [name for name, possible in obtainable.items() if getattr(self, name) is None and not possible]


def find_all(go: Go | None, collector_files: Sequence[Path], jaeger_files: Sequence[Path]) -> Found:
    otelcol, jaeger = GO_PROGRAMS
    return Found(
        find_program(otelcol, go, collector_files),
        find_program(jaeger, go, jaeger_files),
        prometheus_source(),
    )


def find_program(program: GoProgram, go: Go | None, files: Sequence[Path]) -> Source | None:
    """An installed program that can run the files, or the one built before."""
    built = find_built(program, go)
    return find_installed(program.name, files) or (built_source(program, built) if built else None)


@dataclasses.dataclass(frozen=True)
class Binaries:
    otelcol: Source
    jaeger: Source
    prometheus: Source


def complete(found: Found, go: Go | None) -> Binaries:
    """Build or unpack what is missing."""
    otelcol, jaeger = GO_PROGRAMS
    return Binaries(
        found.otelcol or built_source(otelcol, build_program(otelcol, go)),
        found.jaeger or built_source(jaeger, build_program(jaeger, go)),
        found.prometheus or unpacked_source(fetch_prometheus()),
    )


def check_storage(jaeger: Source, options: UpOptions) -> None:
    """Reject a storage that this Jaeger does not know, before anything is started."""
    try:
        check_files(jaeger.path, options.jaeger_files)
    except UnfitError as fault:
        raise StackError(
            f"jaeger ({jaeger}) {fault}; put a newer jaeger on the PATH, or use Docker with --mode docker"
        ) from None


def jaeger_command(jaeger: Source, options: UpOptions) -> list[str]:
    command = [str(jaeger.path), *(f"--config={file}" for file in options.jaeger_files)]
    gate = STORAGE_GATES.get(options.storage)
    return [*command, f"--feature-gates={gate}"] if gate and has_gate(jaeger.path, gate) else command


def has_gate(jaeger: Path, gate: str) -> bool:
    """Whether this Jaeger has the feature gate: it rejects an unknown one, and a later version has it no more."""
    return gate in (output_of([str(jaeger), "featuregate"]) or "").split()


def native_programs(binaries: Binaries, ports: Ports, options: UpOptions) -> list[Program]:
    state = options.state
    prometheus_command = [
        str(binaries.prometheus.path),
        f"--config.file={state / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={state / 'prometheus' / 'data'}",
        f"--web.listen-address={HOST}:{ports['prometheus']}",
        "--enable-feature=exemplar-storage",
    ]
    jaeger_ready = [url(ports["jaeger_health"], "/status"), url(ports["jaeger_http"], "/api/v3/services")]
    return [
        Program("jaeger", jaeger_command(binaries.jaeger, options), jaeger_ready),
        Program(
            "otelcol",
            [str(binaries.otelcol.path), *(f"--config={file}" for file in collector_files(options.overlays))],
            [url(ports["collector_health"], "/")],
        ),
        Program("prometheus", prometheus_command, [url(ports["prometheus"], "/-/ready")]),
    ]


def native_environment(ports: Ports, options: UpOptions) -> dict[str, str]:
    return {
        **os.environ,
        BADGER_VARIABLE: str(Path(os.environ.get(BADGER_VARIABLE) or options.state / "badger").absolute()),
        **port_environment(ports),
        "TRACEMIND_LISTEN_HOST": HOST,
        "TRACEMIND_JAEGER_OTLP_ENDPOINT": f"{HOST}:{ports['jaeger_otlp']}",
        "TRACEMIND_PROMETHEUS_URL": url(ports["prometheus"]),
        "TRACEMIND_JAEGER_UI_CONFIG": str(COLLECTOR_DIR / "jaeger-ui.json"),
    }


def prepare_prometheus(state: Path, ports: Ports, scrape_interval: str | None) -> None:
    folder = state / "prometheus"
    folder.mkdir(exist_ok=True)
    shutil.copy(COLLECTOR_DIR / "prometheus.yml", folder / "prometheus.yml")
    rules_only = shutil.ignore_patterns("tests")
    shutil.copytree(COLLECTOR_DIR / "rules", folder / "rules", ignore=rules_only, dirs_exist_ok=True)
    targets = [
        (f"{HOST}:{ports['collector_metrics']}", "applications"),
        (f"{HOST}:{ports['collector_telemetry']}", "collector"),
    ]
    write_targets(folder / "targets.json", targets, scrape_interval)


class PortLostError(StackError):
    """Another program took a port after it was chosen and before it was used."""


def start_native(binaries: Binaries, ports: Ports, options: UpOptions) -> Ports:
    prepare_prometheus(options.state, ports, options.scrape_interval)
    programs = native_programs(binaries, ports, options)
    env = native_environment(ports, options)
    for program in programs:  # Jaeger first: the Collector waits for seconds before it retries
        start(program, options.state, env)
        wait_program(program, options.state)
    return ports


def wait_program(program: Program, state: Path) -> None:
    log = state / f"{program.name}.log"

    def check_alive() -> None:
        if PidFile(state / f"{program.name}.pid").running_pid() is None:
            text = tail(log)
            kind = PortLostError if "address already in use" in text else StackError
            raise kind(f"{program.name} has exited; fix this and repeat `up` (the end of {log}):\n{text}")

    for address in program.ready_urls:
        wait_ready(address, program.name, check_alive, lambda: tail(log))


def up_native(options: UpOptions, binaries: Binaries) -> Ports:
    if not options.auto_ports:
        return start_native(binaries, default_ports("native"), options)
    for _ in range(AUTO_PORT_TRIES - 1):
        with contextlib.suppress(PortLostError):
            return start_native(binaries, free_ports(), options)
        stop_processes(options.state)
    return start_native(binaries, free_ports(), options)
