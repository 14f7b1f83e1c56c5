"""The sums of a breakdown as a table for the terminal, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from .breakdown import GroupBy, Sums
from .trace_tree import format_duration, format_usd, printable


def sums_table(by: GroupBy, rows: Sequence[Sums], total: Sums, *, left_out: int) -> Table:
    """One row for each group, and one for all calls.

    Args:
        by: what the calls are summed by.
        rows: the groups to show.
        total: the sums over all calls, including those of groups that are not shown.
        left_out: how many groups are not shown.
    """
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    more = f"all ({left_out} more not shown)" if left_out else "all"
    table.add_column(by, footer=more, overflow="fold")
    for heading, footer in zip(_HEADINGS, _cells(total), strict=True):
        table.add_column(heading, footer=footer, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(printable(row.name)), *_cells(row))
    return table


def sums_json(by: GroupBy, rows: Sequence[Sums], total: Sums) -> str:
    """The same as one JSON document; an unknown cost is `null`."""
    document = {"by": by, "rows": [row.as_dict() for row in rows], "total": total.as_dict()}
    return json.dumps(document, indent=2)


_HEADINGS = ("calls", "failed", "retries", "tokens in", "cached", "tokens out", "cost", "p50", "p95")


def _cells(row: Sums) -> tuple[str, ...]:
    share = row.cached_share
    return (
        f"{row.calls:,}",
        f"{row.errors:,}",
        f"{row.retries:,}",
        f"{row.input_tokens:,}",
        "" if share is None else f"{share:.0%}",
        f"{row.output_tokens:,}",
        format_cost(row),
        "" if row.p50_s is None else format_duration(row.p50_s),
        "" if row.p95_s is None else format_duration(row.p95_s),
    )


def format_cost(row: Sums) -> str:
    """`$0.0005`, `unknown`, or `$0.0005 + 2 unpriced`."""
    if row.cost_usd is None:
        return "unknown"
    return f"{format_usd(row.cost_usd)} + {row.unpriced:,} unpriced" if row.unpriced else format_usd(row.cost_usd)
