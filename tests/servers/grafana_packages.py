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


def pinned_version() -> str:
    """The version of the image."""
    compose = (REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8")
    (version,) = re.findall(r"image: grafana/grafana:(\S+)", compose)
    return str(version)


def installed() -> Path:
    """The folder with `node_modules`, installed the first time."""
    name = f"grafana-packages-{pinned_version()}"
    return installs.installed(name, "node_modules/.bin/tsc", _install).parents[2]


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
    # Of this package only the types of a query are needed; its dependencies are most of Grafana.
    pack = [npm, "pack", f"@grafana/prometheus@{version}", "--pack-destination", str(folder)]
    installs.run_step(f"Grafana's types of a query {version}: fetching", pack, folder)
    (archive,) = folder.glob("grafana-prometheus-*.tgz")
    with tarfile.open(archive) as packed:
        member = packed.extractfile("package/dist/types/dataquery.d.ts")
        assert member is not None
        (folder / "prometheus_query.d.ts").write_bytes(member.read())
    archive.unlink()
