"""The Kubernetes examples fit the Collector's files, the documentation and each other, without a cluster."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest
import yaml

from tests.manifests import (
    EXAMPLES,
    KUSTOMIZATIONS,
    Container,
    Json,
    all_containers,
    containers,
    objects,
    read_all,
)
from tests.pages import DOCS, ROOT

COLLECTOR = ROOT / "collector"
EVERY = all_containers()
COLLECTORS = [each for each in EVERY if each.is_collector]
APPLICATIONS = [each for each in EVERY if not each.is_collector]
MEBIBYTES = {"Mi": 1, "MiB": 1, "Gi": 1024, "GiB": 1024}


def mebibytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]iB?)", size).groups()  # type: ignore[union-attr]
    return int(number) * MEBIBYTES[unit]


def names_of(kind: str) -> set[str]:
    return {each["metadata"]["name"] for each in objects() if each["kind"] == kind}


def test_the_config_map_has_the_base_and_every_overlay() -> None:
    """A Collector in Kubernetes can use each overlay, since one ConfigMap is made of all files."""
    (kustomization,) = read_all(COLLECTOR / "kustomization.yaml")
    (generated,) = kustomization["configMapGenerator"]

    overlays = sorted(path.relative_to(COLLECTOR).as_posix() for path in (COLLECTOR / "overlays").glob("*.yaml"))
    assert generated["files"] == ["base.yaml", *overlays]


def test_the_config_map_has_every_rule() -> None:
    """A Prometheus in Kubernetes can load all the rules."""
    (kustomization,) = read_all(COLLECTOR / "rules" / "kustomization.yaml")
    (generated,) = kustomization["configMapGenerator"]

    assert sorted(generated["files"]) == sorted(path.name for path in (COLLECTOR / "rules").glob("*.yml"))


def test_every_manifest_belongs_to_a_kustomization() -> None:
    """What is in the folder of a kustomization is applied with it, except for the operator's PodMonitor."""
    for folder in KUSTOMIZATIONS:
        (kustomization,) = read_all(folder / "kustomization.yaml")
        beside = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml", "podmonitor.yaml"}
        named = {*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", []))}
        assert {name for name in named if "/" not in name} == beside


@pytest.mark.parametrize("container", COLLECTORS, ids=str)
def test_the_collectors_image_is_the_one_of_compose(container: Container) -> None:
    """Every Collector has the version with which the files are tested."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))

    assert container.spec["image"] == compose["services"]["otelcol"]["image"]


def test_the_images_of_the_chain_are_those_of_compose() -> None:
    """The Helm values of the chain name the versions with which it is tested."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for path in (COLLECTOR / "gateway" / "helm").glob("*.yaml"):
        (values,) = read_all(path)
        service, image = ("jaeger", values["jaeger"]["image"]) if "jaeger" in values else ("otelcol", values["image"])
        assert compose[service]["image"].partition(":")[2] == str(image["tag"]), path.name


@pytest.mark.parametrize("container", COLLECTORS, ids=str)
def test_a_collector_gets_the_variables_that_its_files_read(container: Container) -> None:
    """Nothing that has no default is missing, and no variable is set that nobody reads."""
    (kustomization,) = read_all(COLLECTOR / "kustomization.yaml")
    files = {Path(name).name: COLLECTOR / name for name in kustomization["configMapGenerator"][0]["files"]}
    paths = [files[name] for name in container.config_files()]
    assert paths[0] == COLLECTOR / "base.yaml"

    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    given = {variable["name"] for variable in container.variables} - {"GOMEMLIMIT"}
    assert set(re.findall(r"\$\{env:(\w+)\}", text)) <= given
    assert given - {"TRACEMIND_COLLECTOR_TOKEN"} <= set(re.findall(r"\$\{env:(\w+)", text))


@pytest.mark.parametrize("container", COLLECTORS, ids=str)
def test_a_collector_refuses_data_before_it_is_killed_for_memory(container: Container) -> None:
    """The memory limiter and Go's limit are at most 80 % of what the container may use."""
    limit = mebibytes(container.spec["resources"]["limits"]["memory"])
    environment = container.environment()

    assert int(environment["TRACEMIND_COLLECTOR_MEMORY_MIB"]) <= 0.8 * limit
    if not container.owner.startswith("helm-"):  # the chart sets it
        assert mebibytes(environment["GOMEMLIMIT"]) <= 0.8 * limit


@pytest.mark.parametrize("container", EVERY, ids=str)
def test_a_container_satisfies_the_restricted_standard(container: Container) -> None:
    """Each pod is admitted to a namespace that enforces the Pod Security Standard `restricted`, and writes to no
    file of its image."""
    pod, own = container.pod["securityContext"], container.spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] >= 10000
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert container.pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & container.pod.keys()
    assert not [port for port in container.spec.get("ports", []) if "hostPort" in port]
    assert not [volume for volume in container.pod.get("volumes", []) if "hostPath" in volume]


