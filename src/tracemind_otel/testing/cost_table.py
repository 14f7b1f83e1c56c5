"""The report of `--llm-cost-report`: what the tests spent, by test and model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .call_log import SpanSpending, summed, total_of

_HEADER = ("test", "model", "calls", "retries", "input", "cached", "output", "cost")


def cost_table(spent: Mapping[str, Sequence[SpanSpending]]) -> list[str]:
    """The lines of the report, sorted by test and model, with the total."""
    rows = [_cells(name, row) for name in sorted(spent) for row in _by_model(spent[name])]
    if not rows:
        return ["no test called a model"]
    everything = [row for each in spent.values() for row in each]
    rows += [_cells("total", replace(row)) for row in _by_model(everything)]
    rows.append(_cells("total", total_of(everything, model="all models")))
    return _aligned([_HEADER, *rows])


def _by_model(rows: Iterable[SpanSpending]) -> list[SpanSpending]:
    return summed(replace(row, span="") for row in rows)


def _cells(test: str, row: SpanSpending) -> tuple[str, ...]:
    counts = (row.calls, row.retries, row.input_tokens, row.cached_tokens, row.output_tokens)
    cost = f"${row.cost_usd:.6f}" if row.cost_usd or not row.unpriced else ""
    unknown = f"{row.unpriced} unknown" if row.unpriced else ""
    return (test, row.model, *(f"{count:,}" for count in counts), " + ".join(filter(None, (cost, unknown))))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_padded(cells, widths)).rstrip() for cells in rows]


def _padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, numbers to the right."""
    sized = enumerate(zip(cells, widths, strict=True))
    return [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in sized]
