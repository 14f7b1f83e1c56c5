"""What the runtime does that a user would not expect, and what our spans say of it.

Tests are here but for (I) in `test_trace_mind_instrumentor.py`, (S) in `test_trace_mind_step.py`, and (J) in
`tests/e2e/test_trace_mind_in_jaeger.py`.

- Workers run in the context of the first request:
  `test_a_worker_keeps_nothing_of_the_first_request` (I).
- Its own `ai.llm_call` does not fit it:
  `test_the_runtimes_own_step_does_not_fit_its_runtime` (S);
  `test_a_recipe_file_runs_with_our_client` (S).
- Neither its registry nor its recorder exists:
  `test_the_registry_has_the_step` (S);
  `test_reported_usage_is_counted_once` (I).
- A returned error is a success:
  `test_an_error_payload_is_an_error` (I);
  `test_a_step_that_hands_on_a_failure_has_not_failed`.
- A time-out is `PROVIDER_ERROR`, and not repeated:
  `test_a_time_out_is_named` (I);
  `test_a_time_out_is_a_run_timeout` (S).
- A cancellation is swallowed:
  `test_a_cancelled_call_of_the_runtimes_client`;
  `test_a_cancelled_call_does_not_end_the_worker` (S).
- A cancelled step ends its worker, without `after` or `on_error`:
  `test_a_cancelled_error_out_of_a_step_ends_its_spans` (I).
- Cancelling the caller does not stop the run:
  `test_a_caller_that_goes_away`.
- Every fault of a transport is repeated:
  `test_each_repeated_fault_is_an_event`;
  `test_errors_have_the_runtimes_codes` (S).
- An unknown provider raises:
  `test_an_unknown_provider_is_an_error_of_its_step`;
  `test_a_wrong_configuration_is_a_bad_request` (S).
- The record of a run has no cost:
  `test_the_runs_record_has_its_cost` (S).
- Cached tokens cost the full price:
  `test_the_runtimes_openai_client_is_priced_with_cached_tokens` (I).
- Only tasks run, and only the first next step:
  `test_a_switch_and_its_end_are_followed` (I);
  `test_a_parallel_step`.
- Its text for Prometheus is not valid:
  `test_prometheus_has_the_counters_of_the_runtime` (J).
- A deferred run is `ok` at once:
  `test_a_deferred_request_has_no_flow` (I).
- One idempotency key is one run:
  `test_callers_that_share_a_run_are_linked_to_it` (I).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.servers.trace_mind import StepsFlow
from tests.servers.trace_mind import trace_mind as trace_mind
from tests.support import Captured, attributes, events
from tracemind_otel.integrations.trace_mind import TraceMindInstrumentor, instrument_flow

pytestmark = [pytest.mark.tools, pytest.mark.slow]

FAILED = {"status": "error", "code": "RATE_LIMIT", "reason": "a prompt"}


@pytest.fixture(autouse=True)
def instrumented(trace_mind: Any, capture: Captured) -> Iterator[None]:
    """Every flow is traced into memory."""
    TraceMindInstrumentor().instrument()
    yield
    TraceMindInstrumentor().uninstrument()


def nothing(ctx: Mapping[str, Any], state: object) -> None:
    """A step that leaves the state as it is."""


def failing(ctx: Mapping[str, Any], state: object) -> dict[str, str]:
    """A step that returns an error."""
    return dict(FAILED)


def parent_of(capture: Captured, span: ReadableSpan) -> str | None:
    """The name of the span above one."""
    wanted = span.parent.span_id if span.parent else None
    contexts = ((each.name, each.get_span_context()) for each in capture.spans)
    return next((name for name, context in contexts if context is not None and context.span_id == wanted), None)


def error_types(capture: Captured) -> dict[str, Any]:
    """The error of each span."""
    return {span.name: attributes(span).get("error.type") for span in capture.spans}


async def run(trace_mind: Any, flow: Any, **options: Any) -> dict[str, Any]:
    engine = trace_mind.FlowRuntime({flow.name: flow}, **options)
    try:
        result: dict[str, Any] = await asyncio.wait_for(engine.run(flow.name), 20)
    finally:
        await engine.aclose()
    return result


async def test_a_step_that_hands_on_a_failure_has_not_failed(trace_mind: Any, capture: Captured) -> None:
    """The step that returned the error is marked, and so are flow and request; those after it are not."""
    flow = StepsFlow(trace_mind, "work", one=failing, two=nothing)
    spec, operation = flow.spec(), trace_mind.Operation
    spec.steps["two"] = trace_mind.StepDef("two", operation.TASK, ("end",), run=nothing)
    spec.add_step(trace_mind.StepDef("end", operation.FINISH))
    await run(trace_mind, flow)
    assert error_types(capture) == {
        **dict.fromkeys(("one", "invoke_workflow work", "request work"), "RATE_LIMIT"),
        **dict.fromkeys(("two", "end"), None),
    }


async def test_a_state_that_is_changed_in_place_can_fail(trace_mind: Any, capture: Captured) -> None:
    """A step that writes its error into the state that it was given has failed."""

    def one(ctx: Mapping[str, Any], state: dict[str, Any]) -> None:
        state.update(FAILED)

    await run(trace_mind, StepsFlow(trace_mind, "work", one=one, two=nothing))
    found = error_types(capture)
    assert (found["one"], found["two"]) == ("RATE_LIMIT", None)


async def test_a_caller_that_goes_away(trace_mind: Any, capture: Captured) -> None:
    """Its request is cancelled; the run goes on in its trace, and its spans are whole."""
    started, go, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def one(ctx: Mapping[str, Any], state: object) -> None:
        started.set()
        await go.wait()

    def is_done(record: Any) -> None:
        done.set()

    flow = StepsFlow(trace_mind, "left", one=one)
    engine = trace_mind.FlowRuntime({flow.name: flow}, run_listeners=[is_done])
    caller = asyncio.create_task(engine.run("left"))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await asyncio.wait_for(done.wait(), 10)
    await engine.aclose()
    assert attributes(capture.span("request left"))["tracemind.cancelled"] is True
    flow_span = capture.span("invoke_workflow left")
    assert parent_of(capture, flow_span) == "request left"
    assert "tracemind.cancelled" not in attributes(flow_span)
    assert flow_span.status.status_code is StatusCode.UNSET


async def test_a_cancelled_call_of_the_runtimes_client(trace_mind: Any, capture: Captured) -> None:
    """The runtime turns it into an error of its own; the span says that it was cancelled, and is no error."""
    started = asyncio.Event()

    class Slow:
        async def complete(self, **request: Any) -> None:
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(trace_mind.AsyncLLMClient(Slow()).call(model="m-1", prompt="hi"))
    await started.wait()
    task.cancel()
    with pytest.raises(trace_mind.LlmError, match="task cancelled"):
        await task
    call = capture.span("chat m-1")
    assert attributes(call)["tracemind.cancelled"] is True
    assert call.status.status_code is StatusCode.UNSET


async def test_each_repeated_fault_is_an_event(
    trace_mind: Any, capture: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing transport is repeated in vain; the span shows the attempts and, in the end, the code."""

    async def no_wait(seconds: float) -> None: ...

    monkeypatch.setattr("tm.utils.async_tools.asyncio.sleep", no_wait)
    client = trace_mind.make_client("openai", api_key="k")
    with pytest.raises(trace_mind.LlmError):
        await client.call(model="gpt-4o", prompt="hi", max_retries=2)
    call = capture.span("chat gpt-4o")
    assert [event["error.type"] for event in events(call, "tracemind.retry")] == ["PROVIDER_ERROR"] * 2
    assert attributes(call)["error.type"] == "PROVIDER_ERROR"


