"""How each SDK streams a reply: a client that repeats nothing, and what it asks for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import cohere
import ollama
import openai
from google import genai
from google.genai import types
from mistralai.client import Mistral

from tests.sdks.held_server import EVENTS, LINES
from tests.sdks.replies import EVERY
from tests.wire.conforming import BEDROCK, Conforming

PROMPT: Any = [{"role": "user", "content": "How much?"}]
_CHAT: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": PROMPT,
    "stream": True,
    "stream_options": {"include_usage": True},
}
_MESSAGE: dict[str, Any] = {"model": "claude-sonnet-4-6", "messages": PROMPT, "max_tokens": 100, "stream": True}
_GEMINI: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "How much?"}
_MISTRAL: dict[str, Any] = {"model": "mistral-large-latest", "messages": PROMPT}
_COHERE: dict[str, Any] = {"model": "command-a-03-2025", "messages": PROMPT}
_OLLAMA: dict[str, Any] = {"model": "qwen3:8b", "messages": PROMPT, "stream": True}
_RESPONSE: dict[str, Any] = {"model": "gpt-5", "input": "How much?", "stream": True}


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to stream."""

    id: str
    reply: Conforming
    """What the server streams."""
    client: Callable[[str, float], Any]
    """Makes a client, by the base URL and the seconds that it waits for bytes."""
    ask: Callable[[Any], Any]
    """Asks for a stream; of an asynchronous client something to await, or the stream itself."""
    close: Callable[[Any], Any] | None = None
    """Closes the client, where it can be closed."""

    @property
    def provider(self) -> str:
        """The provider of the host."""
        return {"openai_responses": "openai"}.get(self.reply.name, self.reply.name)

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """The stream, piece by piece, with its end mark."""
        return tuple(filter(None, (*self.reply.pieces, self.reply.mark)))

    @property
    def first_half(self) -> tuple[bytes, ...]:
        """Pieces with text, and without the finish reason."""
        return self.pieces[: len(self.reply.pieces) // 2]

    @property
    def content_type(self) -> str:
        """That of the stream."""
        return {"ollama": LINES, "bedrock": "application/vnd.amazon.eventstream"}.get(self.reply.name, EVENTS)


def _google(base: str, timeout_s: float) -> Any:
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=base, timeout=int(timeout_s * 1000)))


def _mistral(base: str, timeout_s: float) -> Any:
    return Mistral(api_key="k", server_url=base, timeout_ms=int(timeout_s * 1000))


def _bedrock(base: str, timeout_s: float) -> Any:
    config = importlib.import_module("botocore.config").Config(
        retries={"max_attempts": 0}, proxies={}, read_timeout=timeout_s, connect_timeout=timeout_s
    )
    session = importlib.import_module("botocore.session").get_session()
    return session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=base,
        aws_access_key_id="id",
        aws_secret_access_key="secret",
        config=config,
    )


def _closed(client: Any) -> None:
    client.close()


def _exited(client: Any) -> None:
    client.__exit__(None, None, None)


async def _async_closed(client: Any) -> None:
    await client.close()


async def _async_exited(client: Any) -> None:
    await client.__aexit__(None, None, None)


async def _google_closed(client: Any) -> None:
    await client.aio.aclose()


SYNC: tuple[Way, ...] = (
    Way(
        id="openai",
        reply=EVERY["openai"],
        client=lambda base, s: openai.OpenAI(api_key="k", base_url=f"{base}/v1", max_retries=0, timeout=s),
        ask=lambda client: client.chat.completions.create(**_CHAT),
        close=_closed,
    ),
    Way(
        id="responses",
        reply=EVERY["openai_responses"],
        client=lambda base, s: openai.OpenAI(api_key="k", base_url=f"{base}/v1", max_retries=0, timeout=s),
        ask=lambda client: client.responses.create(**_RESPONSE),
        close=_closed,
    ),
    Way(
        id="anthropic",
        reply=EVERY["anthropic"],
        client=lambda base, s: anthropic.Anthropic(api_key="k", base_url=base, max_retries=0, timeout=s),
        ask=lambda client: client.messages.create(**_MESSAGE),
        close=_closed,
    ),
    Way(
        id="google",
        reply=EVERY["gemini"],
        client=_google,
        ask=lambda client: client.models.generate_content_stream(**_GEMINI),
        close=_closed,
    ),
    Way(
        id="mistral",
        reply=EVERY["mistral"],
        client=_mistral,
        ask=lambda client: client.chat.stream(**_MISTRAL),
        close=_exited,
    ),
    Way(
        id="cohere",
        reply=EVERY["cohere"],
        client=lambda base, s: cohere.ClientV2("k", base_url=base, timeout=s),
        ask=lambda client: client.chat_stream(**_COHERE),
        close=_exited,
    ),
    Way(
        id="ollama",
        reply=EVERY["ollama"],
        client=lambda base, s: ollama.Client(base, timeout=s),
        ask=lambda client: client.chat(**_OLLAMA),
    ),
    Way(
        id="bedrock",
        reply=BEDROCK,
        client=_bedrock,
        ask=lambda client: client.converse_stream(modelId=BEDROCK.model, messages=[])["stream"],
        close=_closed,
    ),
)
"""Over httpx, httpx2 and botocore."""

ASYNC: tuple[Way, ...] = (
    Way(
        id="openai",
        reply=EVERY["openai"],
        client=lambda base, s: openai.AsyncOpenAI(api_key="k", base_url=f"{base}/v1", max_retries=0, timeout=s),
        ask=lambda client: client.chat.completions.create(**_CHAT),
        close=_async_closed,
    ),
    Way(
        id="openai_aiohttp",
        reply=EVERY["openai"],
        client=lambda base, s: openai.AsyncOpenAI(
            api_key="k",
            base_url=f"{base}/v1",
            max_retries=0,
            timeout=s,
            http_client=openai.DefaultAioHttpClient(timeout=s),
        ),
        ask=lambda client: client.chat.completions.create(**_CHAT),
        close=_async_closed,
    ),
    Way(
        id="anthropic",
        reply=EVERY["anthropic"],
        client=lambda base, s: anthropic.AsyncAnthropic(api_key="k", base_url=base, max_retries=0, timeout=s),
        ask=lambda client: client.messages.create(**_MESSAGE),
        close=_async_closed,
    ),
    Way(
        id="google",
        reply=EVERY["gemini"],
        client=_google,
        ask=lambda client: client.aio.models.generate_content_stream(**_GEMINI),
        close=_google_closed,
    ),
    Way(
        id="mistral",
        reply=EVERY["mistral"],
        client=_mistral,
        ask=lambda client: client.chat.stream_async(**_MISTRAL),
        close=_async_exited,
    ),
    Way(
        id="cohere",
        reply=EVERY["cohere"],
        client=lambda base, s: cohere.AsyncClientV2("k", base_url=base, timeout=s),
        ask=lambda client: client.chat_stream(**_COHERE),
        close=_async_exited,
    ),
    Way(
        id="ollama",
        reply=EVERY["ollama"],
        client=lambda base, s: ollama.AsyncClient(base, timeout=s),
        ask=lambda client: client.chat(**_OLLAMA),
    ),
)
"""Over httpx, httpx2 and aiohttp."""
