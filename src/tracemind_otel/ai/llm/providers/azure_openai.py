"""Azure OpenAI: Chat Completions and Responses at an endpoint of the user's own.

Source: Microsoft Learn, "Azure OpenAI in Microsoft Foundry Models": v1 API and the data plane inference reference
(`/openai/deployments/{deployment}/chat/completions?api-version=...`,
`/openai/responses?api-version=...`), as of 2026-11. A request names the deployment
as its model; the reply names the real model, and that one has the price.
"""

from __future__ import annotations

import functools
import os
from typing import Unpack
from urllib.parse import quote

from ....errors import ConfigError
from ..types import LLMRequest
from ._client import Sending, WireClient
from ._dialect import Dialect
from ._http import base_url_of
from ._wire_format import WireFormat
from .openai import chat_wire
from .openai_responses import responses_wire
from .presets import Preset

ENVIRONMENT = ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "OPENAI_API_VERSION")
"""The environment variables that are read."""

_V1 = "/openai/v1"
_FIRST_MODERN_VERSION = "2024-09-01"
"""Older API versions have neither `max_completion_tokens` nor `stream_options`, and reject unknown fields."""


def azure_responses_wire(api_version: str | None = None) -> WireFormat:
    """The wire format of Responses: on the v1 surface, or on the older one of an API version."""
    if api_version is None:
        return responses_wire()
    return responses_wire(path=f"/openai/responses?api-version={quote(api_version, safe='')}")


def azure_wire(api_version: str | None = None) -> WireFormat:
    """The wire format of Chat Completions: on the v1 surface, or on the deployments of an API version."""
    if api_version is None:
        return chat_wire(Dialect(provider="azure_openai"))
    is_modern = api_version >= _FIRST_MODERN_VERSION
    dialect = Dialect(
        provider="azure_openai",
        max_tokens="max_completion_tokens" if is_modern else "max_tokens",
        asks_for_usage=is_modern,
    )
    version = quote(api_version, safe="")

    def path(req: LLMRequest, stream: bool) -> str:
        return f"/openai/deployments/{quote(req.model, safe='')}/chat/completions?api-version={version}"

    return chat_wire(dialect, path)


_SURFACES = {"azure_openai": azure_wire, "azure_openai_responses": azure_responses_wire}
"""The APIs of a resource by provider name: functions from an API version, or none, to a wire format."""


def azure_client(
    *,
    api_key: str | None = None,
    base_url: str | None = None,
    ad_token: str | None = None,
    api_version: str | None = None,
    provider_name: str | None = None,
    cost_unit: str | None = None,
    surface: str = "azure_openai",
    **sending: Unpack[Sending],
) -> WireClient:
    """A client for one Azure OpenAI resource; arguments win over variables.

    Args:
        api_key: the resource's key; the default is `AZURE_OPENAI_API_KEY`.
        base_url: the resource's endpoint, with or without `/openai/v1`; the default is `AZURE_OPENAI_ENDPOINT`.
        ad_token: a Microsoft Entra token, sent instead of a key; the default is `AZURE_OPENAI_AD_TOKEN`, which wins
            over a key that is in the environment too, as in OpenAI's SDK. It is not renewed here.
        api_version: asks for the older surface with a path for each deployment; the default is
            `OPENAI_API_VERSION`. An endpoint that ends in `/openai/v1` has no versions, and the variable is not read.
        provider_name: the provider whose prices apply and which the span names; the default is Azure.
        cost_unit: the currency of the cost that a gateway puts into the replies; only `USD` is believed.
        surface: the name of the API that it speaks.
        **sending: how it sends.

    Raises:
        ConfigError: there is no endpoint, one that cannot be used, or arguments that contradict each other.
    """
    resource, is_v1 = _endpoint(base_url)
    version = _version(api_version, is_v1=is_v1)
    token, key = _credentials(api_key, ad_token)
    preset = Preset(
        name=surface,
        wire=_SURFACES[surface](version),
        base_url=resource if version else resource + _V1,
        key_variables=("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN"),
        key_header="authorization" if token else "api-key",
    )
    return preset.client(token or key, provider_name=provider_name, cost_unit=cost_unit, **sending)


azure_responses_client = functools.partial(azure_client, surface="azure_openai_responses")
"""A client for Responses at one Azure OpenAI resource; the arguments are those of `azure_client`."""


def _endpoint(base_url: str | None) -> tuple[str, bool]:
    """The resource's endpoint without a path, and whether the given one was that of the v1 surface."""
    given = base_url or os.getenv("AZURE_OPENAI_ENDPOINT")
    if not given:
        raise ConfigError(
            "provider 'azure_openai' needs base_url or AZURE_OPENAI_ENDPOINT: where its resource is, "
            "like https://my-resource.openai.azure.com"
        )
    url, _ = base_url_of("base_url" if base_url else "AZURE_OPENAI_ENDPOINT", given)
    if "/openai/deployments" in url:
        raise ConfigError("base_url: leave out /openai/deployments/...; the deployment is the request's model")
    return url.removesuffix(_V1).removesuffix("/openai"), url.endswith(_V1)


def _version(api_version: str | None, *, is_v1: bool) -> str | None:
    if is_v1 and api_version:
        raise ConfigError(f"api_version: the surface at {_V1} has none; leave one of the two out")
    return None if is_v1 else api_version or os.getenv("OPENAI_API_VERSION") or None


def _credentials(api_key: str | None, ad_token: str | None) -> tuple[str | None, str | None]:
    """The token and the key; of those in the environment, the token wins."""
    if api_key and ad_token:
        raise ConfigError("api_key and ad_token: pass one of them")
    if api_key or ad_token:
        return ad_token, api_key
    return os.getenv("AZURE_OPENAI_AD_TOKEN") or None, os.getenv("AZURE_OPENAI_API_KEY")