async def test_an_unknown_provider_is_an_error_of_its_step(trace_mind: Any, capture: Captured) -> None:
    """The runtime's client raises it before any call; step, flow and request have it."""

    async def one(ctx: Mapping[str, Any], state: object) -> None:
        trace_mind.make_client("nobody")

    await run(trace_mind, StepsFlow(trace_mind, "asking", one=one))
    assert error_types(capture) == dict.fromkeys(("one", "invoke_workflow asking", "request asking"), "ValueError")


async def test_a_parallel_step(trace_mind: Any, capture: Captured) -> None:
    """The runtime runs nothing of it and goes to its first next step alone; the spans are those of what ran."""
    flow = StepsFlow(trace_mind, "wide", left=nothing)
    spec, operation = flow.spec(), trace_mind.Operation
    spec.add_step(trace_mind.StepDef("right", operation.TASK, run=nothing))
    spec.add_step(trace_mind.StepDef("fan", operation.PARALLEL, ("left", "right"), run=failing))
    spec.entrypoint = "fan"
    await run(trace_mind, flow)
    assert set(error_types(capture)) == {"fan", "left", "invoke_workflow wide", "request wide"}
    assert {span.status.status_code for span in capture.spans} == {StatusCode.UNSET}


# --- what goes wrong in a run, or in us ---


