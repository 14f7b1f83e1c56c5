"""What a budget limits, what a call is expected to use, and what was spent: the data of `flows.budget`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ...errors import BudgetKind, ConfigError

OnUnknownPrice = Literal["refuse", "zero"]
"""What becomes of a call whose price is unknown, under a limit in USD."""

THRESHOLDS = (0.5, 0.8, 1.0)
"""The fractions of a limit that are told."""

_BELOW = 2**53
"""Limits are below: from here on a float skips whole numbers, and an attribute soon overflows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLimits:
    """Limits of all calls below together; `None` for no limit.

    Raises:
        ConfigError: a limit is no number of zero or more, or the policy is unknown.
    """

    max_cost_usd: float | None = None
    """USD."""
    max_tokens: int | None = None
    """Input and output tokens."""
    max_llm_calls: int | None = None
    """Model calls, however they end."""
    on_unknown_price: OnUnknownPrice = "refuse"
    """Under `max_cost_usd`, a call of unknown price is refused, or counts as zero and is warned of."""

    def __post_init__(self) -> None:
        _check_number("max_cost_usd", self.max_cost_usd, (int, float), "number")
        _check_number("max_tokens", self.max_tokens, (int,), "whole number")
        _check_number("max_llm_calls", self.max_llm_calls, (int,), "whole number")
        if self.on_unknown_price not in get_args(OnUnknownPrice):
            raise ConfigError(f"on_unknown_price is {self.on_unknown_price!r}; it must be 'refuse' or 'zero'")

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self.max_cost_usd is None and self.max_tokens is None and self.max_llm_calls is None


def _check_number(field: str, value: float | None, kinds: tuple[type, ...], allowed: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < _BELOW:
        raise ConfigError(f"{field} is {value!r}; it must be a {allowed} of zero or more, and below 2**53")


@dataclass(frozen=True, slots=True)
class BudgetThreshold:
    """A limit came near, or was reached."""

    budget: str
    """The budget's name."""
    kind: BudgetKind
    """What is limited."""
    limit: float
    """The limit, in USD, tokens or calls."""
    spent: float
    """What was spent of it by then."""
    fraction: float
    """The threshold that was reached: 0.5, 0.8 or 1.0."""


@dataclass(frozen=True, slots=True)
class ModelSpending:
    """What was spent on one model."""

    model: str
    """`provider/model`."""
    cost_usd: float
    """USD."""
    tokens: int
    """Input and output tokens."""
    llm_calls: int
    """Calls that ended."""


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """What was spent so far by the attempts that have ended."""

    cost_usd: float
    """USD; of an attempt whose usage stayed unknown, what was held for it."""
    tokens: int
    """Input and output tokens, likewise."""
    llm_calls: int
    """Calls that ended."""
    presumed_cost_usd: float
    """The part of `cost_usd` that is presumed and not reported."""
    presumed_tokens: int
    """The part of `tokens`, likewise."""
    unpriced_attempts: int
    """The attempts whose cost stayed unknown, so that `cost_usd` lacks it."""
    by_model: tuple[ModelSpending, ...]
    """The same for each model, the dearest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a call is expected to use, before it is sent."""

    model: str
    """`provider/model`."""
    tokens: int = 0
    """Input tokens, and as many output tokens as the request allows."""
    cost_usd: float | None = None
    """USD for these; `None` when the price is unknown."""
    reports_cost: bool = False
    """Whether the client says that replies name what they cost: then nothing need be known before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What an attempt used."""

    cost_usd: float | None
    """USD; `None` when it stayed unknown."""
    tokens: int
    """Input and output tokens."""
    cost_is_presumed: bool = False
    """Whether the cost is what was held, or follows from tokens that were counted here."""
    tokens_are_presumed: bool = False
    """Whether the tokens are what was held, or were counted here."""
    unpriced_attempts: int = 0
    """1 where the cost stayed unknown."""

    def negated(self) -> Use:
        """The same, to be taken back."""
        cost_usd = None if self.cost_usd is None else -self.cost_usd
        return replace(self, cost_usd=cost_usd, tokens=-self.tokens, unpriced_attempts=-self.unpriced_attempts)


def slack(kind: BudgetKind, limit: float) -> float:
    """Sums of floats come out a little less than a limit that they reach, or a little more."""
    return limit * 1e-9 if kind == "cost_usd" else 0
