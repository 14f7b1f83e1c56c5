"""The rates of a price, and the cost of a call by them.

The common case (input, cached input, reasoning, output, requests) is summed here in whole numbers, so that sums are
exact and each cost is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from ..usage import CostSource, LLMUsage, ReportedCost

SCALE = 10**18
"""The unit of a rate is 1e-18 USD, finer than any published price."""
_UNITS_PER_USD = SCALE * 10**6
"""The unit of a rate per million tokens, times tokens, is 1e-24 USD."""
Units = tuple[int, int, int]
"""Sums for input, output and fees, in units of 1 / `_UNITS_PER_USD` USD."""


class Cost(NamedTuple):
    """The cost of a call, its parts and the price behind it: the fields of `LLMUsage` with these names."""

    cost_usd: float
    input_cost_usd: float | None = None
    output_cost_usd: float | None = None
    fees_usd: float | None = None
    cost_partial: tuple[str, ...] = ()
    cost_table: str | None = None
    cost_source: CostSource = "local"
    cached_cost_usd: float | None = None

    def beside(self, reported: ReportedCost) -> Cost:
        """The same with the fee of a gateway added, the only cost that its reply names."""
        fee_usd = reported.fees_usd or 0.0
        fees_usd = None if self.fees_usd is None else self.fees_usd + fee_usd
        partial = (*self.cost_partial, "upstream_inference_cost", *reported.partial)
        return self._replace(cost_usd=self.cost_usd + fee_usd, fees_usd=fees_usd, cost_partial=partial)

    def of(self, usage: LLMUsage) -> LLMUsage:
        """The usage at this cost."""
        return usage.priced(self._asdict())


class Rate(NamedTuple):
    """The price of a million tokens, which may depend on the prompt size."""

    base: int
    """Price in units of 1 / `SCALE` USD."""
    steps: tuple[tuple[int, int], ...] = ()
    """Prompt sizes in tokens and the rate above each; the smallest size first."""

    @classmethod
    def of(cls, price: Decimal, steps: Iterable[tuple[int, Decimal]] = ()) -> Rate:
        """The rate of a price in USD, with the prices above prompt sizes, the smallest size first."""
        return cls(int(price * SCALE), tuple((size, int(higher * SCALE)) for size, higher in steps))

    @classmethod
    def parse(cls, row: str | list[Any]) -> Rate:
        """The rate of a row of the compact table: a price, or a price and its steps."""
        base, steps = (row, ()) if isinstance(row, str) else row
        return cls.of(Decimal(base), ((size, Decimal(price)) for size, price in steps))

    def at(self, prompt_tokens: int) -> int:
        """The rate for a prompt size in tokens."""
        rate = self.base
        for size, higher in self.steps:
            if prompt_tokens > size:
                rate = higher
        return rate


class Part(NamedTuple):
    """A part of the input or of the output that has a rate of its own."""

    field: str
    """The counting field of `LLMUsage`."""
    rate: Rate
    """Its rate."""
    without: str | None = None
    """A field whose tokens `field` includes, but which were priced before."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The rates of one price; `None` for a kind without a rate."""

    input: Rate | None
    """For input tokens."""
    output: Rate | None
    """For output tokens."""
    input_parts: tuple[Part, ...] = ()
    """Parts of the input with rates of their own; the rest costs the input rate."""
    output_parts: tuple[Part, ...] = ()
    """Parts of the output with rates of their own; the rest costs the output rate."""
    request: Rate | None = None
    """A fee for a thousand requests."""
    fees: tuple[Part, ...] = ()
    """Fees for a thousand of what is counted beside the tokens."""
    priced: frozenset[str] = frozenset()
    """All fields of `LLMUsage` with a rate."""
    beyond: frozenset[str] = frozenset()
    """The priced fields that are not summed here."""

    @classmethod
    def of_table(cls, rates: Mapping[str, Rate], field_of: Mapping[str, str]) -> Rates:
        """The table's rates by its price keys; `field_of` maps the keys to fields of `LLMUsage`."""
        priced = frozenset(field for key, field in field_of.items() if key in rates)
        read, written = rates.get("cache_read_mtok"), rates.get("cache_write_mtok")
        return cls(
            input=rates.get("input_mtok"),
            output=rates.get("output_mtok"),
            input_parts=parts(("cache_read_tokens", read, None), ("cache_write_tokens", written, None)),
            output_parts=parts(("reasoning_tokens", rates.get("output_reasoning_mtok"), None)),
            request=rates.get("requests_kcount"),
            priced=priced,
            beyond=priced - _SUMMED_HERE,
        )

    @property
    def is_empty(self) -> bool:
        """Whether the price has no rates."""
        return not self.priced and self.request is None

    @property
    def is_zero(self) -> bool:
        """Whether input and output are free, however large the prompt."""
        halves = (self.input, self.output)
        return all(rate is not None and not any((rate.base, *dict(rate.steps).values())) for rate in halves)

    def units(self, usage: LLMUsage) -> Units | None:
        """The cost of a call with each token at its own rate; `None` if a needed rate is missing."""
        counts = vars(usage)
        prompt, completion = max(usage.prompt_tokens or 0, 0), max(usage.completion_tokens or 0, 0)
        for_input = _side(counts, prompt, prompt, self.input, self.input_parts)
        for_output = _side(counts, completion, prompt, self.output, self.output_parts)
        if for_input is None or for_output is None:
            return None
        fees = 0 if self.request is None else self.request.at(prompt)
        for fee in self.fees:
            fees += max(counts.get(fee.field) or 0, 0) * fee.rate.base
        return for_input, for_output, fees * 1000

    def cost(
        self, usage: LLMUsage, units: Units, partial: tuple[str, ...], table: str, source: CostSource = "local"
    ) -> Cost:
        """The cost of a call by its `units`; the other arguments are those of `Cost`."""
        for_input, for_output, fees = units
        halves = (for_input / _UNITS_PER_USD, for_output / _UNITS_PER_USD, fees / _UNITS_PER_USD)
        return Cost(sum(units) / _UNITS_PER_USD, *halves, partial, table, source, self._cached_usd(usage))

    def _cached_usd(self, usage: LLMUsage) -> float | None:
        """The part of the cost for tokens read from a cache, if they have a rate of their own."""
        cached, prompt = usage.cache_read_tokens, usage.prompt_tokens or 0
        for part in self.input_parts if cached else ():
            if part.field == "cache_read_tokens":
                return min(cached or 0, prompt) * part.rate.at(prompt) / _UNITS_PER_USD
        return None

    def lacks_half(self, usage: LLMUsage) -> bool:
        """Whether the price is by tokens, and input or output tokens were not reported."""
        is_by_tokens = self.input is not None or self.output is not None
        return is_by_tokens and (usage.prompt_tokens is None or usage.completion_tokens is None)


_SUMMED_HERE = frozenset(
    {"prompt_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"}
)
"""The fields of `LLMUsage` in the common case."""


def parts(*priced: tuple[str, Rate | None, str | None]) -> tuple[Part, ...]:
    """The parts that have a rate, by the fields of `Part`."""
    return tuple(Part(field, rate, without) for field, rate, without in priced if rate is not None)


def _side(counts: Mapping[str, Any], left: int, prompt: int, rate: Rate | None, parts: Iterable[Part]) -> int | None:
    """The cost of input or output: its parts first, then the rest."""
    total = 0
    for part in parts:
        count = counts.get(part.field)
        if count and part.without is not None:
            count -= counts.get(part.without) or 0
        if count and count > 0:
            count = min(count, left)  # some servers report more of a part than of the whole
            left -= count
            total += count * part.rate.at(prompt)
    if not left:
        return total
    return None if rate is None else total + left * rate.at(prompt)
