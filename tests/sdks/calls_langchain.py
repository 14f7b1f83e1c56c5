"""How LangChain's chat models for OpenAI and Anthropic are asked."""

from __future__ import annotations

import importlib
from typing import Any

from tests.sdks.cell import Cells

cell = Cells()
PROMPT = "How much?"


def _openai(base: str, **options: Any) -> Any:
    made = importlib.import_module("langchain_openai").ChatOpenAI
    return made(model="gpt-4o", api_key="k", base_url=f"{base}/v1", temperature=0.5, stream_usage=True, **options)


def _responses(base: str) -> Any:
    made = importlib.import_module("langchain_openai").ChatOpenAI
    return made(model="gpt-5", api_key="k", base_url=f"{base}/v1", use_responses_api=True)


def _anthropic(base: str) -> Any:
    made = importlib.import_module("langchain_anthropic").ChatAnthropic
    return made(model="claude-sonnet-4-6", api_key="k", base_url=base, max_tokens=100)


def _kept(message: Any) -> Any:
    """The message without the id that LangChain draws for a run."""
    return {name: value for name, value in message.model_dump(warnings=False).items() if name != "id"}


@cell("openai")
def langchain_openai_invoke(base: str) -> Any:
    return _kept(_openai(base).invoke(PROMPT))


@cell("openai")
async def langchain_openai_ainvoke(base: str) -> Any:
    return _kept(await _openai(base).ainvoke(PROMPT))


@cell("openai", is_stream=True)
def langchain_openai_stream(base: str) -> Any:
    return [_kept(chunk) for chunk in _openai(base).stream(PROMPT)]


@cell("openai", is_stream=True)
async def langchain_openai_astream(base: str) -> Any:
    return [_kept(chunk) async for chunk in _openai(base).astream(PROMPT)]


@cell("openai")
def langchain_openai_batch(base: str) -> Any:
    return [_kept(message) for message in _openai(base).batch([PROMPT])]


@cell("openai_responses", "openai")
def langchain_openai_responses(base: str) -> Any:
    return _kept(_responses(base).invoke(PROMPT))


@cell("openai_responses", "openai", is_stream=True)
async def langchain_openai_responses_astream(base: str) -> Any:
    return [_kept(chunk) async for chunk in _responses(base).astream(PROMPT)]


@cell("anthropic")
def langchain_anthropic_invoke(base: str) -> Any:
    return _kept(_anthropic(base).invoke(PROMPT))


@cell("anthropic")
async def langchain_anthropic_ainvoke(base: str) -> Any:
    return _kept(await _anthropic(base).ainvoke(PROMPT))


@cell("anthropic", is_stream=True)
def langchain_anthropic_stream(base: str) -> Any:
    return [_kept(chunk) for chunk in _anthropic(base).stream(PROMPT)]


@cell("anthropic", is_stream=True)
async def langchain_anthropic_astream(base: str) -> Any:
    return [_kept(chunk) async for chunk in _anthropic(base).astream(PROMPT)]
