"""OpenAI Chat Completions, and the servers that speak a dialect of it.

Source: OpenAI API reference, "Create chat completion" (`POST {base}/chat/completions`), as of 2026-11; for the
dialects, the documentation of each server.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ....errors import LLMRequestError
from ..sampling import SAMPLING_NAMES
from ..types import Image, LLMRequest, Message, Text
from ._chat_reply import ChatReader, figures_of, from_payload
from ._chat_usage import cost_format, with_cost_header
from ._client import WireClient
from ._conversation import image_url, settings_of
from ._dialect import COUNT_APART, HIDE_OUTPUT, OPENAI, Dialect, server_at
from ._loop import PerLoop
from ._pool import HttpPool
from ._wire_format import WireFormat, outgoing_call

if TYPE_CHECKING:
    import httpx

    from ._sending import HttpStream

DEFAULT_BASE_URL = "https://api.openai.com/v1"


def chat_wire(
    dialect: Dialect = OPENAI, path: Callable[[LLMRequest, bool], str] = lambda req, stream: "/chat/completions"
) -> WireFormat:
    """The wire format of Chat Completions in a dialect, at a path below the base URL."""
    return WireFormat(
        path=path,
        to_payload=lambda req, stream: to_payload(req, stream=stream, dialect=dialect),
        from_payload=lambda document, request_id: from_payload(document, request_id=request_id, dialect=dialect),
        figures_of=lambda document, request_id: figures_of(document, request_id=request_id, dialect=dialect),
        new_reader=lambda: ChatReader(dialect),
        with_headers=with_cost_header if dialect.cost == "declared" else None,
        with_cost=lambda cost, server: chat_wire(as_spoken_by(server, replace(dialect, cost=cost)), path),
        reports_cost=dialect.cost is not None,
    )


def as_spoken_by(server: str, dialect: Dialect) -> Dialect:
    """The dialect with what is known of a server's counts."""
    name = server.lower()
    return replace(
        dialect,
        provider=server,
        hides_output=dialect.hides_output or name in HIDE_OUTPUT,
        counts_apart=dialect.counts_apart or name in COUNT_APART,
    )


class ChatClient(WireClient):
    """A client for Chat Completions that stops asking for usage where the server rejects `stream_options`."""

    _rejects_stream_options = False

    async def _open_stream(self, req: LLMRequest) -> HttpStream:
        if not self._rejects_stream_options:
            try:
                return await super()._open_stream(req)
            except LLMRequestError as error:
                is_rejected = error.status_code in (400, 422) and "stream_options" in error.message
                if "stream_options" in req.extra or not is_rejected:
                    raise
            self._rejects_stream_options = True
        return await super()._open_stream(replace(req, extra={"stream_options": None, **req.extra}))


class OpenAILLMClient(ChatClient):
    """Chat Completions over httpx.

    Args:
        api_key: the key; the default is `OPENAI_API_KEY`. A server with a base URL of its own may need none.
        base_url: the default is `OPENAI_BASE_URL`, else OpenAI's.
        timeout_s: seconds without a byte in one `complete`; `None` leaves the time to the caller, as the step does.
        provider_name: whose server it is, where it is not OpenAI's: that provider's prices apply. `openai` says that a
            proxy stands in front of OpenAI's own, which takes `max_completion_tokens`.
        cost_unit: the currency of the cost in the replies, which is believed only where it is `USD`.
        http_client: an httpx client to send with, httpx's own transport for instance; you close it yourself.
        pools: where pooled connections live; the default is a pool of this client's own, closed by `aclose`.

    Raises:
        ConfigError: the key or the base URL cannot be used; the message names the field.
    """

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout_s: float | None = 30.0,
        *,
        provider_name: str | None = None,
        cost_unit: str | None = None,
        http_client: httpx.AsyncClient | None = None,
        pools: PerLoop[HttpPool] | None = None,
    ) -> None:
        chosen_url = base_url or os.getenv("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        needs_key = chosen_url.rstrip("/") == DEFAULT_BASE_URL
        dialect = _dialect_of(chosen_url, provider_name, cost_unit)
        super().__init__(
            chat_wire(dialect),
            provider_name=provider_name or "openai",
            base_url=chosen_url,
            key=api_key or os.getenv("OPENAI_API_KEY"),
            key_hint="OPENAI_API_KEY is not set: set it, or pass api_key" if needs_key else None,
            timeout_s=timeout_s,
            http_client=http_client,
            pools=pools,
        )


def _dialect_of(base_url: str, provider_name: str | None, cost_unit: str | None) -> Dialect:
    """OpenAI's own server takes `max_completion_tokens` alone; of the servers of others most know only `max_tokens`."""
    server = server_at(base_url) or provider_name or "openai"
    dialect = as_spoken_by(server, Dialect(cost=cost_format(server, cost_unit)))
    is_openais = "openai" in (provider_name, server_at(base_url))
    return dialect if is_openais else replace(dialect, max_tokens="max_tokens")


# --- Request


@lru_cache(maxsize=64)
def _names_in(dialect: Dialect) -> Mapping[str, str]:
    """The server's names of the sampling options that it has."""
    named = {"max_tokens": dialect.max_tokens, "seed": dialect.seed}
    return {name: named.get(name, name) for name in SAMPLING_NAMES if name not in dialect.unsupported}


def to_payload(req: LLMRequest, *, stream: bool = False, dialect: Dialect = OPENAI) -> dict[str, Any]:
    """The body of the request."""
    settings = settings_of(req, dialect.provider, _names_in(dialect))
    if "max_completion_tokens" in req.extra:
        settings.pop("max_tokens", None)
    payload: dict[str, Any] = {"model": req.model, "messages": _messages(req), **settings}
    if stream:
        payload["stream"] = True
        if dialect.asks_for_usage:
            payload["stream_options"] = {"include_usage": True}
    payload.update(req.extra)
    if stream and payload.get("stream_options", ...) is None:
        # The user turns it off, for a server that rejects the field itself.
        del payload["stream_options"]
    return payload


def _messages(req: LLMRequest) -> list[dict[str, Any]]:
    if not req.messages and req.system is None:
        return [{"role": "user", "content": req.prompt}]
    system = [] if req.system is None else [{"role": "system", "content": req.system}]
    return [*system, *(outgoing_message(message) for message in req.conversation)]


def outgoing_message(message: Message) -> dict[str, Any]:
    """A message as Chat Completions spells it."""
    said: dict[str, Any] = {"role": message.role, "content": _content(message.content)}
    if message.tool_calls:
        said["tool_calls"] = [outgoing_call(call) for call in message.tool_calls]
        said["content"] = said["content"] or None
    if message.tool_call_id is not None:
        said["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        said["name"] = message.name
    return said


def _content(content: str | Sequence[Text | Image]) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    return [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "image_url", "image_url": {"url": image_url(part)}}
        for part in content
    ]
