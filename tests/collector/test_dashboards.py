"""The dashboards are what their description generates, read what is there, and lead where they say; no server runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from collector.grafana.__main__ import files

from tests.dashboards import (
    DASHBOARDS,
    Expression,
    dashboard_files,
    every_expression,
    faults_of_text,
    panels,
    planted,
)
from tests.promql import label_names
from tracemind_otel.otel import semconv

Json = dict[str, Any]
COLLECTOR = DASHBOARDS.parents[1]
PROVISIONING = COLLECTOR / "grafana" / "provisioning"
NAMES = [path.stem for path in dashboard_files()]
EXPRESSIONS = every_expression()
IDS = [f"{each.dashboard}-{each.panel}-{each.reference}" for each in EXPRESSIONS]
SUFFIXES = ("_total", "_sum", "_count", "_bucket")
UNITS = ("_USD", "_seconds")
OTHER_PROGRAMS = {
    "up",
    "scrape_samples_scraped",
    "ALERTS",
    "otelcol_process_uptime",
    "otelcol_process_memory_rss",
    "otelcol_process_runtime_heap_alloc_bytes",
    "otelcol_process_cpu_seconds",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    *(
        f"otelcol_{part}_{what}_{kind}"
        for part, whats in (
            ("receiver", ("accepted", "refused", "failed")),
            ("exporter", ("sent", "send_failed", "enqueue_failed")),
        )
        for what in whats
        for kind in ("spans", "metric_points")
    ),
}
"""Metrics of Prometheus and of the Collector; tests/e2e meets them in a real Prometheus."""
OTHER_LABELS = {"job", "instance", "le", "team", "alertstate", "alertname", "exporter", "receiver", "transport"}


def dashboard(name: str) -> Json:
    return cast("Json", json.loads((DASHBOARDS / f"{name}.json").read_text(encoding="utf-8")))


def provisioned(path: str) -> Json:
    return cast("Json", yaml.safe_load((PROVISIONING / path).read_text(encoding="utf-8")))


def exported_metrics() -> set[str]:
    names = {value for key, value in vars(semconv).items() if key.startswith("METRIC_") and isinstance(value, str)}
    ours = {
        f"{name.replace('.', '_')}{unit}{suffix}"
        for name in names
        for unit in ("", *UNITS)
        for suffix in ("", *SUFFIXES)
    }
    rules = [yaml.safe_load(path.read_text()) for path in (COLLECTOR / "rules").glob("*.yml")]
    recorded = {
        rule["record"] for file in rules for group in file["groups"] for rule in group["rules"] if "record" in rule
    }
    return ours | recorded | OTHER_PROGRAMS


def exported_labels() -> set[str]:
    return {value.replace(".", "_") for value in vars(semconv).values() if isinstance(value, str)} | OTHER_LABELS


METRICS, LABELS = exported_metrics(), exported_labels()


@pytest.mark.parametrize("name", files())
def test_the_files_are_what_their_description_generates(name: str) -> None:
    """Nobody has edited a generated file by hand, or forgotten to write it anew."""
    assert (COLLECTOR / name).read_text(encoding="utf-8") == files()[name], "run `python -m collector.grafana`"


def test_no_dashboard_is_left_over() -> None:
    """Grafana loads every file of the folder, so each has its description."""
    assert {f"grafana/dashboards/{name}.json" for name in NAMES} == set(files()) - {"rules/dashboards.yml"}


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=IDS)
def test_every_expression_reads_what_is_there_and_counts_it_whole(expression: Expression) -> None:
    """Each metric and label is one that somebody exports, and no short-lived process is counted in part."""
    assert faults_of_text(expression, METRICS, LABELS) == []


@pytest.mark.parametrize(
    ("right", "wrong", "what"),
    [
        ("tracemind_llm_cost_usd:1h", "tracemind_llm_costs_usd:1h", "nothing exports or records"),
        ("sum by (team)", "sum by (teams)", "no series has the label teams"),
        (
            "(job_flow_model_team:tracemind_llm_cost_usd:1h{",
            "(increase(tracemind_llm_cost_USD_total[1h]) + job_flow_model_team:tracemind_llm_cost_usd:1h{",
            "increase() or rate() loses the first samples",
        ),
    ],
    ids=["metric", "label", "increase"],
)
def test_a_planted_fault_is_found_and_named(tmp_path: Path, right: str, wrong: str, what: str) -> None:
    """One fault in one file is one message, which names dashboard, panel and expression."""
    for path in dashboard_files():
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    spend = dashboard("spend")
    (panel,) = [each for each in panels(spend) if each["title"] == "Cost of the last hour, by team"]
    panel["targets"][0]["expr"] = panel["targets"][0]["expr"].replace(right, wrong)
    (tmp_path / "spend.json").write_text(json.dumps(spend), encoding="utf-8")

    found = [fault for each in every_expression(tmp_path) for fault in faults_of_text(each, METRICS, LABELS)]

    (fault,) = found
    assert fault.startswith("spend.json, panel 'Cost of the last hour, by team', query A: ")
    assert what in fault
    assert wrong in fault


def test_an_increase_in_the_exact_form_with_another_counter_is_found() -> None:
    """The exact form whose parts read different counters is no exact form."""
    (exact,) = [each for each in EXPRESSIONS if each.dashboard == "spend" and each.has_exemplars]
    wrong = planted(
        exact, "or (increase(tracemind_llm_call_cost_USD_bucket", "or (increase(tracemind_llm_call_cost_USD_sum"
    )

    assert faults_of_text(exact, METRICS, LABELS) == []
    assert any("loses the first samples" in fault for fault in faults_of_text(wrong, METRICS, LABELS))


@pytest.mark.parametrize("name", NAMES)
def test_variables_have_one_meaning_and_are_used(name: str) -> None:
    """Each list at the top filters every panel; a panel that it cannot filter says so."""
    board = dashboard(name)
    lists = [each for each in board["templating"]["list"] if each["type"] == "query"]
    assert board["templating"]["list"][0]["name"] == "datasource"
    for variable in lists:
        (label,) = re.findall(r", (\w+)\)$", variable["query"]["query"])
        assert VARIABLES[variable["name"]] == label
        assert variable["allValue"] == ".*"
        assert variable["includeAll"]
        for panel in panels(board):
            filtered = all(f'{label}=~"${variable["name"]}"' in each["expr"] for each in panel["targets"])
            said = re.search(
                rf"(?:[Nn]ot filtered by {variable['name']}|Filtered by job only)", panel["description"], re.IGNORECASE
            )
            assert filtered or said, f"{name}: {panel['title']} ignores ${variable['name']}"


VARIABLES = {
    "job": "job",
    "flow": "gen_ai_workflow_name",
    "model": "gen_ai_request_model",
    "team": "team",
    "collector": "instance",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_means(name: str) -> None:
    """Each panel has a description and a unit, and a title and number of its own; panels do not overlap."""
    board = dashboard(name)
    shown = list(panels(board))

    assert [title for title, count in Counter(each["title"] for each in shown).items() if count > 1] == []
    assert [number for number, count in Counter(each["id"] for each in board["panels"]).items() if count > 1] == []
    for panel in shown:
        assert len(panel["description"]) > 15, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(each["datasource"] == panel["datasource"] for each in panel["targets"])
    for one, other in combinations(board["panels"], 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def _overlap(one: Json, other: Json) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("name", NAMES)
def test_money_is_in_usd_with_the_decimals_that_it_needs(name: str) -> None:
    """What reads USD is shown as USD. Fixed decimals would show a token's price as 0, or 6 digits after 1,234 USD."""
    for panel in panels(dashboard(name)):
        text = " ".join(each["expr"] for each in panel["targets"]).lower()
        defaults = panel["fieldConfig"]["defaults"]
        if panel["type"] != "table" and "_usd" in text and " / " not in text:
            assert defaults["unit"] == "currencyUSD", panel["title"]
        assert "decimals" not in defaults


