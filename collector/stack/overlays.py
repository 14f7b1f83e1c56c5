"""base.yaml with overlays in place of otelcol.yaml."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .console import StackError
from .ports import some_free_ports
from .programs import COLLECTOR_DIR, PORTS

OVERLAYS_VARIABLE = "TRACEMIND_STACK_OVERLAYS"
OVERLAYS_DIR = COLLECTOR_DIR / "overlays"
LOCAL = ("jaeger", "prometheus-scrape")
"""The destinations of the local stack, which no option removes."""
NATIVE_ONLY = {"monitor", "persistent-queue", "receiver-tls"}
"""What needs a folder or files of this host, or another file for Jaeger."""
INSIDE = "/etc/collector"
SET_BY_COMPOSE = {"TRACEMIND_LISTEN_HOST", "TRACEMIND_JAEGER_OTLP_ENDPOINT", *(port.env for port in PORTS)}


def overlay_names() -> list[str]:
    return sorted(path.stem for path in OVERLAYS_DIR.glob("*.yaml"))


def chosen_overlays(given: Sequence[str] | None) -> tuple[str, ...]:
    """The overlays of the options, or of the variable, each once and in the order given."""
    wanted = given or re.split(r"[\s,]+", os.environ.get(OVERLAYS_VARIABLE, "").strip())
    names = tuple(dict.fromkeys(filter(None, wanted)))
    for name in names:
        if name not in overlay_names():
            raise StackError(f"{OVERLAYS_VARIABLE}: {name} is not an overlay; choose from {', '.join(overlay_names())}")
    return names


def collector_files(overlays: Sequence[str]) -> list[Path]:
    """The files that the Collector is started with, in their order."""
    if not overlays:
        return [COLLECTOR_DIR / "otelcol.yaml"]
    names = dict.fromkeys((*overlays, *LOCAL))
    return [COLLECTOR_DIR / "base.yaml", *(OVERLAYS_DIR / f"{name}.yaml" for name in names)]


def overlay_environment(overlays: Sequence[str], state: Path) -> dict[str, str]:
    """What the overlays need on this host and the user has not set."""
    needed: dict[str, str] = {}
    if "persistent-queue" in overlays:
        needed["TRACEMIND_COLLECTOR_QUEUE"] = "file_storage/queue"
        needed["TRACEMIND_COLLECTOR_QUEUE_DIR"] = str(state / "queue")
    if "aggregate-instances" in overlays:
        needed["TRACEMIND_COLLECTOR_INSTANCES_PORT"] = str(some_free_ports(1)[0])
    return {name: value for name, value in needed.items() if not os.environ.get(name)}


def check_variables(overlays: Sequence[str]) -> None:
    """Reject an overlay whose keys or addresses are not set: the Collector would take each as an empty string."""
    for name in overlays:
        needed = re.findall(r"\$\{env:(\w+)\}", (OVERLAYS_DIR / f"{name}.yaml").read_text())
        if missing := sorted({variable for variable in needed if not os.environ.get(variable)}):
            raise StackError(f"the overlay {name} needs {' and '.join(missing)}; set them first, or leave it out")


def compose_override(overlays: Sequence[str]) -> dict[str, object]:
    """The compose file that starts the Collector's container with the overlays and the variables that they read."""
    if unfit := NATIVE_ONLY & set(overlays):
        raise StackError(f"the overlay {', '.join(sorted(unfit))} runs without Docker only; choose --mode native")
    files = collector_files(overlays)
    read = {name for file in files for name in re.findall(r"\$\{env:(\w+)", file.read_text())}
    collector = {
        "command": [f"--config={INSIDE}/{file.relative_to(COLLECTOR_DIR).as_posix()}" for file in files],
        "volumes": [f"{COLLECTOR_DIR}:{INSIDE}:ro"],
        "environment": dict.fromkeys(sorted(read - SET_BY_COMPOSE)),
    }
    return {"services": {"otelcol": collector}}
