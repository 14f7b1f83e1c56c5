"""Type-checked by mypy and pyright, never run: what a user's editor says about the published names.

Each line marked as ignored is a mistake that the checkers must see; mypy complains of an ignore without a mistake.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, assert_type

import pytest
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

import tracemind_otel as tm
from tracemind_otel.ai.llm import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient, OpenAILLMClient
from tracemind_otel.runtime.recorder import Recorder, StepEnd, StepHandle, StepRetry, StepStart
from tracemind_otel.testing import Captured, FakeLLM, LLMSpans, MetricDict, SpanDict, captured

# --- Decorators keep what they decorate ---


@tm.flow
def bare_flow(a: int, *, b: str = "") -> float:
    return float(a) + len(b)


@tm.flow(name="named", attributes={"team": "search", "tier": 2})
def flow_with_options(a: int, *, b: str = "") -> float:
    return float(a) + len(b)


@tm.step
async def bare_step(a: int, *, b: str = "") -> bytes:
    return b.encode() * a


@tm.step(name="named")
async def step_with_options(a: int, *, b: str = "") -> bytes:
    return b.encode() * a


@tm.flow()
def no_options() -> None: ...


@tm.flow("named", max_cost_usd=0.5)
def named_flow(a: int) -> float:
    return float(a)


@tm.tool("named")
async def named_tool(a: int) -> str:
    return str(a)


async def runs() -> None:
    assert_type(named_flow(1), float)
    assert_type(await named_tool(1), str)
    with tm.flow("block", user_id="u-1") as run:
        assert_type(run, tm.FlowRun)
    async with tm.flow(name="block") as run:
        assert_type(run.cost_usd, float | None)
    assert_type(run.tokens, int)
    assert_type(run.by_model, dict[str, tm.FlowTotals])
    assert_type(run.by_step["step"].cost_usd, float | None)
    assert_type(run.url, str | None)
    assert_type(tm.current_flow(), tm.FlowRun | None)
    with tm.step("block") as nothing:
        assert_type(nothing, None)
    tm.flow(5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    tm.step("named", user_id="u-1")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


class Service:
    @tm.flow
    async def method(self, a: int) -> str:
        return str(a)

    @staticmethod
    @tm.step
    def static(a: int) -> str:
        return str(a)

    @classmethod
    @tm.step(name="of the class")
    def of_the_class(cls, a: int) -> str:
        return str(a)


async def decorated() -> None:
    assert_type(bare_flow(1, b="x"), float)
    assert_type(flow_with_options(1), float)
    assert_type(await bare_step(1, b="x"), bytes)
    assert_type(await step_with_options(1), bytes)
    assert_type(await Service().method(1), str)
    assert_type(Service.static(1), str)
    assert_type(Service.of_the_class(1), str)
    no_options()
    bare_flow("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bare_flow(1, c=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await step_with_options()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await Service().method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tm.flow(title="no such option")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    tm.step(attributes={"k": object()})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType, reportCallIssue]


@tm.tool
def generated(a: int) -> Generator[int, str, bool]:
    said = yield a
    return said == "x"


@tm.agent(name="agent", capture_arguments=True, capture_result=True)
async def streamed(a: int) -> AsyncGenerator[str, None]:
    yield str(a)


@tm.flow
@contextmanager
def opened(a: int) -> Generator[str]:
    yield str(a)


@tm.step(name="opened")
@asynccontextmanager
async def opened_later(a: int) -> AsyncGenerator[str]:
    yield str(a)


def session_of(a: int) -> str:
    return str(a)


@tm.flow(session_id=session_of, user_id="u", tags=["x"], max_cost_usd=0.5, max_tokens=100, on_unknown_price="zero")
def limited(a: int) -> str:
    return str(a)


@tm.flow(per="1d", key=session_of, max_cost_usd=5, reserve_cost_usd=0.1, reserve_tokens=None, on_state_away="allow")
def limited_by_key(a: int) -> str:
    return str(a)


class Reader:
    @tm.tool
    async def lines(self, path: str) -> AsyncGenerator[bytes, None]:
        yield path.encode()


async def every_kind() -> None:
    assert_type(generated(1), Generator[int, str, bool])
    assert_type(streamed(1), AsyncGenerator[str, None])
    assert_type(Reader().lines("p"), AsyncGenerator[bytes, None])
    assert_type(limited(1), str)
    with opened(1) as text:
        assert_type(text, str)
    async with opened_later(1) as text:
        assert_type(text, str)
    with tm.flow(name="block", max_llm_calls=3), tm.using_attributes(session_id="s", baggage=True):
        pass
    async with tm.step(name="block"), tm.using_attributes(tags=["t"]), tm.continue_trace({}, baggage=True):
        pass
    with tm.budget(max_cost_usd=1.0) as spending:
        assert_type(spending.spent.cost_usd, float)
        assert_type(spending.spent.presumed_cost_usd, float)
    assert_type(tm.inject_context(), dict[str, str])
    streamed("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    opened()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Reader().lines(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tm.tool(session_id="only flows have one")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    tm.flow(on_state_away="wait")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    tm.flow(on_unknown_price="guess")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    tm.budget(max_cost_usd="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def carried(work: Callable[[int], str]) -> None:
    assert_type(tm.carry_context(work), Callable[[int], str])
    assert_type(tm.carry_context(work)(1), str)


# --- The step ---


async def called(recorder: Recorder, client: AsyncLLMClient) -> None:
    cfg = tm.LLMCallConfig(provider="fake", model="toy-1", template="{a}", vars={"a": 1}, deadline_ms=1000)
    assert_type(await tm.run_llm_call("flow", "step", cfg, recorder), dict[str, Any])
    assert_type(await tm.run_llm_call("flow", "step", cfg, recorder, client=client), dict[str, Any])
    assert_type(tm.LLMCallConfig.from_mapping({"provider": "fake", "model": "toy-1"}), tm.LLMCallConfig)
    assert_type(tm.apply_vars("{a}", {"a": 1}), str)
    assert_type(tm.apply_vars("{a}", None), str)
    assert_type(tm.estimate_cost("openai", "gpt-4o-mini", 1, 1), float | None)
    assert_type(tm.LLMClientFactory.make("fake"), AsyncLLMClient)
    assert_type(tm.LLMClientFactory.names(), list[str])
    tm.LLMClientFactory.register("mine", OpenAILLMClient)
    await tm.run_llm_call("flow", "step", cfg, recorder, client)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tm.LLMCallConfig("fake", "toy-1", deadline_ms="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cfg.model = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def replied(client: AsyncLLMClient) -> None:
    async with client as same:
        reply = await same.complete(LLMRequest("fake", "toy-1", "hi", temperature=0.2, extra={"seed": 1}))
    assert_type(same, AsyncLLMClient)
    assert_type(reply, LLMResponse)
    assert_type(reply.text, str)
    assert_type(reply.usage, LLMUsage)
    assert_type(reply.usage.cost_usd, float | None)
    assert_type(reply.usage.cache_read_tokens, int | None)
    assert_type(reply.finish_reasons, tuple[str, ...])
    async with FakeLLMClient(0, script=["429", "ok"], usage=LLMUsage(1, 1, 2), text="hi") as fake:
        assert_type(fake, FakeLLMClient)


def failed(error: tm.LLMError) -> None:
    assert_type(error.status_code, int | None)
    assert_type(error.error_type, str)
    assert_type(error.code, str | None)
    assert_type(error.message, str)
    assert_type(error.request_id, str | None)
    assert_type(error.retry_after_s, float | None)
    assert_type(error.retryable, bool)
    assert_type(error.may_be_billed, bool)
    if isinstance(error, tm.BudgetExceededError):
        assert_type(error.spent_on, dict[str, float])


# --- What third parties write ---


class MyClient(AsyncLLMClient):
    provider_name = "mine"

    async def complete(self, req: LLMRequest) -> LLMResponse:
        return LLMResponse(req.prompt, LLMUsage())


class OfTheFirstVersion(Recorder):
    def record_step_start(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None: ...

    def record_step_end(
        self, flow_id: str, step_id: str, status: str, payload: dict[str, Any] | None = None
    ) -> None: ...


class MyHandle(StepHandle):
    def retry(self, retry: StepRetry) -> None:
        assert_type(retry.delay_s, float)

    def end(self, end: StepEnd) -> None:
        assert_type(end.usage, LLMUsage | None)


class MyRecorder(Recorder):
    def begin_step(self, start: StepStart) -> StepHandle:
        assert_type(start.flow_id, str)
        return MyHandle()


class NoClient(AsyncLLMClient):
    """Lacks `complete`."""


def third_parties() -> None:
    MyClient()
    NoClient()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    tm.CompositeRecorder(OfTheFirstVersion(), MyRecorder(), tm.InMemoryRecorder())
    tm.LLMClientFactory.register("mine", MyClient)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- Setting up ---


async def set_up(tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
    telemetry = tm.configure(
        service_name="billing",
        endpoint="http://localhost:4318",
        protocol="grpc",
        headers={"authorization": "Bearer x"},
        file="spans.otlp.jsonl",
        resource={"tier": 1, "is_test": True},
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        metric_attributes=["team"],
        prices=[{"model": "house", "input": 1, "output": 2}],
    )
    assert_type(telemetry, tm.Telemetry)
    assert_type(telemetry.recorder, Recorder)
    assert_type(telemetry.tracer_provider, TracerProvider)
    assert_type(telemetry.flush(), bool)
    assert_type(await telemetry.aflush(), bool)
    with telemetry as same:
        assert_type(same, tm.Telemetry)
    async with telemetry as same_again:
        assert_type(same_again, tm.Telemetry)
    assert_type(telemetry.shutdown(timeout_s=1.0), bool)
    tm.OTelRecorder(tracer_provider=tracer_provider, meter_provider=meter_provider)
    tm.configure("billing")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def front_door() -> None:
    reply = await tm.llm_call("fake/toy-1", "Hello", temperature=0.5, messages=[{"role": "user", "content": "Hi"}])
    assert_type(reply, tm.LLMResult)
    assert_type(reply.text, str)
    assert_type(reply.cost_usd, float | None)
    assert_type(reply.usage, tm.LLMUsage)
    assert_type(reply.as_dict(), dict[str, Any])
    async with tm.llm_stream("fake/toy-1", "Hello") as stream:
        async for piece in stream.text_deltas():
            assert_type(piece, str)
    assert_type(stream.result, tm.LLMResult | None)
    assert_type(tm.llm_call_sync("fake/toy-1", "Hello"), tm.LLMResult)
    for piece in tm.llm_stream_sync("fake/toy-1", "Hello").text_deltas():
        assert_type(piece, str)
    await tm.llm_call("fake/toy-1", temperature="hot")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# --- Fixtures ---


@pytest.mark.llm_budget(usd=0.01, calls=3, tokens=2000)
def with_fixtures(fake_llm: FakeLLM, llm_spans: LLMSpans) -> None:
    assert_type(fake_llm.fail("503", "timeout").reply("hi", to="hello", times=1), FakeLLM)
    fake_llm.reply(lambda request: request.prompt).reply(LLMResponse("hi", LLMUsage()))
    assert_type(fake_llm.requests, list[LLMRequest])
    assert_type(fake_llm.client("openai"), AsyncLLMClient)
    for span in llm_spans:
        assert_type(span, SpanDict)
        assert_type(span["parent"], str | None)
        assert_type(span["events"][0]["name"], str)
    assert_type(llm_spans[0], SpanDict)
    assert_type(llm_spans[1:], list[SpanDict])
    assert_type(llm_spans.metrics, list[MetricDict])
    assert_type(llm_spans.metrics[0]["points"][0]["sum"], float)
    assert_type(llm_spans.total("tracemind.llm.cost"), float)
    assert_type(llm_spans.captured, Captured)
    with captured() as telemetry:
        assert_type(telemetry, Captured)
    fake_llm.reply(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fake_llm.reply("hi", pattern="hello")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    llm_spans[0]["no_such_key"]  # type: ignore[typeddict-item]  # pyright: ignore[reportGeneralTypeIssues]
