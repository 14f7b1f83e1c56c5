"""Cohere Chat v2: the mapping, the stream at any cut, and a real HTTP server that its SDK reads too.

Bodies in the shapes of Cohere's API reference, November 2026.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import cohere
import pytest

from tests.servers.fixture import OpenAIServer
from tests.support import Captured, attributes
from tests.wire.canned import read_reply, read_whole
from tracemind_otel import ConfigError, LLMCallConfig, LLMRequest, LLMResponse, run_llm_call
from tracemind_otel.ai.llm.providers.cohere import PRESET, from_payload, to_payload, usage_of
from tracemind_otel.ai.llm.types import Image, Message, ToolCall
from tracemind_otel.errors import LLMRequestError, LLMStatusError

USAGE: dict[str, Any] = {
    "billed_units": {"input_tokens": 10.0, "output_tokens": 20.0},
    "tokens": {"input_tokens": 505.0, "output_tokens": 23.0, "reasoning_tokens": 4.0},
    "cached_tokens": 6.0,
}
CALLS = [
    {"id": f"weather_{city}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city": "{city}"}}'}}
    for city in ("Paris", "Oslo")
]
WHOLE: dict[str, Any] = {
    "id": "c14c80c3",
    "message": {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": "Hm "}, {"type": "text", "text": "Grüße\u2028🙂"}],
        "tool_plan": "I will look.",
        "tool_calls": CALLS,
    },
    "finish_reason": "TOOL_CALL",
    "usage": USAGE,
}
DOCUMENTS: list[dict[str, Any]] = [
    {"type": "message-start", "id": "c14c80c3", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "thinking", "thinking": "Hm "}}}},
    {"type": "content-end", "index": 0},
    {"type": "content-start", "index": 1, "delta": {"message": {"content": {"type": "text", "text": "Grü"}}}},
    {"type": "content-delta", "index": 1, "delta": {"message": {"content": {"text": "ße\u2028🙂"}}}},
    {"type": "content-end", "index": 1},
    {"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"start": 0, "end": 1, "text": "G"}}}},
    {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will look."}}},
    *(
        document
        for index, call in enumerate(CALLS)
        for document in (
            {
                "type": "tool-call-start",
                "index": index,
                "delta": {
                    "message": {"tool_calls": {**call, "function": {"name": "weather", "arguments": ""}}},
                },
            },
            *(
                {
                    "type": "tool-call-delta",
                    "index": index,
                    "delta": {"message": {"tool_calls": {"function": {"arguments": piece}}}},
                }
                for piece in ('{"city": ', f'"{("Paris", "Oslo")[index]}"}}')
            ),
            {"type": "tool-call-end", "index": index},
        )
    ),
    {"type": "message-end", "id": "c14c80c3", "delta": {"finish_reason": "TOOL_CALL", "usage": USAGE}},
]


def event(document: dict[str, Any]) -> str:
    """An event with its name, as Cohere frames one."""
    return f"event: {document['type']}\ndata: {json.dumps(document, ensure_ascii=False)}\n\n"


STREAM = ("".join(event(document) for document in DOCUMENTS) + "data: [DONE]\n\n").encode()
BEFORE_END = STREAM.index(b"event: message-end")
EXPECTED = (
    "Grüße\u2028🙂",
    "Hm I will look.",
    (
        ToolCall("weather_Paris", "weather", {"city": "Paris"}),
        ToolCall("weather_Oslo", "weather", {"city": "Oslo"}),
    ),
    (505, 23, 528, 6, 4),
    ("TOOL_CALL",),
    "tool_call",
    "c14c80c3",
    None,
)


def essence(response: LLMResponse) -> tuple[Any, ...]:
    """The fields that a stream and a whole reply have in common."""
    usage = response.usage
    return (
        response.text,
        response.reasoning,
        response.tool_calls,
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            usage.cache_read_tokens,
            usage.reasoning_tokens,
        ),
        response.finish_reasons,
        response.finish_reason,
        response.response_id,
        response.response_model,
    )


def test_whole_reply() -> None:
    """Blocks become text and reasoning, the plan is reasoning, and the reply has no model."""
    assert essence(from_payload(WHOLE)) == EXPECTED


def test_used_where_nothing_is_billed() -> None:
    """Without billed tokens the used tokens count, and absent counts are unknown."""
    usage = usage_of({"tokens": {"input_tokens": 5.0, "output_tokens": 2.0}, "billed_units": None})

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 2, 7)
    assert usage.cache_read_tokens is None
    assert usage.reasoning_tokens is None


def test_payload() -> None:
    """Every parameter has Cohere's name, and extra fields win."""
    request = LLMRequest(
        "cohere",
        "command-a",
        "hi",
        0.0,
        0.9,
        {"safety_mode": "OFF", "seed": 2},
        system="brief",
        max_tokens=5,
        stop=("a",),
        seed=1,
        top_k=3,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        reasoning_effort="none",
    )

    assert to_payload(request, True) == {
        "model": "command-a",
        "messages": [{"role": "system", "content": "brief"}, {"role": "user", "content": "hi"}],
        "stream": True,
        "temperature": 0.0,
        "p": 0.9,
        "k": 3,
        "max_tokens": 5,
        "seed": 2,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "stop_sequences": ["a"],
        "thinking": {"type": "disabled"},
        "safety_mode": "OFF",
    }


