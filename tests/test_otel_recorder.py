"""The span of a call: its attributes and events, and when it ends."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any, cast

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from tests.support import Captured, attributes, calls, captured, events
from tracemind_otel import OTelRecorder
from tracemind_otel.ai.llm import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.ai.llm.pricing import set_prices
from tracemind_otel.errors import LLMError, LLMRateLimitError, LLMServerError
from tracemind_otel.otel import semconv
from tracemind_otel.otel.current import Providers, use_providers
from tracemind_otel.runtime.recorder import Recorder, StepEnd, StepHandle, StepRetry, StepStart
from tracemind_otel.steps.ai_llm_call import LLMCallConfig, run_llm_call

GAP_NAMES = ("gen_ai.client.operation.time_per_output_chunk", "gen_ai.client.inference.time_per_output_chunk")
COST_ATTRIBUTES = ("gen_ai.usage.cost", "tracemind.cost_usd", "tracemind.cost.source", "tracemind.cost.bucket")

AT_START = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "server.address": "api.example.com",
    "server.port": 8443,
    "tracemind.flow.id": "flow-1",
    "tracemind.step.id": "step-1",
    "tracemind.step.type": "ai.llm_call",
}

REPLY = LLMResponse(
    "hi",
    LLMUsage(1_000, 500, 1_500),
    finish_reasons=("stop",),
    response_id="chatcmpl-1",
    response_model="gpt-4o-mini-2024-07-18",
)


class Client(AsyncLLMClient):
    """A client that returns or raises the given outcomes in turn."""

    provider_name = "openai"
    server_address: str | None = "api.example.com"
    server_port: int | None = 8443

    def __init__(self, *outcomes: LLMResponse | LLMError | None) -> None:
        self._outcomes = list(outcomes)
        self.span_contexts = list[trace.SpanContext]()
        self.attempting = asyncio.Event()

    async def complete(self, req: LLMRequest) -> LLMResponse:
        self.span_contexts.append(trace.get_current_span().get_span_context())
        self.attempting.set()
        outcome = self._outcomes.pop(0)
        if outcome is None:
            await asyncio.Event().wait()
            raise AssertionError
        if isinstance(outcome, LLMError):
            raise outcome
        return outcome


class Serverless(Client):
    """A client without a server, whose provider has another name in the conventions."""

    server_address = None
    server_port = None
    telemetry_name = "gcp.gemini"
    operation = "generate_content"


def rate_limited(retry_after_s: float = 0.001) -> LLMError:
    return LLMRateLimitError("HTTP 429: slow down", status_code=429, code="rpm", retry_after_s=retry_after_s)


async def call(
    recorder: Recorder, client: AsyncLLMClient, model: str = "gpt-4o-mini", **options: Any
) -> dict[str, Any]:
    cfg = LLMCallConfig("openai", model, "hi", **options)
    return await run_llm_call("flow-1", "step-1", cfg, recorder, client=client)


def span_id(span: ReadableSpan) -> int:
    context = span.context
    assert isinstance(context, SpanContext)
    return context.span_id


async def span_of(capture: Captured, *outcomes: LLMResponse | LLMError, **options: Any) -> ReadableSpan:
    await call(capture.recorder(), Client(*outcomes), **options)
    return the_call(capture)


def the_call(capture: Captured) -> ReadableSpan:
    """The one call; the attempts of a call that was retried are spans of their own (tests/test_attempt_spans.py)."""
    [span] = calls(capture.spans)
    return span


# --- What is on it ---


async def test_a_call_that_succeeds(capture: Captured) -> None:
    """The span of a success has exactly the attributes of the contract."""
    span = await span_of(capture, REPLY)
    assert dict(attributes(span)) == {
        **AT_START,
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 500,
        "gen_ai.usage.cost": pytest.approx(0.00045),
        "tracemind.cost_usd": pytest.approx(0.00045),
        "tracemind.cost.source": "local",
        "tracemind.cost.bucket": "lt_0.001",
        "tracemind.cost.input_usd": pytest.approx(0.00015),
        "tracemind.cost.output_usd": pytest.approx(0.0003),
        "tracemind.cost.fees_usd": 0.0,
        "tracemind.cost.table": version("genai-prices"),
        "tracemind.retry.count": 0,
    }
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())


def ended(capture: Captured, response: LLMResponse, usage: LLMUsage, provider: str = "anthropic") -> dict[str, Any]:
    """The attributes of a call with this end."""
    handle = capture.recorder().begin_step(StepStart(flow_id="f", step_id="s", provider=provider, model="m"))
    handle.end(StepEnd(status="success", payload={}, response=response, usage=usage))
    return dict(attributes(capture.spans[-1]))


def test_what_a_stored_call_needs_to_be_priced_again(capture: Captured) -> None:
    """Cache writes by lifetime, tools, modalities and conditions are on the span, under names of the package."""
    usage = LLMUsage(
        100, 5, 105, cache_write_5m_tokens=40, cache_write_1h_tokens=60, web_searches=2, input_audio_tokens=7
    )
    response = LLMResponse("x", usage, service_tier="priority", price_conditions={"speed": "fast", "unheard": "of"})
    found = ended(capture, response, usage)
    assert {name: value for name, value in found.items() if name.startswith(("tracemind.usage", "tracemind.resp"))} == {
        "tracemind.usage.cache_write_5m.input_tokens": 40,
        "tracemind.usage.cache_write_1h.input_tokens": 60,
        "tracemind.usage.web_searches": 2,
        "tracemind.usage.audio.input_tokens": 7,
        "tracemind.response.service_tier": "priority",
        "tracemind.response.speed": "fast",
    }


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "openai.response.service_tier"),
        ("azure.ai.openai", "openai.response.service_tier"),
        ("gcp.gemini", "tracemind.response.service_tier"),
    ],
)
def test_the_served_tier(capture: Captured, provider: str, name: str) -> None:
    """OpenAI's service tier has the conventions' attribute, and other providers' the package's."""
    found = ended(capture, LLMResponse("x", LLMUsage(1, 1, 2), service_tier="flex"), LLMUsage(1, 1, 2), provider)
    assert {key: value for key, value in found.items() if "tier" in key} == {name: "flex"}


def test_the_parts_of_the_cost(capture: Captured) -> None:
    """The span has the cost's parts, its table and what had no price; a total alone has none of them."""
    parts: dict[str, Any] = {"input_cost_usd": 0.1, "output_cost_usd": 0.2, "fees_usd": 0.03, "cost_table": "1.2.3"}
    priced = LLMUsage(1, 1, 2).with_cost(0.33, "local", **parts, cost_partial=("input_audio_tokens", "speed=fast"))
    total = LLMUsage(1, 1, 2).with_cost(0.33, "provider")
    reply = LLMResponse("x", LLMUsage(1, 1, 2))
    shown = [
        {name: value for name, value in ended(capture, reply, usage).items() if name.startswith("tracemind.cost.")}
        for usage in (priced, total)
    ]
    assert shown == [
        {
            "tracemind.cost.source": "local",
            "tracemind.cost.bucket": "lt_1",
            "tracemind.cost.input_usd": 0.1,
            "tracemind.cost.output_usd": 0.2,
            "tracemind.cost.fees_usd": 0.03,
            "tracemind.cost.table": "1.2.3",
            "tracemind.cost.partial": ("input_audio_tokens", "speed=fast"),
        },
        {"tracemind.cost.source": "provider", "tracemind.cost.bucket": "lt_1"},
    ]


