"""Mistral, an dialect of Chat Completions: what differs, over a real HTTP server that its SDK reads too.

Bodies in the shapes of Mistral's API reference, November 2026.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from mistralai.client import Mistral

from tests.servers.fixture import OpenAIServer
from tests.support import Captured, attributes
from tests.wire.canned import read_whole
from tracemind_otel import ConfigError, LLMCallConfig, LLMRequest, LLMResponse, run_llm_call, stream_llm_call
from tracemind_otel.ai.llm.providers.presets import PRESETS
from tracemind_otel.ai.llm.types import Finish, ToolCall
from tracemind_otel.errors import LLMAuthenticationError, LLMRequestError

PRESET = next(preset for preset in PRESETS if preset.name == "mistral")
MODEL = "mistral-small-2603"
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 64},
}
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
CALL = {"id": "D681PevKs", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
WHOLE: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "chat.completion",
    "created": 1792000000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": [THINKING, {"type": "text", "text": "Grüße 🙂"}],
                "tool_calls": [CALL],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": USAGE,
}


def chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk in the recorded shape, with Mistral's padding."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    head = {"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1792000000, "model": MODEL}
    return {**head, "choices": [choice], "p": "abcdef", **fields}


CHUNKS = [
    chunk({"role": "assistant", "content": [THINKING]}),
    chunk({"content": "Grüße "}),
    chunk({"content": [{"type": "text", "text": "🙂"}]}),
    chunk({"content": "", "tool_calls": [CALL]}, "tool_calls", usage=USAGE),
]
"""Content changes its shape from chunk to chunk; the call is whole and has no index; usage comes with the end."""
STREAM = ("".join(f"data: {json.dumps(c, ensure_ascii=False)}\n\n" for c in CHUNKS) + "data: [DONE]\n\n").encode()
EXPECTED = (
    "Grüße 🙂",
    "Hm",
    (ToolCall("D681PevKs", "weather", {"city": "Paris"}),),
    (100, 20, 120, 64),
    ("tool_calls",),
    "tool_call",
    MODEL,
)


def essence(response: LLMResponse) -> tuple[Any, ...]:
    """The fields that a stream and a whole reply have in common."""
    usage = response.usage
    return (
        response.text,
        response.reasoning,
        response.tool_calls,
        (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cache_read_tokens),
        response.finish_reasons,
        response.finish_reason,
        response.response_model,
    )


async def test_whole_reply() -> None:
    """Thinking in the list of contents is reasoning, and the rest is text."""
    assert essence(await read_whole("mistral", WHOLE)) == EXPECTED


async def test_model_length() -> None:
    """A reply that filled the model's context ended for its length."""
    response = await read_whole(
        "mistral", {"choices": [{"message": {"content": "x"}, "finish_reason": "model_length"}]}
    )

    assert (response.finish_reasons, response.finish_reason) == (("model_length",), "length")


def test_payload() -> None:
    """Mistral rejects unknown fields, so it gets its own names and is not asked for usage."""
    request = LLMRequest("mistral", MODEL, "hi", seed=1, max_tokens=5)

    assert PRESET.wire.to_payload(request, True) == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "random_seed": 1,
        "max_tokens": 5,
        "stream": True,
    }


def test_unsupported() -> None:
    """`top_k` is rejected by name."""
    with pytest.raises(ConfigError, match="top_k"):
        PRESET.wire.to_payload(LLMRequest("mistral", MODEL, "hi", top_k=3), False)


async def test_errors_over_http(openai_server: OpenAIServer) -> None:
    """The `detail` of a 401 is read, and an object as the message of a 422 does no harm."""
    denied = openai_server.script({"status": 401, "body": '{"detail": "Unauthorized"}'})
    details = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}
    body = {"object": "error", "message": details, "type": "invalid_request_error", "code": None}
    wrong = openai_server.script({"status": 422, "body": json.dumps(body)})
    async with PRESET.client(api_key="key-of-a-test", base_url=openai_server.base_url) as client:
        with pytest.raises(LLMAuthenticationError, match="Unauthorized"):
            await client.complete(LLMRequest("mistral", denied, "hi"))
        with pytest.raises(LLMRequestError) as caught:
            await client.complete(LLMRequest("mistral", wrong, "hi"))

    assert caught.value.error_type == "422"


