"""The user's own prices: from a TOML file or from rows, each in force from a day on; and the cost of a call by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from ....errors import ConfigError
from ..usage import LLMUsage
from .price_table import special
from .rates import Cost, Rate, Rates, parts
from .table_usage import unpriced_parts, used_parts

_FEES = ("web_searches", "requests")
"""The fields of a price that are USD per thousand."""
_NO_RATES = ("model", "provider", "effective_from")
"""The fields of a price that are no money."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """The user's own price of one model: USD per million tokens, and per thousand searches or requests."""

    model: str
    """The model's exact name."""
    input: Decimal
    """USD per million input tokens."""
    output: Decimal
    """USD per million output tokens."""
    provider: str | None = None
    """The provider's name; `None` for this model at any provider."""
    cache_read: Decimal | None = None
    """USD per million input tokens read from a cache; `None` for the same as `input`."""
    cache_write: Decimal | None = None
    """USD per million input tokens written to a cache; `None` for the same as `input`."""
    cache_write_1h: Decimal | None = None
    """USD per million input tokens written to a cache for one hour; `None` for the same as `cache_write`."""
    input_audio: Decimal | None = None
    """USD per million input tokens of audio that was not read from a cache; `None` for the same as `input`."""
    output_audio: Decimal | None = None
    """USD per million output tokens of audio; `None` for the same as `output`."""
    input_image: Decimal | None = None
    """USD per million input tokens of images that were not read from a cache; `None` for the same as `input`."""
    output_image: Decimal | None = None
    """USD per million output tokens of images; `None` for the same as `output`."""
    web_searches: Decimal | None = None
    """USD per thousand searches of the web; `None` to leave them out, which `cost_partial` says."""
    requests: Decimal | None = None
    """USD per thousand requests; `None` for no fee."""
    effective_from: date | None = None
    """The first day (UTC) of the price; `None` for any day."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Price:
        """A price from a table row.

        Raises:
            ConfigError: a field is missing, unknown or invalid; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise ConfigError(f"price: unknown field {unknown[0]!r}; allowed are {', '.join(sorted(known))}")
        model = values.get("model")
        if not isinstance(model, str) or not model:
            raise ConfigError(f"price: 'model' is {model!r}; it must be the model's name")
        given = {name: values[name] for name in known if name not in _NO_RATES and values.get(name) is not None}
        rates = {name: _rate(model, name, value) for name, value in given.items()}
        if "input" not in rates or "output" not in rates:
            raise ConfigError(f"price of {model!r}: 'input' and 'output' are both needed (USD per million tokens)")
        provider, day = _provider(model, values.get("provider")), _day(model, values.get("effective_from"))
        return cls(model=model, provider=provider, effective_from=day, **rates)


def _rate(model: str, name: str, value: object) -> Decimal:
    unit = "thousand" if name in _FEES else "million tokens"
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ConfigError(f"price of {model!r}: {name!r} is {value!r}; it must be a number, USD per {unit}")
    rate = Decimal(str(value))
    if not rate.is_finite() or rate < 0:
        raise ConfigError(f"price of {model!r}: {name!r} is {value!r}; it must be zero or more")
    return rate


def _provider(model: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"price of {model!r}: 'provider' is {value!r}; it must be a provider's name or absent")
    return value.strip().lower()


def _day(model: str, value: object) -> date | None:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            raise ConfigError(f"price of {model!r}: 'effective_from' is {value!r}; write 2026-11-22") from None
    if isinstance(value, datetime):
        return value.astimezone(UTC).date() if value.tzinfo else value.date()
    if value is None or isinstance(value, date):
        return value
    raise ConfigError(f"price of {model!r}: 'effective_from' is {value!r}; it must be a date")


PriceSource = str | Path | Iterable[Price | Mapping[str, Any]]
"""The path of a TOML file with `[[price]]` tables, or the prices themselves."""


def load_prices(source: PriceSource) -> tuple[Price, ...]:
    """Read prices from a TOML file or from rows.

    Raises:
        ConfigError: the file cannot be read or a row is wrong.
    """
    rows = _rows_of_file(Path(source)) if isinstance(source, str | Path) else _rows(source)
    return tuple(_price_of_row(row) for row in rows)


