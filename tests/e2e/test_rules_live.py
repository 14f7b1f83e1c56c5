"""The rules and the dashboard in a real Prometheus, which reads what a fleet of short jobs sent."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.e2e.backends import ROOT, Sample, Stack, get_json, poll, wait_for_metric
from tests.e2e.prometheus_server import prometheus_program, serving
from tests.programs import clean_environment
from tests.promql import metric_names, panels

pytestmark = pytest.mark.e2e

Json = dict[str, Any]
RULES = ROOT / "collector" / "rules"
PANELS = panels(ROOT / "collector" / "grafana" / "dashboards" / "spend.json")
FLEET = [
    ("fleet-answer", "fleet-answer", "fleet-search"),
    ("fleet-digest", "fleet-digest", "fleet-news"),
    ("fleet-answer", "fleet-answer", "fleet-ads"),
]
"""Job, flow and team of each process: two of them belong to one job. No other test of the stack uses these names."""
PROCESS = """
import contextlib
import json
import sys
import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient


class WithoutPrice(FakeLLMClient):
    provider_name = "openai"


endpoint, job, name, team = sys.argv[1:]
prices = [{"provider": "fake", "model": "toy-1", "input": 150, "output": 600}]
with tm.configure(service_name=job, endpoint=endpoint, prices=prices, metric_attributes=["team"]):

    @tm.flow(name, attributes={"team": team}, max_llm_calls=30, on_unknown_price="zero")
    def flow():
        costs = [tm.llm_call_sync("fake/toy-1", "one two three").cost_usd for _ in range(25)]
        busy = FakeLLMClient(1, script=["429 retry-after=0.01"])
        costs.append(tm.llm_call_sync("toy-1", "Hello", client=busy).cost_usd)
        tm.llm_call_sync("a-model-of-nobody", "Hello", client=WithoutPrice(1))
        with contextlib.suppress(tm.LLMError):
            tm.llm_call_sync("toy-1", "Hello", client=FakeLLMClient(1, script=["400"]))
        with contextlib.suppress(tm.BudgetExceededError):
            for _ in range(5):
                costs.append(tm.llm_call_sync("fake/toy-1", "Hello").cost_usd)
        return costs

    print(json.dumps(flow()))
"""


def read(path: Path) -> Json:
    return cast("Json", yaml.safe_load(path.read_text()))


EVERY_RULE: list[Json] = [
    rule
    for name in ("recording.yml", "alerts.yml")
    for group in read(RULES / name)["groups"]
    for rule in group["rules"]
]
RECORDED = {str(rule["record"]) for rule in EVERY_RULE if "record" in rule}


@dataclass(frozen=True)
class Fleet:
    """A Prometheus that has scraped what the fleet sent."""

    prometheus: str
    costs: Mapping[tuple[str, str, str], float]
    """What the replies cost, by job, flow and team."""

    def cost_by(self, position: int) -> dict[str, float]:
        sums: defaultdict[str, float] = defaultdict(float)
        for labels, usd in self.costs.items():
            sums[labels[position]] += usd
        return dict(sums)

    def wait_for(self, query: str, label: str, expected: Mapping[str, float]) -> None:
        """The answer by one label, once it has the expected values; what other tests sent is left out."""
        wanted = {name: pytest.approx(value) for name, value in expected.items()}

        def is_right(samples: list[Sample]) -> bool:
            found = {sample["labels"].get(label, ""): sample["value"] for sample in samples}
            return {name: found.get(name) for name in wanted} == wanted

        wait_for_metric(self.prometheus, query, until=is_right)


def run_process(endpoint: str, labels: tuple[str, str, str], names: str = "") -> float:
    """One process of the fleet, with the newest metric names too if asked; returns what its replies cost."""
    environment = clean_environment(OTEL_SEMCONV_STABILITY_OPT_IN=names)
    command = [sys.executable, "-c", PROCESS, endpoint, *labels]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    costs: list[float] = json.loads(done.stdout)
    return sum(costs)


@pytest.fixture(scope="module")
def fleet(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The fleet has ended, and a Prometheus of its own, configured as the stack's, evaluates the rules each second."""
    if stack.mode != "native":
        pytest.skip("needs the stack without Docker")
    program = prometheus_program()
    folder = tmp_path_factory.mktemp("rules") / "prometheus"
    shutil.copytree(stack.state / "prometheus", folder, ignore=shutil.ignore_patterns("data"))
    for path in (folder / "rules").glob("*.yml"):
        path.write_text(re.sub(r"interval: \d+m", "interval: 1s", path.read_text()))
    with ThreadPoolExecutor() as pool:
        optins = ["", "gen_ai_latest_experimental/dup", ""]
        costs = pool.map(run_process, [stack.otlp_http] * len(FLEET), FLEET, optins)
        by_labels = dict(zip(FLEET, costs, strict=True))
    with serving(program, folder / "prometheus.yml") as address:
        yield ready(Fleet(address, by_labels))


def ready(fleet: Fleet) -> Fleet:
    fleet.wait_for("job:tracemind_llm_cost_usd:1h", "job", fleet.cost_by(0))
    return fleet


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
    ("series", "label", "position"),
    [
        ("job:tracemind_llm_cost_usd", "job", 0),
        ("flow:tracemind_llm_cost_usd", "gen_ai_workflow_name", 1),
        ("team:tracemind_llm_cost_usd", "team", 2),
    ],
)
def test_recorded_costs_are_what_the_replies_cost(
    fleet: Fleet, series: str, label: str, position: int, window: str
) -> None:
    """The cost of processes that lived for less than one export is whole, by job, flow and team."""
    fleet.wait_for(f"{series}:{window}", label, fleet.cost_by(position))


def test_calls_and_retries_are_counted_without_denied_calls(fleet: Fleet) -> None:
    """Calls and retries of a job are counted whole, once under two sets of names, and a denied call is no error."""
    calls = 'sum by (error_type) (job_model_error:llm_calls:15m{job="fleet-digest"})'

    fleet.wait_for(calls, "error_type", {"": 29, "400": 1})
    fleet.wait_for("job_reason:tracemind_llm_retries:15m > 0", "job", {"fleet-digest": 1, "fleet-answer": 2})
    fleet.wait_for("job_model:tracemind_llm_unpriced_calls:1h", "job", {"fleet-digest": 1, "fleet-answer": 2})


def test_a_call_without_a_price_is_an_alert_at_once(fleet: Fleet) -> None:
    """The alert on calls without a price fires for the jobs that made one."""
    fleet.wait_for('ALERTS{alertname="LLMCallsWithoutPrice", alertstate="firing"}', "job", {"fleet-digest": 1})


@pytest.mark.parametrize("expression", PANELS.values(), ids=PANELS.keys())
def test_no_panel_is_empty(fleet: Fleet, expression: str) -> None:
    """Each panel of the dashboard shows data of the fleet, which had costs, failures, retries and unpriced calls."""
    samples = wait_for_metric(fleet.prometheus, expression)

    assert all(math.isfinite(sample["value"]) for sample in samples)


@pytest.mark.parametrize(
    ("title", "label", "position"),
    [
        ("Cost of the last hour, by job", "job", 0),
        ("Cost of the last hour, by flow", "gen_ai_workflow_name", 1),
        ("Cost of the last hour, by team", "team", 2),
    ],
)
def test_panels_show_what_the_replies_cost(fleet: Fleet, title: str, label: str, position: int) -> None:
    """The costs of a panel are those of the replies."""
    fleet.wait_for(PANELS[title], label, fleet.cost_by(position))
