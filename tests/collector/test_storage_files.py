"""The files of Jaeger's storages agree with each other, with jaeger.yaml and with the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

COLLECTOR = Path(__file__).resolve().parents[2] / "collector"
FILES = sorted((COLLECTOR / "jaeger").glob("*.yaml"))
SECRETS = {"username", "password"}
READABLE_FOREVER = {"memory"}
"""The storage that is limited by a number of traces, and by no time."""
IN_THE_PROCESS = {"memory", "badger"}
"""The storages without a connection."""

Json = dict[str, Any]

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> Json:
    return cast("Json", yaml.safe_load(path.read_text()))


def backend(path: Path) -> Json:
    """The options of the storage that a file defines."""
    return cast("Json", read(path)["extensions"]["jaeger_storage"]["backends"][path.stem][path.stem])


def fields(tree: object, name: str = "") -> list[tuple[str, object]]:
    """The name and value of each leaf, at any depth."""
    if not isinstance(tree, dict):
        return [(name, tree)]
    return [leaf for key, value in cast("Json", tree).items() for leaf in fields(value, key)]


def test_there_is_a_file_for_each_storage() -> None:
    """A user can choose memory, Badger, Cassandra, ClickHouse and OpenSearch."""
    assert [path.stem for path in FILES] == ["badger", "cassandra", "clickhouse", "memory", "opensearch"]


@each_file
def test_a_file_changes_the_storage_and_nothing_else(path: Path) -> None:
    """A storage's file defines it, and gives it to the exporter and to the query API of jaeger.yaml."""
    assert read(path) == {
        "extensions": {
            "jaeger_storage": {"backends": {path.stem: {path.stem: backend(path)}}},
            "jaeger_query": {"storage": {"traces": path.stem}},
        },
        "exporters": {"jaeger_storage_exporter": {"trace_storage": path.stem}},
    }


def test_jaeger_alone_keeps_traces_in_memory() -> None:
    """jaeger.yaml by itself is jaeger.yaml with memory.yaml."""
    alone, memory = read(COLLECTOR / "jaeger.yaml"), read(COLLECTOR / "jaeger" / "memory.yaml")

    assert alone["extensions"].items() >= {"jaeger_storage": memory["extensions"]["jaeger_storage"]}.items()
    assert alone["extensions"]["jaeger_query"]["storage"] == memory["extensions"]["jaeger_query"]["storage"]
    assert alone["exporters"] == memory["exporters"]


@each_file
def test_each_storage_forgets(path: Path) -> None:
    """Traces are deleted after TRACEMIND_JAEGER_TTL, or, in memory, when there are too many."""
    limits = {name: value for name, value in fields(backend(path)) if "TRACEMIND_JAEGER_TTL" in str(value)}

    assert bool(limits) != (path.stem in READABLE_FOREVER)
    assert all(value == "${env:TRACEMIND_JAEGER_TTL:-168h}" for value in limits.values())


@each_file
def test_credentials_come_from_the_environment_and_connections_use_tls(path: Path) -> None:
    """No file has a credential, a password of digits is a string, and TLS is on unless a variable switches it off."""
    options = backend(path)
    secrets = [str(value) for name, value in fields(options) if name in SECRETS]

    assert len(secrets) == (0 if path.stem in IN_THE_PROCESS else 2)
    for value in secrets:
        assert re.fullmatch(r"\$\{env:TRACEMIND_\w+(:-)?\}\$\{yaml:\}", value)
    if path.stem not in IN_THE_PROCESS:
        (tls,) = [options.get("tls") or options["connection"]["tls"]]
        assert "ca_file" in tls
        assert re.fullmatch(r"\$\{env:\w+:-false\}", tls.get("insecure", "${env:X:-false}"))


def test_opensearch_deletes_the_indices_that_jaeger_makes() -> None:
    """The policy matches the names of Jaeger's indices, and keeps as many whole days as a search may look back."""
    options = backend(COLLECTOR / "jaeger" / "opensearch.yaml")
    policy = json.loads((COLLECTOR / "jaeger" / "opensearch-retention.json").read_text())["policy"]
    prefix = re.search(r":-(\w+)", options["indices"]["index_prefix"])
    hours = re.search(r":-(\d+)h", options["max_span_age"])
    assert prefix
    assert hours
    (kept, deleted) = policy["states"]

    assert policy["ism_template"][0]["index_patterns"] == [f"{prefix[1]}-jaeger-*"]
    assert kept["name"] == policy["default_state"]
    assert kept["transitions"] == [
        {"state_name": deleted["name"], "conditions": {"min_index_age": f"{int(hours[1]) // 24 + 1}d"}}
    ]
    assert deleted["actions"] == [{"delete": {}}]


@each_file
def test_the_readme_explains_each_storage_and_its_variables(path: Path) -> None:
    """Each storage and each variable that it reads is in collector/README.md."""
    readme = (COLLECTOR / "README.md").read_text()
    variables = set(re.findall(r"\$\{env:(\w+)", path.read_text()))

    assert f"`{path.stem}.yaml`" in readme
    assert sorted(name for name in variables if f"`{name}`" not in readme) == []
