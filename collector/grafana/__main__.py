"""Writes the dashboards and their rules: `python -m collector.grafana`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .budgets import BUDGETS
from .health import COLLECTOR
from .latency import LATENCY
from .model import Dashboard
from .reliability import RELIABILITY
from .render import dashboard_json
from .rules import rules_file
from .spend import SPEND

DASHBOARDS: dict[str, Dashboard] = {
    "spend": SPEND,
    "latency": LATENCY,
    "reliability": RELIABILITY,
    "budgets": BUDGETS,
    "collector": COLLECTOR,
}
"""Each dashboard by the name of its file."""


def files() -> dict[str, str]:
    """The text of each file, by its path from the folder `collector`."""
    made = {f"grafana/dashboards/{name}.json": as_text(dashboard) for name, dashboard in DASHBOARDS.items()}
    return {**made, "rules/dashboards.yml": rules_file()}


def as_text(dashboard: Dashboard) -> str:
    """The JSON of a dashboard."""
    return json.dumps(dashboard_json(dashboard), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(prog="python -m collector.grafana", description=__doc__)
    parser.add_argument("--into", type=Path, default=Path(__file__).resolve().parents[1], help="the folder `collector`")
    into: Path = parser.parse_args().into
    for name, text in files().items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
