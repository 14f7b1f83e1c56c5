"""Calls of the nightly tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

import tracemind_otel as tm
from tests.support import Captured
from tracemind_otel.ai.llm.types import Finish, LLMRequest, LLMResponse

_LOOK = {
    "name": "look",
    "description": "Look at the weather somewhere",
    "parameters": {
        "type": "object",
        "properties": {"at": {"type": "string", "enum": ["Oslo"]}},
        "required": ["at"],
    },
}
_ONE = {"tool_choice": "required", "parallel_tool_calls": False}
_IN_CHAT: dict[str, Any] = {"tools": [{"type": "function", "function": _LOOK}], **_ONE}
A_TOOL: dict[str, dict[str, Any]] = {
    "openai": _IN_CHAT,
    "openai_compatible": _IN_CHAT,
    "openai_responses": {"tools": [{"type": "function", **_LOOK}], **_ONE},
    "anthropic": {
        "tools": [{"name": "look", "description": "Look", "input_schema": _LOOK["parameters"]}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    },
}
"""`extra` of a call that must use the tool `look`, once, by the provider's format."""


async def answer(client: tm.AsyncLLMClient, request: LLMRequest, *, streamed: bool) -> LLMResponse:
    """The reply, whole or streamed."""
    if not streamed:
        return await client.complete(request)
    last: object = None
    async with aclosing(cast("AsyncGenerator[Sequence[object]]", client.stream(request))) as batches:
        async for batch in batches:
            last = batch[-1] if batch else last
    assert isinstance(last, Finish)
    return last.response


async def result_of(
    client: tm.AsyncLLMClient, config: tm.LLMCallConfig, capture: Captured, *, streamed: bool
) -> dict[str, Any]:
    """The result of the step, whole or streamed."""
    if not streamed:
        return await tm.run_llm_call("flow", "step", config, capture.recorder(), client=client)
    async with tm.stream_llm_call("flow", "step", config, capture.recorder(), client=client) as stream:
        async for _ in stream:
            pass
    assert stream.result is not None
    return stream.result
