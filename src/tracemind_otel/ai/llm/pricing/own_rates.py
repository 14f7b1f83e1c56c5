"""The rates of the user's own prices, and the check of their unit."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ..usage import LLMUsage
from .own_prices import Price
from .price_table import Cost, Part, Rate, Rates, special
from .table_usage import unpriced_parts, used_parts


def rates_of(price: Price) -> Rates:
    """The rates of the user's own price."""
    audio, image = price.input_audio, price.input_image
    is_cache_priced = price.cache_read is not None
    input_parts = _parts(
        ("cache_read_tokens", price.cache_read, None),
        ("cache_write_1h_tokens", price.cache_write_1h, None),
        ("cache_write_tokens", price.cache_write, None if price.cache_write_1h is None else "cache_write_1h_tokens"),
        ("input_audio_tokens", audio, "cache_audio_read_tokens" if is_cache_priced else None),
        ("input_image_tokens", image, "cache_image_read_tokens" if is_cache_priced else None),
    )
    output_parts = _parts(
        ("output_audio_tokens", price.output_audio, None), ("output_image_tokens", price.output_image, None)
    )
    fees = _parts(("web_searches", price.web_searches, None))
    parts = (*input_parts, *output_parts, *fees)
    return Rates(
        input=Rate.of(price.input),
        output=Rate.of(price.output),
        input_parts=input_parts,
        output_parts=output_parts,
        request=None if price.requests is None else Rate.of(price.requests),
        fees=fees,
        priced=frozenset(name for part in parts for name in (part.field, part.without) if name is not None),
    )


def _parts(*parts: tuple[str, Decimal | None, str | None]) -> tuple[Part, ...]:
    return tuple(Part(field, Rate.of(price), without) for field, price, without in parts if price is not None)


def own_cost(price: Price, usage: LLMUsage, conditions: Mapping[str, str]) -> Cost | None:
    """The cost by the user's own price, which has no conditions; `None` if input or output tokens are unknown."""
    rates = rates_of(price)
    units = None if rates.lacks_half(usage) else rates.units(usage)
    if units is None:
        return None
    asked = tuple(f"{key}={value}" for key, value in special(conditions).items())
    partial = (*unpriced_parts(used_parts(usage), rates.priced), *_assumed_overlaps(rates, usage), *asked)
    return Cost.of_units(units, partial, "override", "override")


def _assumed_overlaps(rates: Rates, usage: LLMUsage) -> tuple[str, ...]:
    """Unreported overlaps of cache and modality, for which the least possible overlap is assumed."""
    if not usage.cache_read_tokens:
        return ()
    crossed = ((part.field, part.without) for part in rates.input_parts if part.without is not None)
    return tuple(
        both
        for whole, both in crossed
        if both.endswith("_read_tokens") and getattr(usage, whole) and getattr(usage, both) is None
    )


def looks_per_thousand(own: Rates, table: Rates) -> bool:
    """Whether every rate is under a hundredth of the table's, as USD per thousand tokens would be."""
    mine, theirs = _by_field(own), _by_field(table)
    pairs = [(rate, theirs[field]) for field, rate in mine.items() if theirs.get(field)]
    return any(rate for rate, _ in pairs) and all(rate * 100 < other for rate, other in pairs)


def _by_field(rates: Rates) -> Mapping[str, int]:
    found = {part.field: part.rate.base for part in (*rates.input_parts, *rates.output_parts)}
    halves = {"prompt_tokens": rates.input, "completion_tokens": rates.output}
    return found | {field: rate.base for field, rate in halves.items() if rate is not None}
