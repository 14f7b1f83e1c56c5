"""Streams that report no tokens: none are recorded, unless the user asks for an estimate."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Mapping
from typing import Any

import pytest
from anthropic import Anthropic
from openai import OpenAI

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.replies import EVERY
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes

pytestmark = pytest.mark.slow

SAID = "word " * 40
ASKED = "Why, oh why? " * 20
PROMPT_TOKENS = len(ASKED) // 4
OUTPUT_TOKENS = len(SAID) // 4
COST_USD = PROMPT_TOKENS * 0.15e-6 + OUTPUT_TOKENS * 0.60e-6
HEADERS = {"content-type": "text/event-stream"}
ESTIMATED = "tracemind.usage.estimated"
INPUT, OUTPUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"


def chunk(**fields: Any) -> str:
    document = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", **fields}
    return f"data: {json.dumps(document)}\n\n"


def stream_of(*ending: str) -> str:
    pieces = [chunk(choices=[{"index": 0, "delta": {"content": "word "}}]) for _ in range(40)]
    stop = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return "".join((*pieces, stop, *ending, "data: [DONE]\n\n"))


WITHOUT_USAGE = stream_of()
WITH_USAGE = stream_of(chunk(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}))


@pytest.fixture
def prepared(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> Generator[Captured]:
    """Spans are captured; each test turns the instrumentation on as it likes.

    Anthropic's SDK makes a span of its own where a global provider exists, as another test may have made one.
    """
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    monkeypatch.delenv("TRACEMIND_ESTIMATE_MISSING_USAGE", raising=False)
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        try:
            yield capture
        finally:
            tm.uninstrument()


def read(server: OpenAIServer, body: str, *, pieces: int | None = None) -> None:
    """Read so many chunks of a stream by OpenAI's SDK, or all."""
    model = server.script({"do": "reply", "body": body, "headers": HEADERS})
    messages: Any = [{"role": "user", "content": ASKED}]
    with (
        OpenAI(api_key="sk-test", base_url=server.base_url) as client,
        client.chat.completions.create(model=model, messages=messages, stream=True) as stream,
    ):
        for _ in itertools.islice(stream, pieces):
            pass


def found(captured: Captured) -> Mapping[str, Any]:
    """The attributes of the one model call."""
    (span,) = (span for span in captured.spans if span.name.startswith("chat "))
    return attributes(span)


def turn_on(server: OpenAIServer, **options: Any) -> None:
    """See calls to the server, which are priced as OpenAI's."""
    tm.instrument(hosts={f"127.0.0.1:{server.port}": "openai"}, **options)


def test_nothing_is_estimated_unasked(prepared: Captured, openai_server: OpenAIServer) -> None:
    """Unknown is not zero: neither tokens nor cost."""
    turn_on(openai_server)
    read(openai_server, WITHOUT_USAGE)
    assert {INPUT, OUTPUT, ESTIMATED, "tracemind.cost_usd"}.isdisjoint(found(prepared))


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_an_estimate_is_marked_and_priced(
    way: str, prepared: Captured, openai_server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four characters of what was asked and of what came are a token; the flow has the sums, no metric has tokens."""
    if way == "variable":
        monkeypatch.setenv("TRACEMIND_ESTIMATE_MISSING_USAGE", "True")
    turn_on(openai_server, estimate_missing_usage=True if way == "argument" else None)
    with tm.flow("work") as run:
        read(openai_server, WITHOUT_USAGE)
    span = found(prepared)
    assert (span[INPUT], span[OUTPUT], span[ESTIMATED]) == (PROMPT_TOKENS, OUTPUT_TOKENS, True)
    assert span["tracemind.cost_usd"] == pytest.approx(COST_USD, rel=1e-9)
    assert (run.input_tokens, run.output_tokens, run.cost_usd) == (
        PROMPT_TOKENS,
        OUTPUT_TOKENS,
        span["tracemind.cost_usd"],
    )
    assert prepared.points("gen_ai.client.token.usage") == []


def test_a_stream_that_is_left_early(prepared: Captured, openai_server: OpenAIServer) -> None:
    """The estimate is of what came until then."""
    turn_on(openai_server, estimate_missing_usage=True)
    read(openai_server, WITHOUT_USAGE, pieces=8)
    span = found(prepared)
    assert span[INPUT] == PROMPT_TOKENS
    assert 10 <= span[OUTPUT] <= OUTPUT_TOKENS


def test_a_reported_usage_is_never_replaced(prepared: Captured, openai_server: OpenAIServer) -> None:
    """The option adds nothing to a stream that reports its tokens."""
    turn_on(openai_server, estimate_missing_usage=True)
    read(openai_server, WITH_USAGE)
    span = found(prepared)
    assert (span[INPUT], span[OUTPUT]) == (7, 5)
    assert ESTIMATED not in span


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_placeholder_is_never_priced(is_asked: bool, prepared: Captured, provider_server: ProviderServer) -> None:
    """Anthropic's streams begin with one token of output. One that is left has none of it, or an estimate.

    Its input is what the provider reported.
    """
    base = provider_server.case("anthropic", {"pieces": 4, "waits": True})
    hosts = {f"127.0.0.1:{provider_server.port}": "anthropic"}
    tm.instrument(hosts=hosts, estimate_missing_usage=is_asked)
    messages: Any = [{"role": "user", "content": ASKED}]
    asked: Any = {"model": EVERY["anthropic"].model, "max_tokens": 9, "messages": messages, "stream": True}
    sdk: Any = Anthropic(api_key="k", base_url=base)
    with sdk as client, client.messages.create(**asked) as stream:
        for _ in itertools.islice(stream, 3):
            pass
    span = found(prepared)
    assert span[INPUT] == EVERY["anthropic"].usage[0]
    assert (OUTPUT in span, span.get(ESTIMATED), "tracemind.cost_usd" in span) == (is_asked, is_asked or None, is_asked)


@pytest.mark.parametrize(
    ("argument", "variable", "message"),
    [
        ("yes", None, "estimate_missing_usage is str; it must be True or False"),
        (None, "yes", "TRACEMIND_ESTIMATE_MISSING_USAGE is 'yes'; it must be true or false"),
    ],
)
def test_wrong_values(argument: Any, variable: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is turned on, and the message names what is wrong."""
    if variable is not None:
        monkeypatch.setenv("TRACEMIND_ESTIMATE_MISSING_USAGE", variable)
    for turned_on in (tm.instrument, tm.configure):
        with pytest.raises(tm.ConfigError, match=message):
            turned_on(estimate_missing_usage=argument)
