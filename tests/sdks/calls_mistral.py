"""How Mistral's SDK is asked."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from tests.sdks.cell import PROMPT, Cells, plain

IS_NEW = not importlib.metadata.version("mistralai").startswith("1.")
mistralai = importlib.import_module("mistralai.client" if IS_NEW else "mistralai")
utils = importlib.import_module(f"{mistralai.__name__}.utils")
cell = Cells()


def _mistral(base: str) -> Any:
    # The releases of 2025 draw their jitter themselves.
    waits = utils.BackoffStrategy(1, 10, 1.5, 10_000, **({"jitter_ms": 1} if IS_NEW else {}))
    retries = utils.RetryConfig("backoff", waits, retry_connection_errors=True)
    return mistralai.Mistral(api_key="k", server_url=base, retry_config=retries)


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
