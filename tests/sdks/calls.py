"""How each SDK is asked: one function a way, which returns all that the caller got, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anthropic
import cohere
import ollama
import openai
from google import genai
from google.genai import types
from mistralai.client import Mistral
from mistralai.client.utils import BackoffStrategy, RetryConfig

Ask = Callable[[str], Any] | Callable[[str], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A way to call a model."""

    id: str
    """The name of the test."""
    ask: Ask
    """Makes the call against a base URL."""
    format: str
    """What the server answers, by its name in `replies.EVERY`."""
    provider: str
    """The provider in the table of hosts."""
    is_stream: bool = False
    """Whether a stream is asked for."""
    repeats: bool = True
    """Whether the SDK repeats failed attempts, by itself or by its documented option."""


CELLS: list[Cell] = []


def cell(format: str, provider: str = "", **options: Any) -> Callable[[Ask], Ask]:
    """Add a way to call a model to the matrix."""

    def add(ask: Ask) -> Ask:
        CELLS.append(Cell(id=ask.__name__, ask=ask, format=format, provider=provider or format, **options))
        return ask

    return add


def plain(value: Any) -> Any:
    """A model of pydantic as plain data."""
    return value.model_dump(warnings=False)


PROMPT: Any = [{"role": "user", "content": "How much?"}]
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": PROMPT, "temperature": 0.5}
CHAT_STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
RESPONSE: dict[str, Any] = {"model": "gpt-5", "input": "How much?"}
MESSAGE: dict[str, Any] = {"model": "claude-sonnet-4-6", "messages": PROMPT, "max_tokens": 100}

# --- OpenAI


def _openai(base: str, **options: Any) -> Any:
    return openai.OpenAI(api_key="k", base_url=f"{base}/v1", **options)


def _async_openai(base: str, **options: Any) -> Any:
    return openai.AsyncOpenAI(api_key="k", base_url=f"{base}/v1", **options)


@cell("openai")
def openai_chat(base: str) -> Any:
    with _openai(base) as client:
        return plain(client.chat.completions.create(**CHAT))


@cell("openai")
async def openai_chat_async(base: str) -> Any:
    async with _async_openai(base) as client:
        return plain(await client.chat.completions.create(**CHAT))


@cell("openai", is_stream=True)
def openai_chat_stream(base: str) -> Any:
    with _openai(base) as client:
        return [plain(chunk) for chunk in client.chat.completions.create(**CHAT_STREAM)]


@cell("openai", is_stream=True)
async def openai_chat_stream_async(base: str) -> Any:
    async with _async_openai(base) as client:
        return [plain(chunk) async for chunk in await client.chat.completions.create(**CHAT_STREAM)]


@cell("openai", is_stream=True)
def openai_chat_stream_helper(base: str) -> Any:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    with _openai(base) as client, client.chat.completions.stream(**CHAT, **options) as stream:
        return [event.type for event in stream], plain(stream.get_final_completion())


@cell("openai", is_stream=True)
async def openai_chat_stream_helper_async(base: str) -> Any:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}}
    async with _async_openai(base) as client, client.chat.completions.stream(**CHAT, **options) as stream:
        return [event.type async for event in stream], plain(await stream.get_final_completion())


@cell("openai")
def openai_chat_raw(base: str) -> Any:
    with _openai(base) as client:
        raw = client.chat.completions.with_raw_response.create(**CHAT)
        return raw.status_code, raw.content, plain(raw.parse())


@cell("openai", is_stream=True)
def openai_chat_raw_stream(base: str) -> Any:
    with _openai(base) as client:
        raw = client.chat.completions.with_raw_response.create(**CHAT_STREAM)
        return raw.status_code, [plain(chunk) for chunk in raw.parse()]


@cell("openai")
def openai_chat_streaming_response(base: str) -> Any:
    with _openai(base) as client, client.chat.completions.with_streaming_response.create(**CHAT) as raw:
        return raw.status_code, b"".join(raw.iter_bytes(7))


@cell("openai", is_stream=True)
async def openai_chat_streaming_response_async(base: str) -> Any:
    async with (
        _async_openai(base) as client,
        client.chat.completions.with_streaming_response.create(**CHAT_STREAM) as raw,
    ):
        return raw.status_code, [line async for line in raw.iter_lines()]


