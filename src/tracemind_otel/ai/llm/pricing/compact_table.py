"""The price table as lines of JSON, of which only the providers that are asked for are parsed.

It finds the same provider and model for a name as `genai-prices` does, and selects the same prices.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from ..usage import LLMUsage
from .rates import Cost, Rate, Rates
from .table_usage import field_of_unit, table_usage
from .unit_sums import PricedUnit, Unit, cost_of_units, priced_units

_COMPACT_DATE = re.compile(r"(-)(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")
"""A date as LiteLLM and OpenRouter write it in a model's name. The table has it with hyphens."""
_LITELLM = "litellm"
"""The name of a provider that stands before others: `litellm` with the model `openai/gpt-4o`."""


class CompactTable:
    """The models of every provider, by the names that a call has for them."""

    def __init__(self, lines: Sequence[str | bytes]) -> None:
        """Read the header of the table; the other lines have the models of one provider each."""
        header: dict[str, Any] = json.loads(lines[0])
        self.version: str = header["version"]
        """The version of `genai-prices` whose data this is."""
        self._lines = lines[1:]
        self._providers = [_Provider(*row) for row in header["providers"]]
        self._models: dict[int, list[list[Any]]] = {}
        self._units: dict[str, Unit] = {
            key: Unit(field_of_unit(name), per, dimensions) for key, (name, per, dimensions) in header["units"].items()
        }

    def find(self, provider: str | None, model: str) -> CompactModel | None:
        """The model with that name at a provider; `provider=None` lets the name decide the provider."""
        name, index = model.lower(), None
        if provider is not None:
            is_litellm = provider.lower() == _LITELLM
            prefix, slash, rest = name.partition("/")
            if is_litellm and slash and prefix and self._provider_named(prefix) is not None:
                provider, name, is_litellm = prefix, rest, False
            index = self._provider_named(provider)
            if index is None and not is_litellm:
                return None
        if index is None:
            index = self._provider_of_model(name)
        return None if index is None else self._model_of(index, name)

    def _provider_named(self, name: str) -> int | None:
        name = name.lower().strip()
        for index, provider in enumerate(self._providers):
            if provider.id == name:
                return index
        return next((i for i, provider in enumerate(self._providers) if _matches(provider.named, name)), None)

    def _provider_of_model(self, name: str) -> int | None:
        if not name:
            return None
        return next((i for i, provider in enumerate(self._providers) if _matches(provider.offers, name)), None)

    def _model_of(self, index: int, name: str) -> CompactModel | None:
        found = self._own_or_offered(index, name)
        if found is None:
            dashed = _COMPACT_DATE.sub(_dashed, name)
            found = None if dashed == name else self._own_or_offered(index, dashed)
        return found

    def _own_or_offered(self, index: int, name: str) -> CompactModel | None:
        """A provider's own model, else one of another provider that it offers too."""
        asked = self._providers[index]
        for id_, match, dated, variants in self._models_of(index):
            if _matches(match, name):
                return CompactModel(self._units, asked.id, id_, dated, variants)
        for other in asked.fallbacks:
            position = next((i for i, provider in enumerate(self._providers) if provider.id == other), None)
            for id_, match, dated, _ in () if position is None else self._models_of(position):
                if _matches(match, name):
                    return CompactModel(self._units, asked.id, id_, dated, ())  # the other's conditions do not hold
        return None

    def _models_of(self, index: int) -> list[list[Any]]:
        if index not in self._models:
            self._models[index] = json.loads(self._lines[index])
        return self._models[index]


class _Provider(NamedTuple):
    """A provider, with its fields in the order of the table's header."""

    id: str
    """Its id."""
    offers: list[Any] | None
    """The clause that matches the names of its models."""
    named: list[Any] | None
    """The clause that matches other names of the provider."""
    fallbacks: list[str]
    """The ids of the providers whose models it offers too."""


def _matches(clause: Sequence[Any] | None, name: str) -> bool:
    """Whether a clause of the table matches a name in lower case."""
    if clause is None:
        return False
    kind, value = clause
    match kind:
        case "equals":
            return bool(name == value)
        case "starts_with":
            return name.startswith(value)
        case "ends_with":
            return name.endswith(value)
        case "contains":
            return value in name
        case "regex":
            return re.search(value, name) is not None
        case "or":
            return any(_matches(each, name) for each in value)
        case "and":
            return all(_matches(each, name) for each in value)
        case _:
            raise ValueError(f"the price table has an unknown clause {kind!r}")


def _dashed(found: re.Match[str]) -> str:
    year, month, day = (int(found.group(index)) for index in (2, 3, 4))
    try:
        return f"-{date(year, month, day).isoformat()}"
    except ValueError:
        return found.group(0)


