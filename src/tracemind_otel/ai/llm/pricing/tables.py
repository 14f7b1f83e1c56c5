"""What a price table answers, whether it is the compact one or the library's. Only type checkers import this."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from ..usage import LLMUsage
from .rates import Cost, Rates


class Model(Protocol):
    """A model that was found in a table."""

    @property
    def id(self) -> str:
        """Its id in the table."""
        ...

    @property
    def is_priced(self) -> bool:
        """Whether it has a price, which may be without rates."""
        ...

    @property
    def conditions(self) -> frozenset[tuple[str, str]]:
        """The conditions that may change its price."""
        ...

    def rates(self, at: datetime, conditions: Mapping[str, str]) -> Rates:
        """The rates in force at a time, under the conditions of a call."""
        ...

    def listed(self, at: datetime, conditions: Mapping[str, str]) -> set[tuple[str, str]]:
        """The conditions for which it has a price at that time, and that the call has."""
        ...

    def cost_by_unit(
        self, usage: LLMUsage, at: datetime, conditions: Mapping[str, str]
    ) -> tuple[Cost, tuple[str, ...]]:
        """The cost of usage in any unit, and the fields whose counts had to be assumed."""
        ...


class Table(Protocol):
    """The prices of every model."""

    @property
    def version(self) -> str:
        """The version of `genai-prices`, or the date on which its updater fetched the data."""
        ...

    def find(self, provider: str | None, model: str) -> Model | None:
        """The model with that name at a provider; `provider=None` lets the name decide the provider."""
        ...
