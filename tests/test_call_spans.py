"""The spans of model calls on the provider of `configure()` are those that the SDK would make."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

import tracemind_otel as tm
from tests.support import Captured
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.otel.setup.call_spans import CallSpan, CallTracerProvider
from tracemind_otel.otel.setup.span_prices import SpanPrices

RESOURCE = Resource({"service.name": "tests"})
START = {"gen_ai.operation.name": "chat", "server.port": 443, "gen_ai.request.stop_sequences": ("a", "b")}


class Kept:
    """A provider, and the spans that it made."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self._exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(self._exporter)
        if isinstance(provider, CallTracerProvider):
            provider.add_own_processor(processor)
        else:
            provider.add_span_processor(processor)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


def lean() -> Kept:
    return Kept(CallTracerProvider(RESOURCE))


def usual() -> Kept:
    return Kept(TracerProvider(resource=RESOURCE, shutdown_on_exit=False))


def started(provider: TracerProvider, attributes: Mapping[str, Any] = START) -> Any:
    """A span as the recorder starts it."""
    if isinstance(provider, CallTracerProvider):
        return provider.start_call_span("chat toy", attributes, 10)
    return provider.get_tracer("t").start_span("chat toy", kind=SpanKind.CLIENT, attributes=attributes, start_time=10)


def told(span: ReadableSpan) -> dict[str, Any]:
    """All that an exporter reads of a span but its ids."""
    assert span.instrumentation_scope is not None
    return {
        "name": span.name,
        "kind": span.kind,
        "attributes": dict(span.attributes or {}),
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
        "events": [(event.name, dict(event.attributes or {}), event.timestamp) for event in span.events],
        "links": [(link.context, dict(link.attributes or {})) for link in span.links],
        "status": (span.status.status_code, span.status.description),
        "times": (span.start_time, span.end_time),
        "resource": span.resource,
        "has_parent": span.parent is not None,
        "flags": span.context.trace_flags if span.context else None,
    }


LINKED = trace.SpanContext(5, 6, is_remote=True)


def change_nothing(span: Any) -> None: ...


def fill(span: Any) -> None:
    span.set_attributes({"gen_ai.usage.input_tokens": 3, "tracemind.cost_usd": 0.5, "f": ("stop",), "b": True})


def fill_oddly(span: Any) -> None:
    """What a hook of another library may do."""
    span.set_attribute("", "no name")
    span.set_attributes({"none": None, "bytes": b"\x01", "list": [1, 2], "object": object(), "mixed": [1, "a"]})
    span.set_attribute("map", {"a": {"b": 1}})


def fill_up(span: Any) -> None:
    span.set_attributes({f"name.{number}": number for number in range(200)})


def fail(span: Any) -> None:
    span.set_status(Status(StatusCode.ERROR, "it failed"))
    span.add_event("tracemind.retry", {"tracemind.retry.attempt": 1}, timestamp=12)
    span.set_status(StatusCode.UNSET)


def succeed_for_good(span: Any) -> None:
    span.set_status(StatusCode.OK)
    span.set_status(StatusCode.ERROR, "too late")


def note_much(span: Any) -> None:
    for number in range(130):
        span.add_event(f"event {number}", timestamp=number)


def link(span: Any) -> None:
    span.add_link(LINKED, {"why": "a batch"})
    span.update_name("another name")


@pytest.mark.parametrize("change", [change_nothing, fill, fill_oddly, fill_up, fail, succeed_for_good, note_much, link])
def test_a_call_has_the_span_that_the_sdk_makes(change: Any) -> None:
    """Whatever is done to the span of a call, an exporter gets what the SDK's span would give it."""
    found = list[dict[str, Any]]()
    for kept in (lean(), usual()):
        span = started(kept.provider)
        change(span)
        span.end(20)
        found.append(told(kept.spans[0]))

    assert found[0] == found[1]


def test_a_call_that_runs_can_be_read_as_json() -> None:
    """A hook that writes the current span out gets what the SDK's span would give it."""
    found = list[dict[str, Any]]()
    for kept in (lean(), usual()):
        span = started(kept.provider)
        fill(span)
        link(span)
        written = json.loads(span.to_json(indent=None))
        found.append({name: value for name, value in written.items() if name != "context"})

    assert found[0] == found[1]
    assert found[0]["end_time"] is None


def test_a_running_call_can_be_written_as_json() -> None:
    """What the SDK's span says of itself while it runs, the span of a call says too."""
    found = [json.loads(started(kept.provider).to_json()) for kept in (lean(), usual())]
    for each in found:
        each["context"] = each["parent_id"] = None

    assert found[0] == found[1]


