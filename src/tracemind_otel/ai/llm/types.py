"""What goes to a model and what comes back, in one form for every provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

CostSource = Literal["provider", "local", "override"]
"""Where a cost came from: the reply itself, the price table, or the user's own prices."""


@dataclass(frozen=True)
class LLMUsage:
    """Tokens of one call, as the provider reported them, and what they cost."""

    prompt_tokens: int = 0
    """Input tokens; those read from or written to a cache are included."""
    completion_tokens: int = 0
    """Output tokens; reasoning tokens are included."""
    total_tokens: int = 0
    """Input and output together, as the provider counts them."""
    cost_usd: float | None = None
    """USD for the whole call; `None` when the price is unknown, which is not zero."""
    _: KW_ONLY
    cost_source: CostSource | None = None
    """Where `cost_usd` came from; `None` while there is no cost."""
    cache_read_tokens: int | None = None
    """The part of `prompt_tokens` that was read from a cache; `None` when not reported."""
    cache_write_tokens: int | None = None
    """The part of `prompt_tokens` that was written to a cache; `None` when not reported."""
    reasoning_tokens: int | None = None
    """The part of `completion_tokens` that was spent on reasoning; `None` when not reported."""
    estimated: bool = False
    """Whether the counts were estimated here, since the provider reported none."""

    def with_cost(self, cost_usd: float, source: CostSource) -> LLMUsage:
        """The same tokens at a price."""
        return LLMUsage(
            self.prompt_tokens,
            self.completion_tokens,
            self.total_tokens,
            cost_usd,
            cost_source=source,
            cache_read_tokens=self.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens,
            estimated=self.estimated,
        )

    @property
    def is_known(self) -> bool:
        """Whether any tokens were counted: a reply without usage is unknown, not zero."""
        return bool(self.prompt_tokens or self.completion_tokens or self.total_tokens)


@dataclass(frozen=True)
class LLMRequest:
    """One call to a model."""

    provider: str
    """The provider's name, as given to `LLMClientFactory.make`."""
    model: str
    """The model's name, as the provider knows it."""
    prompt: str
    """The user's message."""
    temperature: float | None = None
    """Sampling temperature; `None` leaves it to the provider."""
    top_p: float | None = None
    """Nucleus sampling; `None` leaves it to the provider."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields that go into the provider's request body as they are, and win over ours."""


@dataclass(frozen=True)
class LLMResponse:
    """One whole reply of a model."""

    text: str
    """The visible text of the first choice; empty where there is none."""
    usage: LLMUsage
    """Tokens and cost."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """The provider's reply as it came."""
    _: KW_ONLY
    finish_reasons: tuple[str, ...] = ()
    """Why each choice ended, in the provider's own words."""
    response_id: str | None = None
    """The provider's id of this reply."""
    response_model: str | None = None
    """The model that really answered."""
    service_tier: str | None = None
    """The tier that served the call, where the provider says so; it can change the price."""
    request_id: str | None = None
    """The provider's id of the HTTP request, for its support."""
