"""Which provider a host belongs to: the user's word first."""

from __future__ import annotations

import re
from collections.abc import Mapping

UNKNOWN = "openai_compatible"
"""The provider name of an unknown host: no price of the table applies to it."""

_HOSTS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gemini",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "ollama.com": "ollama",
    "api.mistral.ai": "mistral",
    "api.groq.com": "groq",
    "api.together.xyz": "together",
    "api.together.ai": "together",
    "api.deepseek.com": "deepseek",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "xai",
    "openrouter.ai": "openrouter",
}
"""The providers' own hosts."""
_HOST_ENDS = {
    ".openai.azure.com": "azure_openai",
    "aiplatform.googleapis.com": "vertex",
    ".rep.googleapis.com": "vertex",
}
"""The ends of hosts that each customer or region has one of."""
_BEDROCK_HOST = re.compile(r"(.+\.)?bedrock-(runtime|mantle)(-fips)?\..+(\.amazonaws\.com(\.cn)?|\.api\.aws)")
"""Bedrock's hosts, of every region, and behind an interface endpoint of a VPC."""


_named: Mapping[str, str] = {}


def name_hosts(hosts: Mapping[str, str]) -> None:
    """Name the provider of the user's own hosts, as `host` or `host:port`."""
    global _named
    _named = {name.lower(): provider for name, provider in hosts.items()}


def hosts_named_by_user() -> Mapping[str, str]:
    """The provider of each of the user's own hosts."""
    return _named


def provider_at(host: str, port: int | None, hosts: Mapping[str, str]) -> str:
    """The provider of a host: the user's word first."""
    host = host.lower()
    named = hosts.get(f"{host}:{port}") or hosts.get(host) or _HOSTS.get(host)
    if named is None and _BEDROCK_HOST.fullmatch(host):
        return "bedrock"
    return named or next((name for end, name in _HOST_ENDS.items() if host.endswith(end)), UNKNOWN)
