"""Prompts and answers of calls that SDKs make, where they are asked for."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Generator, Iterable
from typing import Any

import pytest
from openai import OpenAI

import tracemind_otel as tm
from tests.content_schema import assert_messages
from tests.sdks.cell import Cell
from tests.sdks.provider_fixture import ProviderServer
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.test_sdk_matrix import CELLS
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes
from tests.wire.conforming import CITY, REASONING, TEXT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ASKED = [{"role": "user", "parts": [{"type": "text", "content": "How much?"}]}]


@pytest.fixture
def configured(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> Generator[Captured]:
    """Content is recorded on spans, which stay in memory."""
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    options: dict[str, Any] = {"tracer_provider": capture.tracer_provider, "meter_provider": capture.meter_provider}
    with tm.configure(**options, capture_content=True, instrument=False):
        yield capture
        tm.uninstrument()


def ask(cell: Cell, base: str) -> None:
    reply = cell.ask(base)
    if inspect.iscoroutine(reply):
        asyncio.run(reply)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_what_was_asked_and_answered(cell: Cell, configured: Captured, provider_server: ProviderServer) -> None:
    """The span has the question and the whole answer, streamed or not, in the conventions' form."""
    tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": cell.provider})
    ask(cell, provider_server.case(cell.format))
    [span] = [span for span in configured.spans if "gen_ai.operation.name" in attributes(span)]
    found = attributes(span)
    asked = json.loads(found["gen_ai.input.messages"])
    assert_messages(asked)
    assert asked == ASKED
    answered = json.loads(found["gen_ai.output.messages"])
    assert_messages(answered)
    parts = answered[0]["parts"]
    if cell.format.endswith("_text"):
        assert parts == [{"type": "text", "content": TEXT}]
        return
    reasoning, text, call = parts
    assert (reasoning, text) == ({"type": "reasoning", "content": REASONING}, {"type": "text", "content": TEXT})
    assert (call["type"], call["name"], call["arguments"]) == ("tool_call", "get_weather", CITY)


def piece(**fields: Any) -> str:
    return f"data: {json.dumps({'id': 'c-1', 'model': 'gpt-4o-mini', **fields})}\n\n"


def said_by(index: int, said: str, reason: str | None = None) -> dict[str, Any]:
    """A choice of a piece, as text completions and chats have it."""
    return {"index": index, "text": said, "delta": {"content": said}, "finish_reason": reason}


TWO_CHOICES = "".join(
    piece(choices=[choice])
    for choice in (said_by(0, "Su"), said_by(1, "Ra"), said_by(1, "in", "length"), said_by(0, "n", "stop"))
)
WEATHER = [("Sun", "stop"), ("Rain", "length")]


def answers_of(captured: Captured) -> list[tuple[str, str | None]]:
    """The text of each answer on the one span of a call, and why it ended."""
    [span] = [span for span in captured.spans if "gen_ai.operation.name" in attributes(span)]
    answered = json.loads(attributes(span)["gen_ai.output.messages"])
    assert_messages(answered)
    return [(answer["parts"][0]["content"], answer.get("finish_reason")) for answer in answered]


@pytest.mark.parametrize("kind", ["chat", "text completion"])
def test_a_stream_of_two_choices(configured: Captured, openai_server: OpenAIServer, kind: str) -> None:
    """Each choice of an SDK's stream is a message of its own, with its whole text and its own reason."""
    tm.instrument(hosts={f"127.0.0.1:{openai_server.port}": "openai"})
    body = f"{TWO_CHOICES}data: [DONE]\n\n"
    model = openai_server.script({"do": "reply", "body": body, "headers": {"content-type": "text/event-stream"}})
    with OpenAI(api_key="k", base_url=openai_server.base_url) as client:
        stream: Iterable[object] = (
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], n=2, stream=True)
            if kind == "chat"
            else client.completions.create(model=model, prompt="hi", n=2, stream=True)
        )
        assert len(list(stream)) == 4
    assert answers_of(configured) == WEATHER


async def test_a_stream_of_ours_of_two_choices(configured: Captured, openai_server: OpenAIServer) -> None:
    """A stream of ours delivers its first choice, and records both."""
    body = f"{TWO_CHOICES}data: [DONE]\n\n"
    model = openai_server.script({"do": "reply", "body": body, "headers": {"content-type": "text/event-stream"}})
    config = tm.LLMCallConfig("openai", model, prompt="hi", extra={"n": 2})
    client = tm.LLMClientFactory.make("openai", api_key="k", base_url=openai_server.base_url)
    said = [
        event.text
        async for event in tm.stream_llm_call("f", "s", config, client=client)
        if isinstance(event, tm.TextDelta)
    ]
    assert "".join(said) == "Sun"
    assert answers_of(configured) == WEATHER


@pytest.mark.parametrize("cell", CELLS[:4], ids=lambda cell: cell.id)
def test_nothing_unasked(cell: Cell, capture: Captured, provider_server: ProviderServer) -> None:
    """Without `capture_content` neither question nor answer is anywhere on a span."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        ask(cell, provider_server.case(cell.format))
    everything = "".join(span.to_json() for span in capture.spans)
    assert "gen_ai.request.model" in everything
    assert "How much?" not in everything
    assert TEXT not in everything
