"""The chain as processes of this machine: agents, samplers, Kafka, ingesters, Cassandra, query."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from collector.stack.console import StackError, run_step, say, tail
from collector.stack.golang import build_program, find_built, find_go
from collector.stack.native import has_gate
from collector.stack.processes import PidFile, answers, send, start, wait_until
from collector.stack.programs import COLLECTOR_DIR, GO_PROGRAMS, HOST, GoProgram, Program

from .files import write_cassandra, write_kafka
from .layout import AGENTS, NAMES, SAMPLERS, Layout
from .maven import CASSANDRA, KAFKA, fetch, find_java

OTELCOL_GATEWAY = GoProgram("otelcol-gateway", ".", generated=True, version="0.159.0")
KAFKA_CLUSTER_ID = "dHJhY2VtaW5kLWNoYWlu"
FRANZ_GO = "receiver.kafkareceiver.UseFranzGo"
"""A gate of the Jaegers whose Kafka receiver needs it to be off: see ingester.yaml."""
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0

BASE = COLLECTOR_DIR / "base.yaml"
OVERLAYS = COLLECTOR_DIR / "overlays"
GATEWAY = COLLECTOR_DIR / "gateway"
AGENT_FILES = (BASE, OVERLAYS / "persistent-queue.yaml", GATEWAY / "agent.yaml", GATEWAY / "samplers-static.yaml")
SAMPLER_FILES = (
    BASE,
    OVERLAYS / "tail-sampling.yaml",
    OVERLAYS / "persistent-queue.yaml",
    GATEWAY / "sampler.yaml",
)
JAEGER_FILES = (COLLECTOR_DIR / "jaeger.yaml", COLLECTOR_DIR / "jaeger" / "cassandra.yaml")


@dataclasses.dataclass(frozen=True)
class Binaries:
    """The programs that are run: paths of the executables and of the folders of jars."""

    otelcol: Path
    jaeger: Path
    java: str
    kafka: Path
    cassandra: Path


def prepare() -> Binaries:
    """Find, build or fetch everything; an error says what to install."""
    java = find_java()
    kafka, cassandra = fetch(KAFKA), fetch(CASSANDRA)
    go = find_go()
    (jaeger_program,) = [program for program in GO_PROGRAMS if program.name == "jaeger"]
    jaeger, otelcol = (
        find_built(program, go) or build_program(program, go) for program in (jaeger_program, OTELCOL_GATEWAY)
    )
    return Binaries(otelcol, jaeger, java, kafka, cassandra)


@dataclasses.dataclass(frozen=True)
class Chain:
    """The programs of one chain; each can be stopped, killed and started alone, and finds its data again."""

    binaries: Binaries
    layout: Layout
    state: Path
    """A folder with one folder for each program: its log, process id, queue and data."""
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    """Variables of the configuration files that differ from their defaults."""
    started: dict[str, subprocess.Popen[bytes]] = dataclasses.field(default_factory=dict[str, subprocess.Popen[bytes]])
    """The processes that this object started, by program."""

    def start(self, *names: str) -> None:
        """Start these programs in the order of the layout, each once the one before it is ready."""
        for name in ordered(names):
            self.launch(name)
            self.wait_ready(name)

    def launch(self, name: str) -> None:
        """Start one program without waiting until it is ready."""
        folder = self.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / f"{name}.log"
        if log.exists():
            log.replace(folder / f"{name}.old.log")
        self.started[name] = start(Program(name, self.command(name), ()), folder, self.environment(name))

    def wait_ready(self, name: str) -> None:
        log = self.folder(name) / f"{name}.log"
        if not wait_until(lambda: self.pid(name) is None or self.is_ready(name), READY_TIMEOUT_S):
            raise StackError(f"{name} was not ready after {READY_TIMEOUT_S:.0f} s; the end of {log}:\n{tail(log)}")
        if self.pid(name) is None:
            raise StackError(f"{name} has exited; the end of {log}:\n{tail(log)}")

    def is_ready(self, name: str) -> bool:
        if name == "kafka":
            return accepts(self.layout.port(name, "broker"))
        if name == "cassandra":
            return accepts(self.layout.port(name, "native"))
        if name in (*AGENTS, *SAMPLERS):
            return answers(self.layout.url(name, "collector_health"))
        return answers(self.layout.url(name, "jaeger_health") + "/status")

    def pid(self, name: str) -> int | None:
        """The process id of a program that runs."""
        return PidFile(self.folder(name) / f"{name}.pid").running_pid()

    def signal(self, name: str, number: signal.Signals) -> None:
        if (pid := self.pid(name)) is not None:
            send(pid, number)

    def kill(self, name: str) -> None:
        """Kill a program with no chance to clean up."""
        self.signal(name, signal.SIGKILL)
        self.wait_end(name)

    def stop(self, *names: str) -> list[str]:
        """Stop programs in turn, those that send before those that receive; returns those that ran."""
        stopped = [name for name in reversed(ordered(names)) if self.pid(name) is not None]
        for name in stopped:
            self.signal(name, signal.SIGTERM)
            if not self.wait_end(name):
                say(f"{name} did not stop within {STOP_TIMEOUT_S:.0f} s and was killed")
                self.kill(name)
        return stopped

    def wait_end(self, name: str) -> bool:
        """Whether a program that was told to stop has ended in time."""
        ended = wait_until(lambda: self.pid(name) is None, STOP_TIMEOUT_S)
        if ended and (process := self.started.pop(name, None)) is not None:
            process.wait()
        return ended

    def folder(self, name: str) -> Path:
        return self.state / name

    # --- what is run

    def command(self, name: str) -> Sequence[str]:
        if name == "kafka":
            return self.kafka_command()
        if name == "cassandra":
            return self.cassandra_command()
        if name in AGENTS:
            return [str(self.binaries.otelcol), *configs(AGENT_FILES)]
        if name in SAMPLERS:
            return [str(self.binaries.otelcol), *configs(SAMPLER_FILES)]
        if name == "query":
            return [str(self.binaries.jaeger), *configs((*JAEGER_FILES, GATEWAY / "query.yaml"))]
        return self.ingester_command()

    def ingester_command(self) -> Sequence[str]:
        jaeger = self.binaries.jaeger
        command = [str(jaeger), *configs((*JAEGER_FILES, GATEWAY / "ingester.yaml"))]
        return [*command, f"--feature-gates=-{FRANZ_GO}"] if has_gate(jaeger, FRANZ_GO) else command

    def kafka_command(self) -> Sequence[str]:
        folder = self.folder("kafka")
        java = [self.binaries.java, f"-Dlog4j2.configurationFile={KAFKA.folder / 'log4j2.xml'}"]
        java += ["-cp", f"{self.binaries.kafka}/*"]
        properties = write_kafka(folder, self.layout.port("kafka", "broker"), self.layout.port("kafka", "controller"))
        if not (folder / "data").exists():
            storage_tool = [*java, "kafka.tools.StorageTool", "format", "-t", KAFKA_CLUSTER_ID, "-c", str(properties)]
            run_step("kafka: formatting its folder", storage_tool, folder, folder / "format.log", os.environ)
        return [java[0], "-Xmx512m", *java[1:], "kafka.Kafka", str(properties)]

    def cassandra_command(self) -> Sequence[str]:
        folder = self.folder("cassandra")
        config = write_cassandra(
            folder, self.layout.port("cassandra", "native"), self.layout.port("cassandra", "storage")
        )
        return [
            self.binaries.java,
            "-Xmx768m",
            f"@{CASSANDRA.folder / 'jvm.options'}",
            f"-Dlogback.configurationFile={CASSANDRA.folder / 'logback.xml'}",
            f"-Dcassandra.config={config.as_uri()}",
            f"-Dcassandra.storagedir={folder}",
            "-Dcassandra-foreground=yes",
            "-cp",
            f"{self.binaries.cassandra}/*",
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def environment(self, name: str) -> dict[str, str]:
        """The variables of the configuration files, for one program."""
        own = {f"TRACEMIND_{use.upper()}_PORT": str(port) for use, port in self.layout.ports[name].items()}
        samplers = ", ".join(self.layout.address(sampler, "otlp_grpc") for sampler in SAMPLERS)
        return {
            **os.environ,
            "TRACEMIND_LISTEN_HOST": HOST,
            "TRACEMIND_COLLECTOR_QUEUE": "file_storage/queue",
            "TRACEMIND_COLLECTOR_QUEUE_DIR": str(self.folder(name) / "queue"),
            "TRACEMIND_SAMPLERS": f"[{samplers}]",
            "TRACEMIND_KAFKA_BROKERS": f"[{self.layout.address('kafka', 'broker')}]",
            "TRACEMIND_CASSANDRA_SERVERS": HOST,
            "TRACEMIND_CASSANDRA_PORT": str(self.layout.port("cassandra", "native")),
            "TRACEMIND_CASSANDRA_INSECURE": "true",
            "TRACEMIND_CASSANDRA_REPLICATION": "1",
            "TRACEMIND_JAEGER_UI_CONFIG": str(COLLECTOR_DIR / "jaeger-ui.json"),
            **self.settings,
            **own,
        }


def ordered(names: Sequence[str]) -> list[str]:
    """These programs, or all, in the order in which they are started."""
    return [name for name in NAMES if not names or name in names]


def configs(files: Sequence[Path]) -> list[str]:
    return [f"--config={file}" for file in files]


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0
