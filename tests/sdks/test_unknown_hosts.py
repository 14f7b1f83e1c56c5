"""A server whose provider nobody has named: its calls have the user's own prices or none, and the log says it once."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

import ollama
import openai
import pytest

import tracemind_otel as tm
from tests.sdks.held_server import HeldServer, Reply
from tests.sdks.held_server import held_server as held_server
from tests.sdks.replies import EVERY
from tests.support import Captured, attributes

pytestmark = pytest.mark.slow


@pytest.fixture
def configured(capture: Captured) -> Generator[Captured]:
    """Spans and metrics go into memory; what a test has set is put back."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        yield capture
        tm.uninstrument()
        tm.set_prices([])


def ask(server: HeldServer) -> None:
    server.answer(Reply.of(EVERY["openai"].whole))
    with openai.OpenAI(api_key="k", base_url=f"{server.base}/v1") as client:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "How much?"}])


def warnings_in(log: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in log.records if each.levelno == logging.WARNING]


def test_it_says_once_what_to_write(
    configured: Captured, held_server: HeldServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The message names the host and the line; the tokens are counted all the same."""
    for _ in range(2):
        ask(held_server)
    host = held_server.host
    assert warnings_in(caplog) == [
        f"calls to {host} have no cost: nobody knows whose prices hold there; write "
        f'tm.configure(hosts={{"{host}": "openai"}}) if they are those of openai, or add a price by set_prices()'
    ]
    for span in configured.spans:
        assert "tracemind.cost_usd" not in attributes(span)
        assert attributes(span)["gen_ai.usage.input_tokens"] == EVERY["openai"].usage[0]


def test_the_line_that_it_says(configured: Captured, held_server: HeldServer, caplog: pytest.LogCaptureFixture) -> None:
    """With the host declared the call has its provider's price."""
    tm.instrument(hosts={held_server.host: "openai"})
    ask(held_server)
    assert attributes(configured.span("chat gpt-4o"))["tracemind.cost.source"] == "local"
    assert warnings_in(caplog) == []


def test_the_users_own_price(configured: Captured, held_server: HeldServer, caplog: pytest.LogCaptureFixture) -> None:
    """It holds at any host, and nothing is said."""
    tm.set_prices([{"model": "gpt-4o", "input": 2, "output": 8}])
    ask(held_server)
    found = attributes(configured.span("chat gpt-4o"))
    assert found["tracemind.cost.source"] == "override"
    prompt, completion = EVERY["openai"].usage[:2]
    assert prompt is not None
    assert completion is not None
    assert found["tracemind.cost_usd"] == pytest.approx(prompt * 2e-6 + completion * 8e-6, rel=1e-9)
    assert warnings_in(caplog) == []


def test_the_format_tells_what_to_write(
    configured: Captured, held_server: HeldServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The line for a server that speaks Ollama's format names Ollama."""
    held_server.answer(Reply.of(EVERY["ollama"].whole))
    client: Any = ollama.Client(held_server.base)
    client.chat(model="qwen3:8b", messages=[{"role": "user", "content": "How much?"}])
    assert f'hosts={{"{held_server.host}": "ollama"}}' in warnings_in(caplog)[0]
