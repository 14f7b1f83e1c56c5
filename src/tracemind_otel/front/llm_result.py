"""The result of a call through the front door."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..ai.llm.types import CostSource, FinishReason, LLMUsage, ToolCall


@dataclass(frozen=True, kw_only=True, repr=False)
class LLMResult:
    """A model's reply, its tokens and its cost."""

    text: str
    """The visible text; empty where there is none."""
    usage: LLMUsage
    """Every count of tokens and every part of the cost."""
    provider: str
    """The provider's name."""
    model: str
    """The model that was asked for."""
    retries: int = 0
    """Failed attempts that were repeated."""
    response_id: str | None = None
    """The provider's id of the reply."""
    response_model: str | None = None
    """The model that answered."""
    finish_reasons: tuple[str, ...] = ()
    """Why each choice ended, in the provider's own words."""
    finish_reason: FinishReason | None = None
    """Why the first choice ended, in one vocabulary."""
    reasoning: str | None = None
    """The model's reasoning, where the provider shows it."""
    refusal: str | None = None
    """Why the model refused to answer, where it says so apart from the text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tools that the model asks to call."""
    service_tier: str | None = None
    """The tier that served the call, where the provider says so."""
    request_id: str | None = None
    """The provider's id of the HTTP request, for its support."""
    presumed_cost_usd: float | None = None
    """USD that attempts presumably cost whose reply was lost, which `cost_usd` lacks; `None` where none was."""
    closed_early: bool = False
    """Whether a stream was closed before its end."""
    plain: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    """The same as `run_llm_call` returns it."""

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> LLMResult:
        """The result of a plain one."""
        held = {key: plain[key] for key in _AS_THEY_ARE if key in plain}
        usage = dict(plain["usage"])
        usage["cost_partial"] = tuple(usage.get("cost_partial", ()))
        counts = [usage.pop(key) for key in ("prompt_tokens", "completion_tokens", "total_tokens")]
        return cls(
            usage=LLMUsage.of_reply(*counts, **usage),
            finish_reasons=tuple(plain.get("finish_reasons", ())),
            tool_calls=tuple(ToolCall(**call) for call in plain.get("tool_calls", ())),
            plain=plain,
            **held,
        )

    @property
    def cost_usd(self) -> float | None:
        """USD for the whole call; `None` when the price is unknown."""
        return self.usage.cost_usd

    @property
    def cost_source(self) -> CostSource | None:
        """Where the cost came from: the reply, the price table, or your own prices."""
        return self.usage.cost_source

    @property
    def input_tokens(self) -> int | None:
        """Input tokens, cached ones included; `None` when they are unknown."""
        return self.usage.prompt_tokens

    @property
    def output_tokens(self) -> int | None:
        """Output tokens, reasoning included; `None` when they are unknown."""
        return self.usage.completion_tokens

    def as_dict(self) -> dict[str, Any]:
        """The result as `run_llm_call` returns it: plain values that JSON can hold."""
        return dict(self.plain)

    def __repr__(self) -> str:
        shown = textwrap.shorten(self.text, 60, placeholder="...")
        cost = "unknown" if self.cost_usd is None else f"${self.cost_usd:.6g}"
        tokens = f"{self.input_tokens} + {self.output_tokens}"
        return f"LLMResult({shown!r}, model={f'{self.provider}/{self.model}'!r}, tokens={tokens}, cost={cost})"


_AS_THEY_ARE = tuple(
    known.name for known in fields(LLMResult) if known.name not in {"usage", "finish_reasons", "tool_calls", "plain"}
)
