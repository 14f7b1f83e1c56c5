"""The programs of the stack, their ports and the paths of their configuration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

COLLECTOR_DIR = Path(__file__).resolve().parents[1]

BUILD_DIR = COLLECTOR_DIR / "build"
COMPOSE_FILE = COLLECTOR_DIR.parent / "docker-compose.yml"
STORAGE_DIR = COLLECTOR_DIR / "jaeger"
STORAGE_VARIABLE = "TRACEMIND_JAEGER_STORAGE"
DEFAULT_STORAGE = "memory"
STORAGE_GATES = {"clickhouse": "storage.clickhouse"}
"""Storages that are experimental in some versions of Jaeger, and the feature gate that switches them on there."""

HOST = "127.0.0.1"

Mode = Literal["native", "docker"]

Ports = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Port:
    name: str
    env: str
    default: int
    used_for: str
    in_docker: bool = True  # published by docker-compose.yml
    natively: bool = True  # used by a program of the native stack


PORTS = (
    Port("otlp_grpc", "TRACEMIND_OTLP_GRPC_PORT", 4317, "OTLP gRPC"),
    Port("otlp_http", "TRACEMIND_OTLP_HTTP_PORT", 4318, "OTLP HTTP"),
    Port("jaeger_http", "TRACEMIND_JAEGER_HTTP_PORT", 16686, "Jaeger UI"),
    Port("prometheus", "TRACEMIND_PROMETHEUS_PORT", 9090, "Prometheus"),
    Port("collector_metrics", "TRACEMIND_COLLECTOR_METRICS_PORT", 8889, "Collector metrics"),
    Port("collector_health", "TRACEMIND_COLLECTOR_HEALTH_PORT", 13133, "the Collector's health"),
    Port("collector_telemetry", "TRACEMIND_COLLECTOR_TELEMETRY_PORT", 8888, "the Collector itself", False),
    Port("jaeger_otlp", "TRACEMIND_JAEGER_OTLP_PORT", 14317, "OTLP from the Collector to Jaeger", False),
    Port("jaeger_grpc", "TRACEMIND_JAEGER_GRPC_PORT", 16685, "Jaeger's query API over gRPC", False),
    Port("jaeger_health", "TRACEMIND_JAEGER_HEALTH_PORT", 13134, "Jaeger's health", False),
    Port("grafana", "TRACEMIND_GRAFANA_PORT", 3000, "Grafana", natively=False),
    # Only with the overlay aggregate-instances.
    Port("instances", "TRACEMIND_COLLECTOR_INSTANCES_PORT", 4319, "the Collector's hand-over", False, natively=False),
)

SHOWN_PORTS = PORTS[:5]


@dataclasses.dataclass(frozen=True)
class GoProgram:
    """A program that is built from the lock files in collector/build/<name>/."""

    name: str
    package: str
    generated: bool
    """Whether main.go comes from the Collector's builder."""
    version: str = ""
    """Jaeger's build does not tell it: its module has the version of Jaeger 1 that was released with it."""
    lacks: str = ""
    """What the build does not have and the released program has."""

    @property
    def lock_dir(self) -> Path:
        return BUILD_DIR / self.name


GO_PROGRAMS = (
    GoProgram("otelcol", ".", generated=True, version="0.155.0"),
    GoProgram(
        "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger", generated=False, version="2.13.0", lacks="the UI"
    ),
)

PROGRAM_NAMES = ("otelcol", "jaeger", "prometheus")


@dataclasses.dataclass(frozen=True)
class Requirement:
    """What an installed program must be, to be used in place of one that is built."""

    name: str
    variable: str
    """The environment variable with the path of the program, or with `build`."""
    commands: Sequence[str]
    """Names to look for on the PATH."""
    oldest: str
    """The oldest version that the tests run with these files."""
    components: Mapping[str, Sequence[str]]
    """The components that its configuration uses, by kind."""


REQUIREMENTS = {
    each.name: each
    for each in (
        Requirement(
            "otelcol",
            "TRACEMIND_STACK_OTELCOL",
            ("otelcol", "otelcol-contrib"),
            "0.155.0",
            {
                "receivers": ["otlp"],
                "processors": ["memory_limiter"],
                "exporters": ["otlp_grpc", "prometheus", "debug"],
                "extensions": ["health_check"],
            },
        ),
        Requirement(
            "jaeger",
            "TRACEMIND_STACK_JAEGER",
            ("jaeger",),
            "2.13.0",
            {
                "receivers": ["otlp"],
                "exporters": ["jaeger_storage_exporter"],
                "extensions": ["healthcheckv2", "jaeger_storage", "jaeger_query"],
            },
        ),
        Requirement("prometheus", "TRACEMIND_STACK_PROMETHEUS", ("prometheus",), "2.42.0", {}),
    )
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A program that can be started."""

    path: Path
    version: str
    """Empty if the program does not tell it."""
    origin: str
    """Where it was found, for a person."""

    def __str__(self) -> str:
        return f"{self.version or 'unknown version'}, {self.origin}: {self.path}"


@dataclasses.dataclass(frozen=True)
class Program:
    """One process of the native stack: its command, and the addresses that answer 200 once it is ready."""

    name: str
    command: Sequence[str]
    ready_urls: Sequence[str]


@dataclasses.dataclass(frozen=True)
class UpOptions:
    state: Path
    auto_ports: bool
    mode: str
    scrape_interval: str | None
    storage: str
    """The file of collector/jaeger/ that says where Jaeger keeps traces."""
    overlays: Sequence[str] = ()
    """The files of collector/overlays/ for the Collector; without any it runs otelcol.yaml."""

    @property
    def jaeger_files(self) -> list[Path]:
        monitor = [COLLECTOR_DIR / "jaeger-monitor.yaml"] if "monitor" in self.overlays else []
        return [*jaeger_files(self.storage), *monitor]


def jaeger_files(storage: str) -> list[Path]:
    """The files that Jaeger is started with, in their order."""
    return [COLLECTOR_DIR / "jaeger.yaml", STORAGE_DIR / f"{storage}.yaml"]


def storages() -> list[str]:
    return sorted(path.stem for path in STORAGE_DIR.glob("*.yaml"))


def write_targets(path: Path, targets: Sequence[tuple[str, str]], scrape_interval: str | None) -> None:
    """Write the addresses that Prometheus scrapes, and the interval if it differs from prometheus.yml."""
    often: dict[str, str] = {}
    if scrape_interval:
        often = {"__scrape_interval__": scrape_interval, "__scrape_timeout__": scrape_interval}
    groups = [{"targets": [target], "labels": {"endpoint": name, **often}} for target, name in targets]
    path.write_text(json.dumps(groups, indent=2) + "\n")
