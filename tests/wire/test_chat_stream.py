"""Chat Completions streamed, in the shapes of the family's servers (provider-wire.md 1.4, 2, 10; 2026-11)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.support import Captured, attributes
from tests.wire.canned import CHOICES, Streamed, collect, read_stream, read_whole, sent_body
from tracemind_otel import LLMCallConfig, LLMRequest, LLMUsage, Message, run_llm_call, stream_llm_call
from tracemind_otel.ai.llm.providers import OpenAILLMClient
from tracemind_otel.ai.llm.providers.presets import PRESETS
from tracemind_otel.ai.llm.types import (
    Finish,
    ReasoningDelta,
    ReportedCost,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from tracemind_otel.errors import (
    LLMConnectionError,
    LLMError,
    LLMRateLimitError,
    LLMRequestError,
    LLMResponseError,
    LLMServerError,
    LLMStatusError,
)

BY_NAME = {preset.name: preset for preset in PRESETS}
DONE = "data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 200,
    "total_tokens": 1200,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens_details": {"reasoning_tokens": 50},
}
TOKENS = (1000, 200, 1200, 400, 50)


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, index: int = 0, **fields: Any) -> str:
    """One event of a stream, with one choice."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return event({"choices": [choice], **fields})


def event(document: Mapping[str, Any]) -> str:
    """One event of a stream, with the fields that all events have."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini-2024-07-18"}
    return f"data: {json.dumps({**head, **document}, ensure_ascii=False)}\n\n"


def tool(arguments: Any, index: int | None = 0, id: str | None = None, name: str | None = None) -> str:
    """A piece of a tool call; fields that are None are left out."""
    function = {"name": name, "arguments": arguments} if name is not None else {"arguments": arguments}
    piece: dict[str, Any] = {"function": function}
    piece |= {"index": index} if index is not None else {}
    piece |= {"id": id, "type": "function"} if id is not None else {}
    return chunk({"tool_calls": [piece]})


START = chunk({"role": "assistant", "content": "", "refusal": None})
HELLO = START + chunk({"content": "Hél"}) + chunk({"content": "lo\u2028😀"})
TEXT = "Hél" + "lo\u2028😀"
STOP = chunk(finish="stop")
END = chunk(finish="tool_calls") + DONE
A, B = ToolCall("call_a", "find", {"q": "x"}), ToolCall("call_b", "add", {"n": 1})


async def read(body: str | bytes, dialect: str | None = None) -> Streamed:
    """What the client of a server of the family makes of a stream; OpenAI's by default."""
    return await read_stream(dialect or "openai", body.encode() if isinstance(body, str) else body)


async def usage_of(usage: Mapping[str, Any], **reply: Any) -> LLMUsage:
    """What OpenAI's client makes of the usage in a whole reply."""
    return (await read_whole("openai", {"choices": CHOICES, "usage": usage, **reply})).usage


STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (HELLO + STOP + DONE, {"text": TEXT}),
    "no-done": (HELLO + STOP, {"text": TEXT}),
    "done-without-reason": (HELLO + DONE, {"text": TEXT, "finish_reasons": (), "finish_reason": None}),
    "length": (HELLO + chunk(finish="length") + DONE, {"text": TEXT, "finish_reason": "length"}),
    "filter": (START + chunk(finish="content_filter") + DONE, {"finish_reason": "content_filter"}),
    "eos": (HELLO + chunk(finish="eos") + DONE, {"text": TEXT, "finish_reasons": ("eos",), "finish_reason": "stop"}),
    "unknown": (HELLO + chunk(finish="new") + DONE, {"text": TEXT, "finish_reasons": ("new",), "finish_reason": None}),
    "no-resource": (HELLO + chunk(finish="insufficient_system_resource"), {"text": TEXT, "finish_reason": "error"}),
    "n": (
        START
        + chunk({"content": ""}, index=1)
        + chunk({"content": "a"})
        + chunk({"content": "X"}, index=1)
        + chunk(finish="length", index=1)
        + chunk({"content": "b"})
        + STOP
        + DONE,
        {"text": "ab", "finish_reasons": ("stop", "length"), "finish_reason": "stop"},
    ),
    "refusal": (START + chunk({"refusal": "I "}) + chunk({"refusal": "can't"}) + STOP + DONE, {"refusal": "I can't"}),
    "padding": (
        chunk({"content": "a"}, obfuscation="xK2") + chunk(finish="stop", obfuscation="q") + DONE,
        {"text": "a"},
    ),
    "moderation": (HELLO + event({"choices": [], "moderation": {"input": {}}}) + STOP + DONE, {"text": TEXT}),
    "reasoning_content": (
        chunk({"reasoning_content": "h", "content": None}) + chunk({"reasoning_content": "m"}) + HELLO + STOP + DONE,
        {"text": TEXT, "reasoning": "hm"},
    ),
    "reasoning": (
        chunk({"reasoning": "hm", "content": "", "reasoning_details": [{}]}) + HELLO + STOP + DONE,
        {"text": TEXT, "reasoning": "hm"},
    ),
    "both-reasonings": (
        chunk({"reasoning": "hm", "reasoning_content": "hm"}) + STOP + DONE,
        {"reasoning": "hm"},
    ),
    "tool": (
        tool("", id="call_a", name="find") + tool('{"q"') + tool(': "x"}') + END,
        {"tool_calls": (A,), "finish_reason": "tool_call"},
    ),
    "parallel": (
        tool("", 0, "call_a", "find")
        + tool('{"q": "x"}', 0)
        + tool("", 1, "call_b", "add")
        + tool('{"n": ', 1)
        + tool("1}", 1)
        + END,
        {"tool_calls": (A, B)},
    ),
    "interleaved": (
        tool("", 0, "call_a", "find")
        + tool("", 1, "call_b", "add")
        + tool('{"q": ', 0)
        + tool('{"n": 1}', 1)
        + tool('"x"}', 0)
        + END,
        {"tool_calls": (A, B)},
    ),
    "id-repeated": (
        tool('{"q": ', 0, "call_a", "find") + tool('"x"}', 0, "call_a") + tool("", 0, "call_a", "") + END,
        {"tool_calls": (A,)},
    ),
    "no-index": (
        tool('{"q": ', None, "call_a", "find")
        + tool('"x"}', None)
        + tool('{"n"', None, "call_b", "add")
        + tool(": 1}", None)
        + END,
        {"tool_calls": (A, B)},
    ),
    "no-index-but-ids": (
        tool("", None, "call_a", "find")
        + tool("", None, "call_b", "add")
        + tool('{"q": "x"}', None, "call_a")
        + tool('{"n": 1}', None, "call_b")
        + END,
        {"tool_calls": (A, B)},
    ),
    "no-index-no-id": (
        tool('{"q": "x"}', None, None, "find") + tool('{"n": 1}', None, "", "add") + END,
        {"tool_calls": (replace(A, id="call_0"), replace(B, id="call_1"))},
    ),
    "index-always-zero": (
        tool('{"q": "x"}', 0, "call_a", "find") + tool('{"n": ', 0, "call_b", "add") + tool("1}", 0) + END,
        {"tool_calls": (A, B)},
    ),
    "arguments-object": (tool({"q": "x"}, id="call_a", name="find") + END, {"tool_calls": (A,)}),
    "arguments-null": (tool(None, id="call_a", name="find") + END, {"tool_calls": (replace(A, arguments={}),)}),
    "arguments-broken": (
        tool('{"q": ', id="call_a", name="find") + END,
        {"tool_calls": (replace(A, arguments='{"q": '),)},
    ),
    "arguments-list": (tool("[1]", id="call_a", name="find") + END, {"tool_calls": (replace(A, arguments="[1]"),)}),
    "tool-with-stop": (
        tool('{"q": "x"}', id="call_a", name="find") + STOP + DONE,
        {"tool_calls": (A,), "finish_reasons": ("stop",), "finish_reason": "tool_call"},
    ),
    "old-function-call": (
        chunk({"function_call": {"name": "find", "arguments": ""}})
        + chunk({"function_call": {"arguments": '{"q": '}})
        + chunk({"function_call": {"arguments": '"x"}'}})
        + chunk(finish="function_call")
        + DONE,
        {"tool_calls": (replace(A, id="call_0"),), "finish_reason": "tool_call"},
    ),
    "empty-function-call": (
        chunk({"content": "a", "function_call": {}}, finish="")
        + chunk({"function_call": {"name": "", "arguments": ""}}, finish="stop")
        + DONE,
        {"text": "a", "tool_calls": (), "finish_reason": "stop"},
    ),
    "empty-strings": (
        chunk({"content": "a"}, "", id="", model="") + chunk({}, "stop", id="", model="", service_tier="") + DONE,
        {"text": "a", "response_id": None, "response_model": None, "service_tier": None},
    ),
    "azure-head": (
        event({"id": "", "model": "", "choices": [], "prompt_filter_results": []}) + HELLO + STOP + DONE,
        {"text": TEXT, "response_id": "chatcmpl-1", "response_model": "gpt-4o-mini-2024-07-18"},
    ),
    "tier": (chunk({"content": "a"}, service_tier="flex") + STOP + DONE, {"text": "a", "service_tier": "flex"}),
    "openrouter": (
        ": OPENROUTER PROCESSING\n\n" * 3 + HELLO + ": OPENROUTER PROCESSING\n\n" + STOP + DONE,
        {"text": TEXT},
    ),
    "deepseek": (": keep-alive\n\n\n\n" + HELLO + ": keep-alive\n\n" + STOP + DONE, {"text": TEXT}),
    "vllm-nulls": (
        chunk({"content": "a", "tool_calls": None, "reasoning": None}, prompt_logprobs=None, kv_transfer_params=None)
        + chunk(None, "stop", error=None, usage=None)
        + DONE,
        {"text": "a"},
    ),
    "parts": (
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}) + HELLO + STOP + DONE,
        {"text": TEXT, "reasoning": "hm"},
    ),
    "perplexity": (
        (
            chunk({"role": "assistant", "content": "a"}, message={"role": "assistant", "content": "a"})
            + event(
                {
                    "object": "chat.completion.done",
                    "citations": ["https://example.com"],
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": "a"},
                            "delta": {"role": "assistant", "content": ""},
                            "finish_reason": "stop",
                        }
                    ],
                }
            )
        ).replace("\n", "\r\n"),
        {"text": "a"},
    ),
}
DEFAULTS: dict[str, Any] = {
    "text": "",
    "finish_reasons": None,
    "finish_reason": None,
    "reasoning": None,
    "refusal": None,
    "tool_calls": (),
    "response_id": "chatcmpl-1",
    "response_model": "gpt-4o-mini-2024-07-18",
    "service_tier": None,
}


