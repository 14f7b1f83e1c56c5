#!/usr/bin/env python3
"""Builds, starts and stops the local stack: the OpenTelemetry Collector, Jaeger and Prometheus.

Natively where Go is (or the programs were built before), otherwise with Docker. Needs nothing but Python.
What it makes lies in the cache folder or in the state folder; what it starts listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

COLLECTOR_DIR = Path(__file__).resolve().parent
BUILD_DIR = COLLECTOR_DIR / "build"
COMPOSE_FILE = COLLECTOR_DIR.parent / "docker-compose.yml"

HOST = "127.0.0.1"
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
PROGRESS_EVERY_S = 15.0
LOG_TAIL_LINES = 25
AUTO_PORT_TRIES = 3
AUTO_SCRAPE_INTERVAL = "1s"

EXIT_FAILED = 1
EXIT_NOTHING_TO_RUN_WITH = 3
EXIT_INTERRUPTED = 130

Mode = Literal["native", "docker"]
Ports = dict[str, int]


class StackError(Exception):
    """Something that the user has to know about; `exit_code` ends the program."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """SIGINT or SIGTERM: unwinds like KeyboardInterrupt, so that what was started is ended again."""


# --- what there is to run


@dataclasses.dataclass(frozen=True)
class Port:
    name: str
    env: str
    default: int
    used_for: str
    in_docker: bool = True  # published by docker-compose.yml


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
)
SHOWN_PORTS = PORTS[:5]


@dataclasses.dataclass(frozen=True)
class GoProgram:
    """A program that is built from the lock files in collector/build/<name>/."""

    name: str
    package: str
    generated: bool  # main.go comes from the Collector's builder

    @property
    def lock_dir(self) -> Path:
        return BUILD_DIR / self.name


GO_PROGRAMS = (
    GoProgram("otelcol", ".", generated=True),
    GoProgram("jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger", generated=False),
)
PROGRAM_NAMES = ("otelcol", "jaeger", "prometheus")


@dataclasses.dataclass(frozen=True)
class Program:
    """One process of the native stack: how it starts, and the addresses that answer 200 once it is ready."""

    name: str
    command: Sequence[str]
    ready_urls: Sequence[str]


# --- helpers


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def cache_dir() -> Path:
    own = os.environ.get("TRACEMIND_STACK_CACHE")
    if own:
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tracemind-otel"


def tail(path: Path, lines: int = LOG_TAIL_LINES) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def output_of(command: Sequence[str], timeout_s: float = 30.0) -> str | None:
    """What a command prints, or None where it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Signals:
    """Turns SIGINT and SIGTERM into `Interrupted`, and holds them back while a process is being started."""

    def __init__(self) -> None:
        self._held = False
        self._pending = False

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._held:
            self._pending = True
        else:
            raise Interrupted

    @contextlib.contextmanager
    def held(self) -> Generator[None]:
        if self._held:
            yield
            return
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending:
            self._pending = False
            raise Interrupted


SIGNALS = Signals()


@contextlib.contextmanager
def file_lock(path: Path, waiting_for: str) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say(f"waiting for {waiting_for}")
                    told = True
                time.sleep(0.2)
        yield


# --- building


