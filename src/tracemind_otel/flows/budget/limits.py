"""The limits of a budget, their checks, and how an amount of one is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from ...errors import BudgetKind, ConfigError
from .spending import Estimate

N = TypeVar("N", int, float)

OnUnknownPrice = Literal["refuse", "zero"]
"""How a budget with a limit in USD treats a call whose price is unknown."""

_BELOW = 2**53
"""The bound of every limit: from here on a float skips whole numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLimits:
    """Limits of all calls below together; `None` for no limit.

    Raises:
        ConfigError: a limit is not a number of zero or more, or the policy is unknown.
    """

    max_cost_usd: float | None = None
    """USD."""
    max_tokens: int | None = None
    """Input and output tokens."""
    max_llm_calls: int | None = None
    """Model calls, however they end."""
    on_unknown_price: OnUnknownPrice = "refuse"
    """Whether `max_cost_usd` denies a call of unknown price, or counts it as zero and warns."""
    reserve_cost_usd: float | None = None
    """USD that a call reserves at least where its request does not limit its output."""
    reserve_tokens: int | None = None
    """Tokens that such a call reserves at least."""
    by_kind: Mapping[BudgetKind, float] = field(init=False, repr=False, compare=False)
    """The limits that are set."""

    def __post_init__(self) -> None:
        _check_number("max_cost_usd", self.max_cost_usd, (int, float), "number")
        _check_number("max_tokens", self.max_tokens, (int,), "whole number")
        _check_number("max_llm_calls", self.max_llm_calls, (int,), "whole number")
        _check_reserve("cost_usd", self.reserve_cost_usd, self.max_cost_usd, (int, float), "number")
        _check_reserve("tokens", self.reserve_tokens, self.max_tokens, (int,), "whole number")
        if self.on_unknown_price not in get_args(OnUnknownPrice):
            raise ConfigError(f"on_unknown_price is {self.on_unknown_price!r}; it must be 'refuse' or 'zero'")
        limits = {kind: getattr(self, f"max_{kind}") for kind in get_args(BudgetKind)}
        set_ones = {kind: limit for kind, limit in limits.items() if limit is not None}
        object.__setattr__(self, "by_kind", set_ones)  # every call under a budget reads it

    @property
    def needs_known_prices(self) -> bool:
        """Whether a call of unknown price is denied."""
        return self.max_cost_usd is not None and self.on_unknown_price == "refuse"

    def reserved(self, estimate: Estimate) -> Estimate:
        """What is held for a call: the estimate, and at least the declared reserve where its output has no limit."""
        if self.reserve_cost_usd is None and self.reserve_tokens is None:
            return estimate
        return estimate.at_least(self.reserve_cost_usd, self.reserve_tokens)


def _check_number(field: str, value: float | None, kinds: tuple[type, ...], allowed: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < _BELOW:
        raise ConfigError(f"{field} is {value!r}; it must be a {allowed} of zero or more, and below 2**53")


def strictest(one: BudgetLimits, other: BudgetLimits) -> BudgetLimits:
    """Of each kind the lower limit of two."""
    return BudgetLimits(
        max_cost_usd=_lower(one.max_cost_usd, other.max_cost_usd),
        max_tokens=_lower(one.max_tokens, other.max_tokens),
        max_llm_calls=_lower(one.max_llm_calls, other.max_llm_calls),
    )


def _lower(one: N | None, other: N | None) -> N | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _check_reserve(of: str, reserve: float | None, limit: float | None, kinds: tuple[type, ...], allowed: str) -> None:
    field = f"reserve_{of}"
    _check_number(field, reserve, kinds, allowed)
    if reserve is None:
        return
    if limit is None:
        raise ConfigError(f"{field} is a part of max_{of}, which is not set; pass max_{of} too")
    if reserve > limit:
        raise ConfigError(f"{field} is {reserve!r}, more than max_{of}={limit!r}, so no call would be sent; lower it")


def slack(kind: BudgetKind, limit: float) -> float:
    """The tolerance of a comparison: a sum of floats may miss a limit that it reaches by a little."""
    return limit * 1e-9 if kind == "cost_usd" else 0


def amount(kind: BudgetKind, value: float) -> str:
    """An amount for a person: rounded, with its unit."""
    if kind == "cost_usd":
        return f"{number(kind, value)} USD"
    unit = "token" if kind == "tokens" else "call"
    return f"{number(kind, value)} {unit if value == 1 else unit + 's'}"


def number(kind: BudgetKind, value: float) -> str:
    """An amount for a person, without its unit."""
    if kind != "cost_usd":
        return str(int(value))
    if 0 < value < 1e-6:
        return f"{value:.2g}"
    whole, _, cents = f"{value:.6f}".rstrip("0").partition(".")
    return f"{whole}.{cents:0<2}"
