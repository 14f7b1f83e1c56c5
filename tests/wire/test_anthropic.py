"""Anthropic's Messages: bodies of the recorded shapes, whole and streamed, through the client and over a real server.

Shapes after the Anthropic API reference, version 2023-06-01, as of 2026-11.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from anthropic import APIStatusError, AsyncAnthropic
from anthropic.types import Message as SdkMessage
from anthropic.types import MessageParam

from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.support import Captured, attributes
from tests.wire import canned
from tracemind_otel import (
    AsyncLLMClient,
    ConfigError,
    LLMCallConfig,
    LLMRequest,
    LLMResponse,
    LLMResponseError,
    run_llm_call,
)
from tracemind_otel.ai.llm.providers.anthropic import (
    PRESET,
    errors_of,
    from_payload,
    to_payload,
)
from tracemind_otel.ai.llm.types import (
    Finish,
    FinishReason,
    Image,
    Message,
    ReasoningDelta,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from tracemind_otel.errors import LLMConnectionError, LLMQuotaError, LLMRateLimitError, LLMServerError, LLMStatusError
from tracemind_otel.front.model_calls import stream_llm_call

MODEL = "claude-sonnet-4-5-20250929"
Json = dict[str, Any]
Events = list[tuple[str, Json]]
SSE = {"content-type": "text/event-stream; charset=utf-8"}


def usage(input_tokens: int, output_tokens: int, **fields: Any) -> Json:
    """Usage as a whole reply has it."""
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": output_tokens,
        "service_tier": "standard",
        "inference_geo": "global",
        **fields,
    }


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def tool_use(call_id: str, name: str, arguments: Json) -> Json:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


PLAIN_USAGE = usage(12, 6)


@dataclass(frozen=True)
class Case:
    """A reply, served whole and as a stream, and its expected fields."""

    name: str
    content: list[Json]
    stop_reason: str
    finish_reason: FinishReason | None
    usage: Json = field(default_factory=lambda: PLAIN_USAGE)
    text: str = ""
    tokens: tuple[int, int] = (12, 6)
    parts: tuple[int | None, int | None, int | None] = (0, 0, None)
    """Cache read, cache write, reasoning."""
    reasoning: str | None = None
    refusal: str | None = None
    calls: tuple[ToolCall, ...] = ()
    more: Json = field(default_factory=dict[str, Any])

    @property
    def document(self) -> Json:
        """The whole reply."""
        return {
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": self.content,
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": self.usage,
            **self.more,
        }

    @property
    def events(self) -> Events:
        """The same reply as a stream."""
        start: Json = {**self.document, "content": [], "stop_reason": None, "usage": {**self.usage, "output_tokens": 1}}
        delta = {"stop_reason": self.stop_reason, "stop_sequence": None, **self.more}
        last: Json = {"type": "message_delta", "delta": delta, "usage": final_usage(self.usage)}
        blocks = [event for index, block in enumerate(self.content) for event in block_events(index, block)]
        return [
            ("message_start", {"type": "message_start", "message": start}),
            ("ping", {"type": "ping"}),
            *blocks,
            ("message_delta", last),
            ("message_stop", {"type": "message_stop"}),
        ]

    @property
    def stream(self) -> bytes:
        """The bytes of the stream."""
        return sse(self.events)

    def check(self, seen: LLMResponse) -> None:
        """The normal form is the expected one, in every field."""
        counted = seen.usage
        assert seen.text == self.text
        assert seen.finish_reasons == (self.stop_reason,)
        assert seen.finish_reason == self.finish_reason
        assert (counted.prompt_tokens, counted.completion_tokens) == self.tokens
        assert counted.total_tokens == sum(self.tokens)
        assert (counted.cache_read_tokens, counted.cache_write_tokens, counted.reasoning_tokens) == self.parts
        assert (seen.reasoning, seen.refusal, seen.tool_calls) == (self.reasoning, self.refusal, self.calls)
        assert (seen.response_id, seen.response_model) == ("msg_01XFDUDYJgAACzvnptvVoYEL", MODEL)
        assert seen.service_tier == "standard"
        assert seen.raw["content"] == self.content


def final_usage(whole: Json) -> Json:
    """The usage of `message_delta`: cumulative, with nulls and without the fields of the start."""
    return {**whole, "cache_creation": None, "service_tier": None, "server_tool_use": None, "inference_geo": None}


def block_events(index: int, block: Json) -> Events:
    """The events of a block: start, pieces and end."""
    started: Json = block
    pieces: list[Json] = []
    if block["type"] == "text":
        started = {**{key: value for key, value in block.items() if key != "citations"}, "text": ""}
        pieces = [{"type": "text_delta", "text": piece} for piece in halves(block["text"])]
        pieces += [{"type": "citations_delta", "citation": cited} for cited in block.get("citations", [])]
    elif block["type"] == "thinking":
        started = {"type": "thinking", "thinking": "", "signature": ""}
        pieces = [{"type": "thinking_delta", "thinking": piece} for piece in halves(block["thinking"])]
        pieces.append({"type": "signature_delta", "signature": block["signature"]})
    elif block["type"] in ("tool_use", "server_tool_use"):
        started = {**block, "input": {}}
        arguments = json.dumps(block["input"]) if block["input"] else ""
        pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *halves(arguments)]]
    head: Events = [("content_block_start", {"type": "content_block_start", "index": index, "content_block": started})]
    body: Events = [
        ("content_block_delta", {"type": "content_block_delta", "index": index, "delta": each}) for each in pieces
    ]
    return [*head, *body, ("content_block_stop", {"type": "content_block_stop", "index": index})]


def halves(words: str) -> list[str]:
    middle = len(words) // 2
    return [piece for piece in (words[:middle], words[middle:]) if piece]


def sse(events: Events, newline: str = "\n", comment: str = "") -> bytes:
    """The bytes of a stream; like Anthropic's, its data is padded before the closing brace."""
    lines = [f"{comment}event: {name}\ndata: {json.dumps(data)[:-1]}    }}\n\n" for name, data in events]
    return "".join(lines).replace("\n", newline).encode()


