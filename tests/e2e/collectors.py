"""The real Collector with base.yaml and overlays, as a process of a test."""

from __future__ import annotations

import dataclasses
import importlib
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collector.stack.ports import free_ports, port_environment, url
from collector.stack.processes import answers, wait_until
from collector.stack.programs import GO_PROGRAMS, HOST, Ports
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.programs import REPOSITORY
from tests.required import built
from tests.servers.installs import stop
from tests.servers.otlp_sink import Sink

BASE = REPOSITORY / "collector" / "base.yaml"
OVERLAYS = REPOSITORY / "collector" / "overlays"
WAIT_S = 30.0
Request = ExportTraceServiceRequest | ExportMetricsServiceRequest | ExportLogsServiceRequest
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

SETTINGS: Mapping[str, str] = {
    "TRACEMIND_APM_ENDPOINT": "http://127.0.0.1:1",
    "DT_ENDPOINT": "http://127.0.0.1:1",
    "ELASTIC_OTLP_ENDPOINT": "http://127.0.0.1:1",
    "GRAFANA_OTLP_ENDPOINT": "http://127.0.0.1:1/otlp",
    "SPLUNK_INGEST_URL": "http://127.0.0.1:1",
    "PROMETHEUS_URL": "http://127.0.0.1:1",
    "PROMETHEUS_REMOTE_WRITE_URL": "http://127.0.0.1:1/api/v1/write",
    "TRACEMIND_COLLECTOR_TOKEN": "token-of-the-test",
    "TRACEMIND_COLLECTOR_TLS_CERT": "cert.pem",
    "TRACEMIND_COLLECTOR_TLS_KEY": "key.pem",
}
"""What the overlays take from the environment and have no default for."""


def go_program(name: str) -> Path:
    """The program `otelcol` or `jaeger`, built the first time."""
    (program,) = [program for program in GO_PROGRAMS if program.name == name]
    return built(program)


def config_arguments(overlays: Iterable[str]) -> list[str]:
    """The options for base.yaml and these overlays."""
    return [f"--config={BASE}", *(f"--config={OVERLAYS / name}.yaml" for name in overlays)]


def settings_for(overlays: Iterable[str], changes: Mapping[str, str], state: Path) -> dict[str, str]:
    """An environment with what these overlays need."""
    queue = {"TRACEMIND_COLLECTOR_QUEUE": "file_storage/queue"} if "persistent-queue" in overlays else {}
    directory = {"TRACEMIND_COLLECTOR_QUEUE_DIR": str(state / "queue")}
    return {"PATH": os.environ["PATH"], **SETTINGS, **queue, **directory, **changes}