@pytest.mark.parametrize("opt_in", ["gen_ai_cost", "http, gen_ai_cost ,gen_ai_latest_experimental"])
def test_the_coming_names_of_the_cost(capture: Captured, monkeypatch: pytest.MonkeyPatch, opt_in: str) -> None:
    """On request the cost has the names that the conventions are about to adopt, instead of the old one."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    usage = LLMUsage(1, 1, 2).with_cost(0.5, "override")
    found = ended(capture, LLMResponse("x", usage), usage)
    assert {name: value for name, value in found.items() if name.startswith("gen_ai.usage.cost")} == {
        "gen_ai.usage.cost.amount": 0.5,
        "gen_ai.usage.cost.currency": "USD",
        "gen_ai.usage.cost.source": "local",
    }
    assert (found["tracemind.cost_usd"], found["tracemind.cost.source"]) == (0.5, "override")


@pytest.mark.parametrize(
    ("usage", "names"),
    [
        (LLMUsage(None, 7, None), {"gen_ai.usage.output_tokens"}),
        (LLMUsage(7, None, None), {"gen_ai.usage.input_tokens"}),
        (LLMUsage(None, None, None), set[str]()),
    ],
)
def test_a_count_that_was_not_reported_has_no_attribute(capture: Captured, usage: LLMUsage, names: set[str]) -> None:
    """A count that was reported alone is on the span; the other is not zero, and there is no total."""
    found = ended(capture, LLMResponse("x", usage), usage)
    assert {name for name in found if "tokens" in name} == names


def gaps_of(capture: Captured, name: str) -> tuple[int, float, object]:
    """The count and the sum of the gaps that were measured, and their model."""
    (point,) = capture.points(name)
    assert isinstance(point, HistogramDataPoint)
    return point.count, point.sum, (point.attributes or {})["gen_ai.response.model"]


@pytest.mark.parametrize(
    ("opt_in", "names"),
    [
        ("", {"gen_ai.client.operation.time_per_output_chunk"}),
        ("gen_ai_latest_experimental", {"gen_ai.client.inference.time_per_output_chunk"}),
        (
            "gen_ai_latest_experimental/dup",
            {"gen_ai.client.operation.time_per_output_chunk", "gen_ai.client.inference.time_per_output_chunk"},
        ),
    ],
)
def test_chunk_gaps_are_measured_as_they_come(
    capture: Captured, monkeypatch: pytest.MonkeyPatch, opt_in: str, names: set[str]
) -> None:
    """Gaps are measured after a second, and the rest at the end, under the requested names, all in one series."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    handle = capture.recorder().begin_step(StepStart(flow_id="f", step_id="s", provider="openai", model="m"))
    handle.first_chunk()
    for model in ("m-2026", "m-2026", "m-other"):
        handle.next_chunk(0.5, model)
    assert [gaps_of(capture, name) for name in names] == [(2, 1.0, "m-2026")] * len(names)
    handle.end(StepEnd(status="success", payload={}))
    assert [gaps_of(capture, name) for name in names] == [(3, 1.5, "m-2026")] * len(names)
    assert {name for name in GAP_NAMES if capture.points(name)} == names


