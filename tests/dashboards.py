"""The expressions of Grafana's dashboards, and what is wrong with them: by their text, and by Prometheus' answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.promql import label_names, loses_first_samples, metric_names

Json = dict[str, Any]
DASHBOARDS = Path(__file__).resolve().parents[1] / "collector" / "grafana" / "dashboards"
_NOT_CLOSE = 1e-9


class Answer(Protocol):
    """One series of Prometheus' answer."""

    def __getitem__(self, key: str, /) -> Any: ...


@dataclass(frozen=True)
class Expression:
    """One expression of a panel."""

    dashboard: str
    """The name of the dashboard's file."""
    panel: str
    """The panel's title."""
    reference: str
    """The letter of the query."""
    text: str
    """PromQL, with Grafana's variables."""
    has_exemplars: bool = False
    """Whether Grafana asks for exemplars too."""

    def __str__(self) -> str:
        return f"{self.dashboard}.json, panel {self.panel!r}, query {self.reference}"

    def fault(self, what: str) -> str:
        """A message that names dashboard, panel and expression."""
        return f"{self}: {what}\n  in {' '.join(self.text.split())}"

    def query(self, values: Mapping[str, str]) -> str:
        """What Grafana sends: the variables replaced by these values, or by all."""
        return re.sub(r"\$(\w+)", lambda found: values.get(found[1], ".*"), self.text)


def dashboard_files(folder: Path = DASHBOARDS) -> list[Path]:
    """The dashboards of a folder."""
    return sorted(folder.glob("*.json"))


def panels(dashboard: Json) -> Iterator[Json]:
    """The panels of a dashboard, without the headings."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions(path: Path) -> list[Expression]:
    """Each expression of a dashboard, in the order of its panels."""
    return [
        Expression(path.stem, panel["title"], target["refId"], target["expr"], target.get("exemplar", False))
        for panel in panels(json.loads(path.read_text(encoding="utf-8")))
        for target in panel["targets"]
    ]


def every_expression(folder: Path = DASHBOARDS) -> list[Expression]:
    """Each expression of each dashboard."""
    return [expression for path in dashboard_files(folder) for expression in expressions(path)]


def faults_of_text(expression: Expression, metrics: Collection[str], labels: Collection[str]) -> list[str]:
    """What is wrong with an expression by its text alone.

    Args:
        expression: of a panel.
        metrics: the names that Prometheus has.
        labels: the names of labels that it has.
    """
    found: list[str] = []
    if unknown := metric_names(expression.text) - set(metrics):
        found.append(f"nothing exports or records {', '.join(sorted(unknown))}")
    if unknown := label_names(expression.text) - set(labels):
        found.append(f"no series has the label {', '.join(sorted(unknown))}")
    if loses_first_samples(expression.text):
        found.append("increase() or rate() loses the first samples of short-lived processes")
    return [expression.fault(what) for what in found]


@dataclass(frozen=True)
class Known:
    """What the answer to an expression must be."""

    labels: tuple[str, ...]
    """The labels of its series."""
    values: Mapping[tuple[str, ...], float]
    """The value of each series, by the values of these labels. There must be no other series."""
    at_most: Mapping[tuple[str, ...], float] | None = None
    """The upper end, if `values` is the lower end of what is known of an estimate."""
    only: bool = True
    """Whether there must be no other series."""


def faults_of_answer(expression: Expression, answer: Iterable[Answer], known: Known) -> list[str]:
    """What is wrong with Prometheus' answer to an expression, given what is true."""
    found = {tuple(each["labels"].get(name, "") for name in known.labels): float(each["value"]) for each in answer}
    if not found:
        return [expression.fault("no data, though there ought to be some")]
    faults = [f"no series for {_named(known, key)}" for key in known.values.keys() - found.keys()]
    if known.only:
        faults += [f"an unknown series {_named(known, key)}" for key in found.keys() - known.values.keys()]
    for key in known.values.keys() & found.keys():
        low, high = known.values[key], (known.at_most or known.values)[key]
        if not _is_between(found[key], low, high):
            true = f"{low:g}" if low == high else f"between {low:g} and {high:g}"
            faults.append(f"{found[key]:g} for {_named(known, key)}, where {true} is true")
    return [expression.fault(fault) for fault in sorted(faults)]


def _is_between(value: float, low: float, high: float) -> bool:
    room = _NOT_CLOSE * max(abs(low), abs(high), 1e-6)
    return math.isfinite(value) and low - room <= value <= high + room


def _named(known: Known, key: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in zip(known.labels, key, strict=True)) or "the sum"


def planted(expression: Expression, right: str, wrong: str) -> Expression:
    """The same expression with a fault."""
    text = expression.text.replace(right, wrong)
    assert text != expression.text, (right, expression)
    return Expression(expression.dashboard, expression.panel, expression.reference, text, expression.has_exemplars)
