"""How instructor is asked: the reply's tool call is the object that it makes."""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import BaseModel

from tests.sdks.cell import PROMPT, Cells, plain

instructor, openai = (importlib.import_module(name) for name in ("instructor", "openai"))
cell = Cells()

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": PROMPT, "temperature": 0.5}


class get_weather(BaseModel):  # noqa: N801  the name of the tool that the server's reply calls
    """Where the weather is asked for."""

    city: str


def _instructor(base: str) -> Any:
    return instructor.from_openai(openai.OpenAI(api_key="k", base_url=f"{base}/v1"))


def _async_instructor(base: str) -> Any:
    return instructor.from_openai(openai.AsyncOpenAI(api_key="k", base_url=f"{base}/v1"))


@cell("openai")
def instructor_create(base: str) -> Any:
    return plain(_instructor(base).chat.completions.create(**CHAT, response_model=get_weather))


@cell("openai")
async def instructor_create_async(base: str) -> Any:
    return plain(await _async_instructor(base).chat.completions.create(**CHAT, response_model=get_weather))


@cell("openai")
def instructor_with_completion(base: str) -> Any:
    made, reply = _instructor(base).chat.completions.create_with_completion(**CHAT, response_model=get_weather)
    return plain(made), plain(reply)


PARTIAL: dict[str, Any] = {**CHAT, "response_model": get_weather, "stream_options": {"include_usage": True}}


@cell("openai", is_stream=True)
def instructor_partial(base: str) -> Any:
    return [plain(part) for part in _instructor(base).chat.completions.create_partial(**PARTIAL)]


@cell("openai", is_stream=True)
async def instructor_partial_async(base: str) -> Any:
    return [plain(part) async for part in _async_instructor(base).chat.completions.create_partial(**PARTIAL)]