def validate(
    program: Path, overlays: Sequence[str], state: Path, without: Iterable[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the Collector's `validate`."""
    environment = {k: v for k, v in settings_for(overlays, {}, state).items() if k not in without}
    command = [str(program), "validate", *config_arguments(overlays)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


@dataclasses.dataclass
class Collector:
    """A running Collector."""

    process: subprocess.Popen[bytes]
    ports: Ports
    log: Path

    @property
    def otlp_http(self) -> str:
        return url(self.ports["otlp_http"])

    @property
    def otlp_grpc(self) -> str:
        return url(self.ports["otlp_grpc"])

    @property
    def metrics(self) -> str:
        """The page that Prometheus scrapes, with the overlay prometheus-scrape."""
        return url(self.ports["collector_metrics"], "/metrics")

    def send(self, path: str, request: Request, headers: Mapping[str, str] | None = None) -> int:
        """Send one OTLP request over HTTP; returns the status of the answer."""
        return post(self.otlp_http + path, request.SerializeToString(), headers)

    def kill(self) -> None:
        """Kill the process without a chance to clean up."""
        self.process.kill()
        self.process.wait()


def post(address: str, body: bytes, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None) -> int:
    """Send a body; returns the status of the answer."""
    request = urllib.request.Request(
        address, data=body, headers={"content-type": "application/x-protobuf", **(headers or {})}, method="POST"
    )
    try:
        opener = NO_PROXY if tls is None else urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls))
        with opener.open(request, timeout=WAIT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def read(address: str) -> str:
    with NO_PROXY.open(address, timeout=WAIT_S) as response:
        return str(response.read().decode())


@contextmanager
def collecting(
    program: Path,
    state: Path,
    *overlays: str,
    settings: Mapping[str, str] | None = None,
    ports: Ports | None = None,
) -> Generator[Collector]:
    """Start the Collector on these or free ports, and stop it at the end."""
    ports = ports or free_ports()
    environment = {
        **settings_for(overlays, settings or {}, state),
        **port_environment(ports),
        "TRACEMIND_LISTEN_HOST": HOST,
    }
    log = state / "collector.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(program), *config_arguments(overlays)], env=environment, stdout=output, stderr=output
        )
    try:
        health = url(ports["collector_health"], "/")
        ready = wait_until(lambda: process.poll() is not None or answers(health), WAIT_S)
        assert ready, log.read_text()
        assert process.poll() is None, log.read_text()
        yield Collector(process, ports, log)
    finally:
        stop(process, WAIT_S)


@dataclasses.dataclass
class Jaeger:
    """A running Jaeger."""

    process: subprocess.Popen[bytes]
    ports: Ports

    @property
    def http(self) -> str:
        """The address of its API."""
        return url(self.ports["jaeger_http"])

    def kill(self) -> None:
        """Kill the process without a chance to clean up."""
        self.process.kill()
        self.process.wait()


@contextmanager
def storing(
    state: Path, *files: str, ports: Ports | None = None, settings: Mapping[str, str] | None = None
) -> Generator[Jaeger]:
    """The real Jaeger with jaeger.yaml and these files of the folder collector/, on these or free ports."""
    ports = ports or free_ports()
    environment = {
        **os.environ,
        **port_environment(ports),
        "TRACEMIND_LISTEN_HOST": HOST,
        "TRACEMIND_JAEGER_UI_CONFIG": str(BASE.parent / "jaeger-ui.json"),
        **(settings or {}),
    }
    command = [str(go_program("jaeger")), *(f"--config={BASE.parent / name}" for name in ("jaeger.yaml", *files))]
    log = state / "jaeger.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        health = url(ports["jaeger_health"], "/status")
        ready = wait_until(lambda: process.poll() is not None or answers(health), WAIT_S)
        assert ready, log.read_text()
        assert process.poll() is None, log.read_text()
        yield Jaeger(process, ports)
    finally:
        stop(process, WAIT_S)


def to_sink(sink: Sink, **more: str) -> dict[str, str]:
    """The settings of the overlay `otlp` for this receiver."""
    return {"TRACEMIND_APM_ENDPOINT": sink.url, "TRACEMIND_APM_AUTHORIZATION": "Bearer apm", **more}


def await_spans(sink: Sink, count: int) -> None:
    assert wait_until(lambda: len(sink.spans()) >= count, WAIT_S), f"{len(sink.spans())} of {count} spans came"


def export_by_grpc(
    collector: Collector,
    request: ExportTraceServiceRequest,
    token: str = "none",
    *,
    trusted: Path | None = None,
    own: str = "",
    gzip: bool = False,
) -> str:
    """Send one request, over TLS with a file of trusted certificates; returns the name of its status."""
    grpc: Any = importlib.import_module("grpc")
    stubs: Any = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")
    target = collector.otlp_grpc.removeprefix("http://")
    if trusted is None:
        channel = grpc.insecure_channel(target, compression=grpc.Compression.Gzip if gzip else None)
    else:
        pair = Path(own).read_bytes() if own else None
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(trusted.read_bytes(), pair, pair))
    with channel:
        metadata = [("authorization", f"Bearer {token}")]
        try:
            stubs.TraceServiceStub(channel).Export(request, metadata=metadata, timeout=WAIT_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"