WHERE: Json = {"location": "Zürich, CH", "unit": "celsius"}
WEATHER = ToolCall("toolu_01A09q90qw90lq917835lq9", "get_weather", WHERE)
TIME = ToolCall("toolu_01T1x1fJ34qAmk2tNTrN7Up6", "get_time", {})
THINKING = {"type": "thinking", "thinking": "27 times 453: twelve thousand.", "signature": "EqQBCgIYAhIM1gbcDa9GJwZA"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "claude shannon"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_01",
    "content": [{"type": "web_search_result", "url": "https://example.com", "title": "A", "encrypted_content": "Eo8"}],
}
CITED = {
    "type": "web_search_result_location",
    "url": "https://example.com",
    "title": "A",
    "encrypted_index": "Eo8",
    "cited_text": "born",
}

CASES = [
    Case("plain", [text("Grüße, 世界 🎉.")], "end_turn", "stop", text="Grüße, 世界 🎉."),
    Case("stop sequence", [text("one")], "stop_sequence", "stop", text="one"),
    Case(
        "tool",
        [text("Let me look."), tool_use(WEATHER.id, WEATHER.name, WHERE)],
        "tool_use",
        "tool_call",
        text="Let me look.",
        calls=(WEATHER,),
    ),
    Case(
        "parallel tools, one without arguments",
        [
            tool_use(WEATHER.id, WEATHER.name, WHERE),
            tool_use(TIME.id, TIME.name, {}),
        ],
        "tool_use",
        "tool_call",
        calls=(WEATHER, TIME),
    ),
    Case("structured", [text('{"name": "Ada", "age": 36}')], "end_turn", "stop", text='{"name": "Ada", "age": 36}'),
    Case(
        "refusal",
        [],
        "refusal",
        "content_filter",
        refusal="This request could enable harm.",
        more={
            "stop_details": {
                "type": "refusal",
                "category": "bio",
                "explanation": "This request could enable harm.",
            }
        },
    ),
    Case(
        "refusal without an explanation",
        [text("I")],
        "refusal",
        "content_filter",
        text="I",
        refusal="cyber",
        more={"stop_details": {"type": "refusal", "category": "cyber", "explanation": None}},
    ),
    Case("length", [text("The quick")], "max_tokens", "length", text="The quick"),
    Case("context window", [text("The")], "model_context_window_exceeded", "length", text="The"),
    Case(
        "cached",
        [text("ok")],
        "end_turn",
        "stop",
        usage=usage(21, 393, cache_read_input_tokens=188086, cache_creation_input_tokens=2048),
        text="ok",
        tokens=(21 + 188086 + 2048, 393),
        parts=(188086, 2048, None),
    ),
    Case(
        "reasoning",
        [THINKING, {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3p"}, text("12231")],
        "end_turn",
        "stop",
        usage=usage(50, 300, output_tokens_details={"thinking_tokens": 220}),
        text="12231",
        tokens=(50, 300),
        parts=(0, 0, 220),
        reasoning="27 times 453: twelve thousand.",
    ),
    Case(
        "server tools and citations",
        [SEARCH, FOUND, text("Shannon was "), {**text("born in 1916"), "citations": [CITED]}, text(".")],
        "end_turn",
        "stop",
        usage=usage(10682, 510, server_tool_use={"web_search_requests": 1}),
        text="Shannon was born in 1916.",
        tokens=(10682, 510),
    ),
    Case("nothing to say", [], "end_turn", "stop"),
    Case("paused turn", [text("Searching"), SEARCH], "pause_turn", None, text="Searching"),
    Case("a reason of the future", [text("x")], "quantum_collapse", None, text="x"),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


async def read(data: bytes) -> tuple[LLMResponse, Sequence[StreamEvent]]:
    """The reply that a stream adds up to, and its pieces."""
    seen = await canned.read_stream("anthropic", data)
    return seen.response, seen.deltas


def put_together(deltas: Sequence[StreamEvent]) -> tuple[str, str, dict[int, str]]:
    """Text, reasoning and the arguments of each call, from the pieces."""
    arguments: dict[int, str] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            arguments[delta.index] = arguments.get(delta.index, "") + delta.arguments
    said = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    return said, "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)), arguments


# --- Replies, pure


@every_case
def test_whole_reply(case: Case) -> None:
    """A whole reply of each shape has exactly the expected normal form, and `raw` keeps it."""
    seen = from_payload(case.document, request_id="req_1")

    case.check(seen)
    assert seen.raw == case.document
    assert seen.request_id == "req_1"


@every_case
async def test_streamed_reply(case: Case) -> None:
    """The same reply as a stream has the same normal form, and its pieces add up to it."""
    reply, deltas = await read(case.stream)

    case.check(reply)
    said, thought, arguments = put_together(deltas)
    assert (said, thought or None) == (case.text, case.reasoning)
    assert [json.loads(arguments[n] or "{}") for n in sorted(arguments)] == [call.arguments for call in case.calls]


# --- Traps


async def test_usage_of_the_stream_is_not_added() -> None:
    """Where the end reports other input tokens than the start, the end's count, and nothing is added."""
    start = {"usage": usage(100, 1, cache_read_input_tokens=7, output_tokens_details={"thinking_tokens": 1})}
    end: Json = {
        "input_tokens": 10432,
        "output_tokens": 510,
        "cache_read_input_tokens": None,
        "output_tokens_details": {},
    }
    reply, _ = await read(
        sse(
            [
                ("message_start", {"type": "message_start", "message": start}),
                ("message_delta", {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 300}}),
                ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": end}),
            ]
        )
    )

    seen = reply.usage
    assert (seen.prompt_tokens, seen.completion_tokens) == (10432 + 7, 510)
    assert (seen.cache_read_tokens, seen.reasoning_tokens) == (7, 1)


def test_cache_writes_by_time_to_live_and_server_tools() -> None:
    """Cache writes for an hour and for five minutes, and searches, have a count each."""
    usage = {
        "input_tokens": 100,
        "cache_creation_input_tokens": 1000,
        "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600},
        "output_tokens": 50,
        "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
    }
    seen = from_payload({"content": [], "usage": usage}).usage
    assert (seen.prompt_tokens, seen.completion_tokens, seen.total_tokens) == (1100, 50, 1150)
    assert (seen.cache_write_tokens, seen.cache_write_5m_tokens, seen.cache_write_1h_tokens) == (1000, 400, 600)
    assert seen.web_searches == 3
    assert seen.code_executions is None


@pytest.mark.parametrize(
    ("usage", "tier", "conditions"),
    [
        ({"service_tier": "priority"}, "priority", {}),
        ({"service_tier": "standard", "speed": "standard"}, "standard", {}),
        ({"service_tier": "standard", "speed": "fast"}, "standard", {"speed": "fast"}),
        ({"service_tier": "batch"}, None, {"processing": "batch"}),
        ({"inference_geo": "us"}, None, {"inference_geo": "us"}),
        ({"inference_geo": "global"}, None, {}),
        ({"inference_geo": "not_available"}, None, {}),
        ({"iterations": [{"type": "message"}, {"type": "fallback_message"}, {"type": "compaction"}]}, None, {}),
        (
            {"iterations": [{"type": "message"}, {"type": "advisor_message", "input_tokens": 9}]},
            None,
            {"iterations": "advisor_message"},
        ),
        ({"fallback_credit": {"status": {"type": "redeemed"}}}, None, {"fallback_credit": "redeemed"}),
        ({"fallback_credit": {"status": {"type": "not_applied", "reason": "expired"}}}, None, {}),
        ({"iterations": None, "fallback_credit": None}, None, {}),
        ({}, None, {}),
    ],
)
def test_conditions_that_change_the_price(usage: dict[str, str], tier: str | None, conditions: dict[str, str]) -> None:
    """Tier, fast mode, batches, region and whatever else changes the price are reported."""
    reply = from_payload({"content": [], "usage": {"input_tokens": 1, "output_tokens": 1, **usage}})
    assert (reply.service_tier, reply.price_conditions) == (tier, conditions)


COMPACTED: Json = {
    "input_tokens": 23000,
    "output_tokens": 1000,
    "cache_creation_input_tokens": 10,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 0},
    "iterations": [
        {
            "type": "compaction",
            "input_tokens": 180000,
            "output_tokens": 3500,
            "cache_read_input_tokens": 600,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
        },
        {"type": "message", "input_tokens": 20000, "output_tokens": 400},
        {"type": "message", "input_tokens": 3000, "output_tokens": 600, "cache_creation_input_tokens": 10},
    ],
}
"""The compaction is billed, and the counts around it leave it out; the messages are in them."""


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_compaction_is_counted(is_streamed: bool) -> None:
    """The tokens of a server's compaction of the conversation are counted."""
    if is_streamed:
        start: Json = {"usage": {"input_tokens": 20000, "output_tokens": 1}}
        end: Json = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": COMPACTED}
        reply, _ = await read(
            sse([("message_start", {"type": "message_start", "message": start}), ("message_delta", end)])
        )
        seen = reply.usage
    else:
        seen = from_payload({"content": [], "usage": COMPACTED}).usage
    assert (seen.prompt_tokens, seen.completion_tokens, seen.total_tokens) == (203660, 4500, 208160)
    assert (seen.cache_read_tokens, seen.cache_write_tokens) == (600, 60)
    assert (seen.cache_write_5m_tokens, seen.cache_write_1h_tokens) == (30, 30)


def test_what_is_not_reported_is_none() -> None:
    """Without input there is no total, and the input is not zero."""
    seen = from_payload({"content": [], "usage": {"output_tokens": 5}}).usage
    assert (seen.prompt_tokens, seen.completion_tokens, seen.total_tokens) == (None, 5, None)


async def test_a_later_zero_takes_nothing_back() -> None:
    """A proxy's later zero does not overwrite an earlier count of the stream."""
    reply, _ = await read(
        sse(
            [
                (
                    "message_start",
                    {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
                ),
                (
                    "message_delta",
                    {
                        "type": "message_delta",
                        "delta": {"stop_reason": "end_turn"},
                        "usage": {"input_tokens": 0, "output_tokens": 7},
                    },
                ),
            ]
        )
    )
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (9, 7)


async def test_a_later_zero_inside_a_part_takes_nothing_back() -> None:
    """A later zero does not overwrite cache writes by lifetime, or searches."""
    begun = {
        "input_tokens": 9,
        "cache_creation_input_tokens": 600,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 600},
        "server_tool_use": {"web_search_requests": 3},
    }
    last = {
        "output_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "server_tool_use": {"web_search_requests": 0},
    }
    reply, _ = await read(
        sse(
            [
                ("message_start", {"type": "message_start", "message": {"usage": begun}}),
                ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last}),
            ]
        )
    )
    seen = reply.usage
    assert (seen.cache_write_1h_tokens, seen.cache_write_tokens, seen.web_searches) == (600, 600, 3)


