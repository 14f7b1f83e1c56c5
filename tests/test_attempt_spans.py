"""The attempts of a call that was retried are spans below it, with the times that they had."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

import tracemind_otel as tm
from tests.support import Captured, attributes
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.errors import LLMServerError
from tracemind_otel.recording.port import StepEnd, StepRetry, StepStart

CALL = "chat m"


@pytest.fixture(autouse=True)
def telemetry(capture: Captured) -> Generator[tm.Telemetry]:
    """Spans and metrics stay in memory."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider) as configured:
        yield configured


class HangingAtLast(tm.AsyncLLMClient):
    """Fails at once, and then never answers."""

    def __init__(self) -> None:
        self.hangs = asyncio.Event()
        self._has_failed = False

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        if not self._has_failed:
            self._has_failed = True
            raise LLMServerError("overloaded", status_code=503, retry_after_s=0.001)
        self.hangs.set()
        await asyncio.Event().wait()
        raise AssertionError


class SaysThatItWaits(tm.Recorder):
    """Tells a test that an attempt has failed and the wait begins."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()

    def record_step_retry(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        self.waits.set()


async def ask(*script: str, max_retries: int = 2) -> None:
    client = FakeLLMClient(script=[*script])
    await tm.run_llm_call("f", "s", tm.LLMCallConfig("fake", "m", prompt="hi", max_retries=max_retries), client=client)


def attempts(capture: Captured) -> list[ReadableSpan]:
    return sorted((s for s in capture.spans if s.name.startswith("attempt")), key=lambda s: s.start_time or 0)


def names(spans: Sequence[ReadableSpan]) -> list[str]:
    return [span.name for span in spans]


def times(span: ReadableSpan) -> tuple[int, int]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time, span.end_time


async def test_each_attempt_of_a_retried_call_is_a_span(capture: Captured) -> None:
    """Failed ones say why, and the last one is there too."""
    await ask("429 retry-after=0.02", "connection", "ok")
    first, second, last = attempts(capture)
    assert names([first, second, last]) == ["attempt 1", "attempt 2", "attempt 3"]
    assert dict(attributes(first)) == {
        "tracemind.retry.attempt": 1,
        "tracemind.retry.reason": "rate_limit",
        "error.type": "429",
        "http.response.status_code": 429,
    }
    assert attributes(second)["tracemind.retry.reason"] == "connection"
    assert dict(attributes(last)) == {"tracemind.retry.attempt": 3}
    assert [span.status.status_code for span in (first, second, last)] == [
        StatusCode.ERROR,
        StatusCode.ERROR,
        StatusCode.UNSET,
    ]
    assert {span.kind for span in (first, second, last)} == {SpanKind.INTERNAL}
    assert not any(name.startswith("gen_ai.") for span in (first, second, last) for name in attributes(span))


async def test_they_are_below_the_call_and_the_waits_are_the_gaps(capture: Captured) -> None:
    """The first begins with the call, the last ends with it, and a wait lies between two of them."""
    await ask("429 retry-after=0.05", "503 retry-after=0.03", "ok")
    call = capture.span(CALL)
    made = attempts(capture)
    assert call.context is not None
    assert {span.parent.span_id for span in made if span.parent} == {call.context.span_id}
    assert times(made[0])[0] == times(call)[0]
    assert times(made[-1])[1] == times(call)[1]
    gaps_s = [(times(after)[0] - times(before)[1]) / 1e9 for before, after in pairwise(made)]
    assert [gap >= wait for gap, wait in zip(gaps_s, (0.049, 0.029), strict=True)] == [True, True]


async def test_a_call_without_a_retry_has_none(capture: Captured) -> None:
    """Neither a success nor a failure at the first attempt makes one."""
    await ask("ok")
    await ask("401")
    assert names(capture.spans) == [CALL, CALL]


async def test_the_last_one_of_a_failed_call_says_why(capture: Captured) -> None:
    """The attempt after which the call gave up has its error too."""
    await ask("503 retry-after=0.001", "401")
    last = attempts(capture)[-1]
    assert last.status.status_code is StatusCode.ERROR
    assert (attributes(last)["error.type"], attributes(last)["http.response.status_code"]) == ("401", 401)
    assert "tracemind.retry.reason" not in attributes(last)


async def test_the_last_one_has_the_reason_of_those_before_it(capture: Captured) -> None:
    """A search for a reason finds the attempt after which the call gave up, too."""
    await ask("503 retry-after=0.001", "timeout", max_retries=1)
    reasons = [attributes(span)["tracemind.retry.reason"] for span in attempts(capture)]
    assert reasons == ["server_error", "timeout"]


async def test_a_call_that_is_cancelled_in_its_second_attempt(capture: Captured) -> None:
    """That attempt is marked as cancelled, and has no error."""
    client = HangingAtLast()
    config = tm.LLMCallConfig("fake", "m", prompt="hi")
    task = asyncio.create_task(tm.run_llm_call("f", "s", config, client=client))
    await client.hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    last = attempts(capture)[-1]
    assert last.status.status_code is StatusCode.UNSET
    assert dict(attributes(last)) == {"tracemind.retry.attempt": 2, "tracemind.cancelled": True}


async def test_a_call_that_is_cancelled_in_the_wait(capture: Captured) -> None:
    """An attempt that has not begun has no span."""
    config = tm.LLMCallConfig("fake", "m", prompt="hi")
    waits = SaysThatItWaits()
    recorder = tm.CompositeRecorder(tm.OTelRecorder(), waits)
    client = FakeLLMClient(script=["503 retry-after=30", "ok"])
    task = asyncio.create_task(tm.run_llm_call("f", "s", config, recorder, client=client))
    await waits.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(attempts(capture)) == ["attempt 1"]


async def test_a_stream_that_is_retried(capture: Captured) -> None:
    """A stream has them as well: repeated are the attempts before its first piece."""
    client = FakeLLMClient(script=["429 retry-after=0.01", "ok"])
    config = tm.LLMCallConfig("fake", "m", prompt="hi")
    async for _ in tm.stream_llm_call("f", "s", config, client=client):
        pass
    first, last = attempts(capture)
    assert times(last)[0] - times(first)[1] >= 9_000_000
    assert times(last)[1] == times(capture.span(CALL))[1]


async def test_they_have_the_ids_of_the_flow(capture: Captured) -> None:
    """What is set once for a flow is on its attempts too."""
    with tm.flow("work", session_id="s-1", user_id="u-1"):
        await ask("503 retry-after=0.001", "ok")
    assert {(attributes(span)["session.id"], attributes(span)["user.id"]) for span in attempts(capture)} == {
        ("s-1", "u-1")
    }


async def test_they_can_be_turned_off(capture: Captured, telemetry: tm.Telemetry) -> None:
    """With `attempt_spans=False` the events are all there is."""
    telemetry.shutdown()
    with tm.configure(
        tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, attempt_spans=False
    ):
        await ask("503 retry-after=0.001", "ok")
    assert names(capture.spans) == [CALL]
    assert [event.name for event in capture.spans[0].events] == ["tracemind.retry"]


def test_a_call_that_is_not_sampled_has_none(capture: Captured) -> None:
    """Where the call's span is not recorded, its attempts are not either."""
    exporter = InMemorySpanExporter()
    unsampled = TracerProvider(sampler=ALWAYS_OFF)
    unsampled.add_span_processor(SimpleSpanProcessor(exporter))
    handle = tm.OTelRecorder(tracer_provider=unsampled).begin_step(
        StepStart(flow_id="f", step_id="s", provider="openai", model="m")
    )
    handle.retry(StepRetry(attempt=1, max_attempts=2, delay_s=0.1, reason="timeout", error_type="timeout"))
    handle.end(StepEnd(status="success", payload={}))
    assert exporter.get_finished_spans() == ()


def test_a_step_of_ones_own_need_not_say_when_an_attempt_begins(capture: Captured) -> None:
    """Without `next_attempt` the next one begins after the wait that was named."""
    handle = tm.OTelRecorder().begin_step(StepStart(flow_id="f", step_id="s", provider="openai", model="m"))
    failed_ns = 4_000_000_000_000_000_000
    handle.retry(
        StepRetry(attempt=1, max_attempts=2, delay_s=0.5, reason="timeout", error_type="timeout", failed_ns=failed_ns)
    )
    handle.end(StepEnd(status="success", payload={}, ended_ns=failed_ns + 2_000_000_000))
    assert [times(span)[1 - n] - failed_ns for n, span in enumerate(attempts(capture))] == [0, 500_000_000]
