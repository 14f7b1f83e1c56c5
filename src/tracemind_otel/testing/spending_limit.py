"""The marker `llm_budget`: what the model calls of one test may spend."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .call_log import SpanSpending, summed, total_of

if TYPE_CHECKING:
    import pytest

MARKER = "llm_budget"
_EXAMPLE = "@pytest.mark.llm_budget(usd=0.01, calls=3, tokens=2000)"


@dataclass(frozen=True, kw_only=True, slots=True)
class SpendingLimit:
    """The limits of one test; `None` for no limit."""

    usd: float | None = None
    """USD of all calls."""
    calls: int | None = None
    """Model calls; a retry is no call of its own."""
    tokens: int | None = None
    """Input and output tokens."""

    @classmethod
    def of_markers(cls, markers: Iterable[pytest.Mark]) -> SpendingLimit:
        """The limits of a test's markers, of which the nearest to the test wins for each argument.

        Raises:
            ValueError: an argument is unknown or has a value that is not allowed; the message names the fix.
        """
        given: dict[str, Any] = {}
        for marker in markers:
            if marker.args:
                raise ValueError(f"{MARKER} takes no positional argument; write {_EXAMPLE}")
            if not marker.kwargs:
                raise ValueError(f"{MARKER} limits nothing; write {_EXAMPLE}, with one argument or more")
            for name, value in marker.kwargs.items():
                given.setdefault(name, _checked(name, value))
        return cls(**given)

    def excess(self, calls: Iterable[SpanSpending]) -> list[str]:
        """What went over, a line each; nothing if the test stayed within its limits."""
        rows = summed(calls)
        total = total_of(rows)
        tokens = total.input_tokens + total.output_tokens
        found: list[str] = []
        if self.calls is not None and total.calls > self.calls:
            found.append(f"{_number(total.calls, 'call')}; the limit is {self.calls}")
        if self.tokens is not None and tokens > self.tokens:
            found.append(f"{_number(tokens, 'token')}; the limit is {self.tokens:,}")
        elif self.tokens is not None and total.uncounted:
            found.append(f"{_number(total.uncounted, 'reply', 'replies')} did not say how many tokens they used")
        if self.usd is not None and total.cost_usd > self.usd * (1 + 1e-9):
            found.append(f"${total.cost_usd:.6g}; the limit is ${self.usd:.6g}")
        elif self.usd is not None and total.unpriced:
            models = ", ".join(sorted({row.model for row in rows if row.unpriced}))
            found.append(
                f"the cost of {_number(total.unpriced, 'call')} to {models} is unknown, so it cannot be held to "
                f"${self.usd:.6g}; set a price with tm.set_prices(), or limit calls= or tokens= instead of usd="
            )
        return [*found, *map(_row_line, rows)] if found else []


def _row_line(row: SpanSpending) -> str:
    cost = "unknown" if row.unpriced else f"${row.cost_usd:.6g}"
    tokens = row.input_tokens + row.output_tokens
    return f"  {row.name}: {_number(row.calls, 'call')}, {_number(tokens, 'token')}, {cost}"


def _number(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _checked(name: str, value: object) -> float | int:
    if name not in ("usd", "calls", "tokens"):
        raise ValueError(f"{MARKER} has no argument {name!r}; it has usd=, calls= and tokens=, as in {_EXAMPLE}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{MARKER} has {name}={value!r}; it must be a number of zero or more, as in {_EXAMPLE}")
    if name != "usd" and not isinstance(value, int):
        raise ValueError(f"{MARKER} has {name}={value!r}; it must be a whole number, as in {_EXAMPLE}")
    return value
