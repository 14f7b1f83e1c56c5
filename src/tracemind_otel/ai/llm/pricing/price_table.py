"""Which price table is in force, which models were found in it, and what a call of one costs.

The table is the compact one, unless the program itself has imported `genai-prices`: then it is what the library has,
which its updater may have fetched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ...._base.fork import hold_over_fork
from ..usage import LLMUsage
from .rates import Cost, Rates
from .table_usage import is_charged_otherwise, unpriced_parts, used_parts

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

    from .tables import Model, Table

# Held by a thread that forks: a child that inherits the lock of a half-done import could never load the table.
_loading = threading.RLock()
hold_over_fork(_loading, timeout_s=5.0)

_SNAPSHOTS = "genai_prices.data_snapshot"
"""The library's module that a program has imported if it has imported any of the library."""
_MAX_MATCHED_MODELS = 1024
_TABLE_NAMES = {
    "azure_openai": "azure",
    "azure_openai_responses": "azure",
    "gemini": "google",
    "openai_responses": "openai",
    "xai": "x-ai",
}
"""Provider names that `genai-prices` spells differently."""
NOBODYS = "openai_compatible"
"""The provider name of an unknown server. `genai-prices` would match it to OpenAI because of its prefix."""
NO_CONDITIONS: Mapping[str, str] = MappingProxyType({})
_STANDARD = frozenset(
    {"", "auto", "default", "global", "none", "normal", "not_available", "on_demand", "realtime", "standard"}
)
"""Values of a condition that mean the normal price."""


def special(conditions: Mapping[str, str]) -> dict[str, str]:
    """The conditions that mean another price than the normal one."""
    if _STANDARD.issuperset(conditions.values()):
        return {}  # nearly every call
    return {key: value for key, value in conditions.items() if value.lower() not in _STANDARD}


class _Loaded(NamedTuple):
    """A table, and what was found in it."""

    table: Table
    """The table."""
    models: dict[tuple[str | None, str], Model | None]
    """The models that were searched, by provider and name."""
    snapshot: DataSnapshot | None = None
    """The library's data in it; `None` for the compact table."""


class PriceTable:
    """The table in force behind two questions: is a model matched, and what does a call of it cost."""

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None
        self._get_snapshot: Callable[[], DataSnapshot] | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether a table is there, so that a search takes a few milliseconds at most.

        It is not from the moment the program imports the library until the library's data is there too.
        """
        return self._loaded is not None and (self._get_snapshot is not None or _SNAPSHOTS not in sys.modules)

    def is_matched(self, provider: str, model: str) -> bool:
        """Whether the model was searched before, so that no slow search is needed."""
        loaded = self._loaded
        return loaded is not None and (provider, model) in loaded.models

    def unmatched(self, provider: str, models: Iterable[str]) -> list[str]:
        """The models not yet searched for in the table in force; never waits for the table."""
        loaded = self._current()
        return [model for model in models if loaded is None or (provider, model) not in loaded.models]

    def _current(self) -> _Loaded | None:
        """The table that is loaded, if it is in force. Asks the library only once a search has waited for its data."""
        loaded = self._loaded
        if self._get_snapshot is None:
            return None if _SNAPSHOTS in sys.modules else loaded
        return loaded if loaded is not None and self._get_snapshot() is loaded.snapshot else None

    def match(self, provider: str | None, model: str) -> Model | None:
        """Find a model. The first call loads the table: keep it off the event loop."""
        return self._searched(self._current() or self._load(), provider, model)

    def _searched(self, loaded: _Loaded, provider: str | None, model: str) -> Model | None:
        models, key = loaded.models, (provider, model)
        if key not in models:
            if len(models) >= _MAX_MATCHED_MODELS:
                models.clear()
            name = None if provider is None else _TABLE_NAMES.get(provider, provider)
            models[key] = None if provider == NOBODYS else loaded.table.find(name, model)
        return models[key]

    def _load(self) -> _Loaded:
        with _loading:
            loaded = self._current()
            if loaded is None:
                loaded = self._loaded = self._of_data() or self._of_library()
            return loaded

    def _of_data(self) -> _Loaded | None:
        if _SNAPSHOTS in sys.modules:
            return None
        # What reads it is imported here, because a program imports this module on its event loop.
        from .table_file import compact_table

        table = compact_table()
        return None if table is None else _Loaded(table, {})

    def _of_library(self) -> _Loaded:
        from genai_prices import data_snapshot

        from .library_table import LibraryTable

        # The first snapshot imports the data. Until it is there the event loop, which asks too, must not wait for it.
        snapshot = data_snapshot.get_snapshot()
        self._get_snapshot = data_snapshot.get_snapshot
        return _Loaded(LibraryTable(snapshot), {}, snapshot)

    def _found(self, provider: str | None, model: str) -> tuple[Model | None, str]:
        """A model with the version of its table; one that was found before is not searched again."""
        loaded = self._loaded
        if loaded is None or (provider, model) not in loaded.models:
            loaded = self._current() or self._load()
        return self._searched(loaded, provider, model), loaded.table.version

    def cost(
        self, provider: str, model: str, usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
    ) -> Cost | None:
        """The cost of a call, or `None` when the table lacks the model or a needed rate.

        Date, time of day, conditions and prompt size select the price of each call.
        """
        found, version = self._found(provider, model)
        if found is None or not found.is_priced:
            return None
        held = NO_CONDITIONS if not conditions or found.conditions.isdisjoint(conditions.items()) else conditions
        rates = found.rates(at, held)
        if rates.is_empty or rates.lacks_half(usage):
            return None
        used, units = used_parts(usage), rates.units(usage)
        partial = unpriced_parts(used, rates.priced)
        unheld = _unlisted(found, conditions, at) if conditions else ()
        if rates.beyond.isdisjoint(used):
            return None if units is None else rates.cost(usage, units, partial + unheld, version)
        if units is None and not is_charged_otherwise(used, rates.priced):
            return None
        cost, assumed = found.cost_by_unit(usage, at, held)
        return cost._replace(cost_partial=partial + assumed + unheld, cost_table=version)

    def is_free(self, provider: str, model: str, at: datetime) -> bool:
        """Whether the model costs nothing in the table; OpenRouter's `:free` models have a name there but no rates."""
        found, _ = self._found(provider, model)
        if found is None or not found.is_priced:
            return False
        rates = found.rates(at, NO_CONDITIONS)
        return found.id.endswith(":free") if rates.is_empty else rates.is_zero

    def rates(self, provider: str | None, model: str, at: datetime) -> Rates | None:
        """The rates of a model without conditions; `provider=None` lets its name decide the provider."""
        found = self.match(provider, model)
        return None if found is None or not found.is_priced else found.rates(at, NO_CONDITIONS)


def _unlisted(found: Model, conditions: Mapping[str, str], at: datetime) -> tuple[str, ...]:
    """The conditions that mean another price, but that the table does not list, as `key=value`."""
    asked = special(conditions)
    if not asked:
        return ()
    listed = found.listed(at, conditions)
    return tuple(f"{k}={v}" for k, v in asked.items() if (k, v) not in listed)