async def test_its_name_kind_and_scope(capture: Captured) -> None:
    """Name and kind follow the GenAI conventions, and the scope names the package and the schema."""
    span = await span_of(capture, REPLY)
    assert (span.name, span.kind, span.parent) == ("chat gpt-4o-mini", SpanKind.CLIENT, None)
    assert span.instrumentation_scope is not None
    assert (span.instrumentation_scope.name, span.instrumentation_scope.schema_url) == (
        "tracemind_otel",
        "https://opentelemetry.io/schemas/gen-ai/1.42.0",
    )


async def test_what_a_sampler_sees(capture: Captured) -> None:
    """Everything known at the start is on the span then, so that a sampler can use it."""
    at_start = list[dict[str, Any]]()

    class Noting(SpanProcessor):
        def on_start(self, span: Span, parent_context: object = None) -> None:
            at_start.append(dict(span.attributes or {}))

    capture.tracer_provider.add_span_processor(Noting())
    await span_of(capture, REPLY, temperature=0, top_p=0.9)
    assert at_start == [{**AT_START, "gen_ai.request.temperature": 0.0, "gen_ai.request.top_p": 0.9}]


async def test_a_client_without_a_server(capture: Captured) -> None:
    """A call without a server has no `server.*`, and the conventions' name of the provider."""
    client = Serverless(REPLY)
    await call(capture.recorder(), client)
    span = capture.span("generate_content gpt-4o-mini")
    assert not {"server.address", "server.port"} & set(attributes(span))
    assert attributes(span)["gen_ai.provider.name"] == "gcp.gemini"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (LLMUsage(), {}),
        (LLMUsage(0, 7, 7), {"input_tokens": 0, "output_tokens": 7}),
        (
            LLMUsage(10, 7, 17, cache_read_tokens=0, cache_write_tokens=3, reasoning_tokens=2),
            {
                "input_tokens": 10,
                "output_tokens": 7,
                "cache_read.input_tokens": 0,
                "cache_write.input_tokens": 3,
                "reasoning.output_tokens": 2,
            },
        ),
    ],
)
async def test_tokens(capture: Captured, usage: LLMUsage, expected: dict[str, int]) -> None:
    """Reported counts are on the span, zeros included; other counts are absent."""
    span = await span_of(capture, LLMResponse("hi", usage), model="no-such-model")
    found = {name: value for name, value in attributes(span).items() if name.startswith("gen_ai.usage.")}
    assert found == {f"gen_ai.usage.{name}": value for name, value in expected.items()}


