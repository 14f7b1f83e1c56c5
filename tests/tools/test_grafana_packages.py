"""The dashboards are valid for the packages of the pinned Grafana. Grafana itself does not run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from collector.grafana.render import SCHEMA_VERSION

from tests.dashboards import DASHBOARDS, dashboard_files
from tests.required import missing
from tests.servers import grafana_packages

pytestmark = [pytest.mark.tools, pytest.mark.slow]

Json = dict[str, Any]
SOURCES = Path(__file__).with_name("grafana")


@pytest.fixture(scope="module")
def packages(visibly: Callable[[], AbstractContextManager[None]]) -> Path:
    """The folder of Grafana's packages; without npm the tests are skipped."""
    if shutil.which("npm") is None:
        missing("needs npm")
    with visibly():
        return grafana_packages.installed()


def compiled(packages: Path, folder: Path, values: dict[str, str], kind: str = "PlainDashboard") -> str:
    """The errors of the compiler for JSON as values of one of Grafana's types."""
    shutil.copy(SOURCES / "dashboard.ts", folder)
    shutil.copytree(packages / "prometheus", folder / "prometheus")
    (folder / "node_modules").symlink_to(packages / "node_modules")
    for name, text in values.items():
        source = f'import type {{ {kind} }} from "./dashboard";\nexport const value: {kind} = {text};\n'
        (folder / f"{name}.ts").write_text(source, encoding="utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"]
    command = [str(packages / "node_modules" / ".bin" / "tsc"), *options, *(f"{name}.ts" for name in values)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


def test_each_dashboard_is_valid_for_grafanas_types(packages: Path, tmp_path: Path) -> None:
    """Each field of each dashboard, panel and query is one of the pinned Grafana, with a value that it knows."""
    assert (
        compiled(packages, tmp_path, {path.stem: path.read_text(encoding="utf-8") for path in dashboard_files()}) == ""
    )


PLANTED = {
    "query": ('"legendFormat"', '"legend"'),
    "option": ('"colorMode": "value"', '"colorMode": "values"'),
    "panel": ('"type": "timeseries"', '"type": "graph"'),
    "variable": ('"includeAll"', '"includesAll"'),
    "annotation": ('"titleFormat"', '"title_format"'),
}


def test_fields_and_values_that_grafana_does_not_know_are_found(packages: Path, tmp_path: Path) -> None:
    """A misspelt field or an unknown value is an error, wherever it is."""
    text = (DASHBOARDS / "spend.json").read_text(encoding="utf-8")

    errors = compiled(packages, tmp_path, {name: text.replace(*change) for name, change in PLANTED.items()})

    assert {name for name in PLANTED if f"{name}.ts" in errors} == set(PLANTED)


def test_the_data_source_has_the_options_that_grafana_knows(packages: Path, tmp_path: Path) -> None:
    """Each option of the provisioned Prometheus is one of Grafana's; a misspelt one is found."""
    path = DASHBOARDS.parent / "provisioning" / "datasources" / "tracemind.yaml"
    (source,) = [each for each in yaml.safe_load(path.read_text())["datasources"] if each["type"] == "prometheus"]
    options = json.dumps(source["jsonData"])
    wrong = options.replace("exemplarTraceIdDestinations", "exemplarTraceIDDestinations")

    errors = compiled(packages, tmp_path, {"right": options, "wrong": wrong}, "PlainOptions")

    assert "right.ts" not in errors
    assert "exemplarTraceIDDestinations" in errors


@pytest.fixture(scope="module")
def values(packages: Path) -> Json:
    """What Grafana's code makes of the dashboards."""
    environment = {**os.environ, "NODE_PATH": str(packages / "node_modules")}
    command = ["node", str(SOURCES / "values.cjs"), *map(str, dashboard_files())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return cast("Json", json.loads(done.stdout))


def test_grafana_knows_every_unit_and_the_version_of_the_schema(values: Json) -> None:
    """Each unit is one of Grafana's, and no dashboard has to be migrated."""
    assert values["unknownUnits"] == []
    assert values["schemaVersion"] == SCHEMA_VERSION


def test_money_has_the_decimals_that_it_needs(values: Json) -> None:
    """The cost of a single token is not shown as 0, and a large sum has no needless decimals."""
    assert values["money"] == {
        "0.000001": "$0.00000100",
        "0.0000125": "$0.0000125",
        "0.02": "$0.0200",
        "1234.5": "$1.23K",
    }


def test_tables_have_the_columns_that_they_name(values: Json) -> None:
    """Grafana's own transformations join the queries of a table into one row for each series, with our headings."""
    tables: dict[str, list[tuple[str, int]]] = values["tables"]

    assert {title: [name for name, _ in columns] for title, columns in tables.items()} == {
        "Most expensive flows of the last day": [
            "Job",
            "Flow",
            "Cost of the last day",
            "Cost of the last hour",
            "Priced calls of the last hour",
        ],
        "Budgets by name": ["Job", "Budget", "Kind", "Limit", "Spent in the last hour", "Spent in the last day"],
        "Firing alerts": ["Alert", "Severity", "Job", "Model", "Retry reason", "Exporter"],
    }
    assert {rows for columns in tables.values() for _, rows in columns} == {2}
