"""How Groq's SDK is asked."""

from __future__ import annotations

import importlib
from typing import Any

from tests.sdks.cell import PROMPT, Cells, plain

groq = importlib.import_module("groq")
cell = Cells()

CHAT: dict[str, Any] = {"model": "llama-3.3-70b-versatile", "messages": PROMPT, "temperature": 0.5}


def _groq(base: str) -> Any:
    return groq.Groq(api_key="k", base_url=base)


def _async_groq(base: str) -> Any:
    return groq.AsyncGroq(api_key="k", base_url=base)


@cell("groq")
def groq_chat(base: str) -> Any:
    with _groq(base) as client:
        return plain(client.chat.completions.create(**CHAT))


@cell("groq")
async def groq_chat_async(base: str) -> Any:
    async with _async_groq(base) as client:
        return plain(await client.chat.completions.create(**CHAT))


@cell("groq")
def groq_chat_raw(base: str) -> Any:
    with _groq(base) as client:
        raw = client.chat.completions.with_raw_response.create(**CHAT)
        return raw.status_code, raw.read(), plain(raw.parse())


@cell("groq", is_stream=True)
def groq_stream(base: str) -> Any:
    with _groq(base) as client:
        return [plain(chunk) for chunk in client.chat.completions.create(**CHAT, stream=True)]


@cell("groq", is_stream=True)
async def groq_stream_async(base: str) -> Any:
    async with _async_groq(base) as client:
        return [plain(chunk) async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