async def test_the_mark_of_a_translating_proxy_ends_a_stream() -> None:
    """`[DONE]` after the stop reason ends a stream without `message_stop`; alone it is a cut."""
    start = ("message_start", {"type": "message_start", "message": {"usage": {"input_tokens": 9}}})
    stop = ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    ended, _ = await read(sse([start, stop]) + b"data: [DONE]\n\n")
    assert ended.finish_reasons == ("end_turn",)
    with pytest.raises(LLMConnectionError):
        await read(sse([start]) + b"data: [DONE]\n\n")


STARTED: Json = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": []}
"""The message of a stream that begins."""


async def test_a_stream_that_has_only_begun_knows_its_input() -> None:
    """The first event has the id, the model and the input; its count of output does not cover what follows."""
    start = {**STARTED, "usage": {"input_tokens": 9, "output_tokens": 2}}
    stream = sse([("message_start", {"type": "message_start", "message": start})])
    reply = await canned.read_cut_stream("anthropic", stream)
    assert (reply.response_id, reply.response_model) == ("msg_1", "claude-sonnet-4-5")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (9, None)


async def test_a_short_start_is_not_an_error() -> None:
    """A server may leave out the role and the content of a reply that begins; cut there, it is a cut all the same."""
    stream = sse([("message_start", {"type": "message_start", "message": {"id": "msg_1", "model": "m"}})])
    assert (await canned.read_cut_stream("anthropic", stream)).response_id == "msg_1"


