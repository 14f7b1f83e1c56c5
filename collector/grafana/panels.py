"""The usual panels: a single figure, and lines by a label."""

from __future__ import annotations

from collections.abc import Sequence

from .filters import NO_NAMES
from .model import Panel, Query, Unit
from .promql import named, sum_by


def stat(
    title: str, expression: str, description: str, *, unit: Unit = "short", warn_from: float | None = None
) -> Panel:
    """A single figure, six in a line."""
    return Panel(
        title, (Query(expression),), description, kind="stat", unit=unit, width=4, height=4, warn_from=warn_from
    )


def by_label(title: str, label: str, expression: str, description: str, unit: Unit = "short") -> Panel:
    """A line for each value of a label."""
    return Panel(title, (Query(expression, f"{{{{{label}}}}}"),), description, unit=unit)


def sums(title: str, label: str, series: str, description: str, unit: Unit = "short") -> Panel:
    """A line for each value of a label: the sum of its series."""
    return by_label(title, label, label_named(sum_by((label,), series), label), description, unit)


def label_named(expression: str, label: str) -> str:
    """The same series, with a name for the one without the label, if it can be absent."""
    return named(expression, label, NO_NAMES[label]) if label in NO_NAMES else expression


def quantiles(title: str, expressions: Sequence[tuple[str, str]], description: str) -> Panel:
    """A line for each quantile of seconds."""
    return Panel(title, tuple(Query(expression, legend) for legend, expression in expressions), description, unit="s")
