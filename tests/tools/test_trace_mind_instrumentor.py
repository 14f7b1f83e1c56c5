"""`TraceMindInstrumentor` traces every flow of the real runtime, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode

import tracemind_otel as tm
from tests.servers.trace_mind import StepsFlow
from tests.servers.trace_mind import trace_mind as trace_mind
from tests.support import Captured, attributes, events
from tracemind_otel.integrations.trace_mind import TraceMindInstrumentor, instrument_flow

pytestmark = [pytest.mark.tools, pytest.mark.slow]


@pytest.fixture(autouse=True)
def instrumented(trace_mind: Any, capture: Captured) -> Iterator[None]:
    """Every flow is traced into memory."""
    TraceMindInstrumentor().instrument()
    yield
    TraceMindInstrumentor().uninstrument()


def ids(span: ReadableSpan) -> SpanContext:
    context: SpanContext | None = span.context
    assert context is not None
    return context


def figures(capture: Captured, metric: str, label: str) -> dict[Any, float]:
    """The values of a metric by one of its attributes."""
    points = [point for point in capture.points(metric) if isinstance(point, NumberDataPoint)]
    return {(point.attributes or {})[label]: point.value for point in points}


def names_below(capture: Captured, parent: ReadableSpan | None) -> dict[str, Any]:
    """The spans below one, by name, as a tree."""
    wanted = None if parent is None else ids(parent).span_id
    found = [span for span in capture.spans if (span.parent.span_id if span.parent else None) == wanted]
    return {span.name: names_below(capture, span) for span in sorted(found, key=lambda span: span.start_time or 0)}


def asking(trace_mind: Any, provider: Any = None, **options: Any) -> Any:
    """A step that asks a model by the runtime's own client."""

    async def ask(ctx: Mapping[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        client = trace_mind.AsyncLLMClient(provider or trace_mind.FakeProvider())
        result = await client.call(model="m-1", prompt=f"{state.get('topic')} {ctx['step']}", **options)
        return {**state, ctx["step"]: result.output_text}

    return ask


def nothing(ctx: Mapping[str, Any], state: object) -> None:
    """A step that leaves the state as it is."""


async def run(trace_mind: Any, flow: Any, **request: Any) -> dict[str, Any]:
    engine = trace_mind.FlowRuntime({flow.name: flow}, max_concurrency=2)
    try:
        result: dict[str, Any] = await engine.run(flow.name, **request)
    finally:
        await engine.aclose()
    return result


async def test_fifty_concurrent_runs_are_fifty_traces_without_a_change(trace_mind: Any, capture: Captured) -> None:
    """Each request is one trace: request, flow, three steps, and one call of the runtime's own client in each."""
    ask = asking(trace_mind)
    flow = StepsFlow(trace_mind, "research", plan=ask, search=ask, write=ask)
    engine = trace_mind.FlowRuntime({flow.name: flow}, max_concurrency=4)
    runs = (engine.run("research", inputs={"topic": n}, ctx={"run_id": f"run-{n}"}) for n in range(50))
    results = await asyncio.gather(*runs)
    await engine.aclose()

    assert {result["status"] for result in results} == {"ok"}
    traces = defaultdict[int, list[ReadableSpan]](list)
    for span in capture.spans:
        traces[ids(span).trace_id].append(span)
    assert len(traces) == 50
    shape: dict[str, Any] = {
        "invoke_workflow research": {step: {"chat m-1": {}} for step in ("plan", "search", "write")}
    }
    for spans in traces.values():
        (root,) = (span for span in spans if span.parent is None)
        assert root.name == "request research"
        assert names_below(capture, root) == shape
        assert len(spans) == 8
        assert len({attributes(span)["tracemind.flow.id"] for span in spans if span is not root}) == 1
        (flow_span,) = (span for span in spans if span.name.startswith("invoke"))
        assert attributes(flow_span)["tracemind.flow.llm_calls"] == 3
        assert attributes(flow_span)["tracemind.flow.cost_usd"] == 0.0


async def test_a_flow_that_is_wrapped_too_is_traced_once(trace_mind: Any, capture: Captured) -> None:
    """`instrument_flow` and the instrumentor together give the same spans as one of them."""
    await run(trace_mind, instrument_flow(StepsFlow(trace_mind, "both", one=asking(trace_mind))))
    assert names_below(capture, None) == {"request both": {"invoke_workflow both": {"one": {"chat m-1": {}}}}}


async def test_the_flow_around_a_request_has_its_sums_and_ids(trace_mind: Any, capture: Captured) -> None:
    """A run belongs to the `@flow` that asked for it, although a worker of the runtime does the work."""
    flow = StepsFlow(trace_mind, "inner", one=asking(trace_mind))
    with tm.using_attributes(session_id="s-1"), tm.flow("outer") as around:
        await run(trace_mind, flow)
    assert around.llm_calls == 1
    assert attributes(capture.span("chat m-1"))["session.id"] == "s-1"
    assert attributes(capture.span("invoke_workflow outer"))["tracemind.flow.own.llm_calls"] == 0


async def test_a_worker_keeps_nothing_of_the_first_request(trace_mind: Any, capture: Captured) -> None:
    """Workers inherit the context of the first caller; a later request is in its own trace with its own ids."""
    flow = StepsFlow(trace_mind, "shared", one=asking(trace_mind))
    engine = trace_mind.FlowRuntime({flow.name: flow}, max_concurrency=1)
    with tm.using_attributes(user_id="first"):
        await engine.run("shared")
    await engine.run("shared")
    await engine.aclose()
    first, second = (span for span in capture.spans if span.name == "chat m-1")
    assert ids(first).trace_id != ids(second).trace_id
    assert attributes(first)["user.id"] == "first"
    assert "user.id" not in attributes(second)


async def test_an_error_payload_is_an_error(trace_mind: Any, capture: Captured) -> None:
    """The runtime calls a returned error a success; request, flow and step say that it is none."""

    def one(ctx: Mapping[str, Any], state: object) -> dict[str, str]:
        return {"status": "error", "code": "RATE_LIMIT", "reason": "a prompt"}

    result = await run(trace_mind, StepsFlow(trace_mind, "failing", one=one))
    assert result["status"] == "ok"
    for span in capture.spans:
        assert span.status.status_code is StatusCode.ERROR
        assert attributes(span)["error.type"] == "RATE_LIMIT"
    assert attributes(capture.span("request failing"))["tracemind.request.status"] == "ok"


async def test_a_step_that_raises_is_an_error(trace_mind: Any, capture: Captured) -> None:
    """The exception is on the step and on the flow; the request has the runtime's code of it."""

    def one(ctx: Mapping[str, Any], state: object) -> None:
        raise LookupError("a prompt")

    result = await run(trace_mind, StepsFlow(trace_mind, "raising", one=one))
    assert result["error_code"] == "LookupError"
    assert Counter(attributes(span)["error.type"] for span in capture.spans) == {"LookupError": 3}


async def test_retries_are_events(trace_mind: Any, capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempts that the runtime repeats are events of the call, with its own waits."""
    waits = list[float]()

    async def no_wait(seconds: float) -> None:
        waits.append(seconds)

    class Flaky:
        attempts = 0

        async def complete(self, **request: Any) -> Any:
            self.attempts += 1
            if self.attempts < 3:
                raise trace_mind.LlmError("RATE_LIMIT", "a prompt")
            return trace_mind.LlmCallResult("hi", trace_mind.LlmUsage(3, 4, 7, 0.25))

    monkeypatch.setattr("tm.utils.async_tools.asyncio.sleep", no_wait)
    await trace_mind.AsyncLLMClient(Flaky()).call(model="m-1", prompt="hi", max_retries=2)
    call = capture.span("chat m-1")
    retries = events(call, "tracemind.retry")
    assert [event["tracemind.retry.attempt"] for event in retries] == [1, 2]
    assert {event["tracemind.retry.reason"] for event in retries} == {"rate_limit"}
    assert {event["tracemind.retry.max_attempts"] for event in retries} == {3}
    assert [event["tracemind.retry.delay_s"] for event in retries] == waits == [0.5, 1.0]
    assert attributes(call)["tracemind.cost_usd"] == 0.25
    assert attributes(call)["tracemind.cost.source"] == "provider"
    assert call.status.status_code is StatusCode.UNSET


async def test_a_time_out_is_named(trace_mind: Any, capture: Captured) -> None:
    """The runtime loses why a call timed out; the span says it."""
    provider = trace_mind.FakeProvider(delay_ms=60_000)
    with pytest.raises(TimeoutError):
        await trace_mind.AsyncLLMClient(provider).call(model="m-1", prompt="hi", timeout_ms=20)
    assert attributes(capture.span("chat m-1"))["error.type"] == "timeout"


async def test_the_runtimes_openai_client_is_priced_with_cached_tokens(trace_mind: Any, capture: Captured) -> None:
    """The runtime charges cached tokens in full; the span has what the price table says for them."""

    class Transport:
        async def post(self, **request: Any) -> dict[str, Any]:
            usage = {
                "prompt_tokens": 1000,
                "completion_tokens": 0,
                "total_tokens": 1000,
                "prompt_tokens_details": {"cached_tokens": 800},
            }
            message = {"role": "assistant", "content": "hi"}
            return {"model": "gpt-4o-mini", "choices": [{"index": 0, "message": message}], "usage": usage}

    client = trace_mind.make_client("openai", api_key="k", transport=Transport())
    result = await client.call(model="gpt-4o-mini", prompt="hi")
    call = attributes(capture.span("chat gpt-4o-mini"))
    assert result.usage.cost_usd == pytest.approx(1000 * 0.15e-6)
    assert call["tracemind.cost_usd"] == pytest.approx(200 * 0.15e-6 + 800 * 0.075e-6)
    assert call["gen_ai.usage.cache_read.input_tokens"] == 800
    assert (call["server.address"], call["server.port"]) == ("api.openai.com", 443)


async def test_reported_usage_is_counted_once(trace_mind: Any, capture: Captured) -> None:
    """The runtime's hook for usage is filled: a call of its step is counted once, a client of one's own once too."""
    step = __import__("tm.steps.ai_llm_call", fromlist=["run"])
    with tm.flow("work") as run:
        await step.run({"provider": "fake", "model": "m-1", "prompt": "hi"})
        assert run.llm_calls == 1
        usage = trace_mind.LlmUsage(3, 4, 7, 0.5)
        trace_mind.record_llm_usage(provider="acme", model="m-2", usage=usage, step_id="own")
    assert (run.llm_calls, run.cost_usd) == (2, 0.5)
    assert attributes(capture.span("chat m-2"))["tracemind.step.id"] == "own"


async def test_callers_that_share_a_run_are_linked_to_it(trace_mind: Any, capture: Captured) -> None:
    """Three requests with one idempotency key are one run; the requests that got its result are linked to its flow."""
    started, go = asyncio.Event(), asyncio.Event()

    async def one(ctx: Mapping[str, Any], state: object) -> None:
        started.set()
        await go.wait()

    flow = StepsFlow(trace_mind, "once", one=one)
    engine = trace_mind.FlowRuntime({flow.name: flow})
    first = asyncio.create_task(engine.run("once", ctx={"idempotency_key": "k"}))
    await started.wait()
    second = asyncio.create_task(engine.run("once", ctx={"idempotency_key": "k"}))
    go.set()
    await asyncio.gather(first, second)
    await engine.run("once", ctx={"idempotency_key": "k"})
    await engine.aclose()
    flow_span = capture.span("invoke_workflow once")
    requests = [span for span in capture.spans if span.name == "request once"]
    shared = [span for span in requests if attributes(span).get("tracemind.request.shared")]
    assert (len(requests), len(shared)) == (3, 2)
    for span in shared:
        assert [link.context.span_id for link in span.links] == [ids(flow_span).span_id]


async def test_a_cancelled_error_out_of_a_step_ends_its_spans(trace_mind: Any, capture: Captured) -> None:
    """It kills the runtime's worker and leaves the caller waiting for ever; the spans end, marked as cancelled."""

    left = asyncio.Event()

    async def one(ctx: Mapping[str, Any], state: object) -> None:
        asyncio.get_running_loop().call_soon(left.set)
        raise asyncio.CancelledError

    flow = StepsFlow(trace_mind, "killed", one=one)
    engine = trace_mind.FlowRuntime({flow.name: flow}, max_concurrency=1)
    caller = asyncio.create_task(engine.run("killed"))
    await asyncio.wait_for(left.wait(), 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    for name in ("one", "invoke_workflow killed", "request killed"):
        assert attributes(capture.span(name))["tracemind.cancelled"] is True
        assert capture.span(name).status.status_code is StatusCode.UNSET


async def test_a_deferred_request_has_no_flow(trace_mind: Any, capture: Captured) -> None:
    """Deferred, a run is only put off: its request says so and is no error."""
    flow = StepsFlow(trace_mind, "later", one=asking(trace_mind))
    await run(trace_mind, flow, response_mode=trace_mind.ResponseMode.DEFERRED)
    (request,) = capture.spans
    assert request.name == "request later"
    assert request.status.status_code is StatusCode.UNSET


async def test_an_approval_that_is_awaited_is_no_error(trace_mind: Any, capture: Captured) -> None:
    """A step that waits for a person ends the run as pending: nothing failed."""

    def one(ctx: Mapping[str, Any], state: object) -> None:
        decision = trace_mind.ApprovalDecision.DENY
        raise trace_mind.PendingApproval(
            trace_mind.ApprovalRecord("a-1", "asking", "one", "why", "me", 0, decision, (), 0.0, {})
        )

    result = await run(trace_mind, StepsFlow(trace_mind, "asking", one=one))
    assert result["status"] == "pending"
    assert {span.status.status_code for span in capture.spans} == {StatusCode.UNSET}
    assert attributes(capture.span("request asking"))["tracemind.request.status"] == "pending"


async def test_a_switch_and_its_end_are_followed(trace_mind: Any, capture: Captured) -> None:
    """A switch goes to the step that its configuration names; the flow ends after the last one that runs."""
    flow = StepsFlow(trace_mind, "choosing", left=asking(trace_mind))
    spec, operation = flow.spec(), trace_mind.Operation
    spec.add_step(trace_mind.StepDef("right", operation.TASK, ("end",), run=asking(trace_mind)))
    spec.add_step(trace_mind.StepDef("end", operation.FINISH))
    spec.add_step(trace_mind.StepDef("fork", operation.SWITCH, ("left", "right"), {"key": "right"}))
    spec.entrypoint = "fork"
    await run(trace_mind, flow)
    tree = names_below(capture, None)["request choosing"]["invoke_workflow choosing"]
    assert tree == {"fork": {}, "right": {"chat m-1": {}}, "end": {}}


async def test_limits_and_breakers_are_instruments(trace_mind: Any, capture: Captured) -> None:
    """What the runtime counts, limits and breaks is exported; a rejected request is an error with its code."""
    config = trace_mind.GovernanceConfig(
        enabled=True,
        limits=trace_mind.LimitsConfig(enabled=True, per_flow={"limited": trace_mind.LimitSettings(qps=1)}),
        breaker=trace_mind.BreakerConfig(
            enabled=True, per_flow={"limited": trace_mind.BreakerSettings(failure_threshold=1)}
        ),
    )
    flow = StepsFlow(trace_mind, "limited", one=asking(trace_mind))
    manager = trace_mind.GovernanceManager(config)
    engine = trace_mind.FlowRuntime({flow.name: flow}, governance=manager)
    results = [await engine.run("limited") for _ in range(3)]
    await engine.aclose()
    rejected = sum(result["status"] == "rejected" for result in results)
    assert rejected >= 1
    codes = [attributes(span).get("error.type") for span in capture.spans if span.name == "request limited"]
    assert len(list(filter(None, codes))) == rejected
    assert figures(capture, "tracemind.runtime.govern_qps_limited", "scope") == {"flow:limited": rejected}
    finished = figures(capture, "tracemind.runtime.flows_finished", "status")
    assert finished == {"ok": 3 - rejected, "rejected": rejected}
    breakers = figures(capture, "tracemind.runtime.breaker_state", "target")
    assert breakers == {"global": 0.0, "flow:limited": 0.0}


async def test_metrics_of_a_provider_that_is_configured_later(trace_mind: Any, capture: Captured) -> None:
    """`instrument()` may come before the provider of metrics; its instruments are there all the same, and once."""
    flow = StepsFlow(trace_mind, "late", one=nothing)
    await run(trace_mind, flow)
    later = Captured()
    TraceMindInstrumentor().instrument(meter_provider=later.meter_provider)
    await run(trace_mind, flow)
    assert figures(later, "tracemind.runtime.flows_finished", "status") == {"ok": 2}
    later.close()


async def test_an_open_breaker_is_seen(trace_mind: Any, capture: Captured) -> None:
    """A breaker that a failing flow has opened is at 1, and counts the requests that it turns away."""

    def one(ctx: Mapping[str, Any], state: object) -> None:
        raise LookupError

    breaker = trace_mind.BreakerSettings(failure_threshold=1)
    config = trace_mind.GovernanceConfig(
        enabled=True, breaker=trace_mind.BreakerConfig(enabled=True, per_flow={"broken": breaker})
    )
    flow = StepsFlow(trace_mind, "broken", one=one)
    engine = trace_mind.FlowRuntime({flow.name: flow}, governance=trace_mind.GovernanceManager(config))
    statuses = [(await engine.run("broken"))["status"] for _ in range(2)]
    await engine.aclose()
    assert statuses == ["error", "rejected"]
    assert figures(capture, "tracemind.runtime.breaker_state", "target")["flow:broken"] == 1.0
    assert figures(capture, "tracemind.runtime.breaker_trips", "target") == {"flow:broken": 1}


def attributes_now(owner: Any) -> dict[str, Any]:
    """The attributes of a class or a module."""
    found: dict[str, Any] = owner.__dict__
    return dict(found)


async def test_uninstrument_restores_everything(trace_mind: Any, capture: Captured) -> None:
    """Each attribute of what is changed is the object that it was, and no span or hook is left."""
    TraceMindInstrumentor().uninstrument()
    changed: list[Any] = [trace_mind.FlowRuntime, trace_mind.AsyncLLMClient]
    changed += [sys.modules[f"tm.{name}"] for name in ("ai.llm_client", "ai.recorder_bridge", "obs.counters")]
    before = [attributes_now(each) for each in changed]
    finders = list(sys.meta_path)

    TraceMindInstrumentor().instrument(tracer_provider=capture.tracer_provider)
    during = [attributes_now(each) for each in changed]
    replaced = [name for old, new in zip(before, during, strict=True) for name in old if old[name] is not new[name]]
    assert replaced == ["build_dag", "execute", "call", "with_retry", "_real_record_llm_usage"]

    TraceMindInstrumentor().uninstrument()
    for each, attributes_before in zip(changed, before, strict=True):
        now = attributes_now(each)
        assert now.keys() == attributes_before.keys()
        assert all(now[name] is value for name, value in attributes_before.items())
    assert sys.meta_path == finders
    await run(trace_mind, StepsFlow(trace_mind, "plain", one=asking(trace_mind)))
    trace_mind.record_llm_usage(provider="acme", model="m-2", usage=trace_mind.LlmUsage(3, 4, 7))
    assert capture.spans == []


async def test_instrumented_twice_is_traced_once(trace_mind: Any, capture: Captured) -> None:
    """A second call changes nothing more, and one `uninstrument()` undoes both."""
    TraceMindInstrumentor().instrument()
    flow = StepsFlow(trace_mind, "again", one=asking(trace_mind))
    await run(trace_mind, flow)
    assert names_below(capture, None) == {"request again": {"invoke_workflow again": {"one": {"chat m-1": {}}}}}
    TraceMindInstrumentor().uninstrument()
    await run(trace_mind, flow)
    assert len(capture.spans) == 4


async def test_what_others_wrapped_since_stays(trace_mind: Any, capture: Captured) -> None:
    """Another library's wrapper around ours is kept, and ours below it lets every request through."""
    ours = trace_mind.FlowRuntime.execute

    async def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await ours(self, *args, **kwargs)

    trace_mind.FlowRuntime.execute = theirs
    TraceMindInstrumentor().uninstrument()
    assert trace_mind.FlowRuntime.execute is theirs
    await run(trace_mind, StepsFlow(trace_mind, "plain", one=asking(trace_mind)))
    assert capture.spans == []
    TraceMindInstrumentor().instrument()
    await run(trace_mind, StepsFlow(trace_mind, "again", one=asking(trace_mind)))
    assert Counter(span.name for span in capture.spans)["request again"] == 1


def test_providers_of_its_own(trace_mind: Any, capture: Captured) -> None:
    """Given a provider, spans go there until `uninstrument()`."""
    other = Captured()
    TraceMindInstrumentor().instrument(tracer_provider=other.tracer_provider, meter_provider=other.meter_provider)
    asyncio.run(run(trace_mind, StepsFlow(trace_mind, "there", one=asking(trace_mind))))
    TraceMindInstrumentor().uninstrument()
    with tm.flow("here"):
        pass
    assert names_below(other, None) == {"request there": {"invoke_workflow there": {"one": {"chat m-1": {}}}}}
    assert [span.name for span in capture.spans] == ["invoke_workflow here"]
    other.close()


def test_an_unknown_version_is_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A newer runtime is traced as far as it is alike, and the log says what to do."""

    def version(name: str) -> str:
        return "3.1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    with caplog.at_level(logging.WARNING):
        TraceMindInstrumentor().instrument()
    (record,) = caplog.records
    assert "trace-mind 3.1.0 is installed; tracemind-otel was tested with 2.0.x" in record.getMessage()


async def test_a_missing_method_is_named(
    trace_mind: Any, capture: Captured, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a version has no such method, the rest is traced, and the log names what is not."""
    TraceMindInstrumentor().uninstrument()
    monkeypatch.delattr(trace_mind.AsyncLLMClient, "call")
    TraceMindInstrumentor().instrument()
    assert "has no tm.ai.llm_client.AsyncLLMClient.call" in caplog.text
    await run(trace_mind, StepsFlow(trace_mind, "rest", one=nothing))
    assert names_below(capture, None) == {"request rest": {"invoke_workflow rest": {"one": {}}}}
