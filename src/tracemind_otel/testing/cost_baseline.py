"""The recorded cost of each test, and what costs more than that now."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from .call_log import SpanSpending, summed, total_of

_FORMAT = "tracemind_llm_cost_baseline"
_VERSION = 1
_ROUNDING = 1e-9
"""The relative difference of two sums that counts as none."""

_TYPES = {item.name: (str,) if item.type == "str" else (int, float) for item in fields(SpanSpending)}


@dataclass(slots=True)
class CostBaseline:
    """What each test spent when the baseline was written."""

    path: Path
    """The file."""
    tests: dict[str, list[SpanSpending]] = field(default_factory=dict[str, list[SpanSpending]])
    """The rows of each test, by its id."""

    @classmethod
    def read(cls, path: Path) -> CostBaseline:
        """The baseline in a file.

        Raises:
            ValueError: the file is no baseline; the message says what is wrong and how to mend it.
            OSError: the file cannot be read.
        """
        try:
            return cls(path, _tests_in(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError as error:
            raise ValueError(
                f"{path} is no baseline of LLM costs ({error}); name another file, or delete this one and write it "
                "anew with --llm-cost-update"
            ) from None

    def write(self) -> None:
        """Write the file, in an order that is the same for the same costs."""
        tests = {name: [_plain(row) for row in rows] for name, rows in sorted(self.tests.items()) if rows}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps({_FORMAT: _VERSION, "tests": tests}, indent=1, ensure_ascii=False)
        self.path.write_text(content + "\n", encoding="utf-8")

    def excess(self, test: str, calls: Iterable[SpanSpending], tolerance_percent: float) -> list[str]:
        """What a test spends more than its baseline allows, a line each; nothing for a test without a baseline."""
        before = self.tests.get(test)
        return [] if before is None else _Comparison(before, summed(calls), tolerance_percent).excess()


class _Comparison:
    """One test, before and now."""

    def __init__(self, before: list[SpanSpending], now: list[SpanSpending], tolerance_percent: float) -> None:
        self._before, self._now = before, now
        self._was, self._is = total_of(before), total_of(now)
        self._tolerance = tolerance_percent
        self._factor = 1 + tolerance_percent / 100
        self._lacks_prices = bool(self._was.unpriced or self._is.unpriced)

    def excess(self) -> list[str]:
        reasons = [reason for reason in (self._cost(), self._retries(), self._prompt(), self._tokens()) if reason]
        return [*reasons, *self._grown_spans()] if reasons else []

    def _cost(self) -> str | None:
        was, now = self._was, self._is
        if now.unpriced and not was.unpriced:
            unpriced = ", ".join(sorted({row.model for row in self._now if row.unpriced}))
            return f"the cost of {unpriced} is unknown; it was ${was.cost_usd:.6g}. Set a price with tm.set_prices()"
        if now.unpriced != was.unpriced or not _is_over(now.cost_usd, was.cost_usd * self._factor):
            return None
        growth = f"{(now.cost_usd / was.cost_usd - 1) * 100:.1f} % over" if was.cost_usd else "over"
        line = f"${now.cost_usd:.6g} is {growth} the baseline of ${was.cost_usd:.6g}; {self._tolerance:g} % is allowed"
        return f"{line}. {self._price_note()}".rstrip(". ")

    def _price_note(self) -> str:
        if self._was.prices == self._is.prices or not self._was.prices:
            return ""
        return f"The prices are of {self._is.prices or 'no table'}, those of the baseline of {self._was.prices}"

    def _retries(self) -> str | None:
        """A repeated attempt costs time, and money at providers that charge for what failed."""
        was, now = self._was.retries, self._is.retries
        return f"{now} {'retry' if now == 1 else 'retries'}; the baseline has {was}" if now > was else None

    def _prompt(self) -> str | None:
        """A prompt that grew: its cost drowns in that of the output until it is long."""
        if not self._lacks_prices and not _is_over(self._is.cost_usd, self._was.cost_usd):
            return None
        before = {(row.span, row.model): row for row in self._before}
        for row in self._now:
            was = before.get((row.span, row.model))
            if was is None or row.calls != was.calls or row.input_tokens <= was.input_tokens:
                continue
            if row.input_tokens >= was.input_tokens * self._factor * (1 - _ROUNDING):
                return (
                    f"the prompt of {row.name} grew from {was.input_tokens:,} to {row.input_tokens:,} tokens; "
                    f"less than {self._tolerance:g} % is allowed"
                )
        return None

    def _tokens(self) -> str | None:
        """Where there is no price, the tokens that are billed stand for it."""
        if not self._lacks_prices:
            return None
        for what, was, now in (
            ("uncached input", _uncached(self._was), _uncached(self._is)),
            ("output", self._was.output_tokens, self._is.output_tokens),
        ):
            if _is_over(now, was * self._factor):
                return f"{now:,} {what} tokens; the baseline has {was:,}, and {self._tolerance:g} % more is allowed"
        return None

    def _grown_spans(self) -> list[str]:
        before = {(row.span, row.model): row for row in self._before}
        gone = [row for key, row in before.items() if key not in {(row.span, row.model) for row in self._now}]
        lines: list[tuple[float, str]] = []
        for row in self._now:
            was = before.get((row.span, row.model))
            replaced = next((old for old in gone if was is None and old.span == row.span), None)
            line = _growth(was or replaced, row)
            if line:
                lines.append(((was or replaced or SpanSpending(span="", model="")).cost_usd - row.cost_usd, line))
        return [line for _, line in sorted(lines)]


def _uncached(row: SpanSpending) -> int:
    return row.input_tokens - row.cached_tokens


def _growth(was: SpanSpending | None, now: SpanSpending) -> str | None:
    """One line about a span that grew."""
    if was is None:
        return f"  {now.name}: new, {_cost(now)}, {now.calls} calls, {now.input_tokens:,} input tokens"
    changes = [f"{_cost(was)} -> {_cost(now)}"]
    if was.model != now.model:
        changes.append(f"{now.model} instead of {was.model}")
    for what, before, after in (
        ("calls", was.calls, now.calls),
        ("retries", was.retries, now.retries),
        ("input tokens", was.input_tokens, now.input_tokens),
        ("cached input tokens", was.cached_tokens, now.cached_tokens),
        ("output tokens", was.output_tokens, now.output_tokens),
    ):
        if before != after:
            changes.append(f"{what} {before:,} -> {after:,}")
    grew = now.cost_usd > was.cost_usd or now.unpriced or now.retries > was.retries
    return f"  {now.name}: {', '.join(changes)}" if grew and (len(changes) > 1 or now.cost_usd > was.cost_usd) else None


def _cost(row: SpanSpending) -> str:
    return "unknown" if row.unpriced else f"${row.cost_usd:.6g}"


def _is_over(value: float, limit: float) -> bool:
    return value > limit * (1 + _ROUNDING)


def _plain(row: SpanSpending) -> dict[str, Any]:
    """A row without what is zero or empty."""
    return {name: value for name, value in asdict(row).items() if value or name in ("span", "model", "cost_usd")}


def _tests_in(content: object) -> dict[str, list[SpanSpending]]:
    if not isinstance(content, dict):
        raise ValueError("it has no JSON object")
    document = cast("dict[str, object]", content)
    if document.get(_FORMAT) != _VERSION:
        raise ValueError(f"it has no {_FORMAT!r}: {_VERSION}")
    return {name: [_row(name, row) for row in rows] for name, rows in _entries(document.get("tests"))}


def _entries(tests: object) -> list[tuple[str, list[object]]]:
    if not isinstance(tests, Mapping):
        raise ValueError("'tests' is no object")
    entries = list(cast("Mapping[str, object]", tests).items())
    for name, rows in entries:
        if not isinstance(rows, list):
            raise ValueError(f"the entry of {name} is no list")
    return cast("list[tuple[str, list[object]]]", entries)


def _row(test: str, row: object) -> SpanSpending:
    if not isinstance(row, dict):
        raise ValueError(f"the entry of {test} has a row that is no object")
    values = cast("dict[str, Any]", row)
    for name, value in values.items():
        if name not in _TYPES:
            raise ValueError(f"the entry of {test} has {name!r}, which no row has")
        if isinstance(value, bool) or not isinstance(value, _TYPES[name]) or not _is_sound(value):
            raise ValueError(f"the entry of {test} has {name}: {value!r}")
    if missing := {"span", "model", "cost_usd"} - values.keys():
        raise ValueError(f"the entry of {test} has no {sorted(missing)[0]!r}")
    return SpanSpending(**values)


def _is_sound(value: str | float) -> bool:
    return isinstance(value, str) or 0 <= value < math.inf
