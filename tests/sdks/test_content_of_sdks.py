"""Prompts and answers of calls that SDKs make, where they are asked for."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Generator
from typing import Any

import pytest

import tracemind_otel as tm
from tests.content_schema import assert_messages
from tests.sdks.cell import Cell
from tests.sdks.provider_fixture import ProviderServer
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.test_sdk_matrix import CELLS
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


@pytest.mark.parametrize("cell", CELLS[:4], ids=lambda cell: cell.id)
def test_nothing_unasked(cell: Cell, capture: Captured, provider_server: ProviderServer) -> None:
    """Without `capture_content` neither question nor answer is anywhere on a span."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        ask(cell, provider_server.case(cell.format))
    everything = "".join(span.to_json() for span in capture.spans)
    assert "gen_ai.request.model" in everything
    assert "How much?" not in everything
    assert TEXT not in everything