async def test_estimated_usage_is_marked(capture: Captured) -> None:
    """Estimated counts are marked; reported ones are not."""
    span = await span_of(capture, LLMResponse("hi", LLMUsage(1, 1, 2, estimated=True)))
    assert attributes(span)["tracemind.usage.estimated"] is True


async def test_what_the_provider_does_not_say_is_absent(capture: Captured) -> None:
    """A span has no empty id, model or list of reasons."""
    span = await span_of(capture, LLMResponse("hi", LLMUsage(1, 1, 2)))
    assert not [name for name in attributes(span) if name.startswith("gen_ai.response.")]


# --- Cost ---


@pytest.mark.parametrize(
    ("cost", "bucket"),
    [
        (0.0, "lt_0.0001"),
        (0.000_099_9, "lt_0.0001"),
        (0.000_1, "lt_0.001"),
        (0.001, "lt_0.01"),
        (0.009_999, "lt_0.01"),
        (0.01, "lt_0.1"),
        (0.1, "lt_1"),
        (0.999, "lt_1"),
        (1.0, "lt_10"),
        (9.999, "lt_10"),
        (10.0, "ge_10"),
        (1234.5, "ge_10"),
    ],
)
async def test_the_cost_bucket(capture: Captured, cost: float, bucket: str) -> None:
    """Jaeger's search compares strings and finds expensive calls by the bucket; both cost attributes agree."""
    span = await span_of(capture, LLMResponse("hi", LLMUsage(1, 1, 2, cost)))
    assert [attributes(span)[name] for name in COST_ATTRIBUTES] == [cost, cost, "provider", bucket]


async def test_an_override_is_named_as_the_source(capture: Captured) -> None:
    """A cost says whether its price is the user's or the table's."""
    set_prices([{"model": "gpt-4o-mini", "input": 10, "output": 20}])
    span = await span_of(capture, REPLY)
    assert [attributes(span)[name] for name in COST_ATTRIBUTES] == [0.02, 0.02, "override", "lt_0.1"]


@pytest.mark.parametrize("reply", [REPLY, LLMResponse("hi", LLMUsage())])
async def test_an_unknown_price_is_absent(capture: Captured, reply: LLMResponse) -> None:
    """A call of unknown price has no cost attribute, and adds one to the unpriced calls."""
    reply = LLMResponse("hi", reply.usage)
    span = await span_of(capture, reply, model="no-such-model")
    assert not set(COST_ATTRIBUTES) & set(attributes(span))
    assert capture.total("tracemind.llm.unpriced_calls") == 1
    assert capture.points("tracemind.llm.cost") == []


# --- Retries and errors ---


async def test_a_call_that_recovers(capture: Captured) -> None:
    """Each failed attempt is an event, and the span has no error."""
    span = await span_of(capture, rate_limited(0.002), LLMServerError("x", status_code=503, retry_after_s=0.001), REPLY)
    assert events(span, "tracemind.retry") == [
        {
            "tracemind.retry.attempt": 1,
            "tracemind.retry.max_attempts": 3,
            "tracemind.retry.delay_s": 0.002,
            "tracemind.retry.reason": "rate_limit",
            "error.type": "rpm",
            "http.response.status_code": 429,
        },
        {
            "tracemind.retry.attempt": 2,
            "tracemind.retry.max_attempts": 3,
            "tracemind.retry.delay_s": 0.001,
            "tracemind.retry.reason": "server_error",
            "error.type": "503",
            "http.response.status_code": 503,
        },
    ]
    assert attributes(span)["tracemind.retry.count"] == 2
    assert span.status.status_code is StatusCode.UNSET
    assert not {"error.type", "http.response.status_code"} & set(attributes(span))
    assert events(span, "exception") == []


async def test_a_retry_without_a_status(capture: Captured) -> None:
    """The event of an attempt without a reply has no status."""
    span = await span_of(capture, LLMError("x", retryable=True, retry_after_s=0.001), REPLY)
    assert "http.response.status_code" not in events(span, "tracemind.retry")[0]


