"""A scripted fleet: short-lived processes of which everything is known, and a Prometheus with their metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.e2e import otlp_requests as otlp
from tests.e2e.backends import Sample, Stack, wait_for_metric
from tests.e2e.collectors import post
from tests.e2e.prometheus_server import serving
from tests.programs import clean_environment
from tests.required import prometheus_program

PROGRAM = Path(__file__).with_name("fleet_process.py")
JOBS = "fleet-.*"
"""The jobs of the fleet, as a regular expression. No other test of the stack uses these names."""


@dataclass(frozen=True)
class Member:
    """One process of the fleet."""

    job: str
    """Its `service.name`."""
    flow: str
    """The flow of its calls; empty where it has none."""
    team: str
    """The team of the flow."""
    names: str = ""
    """OTEL_SEMCONV_STABILITY_OPT_IN: which names its metrics have."""


FLEET = (
    Member("fleet-answer", "fleet-answer", "fleet-search"),
    Member("fleet-answer", "fleet-answer", "fleet-ads"),
    Member("fleet-digest", "fleet-digest", "fleet-news", "gen_ai_latest_experimental/dup"),
    Member("fleet-nightly", "fleet-report", "fleet-news", "gen_ai_latest_experimental"),
    Member("fleet-script", "", ""),
)
RESTARTED = FLEET[0]
"""This one starts again after its end."""


@dataclass(frozen=True)
class Fact:
    """Something that a process knows of one of its calls."""

    measure: str
    """What was measured."""
    value: float
    """In USD, tokens, seconds or a count."""
    labels: Mapping[str, str]
    """Its labels in Prometheus."""

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether it has these labels."""
        return all(self.labels.get(name, "") == value for name, value in labels.items())


@dataclass(frozen=True)
class Truth:
    """All facts of the fleet."""

    facts: tuple[Fact, ...]
    """As the processes printed them."""

    def where(self, **labels: str) -> Truth:
        """The facts with these labels; those that lack a label altogether are left out unless the value is empty."""
        return Truth(tuple(fact for fact in self.facts if fact.has(labels)))

    def values(self, measure: str) -> list[float]:
        """Each value of a measure."""
        return [fact.value for fact in self.facts if fact.measure == measure]

    def sum(self, measure: str) -> float:
        """The sum of a measure."""
        return sum(self.values(measure))

    def sums(self, measure: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The sum of a measure by labels."""
        found: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for fact in self.facts:
            if fact.measure == measure:
                found[tuple(fact.labels.get(label, "") for label in labels)] += fact.value
        return dict(found)


@dataclass(frozen=True)
class Fleet:
    """The fleet has ended, and this Prometheus has scraped what it sent."""

    prometheus: str
    """The address of Prometheus, which evaluates the rules each second."""
    truth: Truth
    """What is true of the fleet."""

    def wait_for(self, query: str, label: str, expected: Mapping[str, float]) -> None:
        """Wait until the answer by one label has the expected values; what other tests sent is left out."""
        wanted = {name: pytest.approx(value) for name, value in expected.items()}

        def is_right(samples: list[Sample]) -> bool:
            found = {sample["labels"].get(label, ""): sample["value"] for sample in samples}
            return {name: found.get(name) for name in wanted} == wanted

        wait_for_metric(self.prometheus, query, until=is_right)

    def by(self, measure: str, label: str) -> dict[str, float]:
        """What is true of a measure, by one label."""
        return {name: value for (name,), value in self.truth.sums(measure, label).items()}


def run_member(endpoint: str, member: Member) -> list[Fact]:
    """Run one process; returns its facts."""
    environment = clean_environment(OTEL_SEMCONV_STABILITY_OPT_IN=member.names)
    command = [sys.executable, str(PROGRAM), endpoint, member.job, member.flow, member.team]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [Fact(**fact) for fact in json.loads(done.stdout)]


def run_fleet(endpoint: str) -> Truth:
    """Run all processes at once, and one of them again."""
    with ThreadPoolExecutor() as pool:
        facts = [fact for found in pool.map(partial(run_member, endpoint), FLEET) for fact in found]
    return Truth((*facts, *run_member(endpoint, RESTARTED)))


def send_embeddings(endpoint: str) -> None:
    """Send the duration of an embedding under its newest name, as a process with the SDK of a provider does."""
    _, durations = otlp.metrics(0.0, 1).resource_metrics[0].scope_metrics[0].metrics
    durations.name = "gen_ai.client.embeddings.duration"
    request = otlp.metrics_of([durations], {"service.name": "embeddings-of-nobody"})
    assert post(f"{endpoint}/v1/metrics", request.SerializeToString()) == 200


def evaluate_each_second(rules: Path) -> None:
    """Change the intervals of the rules in a folder."""
    for path in rules.glob("*.yml"):
        path.write_text(re.sub(r"interval: \d+m", "interval: 1s", path.read_text()))


@contextmanager
def running_fleet(stack: Stack, folder: Path) -> Generator[Fleet]:
    """Run the fleet against the stack's Collector, and a Prometheus of its own that is configured as the stack's."""
    if stack.mode != "native":
        pytest.skip("needs the stack without Docker")
    program = prometheus_program()
    shutil.copytree(stack.state / "prometheus", folder, ignore=shutil.ignore_patterns("data"))
    evaluate_each_second(folder / "rules")
    truth = run_fleet(stack.otlp_http)
    send_embeddings(stack.otlp_http)
    with serving(program, folder / "prometheus.yml", "--enable-feature=exemplar-storage") as address:
        yield _ready(Fleet(address, truth))


def _ready(fleet: Fleet) -> Fleet:
    fleet.wait_for("job:tracemind_llm_cost_usd:1h", "job", fleet.by("cost_usd", "job"))
    return fleet
