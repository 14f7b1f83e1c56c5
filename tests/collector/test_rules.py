"""The recording rules and the alerts read what is there, and promtool accepts them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from collector.stack.native import prepare_prometheus
from collector.stack.ports import default_ports
from collector.stack.prometheus import find_prometheus

from tests.promql import loses_first_samples, metric_names
from tests.required import is_required, missing, prometheus_program
from tracemind_otel.otel import semconv

RULES = Path(__file__).resolve().parents[2] / "collector" / "rules"
UNIT_TESTS = sorted((RULES / "tests").glob("*.yml"))
OTHER_PROGRAMS = re.compile(r"up|otelcol_exporter_queue_(?:size|capacity)")
"""Metrics of Prometheus and of the Collector; tests/e2e meets them in a real Prometheus."""
SUFFIXES = {"_total", "_USD_total", "_USD_count", "_seconds_count", "_seconds_bucket", "_sum"}
"""What Prometheus adds to a name for its unit and kind."""

Json = dict[str, Any]


def read(path: Path) -> Json:
    return cast("Json", yaml.safe_load(path.read_text()))


def rules_in(path: Path) -> Iterator[Json]:
    for group in read(path)["groups"]:
        yield from group["rules"]


RECORDING = {
    str(rule["record"]): str(rule["expr"])
    for name in ("recording.yml", "dashboards.yml")
    for rule in rules_in(RULES / name)
}
EVERY_ALERT = {str(rule["alert"]): rule for rule in rules_in(RULES / "alerts.yml")}
ALERTS = {name: str(rule["expr"]) for name, rule in EVERY_ALERT.items()}
EVERY_RULE = RECORDING | ALERTS


@pytest.fixture(scope="module")
def promtool() -> Path:
    """The promtool that comes with Prometheus; the test is skipped without one."""
    prometheus = prometheus_program() if is_required() else find_prometheus()
    found = shutil.which("promtool", path=prometheus.parent) if prometheus else None
    return Path(found) if found else missing("needs promtool, which comes with Prometheus")


def run(promtool: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(promtool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_prometheus_loads_every_rule_with_its_configuration(promtool: Path, tmp_path: Path) -> None:
    """The configuration that the stack gives Prometheus is valid, and finds each rule."""
    prepare_prometheus(tmp_path, default_ports("native"), None)

    done = run(promtool, "check", "config", tmp_path / "prometheus" / "prometheus.yml")

    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(int(count) for count in re.findall(r"(\d+) rules found", done.stdout)) == len(EVERY_RULE)


@pytest.mark.slow
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.name)
def test_the_unit_tests_of_the_rules_pass(promtool: Path, path: Path) -> None:
    """Each rule gives what is known to be true of made-up series."""
    done = run(promtool, "test", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (r"sum by (.*) \(\n(?: {12,}.*\n)+", r"sum by \1 (increase(tracemind_llm_cost_USD_total[1h])\n"),
        ("tracemind_llm_cost_USD_total", "tracemind_llm_cost_total"),
    ],
    ids=["increase", "wrong-name"],
)
def test_the_unit_tests_find_a_planted_fault(promtool: Path, tmp_path: Path, right: str, wrong: str) -> None:
    """An `increase()`, which loses the first sample of a short job, and a wrong name do not pass the unit tests."""
    shutil.copytree(RULES, tmp_path / "rules")
    copy = tmp_path / "rules" / "recording.yml"
    text, changed = re.subn(right, wrong, copy.read_text())
    copy.write_text(text)

    valid = run(promtool, "check", "rules", copy)
    done = run(promtool, "test", "rules", tmp_path / "rules" / "tests" / "recording.yml")

    assert changed > 0
    assert valid.returncode == 0, valid.stdout + valid.stderr
    assert done.returncode != 0
    assert "job:tracemind_llm_cost_usd:1h" in done.stdout + done.stderr


def test_every_rule_has_a_unit_test() -> None:
    """Each recorded series is asked for by a unit test, and each alert fires in one and is quiet in one."""
    tests = [test for path in UNIT_TESTS for test in read(path)["tests"]]
    asked = {
        name
        for test in tests
        for each in test.get("promql_expr_test", ())
        if each["exp_samples"]
        for name in metric_names(each["expr"])
    }
    alerts = [each for test in tests for each in test.get("alert_rule_test", ())]
    fired = {each["alertname"] for each in alerts if each["exp_alerts"]}
    quiet = {each["alertname"] for each in alerts if not each["exp_alerts"]}
    read_by_asked = {name for asked_name in asked & RECORDING.keys() for name in metric_names(RECORDING[asked_name])}

    assert RECORDING.keys() - asked - read_by_asked == set()
    assert ALERTS.keys() - fired == set()
    assert ALERTS.keys() - quiet == set()


@pytest.mark.parametrize("alert", EVERY_ALERT)
def test_an_alert_says_what_to_do(alert: str) -> None:
    """Each alert has a severity, a summary, a description, and a section of docs/how-to/alerts.md that says what it
    means, where to look, what to do, and when it is a false alarm."""
    rule, (page, _, anchor) = EVERY_ALERT[alert], EVERY_ALERT[alert]["annotations"]["runbook_url"].partition("#")
    sections = (RULES.parents[1] / page).read_text().split("\n## ")
    (section,) = [section for section in sections if section.partition("\n")[0].lower() == anchor]

    assert rule["labels"]["severity"] in ("page", "ticket")
    assert {"summary", "description"} < rule["annotations"].keys()
    for part in ("**It means**", "**Look**", "**Do**", "**False alarms**"):
        assert part in section


@pytest.mark.parametrize(("name", "expression"), EVERY_RULE.items(), ids=EVERY_RULE.keys())
def test_rules_read_metrics_that_are_exported_or_recorded(name: str, expression: str) -> None:
    """A rule reads what the library, the Collector or another rule gives, as Prometheus spells it."""
    ours = {
        value.replace(".", "_")
        for key, value in vars(semconv).items()
        if key.startswith("METRIC_") and isinstance(value, str)
    }
    exported = {f"{metric}{suffix}" for metric in ours for suffix in SUFFIXES}
    unknown = metric_names(expression) - exported - RECORDING.keys()

    assert metric_names(expression)
    assert {metric for metric in unknown if not OTHER_PROGRAMS.fullmatch(metric)} == set(), name


@pytest.mark.parametrize(("name", "expression"), EVERY_RULE.items(), ids=EVERY_RULE.keys())
def test_no_rule_loses_the_first_samples_of_a_counter(name: str, expression: str) -> None:
    """No rule takes the increase of a counter without the first samples of short-lived processes."""
    assert not loses_first_samples(expression), name


def test_a_planted_wrong_name_is_found() -> None:
    """The names of an expression are its metrics alone, so that the test of names sees each of them."""
    expression = 'sum by (job) (a:b:1h{team="x y"}) / on (job) group_left () (c_total[5m] offset 1h > 0.5) and up'

    assert metric_names(expression) == {"a:b:1h", "c_total", "up"}


def test_a_planted_increase_is_found() -> None:
    """The test of increases finds an `increase()`, a `rate()`, and a form whose parts read different counters."""
    whole = RECORDING["job_reason:tracemind_llm_retries:15m"]

    assert loses_first_samples("sum by (job) (increase(tracemind_llm_cost_USD_total[1h]))")
    assert loses_first_samples("rate(tracemind_llm_retries_total[5m]) > 0")
    assert loses_first_samples(whole.replace("tracemind_llm_retries_total", "tracemind_llm_cost_USD_total", 1))
    assert not loses_first_samples(whole)
