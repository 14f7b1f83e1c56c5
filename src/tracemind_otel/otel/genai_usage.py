"""What the span of another instrumentation says about its model call, by any of the names in use. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..ai.llm.providers._hosts import UNKNOWN, hosts_named_by_user, provider_at
from ..ai.llm.types import LLMResponse, LLMUsage
from . import semconv

_PRICED_AS = {
    "aws": "bedrock",
    "aws.bedrock": "bedrock",
    "aws_bedrock": "bedrock",
    "az.ai.openai": "azure_openai",
    "azure": "azure_openai",
    "azure.ai.openai": "azure_openai",
    "gcp.gemini": "gemini",
    "gcp.gen_ai": "gemini",
    "gcp.vertex_ai": "vertex",
    "google": "gemini",
    "google-gla": "gemini",
    "google-vertex": "vertex",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "vertex_ai": "vertex",
    "vertexai": "vertex",
    "x_ai": "xai",
}
"""The provider by whose prices a call is priced, where telemetry names it otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldCall:
    """A call as its span tells it."""

    operation: str
    """The GenAI operation."""
    provider: str
    """The provider's name in telemetry."""
    priced_as: str
    """The provider by whose prices it is priced."""
    model: str
    """The model that was asked for, else the one that answered."""
    response: LLMResponse | None
    """The reply; `None` where the span has no counts."""


def told_call(attributes: Mapping[str, Any], *, has_cache_apart: bool = False) -> ToldCall:
    """The call that a span with these attributes is.

    Args:
        attributes: the attributes.
        has_cache_apart: whether its maker counts cached tokens beside the input tokens.
    """
    provider = _string(attributes, semconv.TOLD_PROVIDER)
    is_embedding = attributes.get("openinference.span.kind") == "EMBEDDING"
    operation = _string(attributes, (semconv.GEN_AI_OPERATION_NAME,)) or ("embeddings" if is_embedding else "chat")
    usage = _usage(attributes, is_embedding=operation == "embeddings", has_cache_apart=has_cache_apart)
    return ToldCall(
        operation=operation,
        provider=provider,
        priced_as=_priced_as(provider, attributes),
        model=_string(attributes, semconv.TOLD_MODEL),
        response=None
        if usage is None
        else LLMResponse(
            "",
            usage,
            response_id=_string(attributes, (semconv.GEN_AI_RESPONSE_ID,)) or None,
            response_model=_string(attributes, (semconv.GEN_AI_RESPONSE_MODEL,)) or None,
            service_tier=_string(attributes, (semconv.OPENAI_RESPONSE_SERVICE_TIER,)) or None,
        ),
    )


def _priced_as(provider: str, attributes: Mapping[str, Any]) -> str:
    """The provider by whose prices a call is priced: nobody's at an unknown host, whatever the span says of it.

    An instrumentation of OpenAI's SDK names OpenAI for every server that the SDK is pointed at.
    """
    address, port = attributes.get(semconv.SERVER_ADDRESS), attributes.get(semconv.SERVER_PORT)
    if isinstance(address, str):
        at = address.lower(), port if isinstance(port, int) else None
        hosts = hosts_named_by_user()
        if (named := hosts.get(f"{at[0]}:{at[1]}") or hosts.get(at[0])) is not None:
            return named
        if provider_at(*at, {}) == UNKNOWN:
            return UNKNOWN
    return _PRICED_AS.get(provider.lower(), provider.lower())


def _usage(attributes: Mapping[str, Any], *, is_embedding: bool, has_cache_apart: bool) -> LLMUsage | None:
    prompt, output = _count(attributes, semconv.TOLD_INPUT_TOKENS), _count(attributes, semconv.TOLD_OUTPUT_TOKENS)
    if prompt is None and output is None:
        return None
    read, written = _count(attributes, semconv.TOLD_CACHE_READ), _count(attributes, semconv.TOLD_CACHE_WRITTEN)
    cached = (read or 0) + (written or 0)
    if prompt is not None and (has_cache_apart or cached > prompt):  # counted apart: no part is larger than its whole
        prompt += cached
    if output is None and is_embedding:
        output = 0  # an embedding has no output
    total = None if prompt is None or output is None else prompt + output
    return LLMUsage.of_reply(
        prompt,
        output,
        total,
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=_count(attributes, semconv.TOLD_REASONING),
    )


def _count(attributes: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (attributes[name] for name in names if name in attributes)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def _string(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str:
    values = (attributes[name] for name in names if name in attributes)
    return next((value for value in values if isinstance(value, str) and value), "")