def test_an_exception_is_recorded_as_the_sdk_does() -> None:
    """An exception becomes an event with type, message and stack."""
    found = list[dict[str, Any]]()
    for kept in (lean(), usual()):
        span = started(kept.provider)
        try:
            raise tm.ConfigError("no")
        except tm.ConfigError as error:
            span.record_exception(error, {"more": 1}, timestamp=15)
        span.end(20)
        found.append(told(kept.spans[0]))

    assert found[0] == found[1]


def test_a_call_stands_below_the_current_span() -> None:
    """A call in a span continues its trace, with its state and its sampling."""
    kept = lean()
    state = trace.TraceState([("vendor", "value")])
    remote = trace.SpanContext(0xA, 0xB, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    with trace.use_span(trace.NonRecordingSpan(remote)):
        span = started(kept.provider)
    span.end()

    context = span.get_span_context()
    assert (context.trace_id, context.trace_state, context.trace_flags.sampled) == (0xA, state, True)
    assert span.parent == remote


def test_a_call_that_is_not_sampled_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampler decides, and what it drops has a context all the same."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    kept = lean()
    span = started(kept.provider)
    span.end()

    assert not span.is_recording()
    assert span.get_span_context().is_valid
    assert kept.spans == ()


def test_an_ended_span_is_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    """What comes after the end is ignored, and that is logged."""
    kept = lean()
    span = started(kept.provider)
    span.end(20)
    span.set_attribute("late", 1)
    span.end(30)

    assert [told(each)["times"] for each in kept.spans] == [(10, 20)]
    assert "late" not in (kept.spans[0].attributes or {})
    assert "has ended" in caplog.text


def test_a_processor_of_somebody_else_gets_spans_of_the_sdk() -> None:
    """A span processor that is added gets the SDK's own spans from the next call on."""
    seen = list[object]()

    class Theirs(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            seen.append(span)

    provider = CallTracerProvider(RESOURCE)
    assert isinstance(started(provider), CallSpan)
    provider.add_span_processor(Theirs())
    started(provider).end()

    assert [isinstance(span, Span) for span in seen] == [True]


@pytest.mark.parametrize("variable", ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"])
def test_limits_are_kept(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A limit that a variable sets holds for calls too."""
    monkeypatch.setenv(variable, "2")
    kept = lean()
    span = started(kept.provider, {"first": "abc", "second": "abc", "third": "abc"})
    span.end()

    attributes = kept.spans[0].attributes or {}
    assert len(attributes) == 2 or set(attributes.values()) == {"ab"}


def test_calls_of_configure_have_such_spans(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The recorder uses them on the provider that `configure()` made, and the file has the span."""
    path = tmp_path / "trace.jsonl"
    seen = list[object]()

    class Client(FakeLLMClient):
        async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
            seen.append(trace.get_current_span())
            return await super().complete(req)

    with tm.configure(service_name="tests", file=path):
        tm.llm_call_sync("fake/toy-1", "Hello", client=Client())

    assert [type(span) for span in seen] == [CallSpan]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    assert "chat toy-1" in path.read_text()


def test_calls_of_our_own_take_no_memory_after_their_end() -> None:
    """A service that calls models for weeks keeps of each call neither its span nor the id of its reply."""
    provider = CallTracerProvider(RESOURCE)
    provider.add_own_processor(SpanPrices())

    def calls(first: int) -> None:
        for number in range(first, first + 5_000):
            span = started(provider)
            span.set_attributes({"gen_ai.response.id": f"reply-{number}"})
            span.end(20)

    tracemalloc.start()
    try:
        calls(0)
        before = tracemalloc.get_traced_memory()[0]
        calls(5_000)
        grown_bytes = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown_bytes < 300_000


def test_the_reply_of_our_call_told_later(capture: Captured) -> None:
    """A span of another instrumentation that ends after ours, with the id of its reply, is not counted again."""
    theirs = capture.tracer_provider.get_tracer("acme.instrumentation")
    reply = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.id": "reply-1"}
    usage = {"gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.output_tokens": 200}
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        ours = capture.tracer_provider.get_tracer("tracemind_otel").start_span("chat", attributes=reply)
        ours.end()
        with tm.flow("work") as run:
            for _ in range(2):
                theirs.start_span("theirs", kind=SpanKind.CLIENT, attributes={**reply, **usage}).end()
    assert run.llm_calls == 0


def test_spans_of_others_inside_our_call(capture: Captured) -> None:
    """A span of another instrumentation inside ours tells of the same call, also where a third is between them."""
    theirs = capture.tracer_provider.get_tracer("acme.instrumentation")
    ours = capture.tracer_provider.get_tracer("tracemind_otel")
    chat = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
    usage = {"gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.output_tokens": 200}
    with (
        tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider),
        tm.flow("work") as run,
        ours.start_as_current_span("chat", attributes=chat),
        theirs.start_as_current_span("transport"),
        theirs.start_as_current_span("theirs", attributes=chat) as span,
    ):
        span.set_attributes(usage)
    assert run.llm_calls == 0
