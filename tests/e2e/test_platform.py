"""The example for a platform team, asked for its figures in the real Prometheus."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.e2e.backends import ROOT, Sample, Stack
from tests.programs import clean_environment

pytestmark = pytest.mark.e2e

SERVICE = "platform-example"


def by(label: str, samples: list[Sample]) -> dict[str, float]:
    return {sample["labels"].get(label, ""): sample["value"] for sample in samples}


def test_costs_and_retries_by_team_and_reason(stack: Stack) -> None:
    """The queries that the example prints give the costs that it prints, and each reason of a retry."""
    command = [sys.executable, str(ROOT / "examples" / "platform_costs.py"), "--endpoint", stack.otlp_http]
    done = subprocess.run(
        [*command, "--service", SERVICE],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    costs = {team: float(usd) for team, usd in re.findall(r"^(\w+): \$([\d.]+)$", done.stdout, re.MULTILINE)}
    queries = dict(re.findall(r"^([\w ]+): (sum by .*)$", done.stdout, re.MULTILINE))
    of_this_run = {name: query.replace("_total)", f'_total{{job="{SERVICE}"}})') for name, query in queries.items()}

    def wait_for(query: str, label: str, expected: Mapping[str, object]) -> None:
        """The first flow that ends has its metrics exported, so a scrape may see some of the costs."""
        stack.wait_for_metric(of_this_run[query], until=lambda samples: by(label, samples) == expected)

    wait_for("cost by team", "team", {team: pytest.approx(usd, abs=1e-6) for team, usd in costs.items()})
    wait_for("retries by reason", "tracemind_retry_reason", {"rate_limit": 3, "server_error": 3, "": 0})
    wait_for("denied calls by budget", "tracemind_budget_name", {"digest": 1})