async def test_step(openai_server: OpenAIServer, capture: Captured) -> None:
    """The span has the name `mistral_ai`, and cached input costs the table's price."""
    model = openai_server.script({"body": json.dumps(WHOLE)})
    async with PRESET.client(api_key="key-of-a-test", base_url=openai_server.base_url) as client:
        config = LLMCallConfig("mistral", model, prompt="hi")
        await run_llm_call("f", "s", config, capture.recorder(), client=client)

    found = attributes(capture.spans[0])
    expected = (36 * Decimal("0.15") + 64 * Decimal("0.015") + 20 * Decimal("0.6")) / 10**6
    assert found["gen_ai.provider.name"] == "mistral_ai"
    assert found["gen_ai.usage.cost"] == float(expected)
    assert found["gen_ai.usage.input_tokens"] == 100
    assert found["gen_ai.response.finish_reasons"] == ("tool_calls",)


async def test_sdk_reads_the_same(openai_server: OpenAIServer) -> None:
    """Mistral's SDK finds the same text, calls, reason and counts."""
    model = openai_server.script({"body": json.dumps(WHOLE)})
    sdk: Any = Mistral(api_key="key-of-a-test", server_url=openai_server.base_url.removesuffix("/v1"))
    async with sdk:
        theirs = await sdk.chat.complete_async(model=model, messages=[{"role": "user", "content": "hi"}])
    raw, ours = theirs.model_dump(mode="json"), await read_whole("mistral", WHOLE)

    message = raw["choices"][0]["message"]
    assert "".join(part.get("text") or "" for part in message["content"]) == ours.text
    assert [call["function"]["name"] for call in message["tool_calls"]] == [call.name for call in ours.tool_calls]
    assert raw["choices"][0]["finish_reason"] == ours.finish_reasons[0]
    assert raw["usage"]["prompt_tokens"] == ours.usage.prompt_tokens


async def test_sdk_streams_the_same(openai_server: OpenAIServer) -> None:
    """Mistral's SDK reads the same stream: text, call, reason and counts."""
    model = openai_server.script({"body": STREAM.decode(), "headers": {"content-type": "text/event-stream"}})
    sdk: Any = Mistral(api_key="k", server_url=openai_server.base_url.removesuffix("/v1"))
    async with sdk:
        stream = await sdk.chat.stream_async(model=model, messages=[{"role": "user", "content": "hi"}])
        async with stream:
            raw = [found.data.model_dump(mode="json") async for found in stream]

    last = raw[-1]["choices"][0]
    assert raw[1]["choices"][0]["delta"]["content"] == "Grüße "
    assert raw[2]["choices"][0]["delta"]["content"][0]["text"] == "🙂"
    assert last["finish_reason"] == "tool_calls"
    assert last["delta"]["tool_calls"][0]["id"] == "D681PevKs"
    assert raw[-1]["usage"]["prompt_tokens"] == 100


async def test_streamed_step(openai_server: OpenAIServer, capture: Captured) -> None:
    """A streamed call has the same tokens and cost on its span as a whole one, though it does not ask for usage."""
    model = openai_server.script({"body": STREAM.decode()})
    async with PRESET.client(api_key="key-of-a-test", base_url=openai_server.base_url) as client:
        config = LLMCallConfig("mistral", model, prompt="hi")
        async with stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            events = [found async for found in stream]

    found = attributes(capture.spans[0])
    assert isinstance(events[-1], Finish)
    assert found["gen_ai.usage.output_tokens"] == 20
    assert found["gen_ai.usage.cost"] == float(
        (36 * Decimal("0.15") + 64 * Decimal("0.015") + 20 * Decimal("0.6")) / 10**6
    )
