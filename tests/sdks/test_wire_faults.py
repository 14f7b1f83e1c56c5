"""A fault of ours, at any step, stays ours: statuses, bytes and exceptions of the user's call are as without us."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from typing import Any, NoReturn

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.provider_server import Action
from tests.sdks.requests_by_hand import LIBRARIES
from tests.support import Captured, next_call

pytestmark = pytest.mark.slow

SCRIPTS: dict[str, list[Action]] = {
    "failing": [{"status": 429}, {"status": 400}, {}],
    "cut": [{"pieces": 3}, {"status": 500}, {}],
    "compressed": [{"status": 500}, {"encoding": "gzip"}, {"encoding": "deflate"}],
}

WIRE = "tracemind_otel.wire"
STEPS = (
    f"{WIRE}.observation.is_seen",
    f"{WIRE}.observation.current_owner",
    f"{WIRE}.observation.recognized",
    f"{WIRE}.recognition.provider_at",
    f"{WIRE}.grouping.PendingCalls.continued",
    f"{WIRE}.grouping.PendingCalls.wait_for_repetition",
    f"{WIRE}.observation.LogicalCall",
    f"{WIRE}.logical_call.LogicalCall.reserve",
    f"{WIRE}.logical_call.LogicalCall.begin_attempt",
    f"{WIRE}.logical_call.LogicalCall.fail",
    f"{WIRE}.counted_call.CountedCall.active",
    f"{WIRE}.counted_call.CountedCall.end_failed",
    f"{WIRE}.counted_call.CountedCall.end_answered",
    f"{WIRE}.counted_call.warm_up",
    f"{WIRE}.counted_call.price_reply_soon",
    f"{WIRE}.observation.error_of",
    f"{WIRE}.observation.Tap",
    f"{WIRE}.tap.decoder_for",
    f"{WIRE}.tap.Reading",
    f"{WIRE}.tap.Reading.feed",
    f"{WIRE}.tap.Reading.end",
    f"{WIRE}.tap.Reading.finish",
    f"{WIRE}.tap.Reading.so_far",
    f"{WIRE}.tap.lean_decoder",
    f"{WIRE}.lean.Sieve.kept",
    f"{WIRE}.lean.LeanEvents.drops",
    f"{WIRE}.lean.LeanEvents.end",
    f"{WIRE}.whole_reply.WholeReading.feed",
    f"{WIRE}.whole_reply.WholeReading.finish",
    f"{WIRE}.observation.reply_in_body",
    f"{WIRE}.observation.Sent",
    "tracemind_otel.ai.llm.providers._compression._Members.decompress",
    f"{WIRE}.logical_call.LogicalCall.estimate_usage",
    f"{WIRE}.usage_estimate.UsageEstimate.completed",
    "tracemind_otel.flows.totals.FlowRun.add_call",
    "tracemind_otel.otel.recorder.OTelRecorder.begin_step",
    "opentelemetry.sdk.trace.Tracer.start_span",
    "opentelemetry.sdk.trace.Span.add_event",
    "opentelemetry.sdk.trace.Span.end",
    "opentelemetry.sdk.metrics.Histogram.record",
    "opentelemetry.sdk.metrics.Counter.add",
)


UNENDED = ("end_failed", "end_answered", "Span.end")
"""What is broken is the end itself."""


class InjectedError(Exception):
    """What a step of ours raises."""


def broken(*_: Any, **__: Any) -> NoReturn:
    """In the place of any step."""
    raise InjectedError("injected")


@pytest.fixture(scope="module")
def without_us(provider_server: ProviderServer) -> dict[tuple[str, str, bool], Any]:
    """What callers get when nothing is instrumented."""
    return {
        (name, script, is_stream): made(provider_server.case("openai", *SCRIPTS[script]), is_stream=is_stream)
        for name, made in LIBRARIES.items()
        for script in SCRIPTS
        for is_stream in (False, True)
    }


@pytest.fixture
def seen(capture: Captured, provider_server: ProviderServer) -> Generator[Captured]:
    """Calls to the server are seen, and priced as OpenAI's."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": "openai"})
        try:
            yield capture
        finally:
            tm.uninstrument()


class Balance(SpanProcessor):
    """Counts the spans that have begun and not ended."""

    def __init__(self) -> None:
        self.open = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.open += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.open -= 1


@pytest.mark.parametrize("step", STEPS)
def test_a_fault_at_any_step(
    step: str,
    seen: Captured,
    provider_server: ProviderServer,
    without_us: dict[tuple[str, str, bool], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each library gives its caller what it gives without us; the log names the fault; what has begun ends."""
    tm.instrument(estimate_missing_usage="estimate" in step)
    balance = Balance()
    seen.tracer_provider.add_span_processor(balance)
    with monkeypatch.context() as patched:
        patched.setattr(step, broken)
        for (library, script, is_stream), expected in without_us.items():
            with tm.flow("work") if step.endswith("add_call") else nullcontext():
                outcomes = LIBRARIES[library](provider_server.case("openai", *SCRIPTS[script]), is_stream=is_stream)
            assert outcomes == expected, (library, script, is_stream)
    assert any(record.exc_info and record.exc_info[0] is InjectedError for record in caplog.records)
    next_call()
    if not step.endswith(UNENDED):
        assert balance.open == 0
    seen.exporter.clear()
    LIBRARIES["httpx"](provider_server.case("openai"), is_stream=False)
    assert [span.name for span in seen.spans] == ["chat gpt-4o"] * 3
