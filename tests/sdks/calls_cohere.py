"""How Cohere's SDK is asked."""

from __future__ import annotations

from typing import Any

import cohere

from tests.sdks.cell import PROMPT, Cells, plain

cell = Cells()


def _cohere(base: str) -> Any:
    return cohere.ClientV2("k", base_url=base)


def _async_cohere(base: str) -> Any:
    return cohere.AsyncClientV2("k", base_url=base)


COHERE: dict[str, Any] = {"model": "command-a-03-2025", "messages": PROMPT}
REPEATED: dict[str, Any] = {**COHERE, "request_options": {"max_retries": 4}}
"""The releases of 2025 repeat nothing unless they are asked to, and then two times fewer than asked."""


@cell("cohere")
def cohere_chat(base: str) -> Any:
    with _cohere(base) as client:
        return plain(client.chat(**REPEATED))


@cell("cohere")
async def cohere_chat_async(base: str) -> Any:
    async with _async_cohere(base) as client:
        return plain(await client.chat(**REPEATED))


@cell("cohere", is_stream=True, repeats=False)
def cohere_stream(base: str) -> Any:
    with _cohere(base) as client:
        return [plain(event) for event in client.chat_stream(**COHERE)]


@cell("cohere", is_stream=True, repeats=False)
async def cohere_stream_async(base: str) -> Any:
    async with _async_cohere(base) as client:
        return [plain(event) async for event in client.chat_stream(**COHERE)]
