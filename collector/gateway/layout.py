"""Which programs the chain on one machine has, and their ports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from collector.stack.console import StackError
from collector.stack.ports import configured_port, is_free, some_free_ports
from collector.stack.programs import HOST

AGENTS = ("agent-1", "agent-2")
SAMPLERS = ("sampler-1", "sampler-2", "sampler-3")
INGESTERS = ("ingester-1", "ingester-2")

COLLECTOR_PORTS = ("otlp_grpc", "otlp_http", "collector_health", "collector_telemetry")
PORTS: Mapping[str, tuple[str, ...]] = {
    "kafka": ("broker", "controller"),
    "cassandra": ("native", "storage"),
    "query": ("jaeger_http", "jaeger_grpc", "jaeger_health"),
    **dict.fromkeys(INGESTERS, ("jaeger_health",)),
    **dict.fromkeys(SAMPLERS, COLLECTOR_PORTS),
    **dict.fromkeys(AGENTS, COLLECTOR_PORTS),
}
"""The ports of each program, in the order in which they are started."""

NAMES = tuple(PORTS)

WELL_KNOWN = {
    ("agent-1", "otlp_grpc"): ("TRACEMIND_OTLP_GRPC_PORT", 4317),
    ("agent-1", "otlp_http"): ("TRACEMIND_OTLP_HTTP_PORT", 4318),
    ("query", "jaeger_http"): ("TRACEMIND_JAEGER_HTTP_PORT", 16686),
}
"""The ports that a user opens, with the variables and defaults of the local stack. All others are free ones."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """The ports of one chain."""

    ports: Mapping[str, Mapping[str, int]]
    """By program and use."""

    def port(self, program: str, use: str) -> int:
        return self.ports[program][use]

    def address(self, program: str, use: str) -> str:
        """`host:port`."""
        return f"{HOST}:{self.port(program, use)}"

    def url(self, program: str, use: str) -> str:
        return f"http://{self.address(program, use)}"

    def is_free(self) -> bool:
        """Whether no program listens on any of these ports."""
        return all(is_free(port) for ports in self.ports.values() for port in ports.values())

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.ports, indent=2) + "\n")

    @staticmethod
    def read(path: Path) -> Layout | None:
        """What `write` wrote; `None` if there is nothing."""
        try:
            return Layout(json.loads(path.read_text()))
        except (FileNotFoundError, ValueError):
            return None


def choose_ports(*, auto: bool) -> Layout:
    """Free ports, but for the well-known ones unless `auto`."""
    known = {} if auto else {use: configured(*well_known) for use, well_known in WELL_KNOWN.items()}
    uses = [(program, use) for program, names in PORTS.items() for use in names]
    free = dict(zip(uses, some_free_ports(len(uses)), strict=True))
    ports: dict[str, dict[str, int]] = {program: {} for program in PORTS}
    for (program, name), port in (free | known).items():
        ports[program][name] = port
    return Layout(ports)


def configured(variable: str, default: int) -> int:
    port = configured_port(variable, default)
    if not is_free(port):
        raise StackError(
            f"port {port} is in use by another program; choose another with {variable}=PORT, or pass --ports auto"
        )
    return port
