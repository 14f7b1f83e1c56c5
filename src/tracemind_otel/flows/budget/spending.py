"""The expected and the actual use of a call, and the sums of a budget."""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace

from ...ai.llm.usage import LLMUsage


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a call is expected to use, before it is sent."""

    model: str
    """`provider/model`."""
    tokens: int = 0
    """Input tokens, and as many output tokens as the request allows."""
    cost_usd: float | None = None
    """USD for these tokens; `None` when the price is unknown."""
    reports_cost: bool = False
    """Whether the client's replies name their cost, so that no price needs to be known before."""
    server: str | None = None
    """The host whose provider nobody has named, so that the price is unknown."""
    is_bounded: bool = False
    """Whether the request limits its output, so that the call uses no more than this."""

    def at_least(self, cost_usd: float | None, tokens: int | None) -> Estimate:
        """What a budget with a declared reserve holds.

        A call without a limit of output holds at least the reserve. So does one whose cost only its reply tells. A
        price that nobody will tell stays unknown.
        """
        holds_tokens = tokens is not None and not self.is_bounded
        is_told_later = self.cost_usd is None and self.reports_cost
        holds_cost = cost_usd is not None and (is_told_later or not (self.is_bounded or self.cost_usd is None))
        return replace(
            self,
            tokens=max(self.tokens, tokens or 0) if holds_tokens else self.tokens,
            cost_usd=max(self.cost_usd or 0.0, cost_usd or 0.0) if holds_cost else self.cost_usd,
        )

    def at_least_as(self, other: Estimate) -> Estimate:
        """Of each amount the larger of two."""
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        return replace(self, tokens=max(self.tokens, other.tokens), cost_usd=max(costs, default=None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What an attempt used."""

    cost_usd: float | None
    """USD; `None` when it stayed unknown."""
    tokens: int
    """Input and output tokens."""
    cost_is_presumed: bool = False
    """Whether the cost is the held one, or follows from tokens estimated by this library."""
    tokens_are_presumed: bool = False
    """Whether the tokens are the held ones, or estimated by this library."""

    @classmethod
    def presumed(cls, estimate: Estimate) -> Use:
        """An attempt whose usage stayed unknown, counted as what was held for it."""
        return cls(cost_usd=estimate.cost_usd, tokens=estimate.tokens, cost_is_presumed=True, tokens_are_presumed=True)

    @classmethod
    def of_call(cls, estimate: Estimate, usage: LLMUsage | None, *, assume_billed: bool) -> Use:
        """The usage of a call that has ended, presumed where it is unknown and may be billed."""
        if usage is None or not (usage.is_known or usage.cost_usd is not None):
            return cls.presumed(estimate) if assume_billed else cls(cost_usd=0.0, tokens=0)
        tokens = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
        return cls(
            cost_usd=estimate.cost_usd if usage.cost_usd is None else usage.cost_usd,
            # Where one half was not reported, at least what was held for both.
            tokens=tokens if usage.is_whole else max(tokens, estimate.tokens),
            cost_is_presumed=usage.cost_usd is None or (usage.estimated and usage.cost_source != "provider"),
            tokens_are_presumed=usage.estimated or not usage.is_whole,
        )


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
    """Calls that have ended."""


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """What was spent so far by the attempts that have ended."""

    cost_usd: float
    """USD, including what was held for attempts whose usage stayed unknown."""
    tokens: int
    """Input and output tokens, including what was held for attempts whose usage stayed unknown."""
    llm_calls: int
    """Calls that have ended."""
    presumed_cost_usd: float
    """The part of `cost_usd` that is presumed and not reported."""
    presumed_tokens: int
    """The part of `tokens` that is presumed and not reported."""
    unpriced_attempts: int
    """Attempts whose cost stayed unknown and is missing from `cost_usd`."""
    by_model: tuple[ModelSpending, ...]
    """The same for each model, the most expensive first."""


@dataclass(slots=True)
class Amounts:
    """A sum for each kind of limit."""

    cost_usd: float = 0.0
    tokens: int = 0
    llm_calls: int = 0

    def add(self, cost_usd: float, tokens: int, llm_calls: int) -> None:
        """Add to each sum."""
        self.cost_usd += cost_usd
        self.tokens += tokens
        self.llm_calls += llm_calls


class Spending:
    """The sums of one budget; its owner holds a lock while it uses them."""

    __slots__ = ("_by_model", "_presumed", "_unpriced_attempts", "held", "spent")

    def __init__(self) -> None:
        self.spent = Amounts()
        self.held = Amounts()
        self._presumed = Amounts()
        self._by_model: dict[str, Amounts] = {}
        self._unpriced_attempts = 0

    def hold(self, estimate: Estimate, llm_calls: int) -> None:
        """Set an estimate aside."""
        self.held.add(estimate.cost_usd or 0.0, estimate.tokens, llm_calls)

    def release(self, estimate: Estimate, llm_calls: int) -> None:
        """Take an estimate back."""
        self.held.add(-(estimate.cost_usd or 0.0), -estimate.tokens, -llm_calls)
        if not self.held.llm_calls:
            self.held.cost_usd = 0.0  # differences of floats leave a remainder

    def spend(self, model: str, use: Use, llm_calls: int) -> None:
        """Count what an attempt used."""
        cost_usd = use.cost_usd or 0.0
        self.spent.add(cost_usd, use.tokens, llm_calls)
        self._by_model.setdefault(model, Amounts()).add(cost_usd, use.tokens, llm_calls)
        self._presumed.add(cost_usd * use.cost_is_presumed, use.tokens * use.tokens_are_presumed, 0)
        self._unpriced_attempts += use.cost_usd is None

    def so_far(self) -> BudgetSpent:
        """The sums at this moment."""
        spent, presumed = self.spent, self._presumed
        models = [ModelSpending(name, *astuple(sums)) for name, sums in self._by_model.items()]
        models.sort(key=lambda model: (-model.cost_usd, -model.tokens, model.model))
        reported = (spent.cost_usd, spent.tokens, spent.llm_calls)
        guessed = (presumed.cost_usd, presumed.tokens, self._unpriced_attempts)
        return BudgetSpent(*reported, *guessed, tuple(models))
