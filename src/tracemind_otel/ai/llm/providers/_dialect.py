"""How a server of the compatible family differs from OpenAI's."""

from __future__ import annotations

from dataclasses import dataclass

from ._chat_usage import (
    CostFormat,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How a server differs from OpenAI's."""

    provider: str = "openai"
    """The provider's name, for error messages."""
    max_tokens: str = "max_completion_tokens"
    """The name of the field for the most output tokens."""
    seed: str = "seed"
    """The name of the field for the seed."""
    asks_for_usage: bool = True
    """Whether a stream must be asked for its usage (`stream_options`); some refuse to be asked."""
    refuses: frozenset[str] = frozenset({"top_k"})
    """The parameters it has no place for."""
    path: str = "/chat/completions"
    """The path below the base URL."""
    hides_output: bool = False
    """Whether what the total has beyond prompt and completion is known to be output: reasoning, at xAI."""
    counts_apart: bool = False
    """Whether reasoning and citations are counted beside the completion, as Perplexity does."""
    cost: CostFormat | None = None
    """In which form a reply names its cost; `None` where it is not documented in which unit."""


OPENAI = Dialect()
"""OpenAI's own."""