def test_messages() -> None:
    """Calls, results and images have their fields."""
    conversation = (
        Message(role="user", content=(Image(data=b"png"), Image(url="https://x/y.png"))),
        Message(role="assistant", tool_calls=(ToolCall("c1", "add", {"a": 1}),)),
        Message(role="tool", content="2", tool_call_id="c1", name="add"),
    )

    assert to_payload(LLMRequest("cohere", "m", "", messages=conversation), False)["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
                {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            ],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "content": "2", "tool_call_id": "c1"},
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"reasoning_effort": "high"},
        {"messages": (Message(role="tool", content="2"),)},
        {"messages": (Message(role="tool", content=(Image(data=b"x"),), tool_call_id="c"),)},
        {"messages": (Message(role="user", content=(Image(),)),)},
    ],
)
def test_unsupported(options: dict[str, Any]) -> None:
    """An unsupported field is rejected, not dropped."""
    with pytest.raises(ConfigError):
        to_payload(LLMRequest("cohere", "m", "hi", **options), False)


@pytest.mark.parametrize("end", [{}, {"delta": {}}, {"delta": {"finish_reason": None}}])
async def test_message_end_is_the_end_without_a_reason(end: dict[str, Any]) -> None:
    """A stream whose `message-end` has no reason is complete, as Cohere's schema allows."""
    reply = await read_reply("cohere", STREAM[:BEFORE_END] + event({"type": "message-end", **end}).encode())

    assert (reply.text, reply.finish_reasons) == (EXPECTED[0], ())


@pytest.mark.parametrize("delta", [{"finish_reason": "ERROR", "error": "went wrong"}, {"finish_reason": "ERROR"}])
async def test_error_in_message_end(delta: dict[str, Any]) -> None:
    """A stream that ends with an error raises it, with Cohere's words where it has any."""
    with pytest.raises(LLMStatusError, match=delta.get("error")) as caught:
        await read_reply("cohere", STREAM[:BEFORE_END] + event({"type": "message-end", "delta": delta}).encode())

    assert caught.value.provider_type == "ERROR"


async def test_the_type_in_an_error_body() -> None:
    """An error has Cohere's words, and the type that Cohere gives at times."""
    document = {"id": "1", "message": "too long", "error_type": "invalid_request"}
    with pytest.raises(LLMRequestError, match="too long") as caught:
        await read_whole("cohere", document, status=400)

    assert caught.value.provider_type == "invalid_request"


async def test_step_prices_by_requested_model(openai_server: OpenAIServer, capture: Captured) -> None:
    """The requested model is priced, since the reply names none: by billed tokens, beside the used ones."""
    scripted = openai_server.script({"body": json.dumps(WHOLE)})
    config = LLMCallConfig("cohere", "command-a", prompt="hi", extra={"model": scripted})
    async with PRESET.client(api_key="key-of-a-test", base_url=openai_server.base_url) as client:
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    found = attributes(capture.spans[0])
    # The table has no price for cached input, so all of it costs what input costs.
    expected = (10 * Decimal("2.5") + 20 * Decimal(10)) / 10**6
    assert result["status"] == "ok"
    assert found["gen_ai.usage.cost"] == float(expected)
    assert found["gen_ai.provider.name"] == "cohere"
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.usage.input_tokens"] == 505
    assert found["gen_ai.usage.output_tokens"] == 23
    assert found["gen_ai.response.finish_reasons"] == ("TOOL_CALL",)
    assert "gen_ai.response.model" not in found


async def test_sdk_reads_the_same(openai_server: OpenAIServer) -> None:
    """Cohere's SDK finds the same text, thinking, calls, reason and counts."""
    model = openai_server.script({"body": json.dumps(WHOLE)})
    sdk: Any = cohere.AsyncClientV2("k", base_url=openai_server.base_url)
    async with sdk:
        theirs = await sdk.chat(model=model, messages=[{"role": "user", "content": "hi"}])
    ours, raw = from_payload(WHOLE), theirs.model_dump()

    blocks = raw["message"]["content"]
    assert "".join(block.get("text") or "" for block in blocks) == ours.text
    assert [call["id"] for call in raw["message"]["tool_calls"]] == [call.id for call in ours.tool_calls]
    assert (raw["id"], raw["finish_reason"]) == (ours.response_id, ours.finish_reasons[0])
    assert raw["usage"]["billed_units"]["input_tokens"] == ours.usage.billed_input_tokens
    assert raw["usage"]["billed_units"]["output_tokens"] == ours.usage.billed_output_tokens
    assert raw["usage"]["cached_tokens"] == ours.usage.cache_read_tokens


async def test_sdk_streams_the_same(openai_server: OpenAIServer) -> None:
    """Cohere's SDK reads the same stream: text, arguments, reason and counts; U+2028 would break its lines."""
    body = STREAM.replace("\u2028".encode(), b"\\u2028").decode()
    model = openai_server.script({"body": body, "headers": {"content-type": "text/event-stream"}})
    sdk: Any = cohere.AsyncClientV2("k", base_url=openai_server.base_url)
    async with sdk:
        stream = sdk.chat_stream(model=model, messages=[{"role": "user", "content": "hi"}])
        raw = [found.model_dump() async for found in stream]

    content = [found for found in raw if found["type"] in ("content-start", "content-delta")]
    text = "".join(found["delta"]["message"]["content"].get("text") or "" for found in content)
    pieces = [found for found in raw if found["type"] == "tool-call-delta"]
    arguments = "".join(found["delta"]["message"]["tool_calls"]["function"]["arguments"] for found in pieces)
    assert text == EXPECTED[0]
    assert arguments == '{"city": "Paris"}{"city": "Oslo"}'
    assert raw[-1]["delta"]["finish_reason"] == "TOOL_CALL"
    assert raw[-1]["delta"]["usage"]["billed_units"].items() >= USAGE["billed_units"].items()