def test_links_lead_to_dashboards_that_are_there() -> None:
    """Each link to another dashboard names one of ours, and a variable that it has."""
    boards = {dashboard(name)["uid"]: dashboard(name) for name in NAMES}
    text = " ".join((DASHBOARDS / f"{name}.json").read_text() for name in NAMES)
    links = re.findall(r"/d/([\w-]+)\?([^\"]*)", text)

    assert links
    assert len(boards) == len(NAMES)
    for uid, query in links:
        variables = {each["name"] for each in boards[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= variables


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_table_use_its_columns(name: str) -> None:
    """Each value in a link is that of a column of the same table."""
    for panel in panels(dashboard(name)):
        columns = {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]}
        assert set(re.findall(r"__data\.fields\.(\w+)", json.dumps(panel))) <= columns, panel["title"]


def test_links_to_jaeger_search_by_attributes_that_spans_have() -> None:
    """Each search on Jaeger's page is for names that we record."""
    names = {value for value in vars(semconv).values() if isinstance(value, str)}
    text = " ".join((DASHBOARDS / f"{name}.json").read_text() for name in NAMES)
    searches = re.findall(r"\$\{jaeger\}/search\?([^\"]*)", text)

    assert len(searches) == 2
    for search in searches:
        assert set(re.findall(r"%22([\w.]+)%22:", search)) <= names
        assert "start=0&end=0" in search  # without them Jaeger's page does not search at once


def test_alerts_are_marked_in_every_dashboard() -> None:
    """Each dashboard marks the time in which an alert of ours fires, with the labels that the alerts have."""
    alerts = yaml.safe_load((COLLECTOR / "rules" / "alerts.yml").read_text())["groups"]
    names = [rule["alert"] for group in alerts for rule in group["rules"]]
    for name in NAMES:
        (annotation,) = dashboard(name)["annotations"]["list"]
        assert label_names(annotation["target"]["expr"]) <= LABELS
        if found := re.search(r'alertname=~"([^"]+)"', annotation["target"]["expr"]):
            assert [each for each in names if re.fullmatch(found[1], each)]


def test_the_config_map_has_every_dashboard() -> None:
    """A Grafana in Kubernetes gets all dashboards, in a ConfigMap that the API server takes."""
    (generated,) = yaml.safe_load((COLLECTOR / "grafana" / "kustomization.yaml").read_text())["configMapGenerator"]

    assert generated["files"] == [f"dashboards/{name}.json" for name in NAMES]
    # `kubectl apply` keeps a copy in an annotation, which may have 256 KiB.
    assert sum(path.stat().st_size for path in dashboard_files()) < 250 * 1024


# --- what Grafana is told


def test_an_exemplar_leads_to_jaegers_page_without_an_account() -> None:
    """The first link of an exemplar is Jaeger's page, which needs no role in Grafana; the second is in Grafana."""
    sources = {each["type"]: each for each in provisioned("datasources/tracemind.yaml")["datasources"]}
    first, second = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]

    assert first["name"] == second["name"] == "trace_id"
    assert first["url"] == "${TRACEMIND_JAEGER_PAGE}/trace/$${__value.raw}"
    assert second["datasourceUid"] == sources["jaeger"]["uid"]
    assert sources["jaeger"]["jsonData"]["tracesToMetrics"]["datasourceUid"] == sources["prometheus"]["uid"]


