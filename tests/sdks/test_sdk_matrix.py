"""Every SDK, asked in every way: one call with its attempts, tokens and cost, and the reply it gives without us."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
from collections.abc import Generator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint

import tracemind_otel as tm
from tests.sdks.cell import Cell
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.provider_server import Action, Ledger
from tests.sdks.replies import EVERY
from tests.support import Captured, attributes, events

pytestmark = [
    pytest.mark.slow,
    # What SDKs do at home: Google's inherits from aiohttp's session, and Cohere's reads what pydantic renamed.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SDKS = os.getenv("TRACEMIND_TEST_SDKS", "openai anthropic google mistral cohere ollama").split()
"""The SDKs of this environment; `tests/tools/test_sdk_environments.py` runs this file in others."""
CELLS: list[Cell] = [cell for sdk in SDKS for cell in importlib.import_module(f"tests.sdks.calls_{sdk}").cell]
FAILING: list[Action] = [{"status": 429}, {"status": 500}, {}]


@pytest.fixture
def configured(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> Generator[Captured]:
    """Spans and metrics go into memory; what a test has instrumented is put back.

    Anthropic's SDK makes a span of its own where a global provider exists, as another test may have made one; ours then
    adds to it. Here it makes none.
    """
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        yield capture
        tm.uninstrument()


def made(cell: Cell, base: str) -> Any:
    """What the caller of the SDK gets."""
    reply = cell.ask(base)
    return asyncio.run(reply) if inspect.iscoroutine(reply) else reply


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_every_way_to_ask(cell: Cell, configured: Captured, provider_server: ProviderServer) -> None:
    """A call that fails with 429 and 500 and then succeeds is one call, with the provider's tokens and price."""
    script = FAILING if cell.repeats else []
    plain_base, base = (provider_server.case(cell.format, *script) for _ in range(2))
    with tm.flow("without us"):
        without_us = made(cell, plain_base)
    tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": cell.provider})
    with tm.flow("work") as run, tm.step("ask"):
        assert made(cell, base) == without_us
    ledger = provider_server.ledger(base)
    assert ledger.statuses == [each.get("status", 200) for each in script or [{}]]
    assert requests_of(ledger) == requests_of(provider_server.ledger(plain_base))
    _is_one_call(cell, configured, ledger)
    retries = len(script) - 1 if script else 0
    assert (run.llm_calls, run.retries, list(run.by_step)) == (1, retries, ["ask"])
    assert (run.input_tokens, run.output_tokens) == EVERY[cell.format].usage[:2]
    assert run.cost_usd == (None if usd(ledger) is None else pytest.approx(usd(ledger), rel=1e-9))


@pytest.mark.parametrize("cell", [cell for cell in CELLS if not cell.repeats], ids=lambda cell: cell.id)
def test_a_failure_that_is_not_repeated(cell: Cell, configured: Captured, provider_server: ProviderServer) -> None:
    """A call that fails for good is one call with the provider's status; the caller gets the SDK's exception."""
    plain_base, base = (provider_server.case(cell.format, {"status": 429}) for _ in range(2))
    with pytest.raises(Exception) as without_us:
        made(cell, plain_base)
    tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": cell.provider})
    with tm.flow("work") as run, tm.step("ask"), pytest.raises(without_us.type):
        made(cell, base)
    assert provider_server.ledger(base).statuses == [429]
    operation = "generate_content" if cell.format == "gemini" else "chat"
    found = attributes(configured.span(f"{operation} {EVERY[cell.format].model}"))
    assert found["http.response.status_code"] == 429
    assert found["error.type"] in ("429", "rate_limit_exceeded")  # the latter where the SDK reads the body in one
    assert "tracemind.cost_usd" not in found
    assert (run.llm_calls, run.retries, run.input_tokens) == (1, 0, 0)


DRAWN = {
    "host",
    "traceparent",
    "x-amzn-trace-id",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "x-amz-date",
    "authorization",
}
"""Headers with an id, the time or a signature: the SDK makes them anew for each call."""


def requests_of(ledger: Ledger) -> Any:
    """The requests without what is drawn at random or differs by the case. boto3's user agent is in any order."""
    headers = [
        {name: sorted(value) if name == "user-agent" else value for name, value in each.items() if name not in DRAWN}
        for each in ledger.headers
    ]
    return ledger.paths, ledger.bodies, headers


def _is_one_call(cell: Cell, capture: Captured, ledger: Ledger) -> None:
    provider = EVERY[cell.format]
    operation = "generate_content" if cell.format == "gemini" else "chat"
    span = capture.span(f"{operation} {provider.model}")
    found, cost = attributes(span), usd(ledger)
    step = capture.span("ask").context
    assert span.parent is not None
    assert step is not None
    assert span.parent.span_id == step.span_id
    assert found.get("gen_ai.request.stream", False) is cell.is_stream
    names = ("input_tokens", "output_tokens", None, "cache_read.input_tokens", "reasoning.output_tokens")
    for name, count in zip(names, provider.usage, strict=True):
        if name is not None:
            assert found.get(f"gen_ai.usage.{name}") == count, name
    retries = events(span, "tracemind.retry")
    reasons = [(each["tracemind.retry.reason"], each["http.response.status_code"]) for each in retries]
    assert reasons == ([("rate_limit", 429), ("server_error", 500)] if cell.repeats else [])
    assert "error.type" not in found
    assert found.get("tracemind.cost_usd") == (None if cost is None else pytest.approx(cost, rel=1e-9))
    (duration,) = capture.points("gen_ai.client.operation.duration")
    assert isinstance(duration, HistogramDataPoint)
    assert duration.count == 1
    tokens = sum(count or 0 for count in provider.usage[:2])
    assert capture.total("gen_ai.client.token.usage") == tokens
    assert capture.total("tracemind.llm.cost") == pytest.approx(cost or 0.0, rel=1e-9)
