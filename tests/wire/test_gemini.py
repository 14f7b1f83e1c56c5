"""Google Gemini's wire format: through the client, over a real server, and beside Google's own SDK.

Bodies have the shapes of the Gemini API reference v1beta and of recordings (provider-wire.md 6), as of 2026-11.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Unpack

import pytest
from google import genai
from google.genai import errors as genai_errors

from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.support import Captured, attributes
from tests.wire.canned import read_reply, read_whole
from tracemind_otel import ConfigError, LLMCallConfig, LLMRequest, run_llm_call
from tracemind_otel.ai.llm.providers.gemini import (
    PRESET,
    SignedToolCall,
    from_payload,
    path_of,
    to_payload,
)
from tracemind_otel.ai.llm.providers.vertex import VertexLLMClient
from tracemind_otel.ai.llm.types import (
    Image,
    LLMResponse,
    LLMUsage,
    Message,
    Text,
    ToolCall,
)
from tracemind_otel.errors import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMRateLimitError,
    LLMRequestError,
    LLMResponseError,
    LLMStatusError,
)

MODEL = "gemini-2.5-flash"
USAGE: dict[str, Any] = {"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 14}


def body(*parts: dict[str, Any], reason: str | None = "STOP", usage: Any = None, **fields: Any) -> dict[str, Any]:
    """A reply in the recorded shape."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if reason is not None:
        candidate["finishReason"] = reason
    head = {"modelVersion": MODEL, "responseId": "r1"}
    return {"candidates": [candidate], "usageMetadata": USAGE if usage is None else usage, **head, **fields}


def stream_of(*documents: dict[str, Any], newline: str = "\r\n", comment: str = "") -> bytes:
    """The documents as events, with the line endings of Google's."""
    blank = newline * 2
    return "".join(f"{comment}data: {json.dumps(each, ensure_ascii=False)}{blank}" for each in documents).encode()


async def read(*pieces: bytes) -> LLMResponse:
    """The reply that a stream adds up to."""
    return await read_reply("gemini", *pieces)


CALL = {"functionCall": {"name": "weather", "args": {"city": "Kyōto"}}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": (body({"text": "Hel"}, {"text": "lo"}), {"text": "Hello", "finish_reason": "stop"}),
    "reasoning": (
        body(
            {"text": "hm", "thought": True},
            {"text": "42"},
            usage={"promptTokenCount": 9, "candidatesTokenCount": 2, "thoughtsTokenCount": 30, "totalTokenCount": 41},
        ),
        {"text": "42", "reasoning": "hm", "usage": LLMUsage(9, 32, 41, reasoning_tokens=30)},
    ),
    "call": (
        body(CALL),
        {"finish_reason": "tool_call", "tool_calls": (ToolCall("gemini-call-0", "weather", {"city": "Kyōto"}),)},
    ),
    "parallel": (
        body(
            {"functionCall": {"id": "a", "name": "one"}, "thoughtSignature": "c2ln"},
            {"functionCall": {"id": "b", "name": "two", "args": {}}},
        ),
        {"tool_calls": (SignedToolCall("a", "one", {}, "c2ln"), ToolCall("b", "two", {}))},
    ),
    "structured": (body({"text": '{"n": 1}'}), {"text": '{"n": 1}'}),
    "length, all spent on thoughts": (
        {"candidates": [{"finishReason": "MAX_TOKENS", "index": 0}], "usageMetadata": {"promptTokenCount": 3}},
        {"text": "", "finish_reason": "length", "usage": LLMUsage(3, 0, 3), "response_id": None},
    ),
    "safety without parts": (
        {"candidates": [{"content": {"role": "model"}, "finishReason": "SAFETY"}]},
        {
            "text": "",
            "finish_reason": "content_filter",
            "finish_reasons": ("SAFETY",),
            "usage": LLMUsage(None, None, None),
        },
    ),
    "blocked prompt": (
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 4}},
        {"text": "", "finish_reason": "content_filter", "finish_reasons": ("PROHIBITED_CONTENT",)},
    ),
    "cached": (
        body(
            {"text": "x"},
            usage={
                "promptTokenCount": 1000,
                "toolUsePromptTokenCount": 50,
                "cachedContentTokenCount": 400,
                "candidatesTokenCount": 10,
                "totalTokenCount": 1060,
            },
        ),
        {"usage": LLMUsage(1050, 10, 1060, cache_read_tokens=400, input_tool_tokens=50)},
    ),
    "malformed call": (body(reason="MALFORMED_FUNCTION_CALL"), {"finish_reason": "error"}),
    "unknown reason": (body({"text": "x"}, reason="NEW"), {"finish_reason": None, "finish_reasons": ("NEW",)}),
}


