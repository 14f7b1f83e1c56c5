"""How Ollama's SDK is asked. Before 0.6.2 its clients cannot be closed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import ollama

from tests.sdks.cell import PROMPT, Cells, plain

cell = Cells()


def _ollama(base: str) -> Any:
    client = ollama.Client(base)
    return client if hasattr(client, "__enter__") else nullcontext(client)


def _async_ollama(base: str) -> Any:
    client = ollama.AsyncClient(base)
    return client if hasattr(client, "__aenter__") else nullcontext(client)


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
