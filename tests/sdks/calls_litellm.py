"""How LiteLLM is asked: by OpenAI's SDK, and by its own client for Anthropic, Gemini and Mistral.

Gemini's streams are sent when the first chunk is asked for, after the loop that would repeat them.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from tests.sdks.cell import PROMPT, Cells, plain

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it asks nobody for prices
litellm: Any = importlib.import_module("litellm")
litellm.telemetry = False
litellm.suppress_debug_info = True
cell = Cells()

_ASKED: dict[str, Any] = {"messages": PROMPT, "api_key": "k", "num_retries": 2}


def _openai(base: str) -> dict[str, Any]:
    return {**_ASKED, "model": "openai/gpt-4o", "api_base": f"{base}/v1"}


def _anthropic(base: str) -> dict[str, Any]:
    return {**_ASKED, "model": "anthropic/claude-sonnet-4-6", "api_base": base, "max_tokens": 100}


def _gemini(base: str) -> dict[str, Any]:
    return {**_ASKED, "model": "gemini/gemini-2.5-flash", "api_base": f"{base}/v1beta/models/gemini-2.5-flash"}


def _mistral(base: str) -> dict[str, Any]:
    return {**_ASKED, "model": "mistral/mistral-large-latest", "api_base": f"{base}/v1"}


def _kept(reply: Any) -> Any:
    """The reply without what LiteLLM takes from the clock or draws by chance: its id, and those of calls."""
    document = plain(reply)
    for choice in document["choices"]:
        said = choice.get("message") or choice["delta"]
        for call in said.get("tool_calls") or ():
            call["id"] = call["id"] and "drawn"
    return {name: value for name, value in document.items() if name not in ("id", "created", "response_ms")}


STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def _whole(base: dict[str, Any]) -> Any:
    return _kept(litellm.completion(**base))


async def _whole_async(base: dict[str, Any]) -> Any:
    return _kept(await litellm.acompletion(**base))


def _stream(base: dict[str, Any]) -> Any:
    return [_kept(chunk) for chunk in litellm.completion(**base, **STREAM)]


async def _stream_async(base: dict[str, Any]) -> Any:
    return [_kept(chunk) async for chunk in await litellm.acompletion(**base, **STREAM)]


@cell("openai")
def litellm_openai(base: str) -> Any:
    return _whole(_openai(base))


@cell("openai")
async def litellm_openai_async(base: str) -> Any:
    return await _whole_async(_openai(base))


@cell("openai", is_stream=True)
def litellm_openai_stream(base: str) -> Any:
    return _stream(_openai(base))


@cell("openai", is_stream=True)
async def litellm_openai_stream_async(base: str) -> Any:
    return await _stream_async(_openai(base))


@cell("anthropic")
def litellm_anthropic(base: str) -> Any:
    return _whole(_anthropic(base))


@cell("anthropic")
async def litellm_anthropic_async(base: str) -> Any:
    return await _whole_async(_anthropic(base))


@cell("anthropic", is_stream=True)
def litellm_anthropic_stream(base: str) -> Any:
    return _stream(_anthropic(base))


@cell("anthropic", is_stream=True)
async def litellm_anthropic_stream_async(base: str) -> Any:
    return await _stream_async(_anthropic(base))


@cell("gemini")
def litellm_gemini(base: str) -> Any:
    return _whole(_gemini(base))


@cell("gemini")
async def litellm_gemini_async(base: str) -> Any:
    return await _whole_async(_gemini(base))


@cell("gemini", is_stream=True, repeats=False)
def litellm_gemini_stream(base: str) -> Any:
    return _stream(_gemini(base))


@cell("gemini", is_stream=True, repeats=False)
async def litellm_gemini_stream_async(base: str) -> Any:
    return await _stream_async(_gemini(base))


@cell("mistral")
def litellm_mistral(base: str) -> Any:
    return _whole(_mistral(base))


@cell("mistral", is_stream=True)
async def litellm_mistral_stream_async(base: str) -> Any:
    return await _stream_async(_mistral(base))