def check(response: LLMResponse, expected: dict[str, Any]) -> None:
    """The named fields have these values."""
    assert {name: getattr(response, name) for name in expected} == expected


@pytest.mark.parametrize(("document", "expected"), CASES.values(), ids=CASES)
async def test_normal_form(document: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each recorded shape gives the same normal form whole and streamed."""
    check(from_payload(document, None), expected)
    check(await read(stream_of(document)), expected)


STREAM = (
    body({"text": "think", "thought": True}, reason=None, usage={"promptTokenCount": 9, "totalTokenCount": 9}),
    body({"text": "Grüße \u2028"}, reason=None, usage={"promptTokenCount": 9, "thoughtsTokenCount": 7}),
    body(CALL, usage={"promptTokenCount": 9, "candidatesTokenCount": 5, "totalTokenCount": 21}),
)


async def test_last_whole_usage() -> None:
    """The last usage of a stream counts, and a chunk without counts does not erase it."""
    late = {"usageMetadata": {"trafficType": "ON_DEMAND"}}

    usage = (await read(stream_of(*STREAM, late))).usage

    assert usage == LLMUsage(9, 5, 21)


def usage_in(**usage: Any) -> LLMUsage:
    """The usage of a whole reply with a text."""
    return from_payload(body({"text": "x"}, usage=usage)).usage


def test_output_alone() -> None:
    """A count that was not reported is unknown: the input is not zero, and there is no total."""
    usage = usage_in(candidatesTokenCount=7)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (None, 7, None)


def test_the_total_tells_what_is_left_out() -> None:
    """A missing count follows from the total."""
    assert usage_in(promptTokenCount=5, totalTokenCount=9) == LLMUsage(5, 4, 9)


def test_counts_by_modality() -> None:
    """Each modality has its own count, and a document counts as images of its pages."""
    usage = usage_in(
        promptTokenCount=300,
        toolUsePromptTokenCount=10,
        candidatesTokenCount=20,
        totalTokenCount=330,
        cachedContentTokenCount=40,
        promptTokensDetails=[
            {"modality": "TEXT", "tokenCount": 60},
            {"modality": "AUDIO", "tokenCount": 200},
            {"modality": "IMAGE", "tokenCount": 25},
            {"modality": "DOCUMENT", "tokenCount": 15},
        ],
        toolUsePromptTokensDetails=[{"modality": "TEXT", "tokenCount": 10}],
        candidatesTokensDetails=[{"modality": "AUDIO", "tokenCount": 20}],
        cacheTokensDetails=[{"modality": "AUDIO", "tokenCount": 40}],
    )
    assert (usage.prompt_tokens, usage.input_tool_tokens) == (310, 10)
    assert (usage.input_text_tokens, usage.input_audio_tokens, usage.input_image_tokens) == (70, 200, 40)
    assert (usage.output_audio_tokens, usage.output_text_tokens) == (20, None)
    assert (usage.cache_read_tokens, usage.cache_audio_read_tokens) == (40, 40)


@pytest.mark.parametrize(
    ("usage", "tier"),
    [
        ({"serviceTier": "PRIORITY"}, "priority"),
        ({"serviceTier": "unspecified"}, None),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND"}, "standard"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, "provisioned_throughput"),
        ({}, None),
    ],
)
def test_the_served_tier(usage: dict[str, str], tier: str | None) -> None:
    """Gemini and Vertex report the tier in one vocabulary."""
    counts = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    assert from_payload(body({"text": "x"}, usage={**counts, **usage})).service_tier == tier


@pytest.mark.parametrize(("model", "searches"), [("gemini-2.5-flash", 1), ("gemini-3-pro-preview", 2)])
def test_searches_as_they_are_billed(model: str, searches: int) -> None:
    """Before Gemini 3 a grounded reply is one search; from then on each query is."""
    candidate = {
        "content": {"parts": [{"text": "x"}]},
        "finishReason": "STOP",
        "groundingMetadata": {"webSearchQueries": ["a", "b"]},
    }
    assert from_payload({"candidates": [candidate], "modelVersion": model}).usage.web_searches == searches


async def test_a_later_half_takes_nothing_back() -> None:
    """A last chunk with one count, or with zeros, keeps the others."""
    begun = {
        "promptTokenCount": 9,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
        "totalTokenCount": 9,
    }
    last = {"promptTokenCount": 0, "candidatesTokenCount": 4}
    usage = (await read(stream_of(body({"text": "a"}, usage=begun), body({"text": "b"}, usage=last)))).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 4, 13)
    assert usage.input_text_tokens == 9


async def test_a_later_zero_inside_the_details_takes_nothing_back() -> None:
    """A last chunk with zeros or nothing in its details keeps cached tokens and modalities."""
    begun = {
        "promptTokenCount": 9,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}],
        "cachedContentTokenCount": 6,
        "totalTokenCount": 9,
    }
    last = {
        "promptTokenCount": 9,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 0}],
        "candidatesTokenCount": 4,
        "totalTokenCount": 13,
    }
    for later in (last, {**last, "cachedContentTokenCount": 0}):
        seen = (await read(stream_of(body({"text": "a"}, usage=begun), body({"text": "b"}, usage=later)))).usage
        assert (seen.prompt_tokens, seen.completion_tokens, seen.total_tokens) == (9, 4, 13)
        assert (seen.cache_read_tokens, seen.input_audio_tokens) == (6, 9)


def test_a_block_says_why() -> None:
    """The refusal is the block's message or else its reason, or a candidate's finish message."""
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}}
    told = {"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "not here"}}
    stopped = {"candidates": [{"finishReason": "SAFETY", "finishMessage": "unsafe"}]}
    assert [from_payload(reply).refusal for reply in (blocked, told, stopped)] == ["SAFETY", "not here", "unsafe"]


async def test_raw_of_a_stream_has_every_candidate() -> None:
    """`raw` of a stream is the document of a whole reply, with every candidate."""
    one = {"index": 0, "content": {"parts": [{"text": "a"}]}}
    two = {"index": 1, "content": {"parts": [{"text": "x"}]}}
    rest = [{**one, "finishReason": "STOP"}, {**two, "finishReason": "STOP"}]
    raw = (await read(stream_of({"candidates": [one, two]}, {"candidates": rest, "responseId": "r"}))).raw
    assert [each["content"]["parts"] for each in raw["candidates"]] == [[{"text": "aa"}], [{"text": "xx"}]]
    assert raw["responseId"] == "r"


async def test_second_candidate_must_finish() -> None:
    """A stream is complete when each candidate has ended; the text is the first one's."""
    one = {"index": 0, "content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}
    two = {"index": 1, "content": {"parts": [{"text": "b"}]}}

    with pytest.raises(LLMConnectionError):
        await read(stream_of({"candidates": [one, two]}))
    done = await read(
        stream_of({"candidates": [one, two]}, {"candidates": [{"index": 1, "finishReason": "MAX_TOKENS"}]})
    )
    check(done, {"text": "a", "finish_reasons": ("STOP", "MAX_TOKENS")})


async def test_unspecified_reason_is_none() -> None:
    """A stream whose only finish reason is the enum's unset value was cut."""
    with pytest.raises(LLMConnectionError):
        await read(stream_of(body({"text": "x"}, reason="FINISH_REASON_UNSPECIFIED")))


@pytest.mark.parametrize("document", [{}, {"candidates": []}, {"candidates": None, "promptFeedback": {}}])
def test_no_candidates(document: dict[str, Any]) -> None:
    """A reply without candidates whose prompt was not blocked cannot be read."""
    with pytest.raises(LLMResponseError, match="no candidates"):
        from_payload(document)


# --- Errors

RATE_LIMIT: dict[str, Any] = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"}],
    }
}
BAD_KEY: dict[str, Any] = {
    "error": {
        "code": 400,
        "message": "API key not valid.",
        "status": "INVALID_ARGUMENT",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
    }
}