def _rows(source: object) -> Iterable[object]:
    kind = type(source).__name__
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise ConfigError(f"prices is {kind}; it must be the path of a TOML file, or a list of rows")
    return cast("Iterable[object]", source)


def _price_of_row(row: object) -> Price:
    if isinstance(row, Price):
        row = asdict(row)  # its fields were not checked, and may be floats
    if not isinstance(row, Mapping):
        raise ConfigError(f"price: {row!r} is not a table of fields")
    return Price.from_mapping(cast("Mapping[str, Any]", row))


def _rows_of_file(path: Path) -> list[object]:
    import tomllib

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"prices: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"prices: {path} is not TOML: {error}") from error
    rows = document.get("price")
    if not isinstance(rows, list):
        raise ConfigError(f"prices: {path} has no [[price]] table; add one for each price")
    return cast("list[object]", rows)


class OwnPrices:
    """The user's own prices, by model."""

    def __init__(self, prices: Iterable[Price] = ()) -> None:
        self._by_model: dict[str, list[Price]] = {}
        for price in prices:
            self._by_model.setdefault(price.model, []).append(price)
        for candidates in self._by_model.values():
            # A provider's own price before one for any provider, the newest first.
            candidates.sort(key=lambda price: (price.provider is not None, _first_day(price)), reverse=True)

    def __bool__(self) -> bool:
        return bool(self._by_model)

    def __iter__(self) -> Iterator[Price]:
        return (price for candidates in self._by_model.values() for price in candidates)

    def find(self, provider: str, model: str, day: date) -> Price | None:
        """The price in force on `day`; one for this provider comes before one for any."""
        for price in self._by_model.get(model, ()):
            is_for_provider = price.provider is None or price.provider.strip().lower() == provider
            if is_for_provider and _first_day(price) <= day:
                return price
        return None


def _first_day(price: Price) -> date:
    return price.effective_from or date.min


def rates_of(price: Price) -> Rates:
    """The rates of the user's own price."""
    audio, image = _usd(price.input_audio), _usd(price.input_image)
    is_cache_priced = price.cache_read is not None
    input_parts = parts(
        ("cache_read_tokens", _usd(price.cache_read), None),
        ("cache_write_1h_tokens", _usd(price.cache_write_1h), None),
        (
            "cache_write_tokens",
            _usd(price.cache_write),
            None if price.cache_write_1h is None else "cache_write_1h_tokens",
        ),
        ("input_audio_tokens", audio, "cache_audio_read_tokens" if is_cache_priced else None),
        ("input_image_tokens", image, "cache_image_read_tokens" if is_cache_priced else None),
    )
    output_parts = parts(
        ("output_audio_tokens", _usd(price.output_audio), None), ("output_image_tokens", _usd(price.output_image), None)
    )
    fees = parts(("web_searches", _usd(price.web_searches), None))
    return Rates(
        input=Rate.of(price.input),
        output=Rate.of(price.output),
        input_parts=input_parts,
        output_parts=output_parts,
        request=_usd(price.requests),
        fees=fees,
        priced=frozenset(
            name
            for part in (*input_parts, *output_parts, *fees)
            for name in (part.field, part.without)
            if name is not None
        ),
    )


def _usd(price: Decimal | None) -> Rate | None:
    return None if price is None else Rate.of(price)


def own_cost(price: Price, usage: LLMUsage, conditions: Mapping[str, str]) -> Cost | None:
    """The cost by the user's own price, which has no conditions; `None` if input or output tokens are unknown."""
    rates = rates_of(price)
    units = None if rates.lacks_half(usage) else rates.units(usage)
    if units is None:
        return None
    asked = tuple(f"{key}={value}" for key, value in special(conditions).items())
    partial = (*unpriced_parts(used_parts(usage), rates.priced), *_assumed_overlaps(rates, usage), *asked)
    return rates.cost(usage, units, partial, "override", "override")


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
