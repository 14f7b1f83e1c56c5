"""A provider's replies without a server: a test gives the bytes to the public client by a transport of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import tracemind_otel as tm
from tracemind_otel.ai.llm.types import ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from tracemind_otel.errors import LLMStatusError

URL = "http://provider.test/v1"
Headers = Mapping[str, str]
JSON = {"content-type": "application/json"}
EVENTS = "text/event-stream"
KINDS = {"ollama": "application/x-ndjson", "bedrock": "application/vnd.amazon.eventstream"}
"""The content types of streams that are not server-sent events."""
CHOICES: list[dict[str, Any]] = [{}]
"""The choices of the shortest reply of Chat Completions."""
DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta)


class Bytes(httpx.AsyncByteStream):
    """A body that comes in these pieces, and may then break off."""

    def __init__(self, *pieces: bytes, is_cut: bool = False) -> None:
        self._pieces, self._is_cut = pieces, is_cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._is_cut:
            raise httpx.ReadError("cut")


class Canned(httpx.AsyncBaseTransport):
    """Answers each request with one body, and keeps the requests."""

    def __init__(self, body: Bytes, headers: Headers, status: int = 200) -> None:
        self.requests = list[httpx.Request]()
        self._body, self._headers, self._status = body, headers, status

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        return httpx.Response(self._status, headers=self._headers, stream=self._body)


@dataclass(frozen=True)
class Streamed:
    """A stream, as a client reads it."""

    response: tm.LLMResponse
    deltas: Sequence[StreamEvent]
    """The pieces before the whole reply."""

    @property
    def tokens(self) -> tuple[int | None, ...]:
        """Input, output, total, cache read and reasoning tokens."""
        used = self.response.usage
        counts = (used.prompt_tokens, used.completion_tokens, used.total_tokens)
        return (*counts, used.cache_read_tokens, used.reasoning_tokens)


def client_of(provider: str, http_client: httpx.AsyncClient, **options: Any) -> tm.AsyncLLMClient:
    """The provider's client over the test's transport."""
    options = {"api_key": "k", "base_url": URL, **options}
    return tm.LLMClientFactory.make(provider, http_client=http_client, **options)


async def collect(client: tm.AsyncLLMClient, request: tm.LLMRequest) -> Streamed:
    """Read a stream to its end."""
    events = [event async for batch in client.stream(request) for event in batch]
    last = events.pop()
    assert isinstance(last, tm.Finish)
    return Streamed(last.response, [event for event in events if isinstance(event, DELTAS)])


async def read_stream(provider: str, *pieces: bytes, headers: Headers | None = None, **options: Any) -> Streamed:
    """A stream in these pieces, as the provider's client reads it."""
    transport = Canned(Bytes(*pieces), {"content-type": KINDS.get(provider, EVENTS), **(headers or {})})
    async with httpx.AsyncClient(transport=transport) as http_client:
        return await collect(client_of(provider, http_client, **options), tm.LLMRequest(provider, "m", "hi"))


async def read_whole(
    provider: str, document: object, *, status: int = 200, headers: Headers | None = None, **options: Any
) -> tm.LLMResponse:
    """A whole reply, as the provider's client reads it."""
    transport = Canned(Bytes(json.dumps(document).encode()), {**JSON, **(headers or {})}, status)
    async with httpx.AsyncClient(transport=transport) as http_client:
        return await client_of(provider, http_client, **options).complete(tm.LLMRequest(provider, "m", "hi"))


async def sent_body(request: tm.LLMRequest, *, whole: object, **options: Any) -> dict[str, Any]:
    """The body of the request that the provider's client sends for the reply `whole`."""
    transport = Canned(Bytes(json.dumps(whole).encode()), JSON)
    async with httpx.AsyncClient(transport=transport) as http_client:
        await client_of(request.provider, http_client, **options).complete(request)
    (sent,) = transport.requests
    body: dict[str, Any] = json.loads(sent.content)
    return body


async def read_reply(provider: str, *pieces: bytes, **options: Any) -> tm.LLMResponse:
    """The reply that a stream adds up to."""
    return (await read_stream(provider, *pieces, **options)).response


async def read_cut_stream(provider: str, *pieces: bytes) -> tm.LLMResponse:
    """The reply so far that the error has, when a stream ends after these pieces and before its end."""
    with pytest.raises(tm.LLMConnectionError) as caught:
        await read_stream(provider, *pieces)
    assert caught.value.reply is not None
    return caught.value.reply


async def read_error(
    provider: str, body: bytes, status: int, *, headers: Headers | None = None, prompt: str = "", **options: Any
) -> LLMStatusError:
    """The error that the provider's client raises for an error reply."""
    transport = Canned(Bytes(body), headers or {}, status)
    async with httpx.AsyncClient(transport=transport) as http_client:
        with pytest.raises(LLMStatusError) as caught:
            await client_of(provider, http_client, **options).complete(tm.LLMRequest(provider, "m", prompt))
    return caught.value
