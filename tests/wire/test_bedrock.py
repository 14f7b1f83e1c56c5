"""Bedrock, against a server that checks each signature with botocore's code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import tracemind_otel as tm
from tests.servers.bedrock_server import ACCESS, BEARER, REGION, SECRET, TOKEN, frame
from tests.support import Captured, attributes
from tracemind_otel.ai.llm.providers.bedrock import ENVIRONMENT, FrameDecoder, to_payload

REPOSITORY = Path(__file__).parents[2]
CLAUDE = "us.anthropic.claude-sonnet-4-20250514-v1:0"
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0"
USAGE = {
    "inputTokens": 10,
    "outputTokens": 5,
    "totalTokens": 15,
    "cacheReadInputTokens": 100,
    "cacheWriteInputTokens": 30,
    "cacheDetails": [{"ttl": "5m", "inputTokens": 20}, {"ttl": "1h", "inputTokens": 10}],
}
CALL = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Rome"}}}
WHOLE: dict[str, Any] = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "s"}}},
                {"text": "Hello"},
                CALL,
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": USAGE,
    "serviceTier": {"type": "default"},
}
FRAMES: list[Any] = [
    ["event", "messageStart", {"role": "assistant"}],
    ["event", "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "Hm."}}}],
    ["event", "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"signature": "s"}}}],
    ["event", "contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Hel"}, "p": "abc"}],
    ["event", "contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "lo"}}],
    ["event", "contentBlockStop", {"contentBlockIndex": 1}],
    [
        "event",
        "contentBlockStart",
        {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t1", "name": "weather"}}},
    ],
    ["event", "contentBlockDelta", {"contentBlockIndex": 2, "delta": {"toolUse": {"input": '{"city": "Rome"}'}}}],
    ["event", "messageStop", {"stopReason": "tool_use"}],
    ["event", "metadata", {"usage": USAGE, "serviceTier": {"type": "default"}}],
]
THROTTLED = [["exception", "throttlingException", {"message": "Too many requests"}]]
INVALID = [["exception", "validationException", {"message": "Bad field"}]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server in a process of its own."""
    command = [sys.executable, "-m", "tests.servers.bedrock_server"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.communicate()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def config_of(name: str, *replies: Any, model: str = CLAUDE) -> tm.LLMCallConfig:
    return tm.LLMCallConfig("bedrock", model, name, extra={"replies": list(replies)})


async def run(url: str, capture: Captured, config: tm.LLMCallConfig, **options: Any) -> dict[str, Any]:
    client = tm.LLMClientFactory.make("bedrock", base_url=url, **options)
    return dict(await tm.run_llm_call("f", "s", config, capture.recorder(), client=client))


@pytest.mark.parametrize("model", [CLAUDE, ARN], ids=["id", "arn"])
async def test_a_signed_whole_reply(url: str, capture: Captured, model: str) -> None:
    """A signed request is accepted; text, reasoning, calls, usage, cost and the request's id arrive."""
    client = tm.LLMClientFactory.make("bedrock", base_url=url)
    request = tm.LLMRequest("bedrock", model, "ü", extra={"replies": [WHOLE]})
    reply = await client.complete(request)
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("Hello", "Hm.", "tool_call")
    assert reply.tool_calls == (tm.ToolCall("t1", "weather", {"city": "Rome"}),)
    assert reply.request_id == "amzn-1"
    assert reply.raw["seen"]["path"].endswith("/converse")
    assert_usage(reply.usage)


def assert_usage(usage: tm.LLMUsage) -> None:
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (140, 5, 145)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (100, 30)
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (20, 10)


async def test_a_signed_stream_says_the_same(url: str, capture: Captured) -> None:
    """A stream gives the same reply, with the usage in its last event."""
    client = tm.LLMClientFactory.make("bedrock", base_url=url)
    config = config_of("streamed", FRAMES)
    async with tm.stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
        events = [event async for event in stream]
    assert "".join(event.text for event in events if isinstance(event, tm.TextDelta)) == "Hello"
    assert isinstance(events[-1], tm.Finish)
    reply = events[-1].response
    assert (reply.reasoning, reply.finish_reason, reply.service_tier) == ("Hm.", "tool_call", "default")
    assert reply.tool_calls == (tm.ToolCall("t1", "weather", {"city": "Rome"}),)
    assert reply.raw["output"] == WHOLE["output"]
    assert_usage(reply.usage)


async def test_its_span_has_a_price(url: str, capture: Captured) -> None:
    """The conventions' name, and the price that genai-prices has for the profile's id."""
    result = await run(url, capture, config_of("priced", WHOLE))
    assert result["status"] == "ok"
    seen = attributes(capture.span(f"chat {CLAUDE}"))
    assert (seen["gen_ai.provider.name"], seen["gen_ai.usage.input_tokens"]) == ("aws.bedrock", 140)
    assert seen["gen_ai.usage.cost"] > 0


async def test_a_wrong_secret_is_an_error_of_the_key(
    url: str, capture: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's refusal is an error of authentication, which is not tried again."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    result = await run(url, capture, config_of("wrong", WHOLE))
    assert (result["status"], result["status_code"], result["retries"]) == ("error", 403, 0)
    assert "wrong-secret" not in json.dumps(result, default=str)


async def test_a_session_token_is_signed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials for a time send their token."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    client = tm.LLMClientFactory.make("bedrock", base_url=url)
    reply = await client.complete(tm.LLMRequest("bedrock", CLAUDE, "token", extra={"replies": [WHOLE]}))
    assert reply.raw["seen"]["signed"] == TOKEN


async def test_a_bedrock_key_is_sent_as_it_is(url: str, capture: Captured) -> None:
    """A key needs no signature."""
    assert (await run(url, capture, config_of("bearer", WHOLE), api_key=BEARER))["status"] == "ok"


async def test_throttling_in_a_stream_is_tried_again(url: str, capture: Captured, no_waits: None) -> None:
    """A throttling exception before the first piece is retried as status 429 is."""
    client = tm.LLMClientFactory.make("bedrock", base_url=url)
    config = config_of("throttled", THROTTLED, FRAMES)
    async with tm.stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
        events = [event async for event in stream]
    assert isinstance(events[-1], tm.Finish)


async def test_a_wrong_request_in_a_stream_is_not(url: str, capture: Captured) -> None:
    """An exception about a wrong request ends the call."""
    client = tm.LLMClientFactory.make("bedrock", base_url=url)
    with pytest.raises(tm.LLMRequestError, match="Bad field"):
        async with tm.stream_llm_call(
            "f", "s", config_of("bad", INVALID, FRAMES), capture.recorder(), client=client
        ) as s:
            assert [event async for event in s]


def test_the_body() -> None:
    """Settings, system text, images, calls and results have their fields; messages of one role in a row are one."""
    messages = (
        tm.Message(role="system", content="Be brief."),
        tm.Message(role="user", content=(tm.Text("Look"), tm.Image(data=b"x", media_type="image/png"))),
        tm.Message(role="assistant", tool_calls=(tm.ToolCall("t1", "weather", '{"city": "Rome"}'),)),
        tm.Message(role="tool", content="warm", tool_call_id="t1"),
    )
    request = tm.LLMRequest(
        "bedrock", CLAUDE, "Thanks", messages=messages, max_tokens=9, stop=("x",), extra={"toolConfig": {"tools": []}}
    )
    result = {"toolResult": {"toolUseId": "t1", "content": [{"text": "warm"}]}}
    assert to_payload(request) == {
        "system": [{"text": "Be brief."}],
        "messages": [
            {"role": "user", "content": [{"text": "Look"}, {"image": {"format": "png", "source": {"bytes": "eA=="}}}]},
            {"role": "assistant", "content": [CALL]},
            {"role": "user", "content": [result, {"text": "Thanks"}]},
        ],
        "inferenceConfig": {"maxTokens": 9, "stopSequences": ["x"]},
        "toolConfig": {"tools": []},
    }
    with pytest.raises(tm.ConfigError, match="top_k"):
        to_payload(tm.LLMRequest("bedrock", CLAUDE, "x", top_k=3))


def test_without_botocore_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without botocore the error names the extra."""
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(tm.ConfigError, match=r"pip install 'tracemind-otel\[bedrock\]'"):
        tm.LLMClientFactory.make("bedrock")


def test_without_a_region_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a region the error asks for one."""
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(tm.ConfigError, match="AWS_REGION"):
        tm.LLMClientFactory.make("bedrock")
    client = tm.LLMClientFactory.make("bedrock", region="eu-central-1")
    assert client.server_address == "bedrock-runtime.eu-central-1.amazonaws.com"


@pytest.mark.parametrize("model", [CLAUDE, ARN], ids=["id", "arn"])
async def test_a_given_client_sends_what_was_signed(url: str, model: str) -> None:
    """httpx's own transport sends the path as it was signed."""
    async with httpx.AsyncClient(trust_env=False) as http_client:
        client = tm.LLMClientFactory.make("bedrock", base_url=url, http_client=http_client)
        reply = await client.complete(tm.LLMRequest("bedrock", model, "given", extra={"replies": [WHOLE]}))
    assert reply.text == "Hello"


def test_a_damaged_frame_is_an_error() -> None:
    """Frames are read however they are cut, and a wrong checksum is an error."""
    data = frame("event", "messageStop", {"stopReason": "end_turn"})
    decoder = FrameDecoder()
    events = [event for i in range(len(data)) for event in decoder.feed(data[i : i + 1])]
    assert [event.name for event in events] == ["messageStop"]
    with pytest.raises(tm.LLMResponseError, match="damaged"):
        FrameDecoder().feed(data[:-6] + b"x" + data[-5:])