@pytest.mark.parametrize("name", STREAMS)
async def test_stream(name: str) -> None:
    """Each shape of stream gives exactly its normal form, in odd pieces too, and the deltas add up to it."""
    body, fields = STREAMS[name]
    data = body.encode()
    ends = sorted({1, 7, len(data) // 3, len(data) // 2, len(data) - 2, len(data)})

    pieces = [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    seen = await read(data)

    assert await read_stream("openai", *pieces) == seen
    expected = DEFAULTS | fields
    if "finish_reason" not in fields:
        expected["finish_reason"] = "tool_call" if fields.get("tool_calls") else "stop"
    if "finish_reasons" not in fields:
        expected["finish_reasons"] = seen.response.finish_reasons
        assert len(seen.response.finish_reasons) == 1
    assert {field: getattr(seen.response, field) for field in expected} == expected
    assert_deltas_add_up(seen)


def assert_deltas_add_up(seen: Streamed) -> None:
    """The deltas add up to the reply."""
    text = "".join(delta.text for delta in seen.deltas if isinstance(delta, TextDelta))
    thought = "".join(delta.text for delta in seen.deltas if isinstance(delta, ReasoningDelta))
    pieces = [delta for delta in seen.deltas if isinstance(delta, ToolCallDelta)]
    calls = {piece.index: [each for each in pieces if each.index == piece.index] for piece in pieces}
    assert (text, thought) == (seen.response.text, seen.response.reasoning or "")
    assert [call[0].name for call in calls.values()] == [call.name for call in seen.response.tool_calls]
    for call, whole in zip(calls.values(), seen.response.tool_calls, strict=True):
        joined = "".join(piece.arguments for piece in call)
        is_object = isinstance(whole.arguments, Mapping)
        assert (json.loads(joined or "{}") if is_object else joined) == whole.arguments
        assert call[0].id in (None, whole.id)


SPENT: dict[str, tuple[str, str | None, tuple[int | None, ...]]] = {
    "extra-chunk": (HELLO + STOP + event({"choices": [], "usage": USAGE}) + DONE, None, TOKENS),
    "extra-chunk-and-nulls": (
        chunk({"content": "a"}, usage=None) + STOP + event({"choices": [], "usage": USAGE}) + DONE,
        None,
        TOKENS,
    ),
    "finish-chunk": (HELLO + chunk(finish="stop", usage=USAGE) + DONE, "together", TOKENS),
    "all-chunks": (
        chunk({"content": "a"}, usage={"prompt_tokens": 1000, "completion_tokens": 1, "total_tokens": 1001})
        + chunk({}, "stop", usage=USAGE)
        + DONE,
        "vllm",
        TOKENS,
    ),
    "null-after": (chunk({}, "stop", usage=USAGE) + event({"choices": [], "usage": None}) + DONE, None, TOKENS),
    "x_groq": (HELLO + chunk({}, "stop", x_groq={"id": "req_1", "usage": USAGE}) + DONE, "groq", TOKENS),
    "nowhere": (HELLO + STOP + DONE, None, (None, None, None, None, None)),
    "choice-beside": (HELLO + STOP + chunk({"content": ""}, usage=USAGE) + DONE, "openrouter", TOKENS),
}


@pytest.mark.parametrize("name", SPENT)
async def test_where_usage_stands(name: str) -> None:
    """The last usage that is not null counts, wherever it is."""
    body, dialect, tokens = SPENT[name]

    assert (await read(body, dialect)).tokens == tokens


XAI = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 35,
    "completion_tokens_details": {"reasoning_tokens": 20},
}
READ_USAGE: list[tuple[str, str, Mapping[str, Any], tuple[int | None, ...]]] = [
    ("xai adds reasoning", "xai", XAI, (10, 25, 35, None, 20)),
    ("xai on azure", "xai", {**XAI, "total_tokens": 15}, (10, 5, 15, None, 5)),
    ("xai otherwise", "xai", {**XAI, "total_tokens": 40}, (10, 5, 40, None, 5)),
    (
        "mistral's audio",
        "mistral",
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40, "num_cached_tokens": 4},
        (10, 5, 40, 4, None),
    ),
    (
        "deepseek's cache",
        "deepseek",
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_cache_hit_tokens": 8,
            "prompt_cache_miss_tokens": 2,
        },
        (10, 5, 15, 8, None),
    ),
    (
        "more cached than prompt",
        "xai",
        {"prompt_tokens": 10, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 64}},
        (10, 1, 11, 10, None),
    ),
    (
        "more reasoning than output",
        "openrouter",
        {"prompt_tokens": 10, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 11}},
        (10, 10, 20, None, 10),
    ),
    ("no prompt", "openai_compatible", {"total_tokens": 9}, (None, None, 9, None, None)),
]


@pytest.mark.parametrize(
    ("dialect", "usage", "tokens"), [case[1:] for case in READ_USAGE], ids=[c[0] for c in READ_USAGE]
)
async def test_usage_of_the_family(dialect: str, usage: Mapping[str, Any], tokens: tuple[int | None, ...]) -> None:
    """Each server's way of counting gives input with its cache and output with its reasoning, streamed and whole."""
    streamed = await read(HELLO + chunk({}, "stop", usage=usage) + DONE, dialect)
    whole = await read_whole(dialect, {"choices": [{"message": {"content": "a"}}], "usage": usage})

    assert streamed.tokens == tokens
    assert whole.usage == streamed.response.usage


BYOK = {"cost": 0.001, "is_byok": True}


