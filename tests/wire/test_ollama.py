"""Ollama's own API: the mapping, the stream at any cut, and a real HTTP server that its SDK reads too.

Bodies in the shapes of Ollama's API documentation, November 2026.
"""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest

from tests.servers.fixture import OpenAIServer
from tests.support import Captured, attributes
from tests.wire.canned import read_reply
from tracemind_otel import ConfigError, LLMCallConfig, LLMRequest, LLMResponse, run_llm_call
from tracemind_otel.ai.llm.providers.ollama import (
    PRESET,
    from_payload,
    ollama_client,
    server_url,
    to_payload,
)
from tracemind_otel.ai.llm.types import Image, Message, ToolCall

END: dict[str, Any] = {"done": True, "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 9}
WEATHER = [{"function": {"name": "weather", "arguments": {"city": city}}} for city in ("Paris", "Oslo")]


def said(message: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A document with a message, in the recorded shape."""
    return {
        "model": "qwen3",
        "created_at": "2026-11-01T10:00:00Z",
        "message": {"role": "assistant", "content": "", **message},
        "done": False,
        **fields,
    }


LINES = [
    said({"thinking": "Hm\u2028"}),
    said({"content": "Grüße "}),
    said({"content": "🙂"}),
    said({"tool_calls": WEATHER[:1]}),
    said({"tool_calls": WEATHER[1:]}),
    said({}, **END, total_duration=12),
]
WHOLE = said({"thinking": "Hm\u2028", "content": "Grüße 🙂", "tool_calls": WEATHER}, **END)


def essence(response: LLMResponse) -> tuple[Any, ...]:
    """The fields that a stream and a whole reply have in common."""
    usage = (response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.total_tokens)
    reasons = (response.finish_reasons, response.finish_reason)
    return response.text, response.reasoning, response.tool_calls, usage, reasons, response.response_model


EXPECTED = (
    "Grüße 🙂",
    "Hm\u2028",
    (ToolCall("call_0", "weather", {"city": "Paris"}), ToolCall("call_1", "weather", {"city": "Oslo"})),
    (26, 9, 35),
    (("stop",), "tool_call"),
    "qwen3",
)


def test_whole_reply() -> None:
    """Thinking is reasoning, calls get ids, the counts are read, and there is no response id."""
    response = from_payload(WHOLE)

    assert essence(response) == EXPECTED
    assert response.response_id is None


def test_prompt_count_missing() -> None:
    """Ollama does not count a cached prompt: the output is known, and input and total are not."""
    usage = from_payload(said({"content": "x"}, done=True, eval_count=7)).usage

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (None, 7, None)
    assert usage.cache_read_tokens is None
    assert usage.reasoning_tokens is None


def test_payload() -> None:
    """Every parameter has its place among the options, and streaming is turned off by name."""
    request = LLMRequest(
        "ollama",
        "qwen3",
        "hi",
        0.0,
        0.9,
        {"options": {"num_ctx": 8192, "seed": 2}, "keep_alive": "5m"},
        system="brief",
        max_tokens=5,
        stop=("a",),
        seed=1,
        top_k=3,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        reasoning_effort="high",
    )

    assert to_payload(request, False) == {
        "model": "qwen3",
        "messages": [{"role": "system", "content": "brief"}, {"role": "user", "content": "hi"}],
        "stream": False,
        "options": {
            "temperature": 0.0,
            "top_p": 0.9,
            "top_k": 3,
            "num_predict": 5,
            "seed": 2,
            "frequency_penalty": 0.1,
            "presence_penalty": 0.2,
            "stop": ["a"],
            "num_ctx": 8192,
        },
        "think": "high",
        "keep_alive": "5m",
    }


def test_tool_messages() -> None:
    """Arguments are sent as objects, and a result names its tool, found by the call's id if necessary."""
    call = Message(role="assistant", tool_calls=(ToolCall("c1", "add", '{"a": 1}'),))
    result = Message(role="tool", content="2", tool_call_id="c1")

    messages = to_payload(LLMRequest("ollama", "m", "", messages=(call, result)), False)["messages"]

    assert messages[0]["tool_calls"] == [{"function": {"name": "add", "arguments": {"a": 1}}}]
    assert messages[1] == {"role": "tool", "content": "2", "tool_name": "add"}


def test_a_result_is_of_the_latest_call_with_its_id() -> None:
    """Where two rounds share an id, a result belongs to the call before it."""
    rounds = tuple(
        message
        for name in ("add", "subtract")
        for message in (
            Message(role="assistant", tool_calls=(ToolCall("call_0", name, {}),)),
            Message(role="tool", content="2", tool_call_id="call_0"),
        )
    )

    messages = to_payload(LLMRequest("ollama", "m", "", messages=rounds), False)["messages"]

    assert [message.get("tool_name") for message in messages] == [None, "add", None, "subtract"]


def test_image_by_bytes() -> None:
    """An image is sent as plain base64."""
    message = Message(role="user", content=(Image(data=b"png"),))

    payload = to_payload(LLMRequest("ollama", "m", "", messages=(message,)), False)

    assert payload["messages"] == [{"role": "user", "content": "", "images": ["cG5n"]}]


@pytest.mark.parametrize(
    "message",
    [
        Message(role="user", content=(Image(url="https://x/y.png"),)),
        Message(role="tool", content="2", tool_call_id="unknown"),
        Message(role="assistant", tool_calls=(ToolCall("c1", "add", "not json"),)),
    ],
)
def test_unsupported_messages(message: Message) -> None:
    """An unsupported message is rejected, not dropped."""
    with pytest.raises(ConfigError, match="ollama"):
        to_payload(LLMRequest("ollama", "m", "", messages=(message,)), False)


def test_unsupported_effort() -> None:
    """An unsupported level of reasoning is rejected, and `none` turns thinking off."""
    with pytest.raises(ConfigError, match="reasoning_effort"):
        to_payload(LLMRequest("ollama", "m", "x", reasoning_effort="xhigh"), False)
    assert to_payload(LLMRequest("ollama", "m", "x", reasoning_effort="none"), False)["think"] is False


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("box", "http://box:11434"),
        ("box:80", "http://box:80"),
        (":9000", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:1234", "http://127.0.0.1:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::]:5", "http://[::1]:5"),
        ("https://ollama.com", "https://ollama.com"),
        ("http://box/prefix", "http://box/prefix"),
    ],
)
def test_hosts(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every spelling of `OLLAMA_HOST` works."""
    monkeypatch.setenv("OLLAMA_HOST", host)

    assert server_url(host) == url
    assert ollama_client().base_url == url


@pytest.mark.parametrize("host", ["box:port", "http://user:secret@box", "ftp://box"])
def test_bad_hosts(host: str) -> None:
    """An invalid host is rejected with a ConfigError without its secret."""
    with pytest.raises(ConfigError) as caught:
        ollama_client(base_url=host)

    assert "secret" not in str(caught.value)


def test_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default Ollama is on this machine, and needs no key."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)

    assert ollama_client().base_url == "http://localhost:11434"


async def test_a_call_has_no_cost(openai_server: OpenAIServer, capture: Captured) -> None:
    """A call has no cost, since nobody charges for it."""
    model = openai_server.script({"body": json.dumps(WHOLE)})
    async with PRESET.client(base_url=openai_server.base_url) as client:
        config = LLMCallConfig("ollama", model, prompt="hi")
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert result["status"] == "ok"
    assert "gen_ai.usage.cost" not in attributes(capture.span(f"chat {model}"))


async def test_sdk_reads_the_same(openai_server: OpenAIServer) -> None:
    """Ollama's SDK finds the same text, thinking, calls, reason and counts; it has no ids."""
    model = openai_server.script({"body": json.dumps(WHOLE)})
    sdk: Any = ollama.AsyncClient(host=openai_server.base_url)
    async with sdk:
        theirs = await sdk.chat(model, [{"role": "user", "content": "hi"}])
    ours = from_payload(WHOLE)

    assert (theirs.message.content, theirs.message.thinking) == (ours.text, ours.reasoning)
    calls = [(call.function.name, call.function.arguments) for call in theirs.message.tool_calls or ()]
    assert calls == [(call.name, call.arguments) for call in ours.tool_calls]
    assert (theirs.done_reason, theirs.model) == (ours.finish_reasons[0], ours.response_model)
    assert (theirs.prompt_eval_count, theirs.eval_count) == (ours.usage.prompt_tokens, ours.usage.completion_tokens)


async def test_sdk_streams_the_same(openai_server: OpenAIServer) -> None:
    """Ollama's SDK reads the same stream, in which U+2028 is escaped, since its line iterator breaks there."""
    body = "\n".join(json.dumps(line) for line in LINES)
    model = openai_server.script({"body": body})
    sdk: Any = ollama.AsyncClient(host=openai_server.base_url)
    async with sdk:
        stream = await sdk.chat(model, [{"role": "user", "content": "hi"}], stream=True)
        parts = [part async for part in stream]
    ours = await read_reply("ollama", body.encode())

    assert "".join(part.message.content or "" for part in parts) == ours.text
    assert sum(len(part.message.tool_calls or ()) for part in parts) == len(ours.tool_calls)
    assert (parts[-1].prompt_eval_count, parts[-1].eval_count) == (26, 9)
