"""Kafka and Cassandra: their jars from Maven Central, in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from collector.stack.cache import cache_dir, publish, work_folder
from collector.stack.console import EXIT_NOTHING_TO_RUN_WITH, StackError, run_step

GATEWAY_DIR = Path(__file__).resolve().parent
JAVA = 17
"""The one version that both support: Kafka 4 needs 17 or newer, Cassandra 5 runs on 11 and 17."""
COPY_DEPENDENCIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"


@dataclasses.dataclass(frozen=True)
class Engine:
    """A server that is a list of jars, as the pom.xml in collector/gateway/<name>/ says."""

    name: str

    @property
    def folder(self) -> Path:
        return GATEWAY_DIR / self.name

    @property
    def jars(self) -> Path:
        """Where its jars are, or will be: another list has another folder."""
        digest = hashlib.sha256((self.folder / "pom.xml").read_bytes()).hexdigest()[:12]
        return cache_dir() / f"{self.name}-{digest}"


KAFKA = Engine("kafka")
CASSANDRA = Engine("cassandra")


def find_java() -> str:
    """The Java to run Kafka and Cassandra with; the message of the error says what to install."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    version = java_version(java) if java else None
    if java is None or version != JAVA:
        found = "was not found" if version is None else f"{version} is not supported by both Kafka 4 and Cassandra 5"
        raise StackError(
            f"Java {found}; install Java {JAVA}, for example with `apt-get install openjdk-17-jre-headless`, or set"
            " JAVA_HOME",
            EXIT_NOTHING_TO_RUN_WITH,
        )
    return java


def java_version(java: str) -> int | None:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60.0)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found.group(1)) if found else None


def fetch(engine: Engine) -> Path:
    """The folder with the jars, fetched the first time."""
    final = engine.jars
    if final.is_dir():
        return final
    maven = shutil.which("mvn")
    if maven is None:
        raise StackError(
            f"the jars of {engine.name} are not in the cache and Maven was not found; install Maven, for example with "
            "`apt-get install maven`",
            EXIT_NOTHING_TO_RUN_WITH,
        )
    with work_folder(engine.name) as folder:
        if not final.is_dir():
            out = folder / "jars"
            target = ["-DincludeScope=runtime", f"-DoutputDirectory={out}"]
            command = [maven, "-B", "-q", "-f", str(engine.folder / "pom.xml"), COPY_DEPENDENCIES, *target]
            run_step(f"{engine.name}: fetching its jars with Maven", command, folder, folder / "log", os.environ)
            publish(out, final)
    return final
