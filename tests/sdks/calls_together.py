"""How Together's SDK is asked. Until 1.x its asynchronous side repeats nothing."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.sdks.cell import PROMPT, Cells, plain

together = importlib.import_module("together")
cell = Cells()
IS_NEW = not importlib.metadata.version("together").startswith("1.")

CHAT: dict[str, Any] = {"model": "meta-llama/Llama-3.3-70B-Instruct-Turbo", "messages": PROMPT, "temperature": 0.5}


def _together(base: str) -> Any:
    return together.Together(api_key="k", base_url=f"{base}/v1")


def _async_together(base: str) -> Any:
    return together.AsyncTogether(api_key="k", base_url=f"{base}/v1")


@contextmanager
def _shown_errors() -> Generator[None]:
    """Raises the SDK's errors as ones that asyncio can show: before 2.x their `repr` fails on aiohttp's headers."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(str(error)) from None


@cell("together")
def together_chat(base: str) -> Any:
    return plain(_together(base).chat.completions.create(**CHAT))


@cell("together", repeats=IS_NEW)
async def together_chat_async(base: str) -> Any:
    with _shown_errors():
        return plain(await _async_together(base).chat.completions.create(**CHAT))


@cell("together", is_stream=True)
def together_stream(base: str) -> Any:
    return [plain(chunk) for chunk in _together(base).chat.completions.create(**CHAT, stream=True)]


@cell("together", is_stream=True, repeats=IS_NEW)
async def together_stream_async(base: str) -> Any:
    with _shown_errors():
        stream = await _async_together(base).chat.completions.create(**CHAT, stream=True)
        return [plain(chunk) async for chunk in stream]