async def test_start_is_never_the_end() -> None:
    """A stream that is cut after its start is no success, though a server copies the stop reason into the start."""
    start = ("message_start", {"type": "message_start", "message": {**STARTED, "stop_reason": "end_turn"}})

    with pytest.raises(LLMConnectionError):
        await read(sse([start]))


async def test_any_form_of_error_event() -> None:
    """An event is an error by its name, its type, or its error field."""
    error = {"type": "api_error", "message": "scripted"}
    forms: Events = [("error", {"message": "x"}), ("message", {"type": "error"}), ("message", {"error": error})]
    for form in forms:
        with pytest.raises(LLMStatusError):
            await read(sse([form]))


async def test_end_mark_alone_is_the_end() -> None:
    """A stream with the end mark and without a stop reason is complete, and has no finish reason."""
    events = [event for event in CASES[0].events if event[0] != "message_delta"]

    reply, _ = await read(sse(events))

    assert reply.finish_reasons == ()


async def test_tool_without_arguments() -> None:
    """A call without arguments, which sends only empty pieces, has an empty object."""
    seen = (await read(CASES[3].stream))[0]

    assert seen.tool_calls[1].arguments == {}


async def test_tool_arguments_with_the_start() -> None:
    """A call whose arguments all come with its start is read, and gives them as a piece."""
    block = tool_use("t", "f", {"a": 1})
    stream = sse(
        [
            ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": block}),
            ("content_block_stop", {"type": "content_block_stop", "index": 0}),
            ("message_stop", {"type": "message_stop"}),
        ]
    )

    reply, deltas = await read(stream)

    assert reply.tool_calls == (ToolCall("t", "f", {"a": 1}),)
    assert deltas == [ToolCallDelta(0, "t", "f", ""), ToolCallDelta(0, None, None, '{"a": 1}')]


