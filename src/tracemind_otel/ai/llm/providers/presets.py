"""Providers that speak a wire format of ours: where they are, where their key is, and their accent.

A preset is data; adding one takes no code. Base URLs and variables are those that each provider documents
(read in November 2026).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ....errors import ConfigError
from ._client import WireClient
from ._http import HttpPool
from ._loop import PerLoop
from ._wire import Wire
from .openai import Accent, chat_wire

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A provider behind one of the wire formats."""

    name: str
    """The provider's name for `LLMClientFactory.make`."""
    wire: Wire
    """Its format."""
    base_url: str | None
    """Where it is; `None` where only the user can say."""
    key_variables: tuple[str, ...] = ()
    """Environment variables that may hold the key, the first one that is set wins."""
    url_variables: tuple[str, ...] = ()
    """Environment variables that may hold the base URL."""
    needs_key: bool = True
    """Whether it answers nobody without a key."""
    key_header: str = "authorization"
    """The header that carries the key."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """More headers of every request."""
    telemetry_name: str | None = None
    """`gen_ai.provider.name`, where the conventions spell it otherwise than `name`."""

    @property
    def environment(self) -> tuple[str, ...]:
        """All variables that are read."""
        return self.key_variables + self.url_variables

    def client(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout_s: float | None = None,
        http_client: httpx.AsyncClient | None = None,
        pools: PerLoop[HttpPool] | None = None,
    ) -> WireClient:
        """A client for the provider; arguments win over variables, these over what is known here.

        Raises:
            ConfigError: there is no base URL, or one that cannot be used.
        """
        url = base_url or _first_set(self.url_variables) or self.base_url
        if url is None:
            wanted = " or ".join(("base_url", *self.url_variables))
            raise ConfigError(f"provider {self.name!r} needs {wanted}: where its server is")
        variables = " or ".join(self.key_variables) or "api_key"
        return WireClient(
            self.wire,
            provider_name=self.name,
            telemetry_name=self.telemetry_name,
            base_url=url,
            key=api_key or _first_set(self.key_variables),
            key_header=self.key_header,
            key_hint=f"{variables} is not set: set it, or pass api_key" if self.needs_key else None,
            headers=self.headers,
            timeout_s=timeout_s,
            http_client=http_client,
            pools=pools,
        )


def _first_set(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.getenv(name))), None)


def _compatible(
    name: str,
    base_url: str | None,
    *keys: str,
    telemetry_name: str | None = None,
    max_tokens: str = "max_tokens",
    seed: str = "seed",
    refuses: frozenset[str] = frozenset(),
    asks_for_usage: bool = True,
    url_variables: tuple[str, ...] = (),
) -> Preset:
    """A server of the compatible family; without key variables it needs no key."""
    accent = Accent(provider=name, max_tokens=max_tokens, seed=seed, asks_for_usage=asks_for_usage, refuses=refuses)
    return Preset(
        name=name,
        wire=chat_wire(accent),
        base_url=base_url,
        key_variables=keys,
        url_variables=url_variables,
        needs_key=bool(keys),
        telemetry_name=telemetry_name,
    )


PRESETS: tuple[Preset, ...] = (
    _compatible("openai_compatible", None, url_variables=("OPENAI_COMPATIBLE_BASE_URL",)),
    _compatible("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    _compatible("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", refuses=frozenset({"top_k"})),
    _compatible("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", refuses=frozenset({"top_k", "seed"})),
    _compatible("together", "https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    _compatible("xai", "https://api.x.ai/v1", "XAI_API_KEY", telemetry_name="x_ai", refuses=frozenset({"top_k"})),
    _compatible("perplexity", "https://api.perplexity.ai", "PERPLEXITY_API_KEY", refuses=frozenset({"seed", "stop"})),
    _compatible(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        telemetry_name="mistral_ai",
        seed="random_seed",
        asks_for_usage=False,
        refuses=frozenset({"top_k"}),
    ),
    _compatible("vllm", "http://localhost:8000/v1", url_variables=("VLLM_BASE_URL",)),
    _compatible("llama_cpp", "http://localhost:8080/v1", url_variables=("LLAMA_CPP_BASE_URL",)),
    _compatible("lm_studio", "http://localhost:1234/v1", url_variables=("LM_STUDIO_BASE_URL",)),
    _compatible(
        "ollama_v1", "http://localhost:11434/v1", url_variables=("OLLAMA_V1_BASE_URL",), telemetry_name="ollama"
    ),
)
"""The compatible family. Providers with a wire format of their own add theirs to the registry."""
