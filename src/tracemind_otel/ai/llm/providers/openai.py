"""OpenAI Chat Completions, and any server that speaks it.

Source: OpenAI API reference, "Create chat completion" (`POST {base}/chat/completions`), as of 2026-11.
"""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ....errors import LLMAuthenticationError, LLMResponseError, LLMTimeoutError
from ..client import AsyncLLMClient
from ..types import LLMRequest, LLMResponse, LLMUsage
from ._http import (
    GivenClientSender,
    HttpPool,
    HttpReply,
    HttpSender,
    PooledSender,
    base_url_of,
    error_body,
    error_from_body,
    json_headers,
    json_object,
    key_of,
    status_error,
)
from ._loop import PerLoop

if TYPE_CHECKING:
    import httpx

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_MAX_COUNT = 2**53
"""No count is as large; beyond it a float is no exact number, and beyond 2**63 OTLP loses the whole batch."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class OpenAILLMClient(AsyncLLMClient):
    """Chat Completions over httpx.

    Args:
        api_key: the key; the default is `OPENAI_API_KEY`. A server with a base URL of its own may need none.
        base_url: the default is `OPENAI_BASE_URL`, else OpenAI's.
        timeout_s: seconds for one `complete`; `None` leaves the time to the caller, as the step does.
        http_client: an httpx client to send with, httpx's own transport for instance; you close it yourself.
        pools: where pooled connections live; the default is a pool of this client's own, closed by `aclose`.

    Raises:
        ConfigError: the key or the base URL cannot be used; the message names the field.
    """

    provider_name = "openai"

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float | None = 30.0,
        *,
        http_client: httpx.AsyncClient | None = None,
        pools: PerLoop[HttpPool] | None = None,
    ) -> None:
        self._own_pools: PerLoop[HttpPool] | None = None
        self._key = key_of("api_key (OPENAI_API_KEY)", api_key or os.getenv("OPENAI_API_KEY"))
        self.base_url, parts = base_url_of(
            "base_url (OPENAI_BASE_URL)", base_url or os.getenv("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        )
        self.server_address = parts.hostname
        self.server_port = parts.port or _DEFAULT_PORTS[parts.scheme]
        self._timeout_s = timeout_s
        self._url = f"{self.base_url}/chat/completions"
        self._headers = json_headers(() if self._key is None else ((b"authorization", f"Bearer {self._key}".encode()),))
        self._sender = self._new_sender(http_client, pools)

    def _new_sender(self, http_client: httpx.AsyncClient | None, pools: PerLoop[HttpPool] | None) -> HttpSender:
        if http_client is not None:
            return GivenClientSender(http_client)
        if pools is None:
            pools = self._own_pools = PerLoop(HttpPool, HttpPool.aclose)
        return PooledSender(pools, self.base_url)

    async def complete(self, req: LLMRequest) -> LLMResponse:
        if self._key is None and self.base_url == DEFAULT_BASE_URL:
            raise LLMAuthenticationError("OPENAI_API_KEY is not set: set it, or pass api_key")
        if self._timeout_s is None:
            return await self._complete(req)
        scope = asyncio.timeout(self._timeout_s)
        try:
            async with scope:
                return await self._complete(req)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise LLMTimeoutError(f"no whole answer within {self._timeout_s:g} s") from error

    async def _complete(self, req: LLMRequest) -> LLMResponse:
        body = _JSON.encode(to_payload(req)).encode()
        reply = await self._sender.post(self._url, self._headers, body)
        if not 200 <= reply.status_code < 300:
            raise status_error(reply, key=self._key, prompt=req.prompt)
        document = json_object(reply)
        if document.get("error") and not document.get("choices"):
            self._raise_error_inside_success(reply, document, req)
        return from_payload(document, request_id=reply.request_id)

    def _raise_error_inside_success(self, reply: HttpReply, document: Mapping[str, Any], req: LLMRequest) -> None:
        """OpenRouter answers some failures with HTTP 200 and an error body."""
        body = error_body(document)
        status_code = body.status_code or reply.status_code
        raise error_from_body(reply, status_code, body, key=self._key, prompt=req.prompt)

    async def aclose(self) -> None:
        """Close this client's own connections; those of the shared pool are closed when their loop ends."""
        if self._own_pools is not None:
            await self._own_pools.aclose()

    def __del__(self) -> None:
        pools: PerLoop[HttpPool] | None = getattr(self, "_own_pools", None)
        if pools is not None and not pools.is_empty:
            warnings.warn(f"unclosed {type(self).__name__}: call aclose()", ResourceWarning, source=self, stacklevel=1)


def to_payload(req: LLMRequest) -> dict[str, Any]:
    """The body of the request."""
    payload: dict[str, Any] = {"model": req.model, "messages": [{"role": "user", "content": req.prompt}]}
    if req.temperature is not None:
        payload["temperature"] = req.temperature
    if req.top_p is not None:
        payload["top_p"] = req.top_p
    payload.update(req.extra)
    return payload


def from_payload(document: Mapping[str, Any], *, request_id: str | None = None) -> LLMResponse:
    """The reply in the normal form. Empty strings count as absent, since some servers send them for null.

    Raises:
        LLMResponseError: there are no choices.
    """
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices:
        raise LLMResponseError("the reply has no choices", request_id=request_id)
    choices = [_object(choice) for choice in cast("list[object]", choices)]
    return LLMResponse(
        text=_text(_object(choices[0].get("message")).get("content")),
        usage=_usage(_object(document.get("usage"))),
        raw=document,
        finish_reasons=tuple(reason for choice in choices if (reason := _string(choice.get("finish_reason")))),
        response_id=_string(document.get("id")),
        response_model=_string(document.get("model")),
        service_tier=_string(document.get("service_tier")),
        request_id=request_id,
    )


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _text(content: object) -> str:
    """Content is a string, null beside tool calls, or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [_object(part) for part in cast("list[object]", content)]
    return "".join(_string(part.get("text")) or "" for part in parts if part.get("type") == "text")


def _usage(usage: Mapping[str, Any]) -> LLMUsage:
    """Tokens as reported; a subset never exceeds its whole, whatever the server says."""
    prompt = _count(usage.get("prompt_tokens")) or 0
    completion = _count(usage.get("completion_tokens")) or 0
    prompt_details = _object(usage.get("prompt_tokens_details"))
    read = _part(prompt_details.get("cached_tokens"), prompt)
    cost = _cost(usage.get("cost"))
    return LLMUsage(
        prompt,
        completion,
        _count(usage.get("total_tokens")) or prompt + completion,
        cost,
        cost_source=None if cost is None else "provider",
        cache_read_tokens=read,
        cache_write_tokens=_part(prompt_details.get("cache_write_tokens"), prompt - (read or 0)),
        reasoning_tokens=_part(_object(usage.get("completion_tokens_details")).get("reasoning_tokens"), completion),
    )


def _count(value: object) -> int | None:
    """A token count, or `None` where there is none; absent is not zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_COUNT:
        return None
    return int(value)


def _cost(value: object) -> float | None:
    """USD, where the server says so (OpenRouter); anything but a number of zero or more is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_COUNT:
        return None
    return float(value)


def _part(value: object, whole: int) -> int | None:
    count = _count(value)
    return None if count is None else min(count, whole)