async def test_cut_tool_arguments() -> None:
    """Arguments that the token limit cut off stay a string."""
    events = [
        event if '"unit' not in json.dumps(event[1]) else ("ping", {"type": "ping"})
        for event in CASES[2].events
        if event[0] != "content_block_stop"
    ]

    (call,) = (await read(sse(events)))[0].tool_calls

    assert isinstance(call.arguments, str)
    assert call.arguments


async def test_pieces_without_a_start() -> None:
    """Pieces of a block whose start was lost are read as text."""
    piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}}

    reply, deltas = await read(sse([("content_block_delta", piece), ("message_stop", {"type": "message_stop"})]))

    assert deltas == [TextDelta("hi")]
    assert reply.text == "hi"


async def test_tools_of_the_server_are_no_calls() -> None:
    """Tools that the server ran itself are no calls for the user, streamed or whole."""
    case = next(case for case in CASES if case.name == "server tools and citations")
    reply, deltas = await read(case.stream)

    assert not [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert reply.tool_calls == from_payload(case.document).tool_calls == ()


@pytest.mark.parametrize("content", [None, {}, "x", 1])
def test_no_content(content: Any) -> None:
    """A reply without a list of blocks cannot be read; one with an empty list can."""
    with pytest.raises(LLMResponseError, match="no content"):
        from_payload({"content": content})
    assert from_payload({"content": []}).text == ""


def test_cache_writes_by_age_only() -> None:
    """Where only the parts by lifetime are reported, they add up to the cache write."""
    parts = {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 12}

    seen = from_payload({"content": [], "usage": {"input_tokens": 1, "cache_creation": parts}}).usage

    assert (seen.prompt_tokens, seen.cache_write_tokens) == (43, 42)


# --- Errors

SPENT = {
    "type": "error",
    "error": {
        "type": "rate_limit_error",
        "message": "You have reached your specified spend limit.",
        "details": {"error_code": "enforced_spend_limit_reached"},
    },
    "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy",
}


def error_document(kind: str) -> Json:
    return {
        "type": "error",
        "error": {"type": kind, "message": "scripted", "details": None},
        "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy",
    }


STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
RETRYABLE = {409, 429, 500, 504, 529}


def test_error_of_an_unknown_shape() -> None:
    """An error of an unknown type has no status, and a body of another shape no message."""
    assert errors_of(error_document("brand_new_error")).implied_status is None
    assert errors_of([1]).message is None
    assert errors_of({"error": {"type": {}, "details": []}}).code is None


def test_spent_spend_limit_has_its_code() -> None:
    """The code of a spent limit is read from the details."""
    assert errors_of(SPENT).code == "enforced_spend_limit_reached"


# --- Requests


def payload_of(prompt: str = "hi", **fields: Any) -> Json:
    return to_payload(LLMRequest("anthropic", MODEL, prompt, **fields))


def test_parameters() -> None:
    """Each parameter has its field, and zero is sent."""
    request = LLMRequest(
        "anthropic", MODEL, "hi", 0.0, 0.5, max_tokens=9, top_k=3, stop=("a", "b"), reasoning_effort="xhigh", system="s"
    )

    payload = to_payload(request, stream=True)

    assert payload == {
        "model": MODEL,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        "system": "s",
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 3,
        "stop_sequences": ["a", "b"],
        "output_config": {"effort": "xhigh"},
        "stream": True,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"frequency_penalty": 0.0},
        {"presence_penalty": 0.5},
        {"reasoning_effort": "none"},
        {"reasoning_effort": "minimal"},
        {"reasoning_effort": "low", "extra": {"output_config": {"format": {}}}},
    ],
)
def test_unsupported_parameters(fields: Json) -> None:
    """An unsupported parameter is rejected by name, and so is an effort that `extra` would replace."""
    with pytest.raises(ConfigError, match=next(iter(fields))):
        payload_of(**fields)