@pytest.mark.parametrize("container", EVERY, ids=str)
def test_a_container_says_what_it_needs(container: Container) -> None:
    """Memory is requested and limited, CPU requested and never limited."""
    resources = container.spec["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}
    assert mebibytes(resources["requests"]["memory"]) <= mebibytes(resources["limits"]["memory"])


@pytest.mark.parametrize("container", EVERY, ids=str)
def test_secrets_are_references(container: Container) -> None:
    """No value of a secret is in a file: keys, tokens and addresses with a password come from a Secret."""
    secret = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|BROKER")
    for variable in container.variables:
        if secret.search(variable["name"]):
            assert variable["valueFrom"]["secretKeyRef"].keys() == {"name", "key"}
        elif "AUTHORIZATION" in variable["name"]:
            assert re.fullmatch(r"Bearer \$\(\w+\)", variable["value"])
    assert names_of("Secret") == set()


@pytest.mark.parametrize("container", EVERY, ids=str)
def test_mounts_and_volumes_belong_together(container: Container) -> None:
    """Every mount has its volume, and every volume is mounted."""
    claims = [
        claim["metadata"]["name"]
        for each in objects()
        if container.owner == f"{each['kind']}-{each['metadata']['name']}"
        for claim in each["spec"].get("volumeClaimTemplates", [])
    ]
    volumes = {volume["name"] for volume in container.pod.get("volumes", [])} | set(claims)
    beside = [*container.pod.get("initContainers", []), *container.pod["containers"]]

    assert {mount["name"] for mount in container.spec["volumeMounts"]} <= volumes
    assert volumes == {mount["name"] for each in beside for mount in each["volumeMounts"]}
    if "persistent-queue.yaml" in container.config_files():
        assert "/var/lib/otelcol" in [mount["mountPath"] for mount in container.spec["volumeMounts"]]


def ports_of(container: Json) -> set[str]:
    return {port["name"] for port in container.get("ports", [])}


@pytest.mark.parametrize("container", containers(), ids=str)
def test_a_probe_asks_a_port_of_its_container(container: Container) -> None:
    """Every probe names a port that the container has, and the Collector's health is at the root."""
    probes = [value for key, value in container.spec.items() if key.endswith("Probe")]
    assert {probe["httpGet"]["port"] for probe in probes} <= ports_of(container.spec)
    if container.is_collector:
        assert probes
        assert {(probe["httpGet"]["port"], probe["httpGet"]["path"]) for probe in probes} == {("health", "/")}


@pytest.mark.parametrize("name", sorted(names_of("Service")))
def test_a_service_leads_to_ports_that_its_pods_have(name: str) -> None:
    """A Service finds pods, and the ports that it names are theirs."""
    service = next(each for each in objects() if (each["kind"], each["metadata"]["name"]) == ("Service", name))
    selected = service["spec"]["selector"].items()
    served = [
        ports_of(container)
        for each in objects()
        if "template" in each.get("spec", {}) and selected <= each["spec"]["template"]["metadata"]["labels"].items()
        for container in each["spec"]["template"]["spec"]["containers"]
    ]
    assert served
    for ports in served:
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_addresses_lead_to_services_of_the_examples() -> None:
    """Applications, agents and sidecars send to a Service that is there, at a port that it has; gateways to the
    names of the example for Jaeger and Prometheus."""
    settings = next(each for each in objects() if each["kind"] == "ConfigMap")
    values = [*settings["data"].values(), *chain(*(each.environment().values() for each in EVERY))]
    found = set(re.findall(r"http://([a-z-]+)(?:\.observability)?:(\d+)", " ".join(values)))
    services = {each["metadata"]["name"]: each["spec"]["ports"] for each in objects() if each["kind"] == "Service"}

    assert {("otelcol-agent", "4318"), ("otelcol-gateway", "4318")} <= found
    for name, port in found - {("prometheus", "9090")}:
        assert int(port) in [each["port"] for each in services[name]]


@pytest.mark.parametrize("container", APPLICATIONS, ids=str)
def test_the_variables_of_applications_are_documented(container: Container) -> None:
    """A container of an application sets only variables that the documentation has, and nothing records content."""
    settings = next(each for each in objects() if each["kind"] == "ConfigMap")
    names = {*container.environment(), *settings["data"]}
    pages = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("configuration.md", "delivery.md"))

    assert [name for name in names if name.startswith(("OTEL_", "TRACEMIND_")) and f"`{name}`" not in pages] == []
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" not in names
    assert "service.instance.id" not in container.environment()["OTEL_RESOURCE_ATTRIBUTES"]


