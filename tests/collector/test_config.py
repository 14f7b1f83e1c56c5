"""The stack's files agree with each other, without Go, Docker or the network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from collector.stack import programs

from tracemind_otel.otel import semconv

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
COLLECTOR = ROOT / "collector"
STACK = COLLECTOR / "stack"
COMPOSE = ROOT / "docker-compose.yml"

Json = dict[str, Any]

CONFIGS = ("otelcol.yaml", "jaeger.yaml")
RENAMED_TYPES = {"otlphttp", "prometheusremotewrite", "spanmetrics", "signaltometrics", "loadbalancing"}
HEALTH_CHECK_PROGRAMS = {"jaegertracing/jaeger": "wget", "prom/prometheus": "wget", "grafana/grafana": "curl"}
"""The program of each image that can ask for its health."""
DEFAULT = re.compile(r"\$\{(?:env:)?(?P<name>[A-Z_]+):-(?P<default>[^}]*)\}")


def read_yaml(path: Path) -> Json:
    return cast("Json", yaml.safe_load(path.read_text()))


def services() -> dict[str, Json]:
    return cast("dict[str, Json]", read_yaml(COMPOSE)["services"])


def with_defaults(text: str) -> str:
    """A file's text where no environment variable is set."""
    return DEFAULT.sub(lambda found: found["default"], text)


def defaults_in(path: Path) -> dict[str, str]:
    return {found["name"]: found["default"] for found in DEFAULT.finditer(path.read_text())}


def lasting_services() -> dict[str, Json]:
    """The services that run until they are stopped."""
    return {name: service for name, service in services().items() if service.get("restart") != "no"}


def image_and_tag(service: Json) -> tuple[str, str]:
    image, _, tag = str(service["image"]).rpartition(":")
    return image, tag


def published(service: Json) -> list[str]:
    return [with_defaults(port) for port in service.get("ports", [])]


def host_ports() -> set[int]:
    return {int(port.split(":")[1]) for service in services().values() for port in published(service)}


def container_ports(service: Json) -> set[int]:
    return {int(port.split(":")[2]) for port in published(service)}


@pytest.fixture(scope="module")
def stack_module() -> ModuleType:
    return programs


# --- the Collector and Jaeger


@pytest.mark.parametrize(
    "path",
    [COMPOSE, *sorted(COLLECTOR.rglob("*.y*ml")), *sorted(COLLECTOR.rglob("*.json"))],
    ids=lambda path: path.name,
)
def test_every_file_parses(path: Path) -> None:
    """Every file of the stack has valid syntax."""
    content: object = json.loads(path.read_text()) if path.suffix == ".json" else read_yaml(path)

    assert content


@pytest.mark.parametrize("name", CONFIGS)
def test_pipelines_use_what_is_defined_and_all_of_it(name: str) -> None:
    """Pipelines use exactly the components that are defined."""
    config = read_yaml(COLLECTOR / name)
    pipelines: list[Json] = list(config["service"]["pipelines"].values())

    for kind in ("receivers", "processors", "exporters"):
        used = {component for pipeline in pipelines for component in pipeline.get(kind, [])}
        assert used == set(config.get(kind, {})), kind
    assert set(config["service"]["extensions"]) == set(config["extensions"])


@pytest.mark.parametrize("name", CONFIGS)
def test_no_batch_processor_and_no_old_type_name(name: str) -> None:
    """The files work with Collectors that dropped the batch processor and the old names."""
    config = read_yaml(COLLECTOR / name)
    kinds = ("processors", "exporters", "connectors", "extensions")
    types = {component.partition("/")[0] for kind in kinds for component in config.get(kind, {})}

    assert "batch" not in types
    assert not types & RENAMED_TYPES
    assert "otlp" not in {component.partition("/")[0] for component in config["exporters"]}


def test_the_memory_limiter_comes_first_everywhere() -> None:
    """Every pipeline of the Collector rejects data before memory runs out."""
    pipelines = read_yaml(COLLECTOR / "otelcol.yaml")["service"]["pipelines"]

    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in pipelines.values())


