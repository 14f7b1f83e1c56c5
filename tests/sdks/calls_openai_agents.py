"""How the agents of OpenAI's Agents SDK are asked."""

from __future__ import annotations

import importlib
from typing import Any

from tests.sdks.cell import Cells

agents, openai = (importlib.import_module(name) for name in ("agents", "openai"))
agents.set_tracing_disabled(True)
cell = Cells()
PROMPT = "How much?"


def _client(base: str) -> Any:
    return openai.AsyncOpenAI(api_key="k", base_url=f"{base}/v1")


def _responses(base: str) -> Any:
    return agents.Agent(name="Counter", model=agents.OpenAIResponsesModel("gpt-5", _client(base)))


def _chat(base: str) -> Any:
    settings = agents.ModelSettings(include_usage=True)
    model = agents.OpenAIChatCompletionsModel("gpt-4o", _client(base))
    return agents.Agent(name="Counter", model=model, model_settings=settings)


async def _run(agent: Any) -> Any:
    return (await agents.Runner.run(agent, PROMPT)).final_output


async def _stream(agent: Any) -> Any:
    result = agents.Runner.run_streamed(agent, PROMPT)
    return [event.type async for event in result.stream_events()], result.final_output


@cell("openai_responses_text", "openai")
def openai_agents_sync(base: str) -> Any:
    return agents.Runner.run_sync(_responses(base), PROMPT).final_output


@cell("openai_responses_text", "openai")
async def openai_agents_run(base: str) -> Any:
    return await _run(_responses(base))


@cell("openai_responses_text", "openai", is_stream=True)
async def openai_agents_stream(base: str) -> Any:
    return await _stream(_responses(base))


@cell("openai_text", "openai")
async def openai_agents_chat(base: str) -> Any:
    return await _run(_chat(base))


@cell("openai_text", "openai", is_stream=True)
async def openai_agents_chat_stream(base: str) -> Any:
    return await _stream(_chat(base))