@pytest.mark.parametrize(
    ("dialect", "usage", "cost"),
    [
        ("openrouter", {"cost": 0.00012}, ReportedCost(usd=0.00012)),
        ("openrouter", {"cost": 0.5, "cost_details": {"upstream_inference_cost": 0.5}}, ReportedCost(usd=0.5)),
        (
            "openrouter",
            {**BYOK, "cost_details": {"upstream_inference_cost": 0.02}},
            ReportedCost(usd=0.021, fees_usd=0.001),
        ),
        ("openrouter", BYOK, ReportedCost(usd=None, fees_usd=0.001)),
        ("openrouter", {**BYOK, "cost_details": None}, ReportedCost(usd=None, fees_usd=0.001)),
        (
            "openrouter",
            {**BYOK, "cost_details": {"upstream_inference_cost": 0}},
            ReportedCost(usd=None, fees_usd=0.001),
        ),
        ("openrouter", {"is_byok": True}, ReportedCost(usd=None, partial=("fees_usd",))),
        ("openrouter", {"is_byok": True, "cost": None}, ReportedCost(usd=None, partial=("fees_usd",))),
        (
            "openrouter",
            {"is_byok": True, "cost": None, "cost_details": {"upstream_inference_cost": None}},
            ReportedCost(usd=None, partial=("fees_usd",)),
        ),
        (
            "openrouter",
            {"is_byok": True, "cost": None, "cost_details": {"upstream_inference_cost": 0.02}},
            ReportedCost(usd=0.02, partial=("fees_usd",)),
        ),
        ("openrouter", {"is_byok": False, "cost": None}, None),
        ("openrouter", {"cost": {"total_cost": 1}}, None),
        (
            "perplexity",
            {
                "cost": {
                    "input_tokens_cost": 0.125,
                    "output_tokens_cost": 0.25,
                    "request_cost": 0.5,
                    "total_cost": 0.875,
                }
            },
            ReportedCost(usd=0.875, input_usd=0.125, output_usd=0.25, fees_usd=0.5),
        ),
        ("perplexity", {"cost": {"total_cost": 0.3}}, ReportedCost(usd=0.3)),
        ("perplexity", {"cost": {"total_cost": "0.3"}}, None),
        ("perplexity", {"cost": {"total_cost": -1}}, None),
        ("perplexity", {"cost": {"total_cost": 0.3, "currency": "EUR"}}, None),
        ("openrouter", {"cost": 0.5, "cost_currency": "EUR"}, None),
        ("perplexity", {"cost": {}}, None),
        ("perplexity", {"cost": 0.5}, None),
        ("xai", {"cost_in_usd_ticks": 37756000}, ReportedCost(usd=0.0037756)),
        ("xai", {"cost": 3.0}, None),
        ("openai_compatible", {"cost": 42.0}, None),
        ("deepseek", {"cost": 42.0}, None),
        ("mistral", {"cost": {"total_cost": 42.0}}, None),
    ],
)
async def test_cost_in_the_reply(dialect: str, usage: Mapping[str, Any], cost: ReportedCost | None) -> None:
    """A cost is believed only from servers that document its unit, and is read in each one's spelling."""
    assert (await read(chunk({}, "stop", usage={"prompt_tokens": 1, **usage}), dialect)).response.reported_cost == cost


async def test_an_ignored_cost_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A cost without a documented unit is ignored: the log says so once for each server, and says what to do."""
    body = chunk({}, "stop", usage={"prompt_tokens": 1, "cost": 42.0}).encode()
    for _ in range(3):
        await read_stream("openai_compatible", body, provider_name="no-unit")
    assert [record.message for record in caplog.records if "no-unit" in record.message] == [
        "the cost in the replies of no-unit is ignored: its unit is not documented; pass cost_unit='USD' to the "
        "factory if it is USD"
    ]


async def test_a_server_is_named_once_whatever_is_wrong_with_its_cost(caplog: pytest.LogCaptureFixture) -> None:
    """The log names a server once, though its currency is declared, then in the reply, then unknown."""
    reply = {"choices": CHOICES, "usage": {"prompt_tokens": 1, "cost": 1, "currency": "EUR"}}
    for unit in ("EUR", "USD", None):
        await read_whole("openai_compatible", reply, provider_name="in-euro", cost_unit=unit)
    assert [record.message for record in caplog.records] == [
        "the cost in the replies of in-euro is ignored: it is in EUR, and only USD is supported"
    ]


DECLARED: dict[str, Any] = {"provider_name": "acme", "cost_unit": "USD"}
"""The options for a server whose costs the user declares to be in USD."""


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (0.5, 0.5),
        (0, 0.0),
        ({"total_cost": 0.5}, 0.5),
        ({"total_cost": 0.5, "currency": "usd"}, 0.5),
        ({"total_cost": 0.5, "currency": "CNY"}, None),
        ("0.5", None),
    ],
)
async def test_a_declared_cost(cost: Any, expected: float | None) -> None:
    """With a declared unit, a number, a total and a zero are believed; a currency in the reply must agree."""
    document = {"choices": CHOICES, "usage": {"prompt_tokens": 1, "cost": cost}}
    found = (await read_whole("openai_compatible", document, **DECLARED)).reported_cost
    assert (None if found is None else (found.usd, found.is_declared)) == (
        None if expected is None else (expected, True)
    )


async def test_what_litellm_says_in_the_details_of_the_prompt() -> None:
    """LiteLLM's cache writes by lifetime, and its searches, are read from the prompt's details."""
    written = {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 600}
    details = {"cached_tokens": 500, "cache_creation_tokens": 1000, "web_search_requests": 2}
    seen = await usage_of(
        {
            "prompt_tokens": 1600,
            "completion_tokens": 10,
            "total_tokens": 1610,
            "prompt_tokens_details": {**details, "cache_creation_token_details": written},
        }
    )
    assert (seen.cache_read_tokens, seen.cache_write_tokens) == (500, 1000)
    assert (seen.cache_write_5m_tokens, seen.cache_write_1h_tokens, seen.web_searches) == (400, 600, 2)


@pytest.mark.parametrize(("speed", "conditions"), [("fast", {"speed": "fast"}), ("standard", {}), (None, {})])
async def test_the_speed_that_a_proxy_passes_on(speed: str | None, conditions: Mapping[str, str]) -> None:
    """An unusual speed changes the price, so it is reported, whole and streamed."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "speed": speed}
    whole = await read_whole("openai", {"choices": CHOICES, "usage": usage})
    streamed_reply = (await read(chunk({"content": "a"}) + chunk({}, "stop", usage=usage) + DONE)).response
    assert whole.price_conditions == streamed_reply.price_conditions == conditions