def test_traces_wait_in_a_queue_that_makes_batches() -> None:
    """Spans wait in a queue while Jaeger is away, and are sent in batches."""
    exporter = read_yaml(COLLECTOR / "otelcol.yaml")["exporters"]["otlp_grpc/jaeger"]

    assert exporter["sending_queue"]["batch"]
    assert exporter["retry_on_failure"]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_address_comes_from_the_environment(name: str) -> None:
    """Docker and a native run use the same files: each host and port has its variable."""
    config = (COLLECTOR / name).read_text()
    addresses = re.findall(r"^ *(?:endpoint|host|port): (.+)$", config, re.MULTILINE)

    assert addresses
    assert not [address for address in addresses if DEFAULT.sub("", address).strip(' "') not in ("", ":")]
    assert all("0.0.0.0" not in address for address in addresses)


def test_default_ports_are_the_same_everywhere(stack_module: ModuleType) -> None:
    """The configuration, docker-compose.yml and `collector.stack` have the documented ports."""
    in_stack = {port.env: str(port.default) for port in stack_module.PORTS}
    for path in (COMPOSE, *(COLLECTOR / name for name in CONFIGS)):
        in_file = {name: value for name, value in defaults_in(path).items() if name.endswith("_PORT")}
        assert in_file == {name: in_stack[name] for name in in_file}, path.name
    assert host_ports() == {port.default for port in stack_module.PORTS if port.in_docker}


UI_OPTIONS: Mapping[str, frozenset[str]] = {
    "useOpenTelemetryTerms": frozenset(),
    "topTagPrefixes": frozenset(),
    "traceTimeline": frozenset({"enableSidePanel", "defaultDetailPanelMode", "spanPillsEnabled"}),
    "menu": frozenset({"label", "url", "anchorTarget", "items"}),
    "linkPatterns": frozenset({"type", "key", "url", "text"}),
}
"""Options of Jaeger UI and the fields of each (packages/jaeger-ui/src/types/config.ts at c321fb32b, August 2026)."""
UI_DEFAULTS = {"spanPillsEnabled": True, "defaultDetailPanelMode": "inline"}
"""What the UI does anyway (constants/default-config.ts). `enableSidePanel` is none of them: the UI does not merge
`traceTimeline` with its defaults, so without that field there is no side panel."""


def test_jaeger_shows_what_a_call_cost_first() -> None:
    """Jaeger's UI knows every option, none is its default, and cost, tokens and retries are the first attributes."""
    ui = json.loads((COLLECTOR / "jaeger-ui.json").read_text())

    assert ui.keys() <= UI_OPTIONS.keys()
    for option, fields in UI_OPTIONS.items():
        entries: list[Any] = ui[option] if isinstance(ui[option], list) else [ui[option]]
        groups: list[Json] = [entry for entry in entries if isinstance(entry, dict)]
        items: list[Json] = [item for group in groups for item in (group, *group.get("items", ()))]
        assert {name for item in items for name in item} <= fields, option
    assert not ui["traceTimeline"].items() & UI_DEFAULTS.items()
    assert ui["traceTimeline"]["enableSidePanel"]
    assert ui["useOpenTelemetryTerms"]
    order = ui["topTagPrefixes"]
    assert order[:2] == ["gen_ai.usage.cost", "tracemind.flow.cost_usd"]
    assert order.index("tracemind.retry.") < order.index("gen_ai.")
    assert defaults_in(COLLECTOR / "jaeger.yaml")["TRACEMIND_JAEGER_UI_CONFIG"] == "collector/jaeger-ui.json"