async def error_of(document: object, status: int = 429) -> LLMStatusError:
    """The error that Gemini's client raises for a body."""
    with pytest.raises(LLMStatusError) as caught:
        await read_whole("gemini", document, status=status)
    return caught.value


@pytest.mark.parametrize("document", [RATE_LIMIT, [RATE_LIMIT]])
async def test_rate_limit_body(document: object) -> None:
    """The body names the delay, and its status in words is the type; a list of errors is read too."""
    error = await error_of(document)
    assert "You exceeded your current quota." in str(error)
    assert (error.provider_type, error.code, error.status_code) == ("RESOURCE_EXHAUSTED", None, 429)
    assert error.retry_after_s == 48.0


@pytest.mark.parametrize("delay", ["0s", "-1s", "1e9s", "s", 48, None, "9" * 400 + "s"])
async def test_odd_delays(delay: object) -> None:
    """A delay that is not a positive duration is ignored."""
    assert (await error_of({"error": {"details": [{"retryDelay": delay}]}})).retry_after_s is None


@pytest.mark.parametrize("document", [[], [1], None, "x", {"error": "text"}, {"error": {"details": "x"}}])
async def test_odd_error_bodies(document: object) -> None:
    """A body of any shape leaves the error that its status names."""
    assert (await error_of(document, 503)).status_code == 503


