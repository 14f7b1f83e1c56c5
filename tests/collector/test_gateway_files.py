"""The files of the chain for a fleet agree with each other, and its command says what is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from collector.gateway.chain import AGENT_FILES, GATEWAY, JAEGER_FILES, OTELCOL_GATEWAY, OVERLAYS, SAMPLER_FILES
from collector.gateway.files import with_values, write_cassandra, write_kafka
from collector.gateway.layout import NAMES, PORTS, SAMPLERS, choose_ports
from collector.gateway.maven import CASSANDRA, KAFKA, Engine

from tests.e2e.collectors import go_program
from tests.pages import ROOT

COMPOSE = ROOT / "docker-compose.gateway.yml"
PARTS = {"receivers": "receiver", "processors": "processor", "exporters": "exporter", "connectors": "connector"}

Json = dict[str, Any]


def read(path: Path) -> Json:
    return cast("Json", yaml.safe_load(path.read_text()))


def version_in_pom(engine: Engine) -> str:
    """The version of the first artifact that a pom.xml asks for."""
    found = re.search(r"<dependency>.*?<version>(.+?)</version>", (engine.folder / "pom.xml").read_text(), re.DOTALL)
    assert found
    return found[1]


def kafka_properties() -> dict[str, str]:
    lines = (KAFKA.folder / "server.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize(
    "path", [*AGENT_FILES, *SAMPLER_FILES, GATEWAY / "samplers-dns.yaml"], ids=lambda path: path.name
)
def test_the_collector_that_is_built_has_what_the_chain_uses(path: Path) -> None:
    """The native build for the chain has every component of the files of agents and samplers."""
    modules = (OTELCOL_GATEWAY.lock_dir / "builder.yaml").read_text()
    for kind, suffix in {**PARTS, "extensions": "extension"}.items():
        for name in cast("Json", read(path).get(kind) or {}):
            module = name.partition("/")[0].replace("otlp_grpc", "otlp").replace("_", "")
            assert re.search(rf"/{module}({suffix})? v", modules), name


def test_the_versions_in_compose_are_those_of_the_native_chain() -> None:
    """Kafka and Cassandra have the same versions in Docker as natively, and the Collector is built as its lock says."""
    images = {service["image"] for service in read(COMPOSE)["services"].values()}

    assert {f"apache/kafka:{version_in_pom(KAFKA)}", f"cassandra:{version_in_pom(CASSANDRA)}"} <= images
    assert read(OTELCOL_GATEWAY.lock_dir / "builder.yaml")["dist"]["version"] == OTELCOL_GATEWAY.version


def test_compose_and_helm_run_the_files_that_the_native_chain_runs() -> None:
    """Each program has the same configuration natively, in Docker and in the Helm values; agents differ in where they
    find the samplers, and in Kubernetes they redact."""
    compose = {name: service.get("command") for name, service in read(COMPOSE)["services"].items()}
    agent, sampler = ([path.name for path in files] for files in (AGENT_FILES, SAMPLER_FILES))

    assert names_in(compose["agent-1"]) == names_in(compose["agent-2"]) == agent
    assert all(names_in(compose[name]) == sampler for name in SAMPLERS)
    for own in ("ingester", "query"):
        files = [*(path.name for path in JAEGER_FILES), f"{own}.yaml"]
        values = read(GATEWAY / "helm" / f"{own}.yaml")["jaeger"]
        assert names_in(values["args"]) == names_in(compose["ingester-1" if own == "ingester" else own]) == files
    helm = {name: read(GATEWAY / "helm" / f"{name}.yaml")["command"]["extraArgs"] for name in ("agent", "sampler")}
    assert names_in(helm["sampler"]) == sampler
    more = ["redaction.yaml", "truncation.yaml"]
    assert [name for name in names_in(helm["agent"]) if name not in more] == [*agent[:-1], "samplers-dns.yaml"]


def names_in(arguments: list[str]) -> list[str]:
    return [argument.rpartition("/")[2] for argument in arguments]


def test_the_helm_values_use_the_images_of_compose() -> None:
    """The Helm values name the versions of docker-compose.gateway.yml."""
    images = {service["image"] for service in read(COMPOSE)["services"].values()}
    for name in ("agent", "sampler"):
        image = read(GATEWAY / "helm" / f"{name}.yaml")["image"]
        assert f"{image['repository']}:{image['tag']}" in images
    for name in ("ingester", "query"):
        tag = read(GATEWAY / "helm" / f"{name}.yaml")["jaeger"]["image"]["tag"]
        assert f"jaegertracing/jaeger:{tag}" in images


def test_a_whole_trace_fits_into_a_message() -> None:
    """Kafka takes the largest trace that a sampler writes, which is as large as what the Collector receives."""
    largest = read(GATEWAY / "sampler.yaml")["exporters"]["kafka/spans"]["producer"]["max_message_bytes"]
    received = read(AGENT_FILES[0])["receivers"]["otlp"]["protocols"]["http"]["max_request_body_size"]

    assert int(kafka_properties()["message.max.bytes"]) == largest == received
    assert int(kafka_properties()["replica.fetch.max.bytes"]) >= largest


def test_nothing_waits_in_memory_that_was_acknowledged() -> None:
    """Queues that can be on disk are the only ones: an agent's second queue and an ingester's queue are off."""
    agent = read(GATEWAY / "agent.yaml")["exporters"]["load_balancing"]
    sampler = read(GATEWAY / "sampler.yaml")["exporters"]["kafka/spans"]
    ingester = read(GATEWAY / "ingester.yaml")

    assert agent["protocol"]["otlp"]["sending_queue"] == {"enabled": False}
    for exporter in (agent, sampler):
        assert "TRACEMIND_COLLECTOR_QUEUE" in exporter["sending_queue"]["storage"]
    assert sampler["sending_queue"]["block_on_overflow"] is True
    assert sampler["producer"]["required_acks"] == -1
    assert "queue" not in ingester["exporters"]["jaeger_storage_exporter"]
    assert ingester["receivers"]["kafka"]["message_marking"]["after"] is True


def test_both_ends_of_the_topic_use_its_default_name() -> None:
    """Neither end names the topic, whose option has another name in each version of Jaeger: both take the default."""
    assert "traces" not in read(GATEWAY / "sampler.yaml")["exporters"]["kafka/spans"]
    assert not {"topic", "traces"} & read(GATEWAY / "ingester.yaml")["receivers"]["kafka"].keys()


def test_kafka_and_cassandra_listen_on_this_host_only(tmp_path: Path) -> None:
    """The files of the engines, and what is made of them for other ports, have no address but the loopback."""
    for path in (
        KAFKA.folder / "server.properties",
        CASSANDRA.folder / "cassandra.yaml",
        write_kafka(tmp_path, 19092, 19093),
        write_cassandra(tmp_path, 19042, 17000),
    ):
        text = path.read_text()
        assert "127.0.0.1" in text
        assert "0.0.0.0" not in text
    assert read(tmp_path / "cassandra.yaml")["native_transport_port"] == 19042
    assert read(tmp_path / "cassandra.yaml")["data_file_directories"] == [str(tmp_path / "data")]
    assert (
        "listeners=PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"
        in (tmp_path / "server.properties").read_text()
    )


def test_a_value_is_replaced_once_or_not_at_all() -> None:
    """A key that is missing or there twice is an error, so that no port stays what it was."""
    assert with_values("a=1\nb=2\n", "=", {"b": "3"}) == "a=1\nb=3\n"
    with pytest.raises(ValueError, match="'c' is there 0 times"):
        with_values("a=1\n", "=", {"c": "3"})
    with pytest.raises(ValueError, match="'a' is there 2 times"):
        with_values("a=1\na=2\n", "=", {"a": "3"})


def test_free_ports_are_all_different() -> None:
    """Two programs of a chain never share a port."""
    layout = choose_ports(auto=True)
    ports = [port for name in NAMES for port in layout.ports[name].values()]

    assert len(set(ports)) == len(ports) == sum(len(uses) for uses in PORTS.values())


@pytest.mark.parametrize("file", [GATEWAY / "sampler.yaml", *(GATEWAY / "helm").glob("*.yaml"), COMPOSE])
def test_every_variable_is_documented(file: Path) -> None:
    """collector/README.md names each variable of the chain's files."""
    pages = [ROOT / "collector" / "README.md", ROOT / "docs" / "how-to" / "collector.md"]
    documented = "".join(page.read_text() for page in pages)
    variables = set(re.findall(r"TRACEMIND_[A-Z_]+", file.read_text()))

    assert [name for name in sorted(variables) if name not in documented] == []