def test_jaegers_links_are_searches_and_queries_that_exist() -> None:
    """Each link asks for attributes and metrics that we record, and a pattern's value is one of the span's."""
    ui = json.loads((COLLECTOR / "jaeger-ui.json").read_text())
    names = {value for value in vars(semconv).values() if isinstance(value, str)} | {"error"}
    links: list[Json] = [*ui["linkPatterns"], *(item for group in ui["menu"] for item in group["items"])]
    for link in links:
        query = parse_qs(urlsplit(re.sub(r"#\{([^}]+)\}", r"\1", link["url"])).query)
        assert {*re.findall(r"#\{([^}]+)\}", link["url"])} <= {link.get("key")}
        if link["url"].startswith("/search?"):
            assert json.loads(query["tags"][0]).keys() <= names, link
            # The UI searches at once only if the link has a service, a start or an end.
            assert (query["start"], query["end"], query["lookback"]) == (["0"], ["0"], ["2d"]), link
        else:
            assert "tracemind_llm_cost_USD_total" in query["g0.expr"][0], link


def test_prometheus_keeps_the_applications_labels_and_reads_both_endpoints() -> None:
    """A metric's job is the application's name, and the Collector's own metrics are scraped too."""
    (job,) = read_yaml(COLLECTOR / "prometheus.yml")["scrape_configs"]
    groups: list[Json] = json.loads((COLLECTOR / "prometheus-targets.json").read_text())

    assert job["honor_labels"] is True
    assert job["file_sd_configs"] == [{"files": ["targets.json"]}]
    defaults = defaults_in(COLLECTOR / "otelcol.yaml")
    names = ("TRACEMIND_COLLECTOR_METRICS_PORT", "TRACEMIND_COLLECTOR_TELEMETRY_PORT")
    assert [group["targets"] for group in groups] == [[f"otelcol:{defaults[name]}"] for name in names]


# --- Docker


def test_containers_listen_where_the_configuration_says() -> None:
    """Each published port leads to a default port of the program in the container."""
    for name, file in (("otelcol", "otelcol.yaml"), ("jaeger", "jaeger.yaml")):
        inside = {int(value) for key, value in defaults_in(COLLECTOR / file).items() if key.endswith("_PORT")}
        assert container_ports(services()[name]) <= inside


def test_jaeger_is_reached_through_the_collector_only() -> None:
    """Jaeger's OTLP port is not published, so that spans cannot bypass the Collector."""
    port = int(defaults_in(COLLECTOR / "jaeger.yaml")["TRACEMIND_JAEGER_OTLP_PORT"])

    assert port not in host_ports()
    assert services()["otelcol"]["environment"]["TRACEMIND_JAEGER_OTLP_ENDPOINT"] == f"jaeger:{port}"


def test_images_are_pinned_in_one_place() -> None:
    """Each image has an exact version, written once."""
    for service in services().values():
        image, tag = image_and_tag(service)
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]
        for path in COLLECTOR.rglob("*"):
            if path.suffix in (".yaml", ".yml", ".md", ".py", ".json"):
                assert not re.search(rf"{re.escape(image)}:v?\d", path.read_text()), path


def test_docker_and_the_native_build_run_the_same_collector() -> None:
    """The image and the native build have the same version of the Collector."""
    builder = read_yaml(COLLECTOR / "build" / "otelcol" / "builder.yaml")
    otelcol, _ = programs.GO_PROGRAMS

    assert image_and_tag(services()["otelcol"])[1] == builder["dist"]["version"] == otelcol.version


def test_the_version_of_the_native_jaeger_is_that_of_its_module() -> None:
    """Jaeger 2.N was released together with version 1.(N+63), which is the version of its module."""
    _, jaeger = programs.GO_PROGRAMS
    _, minor, patch = jaeger.version.split(".")

    assert requirements("jaeger")["github.com/jaegertracing/jaeger"] == f"v1.{int(minor) + 63}.{patch}"


def test_the_stack_asks_an_installed_program_for_the_components_in_use() -> None:
    """An installed Collector or Jaeger is used only if it has every component of its configuration."""
    for name in ("otelcol", "jaeger"):
        config = read_yaml(COLLECTOR / f"{name}.yaml")
        kinds = ("receivers", "processors", "exporters", "extensions")
        used = {kind: {each.partition("/")[0] for each in config[kind]} for kind in kinds if kind in config}

        assert {kind: set(names) for kind, names in programs.REQUIREMENTS[name].components.items()} == used


