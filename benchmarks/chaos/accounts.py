"""The accounts after a run: the application's ledger, the provider's and what reached the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COST, PRESUMED = "tracemind.cost_usd", "tracemind.cost.presumed_usd"
_COST_COUNTER, _PRESUMED_COUNTER = "tracemind.llm.cost", "tracemind.llm.presumed_cost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accounts:
    """What a run came to."""

    calls: int
    """Calls that returned to the application, priced or not."""
    spans_ended: int
    """Spans that ended in the application."""
    spans_lost: int
    """Those of them that never reached the store."""
    spans_twice: int
    """Spans that reached it more than once, by their id."""
    spans_interrupted: int
    """Spans of the killed process that the next one closed."""
    orphans: int
    """Spans in the store whose parents are not there."""
    ledger_usd: float
    """The cost of the calls, as the application was told."""
    spans_usd: float
    """The cost on all spans."""
    counter_usd: float
    """The cost counters, over all processes."""
    presumed_usd: float
    """The counters of what lost replies presumably cost."""
    provider_usd: float
    """What the provider billed."""
    provider_unseen_usd: float
    """The part of it for replies that it cut or never sent."""
    longest_stall_ms: float
    """The event loop's longest stall once the application ran."""
    delivered: bool
    """What the last shut-down returned: whether everything arrived."""


def settle(folder: Path, store: dict[str, Any], provider: dict[str, Any]) -> Accounts:
    """Compare the three."""
    lines = [*_lines(folder)]
    ended = {line["span"] for line in lines if "span" in line}
    copies, spans = store["copies"], store["spans"]
    return Accounts(
        calls=sum("cost_usd" in line for line in lines),
        spans_ended=len(ended),
        spans_lost=len(ended - copies.keys()),
        spans_twice=sum(number > 1 for number in copies.values()),
        spans_interrupted=sum(span["is_interrupted"] for span in spans.values()),
        orphans=sum(bool(span["parent"]) and span["parent"] not in spans for span in spans.values()),
        ledger_usd=sum(line["cost_usd"] or 0.0 for line in lines if "cost_usd" in line),
        spans_usd=sum(span.get(COST, 0.0) for span in spans.values()),
        counter_usd=store["sums"][_COST_COUNTER],
        presumed_usd=store["sums"][_PRESUMED_COUNTER],
        provider_usd=provider["billed_usd"],
        provider_unseen_usd=provider["unseen_usd"],
        longest_stall_ms=1000 * max((line["stall_s"] for line in lines if "stall_s" in line), default=0.0),
        delivered=any(line.get("delivered", False) for line in lines),
    )


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("ledger-*.jsonl")):
        for line in path.read_bytes().splitlines():
            yield json.loads(line)
