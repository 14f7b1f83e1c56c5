"""The rules and the ways into Prometheus on the version of docker-compose.yml, built from Go modules."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml
from collector.stack.native import prepare_prometheus
from collector.stack.ports import free_ports
from collector.stack.programs import GoProgram, Ports

from tests.e2e.backends import get_json
from tests.e2e.collectors import collecting, go_program
from tests.e2e.dashboard_truth import wait_for_every_panel
from tests.e2e.fleet import Fleet, Truth, evaluate_each_second, run_fleet
from tests.e2e.prometheus_server import serving
from tests.programs import REPOSITORY
from tests.promql import metric_names
from tests.required import built

pytestmark = [pytest.mark.tools, pytest.mark.e2e]

LOCK = Path(__file__).with_name("prometheus")
RULES = REPOSITORY / "collector" / "rules"
UNIT_TESTS = sorted((RULES / "tests").glob("*.yml"))


@dataclasses.dataclass(frozen=True)
class PrometheusProgram(GoProgram):
    """A program of Prometheus, which is built from the lock files beside this test."""

    @property
    def lock_dir(self) -> Path:
        return LOCK


@pytest.fixture(scope="module")
def programs(visibly: Callable[[], AbstractContextManager[None]]) -> Iterator[dict[str, Path]]:
    """Prometheus and promtool, without the UI and without the discovery of clouds."""
    with visibly(), pytest.MonkeyPatch.context() as variables:
        variables.setenv("GOFLAGS", "-tags=remove_all_sd")
        yield {
            name: built(PrometheusProgram(name, f"github.com/prometheus/prometheus/cmd/{name}", generated=False))
            for name in ("prometheus", "promtool")
        }


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_version_is_that_of_the_compose_file() -> None:
    """The module of version 3.12.0 is called v0.312.0."""
    (image,) = re.findall(r"image: prom/prometheus:v3\.(\d+)\.(\d+)", (REPOSITORY / "docker-compose.yml").read_text())
    minor, patch = image

    assert f"github.com/prometheus/prometheus v0.3{int(minor):02}.{patch}\n" in (LOCK / "go.mod").read_text()


def test_the_configuration_and_every_rule_are_valid(programs: dict[str, Path], tmp_path: Path) -> None:
    """Prometheus 3 accepts the stack's configuration with its rules."""
    prepare_prometheus(tmp_path, free_ports(), None)

    done = run(programs["promtool"], "check", "config", tmp_path / "prometheus" / "prometheus.yml")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.name)
def test_the_unit_tests_of_the_rules_pass(programs: dict[str, Path], path: Path) -> None:
    """The rules give the same on Prometheus 3, whose ranges leave out the sample at their left end."""
    done = run(programs["promtool"], "test", "rules", path)

    assert done.returncode == 0, done.stdout + done.stderr


def configured(folder: Path, ports: Ports) -> Path:
    """The stack's configuration, with rules that are evaluated each second."""
    prepare_prometheus(folder, ports, "1s")
    evaluate_each_second(folder / "prometheus" / "rules")
    return folder / "prometheus" / "prometheus.yml"


def missing_names(prometheus: str) -> set[str]:
    """The metrics of the library that a rule reads and Prometheus does not have; the fleet embeds nothing."""
    answer = get_json(prometheus, "/api/v1/label/__name__/values")
    groups = yaml.safe_load((RULES / "recording.yml").read_text())["groups"]
    wanted = {name for group in groups for rule in group["rules"] for name in metric_names(rule["expr"])}
    assert answer is not None
    return {name for name in wanted - set(answer["data"]) if ":" not in name and "embeddings" not in name}


def check_fleet(prometheus: str, truth: Truth) -> None:
    """The rules give the truth by job, flow, model and team, and so does every panel; none of the rules fails."""
    fleet = Fleet(prometheus, truth)
    for series, label in (
        ("job:tracemind_llm_cost_usd:1h", "job"),
        ("flow:tracemind_llm_cost_usd:1h", "gen_ai_workflow_name"),
        ("team:tracemind_llm_cost_usd:1d", "team"),
    ):
        fleet.wait_for(series, label, fleet.by("cost_usd", label))
    wait_for_every_panel(prometheus, truth)
    answer = get_json(prometheus, "/api/v1/rules")
    assert answer is not None
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    assert [rule for rule in rules if rule["health"] == "err"] == []


def compose_options() -> list[str]:
    """The options of the compose file but for its paths."""
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    options: list[str] = compose["services"]["prometheus"]["command"]
    return [option for option in options if not option.startswith(("--config.file", "--storage.tsdb.path"))]


def has_exemplars(prometheus: str) -> bool:
    """Whether a point of the cost histogram leads to its trace."""
    now = time.time()
    query = {"query": "tracemind_llm_call_cost_USD_bucket", "start": str(now - 600), "end": str(now + 60)}
    answer = get_json(prometheus, "/api/v1/query_exemplars", query)
    assert answer is not None
    return any("trace_id" in point["labels"] for series in answer["data"] for point in series["exemplars"])


@pytest.mark.parametrize("way", ["scrape", "otlp", "remote-write"])
@pytest.mark.parametrize("overlays", [(), ("aggregate-instances",)], ids=["plain", "aggregate-instances"])
def test_the_rules_give_the_truth_by_each_way_into_prometheus(
    programs: dict[str, Path], tmp_path: Path, way: str, overlays: tuple[str, ...]
) -> None:
    """Scraped, by OTLP and by remote write, metrics have the same names, costs are those of the replies, and points
    lead to traces unless the processes are added up."""
    ports = free_ports()
    config = configured(tmp_path, ports)
    options = [*compose_options(), "--web.enable-otlp-receiver", "--web.enable-remote-write-receiver"]
    with serving(programs["prometheus"], config, *options) as prometheus:
        settings = {
            "PROMETHEUS_URL": prometheus,
            "PROMETHEUS_REMOTE_WRITE_URL": f"{prometheus}/api/v1/write",
        }
        with collecting(
            go_program("otelcol"), tmp_path, f"prometheus-{way}", *overlays, settings=settings
        ) as collector:
            if way == "scrape":
                prepare_prometheus(tmp_path, collector.ports, "1s")
                evaluate_each_second(config.parent / "rules")
            check_fleet(prometheus, run_fleet(collector.otlp_http))

        assert missing_names(prometheus) == set()
        assert has_exemplars(prometheus) or overlays