@pytest.mark.parametrize("hook", ["before", "after", "on_error"])
async def test_a_hook_that_raises(trace_mind: Any, capture: Captured, hook: str) -> None:
    """Every span of the run ends, as an error, and the caller gets what it would get without us."""

    def raising(*args: object) -> None:
        raise LookupError("a prompt")

    flow = StepsFlow(trace_mind, "hooked")
    run_of_step = raising if hook == "on_error" else nothing
    step = trace_mind.StepDef("one", trace_mind.Operation.TASK, run=run_of_step, **{hook: raising})
    flow.spec().add_step(step)
    result = await run(trace_mind, flow)
    assert (result["status"], result["error_code"]) == ("error", "LookupError")
    assert error_types(capture) == dict.fromkeys(("one", "invoke_workflow hooked", "request hooked"), "LookupError")


async def test_a_next_step_that_does_not_exist(trace_mind: Any, capture: Captured) -> None:
    """The runtime fails between two steps, where it calls no function of ours; the flow ends all the same."""
    flow = StepsFlow(trace_mind, "lost")
    flow.spec().add_step(trace_mind.StepDef("one", trace_mind.Operation.TASK, ("nowhere",), run=nothing))
    result = await run(trace_mind, instrument_flow(flow))
    assert result["error_code"] == "KeyError"
    assert error_types(capture) == {"one": None, "invoke_workflow lost": "KeyError", "request lost": "KeyError"}


async def test_a_trace_sink_that_raises(trace_mind: Any, capture: Captured) -> None:
    """So does a sink that cannot write: the request ends its flow."""

    class Full:
        def append(self, span: object) -> None:
            raise OSError("no space left")

    await run(trace_mind, StepsFlow(trace_mind, "full", one=nothing, two=nothing), trace_sink=Full())
    assert error_types(capture) == {"one": None, "invoke_workflow full": "OSError", "request full": "OSError"}


async def test_a_specification_that_a_step_asks_for(trace_mind: Any, capture: Captured) -> None:
    """A step may build the plan of another flow; that is no run, and the spans of its own run are right."""
    inner = StepsFlow(trace_mind, "inner", one=nothing)

    def one(ctx: Mapping[str, Any], state: object) -> None:
        engine.build_dag(inner)

    flow = StepsFlow(trace_mind, "outer", one=one)
    engine = trace_mind.FlowRuntime({flow.name: flow, inner.name: inner})
    await engine.run("outer")
    await engine.aclose()
    assert "tracemind.request.queued_s" in attributes(capture.span("request outer"))
    assert set(error_types(capture)) == {"one", "invoke_workflow outer", "request outer"}


async def test_a_flow_that_runs_another(trace_mind: Any, capture: Captured) -> None:
    """The request of the inner flow is below the step that made it, and its calls are in the sums of both."""
    inner = StepsFlow(trace_mind, "inner", ask=asking(trace_mind))

    async def one(ctx: Mapping[str, Any], state: object) -> None:
        await engine.run("inner")

    flow = StepsFlow(trace_mind, "outer", one=one)
    engine = trace_mind.FlowRuntime({flow.name: flow, inner.name: inner}, max_concurrency=2)
    await engine.run("outer")
    await engine.aclose()
    assert parent_of(capture, capture.span("request inner")) == "one"
    for name in ("inner", "outer"):
        assert attributes(capture.span(f"invoke_workflow {name}"))["tracemind.flow.llm_calls"] == 1


def asking(trace_mind: Any) -> Any:
    """A step that asks a model by the runtime's own client."""

    async def ask(ctx: Mapping[str, Any], state: object) -> None:
        await trace_mind.AsyncLLMClient(trace_mind.FakeProvider()).call(model="m-1", prompt="hi")

    return ask