def test_mounted_files_exist_and_are_read_only() -> None:
    """Mounted files and folders exist, since Docker would make empty folders of them, and are read-only."""
    mounts = [volume for service in services().values() for volume in service["volumes"]]
    files = [with_defaults(mount) for mount in mounts if with_defaults(mount).startswith(".")]

    assert len(files) == 9
    for mount in files:
        source, target, mode = mount.split(":")
        assert (ROOT / source).exists(), source
        assert target.startswith("/etc/")
        assert mode == "ro"


def test_configuration_is_read_from_where_it_is_mounted() -> None:
    """Each program reads the file that is mounted in its container."""
    for name in ("otelcol", "jaeger", "prometheus"):
        service = services()[name]
        targets = {with_defaults(volume).split(":")[1] for volume in service["volumes"]}
        given = {word.split("=")[1] for word in service["command"] if word.startswith(("--config=", "--config.file="))}
        assert given
        for path in given:
            assert path in targets or str(Path(path).parent) in targets, path
    assert services()["jaeger"]["environment"]["TRACEMIND_JAEGER_UI_CONFIG"] == "/etc/jaeger/jaeger-ui.json"


def test_prometheus_finds_its_rules_in_the_container() -> None:
    """The folder of the rules is mounted where the configuration of Prometheus looks for them."""
    (pattern,) = read_yaml(COLLECTOR / "prometheus.yml")["rule_files"]

    assert f"./collector/rules:/etc/prometheus/{Path(pattern).parent}:ro" in services()["prometheus"]["volumes"]
    assert {path.name for path in COLLECTOR.glob(pattern)} == {"recording.yml", "alerts.yml", "dashboards.yml"}


def test_health_checks_stand_only_where_the_image_can_run_them() -> None:
    """The Collector's image, which has no other program, has no health check."""
    for service in lasting_services().values():
        _, program, *_ = service.get("healthcheck", {}).get("test", ("CMD", None))
        assert program == HEALTH_CHECK_PROGRAMS.get(image_and_tag(service)[0])


def test_services_come_back_and_have_their_limits() -> None:
    """The services survive a restart of Docker and have resource limits."""
    for name, service in services().items():
        assert service["restart"] == ("unless-stopped" if name in lasting_services() else "no")
        assert service["mem_limit"]
        assert service["cap_drop"] == ["ALL"]


def test_jaeger_can_write_to_its_volume() -> None:
    """Jaeger, user 10001 in its image, starts when the volume of Badger is that user's."""
    jaeger, first = services()["jaeger"], services()["jaeger-volume"]
    (mount,) = first["volumes"]
    folder = mount.split(":")[1]

    assert mount in jaeger["volumes"]
    assert defaults_in(COLLECTOR / "jaeger" / "badger.yaml")["TRACEMIND_JAEGER_BADGER_DIR"] == folder
    assert first["entrypoint"] == ["chown", "10001:10001", folder]
    assert (first["user"], first["cap_add"], first["network_mode"]) == ("0", ["CHOWN"], "none")
    assert jaeger["depends_on"] == {"jaeger-volume": {"condition": "service_completed_successfully"}}


def test_the_container_gets_what_the_storages_read() -> None:
    """Each variable of a storage reaches Jaeger's container, without a value of its own in docker-compose.yml."""
    read = {
        name for path in (COLLECTOR / "jaeger").glob("*.yaml") for name in re.findall(r"env:(\w+)", path.read_text())
    }
    environment = services()["jaeger"]["environment"]

    assert read - environment.keys() == {"TRACEMIND_JAEGER_BADGER_DIR"}
    assert not [name for name in read & environment.keys() if environment[name] is not None]


# --- the native build


def requirements(program: str) -> dict[str, str]:
    """Each module of a go.mod and its version, after replacements."""
    text = (COLLECTOR / "build" / program / "go.mod").read_text()
    required = dict(re.findall(r"^\s*(?:require )?(\S+\.\S+/\S+) (v\S+)", text, re.MULTILINE))
    return required | dict(re.findall(r"^replace \S+ => (\S+) (v\S+)$", text, re.MULTILINE))


