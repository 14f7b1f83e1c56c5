"""What a dashboard is made of, before it is written as Grafana's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["stat", "series", "bars", "table"]
"""A single figure, lines over time, a bar for each series, or a table of the figures of now."""
Unit = Literal["currencyUSD", "percentunit", "short", "s", "bytes", "none"]
"""A unit of Grafana. `currencyUSD` shows as many decimals as the figure needs, down to the cost of a token."""


@dataclass(frozen=True)
class Query:
    """One expression of a panel."""

    expression: str
    """PromQL, with the variables of the dashboard."""
    legend: str = ""
    """The name of each series, with labels in double braces; the heading of the column in a table."""
    has_exemplars: bool = False
    """Whether the panel marks single calls, each with a link to its trace. The expression must read the buckets."""


@dataclass(frozen=True)
class Link:
    """A link of a table's cell."""

    title: str
    """What the menu shows."""
    url: str
    """The address, with Grafana's variables."""


@dataclass(frozen=True)
class Column:
    """How a table shows a column."""

    title: str
    """The heading."""
    unit: Unit = "none"
    """The unit of the figures."""
    links: tuple[Link, ...] = ()
    """Where a click on a cell may lead."""


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    """What it shows, with the window of the figures."""
    queries: tuple[Query, ...]
    """What it asks Prometheus."""
    description: str
    """What the figures mean, and what they do not."""
    kind: Kind = "series"
    """How it shows them."""
    unit: Unit = "short"
    """The unit of the figures."""
    width: int = 12
    """Columns of 24."""
    height: int = 8
    """Rows of Grafana's grid."""
    columns: Mapping[str, Column] = field(default_factory=dict[str, Column])
    """Of a table: the labels and queries (by legend) that it shows, in this order."""
    maximum: float | None = None
    """The end of the scale, if it has one."""
    warn_from: float | None = None
    """The figure from which it turns red."""


@dataclass(frozen=True)
class Row:
    """Panels under a heading, from left to right."""

    title: str
    """The heading."""
    panels: tuple[Panel, ...]
    """The panels; a line that is full is followed by another."""


@dataclass(frozen=True)
class Variable:
    """A list of values at the top of the dashboard, by which its panels are filtered."""

    name: str
    """Its name in expressions, after the dollar sign."""
    label: str
    """The label in Prometheus."""
    title: str
    """What stands before the list."""
    metric: str
    """The series whose values it lists."""
    within: str = ""
    """Matchers of variables before it, which narrow it down."""


@dataclass(frozen=True)
class Dashboard:
    """One dashboard."""

    uid: str
    """Its id in links; it never changes."""
    title: str
    """Its name."""
    description: str
    """The questions that it answers."""
    variables: tuple[Variable, ...]
    """The filters of all its panels."""
    rows: tuple[Row, ...]
    """Its panels."""
    has_jaeger: bool = False
    """Whether its tables lead to Jaeger's page, whose address it then asks for."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, from top to bottom."""
        return tuple(panel for row in self.rows for panel in row.panels)