# --- with programs


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "collector.gateway", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_without_java_the_command_says_what_to_install(tmp_path: Path) -> None:
    """Exit code 3 and a line that names Java 17 and how to get it."""
    done = run("up", "--state", str(tmp_path), PATH=str(tmp_path), TRACEMIND_STACK_CACHE=str(tmp_path))

    assert done.returncode == 3, done.stderr
    assert "Java was not found; install Java 17" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "reason"), [("1.8.0_402", "Java 8 is not supported"), ("21.0.2", "Java 21 is not")]
)
def test_a_java_that_does_not_fit_is_named(tmp_path: Path, version: str, reason: str) -> None:
    """An older or a newer Java is not tried: Cassandra would end with an error of its own."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)
    done = run("build", PATH="/usr/bin:/bin", JAVA_HOME=str(tmp_path), TRACEMIND_STACK_CACHE=str(tmp_path))

    assert done.returncode == 3, done.stderr
    assert reason in done.stderr


@pytest.mark.slow
def test_without_maven_the_command_says_what_to_install(tmp_path: Path) -> None:
    """Exit code 3 and a line that names Maven, if the jars are not in the cache."""
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\"' >&2\n")
    java.chmod(0o755)
    done = run("build", PATH=str(tmp_path), TRACEMIND_STACK_CACHE=str(tmp_path / "cache"))

    assert done.returncode == 3, done.stderr
    assert "Maven was not found; install Maven" in done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["sampler", "ingester", "query"])
def test_the_programs_accept_their_files(tmp_path: Path, name: str) -> None:
    """The Collector of the local stack accepts a sampler's files, and Jaeger those of ingester and query."""
    files = SAMPLER_FILES if name == "sampler" else (*JAEGER_FILES, GATEWAY / f"{name}.yaml")
    program = go_program("otelcol" if name == "sampler" else "jaeger")
    command = [str(program), "validate", *(f"--config={file}" for file in files)]
    environment = {
        "TRACEMIND_COLLECTOR_QUEUE": "file_storage/queue",
        "TRACEMIND_COLLECTOR_QUEUE_DIR": str(tmp_path / "queue"),
        "TRACEMIND_JAEGER_UI_CONFIG": str(ROOT / "collector" / "jaeger-ui.json"),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr


def test_the_policies_are_those_of_the_one_collector() -> None:
    """Samplers use tail-sampling.yaml itself, so a changed policy is changed in both."""
    assert OVERLAYS / "tail-sampling.yaml" in SAMPLER_FILES
    assert "tail_sampling" not in (GATEWAY / "sampler.yaml").read_text()
