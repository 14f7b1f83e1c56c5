"""The official SDK (openai 3.54) and this client read the same from the same server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall

from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.wire.test_chat_stream import DONE, HELLO, STOP, STREAMS, USAGE, chunk, event, tool
from tracemind_otel import LLMRequest, LLMResponse
from tracemind_otel.ai.llm.providers import OpenAILLMClient
from tracemind_otel.ai.llm.types import Finish

STREAM: Any = {"content-type": "text/event-stream"}
LONG = (
    ": hi\n\n"
    + chunk({"reasoning_content": "hm"})
    + HELLO
    + tool("", 0, "call_a", "find")
    + tool('{"q": "x"}', 0)
    + chunk({}, "tool_calls")
    + event({"choices": [], "usage": USAGE})
    + DONE
)


@dataclass(frozen=True)
class Seen:
    """The fields that can be compared."""

    text: str
    calls: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    tokens: tuple[int | None, int | None, int | None]
    parts: tuple[int | None, int | None] = (None, None)


def ours(reply: LLMResponse) -> Seen:
    """The package's response, as comparable fields."""
    usage = reply.usage
    return Seen(
        reply.text,
        tuple((call.name, json.dumps(call.arguments)) for call in reply.tool_calls),
        reply.finish_reasons,
        (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
        (usage.cache_read_tokens, usage.reasoning_tokens),
    )


def theirs(reply: ChatCompletion) -> Seen:
    """The SDK's objects, as comparable fields."""
    message, usage = reply.choices[0].message, reply.usage
    calls = [call for call in message.tool_calls or [] if isinstance(call, ChatCompletionMessageFunctionToolCall)]
    prompt, completion = usage and usage.prompt_tokens_details, usage and usage.completion_tokens_details
    return Seen(
        message.content or "",
        tuple((call.function.name, json.dumps(json.loads(call.function.arguments))) for call in calls),
        tuple(choice.finish_reason for choice in reply.choices),
        (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) if usage else (None, None, None),
        (prompt.cached_tokens if prompt else None, completion.reasoning_tokens if completion else None),
    )


def whole(message: dict[str, Any], finish: str = "stop", **fields: Any) -> str:
    """A whole reply in OpenAI's shape."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
    return json.dumps({**head, "choices": [choice], "usage": USAGE, **fields})


def tool_call(id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call in a whole reply."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


WHOLE = {
    "plain": whole({"content": "Hél\u2028lo"}),
    "blank-lines-first": "\n\n\n" + whole({"content": "a"}),
    "structured": whole({"content": '{"a": 1}'}),
    "refusal": whole({"refusal": "no"}),
    "length": whole({"content": "a"}, "length"),
    "filter": whole({"content": ""}, "content_filter"),
    "tools": whole({"tool_calls": [tool_call("a", "find", '{"q": 1}'), tool_call("b", "add", "{}")]}, "tool_calls"),
    "tools-with-stop": whole({"tool_calls": [tool_call("a", "find", '{"q": 1}')]}),
    "no-usage": whole({"content": "a"}, usage=None),
    "unknown-reason": whole({"content": "a"}, "brand_new"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("gzip", [False, True])
async def test_whole(name: str, gzip: bool, openai_server: OpenAIServer) -> None:
    """A whole reply means the same to the SDK and to us."""
    model = openai_server.script({"body": WHOLE[name], "gzip": gzip})
    async with (
        AsyncOpenAI(api_key="k", base_url=openai_server.base_url, max_retries=0) as sdk,
        OpenAILLMClient("k", openai_server.base_url) as client,
    ):
        reply = await sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
        own = await client.complete(LLMRequest("openai", model, "hi"))

    assert ours(own) == theirs(reply)
    assert own.refusal == reply.choices[0].message.refusal


# The SDK accumulates only what OpenAI itself sends. Left out: what has no index for a piece of a call (it raises),
# arguments that are objects (it concatenates strings), several calls on one index (it merges them), the old
# function_call beside our one form of a call, part lists as content, and broken or absent arguments, which are
# compared as text nowhere.
ACCUMULATED = [
    *("plain", "no-done", "length", "filter", "refusal", "padding", "reasoning_content", "tool", "parallel"),
    *("interleaved", "tool-with-stop", "openrouter", "deepseek", "vllm-nulls", "moderation", "perplexity"),
]
STREAMED = {name: STREAMS[name][0] for name in ACCUMULATED} | {
    "long": LONG,
    "usage": HELLO + STOP + event({"choices": [], "usage": USAGE}) + DONE,
}


@pytest.mark.parametrize("name", STREAMED)
async def test_streamed(name: str, openai_server: OpenAIServer) -> None:
    """The SDK's accumulator and this client read the same from a stream."""
    body = STREAMED[name]
    action: Action = {"body": body, "headers": STREAM, "split_at": [3, len(body) // 2]}
    model = openai_server.script(action)
    async with (
        AsyncOpenAI(api_key="k", base_url=openai_server.base_url, max_retries=0) as sdk,
        OpenAILLMClient("k", openai_server.base_url) as client,
    ):
        reply = await accumulated(sdk, model)
        own = [each async for batch in client.stream(LLMRequest("openai", model, "hi")) for each in batch][-1]

    assert isinstance(own, Finish)
    assert ours(own.response) == reply


async def accumulated(sdk: AsyncOpenAI, model: str) -> Seen:
    """The SDK's chunks put together as its documentation shows; the usage is that of the last chunk with one."""
    text, usage = "", None
    reasons: dict[int, str] = {}
    calls: dict[int, list[str]] = {}
    async for received in await sdk.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hi"}], stream=True
    ):
        usage = received.usage or usage
        for choice in received.choices:
            text += choice.delta.content or ""
            reasons |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
            for piece in choice.delta.tool_calls or []:
                call, function = calls.setdefault(piece.index, ["", ""]), piece.function
                call[0] += (function and function.name) or ""
                call[1] += (function and function.arguments) or ""
    prompt, completion = usage and usage.prompt_tokens_details, usage and usage.completion_tokens_details
    return Seen(
        text,
        tuple((name, json.dumps(json.loads(arguments))) for name, arguments in calls.values()),
        tuple(reasons.values()),
        (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) if usage else (None, None, None),
        (prompt.cached_tokens if prompt else None, completion.reasoning_tokens if completion else None),
    )
