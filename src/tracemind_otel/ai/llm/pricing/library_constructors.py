"""The constructors that `genai_prices/data.py` calls, which make plain rows here in place of the library's objects.

Each signature lists what the library of the series knows: a new name or argument raises, and the library itself is used
instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

__all__ = (
    "ArrayMatch",
    "ClauseAnd",
    "ClauseContains",
    "ClauseEndsWith",
    "ClauseEquals",
    "ClauseOr",
    "ClauseRegex",
    "ClauseStartsWith",
    "ConditionalPrice",
    "ModelInfo",
    "ModelPrice",
    "PriceVariant",
    "Provider",
    "StartDateConstraint",
    "Tier",
    "TieredPrices",
    "TimeOfDateConstraint",
    "UsageExtractor",
    "UsageExtractorMapping",
)

Row = list[Any]


def Provider(  # noqa: N802
    *,
    id: str,
    name: str,
    api_pattern: str,
    pricing_urls: Sequence[str] | None = None,
    description: str | None = None,
    price_comments: str | None = None,
    model_match: Row | None = None,
    provider_match: Row | None = None,
    extractors: Sequence[object] | None = None,
    fallback_model_providers: Sequence[str] | None = None,
    models: Sequence[Row] = (),
) -> Row:
    """A provider: what finds it, the providers whose models it offers too, and its own models."""
    return [id, model_match, provider_match, list(fallback_model_providers or ()), list(models)]


def ModelInfo(  # noqa: N802
    *,
    id: str,
    match: Row,
    name: str | None = None,
    description: str | None = None,
    context_window: int | None = None,
    price_comments: str | None = None,
    deprecated: bool | None = None,
    prices: Sequence[Row] | Mapping[str, Any] = (),
    price_variants: Sequence[Row] | None = None,
) -> Row:
    """A model: what finds it, its prices with their constraints, and its prices under conditions."""
    dated = [[None, prices]] if isinstance(prices, Mapping) else list(prices)
    return [id, match, dated, list(price_variants or ())]


def ModelPrice(**prices: Decimal | Row | None) -> dict[str, Any]:  # noqa: N802
    """The rates of one price, by the library's keys."""
    return {key: rate if isinstance(rate, list) else _number(rate) for key, rate in prices.items() if rate is not None}


def TieredPrices(*, base: Decimal, tiers: Sequence[Row]) -> Row:  # noqa: N802
    """A rate that depends on the size of the prompt, the smallest size first."""
    return [_number(base), sorted(tiers, key=lambda tier: tier[0])]


def Tier(*, start: int, price: Decimal) -> Row:  # noqa: N802
    """The size of the prompt above which a rate applies, and the rate."""
    return [start, _number(price)]


def _number(value: Decimal) -> str:
    if not value.is_finite() or value < 0:
        raise ValueError(f"{value} is no price")
    return str(value)


def ConditionalPrice(constraint: Any = None, *, prices: Mapping[str, Any]) -> Row:  # noqa: N802
    """A price that applies under a constraint."""
    return [constraint, prices]


def PriceVariant(*, when: Mapping[str, str], prices: Mapping[str, Any], constraint: Any = None) -> Row:  # noqa: N802
    """The rates of a price that differ under conditions."""
    return [dict(when), constraint, prices]


def StartDateConstraint(*, start_date: date) -> str:  # noqa: N802
    """The first day of a price, in UTC."""
    return start_date.isoformat()


def TimeOfDateConstraint(*, start_time: time, end_time: time) -> Row:  # noqa: N802
    """The hours of a price, in UTC."""
    return [_utc(start_time), _utc(end_time)]


def _utc(value: time) -> str:
    if value.tzinfo is not None:
        value = datetime.combine(date(1970, 1, 1), value).astimezone(UTC).time()
    return value.isoformat()


def ClauseStartsWith(*, starts_with: str) -> Row:  # noqa: N802
    """Matches a name by its beginning."""
    return ["starts_with", starts_with.lower()]


def ClauseEndsWith(*, ends_with: str) -> Row:  # noqa: N802
    """Matches a name by its end."""
    return ["ends_with", ends_with.lower()]


def ClauseContains(*, contains: str) -> Row:  # noqa: N802
    """Matches a name that contains a string."""
    return ["contains", contains.lower()]


def ClauseEquals(*, equals: str) -> Row:  # noqa: N802
    """Matches one name."""
    return ["equals", equals.lower()]


def ClauseRegex(*, regex: str) -> Row:  # noqa: N802
    """Matches a name by a regular expression."""
    return ["regex", regex]


def ClauseOr(*, or_: Sequence[Row]) -> Row:  # noqa: N802
    """Matches if any clause does."""
    return ["or", list(or_)]


def ClauseAnd(*, and_: Sequence[Row]) -> Row:  # noqa: N802
    """Matches if all clauses do."""
    return ["and", list(and_)]


def UsageExtractor(**_: object) -> None:  # noqa: N802
    """How the library reads replies, which is not needed here."""


UsageExtractorMapping = ArrayMatch = UsageExtractor
