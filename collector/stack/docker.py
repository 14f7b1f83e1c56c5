"""The stack by docker compose."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from .cache import default_state
from .console import LOG_TAIL_LINES, output_of, run_step
from .overlays import compose_override
from .ports import default_ports, free_ports, port_environment, url
from .processes import wait_ready
from .programs import (
    COMPOSE_FILE,
    PROGRAM_NAMES,
    STORAGE_GATES,
    STORAGE_VARIABLE,
    Ports,
    UpOptions,
    write_targets,
)


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    engine = output_of(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=10.0)
    return bool(engine) and output_of(["docker", "compose", "version"], timeout_s=10.0) is not None


def compose_project(state: Path) -> str:
    if state == default_state():
        return "tracemind"
    return "tracemind-" + hashlib.sha256(str(state).encode()).hexdigest()[:10]


def compose(state: Path, *arguments: str) -> list[str]:
    override = state / "overlays.json"
    files = [COMPOSE_FILE, override] if override.exists() else [COMPOSE_FILE]
    named = [word for file in files for word in ("-f", str(file))]
    return ["docker", "compose", *named, "-p", compose_project(state), *arguments]


def compose_logs(state: Path, service: str) -> str:
    command = compose(state, "logs", "--no-color", "--tail", str(LOG_TAIL_LINES), service)
    return output_of(command) or "(no log)"


def up_docker(options: UpOptions) -> Ports:
    ports = free_ports() if options.auto_ports else default_ports("docker")
    env = {**os.environ, **port_environment(ports), **storage_environment(options.storage)}
    if options.scrape_interval:
        targets = options.state / "targets.json"
        inside = [("otelcol:8889", "applications"), ("otelcol:8888", "collector")]
        write_targets(targets, inside, options.scrape_interval)
        targets.chmod(0o644)
        env["TRACEMIND_PROMETHEUS_TARGETS"] = str(targets)
    override = options.state / "overlays.json"
    override.unlink(missing_ok=True)
    if options.overlays:
        override.write_text(json.dumps(compose_override(options.overlays)))
    (options.state / "docker").touch()
    up_command = compose(options.state, "up", "-d")
    run_step("docker compose up -d", up_command, COMPOSE_FILE.parent, options.state / "compose.log", env)
    for name, address in docker_ready_urls(ports):
        wait_ready(address, name, lambda: None, functools.partial(compose_logs, options.state, name))
    return ports


def storage_environment(storage: str) -> dict[str, str]:
    return {STORAGE_VARIABLE: storage, "TRACEMIND_JAEGER_FEATURE_GATES": STORAGE_GATES.get(storage, "")}


def images() -> dict[str, str]:
    """The image of each program, as docker-compose.yml names it."""
    services = re.findall(
        r"^  (\w+):\n(?:    .*\n)*?    image: (?:&\S+ )?(\S+)$", COMPOSE_FILE.read_text(), re.MULTILINE
    )
    return {name: f"image {image}" for name, image in services if name in PROGRAM_NAMES}


def docker_ready_urls(ports: Ports) -> list[tuple[str, str]]:
    return [
        ("jaeger", url(ports["jaeger_http"], "/api/v3/services")),
        ("otelcol", url(ports["collector_health"], "/")),
        ("prometheus", url(ports["prometheus"], "/-/ready")),
    ]


def stop_docker(state: Path) -> list[str]:
    marker = state / "docker"
    if not marker.exists():
        return []
    stop = compose(state, "down", "--timeout", "10", *(() if state == default_state() else ("--volumes",)))
    run_step("docker compose down", stop, COMPOSE_FILE.parent, state / "compose.log", os.environ)
    marker.unlink()
    return list(PROGRAM_NAMES)
