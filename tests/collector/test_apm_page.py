"""docs/how-to/feed-your-apm.md says what the overlays do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "feed-your-apm.md").read_text()
OVERLAYS = ROOT / "collector" / "overlays"

Json = dict[str, Any]


def destinations() -> dict[str, str]:
    """The temporality in which each file that sends metrics out of the Collector does so."""
    found: dict[str, str] = {}
    for path in sorted(OVERLAYS.glob("*.yaml")):
        config = cast("Json", yaml.safe_load(path.read_text()))
        for name, pipeline in config.get("service", {}).get("pipelines", {}).items():
            out = [each for each in pipeline.get("exporters", ()) if each in config.get("exporters", {})]
            if name.startswith("metrics") and pipeline.get("receivers") == ["forward/metrics"] and out:
                steps = [step.partition("/")[0] for step in pipeline.get("processors", ())]
                found[path.name] = "delta" if "cumulativetodelta" in steps else "cumulative"
    return found


DESTINATIONS = destinations()


def test_the_page_has_every_destination_of_metrics() -> None:
    """The table of the cost metric has a row for each file, and the loop that validates them names each."""
    rows = dict(re.findall(r"^\| [^|]+ \| `([\w.-]+\.yaml)` \| (\w+) \|", PAGE, re.MULTILINE))
    validated = re.search(r"for name in (.*?); do", PAGE, re.DOTALL)

    assert rows == DESTINATIONS
    assert validated is not None
    assert sorted(validated[1].replace("\\", "").split()) == sorted(name.removesuffix(".yaml") for name in DESTINATIONS)


@pytest.mark.parametrize("destination", ["Datadog", "New Relic", "Grafana Cloud", "Dynatrace", "Elastic", "Honeycomb"])
def test_each_apm_has_its_limits(destination: str) -> None:
    """Whoever pays for series finds how they are counted."""
    limits = PAGE.partition("## Limits")[2]

    assert f"\n| {destination} | " in limits