async def test_the_event_comes_before_the_wait(capture: Captured) -> None:
    """The event has the time of the failure, not that of the next attempt."""
    span = await span_of(capture, rate_limited(0.05), REPLY)
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.events[0].timestamp >= 45_000_000
    assert span.events[0].timestamp - span.start_time < 45_000_000


async def test_a_call_that_fails(capture: Captured) -> None:
    """The last failure sets the status, `error.type`, the HTTP status and one exception event."""
    span = await span_of(capture, rate_limited(), rate_limited(61.0))
    assert dict(attributes(span)) == {
        **AT_START,
        "tracemind.retry.count": 1,
        "error.type": "rpm",
        "http.response.status_code": 429,
    }
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "HTTP 429: slow down")
    assert [event.name for event in span.events] == ["tracemind.retry", "exception"]
    assert events(span, "exception") == [
        {"exception.type": "LLMRateLimitError", "exception.message": "HTTP 429: slow down"}
    ]


async def test_error_type_is_the_same_everywhere(capture: Captured) -> None:
    """Span, event, metric and result have the same `error.type`."""
    result = await call(capture.recorder(), Client(rate_limited(), rate_limited(61.0)))
    span = the_call(capture)
    points = capture.points("gen_ai.client.operation.duration")
    found = [attributes(span), events(span, "tracemind.retry")[0], points[0].attributes or {}]
    assert [names["error.type"] for names in found] == ["rpm"] * 3
    assert result["error_type"] == "rpm"


async def test_a_cancelled_call(capture: Captured) -> None:
    """A cancelled call has an unset status, no `error.type`, no exception event, a mark, and what it may be billed."""
    client = Client(None)
    task = asyncio.create_task(call(capture.recorder(), client))
    await client.attempting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = capture.spans[0]
    presumed = attributes(span)["tracemind.cost.presumed_usd"]
    ending = {"tracemind.retry.count": 0, "tracemind.cancelled": True, "tracemind.cost.presumed_usd": presumed}
    assert dict(attributes(span)) == {**AT_START, **ending}
    assert presumed == pytest.approx(0.15e-6)  # the input alone: one token of gpt-4o-mini
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())


# --- Where it stands, and when it ends ---


async def test_it_nests_under_the_span_that_is_current(capture: Captured) -> None:
    """A call is a child of the current span."""
    with trace.get_tracer("mine", tracer_provider=capture.tracer_provider).start_as_current_span("outer") as outer:
        await call(capture.recorder(), Client(REPLY))
    parent = capture.span("chat gpt-4o-mini").parent
    assert parent is not None
    assert parent.span_id == outer.get_span_context().span_id


async def test_it_is_current_for_each_attempt_and_not_after(capture: Captured) -> None:
    """Spans of the client are below the call on every attempt, and the caller's context is unchanged."""
    client, before = Client(rate_limited(), REPLY), trace.get_current_span()
    await call(capture.recorder(), client)
    assert {context.span_id for context in client.span_contexts} == {span_id(the_call(capture))}
    assert len(client.span_contexts) == 2
    assert trace.get_current_span() is before


