"""How pydantic-ai's agents are asked. Since 2.x it asks Anthropic for a stream, whatever it hands on."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from tests.sdks.cell import Cells

cell = Cells()
IS_NEW = not importlib.metadata.version("pydantic-ai-slim").startswith("1.")
PROMPT = "How much?"


def _openai_client(base: str) -> Any:
    """A client of its own: pydantic-ai keeps one for all calls, whose connections end with the event loop."""
    return importlib.import_module("openai").AsyncOpenAI(api_key="k", base_url=f"{base}/v1")


def _openai(base: str) -> Any:
    made = importlib.import_module("pydantic_ai.models.openai").OpenAIChatModel
    provider = importlib.import_module("pydantic_ai.providers.openai").OpenAIProvider
    return _agent(made("gpt-4o", provider=provider(openai_client=_openai_client(base))))


def _responses(base: str) -> Any:
    made = importlib.import_module("pydantic_ai.models.openai").OpenAIResponsesModel
    provider = importlib.import_module("pydantic_ai.providers.openai").OpenAIProvider
    return _agent(made("gpt-5", provider=provider(openai_client=_openai_client(base))))


def _anthropic(base: str) -> Any:
    made = importlib.import_module("pydantic_ai.models.anthropic").AnthropicModel
    provider = importlib.import_module("pydantic_ai.providers.anthropic").AnthropicProvider
    client = importlib.import_module("anthropic").AsyncAnthropic(api_key="k", base_url=base)
    return _agent(made("claude-sonnet-4-6", provider=provider(anthropic_client=client)))


def _agent(model: Any) -> Any:
    return importlib.import_module("pydantic_ai").Agent(model)


def _kept(result: Any) -> Any:
    usage: Any = result.usage() if callable(result.usage) else result.usage
    return result.output, usage.requests, usage.input_tokens, usage.output_tokens


async def _streamed(agent: Any) -> Any:
    async with agent.run_stream(PROMPT) as result:
        return [text async for text in result.stream_text(delta=True, debounce_by=None)]


@cell("openai_text", "openai")
def pydantic_ai_openai(base: str) -> Any:
    return _kept(_openai(base).run_sync(PROMPT))


@cell("openai_text", "openai")
async def pydantic_ai_openai_async(base: str) -> Any:
    return _kept(await _openai(base).run(PROMPT))


@cell("openai_text", "openai", is_stream=True)
async def pydantic_ai_openai_stream(base: str) -> Any:
    return await _streamed(_openai(base))


@cell("openai_responses_text", "openai")
async def pydantic_ai_responses(base: str) -> Any:
    return _kept(await _responses(base).run(PROMPT))


@cell("anthropic_text", "anthropic", is_stream=IS_NEW)
async def pydantic_ai_anthropic(base: str) -> Any:
    return _kept(await _anthropic(base).run(PROMPT))


@cell("anthropic_text", "anthropic", is_stream=True)
async def pydantic_ai_anthropic_stream(base: str) -> Any:
    return await _streamed(_anthropic(base))