async def test_the_cost_in_a_header() -> None:
    """LiteLLM's proxy names its cost in a header; a header that comes before the stream is no cost yet."""

    async def cost(value: str, **options: Any) -> ReportedCost | None:
        headers = {"x-litellm-response-cost": value}
        return (await read_whole("openai_compatible", {"choices": CHOICES}, headers=headers, **options)).reported_cost

    begun = await read_stream(
        "openai_compatible", (HELLO + STOP).encode(), headers={"x-litellm-response-cost": "0.0"}, **DECLARED
    )
    assert await cost("0.25", **DECLARED) == ReportedCost(usd=0.25, is_declared=True)
    assert await cost("None", **DECLARED) is None
    assert await cost("0.25", provider_name="acme") is None
    assert begun.response.reported_cost is None


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            {"prompt_tokens": 368, "completion_tokens": 19, "total_tokens": 10923, "cache_read_input_tokens": 10536},
            (10904, 19, 10923, 10536, None),
        ),
        (
            {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "cache_read_input_tokens": 900},
            (1000, 10, 1010, 900, None),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 1510,
                "cache_read_input_tokens": 900,
                "cache_creation_input_tokens": 500,
            },
            (1500, 10, 1510, 900, 500),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "cache_read_input_tokens": 900,
                "cache_creation_input_tokens": 0,
            },
            (1000, 10, 1010, 900, 0),
        ),
        (
            {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010, "cached_tokens": 700},
            (1000, 10, 1010, 700, None),
        ),
        (
            {
                "prompt_tokens": 1000,
                "completion_tokens": 10,
                "total_tokens": 1010,
                "cache_read_input_tokens": 800,
                "prompt_tokens_details": {"cached_tokens": 0},
            },
            (1000, 10, 1010, 800, None),
        ),
        (
            {"prompt_tokens": 368, "completion_tokens": 19, "total_tokens": 387, "cache_read_input_tokens": 10536},
            (10904, 19, 10923, 10536, None),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 1040,
                "cache_read_input_tokens": 900,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            (1000, 40, 1040, 900, None),
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 10,
                "total_tokens": 174,
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 64},
            },
            (100, 74, 174, 64, None),
        ),
        ({"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 200}, (100, 10, 200, None, None)),
        ({"completion_tokens": 10}, (None, 10, None, None, None)),
        ({"prompt_tokens": 10}, (10, None, None, None, None)),
    ],
)
async def test_cache_fields_beside_the_details(usage: Mapping[str, Any], tokens: tuple[int | None, ...]) -> None:
    """The total shows whether the prompt includes the cached part, and an unexplained rest is no output."""
    seen = await usage_of(usage)
    assert (
        seen.prompt_tokens,
        seen.completion_tokens,
        seen.total_tokens,
        seen.cache_read_tokens,
        seen.cache_write_tokens,
    ) == tokens


@pytest.mark.parametrize(("model", "output"), [("gemini-2.5-flash", 74), ("google/gemini-3-pro", 74), ("m", 12)])
async def test_what_the_total_has_beyond(model: str, output: int) -> None:
    """The rest of Gemini's total is thoughts; another server's rest is unknown and not counted."""
    usage = {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109}
    seen = await usage_of(usage, model=model)
    assert (seen.prompt_tokens, seen.completion_tokens, seen.total_tokens) == (35, output, 109)


async def test_cached_tokens_never_pass_for_hidden_output() -> None:
    """Cached tokens stay a part of the prompt, where the rest of the total is output."""
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 174, "prompt_cache_hit_tokens": 64}
    seen = (await read(chunk({}, "stop", usage=usage), "xai")).response.usage
    assert (seen.prompt_tokens, seen.completion_tokens, seen.cache_read_tokens) == (100, 74, 64)


async def test_cache_writes_in_the_details_of_the_prompt() -> None:
    """Alibaba's cache writes, with their lifetime, are read from the prompt's details."""
    details = {
        "cached_tokens": 0,
        "cache_creation_input_tokens": 1605,
        "cache_creation": {"ephemeral_5m_input_tokens": 1605},
        "cache_type": "ephemeral",
    }
    seen = await usage_of({"prompt_tokens": 1619, "completion_tokens": 5, "prompt_tokens_details": details})
    assert (seen.prompt_tokens, seen.cache_write_tokens, seen.cache_write_5m_tokens) == (1619, 1605, 1605)