async def test_an_answer_of_another_shape(
    trace_mind: Any, capture: Captured, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that answers otherwise is a line in the log; the caller has the answer, and the span ends."""
    TraceMindInstrumentor().uninstrument()

    async def execute(self: object, name: str, **request: object) -> list[str]:
        return ["ok"]

    monkeypatch.setattr(trace_mind.FlowRuntime, "execute", execute)
    TraceMindInstrumentor().instrument()
    with caplog.at_level(logging.WARNING):
        result = await trace_mind.FlowRuntime({}).run("any")
    assert result == ["ok"]
    assert [span.name for span in capture.spans] == ["request any"]
    assert "TraceMindInstrumentor" in caplog.text
    TraceMindInstrumentor().uninstrument()


async def test_a_budget_denies_a_call_of_the_runtimes_client(trace_mind: Any, capture: Captured) -> None:
    """A budget around the request holds for the runtime's own client too; the denied call was not made."""
    asked = list[str]()

    class Counting:
        async def complete(self, **request: Any) -> Any:
            asked.append(request["prompt"])
            return trace_mind.LlmCallResult("hi", trace_mind.LlmUsage(3, 4, 7, 0.25))

    async def ask(ctx: Mapping[str, Any], state: object) -> None:
        await trace_mind.AsyncLLMClient(Counting()).call(model="m-1", prompt=ctx["step"], max_retries=3)

    with tm.flow("capped", max_llm_calls=1) as capped:
        result = await run(trace_mind, StepsFlow(trace_mind, "work", one=ask, two=ask))
    assert asked == ["one"]
    assert result["error_code"] == "BudgetExceededError"
    assert (capped.llm_calls, capped.cost_usd) == (1, 0.25)


async def test_a_runtime_that_is_closed_after_the_set_up(trace_mind: Any, capture: Captured) -> None:
    """Spans that end after `uninstrument()` and the shutdown of their provider break nothing."""
    started, go = asyncio.Event(), asyncio.Event()

    async def one(ctx: Mapping[str, Any], state: object) -> None:
        started.set()
        await go.wait()

    flow = StepsFlow(trace_mind, "late", one=one)
    engine = trace_mind.FlowRuntime({flow.name: flow})
    caller = asyncio.create_task(engine.run("late"))
    await started.wait()
    TraceMindInstrumentor().uninstrument()
    capture.tracer_provider.shutdown()
    go.set()
    assert (await caller)["status"] == "ok"
    await engine.aclose()


def test_runs_in_threads_of_their_own(trace_mind: Any, capture: Captured) -> None:
    """Runtimes on several event loops at once keep their spans apart."""
    from concurrent.futures import ThreadPoolExecutor

    flow = StepsFlow(trace_mind, "apart", one=asking(trace_mind), two=asking(trace_mind))

    def request(number: int) -> str:
        return str(asyncio.run(run(trace_mind, flow))["status"])

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(request, range(40))) == {"ok"}
    flows = [span for span in capture.spans if span.name == "invoke_workflow apart"]
    assert [attributes(span)["tracemind.flow.llm_calls"] for span in flows] == [2] * 40
    assert all(parent_of(capture, span) == "request apart" for span in flows)
    assert len({span.context.trace_id for span in capture.spans if span.context}) == 40


@pytest.mark.parametrize("is_wrapped", [False, True], ids=["instrumentor", "instrument_flow"])
async def test_a_call_of_another_sdk_is_below_its_step(
    trace_mind: Any, capture: Captured, provider_server: ProviderServer, is_wrapped: bool
) -> None:
    """A step that uses OpenAI's SDK has its call below it, with retries, and the flow has its cost."""
    from openai import AsyncOpenAI

    base = provider_server.case("openai", {"status": 429}, {})

    async def ask(ctx: Mapping[str, Any], state: object) -> None:
        async with AsyncOpenAI(api_key="k", base_url=f"{base}/v1") as client:
            await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])

    flow = StepsFlow(trace_mind, "sdk", ask=ask)
    if is_wrapped:
        TraceMindInstrumentor().uninstrument()
    tm.instrument(hosts={f"127.0.0.1:{provider_server.port}": "openai"})
    try:
        await run(trace_mind, instrument_flow(flow) if is_wrapped else flow)
    finally:
        tm.uninstrument()
    call = capture.span("chat gpt-4o")
    assert parent_of(capture, call) == "ask"
    assert len(events(call, "tracemind.retry")) == 1
    sums = attributes(capture.span("invoke_workflow sdk"))
    assert sums["tracemind.flow.llm_calls"] == 1
    assert sums["tracemind.flow.cost_usd"] == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)