class Progress:
    """Elapsed time of a long step: one line that is rewritten on a terminal, else a line now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._started = time.monotonic()
        self._last = self._started
        self._live = sys.stderr.isatty()
        say(f"{what} ...")

    @property
    def elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._last < (1.0 if self._live else PROGRESS_EVERY_S):
            return
        self._last = now
        if self._live:
            sys.stderr.write(f"\r{self._what} ... {self.elapsed}  ")
            sys.stderr.flush()
        else:
            say(f"{self._what} ... {self.elapsed}")

    def done(self) -> None:
        say(("\r" if self._live else "") + f"{self._what}: done in {self.elapsed}")


def run_step(what: str, command: Sequence[str], cwd: Path, log: Path, env: Mapping[str, str]) -> None:
    """Runs a build step in a session of its own, with progress; an interrupt ends all of its children."""
    progress = Progress(what)
    with log.open("ab") as sink:
        with SIGNALS.held():
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.5)
                progress.tick()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode != 0:
        raise StackError(f"{what} failed (exit code {process.returncode}); the end of its output:\n{tail(log)}")
    progress.done()


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


@contextlib.contextmanager
def work_folder(name: str) -> Generator[Path]:
    """A folder for one build, under a lock: beginning fresh, and leaving nothing behind."""
    cache = cache_dir()
    with file_lock(cache / f".lock-{name}", f"another build of {name}"):
        for stale in cache.glob(f".tmp-{name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".tmp-{name}-", dir=cache))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


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


def publish(folder: Path, final: Path) -> None:
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)


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


# --- Prometheus


def prometheus_dir() -> Path:
    return cache_dir() / "prometheus-debian"


def find_prometheus() -> Path | None:
    extracted = prometheus_dir() / "prometheus"
    on_path = shutil.which("prometheus")
    return Path(on_path) if on_path else extracted if extracted.is_file() else None


def can_fetch_prometheus() -> bool:
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def fetch_prometheus() -> Path:
    """Debian's package, unpacked into the cache: installing it would start a service on some systems."""
    if not can_fetch_prometheus():
        raise StackError("Prometheus is not on PATH; install it (for example: brew install prometheus)")
    with work_folder("prometheus") as folder:
        if not (prometheus_dir() / "prometheus").is_file():
            log = folder / "log"
            download_package(folder, log)
            package = next(folder.glob("prometheus_*.deb"))
            unpacked = folder / "unpacked"
            unpack = ["dpkg-deb", "-x", str(package), str(unpacked)]
            run_step("prometheus: unpacking", unpack, folder, log, os.environ)
            publish(unpacked / "usr" / "bin", prometheus_dir())
    return prometheus_dir() / "prometheus"


def download_package(folder: Path, log: Path) -> None:
    command = ["apt-get", "download", "prometheus"]
    try:
        run_step("prometheus: fetching Debian's package", command, folder, log, os.environ)
    except StackError:
        if os.geteuid() != 0:
            raise StackError("the package lists are missing; type: sudo apt-get update") from None
        run_step("apt-get update", ["apt-get", "update"], folder, log, os.environ)
        run_step("prometheus: fetching Debian's package", command, folder, log, os.environ)


# --- the choice


def natively_possible(go: Go | None) -> bool:
    programs = go is not None or all(find_built(program, None) is not None for program in GO_PROGRAMS)
    return programs and (find_prometheus() is not None or can_fetch_prometheus())


def docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    engine = output_of(["docker", "version", "--format", "{{.Server.Version}}"], timeout_s=10.0)
    return bool(engine) and output_of(["docker", "compose", "version"], timeout_s=10.0) is not None


def choose_mode(wanted: str, go: Go | None) -> Mode:
    if wanted in ("auto", "native") and natively_possible(go):
        return "native"
    if wanted in ("auto", "docker") and docker_answers():
        return "docker"
    missing = {"native": "no Go", "docker": "no Docker engine"}.get(wanted, "neither Go nor a Docker engine")
    needed = ".".join(str(number) for number in needed_go())
    remedy = {
        "native": f"Go {needed} or newer (and Prometheus, where apt-get is not at hand)",
        "docker": "Docker with its compose plugin",
    }.get(wanted, f"Go {needed} or newer, or Docker with its compose plugin")
    raise StackError(f"{missing} is there to run the stack with: install {remedy}", EXIT_NOTHING_TO_RUN_WITH)


# --- ports


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    with socket.socket() as probe:  # some systems let two programs bind a port when one took all addresses
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) != 0


def default_ports(mode: Mode) -> Ports:
    ports: Ports = {}
    for port in PORTS:
        text = os.environ.get(port.env, str(port.default))
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise StackError(f"{port.env}={text} is not a port")
        ports[port.name] = int(text)
    for port in PORTS:
        if (port.in_docker or mode == "native") and not is_free(ports[port.name]):
            raise StackError(
                f"port {ports[port.name]} ({port.used_for}) is taken by another program; "
                f"choose another with {port.env}=PORT, or let free ones be found with --ports auto"
            )
    return ports


def free_ports() -> Ports:
    """Free ports for everything, all held open until the last is known, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind((HOST, 0))
        return {port.name: int(each.getsockname()[1]) for port, each in zip(PORTS, sockets, strict=True)}


def port_environment(ports: Ports) -> dict[str, str]:
    return {port.env: str(ports[port.name]) for port in PORTS}


def addresses(ports: Ports, mode: Mode) -> dict[str, str]:
    return {**{port.name: url(ports[port.name]) for port in SHOWN_PORTS}, "mode": mode}


def url(port: int, path: str = "") -> str:
    return f"http://{HOST}:{port}{path}"


# --- processes


def identity(pid: int) -> str | None:
    """What tells this process from a later one with the same number; None once it has ended.

    The moment it started, within this boot: unlike its command line, that is the same before and after exec.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return output_of(["ps", "-o", "lstart=", "-p", str(pid)]) or None
    state, *fields = text.rpartition(")")[2].split()  # the name before it, in brackets, may hold anything
    return None if state == "Z" else f"{fields[18]} {boot}"