async def test_pricing_takes_no_time_of_the_span(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The span ends with the last byte, before the price is looked up."""
    priced_at_ns = list[int]()

    async def slow_price(*_: object, **__: object) -> LLMUsage:
        priced_at_ns.append(time.time_ns())
        return LLMUsage()

    monkeypatch.setattr("tracemind_otel.call.accounting.price_reply", slow_price)
    span = await span_of(capture, REPLY)
    assert span.end_time is not None
    assert span.end_time <= priced_at_ns[0]


def begin(capture: Captured) -> StepHandle:
    return capture.recorder().begin_step(StepStart(flow_id="f", step_id="s", provider="openai", model="m"))


def test_it_ends_once(capture: Captured) -> None:
    """Events after the end change neither the span nor the metrics."""
    handle = begin(capture)
    handle.end(StepEnd(status="success", payload={}, usage=LLMUsage(1, 1, 2, 0.5)))
    handle.end(StepEnd(status="error", payload={}, error=LLMError("late"), usage=LLMUsage(9, 9, 18, 9.0)))
    handle.retry(StepRetry(attempt=1, max_attempts=2, delay_s=0.1, reason="timeout", error_type="timeout"))
    assert len(capture.spans) == 1
    assert capture.spans[0].status.status_code is StatusCode.UNSET
    assert capture.spans[0].events == ()
    assert capture.total("tracemind.llm.cost") == 0.5


def test_it_ends_where_the_last_attempt_ended(capture: Captured) -> None:
    """The span ends at the time that the step gives, and never before its start."""
    for ended_ns, is_kept in [(4_000_000_000_000_000_000, True), (5, False)]:
        begin(capture).end(StepEnd(status="success", payload={}, ended_ns=ended_ns))
        span = capture.spans[-1]
        assert span.start_time is not None
        assert span.end_time == (ended_ns if is_kept else span.start_time)


def test_a_span_ends_even_if_its_attributes_cannot_be_set(capture: Captured) -> None:
    """A response that cannot be read raises an error, and the span ends nevertheless."""
    handle = begin(capture)
    unreadable = cast("LLMResponse", object())
    with pytest.raises(AttributeError):
        handle.end(StepEnd(status="success", payload={}, response=unreadable))
    assert len(capture.spans) == 1


# --- Other providers ---


async def test_a_call_that_is_not_sampled_is_still_measured(capture: Captured) -> None:
    """Metrics count calls that are not sampled, and spans below such a call are not sampled either."""
    provider, exporter = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    recorder = OTelRecorder(tracer_provider=provider, meter_provider=capture.meter_provider)
    client = Client(rate_limited(), REPLY)
    await call(recorder, client)
    assert exporter.get_finished_spans() == ()
    assert capture.total("tracemind.llm.cost") == pytest.approx(0.00045)
    assert capture.total("tracemind.llm.retries") == 1
    assert capture.total("gen_ai.client.token.usage") == 1_500
    assert client.span_contexts[0].is_valid
    assert not client.span_contexts[0].trace_flags.sampled


@pytest.mark.parametrize("outcomes", [(REPLY,), (rate_limited(), REPLY), (rate_limited(61.0),)])
async def test_without_any_provider(outcomes: tuple[LLMResponse | LLMError, ...]) -> None:
    """A call works where OpenTelemetry was never set up."""
    use_providers(Providers())
    result = await call(OTelRecorder(), Client(*outcomes))
    assert result["status"] == ("error" if len(outcomes) == 1 and outcomes[0] is not REPLY else "ok")


async def test_without_a_provider_the_callers_span_stays_current(capture: Captured) -> None:
    """A recorder without a provider keeps the caller's span current."""
    client = Client(REPLY)
    with trace.get_tracer("mine", tracer_provider=capture.tracer_provider).start_as_current_span("outer") as outer:
        await call(OTelRecorder(tracer_provider=trace.NoOpTracerProvider()), client)
    assert client.span_contexts == [outer.get_span_context()]


def test_a_recorder_uses_the_configured_providers(capture: Captured) -> None:
    """Without arguments a recorder uses the providers of `configure()`."""
    OTelRecorder().begin_step(StepStart(flow_id="f", step_id="s", provider="p", model="m")).end(
        StepEnd(status="success", payload={})
    )
    assert [span.name for span in capture.spans] == ["chat m"]


@pytest.mark.parametrize("limit", [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0])
def test_a_bucket_is_named_by_its_upper_limit(limit: float) -> None:
    """The bucket `lt_0.01` has costs below 0.01, and not 0.01 itself."""
    name = f"lt_{limit:g}"
    assert semconv.cost_bucket(limit * 0.999) == name
    assert semconv.cost_bucket(limit) != name


@pytest.mark.soak
def test_a_recorder_follows_configure_in_many_threads_at_once() -> None:
    """The first calls after `configure()` have their spans and metrics, though many threads make them at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            recorder = OTelRecorder()
            with captured() as capture, ThreadPoolExecutor(THREADS) as pool:
                gate = threading.Barrier(THREADS)
                list(pool.map(_one_call, [recorder] * THREADS, [gate] * THREADS))
                assert len(capture.spans) == THREADS
                assert sum(p.count for p in capture.points(DURATION) if isinstance(p, HistogramDataPoint)) == THREADS
    finally:
        sys.setswitchinterval(interval)


THREADS = 8
DURATION = "gen_ai.client.operation.duration"


def _one_call(recorder: OTelRecorder, gate: threading.Barrier) -> None:
    gate.wait()
    recorder.begin_step(StepStart(flow_id="f", step_id="s", provider="p", model="m")).end(
        StepEnd(status="success", payload={})
    )
