"""How the servers that speak Chat Completions differ from OpenAI's, as far as each documents it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

CostFormat = Literal["openrouter", "perplexity", "xai", "declared"]
"""The documented form in which a reply reports its cost; `declared` where the user names the unit."""

COST_FORMATS: Mapping[str, CostFormat] = {
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "x-ai": "xai",
    "x_ai": "xai",
    "xai": "xai",
}
"""The providers that document the unit of the cost in their replies."""

HIDE_OUTPUT = frozenset({"gemini", "google", "x-ai", "x_ai", "xai"})
"""The providers whose total exceeds prompt and completion by output that they do not report: reasoning."""

COUNT_APART = frozenset({"perplexity"})
"""The providers whose completion leaves out reasoning and citations."""

_HOSTS = {
    "api.openai.com": "openai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "xai",
    "generativelanguage.googleapis.com": "gemini",
    "openrouter.ai": "openrouter",
}


def server_at(base_url: str) -> str | None:
    """The provider whose server a host is; `None` for one that counts and charges in no way of its own."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:  # the client says what is wrong with it
        return None
    return next((name for known, name in _HOSTS.items() if host == known or host.endswith(f".{known}")), None)


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
    """Whether a stream reports usage only on request (`stream_options`); some servers reject that field."""
    unsupported: frozenset[str] = frozenset({"top_k"})
    """The sampling options that the server does not have."""
    hides_output: bool = False
    """Whether what the total has beyond prompt and completion is known to be output: reasoning, at xAI."""
    counts_apart: bool = False
    """Whether `completion_tokens` leaves out reasoning and citations, as at Perplexity."""
    cost: CostFormat | None = None
    """In which form a reply names its cost; `None` where it is not documented in which unit."""


OPENAI = Dialect()
"""OpenAI's own."""
