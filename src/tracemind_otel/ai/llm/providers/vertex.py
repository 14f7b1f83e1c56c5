"""Vertex AI: Gemini and Claude in a Google Cloud project, with an access token in place of a key.

Source: Vertex AI REST v1, `publishers.models` (`generateContent`, `streamGenerateContent`, `rawPredict`,
`streamRawPredict`), and "Claude on Vertex AI" in Anthropic's API reference, as of 2026-11.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Unpack
from urllib.parse import quote

from ....errors import ConfigError, LLMAuthenticationError
from ..client import AsyncLLMClient
from ..types import LLMRequest, LLMResponse, StreamEvent
from ._client import Sending, WireClient
from ._error_bodies import ErrorBody
from ._http import Headers, key_of
from ._wire_format import WireFormat, mapped
from .anthropic import MESSAGES
from .anthropic import errors_of as claude_errors_of
from .anthropic import to_payload as claude_payload
from .gemini import WIRE as GEMINI
from .gemini import errors_of as gemini_errors_of
from .gemini import method_of

ENVIRONMENT = ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION")
"""The environment variables that are read."""

TokenCallback = Callable[[], str | Awaitable[str]]
"""Gives an access token that is still valid. One that is not async runs in a worker thread."""

_LOCATION = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MULTI_REGIONS = frozenset({"us", "eu"})
_CLAUDE_VERSION = "vertex-2023-10-16"
_CLAUDE = "publishers/anthropic/models/"
_GEMINI = "publishers/google/models/"
_TOKEN_HINT = (
    "token is not set: pass a function that gives an access token. With google-auth: "  # noqa: S105
    "credentials, project = google.auth.default(scopes=['https://www.googleapis.com/auth/cloud-platform']), and "
    "a function that calls credentials.refresh(google.auth.transport.requests.Request()) unless credentials.valid, "
    "and returns credentials.token"
)


class _VertexFormat(WireClient):
    """One of the formats on Vertex. It asks for a token at each request, and keeps the last one out of error texts."""

    def __init__(self, wire: WireFormat, ask: TokenCallback, base_url: str, **sending: Unpack[Sending]) -> None:
        self._ask = ask
        self._token: str | None = None
        super().__init__(wire, provider_name="vertex", base_url=base_url, **sending)

    async def _headers_for(self, url: str, body: bytes) -> Headers:
        is_async = inspect.iscoroutinefunction(self._ask)
        given = self._ask() if is_async else await asyncio.to_thread(self._ask)
        token = self._token = key_of("token", given if isinstance(given, str) else await given)
        if token is None:
            raise LLMAuthenticationError("the token callback gave no token")
        return (*self._headers, ("authorization", f"Bearer {token}"))

    def _secret(self) -> str | None:
        return self._token


class VertexLLMClient(_VertexFormat):
    """Gemini and Claude on Vertex AI; the model's name decides.

    Args:
        project: the id of the Google Cloud project; the default is `GOOGLE_CLOUD_PROJECT`.
        location: a region, `us`, `eu` or `global`; the default is `GOOGLE_CLOUD_LOCATION`, else `global`.
        token: gives an access token that is still valid, asked for each request, so it should keep its own. An
            async one runs on the loop, any other in a worker thread.
        base_url: the default is the location's.
        **sending: how it sends.

    Raises:
        ConfigError: the project, the location, the token or the base URL is missing or cannot be used.
    """

    def __init__(
        self,
        *,
        project: str | None = None,
        location: str | None = None,
        token: TokenCallback | None = None,
        base_url: str | None = None,
        **sending: Unpack[Sending],
    ) -> None:
        if token is None:
            raise ConfigError(_TOKEN_HINT)
        place = (location or os.getenv("GOOGLE_CLOUD_LOCATION") or "global").strip()
        url = base_url or _url_of(place)
        parent = f"/v1/projects/{quote(_project_of(project), safe='')}/locations/{quote(place, safe='')}"
        super().__init__(_gemini_wire(parent), token, url, **sending)
        self._claude = _VertexFormat(_claude_wire(parent), token, url, **sending)

    def for_model(self, model: str) -> AsyncLLMClient:
        return self._claude if model.startswith(("claude", _CLAUDE)) else self

    async def complete(self, req: LLMRequest) -> LLMResponse:
        client = self.for_model(req.model)
        return await (super().complete(req) if client is self else client.complete(req))

    def stream(self, req: LLMRequest) -> AsyncGenerator[Sequence[StreamEvent]]:
        client = self.for_model(req.model)
        return super().stream(req) if client is self else client.stream(req)

    async def aclose(self) -> None:
        """Close this client's own connections; those of the shared pool are closed when their loop ends."""
        await super().aclose()
        await self._claude.aclose()


def _project_of(project: str | None) -> str:
    found = (project if project is not None else os.getenv("GOOGLE_CLOUD_PROJECT") or "").strip()
    if not found:
        raise ConfigError("project must be the id of a Google Cloud project: pass it, or set GOOGLE_CLOUD_PROJECT")
    return found


def _url_of(location: str) -> str:
    if not _LOCATION.fullmatch(location):
        raise ConfigError("location must be a region like europe-west4, or global")
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"


def _gemini_wire(parent: str) -> WireFormat:
    def path(req: LLMRequest, stream: bool) -> str:
        method = method_of(stream)
        if req.model.startswith("endpoints/"):
            return f"{parent}/endpoints/{quote(req.model.removeprefix('endpoints/'), safe='')}:{method}"
        name = req.model.removeprefix("publishers/google/").removeprefix("models/")
        return f"{parent}/{_GEMINI}{quote(name, safe='')}:{method}"

    return replace(GEMINI, path=path)


def _claude_wire(parent: str) -> WireFormat:
    def path(req: LLMRequest, stream: bool) -> str:
        name = quote(req.model.removeprefix(_CLAUDE), safe="@")
        return f"{parent}/{_CLAUDE}{name}:{'streamRawPredict' if stream else 'rawPredict'}"

    return replace(MESSAGES, path=path, to_payload=_claude_payload, errors_of=_claude_errors)


def _claude_payload(req: LLMRequest, stream: bool) -> dict[str, Any]:
    """The body for Anthropic's own API, with the version in it and without the model, which is in the path."""
    payload = {"anthropic_version": _CLAUDE_VERSION, **claude_payload(req, stream=stream)}
    if "model" not in req.extra:
        del payload["model"]
    return payload


def _claude_errors(document: object) -> ErrorBody:
    """Read an error: the model's in Anthropic's shape, or Google's about the request."""
    is_claude = mapped(document).get("type") == "error"
    return claude_errors_of(document) if is_claude else gemini_errors_of(document)
