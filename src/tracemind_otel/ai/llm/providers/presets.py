"""Providers as data: base URL, key, wire format; and the providers that speak Chat Completions.

Adding one of these takes no code. Base URLs and variables are those that each provider
documents (read in November 2026).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Unpack

from ....errors import ConfigError
from ._chat_usage import cost_format
from ._client import Sending, WireClient
from ._dialect import COST_FORMATS, Dialect, server_at
from ._wire_format import WireFormat
from .openai import ChatClient, as_spoken_by, chat_wire


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A provider behind one of the wire formats."""

    name: str
    """The provider's name for `LLMClientFactory.make`."""
    wire: WireFormat
    """The format that it speaks."""
    base_url: str | None
    """The address of its server; `None` where only the user knows it."""
    key_variables: tuple[str, ...] = ()
    """Environment variables for the key; the first that is set wins."""
    url_variables: tuple[str, ...] = ()
    """Environment variables for the base URL."""
    needs_key: bool = True
    """Whether it rejects requests without a key."""
    key_header: str = "authorization"
    """The header that carries the key."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further headers of every request."""
    client_class: type[WireClient] = WireClient
    """The class of its clients."""

    @property
    def environment(self) -> tuple[str, ...]:
        """The environment variables that are read."""
        return self.key_variables + self.url_variables

    def client(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        provider_name: str | None = None,
        cost_unit: str | None = None,
        **sending: Unpack[Sending],
    ) -> WireClient:
        """A client for the provider; arguments win over variables, and these over the preset.

        With a `provider_name`, the server is that provider's, and its prices apply. Without one, a server whose address
        only the user knows is recognized by its host, if at all.

        Raises:
            ConfigError: there is no base URL, or one that cannot be used.
        """
        url = base_url or _first_set(self.url_variables) or self.base_url
        if url is None:
            wanted = " or ".join(("base_url", *self.url_variables))
            raise ConfigError(f"provider {self.name!r} needs {wanted}: where its server is")
        known = server_at(url)
        whose = provider_name or (known if self.base_url is None else None)
        server = known or whose or self.name
        variables = " or ".join(self.key_variables) or "api_key"
        return self.client_class(
            self._wire_for(server, cost_unit),
            provider_name=whose or self.name,
            base_url=url,
            key=api_key or _first_set(self.key_variables),
            key_header=self.key_header,
            key_hint=f"{variables} is not set: set it, or pass api_key" if self.needs_key else None,
            headers=self.headers,
            **sending,
        )

    def _wire_for(self, server: str, cost_unit: str | None) -> WireFormat:
        """The format as that server speaks it: how it counts tokens, and how it reports cost."""
        if self.wire.with_cost is None or (cost_unit is None and server == self.name):
            return self.wire
        return self.wire.with_cost(cost_format(server, cost_unit), server)


def _first_set(variables: tuple[str, ...]) -> str | None:
    return next((value for name in variables if (value := os.getenv(name))), None)


_FAMILY = Dialect(max_tokens="max_tokens", unsupported=frozenset())


def _compatible(
    name: str, base_url: str | None, *key_variables: str, url_variable: str | None = None, **differences: Any
) -> Preset:
    """A server of the family, with the fields of its dialect that differ; without key variables it needs no key."""
    dialect = replace(_FAMILY, cost=COST_FORMATS.get(name), **differences)
    return Preset(
        name=name,
        wire=chat_wire(as_spoken_by(name, dialect)),
        base_url=base_url,
        key_variables=key_variables,
        url_variables=(url_variable,) if url_variable else (),
        needs_key=bool(key_variables),
        client_class=ChatClient,
    )


PRESETS: tuple[Preset, ...] = (
    _compatible("openai_compatible", None, url_variable="OPENAI_COMPATIBLE_BASE_URL"),
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
    _compatible("vllm", "http://localhost:8000/v1", url_variable="VLLM_BASE_URL"),
    _compatible("llama_cpp", "http://localhost:8080/v1", url_variable="LLAMA_CPP_BASE_URL"),
    _compatible("lm_studio", "http://localhost:1234/v1", url_variable="LM_STUDIO_BASE_URL"),
    _compatible("ollama_v1", "http://localhost:11434/v1", url_variable="OLLAMA_V1_BASE_URL"),
)
"""The providers that speak Chat Completions."""