class CompactModel:
    """A model of the table, found for a provider, and its prices."""

    def __init__(
        self,
        units: Mapping[str, Unit],
        provider: str,
        id_: str,
        dated: Iterable[Sequence[Any]],
        variants: Iterable[Sequence[Any]],
    ) -> None:
        self.id: str = id_
        """Its id in the table."""
        self._provider = provider
        self._units = units
        self._dated = [_Dated(_Period.of(period), prices) for period, prices in dated]
        self._variants = [_Variant(when, _Period.of(period), prices) for when, period, prices in variants]
        self._selected: dict[tuple[int, ...], _Selected] = {}
        self.is_priced = bool(self._dated)
        """Whether it has a price, which may be without rates."""
        self.conditions = frozenset(
            item for variant in self._variants if variant.prices for item in variant.when.items()
        )
        """The conditions that may change its price."""

    def rates(self, at: datetime, conditions: Mapping[str, str]) -> Rates:
        """The rates in force at a time, under the conditions of a call."""
        return self._select(at, conditions).rates

    def listed(self, at: datetime, conditions: Mapping[str, str]) -> set[tuple[str, str]]:
        """The conditions for which it has a price at that time, and that the call has."""
        return {item for i in self._active(at, conditions) for item in self._variants[i].when.items()}

    def cost_by_unit(
        self, usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
    ) -> tuple[Cost, tuple[str, ...]]:
        """The cost of usage in any unit, and the fields whose counts had to be assumed."""
        selected = self._select(at, conditions)
        counts, assumed = table_usage(usage, selected.rates.priced)
        _bill_at_least(self._provider, self.id, counts)
        return cost_of_units(selected.units, counts), assumed

    def _select(self, at: datetime, conditions: Mapping[str, str]) -> _Selected:
        """The prices by date and conditions: few combinations, which are kept."""
        chosen = (self._standard(at), *self._active(at, conditions)) if conditions else (self._standard(at),)
        selected = self._selected.get(chosen)
        if selected is None:
            selected = self._selected[chosen] = self._made(*chosen)
        return selected

    def _standard(self, at: datetime) -> int:
        """The last price that is in force, else the first of all."""
        for index in range(len(self._dated) - 1, 0, -1):
            if self._dated[index].period.has(at):
                return index
        return 0

    def _active(self, at: datetime, conditions: Mapping[str, str]) -> tuple[int, ...]:
        return tuple(
            index
            for index, variant in enumerate(self._variants)
            if variant.period.has(at) and all(conditions.get(key) == value for key, value in variant.when.items())
        )

    def _made(self, standard: int, *active: int) -> _Selected:
        raw = dict(self._dated[standard].prices)
        for index in reversed(active):  # for each rate the first variant decides
            raw |= self._variants[index].prices
        prices = {key: Rate.parse(rate) for key, rate in raw.items()}
        field_of = {key: name for key in prices if (name := self._units[key].field) is not None}
        return _Selected(Rates.of_table(prices, field_of), priced_units(prices, self._units))


class _Selected(NamedTuple):
    """The prices that are in force for a call."""

    rates: Rates
    """The rates of the common units."""
    units: tuple[PricedUnit, ...]
    """The rates of all units."""


class _Period(NamedTuple):
    """When a price is in force."""

    first_day: date | None = None
    """Its first day, in UTC; `None` for any day."""
    hours: tuple[time, time] | None = None
    """Its first moment of the day and the moment that ends it, in UTC; `None` for the whole day."""

    @classmethod
    def of(cls, row: str | Sequence[str] | None) -> _Period:
        """The period of a row: a day, two times of day, or none."""
        if row is None:
            return cls()
        if isinstance(row, str):
            return cls(first_day=date.fromisoformat(row))
        start, end = map(time.fromisoformat, row)
        return cls(hours=(start, end))

    def has(self, at: datetime) -> bool:
        """Whether a time is in it; a time without a zone is in UTC."""
        if self.first_day is None and self.hours is None:
            return True
        utc = at.astimezone(UTC) if at.tzinfo is not None else at
        if self.hours is None:
            return self.first_day is None or utc.date() >= self.first_day
        (start, end), now = self.hours, utc.time()
        return now >= start or now < end if end < start else start <= now < end


class _Dated(NamedTuple):
    """A price with the time at which it is in force."""

    period: _Period
    """When it is in force."""
    prices: Mapping[str, Any]
    """Its rates, by the table's keys."""


class _Variant(NamedTuple):
    """The rates that differ under conditions."""

    when: Mapping[str, str]
    """The conditions, all of which a call must have."""
    period: _Period
    """When they are in force."""
    prices: Mapping[str, Any]
    """The rates that differ, by the table's keys."""


_LEAST_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}
"""The shortest audio that a provider bills. `genai-prices` has this in its code, not in its data."""


def _bill_at_least(provider: str, model: str, counts: dict[str, int | float]) -> None:
    least = _LEAST_SECONDS.get((provider, model))
    seconds = counts.get("audio_seconds") or counts.get("input_audio_seconds")
    if least is not None and seconds is not None:
        billed = max(seconds, least) if seconds > 0 else 0
        counts["audio_seconds"] = counts["input_audio_seconds"] = billed
