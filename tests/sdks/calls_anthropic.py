"""How Anthropic's SDK is asked."""

from __future__ import annotations

from typing import Any

import anthropic

from tests.sdks.cell import PROMPT, Cells, plain

cell = Cells()

MESSAGE: dict[str, Any] = {"model": "claude-sonnet-4-6", "messages": PROMPT, "max_tokens": 100}


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
        return raw.status_code, raw.http_response.content, plain(raw.parse())


@cell("anthropic")
async def anthropic_aiohttp(base: str) -> Any:
    async with _async_anthropic(base, http_client=anthropic.DefaultAioHttpClient()) as client:
        return plain(await client.messages.create(**MESSAGE))


@cell("anthropic", is_stream=True)
async def anthropic_aiohttp_stream_helper(base: str) -> Any:
    async with (
        _async_anthropic(base, http_client=anthropic.DefaultAioHttpClient()) as client,
        client.messages.stream(**MESSAGE) as stream,
    ):
        return [text async for text in stream.text_stream], plain(await stream.get_final_message())
