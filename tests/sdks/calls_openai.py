"""How OpenAI's SDK is asked."""

from __future__ import annotations

from typing import Any

import openai
from pydantic import BaseModel

from tests.sdks.cell import PROMPT, Cells, plain

cell = Cells()

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": PROMPT, "temperature": 0.5}
CHAT_STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
RESPONSE: dict[str, Any] = {"model": "gpt-5", "input": "How much?"}


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


class Weather(BaseModel):
    """The arguments of the tool that the server's replies call."""

    city: str


PARSED: dict[str, Any] = {"tools": [openai.pydantic_function_tool(Weather, name="get_weather")]}


@cell("openai")
def openai_chat_parse(base: str) -> Any:
    with _openai(base) as client:
        reply = client.chat.completions.parse(**CHAT, **PARSED)
        return plain(reply), reply.choices[0].message.tool_calls[0].function.parsed_arguments


@cell("openai")
async def openai_chat_parse_async(base: str) -> Any:
    async with _async_openai(base) as client:
        return plain(await client.chat.completions.parse(**CHAT, **PARSED))


@cell("openai_responses", "openai")
def openai_responses_parse(base: str) -> Any:
    tools = [{"type": "function", "name": "get_weather", "parameters": Weather.model_json_schema(), "strict": True}]
    with _openai(base) as client:
        return plain(client.responses.parse(**RESPONSE, tools=tools))


@cell("openai_responses_text", "openai", is_stream=True)
def openai_responses_stream_helper(base: str) -> Any:
    with _openai(base) as client, client.responses.stream(**RESPONSE) as stream:
        return [event.type for event in stream], plain(stream.get_final_response())


@cell("openai_responses", "openai")
def openai_responses_raw(base: str) -> Any:
    with _openai(base) as client:
        raw = client.responses.with_raw_response.create(**RESPONSE)
        return raw.status_code, raw.content, plain(raw.parse())


def _azure(client: Any, base: str) -> Any:
    return client(api_key="k", azure_endpoint=base, api_version="2024-10-21")


@cell("azure_openai")
def azure_chat(base: str) -> Any:
    with _azure(openai.AzureOpenAI, base) as client:
        return plain(client.chat.completions.create(**CHAT))


@cell("azure_openai")
async def azure_chat_async(base: str) -> Any:
    async with _azure(openai.AsyncAzureOpenAI, base) as client:
        return plain(await client.chat.completions.create(**CHAT))


@cell("azure_openai", is_stream=True)
def azure_chat_stream(base: str) -> Any:
    with _azure(openai.AzureOpenAI, base) as client:
        return [plain(chunk) for chunk in client.chat.completions.create(**CHAT_STREAM)]


@cell("azure_openai", is_stream=True)
async def azure_chat_stream_async(base: str) -> Any:
    async with _azure(openai.AsyncAzureOpenAI, base) as client:
        return [plain(chunk) async for chunk in await client.chat.completions.create(**CHAT_STREAM)]


@cell("azure_responses", "azure_openai")
def azure_responses(base: str) -> Any:
    with _azure(openai.AzureOpenAI, base) as client:
        return plain(client.responses.create(**RESPONSE))


@cell("azure_responses", "azure_openai", is_stream=True)
async def azure_responses_stream_async(base: str) -> Any:
    async with _azure(openai.AsyncAzureOpenAI, base) as client:
        return [plain(event) async for event in await client.responses.create(**RESPONSE, stream=True)]


@cell("openai_responses", "openai", is_stream=True)
async def openai_responses_aiohttp_stream(base: str) -> Any:
    async with _async_openai(base, http_client=openai.DefaultAioHttpClient()) as client:
        return [plain(event) async for event in await client.responses.create(**RESPONSE, stream=True)]


@cell("openai")
async def openai_chat_aiohttp(base: str) -> Any:
    async with _async_openai(base, http_client=openai.DefaultAioHttpClient()) as client:
        return plain(await client.chat.completions.create(**CHAT))


@cell("openai", is_stream=True)
async def openai_chat_aiohttp_stream(base: str) -> Any:
    async with _async_openai(base, http_client=openai.DefaultAioHttpClient()) as client:
        return [plain(chunk) async for chunk in await client.chat.completions.create(**CHAT_STREAM)]