@cell("openai_responses", "openai")
def openai_responses(base: str) -> Any:
    with _openai(base) as client:
        return plain(client.responses.create(**RESPONSE))


@cell("openai_responses", "openai")
async def openai_responses_async(base: str) -> Any:
    async with _async_openai(base) as client:
        return plain(await client.responses.create(**RESPONSE))


@cell("openai_responses", "openai", is_stream=True)
def openai_responses_stream(base: str) -> Any:
    with _openai(base) as client:
        return [plain(event) for event in client.responses.create(**RESPONSE, stream=True)]


@cell("openai_responses", "openai", is_stream=True)
async def openai_responses_stream_async(base: str) -> Any:
    async with _async_openai(base) as client:
        return [plain(event) async for event in await client.responses.create(**RESPONSE, stream=True)]


def _azure(client: Any, base: str) -> Any:
    return client(api_key="k", azure_endpoint=base, api_version="2024-10-21")


@cell("azure_openai")
def azure_chat(base: str) -> Any:
    with _azure(openai.AzureOpenAI, base) as client:
        return plain(client.chat.completions.create(**CHAT))


@cell("azure_openai", is_stream=True)
async def azure_chat_stream_async(base: str) -> Any:
    async with _azure(openai.AsyncAzureOpenAI, base) as client:
        return [plain(chunk) async for chunk in await client.chat.completions.create(**CHAT_STREAM)]


@cell("openai")
async def openai_chat_aiohttp(base: str) -> Any:
    async with _async_openai(base, http_client=openai.DefaultAioHttpClient()) as client:
        return plain(await client.chat.completions.create(**CHAT))


@cell("openai", is_stream=True)
async def openai_chat_aiohttp_stream(base: str) -> Any:
    async with _async_openai(base, http_client=openai.DefaultAioHttpClient()) as client:
        return [plain(chunk) async for chunk in await client.chat.completions.create(**CHAT_STREAM)]


# --- Anthropic


def _anthropic(base: str, **options: Any) -> Any:
    return anthropic.Anthropic(api_key="k", base_url=base, **options)


def _async_anthropic(base: str, **options: Any) -> Any:
    return anthropic.AsyncAnthropic(api_key="k", base_url=base, **options)


@cell("anthropic")
def anthropic_messages(base: str) -> Any:
    with _anthropic(base) as client:
        return plain(client.messages.create(**MESSAGE))


@cell("anthropic")
async def anthropic_messages_async(base: str) -> Any:
    async with _async_anthropic(base) as client:
        return plain(await client.messages.create(**MESSAGE))


@cell("anthropic", is_stream=True)
def anthropic_stream(base: str) -> Any:
    with _anthropic(base) as client:
        return [plain(event) for event in client.messages.create(**MESSAGE, stream=True)]


@cell("anthropic", is_stream=True)
async def anthropic_stream_async(base: str) -> Any:
    async with _async_anthropic(base) as client:
        return [plain(event) async for event in await client.messages.create(**MESSAGE, stream=True)]


@cell("anthropic", is_stream=True)
def anthropic_stream_helper(base: str) -> Any:
    with _anthropic(base) as client, client.messages.stream(**MESSAGE) as stream:
        return list(stream.text_stream), plain(stream.get_final_message())


@cell("anthropic", is_stream=True)
async def anthropic_stream_helper_async(base: str) -> Any:
    async with _async_anthropic(base) as client, client.messages.stream(**MESSAGE) as stream:
        return [text async for text in stream.text_stream], plain(await stream.get_final_message())


@cell("anthropic")
def anthropic_raw(base: str) -> Any:
    with _anthropic(base) as client:
        raw = client.messages.with_raw_response.create(**MESSAGE)
        return raw.status_code, raw.text(), plain(raw.parse())


# --- Google


def _google(base: str) -> Any:
    retries = types.HttpRetryOptions(attempts=3, initial_delay=0.01, max_delay=0.02, jitter=0.0)
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=base, retry_options=retries))


GEMINI: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "How much?"}


