"""The price table of `genai-prices` itself, for programs that have imported the library.

Such a program may have started the library's updater or set a snapshot of its own, whose prices are used as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from ..usage import LLMUsage
from .rates import Cost, Rate, Rates
from .table_usage import USAGE_KEY_OF_FIELD, field_of_unit, table_usage

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider, TieredPrices


class LibraryTable:
    """A snapshot of the library's data."""

    def __init__(self, snapshot: DataSnapshot) -> None:
        import genai_prices
        from genai_prices.data_units import unit_data

        fetched = snapshot.timestamp.date().isoformat() if snapshot.from_auto_update else None
        self.version: str = fetched or genai_prices.__version__
        """The version of `genai-prices`, or the date on which its updater fetched the data."""
        fields = {unit["price_key"]: field_of_unit(name) for name, unit in unit_data.items()}
        self._field_of = {key: field for key, field in fields.items() if field is not None}
        self._snapshot = snapshot

    def find(self, provider: str | None, model: str) -> LibraryModel | None:
        """The model with that name at a provider; `provider=None` lets the name decide the provider."""
        try:
            return LibraryModel(self._field_of, *self._snapshot.find_provider_model(model, None, provider, None))
        except LookupError:
            return None


class LibraryModel:
    """A model of the library, found for a provider, and its prices."""

    def __init__(self, field_of: Mapping[str, str], provider: Provider, model: ModelInfo) -> None:
        self.id = model.id
        """Its id in the table."""
        self._field_of, self._provider, self._model = field_of, provider, model
        self._rates: dict[int, tuple[ModelPrice, Rates]] = {}
        # A model of another provider has no prices under conditions, which differ from one provider to the other.
        is_its_own = any(model is own for own in provider.models)
        self._variants = tuple(model.price_variants or ()) if is_its_own else ()
        self.is_priced = bool(model.prices)
        """Whether it has a price, which may be without rates."""
        with_rates = (each for each in self._variants if any(rate is not None for rate in vars(each.prices).values()))
        self.conditions = frozenset(item for variant in with_rates for item in variant.when.items())
        """The conditions that may change its price."""

    def rates(self, at: datetime, conditions: Mapping[str, str]) -> Rates:
        """The rates in force at a time, under the conditions of a call."""
        price = self._model.get_prices(at, conditions)
        if conditions:
            return self._rates_of(price)  # made for this call
        held = self._rates.get(id(price))
        if held is None:
            held = self._rates[id(price)] = (price, self._rates_of(price))
        return held[1]

    def _rates_of(self, price: ModelPrice) -> Rates:
        get, keys = vars(price).get, (*self._field_of, "requests_kcount")
        rates = {key: _rate(rate) for key in keys if (rate := get(key)) is not None}
        return Rates.of_table(rates, self._field_of)

    def listed(self, at: datetime, conditions: Mapping[str, str]) -> set[tuple[str, str]]:
        """The conditions for which it has a price at that time, and that the call has."""
        listed = set[tuple[str, str]]()
        for variant in self._variants:
            is_active = variant.constraint is None or variant.constraint.active(at)
            if is_active and all(conditions.get(key) == value for key, value in variant.when.items()):
                listed.update(variant.when.items())
        return listed

    def cost_by_unit(
        self, usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
    ) -> tuple[Cost, tuple[str, ...]]:
        """The cost of usage in any unit, and the fields whose counts had to be assumed."""
        from genai_prices import Usage

        counts, assumed = table_usage(usage, self.rates(at, conditions).priced)
        counted = Usage(**{USAGE_KEY_OF_FIELD.get(name, name): count for name, count in counts.items()})
        theirs = self._model.calc_price(
            counted, self._provider, genai_request_timestamp=at, price_context=conditions or None
        )
        total, for_input, for_output = theirs.total_price, theirs.input_price, theirs.output_price
        return Cost(float(total), float(for_input), float(for_output), float(total - for_input - for_output)), assumed


def _rate(price: Decimal | TieredPrices) -> Rate:
    if isinstance(price, Decimal):
        return Rate.of(price)
    return Rate.of(price.base, ((tier.start, tier.price) for tier in price.tiers))
