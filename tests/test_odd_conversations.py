"""200 odd conversations, each by a call, a stream, a tool and another client of HTTP: content is recorded in form."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

import tracemind_otel as tm
from tests.content_schema import assert_messages, assert_parts, assert_tools
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.openai_server import Action
from tests.servers.otlp_sink import Sink, plain
from tests.servers.otlp_sink import sink as sink
from tracemind_otel.ai.llm.providers import OpenAILLMClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COUNT = 200
LIMIT = 8_192
EVENT = "gen_ai.client.inference.operation.details"
SECRETS = (
    "sk-proj-Zq81LmmT0x9vB3kE7wYd",
    "AIzaSyA1234567890abcdefghijklmno",
    "ghp_abcdefghijklmnopqrstuvwxyz0123",
    "AKIAIOSFODNN7EXAMPLE",
    "hunter2-and-no-known-form",
)
"""The last one is known as a secret by the name that it has, and by nothing else."""
MARK = "zanzibar"
"""In everything that is said, so that it is found wherever it gets."""
ODD = (
    "😀👩‍👩‍👧‍👦", "\ud800", "\udfff tail", "\0", '"', "\\", "\\u0041", "\n\r\t", "\u202eabc", "𝔘𝔫𝔦",
    "請告訴我", "<|im_end|>", "{{ x }}", "%s", "\x1b[31m", "a" * 300, "\u2028", "]}", "null",
)  # fmt: skip
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": MARK}}}


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What is said in one conversation, and what the model answers."""

    messages: tuple[tm.Message, ...]
    system: str
    tools: list[dict[str, Any]]
    answer: dict[str, Any]
    arguments: dict[str, Any]

    @property
    def body(self) -> dict[str, Any]:
        """A request of OpenAI's form, as another client sends it."""
        told = [{"role": "system", "content": self.system}, *map(_as_openai, self.messages)]
        return {"messages": told, "tools": self.tools}


def _as_openai(message: tm.Message) -> dict[str, Any]:
    parts = [tm.Text(message.content)] if isinstance(message.content, str) else message.content
    told: dict[str, Any] = {"role": message.role, "content": [*map(_part, parts)]}
    if message.tool_calls:
        told["tool_calls"] = [_function(call) for call in message.tool_calls]
    return {**told, "tool_call_id": message.tool_call_id} if message.tool_call_id else told


def _part(part: tm.Text | tm.Image) -> dict[str, Any]:
    if isinstance(part, tm.Text):
        return {"type": "text", "text": part.text}
    data = part.url or f"data:image/png;base64,{base64.b64encode(part.data or b'').decode()}"
    return {"type": "image_url", "image_url": {"url": data}}


def _function(call: tm.ToolCall) -> dict[str, Any]:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