@dataclasses.dataclass(frozen=True)
class PidFile:
    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def write(self, pid: int) -> None:
        self.path.write_text(f"{pid}\n{identity(pid)}\n")

    def running_pid(self) -> int | None:
        """The number of our process, or None where it has ended or the number belongs to another by now."""
        try:
            pid_line, _, known = self.path.read_text().partition("\n")
            pid = int(pid_line)
        except (FileNotFoundError, ValueError):
            return None
        return pid if identity(pid) == known.rstrip("\n") else None


def start(program: Program, state: Path, env: Mapping[str, str]) -> None:
    with SIGNALS.held(), (state / f"{program.name}.log").open("wb") as log:
        try:
            process = subprocess.Popen(
                program.command,
                cwd=state,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise StackError(f"{program.name} cannot be started: {error}") from error
        PidFile(state / f"{program.name}.pid").write(process.pid)


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def stop_processes(state: Path) -> list[str]:
    """Ends our processes, all at once, gently first; gives the names of those that were running."""
    files = [PidFile(path) for path in sorted(state.glob("*.pid"))]
    running = {file: pid for file in files if (pid := file.running_pid()) is not None}
    for pid in running.values():
        send(pid, signal.SIGTERM)
    if not wait_until(lambda: not any(file.running_pid() for file in running), STOP_TIMEOUT_S):
        for file in running:
            if (pid := file.running_pid()) is not None:
                send(pid, signal.SIGKILL)
        wait_until(lambda: not any(file.running_pid() for file in running), STOP_TIMEOUT_S)
    for file in files:
        file.path.unlink(missing_ok=True)
    return [file.name for file in running]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# --- readiness

NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(address: str) -> bool:
    try:
        with NO_PROXY.open(address, timeout=2.0) as response:
            return int(response.status) == 200
    except (OSError, ValueError):
        return False


def wait_ready(address: str, name: str, check_alive: Callable[[], None], log_tail: Callable[[], str]) -> None:
    def ready() -> bool:
        check_alive()
        return answers(address)

    if not wait_until(ready, READY_TIMEOUT_S):
        raise StackError(
            f"{name} was not ready after {READY_TIMEOUT_S:.0f} s ({address}); the end of its log:\n{log_tail()}"
        )


# --- up, natively


@dataclasses.dataclass(frozen=True)
class UpOptions:
    state: Path
    auto_ports: bool
    mode: str
    scrape_interval: str | None


@dataclasses.dataclass(frozen=True)
class Binaries:
    otelcol: Path
    jaeger: Path
    prometheus: Path


def build_all(go: Go | None) -> Binaries:
    otelcol, jaeger = (find_built(program, go) or build_missing(program, go) for program in GO_PROGRAMS)
    return Binaries(otelcol, jaeger, find_prometheus() or fetch_prometheus())


def build_missing(program: GoProgram, go: Go | None) -> Path:
    if go is None:
        needed = ".".join(str(number) for number in needed_go())
        raise StackError(
            f"{program.name} has to be built, and there is no Go: install Go {needed} or newer",
            EXIT_NOTHING_TO_RUN_WITH,
        )
    return build_program(program, go)


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


def write_targets(path: Path, targets: Sequence[tuple[str, str]], scrape_interval: str | None) -> None:
    """The addresses Prometheus reads, and how often where that is not what prometheus.yml says."""
    often: dict[str, str] = {}
    if scrape_interval:
        often = {"__scrape_interval__": scrape_interval, "__scrape_timeout__": scrape_interval}
    groups = [{"targets": [target], "labels": {"endpoint": name, **often}} for target, name in targets]
    path.write_text(json.dumps(groups, indent=2) + "\n")


def prepare_prometheus(state: Path, ports: Ports, scrape_interval: str | None) -> None:
    folder = state / "prometheus"
    folder.mkdir(exist_ok=True)
    shutil.copy(COLLECTOR_DIR / "prometheus.yml", folder / "prometheus.yml")
    targets = [
        (f"{HOST}:{ports['collector_metrics']}", "applications"),
        (f"{HOST}:{ports['collector_telemetry']}", "collector"),
    ]
    write_targets(folder / "targets.json", targets, scrape_interval)


class PortLostError(StackError):
    """Another program took a port between our choosing it and our using it."""


def start_native(binaries: Binaries, ports: Ports, options: UpOptions) -> Ports:
    prepare_prometheus(options.state, ports, options.scrape_interval)
    programs = native_programs(binaries, ports, options.state)
    env = native_environment(ports)
    for program in programs:  # Jaeger first: the Collector waits seconds before it tries a second time
        start(program, options.state, env)
        wait_program(program, options.state)
    return ports


def wait_program(program: Program, state: Path) -> None:
    log = state / f"{program.name}.log"

    def check_alive() -> None:
        if PidFile(state / f"{program.name}.pid").running_pid() is None:
            text = tail(log)
            kind = PortLostError if "address already in use" in text else StackError
            raise kind(f"{program.name} ended by itself; the end of its log ({log}):\n{text}")

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


# --- up, by Docker


def compose_project(state: Path) -> str:
    if state == default_state():
        return "tracemind"
    return "tracemind-" + hashlib.sha256(str(state).encode()).hexdigest()[:10]


def compose(state: Path, *arguments: str) -> list[str]:
    return ["docker", "compose", "-f", str(COMPOSE_FILE), "-p", compose_project(state), *arguments]


def compose_logs(state: Path, service: str) -> str:
    command = compose(state, "logs", "--no-color", "--tail", str(LOG_TAIL_LINES), service)
    return output_of(command) or "(no log)"


def up_docker(options: UpOptions) -> Ports:
    ports = free_ports() if options.auto_ports else default_ports("docker")
    env = {**os.environ, **port_environment(ports)}
    if options.scrape_interval:
        targets = options.state / "targets.json"
        inside = [("otelcol:8889", "applications"), ("otelcol:8888", "collector")]
        write_targets(targets, inside, options.scrape_interval)
        targets.chmod(0o644)
        env["TRACEMIND_PROMETHEUS_TARGETS"] = str(targets)
    (options.state / "docker").touch()
    up_command = compose(options.state, "up", "-d")
    run_step("docker compose up -d", up_command, COMPOSE_FILE.parent, options.state / "compose.log", env)
    for name, address in docker_ready_urls(ports):
        wait_ready(address, name, lambda: None, functools.partial(compose_logs, options.state, name))
    return ports


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


# --- commands


def default_state() -> Path:
    return cache_dir() / ".stack"


def known_addresses(state: Path) -> dict[str, str] | None:
    """The addresses that the last `up` wrote down, if all that it started is still running."""
    try:
        known: dict[str, str] = json.loads((state / "stack.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return known if all(pid for _, pid in process_states(state, known["mode"])) else None


def process_states(state: Path, mode: str) -> list[tuple[str, str | None]]:
    """Each program's name, and the process number or container id it runs as."""
    if mode == "native":
        pids = [(name, PidFile(state / f"{name}.pid").running_pid()) for name in PROGRAM_NAMES]
        return [(name, str(pid) if pid is not None else None) for name, pid in pids]
    running = ("ps", "-q", "--status", "running")
    return [(name, output_of(compose(state, *running, name)) or None) for name in PROGRAM_NAMES]


def stop_all(state: Path) -> list[str]:
    stopped = stop_processes(state) + stop_docker(state)
    (state / "stack.json").unlink(missing_ok=True)
    return stopped


def state_lock(state: Path) -> contextlib.AbstractContextManager[None]:
    return file_lock(state / ".lock", "another command on the same state folder")


def command_build(_arguments: argparse.Namespace) -> int:
    binaries = build_all(find_go())
    for name, path in dataclasses.asdict(binaries).items():
        print(f"{name:<11} {path}")
    return 0


def command_up(arguments: argparse.Namespace) -> int:
    options = up_options(arguments)
    with state_lock(options.state):
        known = known_addresses(options.state)
        if known is not None:
            say("the stack runs already")
        else:
            known = up(options)
    print(json.dumps(known) if arguments.json else table(known, options.state))
    return 0


def up_options(arguments: argparse.Namespace) -> UpOptions:
    auto = arguments.ports == "auto"
    interval: str | None = arguments.scrape_interval or (AUTO_SCRAPE_INTERVAL if auto else None)
    return UpOptions(state_of(arguments), auto, arguments.mode, interval)


def up(options: UpOptions) -> dict[str, str]:
    """Starts everything or nothing: an error or an interrupt ends what was started."""
    stop_all(options.state)  # what a killed `up` may have left
    go = find_go()
    mode = choose_mode(options.mode, go)
    started = time.monotonic()
    try:
        ports = up_native(options, go) if mode == "native" else up_docker(options)
        known = addresses(ports, mode)
        (options.state / "stack.json").write_text(json.dumps(known) + "\n")
    except BaseException:
        with SIGNALS.held():
            stop_all(options.state)
        raise
    say(f"ready after {time.monotonic() - started:.1f} s")
    return known


def table(known: Mapping[str, str], state: Path) -> str:
    rows = [f"{port.used_for:<18} {known[port.name]}" for port in SHOWN_PORTS]
    return "\n".join([*rows, f"{'runs by':<18} {known['mode']}", f"{'state and logs':<18} {state}"])


def command_down(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    with state_lock(state), SIGNALS.held():
        stopped = stop_all(state)
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return 0


def command_status(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    known = known_addresses(state)
    mode = "docker" if (state / "docker").exists() else "native"
    for name, running_as in process_states(state, mode):
        print(f"{name:<18} {f'running ({running_as})' if running_as else 'stopped'}")
    if known is not None:
        print(table(known, state))
    return 0 if known is not None else EXIT_FAILED


def command_logs(arguments: argparse.Namespace) -> int:
    state = state_of(arguments)
    if (state / "docker").exists():
        return subprocess.run(compose(state, "logs", "--no-color", arguments.program), check=False).returncode
    try:
        print((state / f"{arguments.program}.log").read_text(errors="replace"), end="")
    except FileNotFoundError:
        raise StackError(f"{arguments.program} has no log in {state}") from None
    return 0


def state_of(arguments: argparse.Namespace) -> Path:
    given: Path | None = arguments.state
    return given.expanduser().resolve() if given else default_state()


# --- command line


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description="The local stack of tracemind-otel: OpenTelemetry Collector, Jaeger and Prometheus.",
        epilog="Ports: " + ", ".join(f"{port.env} ({port.default})" for port in PORTS) + ". "
        "Cache: TRACEMIND_STACK_CACHE, else $XDG_CACHE_HOME/tracemind-otel, else ~/.cache/tracemind-otel. "
        "Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage, 3 no Go and no Docker.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build the Collector and Jaeger with Go, and fetch Prometheus")
    build.set_defaults(run=command_build)
    add_up(commands.add_parser("up", help="start the stack, wait until it is ready and print the addresses"))
    down = commands.add_parser("down", help="end what `up` started, and nothing else")
    down.set_defaults(run=command_down)
    status = commands.add_parser("status", help="say what is running, and where")
    status.set_defaults(run=command_status)
    logs = commands.add_parser("logs", help="print the log of one program")
    logs.add_argument("program", choices=PROGRAM_NAMES)
    logs.set_defaults(run=command_logs)
    for command in (down, status, logs):
        add_state(command)
    return top


def add_up(up_parser: argparse.ArgumentParser) -> None:
    up_parser.add_argument(
        "--ports",
        choices=("default", "auto"),
        default="default",
        help="default: the usual ones, or those of the TRACEMIND_*_PORT variables; auto: any that are free",
    )
    up_parser.add_argument("--json", action="store_true", help="print the addresses as one JSON object")
    up_parser.add_argument(
        "--mode",
        choices=("auto", "native", "docker"),
        default="auto",
        help="auto: natively where Go or a finished build is there, otherwise by Docker",
    )
    up_parser.add_argument(
        "--scrape-interval",
        type=duration,
        metavar="DURATION",
        help="how often Prometheus reads the Collector, for example 1s (default: as in prometheus.yml; "
        f"{AUTO_SCRAPE_INTERVAL} with --ports auto)",
    )
    add_state(up_parser)
    up_parser.set_defaults(run=command_up)


def duration(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*(ms|s|m|h)", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 500ms, 5s or 1m")
    return text


def add_state(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where logs, process numbers and data lie (default: in the cache)",
    )


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    SIGNALS.install()
    try:
        code: int = arguments.run(arguments)
    except StackError as error:
        say(f"stack: {error}")
        return error.exit_code
    except Interrupted:
        say("stack: interrupted, nothing is left running")
        return EXIT_INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