@pytest.mark.parametrize("container", APPLICATIONS, ids=str)
def test_a_spool_fits_its_volume(container: Container) -> None:
    """A process keeps at most a gigabyte of spans: the volume has room for those of every process."""
    size = next(each for each in container.pod["volumes"] if each["name"] == "spool")["emptyDir"]["sizeLimit"]
    workers = re.search(r"--(?:workers|concurrency)=(\d+)", " ".join(container.spec["command"]))

    assert mebibytes(size) > 1024 * (int(workers[1]) if workers else 1)


def test_a_sidecar_outlives_its_job() -> None:
    """The Collector of a job is a sidecar by `restartPolicy: Always`, so it ends after the job and not before."""
    sidecars = [each for each in COLLECTORS if each.spec in each.pod.get("initContainers", [])]
    assert sidecars
    for each in sidecars:
        assert each.spec["restartPolicy"] == "Always"
        assert "startupProbe" in each.spec


def test_the_sidecar_of_a_service_is_that_of_the_job() -> None:
    """Services and jobs that have a Collector in their pod have the same, which the tests run."""
    (patch,) = read_all(EXAMPLES / "sidecar" / "sidecar.yaml")
    (settings,) = read_all(EXAMPLES / "sidecar" / "settings.yaml")
    (of_the_job,) = [each for each in COLLECTORS if each.owner == "CronJob-nightly"]
    job = next(each for each in APPLICATIONS if each.owner == "CronJob-nightly")

    assert patch["spec"]["template"]["spec"]["initContainers"] == [of_the_job.spec]
    assert settings["data"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == job.environment()["OTEL_EXPORTER_OTLP_ENDPOINT"]


def test_the_grace_period_is_longer_than_what_a_process_takes_to_end() -> None:
    """The time for requests, tasks and the slowest flush, ten seconds, fits into the grace period of a pod."""
    for each in APPLICATIONS:
        command = " ".join(each.spec["command"])
        requests = re.search(r"--graceful-timeout=(\d+)", command)
        before = each.spec.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = before + (int(requests[1]) if requests else 30 + 10)
        assert each.pod["terminationGracePeriodSeconds"] >= needed, str(each)


def test_prometheus_scrapes_the_collectors_under_the_name_of_the_alerts() -> None:
    """The job of the Collectors' own metrics is the one that alerts.yml asks for, with and without the operator."""
    alerts = (COLLECTOR / "rules" / "alerts.yml").read_text(encoding="utf-8")
    (prometheus,) = read_all(EXAMPLES / "monitoring" / "prometheus.yml")
    (monitor,) = read_all(EXAMPLES / "monitoring" / "podmonitor.yaml")
    (scraped,) = prometheus["scrape_configs"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    assert f'up{{job="{scraped["job_name"]}"}}' in alerts
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": scraped["job_name"]}]
    (names,) = (each["names"] for each in scraped["dns_sd_configs"])
    assert set(names) <= names_of("Service")
    assert [each for each in containers() if "Set-" in each.owner and endpoint["port"] not in ports_of(each.spec)] == []