def test_the_builder_and_the_lock_file_name_the_same_versions() -> None:
    """The lock file has the versions of builder.yaml."""
    builder = read_yaml(COLLECTOR / "build" / "otelcol" / "builder.yaml")
    locked = requirements("otelcol")
    kinds = ("receivers", "processors", "connectors", "exporters", "extensions", "providers")
    modules = [entry["gomod"].split() for kind in kinds for entry in builder[kind]]

    assert len(modules) > 20
    assert {module: locked.get(module) for module, _ in modules} == dict(modules)


@pytest.mark.parametrize("program", ["otelcol", "jaeger", "compose"])
def test_every_requirement_is_locked_by_its_hash(program: str) -> None:
    """Every module of a build is locked by its checksum."""
    sums = (COLLECTOR / "build" / program / "go.sum").read_text()

    assert not [name for name, version in requirements(program).items() if f"{name} {version}" not in sums]


def test_the_collector_that_is_built_has_the_components_in_use() -> None:
    """The native build has every component that otelcol.yaml uses."""
    modules = (COLLECTOR / "build" / "otelcol" / "builder.yaml").read_text()
    config = read_yaml(COLLECTOR / "otelcol.yaml")
    suffixes = {
        "receivers": "receiver",
        "processors": "processor",
        "exporters": "exporter",
        "extensions": "extension",
    }

    for kind, suffix in suffixes.items():
        for component in config[kind]:
            name = component.partition("/")[0].replace("_grpc", "").replace("_", "")
            assert f"{name}{suffix} " in modules, component


# --- the package that starts them