def test_data_sources_are_the_services_of_compose() -> None:
    """Grafana asks the services by their names and ports, and reads only."""
    compose: Json = yaml.safe_load((COLLECTOR.parent / "docker-compose.yml").read_text())["services"]
    for source in provisioned("datasources/tracemind.yaml")["datasources"]:
        service, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
        assert any(str(each).endswith(f":{port}") for each in compose[service]["ports"])
        assert source["editable"] is False


def test_spans_lead_to_a_recorded_cost() -> None:
    """The query of a span's link reads what a rule records."""
    (jaeger,) = [each for each in provisioned("datasources/tracemind.yaml")["datasources"] if each["type"] == "jaeger"]
    for query in jaeger["jsonData"]["tracesToMetrics"]["queries"]:
        text = query["query"].replace("{$$__tags}", "")
        assert faults_of_text(Expression("tracemind.yaml", query["name"], "A", text), METRICS, LABELS) == []


def test_compose_mounts_what_grafana_reads() -> None:
    """Grafana finds the provisioning and the dashboards where compose mounts them, and starts with the spending."""
    compose: Json = yaml.safe_load((COLLECTOR.parent / "docker-compose.yml").read_text())["services"]["grafana"]
    (provider,) = provisioned("dashboards/tracemind.yaml")["providers"]

    assert f"./collector/grafana/dashboards:{provider['options']['path']}:ro" in compose["volumes"]
    assert "./collector/grafana/provisioning:/etc/grafana/provisioning:ro" in compose["volumes"]
    assert (
        compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        == f"{provider['options']['path']}/spend.json"
    )


def test_grafana_has_no_account_and_no_secret() -> None:
    """Visitors may look without signing in; there is no password, and no default one."""
    environment: Json = yaml.safe_load((COLLECTOR.parent / "docker-compose.yml").read_text())["services"]["grafana"][
        "environment"
    ]

    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "${TRACEMIND_GRAFANA_ROLE:-Viewer}"
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert not [name for name in environment if re.search("PASSWORD|SECRET|TOKEN", name)]
