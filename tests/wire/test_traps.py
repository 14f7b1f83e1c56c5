"""Ten replies that other clients got wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.wire.canned import read_reply, read_whole
from tracemind_otel.ai.llm.types import LLMResponse, ToolCall

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def events(*documents: Mapping[str, Any], end: str = "\n") -> bytes:
    """An event stream of these documents."""
    lines: list[str] = []
    for document in documents:
        lines += [f"event: {document['type']}"] if isinstance(document.get("type"), str) else []
        lines += [f"data: {json.dumps(document)}", ""]
    return (end.join(lines) + end).encode()


def chunk(delta: Mapping[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of Chat Completions."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c-1", "model": "m-1", "choices": [choice], **more}


async def message(**fields: Any) -> LLMResponse:
    """A whole reply of Chat Completions."""
    return await read_whole("openai", {"choices": [{"index": 0, "message": fields, "finish_reason": "stop"}]})


async def test_azures_empty_first_chunk() -> None:
    """Azure's first chunk has no choices and an empty id and model, which come from the next one."""
    first: dict[str, Any] = {"id": "", "model": "", "choices": [], "prompt_filter_results": []}
    reply = await read_reply("openai", events(first, chunk({"content": "hi"}), chunk({}, "stop")))
    assert (reply.text, reply.response_id, reply.response_model) == ("hi", "c-1", "m-1")


async def test_anthropics_cumulative_and_differing_usage() -> None:
    """The input tokens of `message_delta` win over the start's, and are not added."""
    start: dict[str, Any] = {
        "id": "msg-1",
        "model": "claude-x",
        "content": [],
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }
    stream = events(
        {"type": "message_start", "message": start},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": 25, "output_tokens": 7},
        },
        {"type": "message_stop"},
    )
    reply = await read_reply("anthropic", stream)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (25, 7)


async def test_geminis_last_whole_usage() -> None:
    """Each chunk of Gemini has running totals, and the last block counts as it is."""

    def part(text: str, reason: str | None, **usage: int) -> dict[str, Any]:
        candidate = {"content": {"parts": [{"text": text}]}, "index": 0}
        return {"candidates": [candidate | ({"finishReason": reason} if reason else {})], "usageMetadata": usage}

    stream = events(
        part("a", None, promptTokenCount=5, candidatesTokenCount=1, thoughtsTokenCount=9, totalTokenCount=15),
        part("b", "STOP", promptTokenCount=5, candidatesTokenCount=3, totalTokenCount=8),
        end="\r\n",
    )
    reply = await read_reply("gemini", stream)
    assert (reply.text, reply.usage.prompt_tokens, reply.usage.completion_tokens) == ("ab", 5, 3)
    assert reply.usage.reasoning_tokens is None


async def test_groqs_usage_in_x_groq() -> None:
    """The usage of Groq's older streams, which is only in `x_groq`, is read."""
    reply = await read_reply(
        "openai", events(chunk({"content": "hi"}), chunk({}, "stop", x_groq={"id": "r", "usage": USAGE}))
    )
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (9, 4)


async def test_perplexity_without_done() -> None:
    """A stream of Perplexity ends with its finish reason, without `[DONE]`, and its text is not repeated."""
    last = chunk({"content": ""}, "stop", usage=USAGE)
    last["choices"][0]["message"] = {"role": "assistant", "content": "hi"}
    reply = await read_reply("openai", events(chunk({"content": "hi"}), last, end="\r\n"))
    assert reply.text == "hi"


async def test_content_as_a_list() -> None:
    """Mistral's content may be a list of thinking and text, and a string in the next chunk."""
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "4"}]
    reply = await message(content=thinking)
    assert (reply.text, reply.reasoning) == ("4", "hm")
    streamed = await read_reply(
        "openai", events(chunk({"content": thinking}), chunk({"content": "2"}), chunk({}, "stop"))
    )
    assert (streamed.text, streamed.reasoning) == ("42", "hm")


async def test_empty_function_call() -> None:
    """An empty `function_call` object is no call."""
    assert (await message(content="hi", function_call={})).tool_calls == ()
    streamed = await read_reply("openai", events(chunk({"content": "hi", "function_call": {}}), chunk({}, "stop")))
    assert (streamed.tool_calls, streamed.finish_reason) == ((), "stop")


async def test_missing_index() -> None:
    """A whole tool call without an index is a call."""
    call = {"id": "a", "function": {"name": "find", "arguments": '{"q": 1}'}}
    reply = await read_reply("openai", events(chunk({"tool_calls": [call]}), chunk({}, "tool_calls")))
    assert reply.tool_calls == (ToolCall("a", "find", {"q": 1}),)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({"q": 1}, {"q": 1}), (None, {}), ('{"q": ', '{"q": '), ("", {}), ("[1]", "[1]")],
    ids=["object", "null", "broken", "empty", "array"],
)
async def test_arguments_as_object_null_or_broken_json(arguments: object, expected: object) -> None:
    """Arguments are an object where possible, empty where there are none, and else a string."""
    reply = await message(content=None, tool_calls=[{"id": "a", "function": {"name": "find", "arguments": arguments}}])
    assert reply.tool_calls[0].arguments == expected
    assert reply.finish_reason == "tool_call"


async def test_cohere_without_a_model() -> None:
    """A reply of Cohere has no model."""
    document = {
        "id": "c-1",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
        "usage": {"billed_units": {"input_tokens": 3.0, "output_tokens": 2.0}},
    }
    reply = await read_whole("cohere", document)
    assert (reply.text, reply.response_model) == ("hi", None)
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (3, 2, 5)
