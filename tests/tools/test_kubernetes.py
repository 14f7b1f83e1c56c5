"""The Kubernetes examples as kustomize and Helm render them: valid for Kubernetes and for the real Collector."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e.collectors import go_program
from tests.ended import serving
from tests.manifests import (
    CONFIG_FOLDER,
    EXAMPLES,
    HELM_VALUES,
    KUSTOMIZATIONS,
    Container,
    Json,
    all_containers,
    containers,
    objects,
    pods_in,
)
from tests.pages import ROOT, files, write_files
from tests.programs import clean_environment
from tests.required import missing, prometheus_program
from tests.servers import kubernetes_tools
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.tools

VERSIONS = ("1.30", "1.37")
"""The oldest version with everything that the examples use, and the newest whose schemas are known."""
CHARTS = "TRACEMIND_HELM_CHARTS"
"""The variable that names a folder with the charts opentelemetry-collector and jaeger: no package registry has them."""
COLLECTORS = [each for each in all_containers() if each.is_collector]


@pytest.fixture(scope="module")
def kustomize(visibly: Callable[[], AbstractContextManager[None]]) -> list[str]:
    with visibly():
        command = kubernetes_tools.kustomize()
    return command or missing("needs kubectl, kustomize or Go")


@pytest.fixture(scope="module")
def validator(visibly: Callable[[], AbstractContextManager[None]]) -> list[str | Path]:
    with visibly():
        return kubernetes_tools.validator()


def output_of(command: list[str] | list[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def objects_in(text: str) -> list[Json]:
    return [each for each in yaml.safe_load_all(text) if each]


def assert_valid(validator: list[str | Path], file: Path) -> None:
    """Kubernetes accepts what is in the file, and knows every field of it."""
    for version in VERSIONS:
        output_of([*validator, "-k", version, file])


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kubernetes_accepts_every_manifest(
    kustomize: list[str], validator: list[str | Path], tmp_path: Path, folder: Path
) -> None:
    """`kubectl apply -k` gives Kubernetes objects that fit its schemas, each with the name that others use for it."""
    rendered = output_of([*kustomize, str(folder)])
    (tmp_path / "rendered.yaml").write_text(rendered)
    assert_valid(validator, tmp_path / "rendered.yaml")

    objects = objects_in(rendered)
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap"}
    for pod in (pod for each in objects for pod in pods_in(each)):
        used = {volume["configMap"]["name"] for volume in pod.get("volumes", []) if "configMap" in volume}
        used |= {source["configMapRef"]["name"] for each in pod["containers"] for source in each.get("envFrom", [])}
        assert used <= made


def test_a_misspelt_field_is_noticed(validator: list[str | Path], tmp_path: Path) -> None:
    """The schemas know which fields there are."""
    agent = (EXAMPLES / "collector" / "agent.yaml").read_text().replace("runAsNonRoot", "runAsNotRoot")
    (tmp_path / "agent.yaml").write_text(agent)
    done = subprocess.run([*validator, tmp_path / "agent.yaml"], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "runAsNotRoot" in done.stdout + done.stderr


@pytest.fixture(scope="module")
def mounted(kustomize: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the ConfigMap, as a container has them."""
    folder = tmp_path_factory.mktemp("mounted")
    (config_map,) = objects_in(output_of([*kustomize, str(ROOT / "collector")]))
    for name, text in config_map["data"].items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("container", COLLECTORS, ids=str)
