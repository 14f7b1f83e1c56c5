"""How Google's SDK is asked."""

from __future__ import annotations

from typing import Any

from google import genai
from google.genai import types

from tests.sdks.cell import Cells

cell = Cells()


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
