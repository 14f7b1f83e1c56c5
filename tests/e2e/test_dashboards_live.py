"""Every expression of every dashboard in a real Prometheus, compared with what is true of a scripted fleet."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml
from collector.grafana.rules import RULES

from tests.dashboards import Expression, Known, dashboard_files, every_expression, faults_of_answer, planted
from tests.e2e.backends import ROOT, Sample, Stack, get_json, poll, prometheus_query
from tests.e2e.dashboard_truth import TRUTH, wait_until_true
from tests.e2e.fleet import JOBS, Fleet
from tests.e2e.fleet_process import SPIKE_USD

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
EXPRESSIONS = {
    f"{each.dashboard}-{each.panel}-{each.reference}": each
    for each in every_expression()
    if each.dashboard != "collector"  # test_collector_dashboard.py
}
ABOUT_CALLS = {
    name: each for name, each in EXPRESSIONS.items() if (each.dashboard, each.panel, each.reference) in TRUTH
}
ALERTS = {name: each for name, each in EXPRESSIONS.items() if "ALERTS" in each.text}
WITH_EXEMPLARS = {name: each for name, each in EXPRESSIONS.items() if each.has_exemplars}
SEARCHES = {
    found for path in dashboard_files() for found in re.findall(r"\$\{jaeger\}/search\?[^\"]*", path.read_text("utf-8"))
}
DATA_SOURCES: list[Json] = yaml.safe_load(
    (ROOT / "collector" / "grafana" / "provisioning" / "datasources" / "tracemind.yaml").read_text()
)["datasources"]


def known_of(expression: Expression, fleet: Fleet, labels: Mapping[str, str]) -> Known | None:
    """What is true of a panel that is filtered by these labels."""
    return TRUTH[expression.dashboard, expression.panel, expression.reference](fleet.truth.where(**labels))


def faults(expression: Expression, fleet: Fleet, known: Known, values: Mapping[str, str]) -> list[str]:
    """What is wrong with the answer now."""
    return faults_of_answer(expression, prometheus_query(fleet.prometheus, expression.query(values)), known)


def test_the_truth_of_every_panel_is_known() -> None:
    """A panel that is added without a truth to compare it with fails here, and so does a truth without a panel."""
    named = {(each.dashboard, each.panel, each.reference) for each in EXPRESSIONS.values()}
    others = {(each.dashboard, each.panel, each.reference) for each in ALERTS.values()}

    assert named - others == set(TRUTH)


@pytest.mark.parametrize("expression", ABOUT_CALLS.values(), ids=ABOUT_CALLS.keys())
def test_each_panel_shows_what_is_true(fleet: Fleet, expression: Expression) -> None:
    """Each panel has data, and its figures are those of the fleet's calls, no more and no less."""
    known = known_of(expression, fleet, {})

    assert known
    wait_until_true(fleet.prometheus, expression, known, {"job": JOBS})


@pytest.mark.parametrize(
    ("variable", "label", "value"),
    [
        ("job", "job", "fleet-digest"),
        ("flow", "gen_ai_workflow_name", "fleet-answer"),
        ("team", "team", "fleet-news"),
        ("model", "gen_ai_request_model", "toy-2"),
    ],
)
def test_each_panel_is_filtered_by_the_variables(fleet: Fleet, variable: str, label: str, value: str) -> None:
    """A job, flow, team or model that is chosen at the top is the only one in every panel."""
    values = {"job": JOBS, variable: value}
    checked = 0
    for expression in ABOUT_CALLS.values():
        if f"${variable}" in expression.text:
            known = known_of(expression, fleet, {label: value})
            if known is not None:
                wait_until_true(fleet.prometheus, expression, known, values)
                checked += 1
            else:
                assert prometheus_query(fleet.prometheus, expression.query(values)) == [], expression
    assert checked >= 10


@pytest.mark.parametrize("expression", ALERTS.values(), ids=ALERTS.keys())
def test_a_panel_of_alerts_shows_those_that_fire(fleet: Fleet, expression: Expression) -> None:
    """Calls without a price are an alert for each job that made one, and the panels of alerts show it."""
    jobs = {job for job, calls in fleet.by("unpriced_calls", "job").items() if calls}
    query = expression.query({"job": JOBS})

    def shows_all(samples: list[Sample]) -> bool:
        if "count(" in query:
            return samples[0]["value"] >= len(jobs)
        return {each["labels"]["job"] for each in samples if each["labels"]["severity"] == "ticket"} >= jobs

    poll(lambda: prometheus_query(fleet.prometheus, query), shows_all, 30.0, str(expression))


def test_the_rules_of_the_dashboards_record_as_many_series_as_the_page_says(fleet: Fleet) -> None:
    """The page states how many series a job, flow, model and team have, and how many more with streams."""
    page = (ROOT / "docs" / "how-to" / "dashboards.md").read_text(encoding="utf-8")
    few, more = map(int, re.findall(r"records about (\d+) series .*?, and (\d+) more if", page, re.DOTALL)[0])
    names = "|".join(rule.name for rule in RULES)

    def count(matchers: str) -> list[Sample]:
        return prometheus_query(fleet.prometheus, f'count({{__name__=~"{names}", job="fleet-script", {matchers}}})')

    def is_stated(expected: int) -> Callable[[list[Sample]], bool]:
        return lambda samples: bool(samples) and abs(samples[0]["value"] - expected) <= 2

    poll(lambda: count('gen_ai_request_model="toy-embed"'), is_stated(few), 30.0, "series without streams")
    of_streams = '__name__="job_flow_model_team_le:llm_first_chunk_seconds:15m"'
    poll(lambda: count(f'gen_ai_request_model="toy-1", {of_streams}'), is_stated(more), 30.0, "series of streams")