# --- Request


def ask(prompt: str = "hi", **options: Any) -> LLMRequest:
    """A request to Gemini."""
    return LLMRequest("gemini", options.pop("model", MODEL), prompt, **options)


def test_payload() -> None:
    """Each parameter has its field; the fields of an extra generationConfig are merged and win."""
    request = ask(
        temperature=0.0, top_p=0.5, top_k=3, max_tokens=9, stop=("x",), seed=1, system="be brief",
        frequency_penalty=0.1, presence_penalty=0.2, reasoning_effort="low",
        extra={"generationConfig": {"topK": 4, "thinkingConfig": {"includeThoughts": True}}, "cachedContent": "c"},
    )  # fmt: skip

    assert to_payload(request) == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "generationConfig": {
            "temperature": 0.0, "topP": 0.5, "topK": 4, "maxOutputTokens": 9, "stopSequences": ["x"], "seed": 1,
            "frequencyPenalty": 0.1, "presencePenalty": 0.2,
            "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True},
        },
        "cachedContent": "c",
    }  # fmt: skip


def test_conversation() -> None:
    """Calls are sent back with their signatures and without made-up ids; results of parallel calls are one turn."""
    calls = (SignedToolCall("a", "one", {}, "c2ln"), ToolCall("gemini-call-1", "two", '{"n": 1}'))
    messages = (
        Message(role="system", content="s"),
        Message(role="user", content=(Text("see"), Image(data=b"\x01"), Image(url="https://x.test/a.jpg?b"))),
        Message(role="assistant", tool_calls=calls),
        Message(role="tool", content="12", tool_call_id="a"),
        Message(role="tool", content='{"ok": true}', tool_call_id="gemini-call-1", name="two"),
    )

    payload = to_payload(ask("", messages=messages))

    assert payload["systemInstruction"] == {"parts": [{"text": "s"}]}
    user, model, results = payload["contents"]
    assert user["parts"][1:] == [
        {"inlineData": {"mimeType": "image/png", "data": "AQ=="}},
        {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://x.test/a.jpg?b"}},
    ]
    assert model == {
        "role": "model",
        "parts": [
            {"functionCall": {"id": "a", "name": "one", "args": {}}, "thoughtSignature": "c2ln"},
            {"functionCall": {"name": "two", "args": {"n": 1}}},
        ],
    }
    assert results["parts"] == [
        {"functionResponse": {"id": "a", "name": "one", "response": {"output": "12"}}},
        {"functionResponse": {"name": "two", "response": {"ok": True}}},
    ]


@pytest.mark.parametrize(
    "request_",
    [
        ask(reasoning_effort="none"),
        ask(reasoning_effort="max"),
        ask(messages=(Message(role="tool", content="x", tool_call_id="unknown"),)),
        ask(messages=(Message(role="user", content="x"), Message(role="system", content="late"))),
        ask(messages=(Message(role="user", content=(Image(),)),)),
        ask(messages=(Message(role="user", name="Ada", content="x"),)),
        ask(messages=(Message(role="tool", name="t", content=(Image(data=b"x"),)),)),
        ask(messages=(Message(role="assistant", tool_calls=(ToolCall("a", "t", "[1]"),)),)),
    ],
)
def test_unsupported(request_: LLMRequest) -> None:
    """An unsupported field is rejected, never dropped."""
    with pytest.raises(ConfigError):
        to_payload(request_)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (MODEL, f"/v1beta/models/{MODEL}:generateContent"),
        (f"models/{MODEL}", f"/v1beta/models/{MODEL}:generateContent"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine:generateContent"),
        ("../a?b#c:d", "/v1beta/models/..%2Fa%3Fb%23c%3Ad:generateContent"),
    ],
)
def test_path(model: str, path: str) -> None:
    """The model is one encoded segment of the path."""
    assert path_of(ask(model=model), False) == path