def test_tool_loop() -> None:
    """Calls are blocks of the assistant, and results of parallel calls are blocks of one user message."""
    messages = (
        Message(role="system", content="be brief"),
        Message(role="user", content="weather and time?"),
        Message(role="assistant", content="Looking.", tool_calls=(WEATHER, ToolCall("t2", "get_time", "{}"))),
        Message(role="tool", content="7 °C", tool_call_id=WEATHER.id, name="get_weather"),
        Message(role="tool", content=(Text("12:00"), Image(data=b"\x89PNG")), tool_call_id="t2"),
        Message(role="assistant", tool_calls=(ToolCall("t3", "f", ""),)),
        Message(role="tool", content="", tool_call_id="t3"),
    )

    payload = payload_of("and now?", messages=messages, system="you are a clock")

    picture = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"\x89PNG").decode()}
    result = {"type": "tool_result"}
    assert payload["system"] == [text("you are a clock"), text("be brief")]
    assert payload["messages"] == [
        {"role": "user", "content": "weather and time?"},
        {
            "role": "assistant",
            "content": [
                text("Looking."),
                {"type": "tool_use", "id": WEATHER.id, "name": "get_weather", "input": WEATHER.arguments},
                tool_use("t2", "get_time", {}),
            ],
        },
        {
            "role": "user",
            "content": [
                {**result, "tool_use_id": WEATHER.id, "content": "7 °C"},
                {**result, "tool_use_id": "t2", "content": [text("12:00"), {"type": "image", "source": picture}]},
            ],
        },
        {"role": "assistant", "content": [tool_use("t3", "f", {})]},
        {"role": "user", "content": [{**result, "tool_use_id": "t3", "content": ""}]},
        {"role": "user", "content": "and now?"},
    ]


def test_later_system_message_stays() -> None:
    """A system message in the middle keeps its place."""
    messages = (Message(role="user", content="a"), Message(role="system", content="b"))

    payload = payload_of("", messages=messages)

    assert payload["messages"] == [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
    assert "system" not in payload


def test_leading_system_message_is_the_system_text() -> None:
    """A system message at the beginning equals the system text."""
    assert payload_of(messages=(Message(role="system", content="s"),)) == payload_of(system="s")


@pytest.mark.parametrize(
    ("image", "source"),
    [
        (Image(url="https://x.test/a.png"), {"type": "url", "url": "https://x.test/a.png"}),
        (Image(data=b"GIF", media_type="image/gif"), {"type": "base64", "media_type": "image/gif", "data": "R0lG"}),
        (Image(url="data:image/gif;base64,R0lG"), {"type": "base64", "media_type": "image/gif", "data": "R0lG"}),
    ],
)
def test_images(image: Image, source: Json) -> None:
    """An image is sent by its URL or its bytes; a data URL is sent as its bytes."""
    message = Message(role="user", content=(Text("what?"), image))

    payload = payload_of("", messages=(message,))

    assert payload["messages"][0]["content"] == [text("what?"), {"type": "image", "source": source}]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Message(role="user", content=(Image(),)), "exactly one"),
        (Message(role="user", content=(Image(url="https://x", data=b"x"),)), "exactly one"),
        (Message(role="assistant", content=(Image(url="https://x"),)), "an image"),
        (Message(role="system", content=(Image(url="https://x"),)), "an image"),
        (Message(role="tool", content="secret result"), "tool_call_id"),
        (Message(role="user", tool_calls=(TIME,)), "tool_calls"),
        (Message(role="tool", tool_call_id="t", tool_calls=(TIME,)), "tool_calls"),
        (Message(role="user", content="secret", tool_call_id="t"), "tool_call_id"),
        (Message(role="user", content="secret", name="Ada"), "name"),
        (Message(role="assistant", tool_calls=(ToolCall("t", "f", '["secret"]'),)), "JSON object"),
        (Message(role="assistant", tool_calls=(ToolCall("t", "f", "{secret"),)), "JSON object"),
    ],
)
def test_unsupported_messages(message: Message, reason: str) -> None:
    """An unsupported message is rejected, and its text is not in the error."""
    with pytest.raises(ConfigError, match=reason) as caught:
        payload_of("", messages=(message,))

    assert "secret" not in str(caught.value)


# --- Over HTTP


def root(server: OpenAIServer) -> str:
    return server.base_url.removesuffix("/v1")


def client_of(server: OpenAIServer) -> AsyncLLMClient:
    return PRESET.client(api_key="k-test-123", base_url=root(server))


def served(case: Case) -> Action:
    return {"body": json.dumps(case.document), "headers": {"request-id": "req_9"}, "gzip": True}


def streamed(case: Case, **fields: Any) -> Action:
    action: Action = {"body": case.stream.decode(), "headers": SSE}
    action.update(fields)  # type: ignore[typeddict-item]
    return action


async def collect(client: AsyncLLMClient, model: str) -> tuple[list[StreamEvent], LLMResponse]:
    """All events of a stream, and the reply at its end."""
    batches = [batch async for batch in client.stream(LLMRequest("anthropic", model, "secret prompt"))]
    found = [event for batch in batches for event in batch]
    last = found[-1]
    assert isinstance(last, Finish)
    return found[:-1], last.response