# --- a planted fault


def test_the_check_finds_a_wrong_metric_name(fleet: Fleet) -> None:
    """A panel whose metric nobody exports is empty; the message names dashboard, panel and expression."""
    right = EXPRESSIONS["spend-Cost of the last hour, by team-A"]
    wrong = planted(right, "tracemind_llm_cost_usd:1h", "tracemind_llm_costs_usd:1h")

    assert_found(wrong, right, fleet, "no data, though there ought to be some")


def test_the_check_finds_an_increase_of_short_lived_counters(fleet: Fleet) -> None:
    """`increase()` shows too little of processes that lived for one scrape."""
    right = EXPRESSIONS["spend-Cost of the last hour, by job-A"]
    wrong = Expression(
        right.dashboard,
        right.panel,
        right.reference,
        'sum by (job) (increase(tracemind_llm_cost_USD_total{job=~"$job"}[1h]))',
    )

    assert_found(wrong, right, fleet, "0 for job='fleet-answer', where")


def test_the_check_finds_a_wrong_label(fleet: Fleet) -> None:
    """A panel that sums by a label that no series has shows one series in place of many."""
    right = EXPRESSIONS["spend-Cost of the last hour, by model-A"]
    wrong = planted(right, "sum by (gen_ai_request_model)", "sum by (gen_ai_model)")

    assert_found(wrong, right, fleet, "no series for gen_ai_request_model='toy-1'")


def test_the_check_finds_a_wrong_sum(fleet: Fleet) -> None:
    """A panel that counts a part of the calls, or counts some twice, shows another figure than is true."""
    right = EXPRESSIONS["reliability-Share of failed calls, last 15 minutes-A"]
    wrong = planted(right, 'error_type!=""', 'error_type="400"')

    assert_found(wrong, right, fleet, "for the sum, where")


def assert_found(wrong: Expression, right: Expression, fleet: Fleet, what: str) -> None:
    """The right expression passes, and the wrong one does not, with a message by which it can be found."""
    known = known_of(right, fleet, {})
    assert known
    wait_until_true(fleet.prometheus, right, known, {"job": JOBS})

    found = faults(wrong, fleet, known, {"job": JOBS})

    assert any(what in fault for fault in found), found
    for fault in found:
        assert fault.startswith(f"{right.dashboard}.json, panel {right.panel!r}, query {right.reference}: ")
        assert fault.endswith(f"in {' '.join(wrong.text.split())}")


# --- exemplars


def exemplars_of(fleet: Fleet, expression: Expression) -> list[Json]:
    """The marks of a panel in the last hour."""
    now = time.time()
    parameters = {"query": expression.query({"job": JOBS}), "start": str(now - 3600), "end": str(now)}
    answer = get_json(fleet.prometheus, "/api/v1/query_exemplars", parameters)
    assert answer is not None
    return [each for series in answer["data"] for each in series["exemplars"]]


@pytest.mark.parametrize("expression", WITH_EXEMPLARS.values(), ids=WITH_EXEMPLARS.keys())
def test_an_exemplar_leads_to_its_trace(fleet: Fleet, stack: Stack, expression: Expression) -> None:
    """Each mark of a panel has the id of a trace that Jaeger has, under the label that the data source names."""
    (source,) = [each for each in DATA_SOURCES if each["type"] == "prometheus"]
    (label,) = {each["name"] for each in source["jsonData"]["exemplarTraceIdDestinations"]}

    exemplars = poll(lambda: exemplars_of(fleet, expression), bool, 30.0, str(expression))

    slowest = max(exemplars, key=lambda each: float(each["value"]))
    spans = stack.wait_for_trace(slowest["labels"][label])
    assert slowest["labels"]["span_id"] in {span["span_id"] for span in spans}


@pytest.mark.parametrize("link", sorted(SEARCHES))
def test_a_link_of_a_table_finds_traces_in_jaeger(fleet: Fleet, stack: Stack, link: str) -> None:
    """The search to which a row of the fleet leads has results: traces of a flow, and of a budget's thresholds."""
    headings: list[str] = ["Job", "Flow", "Budget"]
    row = dict.fromkeys(headings, "fleet-answer")
    search = re.sub(r"\$\{__data\.fields\.(\w+):percentencode\}", lambda found: row[found[1]], link)
    query = {name: values[0] for name, values in parse_qs(search.partition("?")[2]).items()}
    parameters = {"service": query["service"], "tags": query["tags"], "lookback": query["lookback"], "limit": "5"}

    def found() -> list[Json]:
        answer = get_json(stack.jaeger_http, "/api/traces", parameters)
        return answer["data"] if answer else []

    assert poll(found, bool, 30.0, search)


def test_a_cost_spike_leads_to_the_call_that_made_it(fleet: Fleet, stack: Stack) -> None:
    """The most expensive call of the fleet is a mark at its exact cost, and its trace has that cost."""
    (expression,) = [each for each in WITH_EXEMPLARS.values() if each.dashboard == "spend"]

    def spikes() -> list[Json]:
        return [each for each in exemplars_of(fleet, expression) if float(each["value"]) == SPIKE_USD]

    spike = poll(spikes, bool, 30.0, str(expression))[0]
    spans = stack.wait_for_trace(
        spike["labels"]["trace_id"], until=lambda all_: spike["labels"]["span_id"] in {each["span_id"] for each in all_}
    )

    (call,) = [span for span in spans if span["span_id"] == spike["labels"]["span_id"]]
    assert call["attributes"]["gen_ai.usage.cost"] == SPIKE_USD
