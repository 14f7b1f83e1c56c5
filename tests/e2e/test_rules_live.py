"""The rules in a real Prometheus, which reads what a fleet of short-lived processes sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.e2e.backends import ROOT, get_json, poll
from tests.e2e.fleet import Fleet
from tests.promql import metric_names

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
RULES = ROOT / "collector" / "rules"


def read(path: Path) -> Json:
    return cast("Json", yaml.safe_load(path.read_text()))


EVERY_RULE: list[Json] = [
    rule for path in sorted(RULES.glob("*.yml")) for group in read(path)["groups"] for rule in group["rules"]
]
RECORDED = {str(rule["record"]) for rule in EVERY_RULE if "record" in rule}


def test_every_metric_of_the_rules_is_in_prometheus(fleet: Fleet) -> None:
    """Each name that a rule reads is one that the library, the Collector or another rule exports."""
    wanted = {name for rule in EVERY_RULE for name in metric_names(rule["expr"])} | RECORDED

    def names() -> set[str]:
        answer = get_json(fleet.prometheus, "/api/v1/label/__name__/values")
        assert answer is not None
        return set(answer["data"])

    poll(names, wanted.issubset, 30.0, f"metrics {sorted(wanted)}")


def test_prometheus_evaluates_every_rule(fleet: Fleet) -> None:
    """No rule ends in an error, such as two series of one name."""

    def rules() -> list[Json]:
        answer = get_json(fleet.prometheus, "/api/v1/rules")
        assert answer is not None
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    found = poll(rules, lambda all_: all(rule["health"] != "unknown" for rule in all_), 30.0, "every rule evaluated")

    assert len(found) == len(EVERY_RULE)
    assert [rule for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize("window", ["1h", "1d"])
@pytest.mark.parametrize(
    ("series", "label"),
    [
        ("job:tracemind_llm_cost_usd", "job"),
        ("flow:tracemind_llm_cost_usd", "gen_ai_workflow_name"),
        ("team:tracemind_llm_cost_usd", "team"),
    ],
)
def test_recorded_costs_are_what_the_replies_cost(fleet: Fleet, series: str, label: str, window: str) -> None:
    """The cost of processes that lived for less than one export is whole, by job, flow and team."""
    expected = {name: usd for name, usd in fleet.by("cost_usd", label).items() if name}

    fleet.wait_for(f"{series}:{window}", label, expected)


def test_calls_and_retries_are_counted_without_denied_calls(fleet: Fleet) -> None:
    """Calls and retries of a job are counted whole, once under two sets of names, and a denied call is no error."""
    calls = {
        error: count for (error,), count in fleet.truth.where(job="fleet-digest").sums("calls", "error_type").items()
    }

    fleet.wait_for('sum by (error_type) (job_model_error:llm_calls:15m{job="fleet-digest"})', "error_type", calls)
    assert set(calls) == {"", "400", "404"}
    retries = 'sum by (job) (job_reason:tracemind_llm_retries:15m{tracemind_retry_reason!=""})'
    fleet.wait_for(retries, "job", fleet.by("retries", "job"))
    fleet.wait_for("job_model:tracemind_llm_unpriced_calls:1h", "job", fleet.by("unpriced_calls", "job"))


def test_a_call_without_a_price_is_an_alert_at_once(fleet: Fleet) -> None:
    """The alert on calls without a price fires for the jobs that made one."""
    fleet.wait_for('ALERTS{alertname="LLMCallsWithoutPrice", alertstate="firing"}', "job", {"fleet-digest": 1})