@pytest.mark.parametrize(("kind", "status"), STATUSES.items())
async def test_errors_over_http(kind: str, status: int, openai_server: OpenAIServer) -> None:
    """Every status of the API has its typed error, as a reply and inside a stream, and says whether to retry."""
    document = error_document(kind)
    inside = sse([*CASES[0].events[:3], ("error", document)]).decode()
    whole = openai_server.script({"status": status, "body": json.dumps(document)})
    model = openai_server.script({"body": inside, "headers": SSE})
    async with client_of(openai_server) as client:
        with pytest.raises(LLMStatusError) as by_status:
            await client.complete(LLMRequest("anthropic", whole, "secret prompt"))
        with pytest.raises(LLMStatusError) as by_event:
            await collect(client, model)

    assert (by_status.value.status_code, by_event.value.status_code) == (status, None)
    for error in (by_status.value, by_event.value):
        assert error.provider_type == kind
        assert error.retryable == (status in RETRYABLE)
        assert "secret" not in str(error)
        assert "k-test" not in str(error)


async def test_x_should_retry_wins(openai_server: OpenAIServer) -> None:
    """Anthropic's header on retries wins over the status."""
    body = json.dumps(error_document("overloaded_error"))
    model = openai_server.script({"status": 529, "body": body, "headers": {"x-should-retry": "false"}})
    async with client_of(openai_server) as client:
        with pytest.raises(LLMServerError) as caught:
            await client.complete(LLMRequest("anthropic", model, "hi"))

    assert not caught.value.retryable


async def test_spent_spend_limit_is_not_repeated(openai_server: OpenAIServer) -> None:
    """A spent spend limit is a quota error, which is not retried, and not a rate limit."""
    spent = openai_server.script({"status": 429, "body": json.dumps(SPENT)})
    busy = openai_server.script({"status": 429, "body": json.dumps(error_document("rate_limit_error"))})
    async with client_of(openai_server) as client:
        with pytest.raises(LLMQuotaError) as caught:
            await client.complete(LLMRequest("anthropic", spent, "hi"))
        with pytest.raises(LLMRateLimitError):
            await client.complete(LLMRequest("anthropic", busy, "hi"))

    assert caught.value.code == "enforced_spend_limit_reached"
    assert not caught.value.retryable


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the key and the server come from Anthropic's variables."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    assert PRESET.client().base_url == "https://api.anthropic.com"
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://proxy.test/anthropic/")

    assert PRESET.client().base_url == "https://proxy.test/anthropic"


# --- The step, its span and its cost

CACHED = next(case for case in CASES if case.name == "cached")


def expected_cost(case: Case) -> float:
    """USD by the table's rates, computed without the package: fresh, read and written input, then output."""
    from genai_prices import data_snapshot

    counted, million = case.usage, Decimal(10**6)
    rates = data_snapshot.get_snapshot().find_provider_model(MODEL, None, "anthropic", None)[1].prices
    assert rates is not None
    total = Decimal(0)
    for name, count in (
        ("input_mtok", counted["input_tokens"]),
        ("cache_read_mtok", counted["cache_read_input_tokens"]),
        ("cache_write_mtok", counted["cache_creation_input_tokens"]),
        ("output_mtok", counted["output_tokens"]),
    ):
        rate = getattr(rates, name)
        # The prompt stays below 200,000 tokens, where the higher tier begins.
        total += Decimal(count) * (rate if isinstance(rate, Decimal) else rate.base) / million
    return float(total)


def assert_recorded(capture: Captured, model: str, case: Case) -> None:
    """The span has the provider, the tokens and the cost."""
    seen = attributes(capture.span(f"chat {model}"))
    assert seen["gen_ai.provider.name"] == "anthropic"
    assert seen["gen_ai.operation.name"] == "chat"
    assert seen["gen_ai.response.model"] == MODEL
    assert seen["gen_ai.response.finish_reasons"] == (case.stop_reason,)
    assert (seen["gen_ai.usage.input_tokens"], seen["gen_ai.usage.output_tokens"]) == case.tokens
    assert seen["gen_ai.usage.cache_read.input_tokens"] == case.parts[0]
    assert seen["gen_ai.usage.cache_write.input_tokens"] == case.parts[1]
    assert seen["gen_ai.usage.cost"] == pytest.approx(expected_cost(case), rel=1e-12)


async def test_run_llm_call(openai_server: OpenAIServer, capture: Captured) -> None:
    """The call returns the text and records one span with tokens and cost; cache writes have their own price."""
    model = openai_server.script(served(CACHED))
    async with client_of(openai_server) as client:
        config = LLMCallConfig("anthropic", model, prompt="hi")
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert (result["status"], result["text"]) == ("ok", "ok")
    assert result["usage"]["cost_usd"] == pytest.approx(expected_cost(CACHED), rel=1e-12)
    assert_recorded(capture, model, CACHED)