def _without_headers(reply: Any) -> Any:
    return reply.model_dump(exclude={"sdk_http_response"}, warnings=False)


@cell("gemini")
def google_generate(base: str) -> Any:
    with _google(base) as client:
        return _without_headers(client.models.generate_content(**GEMINI))


@cell("gemini", is_stream=True)
def google_stream(base: str) -> Any:
    with _google(base) as client:
        return [_without_headers(chunk) for chunk in client.models.generate_content_stream(**GEMINI)]


@cell("gemini")
async def google_generate_async(base: str) -> Any:
    async with _google(base).aio as client:
        return _without_headers(await client.models.generate_content(**GEMINI))


@cell("gemini", is_stream=True)
async def google_stream_async(base: str) -> Any:
    async with _google(base).aio as client:
        return [_without_headers(chunk) async for chunk in await client.models.generate_content_stream(**GEMINI)]


# --- Mistral


def _mistral(base: str) -> Any:
    retries = RetryConfig("backoff", BackoffStrategy(1, 10, 1.5, 10_000, jitter_ms=1), retry_connection_errors=True)
    return Mistral(api_key="k", server_url=base, retry_config=retries)


MISTRAL: dict[str, Any] = {"model": "mistral-large-latest", "messages": PROMPT}


@cell("mistral")
def mistral_chat(base: str) -> Any:
    with _mistral(base) as client:
        return plain(client.chat.complete(**MISTRAL))


@cell("mistral")
async def mistral_chat_async(base: str) -> Any:
    async with _mistral(base) as client:
        return plain(await client.chat.complete_async(**MISTRAL))


@cell("mistral", is_stream=True)
def mistral_stream(base: str) -> Any:
    with _mistral(base) as client, client.chat.stream(**MISTRAL) as stream:
        return [plain(event) for event in stream]


@cell("mistral", is_stream=True)
async def mistral_stream_async(base: str) -> Any:
    async with _mistral(base) as client, await client.chat.stream_async(**MISTRAL) as stream:
        return [plain(event) async for event in stream]


# --- Cohere


def _cohere(base: str) -> Any:
    return cohere.ClientV2("k", base_url=base)


def _async_cohere(base: str) -> Any:
    return cohere.AsyncClientV2("k", base_url=base)


COHERE: dict[str, Any] = {"model": "command-a-03-2025", "messages": PROMPT}


@cell("cohere")
def cohere_chat(base: str) -> Any:
    with _cohere(base) as client:
        return plain(client.chat(**COHERE))


@cell("cohere")
async def cohere_chat_async(base: str) -> Any:
    async with _async_cohere(base) as client:
        return plain(await client.chat(**COHERE))


@cell("cohere", is_stream=True, repeats=False)
def cohere_stream(base: str) -> Any:
    with _cohere(base) as client:
        return [plain(event) for event in client.chat_stream(**COHERE)]


@cell("cohere", is_stream=True, repeats=False)
async def cohere_stream_async(base: str) -> Any:
    async with _async_cohere(base) as client:
        return [plain(event) async for event in client.chat_stream(**COHERE)]


# --- Ollama


def _ollama(base: str) -> Any:
    return ollama.Client(base)


def _async_ollama(base: str) -> Any:
    return ollama.AsyncClient(base)


OLLAMA: dict[str, Any] = {"model": "qwen3:8b", "messages": PROMPT}


@cell("ollama", repeats=False)
def ollama_chat(base: str) -> Any:
    with _ollama(base) as client:
        return plain(client.chat(**OLLAMA))


@cell("ollama", repeats=False)
async def ollama_chat_async(base: str) -> Any:
    async with _async_ollama(base) as client:
        return plain(await client.chat(**OLLAMA))


@cell("ollama", is_stream=True, repeats=False)
def ollama_stream(base: str) -> Any:
    with _ollama(base) as client:
        return [plain(part) for part in client.chat(**OLLAMA, stream=True)]


@cell("ollama", is_stream=True, repeats=False)
async def ollama_stream_async(base: str) -> Any:
    async with _async_ollama(base) as client:
        return [plain(part) async for part in await client.chat(**OLLAMA, stream=True)]
