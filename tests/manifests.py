"""The containers of the Kubernetes examples, and the configuration of a Collector among them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from tests.pages import ROOT

EXAMPLES = ROOT / "examples" / "kubernetes"
KUSTOMIZATIONS = sorted(path.parent for path in EXAMPLES.rglob("kustomization.yaml"))
HELM_VALUES = sorted((EXAMPLES / "helm").glob("*.yaml"))
CONFIG_FOLDER = "/etc/otelcol/"
"""Where the Collector's containers have the files of collector/."""
SECRET = "a-secret-of-the-test"

Json = dict[str, Any]


@dataclass(frozen=True)
class Container:
    """A container with the pod in which it runs."""

    owner: str
    """Kind and name of the object that makes the pod."""
    spec: Json
    """The container as it is written."""
    pod: Json
    """The pod as it is written."""

    def __str__(self) -> str:
        return f"{self.owner}-{self.spec['name']}"

    @property
    def is_collector(self) -> bool:
        return "opentelemetry-collector" in self.spec["image"]

    @property
    def arguments(self) -> list[str]:
        return cast("list[str]", self.spec.get("args", []))

    @property
    def variables(self) -> list[Json]:
        return cast("list[Json]", self.spec.get("env", []))

    def environment(self) -> dict[str, str]:
        """The variables as Kubernetes sets them, with a string for each secret and each field of the pod."""
        values = dict[str, str]()
        for variable in self.variables:
            written = variable.get("value", SECRET)
            values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], written)
        return values

    def config_files(self) -> list[str]:
        """The names of the files that a Collector reads, in their order."""
        prefix = f"--config={CONFIG_FOLDER}"
        return [word.removeprefix(prefix) for word in self.arguments if word.startswith(prefix)]


def read_all(path: Path) -> list[Json]:
    return [cast("Json", each) for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


@cache
def objects() -> list[Json]:
    """Every object of the examples, as it is written in the files; patches and values are none."""
    paths = [path for path in EXAMPLES.rglob("*.yaml") if path.parent.name not in ("helm", "sidecar")]
    return [each for path in sorted(paths) if path.name != "kustomization.yaml" for each in read_all(path)]


def pods_in(manifest: object) -> Iterator[Json]:
    """The pods below an object."""
    if isinstance(manifest, Mapping):
        fields = cast("Json", manifest)
        if isinstance(fields.get("containers"), list):
            yield fields
        for value in fields.values():
            yield from pods_in(value)


def containers() -> list[Container]:
    """Every container of the manifests."""
    return [
        Container(f"{each['kind']}-{each['metadata']['name']}", container, pod)
        for each in objects()
        for pod in pods_in(each)
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    ]


def helm_container(path: Path) -> Container:
    """The container that the chart opentelemetry-collector makes of these values."""
    (values,) = read_all(path)
    spec = {
        "name": "opentelemetry-collector",
        "image": f"{values['image']['repository']}:{values['image']['tag']}",
        "args": values["command"]["extraArgs"],
        "env": values["extraEnvs"],
        "volumeMounts": values["extraVolumeMounts"],
        "resources": values["resources"],
        "securityContext": values["securityContext"],
    }
    pod = {"securityContext": values["podSecurityContext"], "volumes": values["extraVolumes"], "containers": [spec]}
    return Container(f"helm-{path.stem}", spec, pod | {"automountServiceAccountToken": False})


def all_containers() -> list[Container]:
    """Those of the manifests, and those that charts make of the values for Helm."""
    return [*containers(), *map(helm_container, HELM_VALUES)]
