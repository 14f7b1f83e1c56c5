"""Find Prometheus, or unpack Debian's package of it into the cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .cache import cache_dir, publish, work_folder
from .console import StackError, run_step
from .installed import find_installed, version_of
from .programs import Source


def prometheus_dir() -> Path:
    return cache_dir() / "prometheus-debian"


def find_prometheus() -> Path | None:
    source = prometheus_source()
    return source.path if source else None


def prometheus_source() -> Source | None:
    """The installed Prometheus, or the one unpacked before."""
    extracted = prometheus_dir() / "prometheus"
    return find_installed("prometheus") or (unpacked_source(extracted) if extracted.is_file() else None)


def unpacked_source(path: Path) -> Source:
    return Source(path, version_of("prometheus", path), "from Debian's package")


def can_fetch_prometheus() -> bool:
    return shutil.which("apt-get") is not None and shutil.which("dpkg-deb") is not None


def fetch_prometheus() -> Path:
    """Unpack Debian's package instead of installing it, which would start a service on some systems."""
    if not can_fetch_prometheus():
        raise StackError("Prometheus is not on PATH; install it, for example with `brew install prometheus`")
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
            raise StackError("apt-get found no package prometheus; run `sudo apt-get update` and try again") from None
        run_step("apt-get update", ["apt-get", "update"], folder, log, os.environ)
        run_step("prometheus: fetching Debian's package", command, folder, log, os.environ)