def run_stack(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector.stack", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT)


def bare_environment(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty cache and without any program."""
    programs = tmp_path / "bin"
    programs.mkdir()
    return {"PATH": str(programs), "HOME": str(tmp_path), "TRACEMIND_STACK_CACHE": str(tmp_path / "cache")}


def test_down_and_status_of_nothing(tmp_path: Path) -> None:
    """Without a running stack, `down` succeeds and `status` says so."""
    env = bare_environment(tmp_path)

    down, status = run_stack("down", env=env), run_stack("status", env=env)

    assert (down.returncode, down.stdout) == (0, "nothing was running\n")
    assert status.returncode == 1
    assert status.stdout.count("stopped") == 3


FAKE_DOCKER = """\
#!{python}
import json, os, pathlib, signal, subprocess, sys
here, words = pathlib.Path(__file__).parent, sys.argv[1:]
names = ("TRACEMIND_JAEGER_HTTP_PORT", "TRACEMIND_COLLECTOR_HEALTH_PORT", "TRACEMIND_PROMETHEUS_PORT")
with (here / "calls").open("a") as calls:
    targets = os.environ.get("TRACEMIND_PROMETHEUS_TARGETS")
    storage = [os.environ.get("TRACEMIND_JAEGER_" + name) for name in ("STORAGE", "FEATURE_GATES")]
    print(json.dumps({{"words": words, "targets": targets, "storage": storage}}), file=calls)
if "up" in words:
    servers = [subprocess.Popen([sys.executable, str(here / "ready.py"), os.environ[name]]) for name in names]
    (here / "pids").write_text(" ".join(str(server.pid) for server in servers))
elif "down" in words:
    [os.kill(int(pid), signal.SIGTERM) for pid in (here / "pids").read_text().split()]
else:
    print("1.0")
"""

READY_SERVER = """\
import http.server, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
"""


@pytest.fixture
def docker_only(tmp_path: Path) -> dict[str, str]:
    """An environment whose only program is a stand-in for Docker that records its arguments."""
    env = bare_environment(tmp_path)
    docker = Path(env["PATH"]) / "docker"
    docker.write_text(FAKE_DOCKER.format(python=sys.executable))
    docker.chmod(0o755)
    (docker.parent / "ready.py").write_text(READY_SERVER)
    return env


def test_without_go_the_stack_runs_in_docker(docker_only: dict[str, str], tmp_path: Path) -> None:
    """With Docker alone, `up` and `down` use docker-compose.yml, on free ports and in their own project."""
    state = str(tmp_path / "state")
    up = run_stack("up", "--ports", "auto", "--json", "--state", state, env=docker_only)
    again = run_stack("up", "--ports", "auto", "--json", "--state", state, env=docker_only)
    down = run_stack("down", "--state", state, env=docker_only)

    assert up.returncode == 0, up.stderr
    shown = json.loads(up.stdout)
    assert shown["mode"] == "docker"
    assert shown["grafana"].startswith("http://127.0.0.1:")
    assert again.stdout == up.stdout
    assert down.stdout == "stopped otelcol, jaeger, prometheus\n"
    calls = [json.loads(line) for line in (Path(docker_only["PATH"]) / "calls").read_text().splitlines()]
    (started,) = [call for call in calls if "up" in call["words"]]
    (ended,) = [call for call in calls if "down" in call["words"]]
    assert started["words"][:3] == ["compose", "-f", str(COMPOSE)]
    assert started["words"][3:5] == ended["words"][3:5]
    targets: list[Json] = json.loads((tmp_path / "state" / "targets.json").read_text())
    assert started["targets"] == str(tmp_path / "state" / "targets.json")
    assert {group["labels"]["__scrape_interval__"] for group in targets} == {"1s"}


def test_docker_gets_the_storage_and_status_names_the_images(docker_only: dict[str, str], tmp_path: Path) -> None:
    """With Docker too, --storage says where traces are kept, and `status` says what runs."""
    state = ("--state", str(tmp_path / "state"))
    run_stack("up", "--ports", "auto", "--storage", "clickhouse", *state, env=docker_only)
    status = run_stack("status", *state, env=docker_only)
    run_stack("down", *state, env=docker_only)

    calls = [json.loads(line) for line in (Path(docker_only["PATH"]) / "calls").read_text().splitlines()]
    assert [call["storage"] for call in calls if "up" in call["words"]] == [["clickhouse", "storage.clickhouse"]]
    assert re.search(r"^Jaeger's storage +clickhouse$", status.stdout, re.MULTILINE)
    for name in ("otelcol", "jaeger", "prometheus"):
        assert re.search(rf"^{name} +running .*, image {services()[name]['image']}$", status.stdout, re.MULTILINE)


def test_a_number_that_is_no_port_is_rejected(docker_only: dict[str, str]) -> None:
    """An invalid port is rejected with a message that says so."""
    done = run_stack("up", env={**docker_only, "TRACEMIND_PROMETHEUS_PORT": "9090x"})

    assert done.returncode == 1
    assert "TRACEMIND_PROMETHEUS_PORT=9090x is not a port" in done.stderr


def test_every_variable_is_explained() -> None:
    """collector/README.md explains each variable that the files or `collector.stack` read."""
    paths = [COMPOSE, *STACK.glob("*.py"), *(COLLECTOR / name for name in CONFIGS)]
    used = {name for path in paths for name in re.findall(r"TRACEMIND_[A-Z_]*[A-Z]", path.read_text())}
    readme = (COLLECTOR / "README.md").read_text()

    assert sorted(name for name in used if f"`{name}`" not in readme) == []


def test_no_file_depends_on_one_machine() -> None:
    """No file has a path of a home folder or of a build machine."""
    for path in [COMPOSE, *(path for path in COLLECTOR.rglob("*") if path.is_file())]:
        if "__pycache__" not in path.parts:
            assert not re.search(r"(?<![\w.])/(?:root|home|work|Users)/", path.read_text()), path


def test_the_stack_imports_the_standard_library_only() -> None:
    """The stack starts with a bare Python, before any install."""
    sources = [path.read_text() for path in STACK.glob("*.py")]
    names = {name for source in sources for name in re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)}

    assert names <= sys.stdlib_module_names
