"""The stack as processes of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from pathlib import Path

from .console import StackError, tail
from .golang import Go, build_program, find_built
from .ports import default_ports, free_ports, port_environment, url
from .processes import PidFile, start, stop_processes, wait_ready
from .programs import COLLECTOR_DIR, GO_PROGRAMS, HOST, Ports, Program, UpOptions, write_targets
from .prometheus import can_fetch_prometheus, fetch_prometheus, find_prometheus

AUTO_PORT_TRIES = 3


def natively_possible(go: Go | None) -> bool:
    programs = go is not None or all(find_built(program, None) is not None for program in GO_PROGRAMS)
    return programs and (find_prometheus() is not None or can_fetch_prometheus())


@dataclasses.dataclass(frozen=True)
class Binaries:
    otelcol: Path
    jaeger: Path
    prometheus: Path


def build_all(go: Go | None) -> Binaries:
    otelcol, jaeger = (find_built(program, go) or build_program(program, go) for program in GO_PROGRAMS)
    return Binaries(otelcol, jaeger, find_prometheus() or fetch_prometheus())


def native_programs(binaries: Binaries, ports: Ports, state: Path) -> list[Program]:
    prometheus_command = [
        str(binaries.prometheus),
        f"--config.file={state / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={state / 'prometheus' / 'data'}",
        f"--web.listen-address={HOST}:{ports['prometheus']}",
        "--enable-feature=exemplar-storage",
    ]
    jaeger_ready = [url(ports["jaeger_health"], "/status"), url(ports["jaeger_http"], "/api/v3/services")]
    return [
        Program("jaeger", [str(binaries.jaeger), f"--config={COLLECTOR_DIR / 'jaeger.yaml'}"], jaeger_ready),
        Program(
            "otelcol",
            [str(binaries.otelcol), f"--config={COLLECTOR_DIR / 'otelcol.yaml'}"],
            [url(ports["collector_health"], "/")],
        ),
        Program("prometheus", prometheus_command, [url(ports["prometheus"], "/-/ready")]),
    ]


def native_environment(ports: Ports) -> dict[str, str]:
    return {
        **os.environ,
        **port_environment(ports),
        "TRACEMIND_LISTEN_HOST": HOST,
        "TRACEMIND_JAEGER_OTLP_ENDPOINT": f"{HOST}:{ports['jaeger_otlp']}",
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
    programs = native_programs(binaries, ports, options.state)
    env = native_environment(ports)
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


def up_native(options: UpOptions, go: Go | None) -> Ports:
    binaries = build_all(go)
    if not options.auto_ports:
        return start_native(binaries, default_ports("native"), options)
    for _ in range(AUTO_PORT_TRIES - 1):
        with contextlib.suppress(PortLostError):
            return start_native(binaries, free_ports(), options)
        stop_processes(options.state)
    return start_native(binaries, free_ports(), options)