async def test_usage_inside_a_choice() -> None:
    """Moonshot's usage inside the last choice is read."""
    last = {"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"prompt_tokens": 19, "completion_tokens": 2}}
    assert (await read(HELLO + event({"choices": [last]}) + DONE)).tokens[:3] == (19, 2, 21)


async def test_usage_by_modality_and_tools() -> None:
    """Audio, images, searches and seconds have fields of their own."""
    seen = await usage_of(
        {
            "prompt_tokens": 300,
            "completion_tokens": 40,
            "prompt_tokens_details": {
                "audio_tokens": 200,
                "text_tokens": 100,
                "cached_tokens": 60,
                "cached_tokens_details": {"audio_tokens": 50, "text_tokens": 10},
            },
            "completion_tokens_details": {"audio_tokens": 30, "reasoning_tokens": 5},
            "prompt_audio_seconds": 4,
            "server_tool_use": {"web_search_requests": 2},
            "server_side_tool_usage_details": {"x_search_calls": 3, "code_interpreter_calls": 1},
        }
    )
    assert (seen.input_audio_tokens, seen.input_text_tokens, seen.output_audio_tokens) == (200, 100, 30)
    assert (seen.cache_audio_read_tokens, seen.cache_text_read_tokens) == (50, 10)
    assert (seen.web_searches, seen.social_searches, seen.code_executions) == (2, 3, 1)
    assert seen.input_audio_seconds == 4


async def test_perplexity_counts_reasoning_and_citations_apart() -> None:
    """Perplexity's reasoning and citations, which are billed, are added to its completion."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 100,
        "total_tokens": 110,
        "reasoning_tokens": 30,
        "citation_tokens": 20,
        "num_search_queries": 4,
    }
    seen = (await read(chunk({}, "stop", usage=usage), "perplexity")).response.usage
    assert (seen.completion_tokens, seen.reasoning_tokens, seen.output_citation_tokens) == (150, 30, 20)
    assert seen.web_searches == 4


@pytest.mark.parametrize("later", [{"prompt_tokens": 0, "completion_tokens": 9}, {"completion_tokens": 9}])
async def test_a_later_zero_takes_nothing_back(later: Mapping[str, Any]) -> None:
    """A last chunk with zeros, or with one count, keeps the others."""
    begun = {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51}
    body = chunk({"content": "a"}, usage=begun) + chunk({}, "stop", usage=later) + DONE
    assert (await read(body)).tokens[:3] == (50, 9, 59)


@pytest.mark.parametrize("nothing", [0, None])
async def test_a_later_zero_inside_the_details_takes_nothing_back(nothing: int | None) -> None:
    """A last chunk with zeros in its details keeps the cached and reasoning tokens."""
    begun = {
        "prompt_tokens": 50,
        "completion_tokens": 9,
        "total_tokens": 61,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    last = {
        **dict.fromkeys(begun, nothing),
        "prompt_tokens_details": {"cached_tokens": nothing, "audio_tokens": nothing},
        "completion_tokens_details": {"reasoning_tokens": nothing},
    }
    seen = (await read(chunk({"content": "a"}, usage=begun) + chunk({}, "stop", usage=last) + DONE)).response.usage
    assert (seen.cache_read_tokens, seen.input_audio_tokens, seen.reasoning_tokens) == (40, 5, 3)
    assert seen.total_tokens == 61


def custom(index: int, **fields: Any) -> str:
    """A piece of a custom tool's call."""
    return chunk({"tool_calls": [{"index": index, **fields}]})


async def test_custom_tool_calls_streamed() -> None:
    """The input of a custom tool is a string, which is never read as JSON."""
    body = (
        custom(0, id="c1", type="custom", custom={"name": "run", "input": ""})
        + custom(0, custom={"input": '{"a":'})
        + custom(0, custom={"input": " 1}"})
        + chunk({}, "tool_calls")
        + DONE
    )
    (call,) = (await read(body)).response.tool_calls
    assert call == ToolCall("c1", "run", '{"a": 1}', kind="custom")
    messages = (Message(role="assistant", tool_calls=(call,)), Message(role="tool", content="1", tool_call_id="c1"))
    sent = await sent_body(LLMRequest("openai", "m", "", messages=messages), whole={"choices": CHOICES})
    assert sent["messages"][0]["tool_calls"][0]["custom"] == {"name": "run", "input": '{"a": 1}'}


async def test_custom_tool_calls_whole() -> None:
    """A whole reply's custom tool call and function call are both read."""
    calls = [
        {"id": "c1", "type": "custom", "custom": {"name": "run", "input": "print(1)"}},
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    reply = await read_whole("openai", {"choices": [{"message": {"tool_calls": calls}}]})
    assert reply.tool_calls == (ToolCall("c1", "run", "print(1)", kind="custom"), ToolCall("c2", "f", {}))


async def test_raw_of_a_stream_has_all_choices() -> None:
    """`raw` of a stream is the document of a whole reply, with every choice."""
    body = (
        chunk({"content": "a"})
        + chunk({"content": "x"}, index=1)
        + chunk({"content": "b"}, "stop")
        + chunk({"content": "y"}, "length", index=1)
        + DONE
    )
    raw = (await read(body)).response.raw
    assert [(choice["message"]["content"], choice["finish_reason"]) for choice in raw["choices"]] == [
        ("ab", "stop"),
        ("xy", "length"),
    ]


async def test_raw_of_a_stream_has_what_no_field_here_holds() -> None:
    """`raw` of a stream has citations, log probabilities, first-chunk fields and unchanged arguments."""
    body = (
        event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
        + event({"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}]})
        + event({"choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}}]})
        + chunk({"annotations": [{"n": 1}], "audio": {"id": "x", "data": "AA"}, "reasoning": "h"})
        + chunk({"annotations": [{"n": 2}], "audio": {"id": "x", "data": "BB", "expires_at": 9}, "reasoning": "m"})
        + tool('{"q":  ', id="c1", name="find")
        + tool("1.0}")
        + END
    )
    raw = (await read(body)).response.raw
    (choice,) = raw["choices"]
    assert raw["prompt_filter_results"] == [{"prompt_index": 0}]
    assert choice["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}
    assert choice["message"] == {
        "role": "assistant",
        "content": "ab",
        "reasoning": "hm",
        "annotations": [{"n": 1}, {"n": 2}],
        "audio": {"id": "x", "data": "AABB", "expires_at": 9},
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q":  1.0}'}}],
    }


counts = st.none() | st.integers(-5, 60) | st.floats(0, 60) | st.text(max_size=3) | st.just(10**400)
usages = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "total_tokens": counts,
        "prompt_cache_hit_tokens": counts,
        "num_cached_tokens": counts,
        "cost": counts | st.dictionaries(st.just("total_cost"), counts),
        "prompt_tokens_details": counts
        | st.dictionaries(st.sampled_from(["cached_tokens", "cache_write_tokens"]), counts),
        "completion_tokens_details": counts | st.dictionaries(st.just("reasoning_tokens"), counts),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(usages, st.sampled_from(sorted(BY_NAME)))
async def test_usage_of_any_dialect_is_sane(usage: Any, dialect: str) -> None:
    """Whatever counts a server of the family reports, no part exceeds its whole and no count is negative."""
    seen = (await read_whole(dialect, {"choices": CHOICES, "usage": usage})).usage

    parts = [seen.cache_read_tokens or 0, seen.cache_write_tokens or 0, seen.reasoning_tokens or 0]
    wholes = (seen.prompt_tokens, seen.completion_tokens, seen.total_tokens)
    assert all(0 <= (count or 0) < 2**55 for count in [*parts, *wholes])
    assert parts[0] + parts[1] <= (seen.prompt_tokens or 0)
    assert parts[2] <= (seen.completion_tokens or 0)


ERRORS: dict[str, tuple[str, type[LLMError], int | None, str | None]] = {
    "openai": (event({"error": {"message": "bad", "type": "server_error", "code": None}}), LLMServerError, None, None),
    "vllm-old": (
        event({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}),
        LLMRequestError,
        None,
        "400",
    ),
    "groq": (
        'event: error\ndata: {"error": {"message": "bad", "type": "invalid_request_error", '
        '"code": "tool_use_failed", "failed_generation": "x", "status_code": 400}}\n\n',
        LLMRequestError,
        None,
        "tool_use_failed",
    ),
    "openrouter": (
        event({"error": {"code": 502, "message": "bad"}, "choices": [{"delta": {}, "finish_reason": "error"}]}) + DONE,
        LLMServerError,
        None,
        "502",
    ),
    "xai": (event({"code": "overloaded", "error": "bad"}), LLMServerError, None, "overloaded"),
    "lm-studio": (event({"error": "bad"}), LLMServerError, None, None),
    "only-the-name": ('event: error\ndata: {"message": "bad"}\n\n', LLMServerError, None, None),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_error_inside_a_stream(name: str, openai_server: OpenAIServer) -> None:
    """An error inside a stream of status 200 has the provider's message and code, and no status."""
    body, kind, status, code = ERRORS[name]
    model = openai_server.script({"body": HELLO + body, "headers": {"content-type": "text/event-stream"}})

    with pytest.raises(kind, match="bad") as caught:
        await streamed(openai_server, model)

    assert (caught.value.status_code, caught.value.code) == (status, code)


WHOLE_ERRORS: list[tuple[str, int, Any, type[LLMError], int | None, str | None]] = [
    ("openrouter-200", 200, {"error": {"code": 429, "message": "bad"}}, LLMRateLimitError, None, "429"),
    ("xai-400", 400, {"code": "Client specified an invalid argument", "error": "bad"}, LLMRequestError, 400, ""),
    ("vllm-flat", 400, {"object": "error", "message": "bad", "code": 400}, LLMRequestError, 400, None),
    ("lm-studio", 500, {"error": "bad"}, LLMServerError, 500, None),
    ("groq-498", 498, {"error": {"message": "bad", "code": "capacity"}}, LLMRateLimitError, 498, "capacity"),
    ("detail", 422, {"detail": "bad"}, LLMRequestError, 422, None),
]


@pytest.mark.parametrize("case", WHOLE_ERRORS, ids=[case[0] for case in WHOLE_ERRORS])
async def test_error_body(
    case: tuple[str, int, Any, type[LLMError], int | None, str | None], openai_server: OpenAIServer
) -> None:
    """Each server's error body gives its typed error, with its message and status."""
    _, http_status, body, kind, status, code = case
    model = openai_server.script({"status": http_status, "body": json.dumps(body)})

    async with BY_NAME["openai_compatible"].client("k", openai_server.base_url) as client:
        with pytest.raises(kind, match="bad") as caught:
            await client.complete(LLMRequest("any", model, "hi"))

    assert caught.value.status_code == status
    assert code == "" or caught.value.code == code


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"status_code": 400}, LLMRequestError),
        ({"status_code": 200}, LLMServerError),
        ({"code": 503, "status_code": 400}, LLMServerError),
    ],
)
async def test_status_in_the_error(error: Mapping[str, Any], kind: type[LLMError]) -> None:
    """A status inside an error decides its class where it is the status of an error; the code goes first."""
    with pytest.raises(kind):
        await read_whole("openai", {"error": {"message": "bad", **error}})


async def streamed(server: OpenAIServer, model: str, dialect: str = "openai_compatible") -> Streamed:
    """Stream over the real server."""
    async with BY_NAME[dialect].client("k", server.base_url) as client:
        return await collect(client, LLMRequest("any", model, "hi"))


async def test_cut_between_choices() -> None:
    """A stream is complete when all choices have ended, or at its end mark."""
    body = START + chunk({"content": "x"}, index=1) + STOP

    with pytest.raises(LLMConnectionError):
        await read(body)
    assert (await read(body + chunk(finish="stop", index=1))).response.finish_reasons == ("stop", "stop")
    assert (await read(body + DONE)).response.finish_reasons == ("stop",)


async def test_an_event_is_read_for_itself() -> None:
    """Two events that would be JSON only together are an invalid reply, and the error shows nothing of them."""
    with pytest.raises(LLMResponseError, match="not JSON") as caught:
        await read(HELLO + 'data: {"a": [{}\n\ndata: {}]}\n\n' + STOP)
    assert "{}" not in str(caught.value)


async def test_an_error_in_a_stream_has_its_type_and_code() -> None:
    """The error that a stream reports has the provider's message, type and code."""
    with pytest.raises(LLMStatusError, match="words") as caught:
        await read(event({"error": {"message": "words", "type": "t", "code": "c"}}))

    assert (caught.value.provider_type, caught.value.code) == ("t", "c")


async def test_blank_lines_before_a_body(openai_server: OpenAIServer) -> None:
    """A whole reply is read though DeepSeek sends blank lines before its JSON while it waits."""
    body = "\n\n\n" + json.dumps({"choices": [{"message": {"content": "a", "function_call": {}}, "finish_reason": ""}]})
    model = openai_server.script({"body": body})

    async with BY_NAME["deepseek"].client("k", openai_server.base_url) as client:
        reply = await client.complete(LLMRequest("deepseek", model, "hi"))

    assert (reply.text, reply.finish_reasons, reply.tool_calls) == ("a", (), ())


async def test_step(openai_server: OpenAIServer, capture: Captured) -> None:
    """A streamed call has one span with provider, operation, tokens, finish reasons and the exact cost."""
    body = HELLO + STOP + event({"choices": [], "usage": USAGE}) + DONE
    model = openai_server.script({"body": body})
    async with OpenAILLMClient("k", openai_server.base_url) as client:
        config = LLMCallConfig("openai", model, prompt="hi")
        async with stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            text = "".join([each.text async for each in stream if isinstance(each, TextDelta)])

    seen = attributes(capture.span(f"chat {model}"))
    expected = (600 * Decimal("0.15") + 400 * Decimal("0.075") + 200 * Decimal("0.60")) / 10**6
    assert text == TEXT
    assert (seen["gen_ai.provider.name"], seen["gen_ai.operation.name"]) == ("openai", "chat")
    assert (seen["gen_ai.usage.input_tokens"], seen["gen_ai.usage.output_tokens"]) == (1000, 200)
    assert seen["gen_ai.usage.cache_read.input_tokens"] == 400
    assert seen["gen_ai.response.finish_reasons"] == ("stop",)
    assert seen["gen_ai.usage.cost"] == pytest.approx(float(expected), rel=1e-12)
    assert seen["tracemind.cost.source"] == "local"


async def test_usage_nowhere_is_estimated(openai_server: OpenAIServer, capture: Captured) -> None:
    """The tokens of a stream without usage are estimated, and marked."""
    model = openai_server.script({"body": HELLO + STOP + DONE})
    async with BY_NAME["vllm"].client(None, openai_server.base_url) as client:
        config = LLMCallConfig("vllm", model, prompt="hi")
        async with stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            assert [each async for each in stream]

    assert stream.result is not None
    assert stream.result["usage"]["estimated"] is True
    assert attributes(capture.span(f"chat {model}"))["tracemind.usage.estimated"] is True


async def test_cost_of_the_provider_wins(openai_server: OpenAIServer, capture: Captured) -> None:
    """OpenRouter's cost wins over every price table."""
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": {**USAGE, "cost": 0.5}}
    model = openai_server.script({"body": json.dumps({"model": "gpt-4o-mini", **body})})
    async with BY_NAME["openrouter"].client("k", openai_server.base_url) as client:
        config = LLMCallConfig("openrouter", model, prompt="hi")
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert (result["usage"]["cost_usd"], result["usage"]["cost_source"]) == (0.5, "provider")
    assert attributes(capture.span(f"chat {model}"))["tracemind.cost.source"] == "provider"


def rejection(status: int, message: str = "Unrecognized request argument supplied: stream_options") -> Action:
    """A reply of a server that rejects a field."""
    return {"status": status, "body": json.dumps({"error": {"message": message, "type": "invalid_request_error"}})}


@pytest.mark.parametrize("status", [400, 422])
async def test_usage_that_must_not_be_asked_for(status: int, openai_server: OpenAIServer) -> None:
    """A server that rejects `stream_options` by name is asked once more without it, and never again with it."""
    model = openai_server.script(rejection(status), {"body": HELLO + STOP + DONE})
    async with OpenAILLMClient("k", openai_server.base_url) as client:
        for _ in range(2):
            batches = [batch async for batch in client.stream(LLMRequest("openai", model, "hi"))]
            assert isinstance(batches[-1][-1], Finish)

    assert ["stream_options" in each.body for each in openai_server.requests(model)] == [True, False, False]


@pytest.mark.parametrize(
    ("action", "extra", "count"),
    [
        (rejection(400, "no such model"), {}, 1),
        (rejection(404), {}, 1),
        (rejection(400), {"stream_options": {"include_usage": False}}, 1),
        (rejection(400), {}, 2),
    ],
)
async def test_other_rejections_stand(
    action: Action, extra: dict[str, Any], count: int, openai_server: OpenAIServer
) -> None:
    """Any other rejection, of the user's own field or a second one, is raised."""
    model = openai_server.script(action)
    async with OpenAILLMClient("k", openai_server.base_url) as client:
        with pytest.raises(LLMStatusError):
            await anext(client.stream(LLMRequest("openai", model, "hi", extra=extra)))

    assert len(openai_server.requests(model)) == count
