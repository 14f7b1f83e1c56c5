"""Every compose file, merged and validated as Docker Compose does it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from collector.stack.overlays import compose_override
from collector.stack.programs import GoProgram

from tests.pages import ROOT
from tests.required import built

pytestmark = pytest.mark.slow

Json = dict[str, Any]
MAIN = ROOT / "docker-compose.yml"
FILES = [MAIN, *sorted({*ROOT.glob("docker-compose.*.yml"), *(ROOT / "collector").rglob("docker-compose*.yml")})]
COMPOSE = GoProgram("compose", "github.com/compose-spec/compose-go/v2/cmd", generated=False)
"""The reference loader of the Compose Specification, which Docker Compose itself uses. It needs no engine."""
COMMAND = re.compile(r"^# +docker compose ((?:-f \S+ )*)up\b", re.MULTILINE)


@pytest.fixture(scope="module")
def compose() -> Path:
    """The loader, built in half a minute the first time."""
    return built(COMPOSE)


def load(compose: Path, *files: Path | str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(compose), "--format", "json", *map(str, files)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def files_of(path: Path) -> list[str]:
    """The files of the command in the head of a compose file."""
    (options,) = COMMAND.findall(path.read_text())[:1]
    return str(options).split()[1::2] or [path.name]


def model_of(compose: Path, path: Path) -> Json:
    done = load(compose, *files_of(path))
    assert done.returncode == 0, done.stderr
    model: Json = json.loads(done.stdout)
    return model


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_compose_file_is_valid_with_the_command_in_its_head(compose: Path, path: Path) -> None:
    """Docker Compose accepts the file, alone or merged as its head says, and finds all that a service refers to."""
    assert str(path.relative_to(ROOT)) in files_of(path)

    model = model_of(compose, path)

    for name, service in model["services"].items():
        assert service.get("depends_on", {}).keys() <= model["services"].keys(), name
        mounts: list[Json] = service.get("volumes", [])
        named = {mount["source"] for mount in mounts if mount["type"] == "volume" and "source" in mount}
        assert named <= model.get("volumes", {}).keys(), name
        assert [
            mount["source"] for mount in mounts if mount["type"] == "bind" and not Path(mount["source"]).exists()
        ] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_published_port_is_a_port_of_this_host(compose: Path, path: Path) -> None:
    """No service can be reached from another host, whatever the variables say, and no two use one port."""
    ports = [port for service in model_of(compose, path)["services"].values() for port in service.get("ports", [])]

    assert {port.get("host_ip") for port in ports} <= {"127.0.0.1"}
    published = [port["published"] for port in ports]
    assert len(set(published)) == len(published)
    modes = {service.get("network_mode", "none") for service in model_of(compose, path)["services"].values()}
    assert modes == {"none"}


def test_each_image_has_one_exact_version(compose: Path) -> None:
    """All compose files that name an image name the same version of it, which is no tag that moves."""
    images = {service["image"] for path in FILES for service in model_of(compose, path)["services"].values()}
    versions = dict(image.rsplit(":", 1) for image in images)

    assert len(versions) == len(images)
    assert [tag for tag in versions.values() if not re.fullmatch(r"v?\d+\.\d+\.\d+", tag)] == []


def test_the_stack_with_overlays_is_valid_in_docker(compose: Path, tmp_path: Path) -> None:
    """`collector.stack --overlay` gives Docker the files in their order, and the variables that they read."""
    override = tmp_path / "overlays.json"
    override.write_text(json.dumps(compose_override(["redaction", "datadog"])))

    done = load(compose, "docker-compose.yml", override)

    assert done.returncode == 0, done.stderr
    collector = json.loads(done.stdout)["services"]["otelcol"]
    files = ("base", "overlays/redaction", "overlays/datadog", "overlays/jaeger", "overlays/prometheus-scrape")
    assert collector["command"] == [f"--config=/etc/collector/{name}.yaml" for name in files]
    variables = {str(each).partition("=")[0] for each in collector["environment"]}
    assert {"DD_API_KEY", "TRACEMIND_COLLECTOR_RETRY_FOR"} <= variables
    assert "TRACEMIND_LISTEN_HOST=0.0.0.0" in collector["environment"]
    assert "TRACEMIND_OTLP_HTTP_PORT" not in variables


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ('{services: {a: {image: "x:1", port: ["1:1"]}}}', "services.a.port"),
        ('{services: {a: {image: "x:1", ports: ["127.0.0.1:99999:1"]}}}', "99999"),
        ('{services: {a: {image: "x:1", restart: [always]}}}', "services.a.restart"),
        ('{services: {a: {image: "x:1", environment: {A: {b: 1}}}}}', "environment"),
    ],
)
def test_a_mistake_is_found(compose: Path, tmp_path: Path, wrong: str, reason: str) -> None:
    """The loader rejects what the schema does not know, and says where."""
    (tmp_path / "wrong.yml").write_text(wrong)

    done = load(compose, "wrong.yml", folder=tmp_path)

    assert done.returncode != 0
    assert reason in done.stderr
