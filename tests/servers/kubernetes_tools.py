"""kustomize, Helm and the schemas of Kubernetes: found on the PATH, or installed once into the project's cache."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from collector.stack.golang import find_go

from tests.servers import installs

_KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.2"
_HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
_SCHEMAS = "kubernetes-validate==1.37.0"


def kustomize() -> list[str]:
    """The command that renders the kustomization whose folder follows; empty without kubectl, kustomize and Go."""
    if kubectl := shutil.which("kubectl"):
        return [kubectl, "kustomize"]
    found = shutil.which("kustomize") or _built("kustomize", _KUSTOMIZE)
    return [found, "build"] if found else []


def helm() -> str | None:
    """Helm; `None` without it and without Go."""
    return shutil.which("helm") or _built("helm", _HELM)


def validator() -> list[str | Path]:
    """The command that compares the manifests in a file with the schemas of Kubernetes, unknown fields included."""
    name = f"{_SCHEMAS.replace('==', '-')}-python-{sys.version_info.major}.{sys.version_info.minor}"
    return [installs.installed(name, "bin/python", _install_schemas), "-m", "kubernetes_validate", "--strict"]


def _install_schemas(folder: Path) -> None:
    installs.run_step("Kubernetes schemas: making their environment", [sys.executable, "-m", "venv", folder], folder)
    pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    installs.run_step("Kubernetes schemas: installing", [*pip, _SCHEMAS], folder)


def _built(program: str, module: str) -> str | None:
    go = find_go()
    if go is None:
        return None

    def build(folder: Path) -> None:
        environment = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOBIN": str(folder)}
        command = [go.path, "install", "-trimpath", "-ldflags=-s -w", module]
        installs.run_step(f"{program}: building (minutes)", command, folder, environment)

    version = module.rpartition("@")[2]
    return os.fspath(installs.installed(f"{program}-{version}-{go.platform}-{go.version}", program, build))
