"""How Hugging Face's SDK is asked. It repeats nothing."""

from __future__ import annotations

import importlib
from typing import Any

from tests.sdks.cell import PROMPT, Cells

hub = importlib.import_module("huggingface_hub")
cell = Cells()

CHAT: dict[str, Any] = {"model": "meta-llama/Llama-3.3-70B-Instruct-Turbo", "messages": PROMPT, "temperature": 0.5}
STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


def _client(base: str) -> Any:
    return hub.InferenceClient(base_url=f"{base}/v1", api_key="k")


def _async_client(base: str) -> Any:
    return hub.AsyncInferenceClient(base_url=f"{base}/v1", api_key="k")


@cell("together", repeats=False)
def hugging_face_chat(base: str) -> Any:
    with _client(base) as client:
        return dict(client.chat_completion(**CHAT))


@cell("together", repeats=False)
async def hugging_face_chat_async(base: str) -> Any:
    async with _async_client(base) as client:
        return dict(await client.chat_completion(**CHAT))


@cell("together", repeats=False, is_stream=True)
def hugging_face_stream(base: str) -> Any:
    with _client(base) as client:
        return [dict(chunk) for chunk in client.chat_completion(**STREAM)]


@cell("together", repeats=False, is_stream=True)
async def hugging_face_stream_async(base: str) -> Any:
    async with _async_client(base) as client:
        return [dict(chunk) async for chunk in await client.chat_completion(**STREAM)]