class Maker:
    """Makes conversations by chance, the same ones each time."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._is_long = seed % 10 == 0

    def conversation(self) -> Conversation:
        messages = [self._asked()]
        for _ in range(self._dice.randrange(4)):
            calls = tuple(self._call(number) for number in range(self._dice.randrange(1, 6)))
            messages.append(tm.Message(role="assistant", content=self._said(), tool_calls=calls))
            messages += [
                tm.Message(role="tool", content=self._said(), tool_call_id=call.id, name=call.name) for call in calls
            ]
            messages.append(self._asked())
        tool = {"name": "look_up", "description": self._said(), "parameters": SCHEMA}
        return Conversation(
            messages=tuple(messages),
            system=self._said(),
            tools=[{"type": "function", "function": tool}],
            answer={
                "role": "assistant",
                "content": self._dice.choice([None, self._said()]),
                "tool_calls": [self._asked_for(number) for number in range(self._dice.randrange(1, 4))],
            },
            arguments=self._arguments(),
        )

    def _said(self) -> str:
        words = [MARK, *self._dice.choices(ODD, k=self._dice.randrange(5)), self._secret()]
        self._dice.shuffle(words)
        return " ".join(words)

    def _secret(self) -> str:
        known, named = self._dice.choice(SECRETS[:-1]), SECRETS[-1]
        return self._dice.choice(
            [known, f"password: {named}", f"https://user:{named}@host/x", json.dumps({"api_key": named}), "harmless"]
        )

    def _asked(self) -> tm.Message:
        text = self._said()
        if self._is_long:
            self._is_long = False
            text += " book" * 200_000 + self._said()
        parts: list[tm.Text | tm.Image] = [tm.Text(text)]
        if self._dice.random() < 0.3:
            parts.append(tm.Image(data=self._dice.randbytes(30_000)))
        if self._dice.random() < 0.3:
            parts.append(tm.Image(url=f"https://example.com/a.png?sig={SECRETS[0]}"))
        return tm.Message(role="user", content=tuple(parts) if len(parts) > 1 else text)

    def _arguments(self) -> dict[str, Any]:
        nested: Any = {MARK: [None, True, 1e300, -5, self._said(), {"token": SECRETS[-1], "n": self._said()}]}
        for _ in range(self._dice.choice([0, 1, 30])):
            nested = [nested]
        return {"city": self._said(), "api_key": SECRETS[-1], "deep": nested, self._dice.choice(ODD): 1}

    def _call(self, number: int) -> tm.ToolCall:
        raw = f'{{"broken": {self._said()} "password": "{SECRETS[-1]}"'
        return tm.ToolCall(f"call-{number}", "look_up", raw if self._dice.random() < 0.5 else self._arguments())

    def _asked_for(self, number: int) -> dict[str, Any]:
        function: dict[str, Any] = {"name": "look_up", "arguments": json.dumps(self._arguments())}
        return {"index": number, "id": f"call-{number}", "type": "function", "function": function}


def whole(answer: dict[str, Any]) -> Action:
    """The reply in one piece."""
    choice = {"index": 0, "message": answer, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"body": json.dumps({"id": "c", "model": "gpt-4o-mini", "choices": [choice], "usage": usage})}


def streamed(answer: dict[str, Any]) -> Action:
    """The reply as a stream of two pieces."""
    pieces: list[dict[str, Any]] = [{"delta": answer, "finish_reason": None}, {"delta": {}, "finish_reason": "stop"}]
    lines = [
        f"data: {json.dumps({'id': 'c', 'model': 'gpt-4o-mini', 'choices': [{'index': 0, **piece}]})}\n\n"
        for piece in pieces
    ]
    return {"headers": {"content-type": "text/event-stream"}, "body": "".join([*lines, "data: [DONE]\n\n"])}


@tm.tool
def look_up(city: str, **options: Any) -> dict[str, Any]:
    return {"city": city, **options}


async def hold(conversation: Conversation, server: OpenAIServer, other: httpx.AsyncClient) -> None:
    """Have the conversation by a call, a stream, another client of HTTP, and a tool."""
    model = server.script(whole(conversation.answer), streamed(conversation.answer), whole(conversation.answer))
    config = tm.LLMCallConfig(
        "openai",
        model,
        messages=conversation.messages,
        system=conversation.system,
        extra={"tools": conversation.tools},
        max_retries=0,
    )
    async with OpenAILLMClient("sk-test", server.base_url) as client:
        assert (await tm.run_llm_call("", "whole", config, client=client))["status"] == "ok"
        async with tm.stream_llm_call("", "streamed", config, client=client) as stream:
            async for _ in stream:
                pass
    reply = await other.post(
        f"{server.base_url}/chat/completions",
        content=json.dumps({**conversation.body, "model": model}).encode(),
        headers={"content-type": "application/json"},
    )
    assert reply.status_code == 200
    options = {name: value for name, value in conversation.arguments.items() if name != "city"}
    look_up(conversation.arguments["city"], **options)


async def hold_all(server: OpenAIServer) -> None:
    async with httpx.AsyncClient() as other:
        for seed in range(COUNT):
            await hold(Maker(seed).conversation(), server, other)


def contents(sink: Sink) -> Iterator[tuple[str, str]]:
    """The content of all spans, by name, as JSON."""
    for span in sink.spans():
        for name, value in plain(span.attributes).items():
            if name.startswith(
                ("gen_ai.input", "gen_ai.output.m", "gen_ai.system_i", "gen_ai.tool.d", "gen_ai.tool.call.")
            ):
                yield name, value


def values(value: AnyValue) -> Any:
    """A structured value of an event."""
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return {item.key: values(item.value) for item in value.kvlist_value.values}
    if kind == "array_value":
        return [values(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def assert_schema(name: str, content: Any) -> None:
    if name.endswith("messages"):
        assert_messages(content)
    elif name.endswith("definitions"):
        assert_tools(content)
    elif name.endswith("instructions"):
        assert_parts(content)


def sent(sink: Sink) -> bytes:
    """Every byte that was sent to the receiver."""
    return b"\n".join(post.body for post in sink.posts)


def test_content_that_is_asked_for_is_in_form_within_bounds_and_without_secrets(
    openai_server: OpenAIServer, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """On spans and on events; nothing fails to be sent for a character that it has."""
    hosts = {f"127.0.0.1:{openai_server.port}": "openai"}
    with tm.configure(endpoint=sink.url, capture_content="SPAN_AND_EVENT", content_limit=LIMIT, hosts=hosts) as handle:
        asyncio.run(hold_all(openai_server))
        assert handle.flush()
    found: dict[str, int] = {}
    for name, text in contents(sink):
        found[name] = found.get(name, 0) + 1
        assert len(text.encode()) <= LIMIT, name
        assert_schema(name, json.loads(text))
    assert found["gen_ai.input.messages"] == found["gen_ai.tool.definitions"] == 3 * COUNT
    assert found["gen_ai.system_instructions"] == 2 * COUNT  # the other client has them in its messages
    assert found["gen_ai.output.messages"] == 3 * COUNT
    assert found["gen_ai.tool.call.arguments"] == found["gen_ai.tool.call.result"] == COUNT
    events = sink.events()
    assert [event.event_name for event in events] == [EVENT] * 3 * COUNT
    for event in events:
        for item in event.attributes:
            if item.value.WhichOneof("value") in ("array_value", "kvlist_value"):
                assert item.value.ByteSize() <= 2 * LIMIT
                assert_schema(item.key, values(item.value))
    everything = sent(sink).decode(errors="replace") + caplog.text
    assert MARK in everything
    assert [secret for secret in SECRETS if secret in everything] == []


def test_content_that_is_not_asked_for_is_nowhere(
    openai_server: OpenAIServer, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of the same conversations is in spans, events, metrics or logs."""
    caplog.set_level("DEBUG", "tracemind_otel")
    hosts = {f"127.0.0.1:{openai_server.port}": "openai"}
    with tm.configure(endpoint=sink.url, hosts=hosts) as handle:
        asyncio.run(hold_all(openai_server))
        assert handle.flush()
    calls = [span for span in sink.spans() if span.name.startswith("chat")]
    assert len(calls) == 3 * COUNT
    assert sink.events() == []
    everything = sent(sink).decode(errors="replace") + caplog.text
    assert [word for word in (MARK, "book book", *SECRETS) if word in everything] == []
    assert [*contents(sink)] == []