# --- Over the server


def served(server: OpenAIServer, text: str | bytes, http_status: int = 200, **more: Unpack[Action]) -> str:
    """Script one reply; returns the key that must be the body's `model`."""
    action: Action = {**more, "body": text if isinstance(text, str) else text.decode()}
    action["status"] = http_status
    return server.script(action)


async def test_errors(openai_server: OpenAIServer) -> None:
    """A bad key ends the call with its reason; a rate limit is retried."""
    bad, limited = served(openai_server, json.dumps(BAD_KEY), 400), served(openai_server, json.dumps([RATE_LIMIT]), 429)
    async with PRESET.client("k", openai_server.base_url) as client:
        with pytest.raises((LLMRequestError, LLMAuthenticationError)) as caught:
            await client.complete(ask(extra={"model": bad}))
        with pytest.raises(LLMRateLimitError) as limit:
            await client.complete(ask(extra={"model": limited}))
    assert (caught.value.code, caught.value.retryable) == ("API_KEY_INVALID", False)
    assert limit.value.provider_type == "RESOURCE_EXHAUSTED"
    assert limit.value.retry_after_s == 48.0


async def test_step(openai_server: OpenAIServer, capture: Captured) -> None:
    """The call's span has provider, operation, tokens, finish reasons and the exact cost of cached tokens."""
    key = served(openai_server, json.dumps(CASES["cached"][0]))
    config = LLMCallConfig("gemini", MODEL, "hi", extra={"model": key})
    async with PRESET.client("k", openai_server.base_url) as client:
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)
    assert result["status"] == "ok"
    seen = attributes(capture.span(f"generate_content {MODEL}"))
    cost = (650 * Decimal("0.3") + 400 * Decimal("0.03") + 10 * Decimal("2.5")) / 1_000_000
    expected = {
        "gen_ai.provider.name": "gcp.gemini",
        "gen_ai.operation.name": "generate_content",
        "gen_ai.usage.input_tokens": 1050,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.response.finish_reasons": ("STOP",),
        "gen_ai.response.id": "r1",
        "gen_ai.usage.cost": float(cost),
    }
    assert {name: seen.get(name) for name in expected} == expected


async def test_vertex(openai_server: OpenAIServer, capture: Captured) -> None:
    """Vertex gets a fresh bearer token with each request, on the path of project and location."""
    key = served(openai_server, json.dumps(CASES["plain"][0]))
    tokens = iter(["t1", "t2"])

    async def token() -> str:
        return next(tokens)

    base_url = openai_server.base_url
    config = LLMCallConfig("vertex_ai", MODEL, "hi", extra={"model": key})
    async with VertexLLMClient(project="p q", location="europe-west4", token=token, base_url=base_url) as client:
        await client.complete(ask(extra={"model": key}))
        await run_llm_call("f", "s", config, capture.recorder(), client=client)
    requests = openai_server.requests(key)
    assert [each.headers["authorization"] for each in requests] == ["Bearer t1", "Bearer t2"]
    path = f"/v1/v1/projects/p%20q/locations/europe-west4/publishers/google/models/{MODEL}:generateContent"
    assert requests[0]["path"] == path
    seen = attributes(capture.span(f"generate_content {MODEL}"))
    assert seen["gen_ai.provider.name"] == "gcp.vertex_ai"
    assert seen["gen_ai.usage.cost"] > 0