async def test_stream_llm_call(openai_server: OpenAIServer, capture: Captured) -> None:
    """A streamed call records the same tokens and cost as a whole one."""
    model = openai_server.script(streamed(CACHED))
    async with client_of(openai_server) as client:
        config = LLMCallConfig("anthropic", model, prompt="hi")
        async with stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            found = [event async for event in stream]

    assert isinstance(found[-1], Finish)
    assert found[-1].response.text == "ok"
    assert_recorded(capture, model, CACHED)


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_a_dearer_place_is_marked(openai_server: OpenAIServer, capture: Captured, is_streamed: bool) -> None:
    """Inference in the US costs 1.1 times as much, which the table does not know: the span marks it."""
    case = replace(CACHED, usage={**CACHED.usage, "inference_geo": "us"})
    model = openai_server.script(streamed(case) if is_streamed else served(case))
    config = LLMCallConfig("anthropic", model, prompt="hi")
    async with client_of(openai_server) as client:
        if is_streamed:
            async with stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
                _ = [event async for event in stream]
        else:
            await run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert attributes(capture.span(f"chat {model}"))["tracemind.cost.partial"] == ("inference_geo=us",)


# --- The official SDK reads the same bodies


def compare(ours: LLMResponse, theirs: SdkMessage) -> None:
    """Text, reasoning, tool calls, stop reason and tokens are the same in both."""
    counted = theirs.usage
    parts = (counted.input_tokens, counted.cache_read_input_tokens or 0, counted.cache_creation_input_tokens or 0)
    assert ours.text == "".join(block.text for block in theirs.content if block.type == "text")
    assert (ours.reasoning or "") == "".join(block.thinking for block in theirs.content if block.type == "thinking")
    calls = [(block.id, block.name, block.input) for block in theirs.content if block.type == "tool_use"]
    assert [(call.id, call.name, call.arguments) for call in ours.tool_calls] == calls
    assert ours.finish_reasons == (theirs.stop_reason,)
    assert (ours.usage.prompt_tokens, ours.usage.completion_tokens) == (sum(parts), counted.output_tokens)
    details = counted.output_tokens_details
    assert ours.usage.reasoning_tokens == (None if details is None else details.thinking_tokens)
    assert (ours.response_id, ours.response_model) == (theirs.id, theirs.model)


def sdk_of(server: OpenAIServer) -> AsyncAnthropic:
    return AsyncAnthropic(api_key="k", base_url=root(server), max_retries=0)


SDK_MESSAGES: list[MessageParam] = [{"role": "user", "content": "hi"}]


@every_case
async def test_sdk_reads_the_same(case: Case, openai_server: OpenAIServer) -> None:
    """Anthropic's SDK reads each body as this client does, whole and streamed."""
    whole, pieces = openai_server.script(served(case)), openai_server.script(streamed(case))
    async with sdk_of(openai_server) as sdk, client_of(openai_server) as client:
        theirs: SdkMessage = await sdk.messages.create(max_tokens=9, model=whole, messages=SDK_MESSAGES)
        compare(await client.complete(LLMRequest("anthropic", whole, "hi")), theirs)
        async with sdk.messages.stream(max_tokens=9, model=pieces, messages=SDK_MESSAGES) as stream:
            streamed_message = await stream.get_final_message()
        compare((await collect(client, pieces))[1], streamed_message)


async def test_sdk_reads_the_same_differing_usage(openai_server: OpenAIServer) -> None:
    """Where a stream's end reports other input tokens than its start, the SDK takes the end's too."""
    case = CASES[0]
    events = case.events
    events[-2] = ("message_delta", {**events[-2][1], "usage": {"input_tokens": 10432, "output_tokens": 510}})
    model = openai_server.script({"body": sse(events).decode(), "headers": SSE})
    async with sdk_of(openai_server) as sdk, client_of(openai_server) as client:
        async with sdk.messages.stream(max_tokens=9, model=model, messages=SDK_MESSAGES) as stream:
            theirs = await stream.get_final_message()
        _, ours = await collect(client, model)

    compare(ours, theirs)
    assert (ours.usage.prompt_tokens, ours.usage.completion_tokens) == (10432, 510)


async def test_sdk_reads_the_same_error(openai_server: OpenAIServer) -> None:
    """Anthropic's SDK gives an error the same status and type."""
    model = openai_server.script({"status": 529, "body": json.dumps(error_document("overloaded_error"))})
    async with sdk_of(openai_server) as sdk, client_of(openai_server) as client:
        with pytest.raises(APIStatusError) as theirs:
            await sdk.messages.create(max_tokens=9, model=model, messages=SDK_MESSAGES)
        with pytest.raises(LLMStatusError) as ours:
            await client.complete(LLMRequest("anthropic", model, "hi"))

    assert theirs.value.status_code == ours.value.status_code
    body: Any = theirs.value.body
    assert body["error"]["type"] == ours.value.provider_type
