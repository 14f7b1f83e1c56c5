"""The value of `gen_ai.provider.name` for each name of a provider.

Source: OpenTelemetry's GenAI semantic conventions, the well-known values of `gen_ai.provider.name`, as of 2026-11.
"""

from __future__ import annotations

_CONVENTIONAL = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "azure_openai": "azure.ai.openai",
    "azure_openai_responses": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "moonshotai": "moonshot_ai",
    "ollama_v1": "ollama",
    "openai_responses": "openai",
    "vertex": "gcp.vertex_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "x-ai": "x_ai",
    "xai": "x_ai",
}


def telemetry_name_of(provider_name: str) -> str:
    """The conventions' value for a provider; a name that they do not list is its own."""
    return _CONVENTIONAL.get(provider_name.lower(), provider_name)