async def test_vertex_token_stays_secret(openai_server: OpenAIServer) -> None:
    """A token that the server repeats is not in the error, and an empty token sends nothing."""
    key = served(openai_server, '{"error": {"message": "bad ya29.secret"}}', 401)
    given = iter(["ya29.secret", ""])

    async def token() -> str:
        return next(given)

    async with VertexLLMClient(project="p", token=token, base_url=openai_server.base_url) as client:
        for _ in range(2):
            with pytest.raises(LLMAuthenticationError) as caught:
                await client.complete(ask(extra={"model": key}))
            assert "ya29" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "host"),
    [("global", "aiplatform"), ("eu", "aiplatform.eu.rep"), ("us-east1", "us-east1-aiplatform"), ("evil.com/", None)],
)
def test_vertex_hosts(location: str, host: str | None) -> None:
    """The location decides the host; anything that is no location is rejected."""

    async def token() -> str:
        return "t"

    if host is None:
        with pytest.raises(ConfigError, match="location"):
            VertexLLMClient(project="p", location=location, token=token)
    else:
        client = VertexLLMClient(project="p", location=location, token=token)
        assert client.base_url == f"https://{host}.googleapis.com"


# --- Beside Google's SDK


def google(server: OpenAIServer) -> Any:
    """Google's client; untyped, since its types are partly unknown."""
    return genai.Client(api_key="k", http_options={"base_url": server.base_url, "api_version": "v1beta"})


def compare(theirs: Any, ours: LLMResponse) -> None:
    """Text, calls, reasons and counts are the same."""
    assert (theirs.text or "") == ours.text
    calls: list[Any] = [(call.name, call.args or {}) for call in theirs.function_calls or ()]
    assert calls == [(call.name, call.arguments) for call in ours.tool_calls]
    if theirs.candidates:
        assert tuple(each.finish_reason.value for each in theirs.candidates) == ours.finish_reasons
    if (usage := theirs.usage_metadata) is not None:
        assert (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0) == ours.usage.prompt_tokens
        spent = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
        assert spent == ours.usage.completion_tokens
        assert usage.cached_content_token_count == ours.usage.cache_read_tokens


# An unknown reason makes the SDK warn; that is its way of passing it through.
@pytest.mark.filterwarnings("ignore:NEW is not a valid FinishReason:UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_sdk_agrees(openai_server: OpenAIServer, name: str) -> None:
    """Google's SDK reads the same whole reply."""
    document, _ = CASES[name]
    key = served(openai_server, json.dumps(document))
    with google(openai_server) as client:
        theirs = client.models.generate_content(
            model=MODEL, contents="hi", config={"http_options": {"extra_body": {"model": key}}}
        )
    compare(theirs, from_payload(document))


async def test_sdk_agrees_on_a_stream(openai_server: OpenAIServer) -> None:
    """Google's SDK reads the same texts, calls and last counts from a stream (CRLF; comments break it)."""
    key = served(openai_server, stream_of(*STREAM))
    with google(openai_server) as client:
        chunks = list(
            client.models.generate_content_stream(
                model=MODEL, contents="hi", config={"http_options": {"extra_body": {"model": key}}}
            )
        )
    ours = await read(stream_of(*STREAM))
    parts = [part for chunk in chunks for each in chunk.candidates or () for part in each.content.parts]
    assert "".join(part.text for part in parts if part.text and not part.thought) == ours.text
    assert [part.function_call.name for part in parts if part.function_call] == [call.name for call in ours.tool_calls]
    last = chunks[-1].usage_metadata
    assert (last.prompt_token_count, last.candidates_token_count) == (
        ours.usage.prompt_tokens,
        ours.usage.completion_tokens,
    )


async def test_sdk_agrees_on_an_error(openai_server: OpenAIServer) -> None:
    """Google's SDK reads the same status."""
    key = served(openai_server, json.dumps(BAD_KEY), 400)
    with google(openai_server) as client, pytest.raises(genai_errors.ClientError) as caught:
        client.models.generate_content(
            model=MODEL, contents="hi", config={"http_options": {"extra_body": {"model": key}}}
        )
    assert caught.value.status == (await error_of(BAD_KEY, 400)).provider_type
