"""The servers that speak Chat Completions, each with its dialect.

A preset is data; adding one takes no code. Base URLs and variables are those that each provider documents
(read in November 2026).
"""

from __future__ import annotations

from ._dialect import COST_FORMATS, COUNT_APART, HIDE_OUTPUT, Dialect
from ._preset import Preset
from .openai import ChatClient, chat_wire


def _compatible(
    name: str,
    base_url: str | None,
    *keys: str,
    seed: str = "seed",
    unsupported: frozenset[str] = frozenset(),
    asks_for_usage: bool = True,
    url_variables: tuple[str, ...] = (),
) -> Preset:
    """A server of the compatible family; without key variables it needs no key."""
    dialect = Dialect(
        provider=name,
        max_tokens="max_tokens",
        seed=seed,
        asks_for_usage=asks_for_usage,
        unsupported=unsupported,
        hides_output=name in HIDE_OUTPUT,
        counts_apart=name in COUNT_APART,
        cost=COST_FORMATS.get(name),
    )
    return Preset(
        name=name,
        wire=chat_wire(dialect),
        base_url=base_url,
        key_variables=keys,
        url_variables=url_variables,
        needs_key=bool(keys),
        client_class=ChatClient,
    )


PRESETS: tuple[Preset, ...] = (
    _compatible("openai_compatible", None, url_variables=("OPENAI_COMPATIBLE_BASE_URL",)),
    _compatible("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    _compatible("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", unsupported=frozenset({"top_k"})),
    _compatible("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", unsupported=frozenset({"top_k", "seed"})),
    _compatible("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    _compatible("xai", "https://api.x.ai/v1", "XAI_API_KEY", unsupported=frozenset({"top_k"})),
    _compatible(
        "perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", unsupported=frozenset({"seed", "stop"})
    ),
    _compatible(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        seed="random_seed",
        asks_for_usage=False,
        unsupported=frozenset({"top_k"}),
    ),
    _compatible("vllm", "http://localhost:8000/v1", url_variables=("VLLM_BASE_URL",)),
    _compatible("llama_cpp", "http://localhost:8080/v1", url_variables=("LLAMA_CPP_BASE_URL",)),
    _compatible("lm_studio", "http://localhost:1234/v1", url_variables=("LM_STUDIO_BASE_URL",)),
    _compatible("ollama_v1", "http://localhost:11434/v1", url_variables=("OLLAMA_V1_BASE_URL",)),
)
"""The compatible family. Providers with a wire format of their own add theirs to the registry."""
