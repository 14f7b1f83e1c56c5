"""The cost of usage in every unit of the price table: tokens of each kind, characters, pages, seconds and fees.

A unit with more dimensions is a part of one with fewer: audio input is a part of input. Each part costs its own rate,
and what is left of the whole costs the rate of the whole. Sums are exact, and each cost is rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from .rates import SCALE, Cost, Rate


class Unit(NamedTuple):
    """A unit of the price table."""

    field: str | None
    """The counting field of `LLMUsage`; `None` for requests, of which a call is one."""
    per: int
    """How many of it a price is for."""
    dimensions: Mapping[str, str]
    """What is counted: the family, the direction, the modality and the like."""


class PricedUnit(NamedTuple):
    """A unit that has a rate in one price."""

    unit: Unit
    """The unit."""
    rate: Rate
    """Its rate."""
    parts: tuple[int, ...]
    """The positions of its parts that have rates of their own, which come before it."""


def priced_units(prices: Mapping[str, Rate], units: Mapping[str, Unit]) -> tuple[PricedUnit, ...]:
    """The units of a price, each after its parts."""
    ordered = sorted(prices, key=lambda key: (-len(units[key].dimensions), key))
    return tuple(
        PricedUnit(
            units[key],
            prices[key],
            tuple(i for i, other in enumerate(ordered[:at]) if _is_part(units[other], units[key])),
        )
        for at, key in enumerate(ordered)
    )


def _is_part(part: Unit, whole: Unit) -> bool:
    return whole.dimensions.items() <= part.dimensions.items()


def cost_of_units(priced: tuple[PricedUnit, ...], counts: Mapping[str, int | float]) -> Cost:
    """The cost of counts by the fields of `LLMUsage`.

    Raises:
        ValueError: the parts of a count are more than the whole.
    """
    prompt, left = int(counts.get("prompt_tokens", 0)), list[Fraction]()
    sums = {"input": Fraction(), "output": Fraction(), None: Fraction()}
    for each in priced:
        count = Fraction(1) if each.unit.field is None else _exact(counts.get(each.unit.field, 0))
        left.append(count - sum(left[part] for part in each.parts))
        if left[-1] < 0:
            raise ValueError(f"the parts of {each.unit.field} are more than the whole")
        sums[each.unit.dimensions.get("direction")] += left[-1] * each.rate.at(prompt) / (each.unit.per * SCALE)
    return Cost(float(sum(sums.values())), float(sums["input"]), float(sums["output"]), float(sums[None]))


def _exact(count: int | float) -> Fraction:
    """A count as it is written, which is how `genai-prices` counts: 0.1 is a tenth."""
    return Fraction(count) if isinstance(count, int) else Fraction(repr(count))
