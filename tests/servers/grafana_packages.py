"""Grafana's own packages of types and formats, in the version that docker-compose.yml pins, with npm in the cache."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

from tests.programs import REPOSITORY
from tests.servers import installs

TYPESCRIPT = "5.9.3"
REACT = "18.3.1"
"""What @grafana/data needs beside itself."""


PROMETHEUS_TYPES = ("types.d.ts", "dataquery.d.ts", "querybuilder/shared/types.d.ts")
"""The files of @grafana/prometheus with the types of a query and of a data source."""


def pinned_version() -> str:
    """The version of the image."""
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    (version,) = re.findall(r"image: grafana/grafana:(\S+)", compose)
    return str(version)


def installed() -> Path:
    """The folder with `node_modules`, installed the first time."""
    name = f"grafana-packages-{pinned_version()}"
    return installs.installed(name, "prometheus/types.d.ts", _install).parents[1]


def _install(folder: Path) -> None:
    npm, version = shutil.which("npm") or "npm", pinned_version()
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--legacy-peer-deps", "--prefix", str(folder)]
    packages = [
        f"@grafana/schema@{version}",
        f"@grafana/data@{version}",
        f"react@{REACT}",
        f"react-dom@{REACT}",
        f"typescript@{TYPESCRIPT}",
    ]
    installs.run_step(f"Grafana's packages {version}: installing", [npm, "install", *options, *packages], folder)
    # Of this package only some types are needed; its dependencies are most of Grafana.
    pack = [npm, "pack", f"@grafana/prometheus@{version}", "--pack-destination", str(folder)]
    installs.run_step(f"Grafana's types for Prometheus {version}: fetching", pack, folder)
    (archive,) = folder.glob("grafana-prometheus-*.tgz")
    with tarfile.open(archive) as packed:
        for path in PROMETHEUS_TYPES:
            member = packed.extractfile(f"package/dist/types/{path}")
            assert member is not None
            target = folder / "prometheus" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(member.read())
    archive.unlink()