def test_the_collector_accepts_the_configuration_of_each_container(
    mounted: Path, tmp_path: Path, container: Container
) -> None:
    """The real Collector validates the files of the ConfigMap with the arguments and variables of each manifest."""
    arguments = [word.replace(CONFIG_FOLDER, f"{mounted}/") for word in container.arguments]
    environment = container.environment() | {"TRACEMIND_COLLECTOR_QUEUE_DIR": str(tmp_path)}
    command = [str(go_program("otelcol")), "validate", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr


def test_prometheus_accepts_the_rules_and_its_configuration(tmp_path: Path) -> None:
    """promtool takes the rules as the operator gets them, and the configuration for a Prometheus without it."""
    promtool = str(prometheus_program().parent / "promtool")
    printed = output_of([sys.executable, str(EXAMPLES / "monitoring" / "prometheusrule.py")])
    (tmp_path / "rules").mkdir()
    for each in objects_in(printed):
        assert (each["apiVersion"], each["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
        (tmp_path / "rules" / f"{each['metadata']['name']}.yml").write_text(yaml.safe_dump(each["spec"]))
    (tmp_path / "prometheus.yml").write_text((EXAMPLES / "monitoring" / "prometheus.yml").read_text())

    said = output_of([promtool, "check", "config", str(tmp_path / "prometheus.yml")])
    assert said.count(" rules found") == len(list((ROOT / "collector" / "rules").glob("*.yml")))


CHAIN_VALUES = sorted((ROOT / "collector" / "gateway" / "helm").glob("*.yaml"))


@pytest.mark.parametrize(
    "values", [*HELM_VALUES, *CHAIN_VALUES], ids=lambda path: f"{path.parent.parent.name}-{path.stem}"
)
def test_the_chart_accepts_the_values(validator: list[str | Path], tmp_path: Path, values: Path) -> None:
    """`helm template` with the real chart, whose schema it checks, makes a pod with our arguments and variables that
    satisfies the Pod Security Standard but for what the values name."""
    charts = os.environ.get(CHARTS)
    if charts is None:
        pytest.skip(f"needs {CHARTS}, the path of a folder with the charts")
    helm = kubernetes_tools.helm()
    assert helm is not None
    text = values.read_text(encoding="utf-8")
    (chart,) = re.findall(r"values of the chart ([\w-]+) \(", text)
    options = [f"--kube-version={VERSIONS[0]}", "--namespace=observability", f"--values={values}"]
    rendered = output_of([helm, "template", "release", str(Path(charts) / chart), *options])
    (tmp_path / "rendered.yaml").write_text(rendered)
    assert_valid(validator, tmp_path / "rendered.yaml")

    (pod,) = (pod for each in objects_in(rendered) for pod in pods_in(each))
    made = Container("helm", pod["containers"][0], pod)
    given = yaml.safe_load(text)
    given = given.get("jaeger", given)
    assert made.arguments == given.get("args", given.get("command", {}).get("extraArgs"))
    variables = [*given.get("extraEnvs", []), *given.get("extraEnv", [])]
    assert [each for each in variables if each not in made.variables] == []
    assert made.spec["securityContext"] == given["securityContext"]
    assert made.pod["securityContext"] == given["podSecurityContext"]
    assert given["extraVolumes"] == [each for each in made.pod["volumes"] if each in given["extraVolumes"]]


# --- The commands of the applications ---

APPLICATIONS = {each.spec["name"]: each for each in containers() if not each.is_collector}


def started(name: str, directory: Path, sink: Sink) -> tuple[list[str], dict[str, str]]:
    """The command of an application after its program, and its variables with addresses of the test."""
    (settings,) = (each["data"] for each in objects() if each["kind"] == "ConfigMap")
    changes = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        "TRACEMIND_SPOOL_DIR": str(directory / "spool"),
        "CELERY_BROKER_URL": "filesystem://",
        "PYTHONPATH": f"{ROOT / 'src'}:.",
    }
    container = APPLICATIONS[name]
    return container.spec["command"], settings | container.environment() | changes


def test_the_command_of_the_web_service_serves_and_says_which_pod_it_is(
    python: Path, tmp_path: Path, sink: Sink
) -> None:
    """gunicorn takes the options of the manifest, and its spans have the pod in their resource."""
    write_files("docs/how-to/fastapi.md", tmp_path)
    (program, *options), environment = started("web", tmp_path, sink)
    options = [re.sub(r"--bind=.*", "--bind=127.0.0.1:0", option) for option in options]
    with serving(tmp_path, "-m", program, *options, python=[python], **environment) as server:
        assert httpx.post(f"{server.url}/ask", params={"question": "why?"}, trust_env=False).status_code == 200
        code, log = server.stop(signal.SIGTERM)

    assert (code, "lost" in log) == (0, False)
    assert {"invoke_workflow ask", "chat toy-1"} <= {span.name for span in sink.spans()}
    resource = sink.resource()
    assert resource["service.name"] == "support"
    assert {"k8s.namespace.name", "k8s.pod.name", "k8s.node.name", "service.version"} <= resource.keys()


def test_the_command_of_the_worker_runs_a_task(python: Path, tmp_path: Path, sink: Sink) -> None:
    """Celery takes the options of the manifest, and its children deliver when the pod ends."""
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    tasks = files("docs/how-to/celery.md")["tasks.py"].replace('broker="filesystem://", ', "") + FOLDERS
    (tmp_path / "tasks.py").write_text(tasks)
    (program, *options), variables = started("worker", tmp_path, sink)
    environment = clean_environment(**variables)
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [python, "-m", program, *options], cwd=tmp_path, env=environment, stdout=log, stderr=log
        ) as worker,
    ):
        try:
            send = "from tasks import translate; translate.delay('A lamp').get(timeout=60)"
            subprocess.run([python, "-c", send], cwd=tmp_path, env=environment, check=True, timeout=90)
            worker.terminate()
            assert worker.wait(60) == 0
        finally:
            worker.kill()

    assert [span.name for span in sink.spans() if span.name.startswith("invoke")] == ["invoke_workflow translate"]
    assert sink.resource()["service.name"] == "worker"


FOLDERS = """
app.conf.broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"
}
"""
