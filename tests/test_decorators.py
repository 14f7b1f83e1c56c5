"""`@flow` and `@step` on functions that already exist."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

import tracemind_otel as tm
from tests.support import Captured, attributes, events
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.flows.correlation import current_correlation
from tracemind_otel.flows.totals import current_flow
from tracemind_otel.otel.current import Providers, use_providers
from tracemind_otel.otel.labels import MetricLabels
from tracemind_otel.runtime.recorder import Recorder, StepHandle, StepStart

FLOW_TOTALS = ("cost_usd", "input_tokens", "output_tokens", "llm_calls", "retries")


async def llm(
    *, script: tuple[str, ...] = (), cost: float | None = 0.5, recorder: Recorder | None = None
) -> dict[str, Any]:
    """A model call that uses ten tokens and answers with five."""
    client = FakeLLMClient(0, script=script, usage=LLMUsage(10, 5, 15, cost))
    client.provider_name = "openai"
    cfg = tm.LLMCallConfig("openai", "no-such-model", "hi", max_retries=len(script))
    return await tm.run_llm_call("flow-id", "step-id", cfg, recorder or tm.OTelRecorder(), client=client)


def llm_in_a_loop_of_its_own() -> None:
    asyncio.run(llm())


def totals(span: ReadableSpan) -> tuple[Any, ...]:
    return tuple(attributes(span).get(f"tracemind.flow.{name}") for name in FLOW_TOTALS)


def span_id(span: ReadableSpan) -> int:
    context = span.context
    assert isinstance(context, SpanContext)
    return context.span_id


def parent_of(capture: Captured, name: str) -> str | None:
    """The name of the parent span."""
    parent = capture.span(name).parent
    return None if parent is None else next(s.name for s in capture.spans if span_id(s) == parent.span_id)


# --- Forms ---


@tm.flow
def bare(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@tm.flow
async def bare_async(a: int, *, b: int = 2) -> int:
    """Adds, later."""
    await asyncio.sleep(0)
    return a + b


@tm.step
def bare_step() -> str:
    return "done"


@tm.step(name="named", attributes={"k": 1})
async def step_with_options() -> str:
    return "done"


class Service:
    @tm.flow
    def method(self) -> str:
        return type(self).__name__

    @tm.step
    async def async_method(self) -> str:
        return type(self).__name__

    @classmethod
    @tm.step
    def of_the_class(cls) -> str:
        return cls.__name__

    @staticmethod
    @tm.step()
    def static(value: str) -> str:
        return value


async def maybe(result: object) -> object:
    return await result if inspect.isawaitable(result) else result


@pytest.mark.parametrize(
    ("call", "returned", "span"),
    [
        (lambda: bare(1), 3, "invoke_workflow bare"),
        (lambda: bare(1, b=5), 6, "invoke_workflow bare"),
        (lambda: bare_async(1, b=4), 5, "invoke_workflow bare_async"),
        (bare_step, "done", "bare_step"),
        (step_with_options, "done", "named"),
        (lambda: Service().method(), "Service", "invoke_workflow Service.method"),
        (lambda: Service().async_method(), "Service", "Service.async_method"),
        (Service.of_the_class, "Service", "Service.of_the_class"),
        (lambda: Service.static("s"), "s", "Service.static"),
    ],
)
async def test_every_form(capture: Captured, call: Callable[[], object], returned: object, span: str) -> None:
    """Bare or with options, on sync and async functions and methods, a decorator returns the result and makes a span"""
    assert await maybe(call()) == returned
    found = capture.span(span)
    assert (found.kind, found.status.status_code, found.parent) == (SpanKind.INTERNAL, StatusCode.UNSET, None)


def test_a_flow_with_options(capture: Captured) -> None:
    """A flow's span has the given name and attributes, and sums that are zero without a call."""

    @tm.flow(name="answer", attributes={"team": "search", "tier": 2})
    def any_name() -> None: ...

    any_name()
    assert dict(attributes(capture.span("invoke_workflow answer"))) == {
        "team": "search",
        "tier": 2,
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "answer",
        "tracemind.flow.input_tokens": 0,
        "tracemind.flow.output_tokens": 0,
        "tracemind.flow.llm_calls": 0,
        "tracemind.flow.retries": 0,
        "tracemind.flow.own.input_tokens": 0,
        "tracemind.flow.own.output_tokens": 0,
        "tracemind.flow.own.llm_calls": 0,
        "tracemind.flow.own.retries": 0,
    }


async def test_a_steps_attributes(capture: Captured) -> None:
    """A step's span has the step's attributes and no others."""
    await step_with_options()
    assert dict(attributes(capture.span("named"))) == {"k": 1}


def test_a_local_function_has_a_short_name(capture: Captured) -> None:
    """A step named `test_x.<locals>.work` is called `work`."""

    @tm.step
    def work() -> None: ...

    work()
    assert [span.name for span in capture.spans] == ["work"]


def test_other_callables(capture: Captured) -> None:
    """A `functools.partial` and an object with `__call__` can be decorated too."""

    class Callee:
        def __call__(self) -> str:
            return "called"

    assert tm.step(name="partial")(functools.partial(str, 5))() == "5"
    assert tm.step(Callee())() == "called"
    assert [span.name for span in capture.spans] == ["partial", "Callee"]


def test_the_function_stays_what_it_was() -> None:
    """Name, documentation, signature and kind are kept, so that other decorators and tools work."""
    assert (bare.__name__, bare.__doc__, bare.__module__) == ("bare", "Adds.", __name__)
    assert str(inspect.signature(bare)) == "(a: 'int', b: 'int' = 2) -> 'int'"
    assert inspect.unwrap(bare) is not bare
    assert not inspect.iscoroutinefunction(bare)
    assert inspect.iscoroutinefunction(bare_async)
    assert inspect.iscoroutinefunction(Service.async_method)
    assert bare_async.__doc__ == "Adds, later."


@pytest.mark.parametrize("wrong", [staticmethod, classmethod])
@pytest.mark.parametrize("decorate", [tm.flow, tm.step])
def test_the_wrong_order_is_said(wrong: Callable[[Any], Any], decorate: Callable[[Any], Any]) -> None:
    """A decorator above `@staticmethod` is rejected with the right order in the message."""
    with pytest.raises(TypeError, match=f"put it below @{wrong.__name__}"):
        decorate(wrong(bare))


# --- The tree ---


async def test_parents_and_children(capture: Captured) -> None:
    """Spans of flows, steps and model calls nest as the functions call each other."""

    @tm.step
    async def ask() -> None:
        await llm()

    @tm.flow
    async def answer() -> None:
        await ask()

    await answer()
    assert parent_of(capture, "chat no-such-model") == "ask"
    assert parent_of(capture, "ask") == "invoke_workflow answer"
    assert parent_of(capture, "invoke_workflow answer") is None


async def test_siblings_in_tasks_do_not_nest(capture: Captured) -> None:
    """Steps in concurrent tasks are siblings under their flow."""
    both_run = asyncio.Barrier(2)

    @tm.step
    async def part() -> None:
        await both_run.wait()

    @tm.flow
    async def whole() -> None:
        await asyncio.gather(part(), part())

    await whole()
    root = capture.span("invoke_workflow whole")
    parents = [span.parent for span in capture.spans if span.name == "part"]
    assert [parent and parent.span_id for parent in parents] == [span_id(root)] * 2


async def test_the_callers_context_is_untouched(capture: Captured) -> None:
    """After a function, span, flow and context variables are as before, also when it failed."""

    @tm.flow
    async def fails() -> None:
        await llm()
        raise ValueError

    before = contextvars.copy_context()
    with pytest.raises(ValueError):
        await fails()
    bare(1)
    assert otel_context.get_current() == {}
    assert current_flow() is None
    assert {v: before[v] for v in before} == {v: contextvars.copy_context()[v] for v in before}


async def test_a_flow_may_call_itself(capture: Captured) -> None:
    """Recursion makes nested flows, each with the sums of the calls below it."""

    @tm.flow
    async def deeper(levels: int) -> None:
        await llm()
        if levels:
            await deeper(levels - 1)

    await deeper(2)
    flows = [span for span in capture.spans if span.name == "invoke_workflow deeper"]
    assert [totals(span)[3] for span in flows] == [1, 2, 3]


# --- Sums ---


async def test_the_sums(capture: Captured) -> None:
    """A flow's span has the cost, tokens, calls and retries of all calls, failed ones included."""

    @tm.flow
    async def work() -> None:
        await llm(script=("503 retry-after=0.001",))
        await llm()
        await llm(script=("400",))
        await llm(cost=None)

    await work()
    assert totals(capture.span("invoke_workflow work")) == (1.0, 30, 15, 4, 1)


async def test_an_unknown_cost_is_absent(capture: Captured) -> None:
    """A flow whose calls all lack a price has no cost, not a cost of zero."""

    @tm.flow
    async def work() -> None:
        await llm(cost=None)

    await work()
    assert "tracemind.flow.cost_usd" not in attributes(capture.span("invoke_workflow work"))


async def test_a_cost_of_zero_is_there(capture: Captured) -> None:
    """A flow whose calls were free has a cost of zero."""

    @tm.flow
    async def work() -> None:
        await llm(cost=0.0)

    await work()
    assert attributes(capture.span("invoke_workflow work"))["tracemind.flow.cost_usd"] == 0.0


async def gathered() -> None:
    await asyncio.gather(*(llm() for _ in range(50)))


async def in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(llm())


async def in_threads() -> None:
    await asyncio.gather(*(asyncio.to_thread(llm_in_a_loop_of_its_own) for _ in range(50)))


async def in_an_executor() -> None:
    with ThreadPoolExecutor(4) as pool:
        await asyncio.gather(
            *(
                asyncio.get_running_loop().run_in_executor(pool, tm.carry_context(llm_in_a_loop_of_its_own))
                for _ in range(50)
            )
        )


async def in_an_executor_with_one_wrapper() -> None:
    carried = tm.carry_context(llm_in_a_loop_of_its_own)
    with ThreadPoolExecutor(4) as pool:
        await asyncio.gather(*(asyncio.get_running_loop().run_in_executor(pool, carried) for _ in range(50)))


@pytest.mark.parametrize(
    "fifty_calls", [gathered, in_a_task_group, in_threads, in_an_executor, in_an_executor_with_one_wrapper]
)
async def test_sums_under_concurrency(capture: Captured, fifty_calls: Callable[[], Awaitable[None]]) -> None:
    """A flow counts each call once, however calls are spread over tasks and threads, and each is its child."""

    @tm.flow
    async def work() -> None:
        await fifty_calls()

    await work()
    root = capture.span("invoke_workflow work")
    assert totals(root) == (25.0, 500, 250, 50, 0)
    calls = [span for span in capture.spans if span.name == "chat no-such-model"]
    assert [span.parent and span.parent.span_id for span in calls] == [span_id(root)] * 50


def test_a_sync_flow_sums_too(capture: Captured) -> None:
    """A synchronous function that runs its own event loops is a flow like any other."""

    @tm.flow
    def work() -> None:
        llm_in_a_loop_of_its_own()
        llm_in_a_loop_of_its_own()

    work()
    assert totals(capture.span("invoke_workflow work")) == (1.0, 20, 10, 2, 0)


async def test_nested_flows(capture: Captured) -> None:
    """An outer flow's sums include those of the inner flow, which has only its own."""

    @tm.flow
    async def inner() -> None:
        await llm()

    @tm.flow
    async def outer() -> None:
        await inner()
        await llm()
        await inner()

    await outer()
    assert totals(capture.span("invoke_workflow outer")) == (1.5, 30, 15, 3, 0)
    inners = [span for span in capture.spans if span.name == "invoke_workflow inner"]
    assert [totals(span) for span in inners] == [(0.5, 10, 5, 1, 0)] * 2


async def test_two_flows_at_once_do_not_mix(capture: Captured) -> None:
    """Each of many concurrent flows counts only its own calls."""

    async def work(calls: int) -> None:
        for _ in range(calls):
            await llm()

    await asyncio.gather(*(tm.flow(name=f"flow-{n}")(work)(n) for n in range(10)))
    assert [totals(capture.span(f"invoke_workflow flow-{n}"))[3] for n in range(10)] == list(range(10))


class Broken(Recorder):
    def begin_step(self, start: StepStart) -> StepHandle:
        raise OSError


@pytest.mark.parametrize("recorder", [Recorder(), tm.InMemoryRecorder(), Broken()])
async def test_sums_whatever_the_recorder(capture: Captured, recorder: Recorder) -> None:
    """A call adds itself to the flow once, whatever recorder it has, a broken one included."""

    @tm.flow
    async def work() -> None:
        await llm(recorder=recorder)
        await llm(recorder=tm.CompositeRecorder(recorder, recorder))

    await work()
    assert totals(capture.span("invoke_workflow work")) == (1.0, 20, 10, 2, 0)


async def test_a_cancelled_call_counts(capture: Captured) -> None:
    """A cancelled call counts as a call of unknown tokens."""

    @tm.flow
    async def work() -> None:
        call = asyncio.create_task(llm(script=("timeout",)))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    await work()
    assert totals(capture.span("invoke_workflow work")) == (None, 0, 0, 1, 0)


# --- Other threads ---


async def test_a_plain_thread_loses_the_flow(capture: Captured) -> None:
    """Threads are not patched: a thread without the context is outside the flow."""

    @tm.flow
    async def work() -> None:
        with ThreadPoolExecutor(1) as pool:
            await asyncio.get_running_loop().run_in_executor(pool, llm_in_a_loop_of_its_own)

    await work()
    assert totals(capture.span("invoke_workflow work"))[3] == 0
    assert parent_of(capture, "chat no-such-model") is None


def test_carry_context_keeps_the_function() -> None:
    """`carry_context` passes on arguments, result, exceptions and the name."""

    def add(a: int, *, b: int) -> int:
        if a < 0:
            raise ValueError
        return a + b

    carried = tm.carry_context(add)
    assert (carried(1, b=2), carried.__name__) == (3, "add")
    with pytest.raises(ValueError):
        carried(-1, b=0)


def test_carry_context_carries_every_variable(capture: Captured) -> None:
    """A thread sees all context variables of its caller, and its own changes stay in it."""
    variable = contextvars.ContextVar("variable", default="unset")
    seen = list[str]()

    def look() -> None:
        seen.append(variable.get())
        variable.set("changed in the thread")

    variable.set("the caller's")
    carried = tm.carry_context(look)
    for _ in range(2):
        thread = threading.Thread(target=carried)
        thread.start()
        thread.join()
    assert seen == ["the caller's"] * 2
    assert variable.get() == "the caller's"


# --- Failures ---


@pytest.mark.parametrize("decorate", [tm.flow(name="work"), tm.step(name="invoke_workflow work")])
@pytest.mark.parametrize("is_async", [True, False])
async def test_an_exception(capture: Captured, decorate: Callable[[Any], Any], is_async: bool) -> None:
    """An exception reaches the caller unchanged; the span has its type and traceback, never its message."""
    error = ValueError("the prompt was: my secret")

    def fail() -> None:
        raise error

    async def fail_later() -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        await maybe(decorate(fail_later if is_async else fail)())
    assert caught.value is error
    span = capture.span("invoke_workflow work")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ValueError")
    assert attributes(span)["error.type"] == "ValueError"
    (event,) = events(span, "exception")
    assert set(event) == {"exception.type", "exception.stacktrace"}
    assert event["exception.type"] == "ValueError"
    assert event["exception.stacktrace"].endswith("fail_later" if is_async else "fail")
    assert "secret" not in span.to_json()


async def test_a_flow_that_fails_has_its_sums(capture: Captured) -> None:
    """A flow that fails still has the sums of the calls before the failure."""

    @tm.flow
    async def work() -> None:
        await llm()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await work()
    assert totals(capture.span("invoke_workflow work")) == (0.5, 10, 5, 1, 0)


async def test_a_failed_call_is_not_a_failed_flow(capture: Captured) -> None:
    """A call returns its failure, and the flow decides whether it has failed."""

    @tm.flow
    async def work() -> object:
        return (await llm(script=("400",)))["status"]

    assert await work() == "error"
    assert capture.span("invoke_workflow work").status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("decorate", [tm.flow(name="work"), tm.step(name="invoke_workflow work")])
async def test_a_cancellation(capture: Captured, decorate: Callable[[Any], Any]) -> None:
    """A cancelled function's span is marked as cancelled, and has no error."""
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(decorate(hang)())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    span = capture.span("invoke_workflow work")
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert attributes(span)["tracemind.cancelled"] is True
    assert "error.type" not in attributes(span)


@pytest.mark.parametrize("stop", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exit_ends_the_span(capture: Captured, stop: type[BaseException]) -> None:
    """`sys.exit` and Ctrl-C end the span without an error."""

    @tm.flow
    def work() -> None:
        raise stop

    with pytest.raises(stop):
        work()
    assert capture.span("invoke_workflow work").status.status_code is StatusCode.UNSET


# --- Metrics ---


def test_the_duration_of_a_flow(capture: Captured) -> None:
    """Each flow's duration is measured by name, a failed one with its `error.type`, in the conventions' buckets."""

    @tm.flow(name="work", attributes={"team": "search"})
    def work(*, fails: bool) -> None:
        if fails:
            raise KeyError

    work(fails=False)
    with pytest.raises(KeyError):
        work(fails=True)
    points = [p for p in capture.points("gen_ai.invoke_workflow.duration") if isinstance(p, HistogramDataPoint)]
    assert [dict(p.attributes or {}) for p in points] == [
        {"gen_ai.workflow.name": "work"},
        {"gen_ai.workflow.name": "work", "error.type": "KeyError"},
    ]
    assert [p.count for p in points] == [1, 1]
    assert list(points[0].explicit_bounds) == [1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200]
    assert points[0].exemplars[0].span_id == span_id(capture.spans[0])


def test_durations_by_team(capture: Captured) -> None:
    """A flow attribute that `configure` names is on the durations of the flow and of the tools below it."""
    use_providers(
        Providers(
            tracer_provider=capture.tracer_provider,
            meter_provider=capture.meter_provider,
            labels=MetricLabels(("team", "tier")),
        )
    )
    tool = tm.tool(name="tool")(lambda: None)
    tm.flow(name="flow", attributes={"team": "search"})(tool)()
    tool()
    by_team = {"gen_ai.invoke_workflow.duration": ["search"], "gen_ai.execute_tool.duration": ["search", None]}
    for metric, teams in by_team.items():
        assert [(p.attributes or {}).get("team") for p in capture.points(metric)] == teams


def test_a_tool_is_named_as_a_model_calls_it(capture: Captured) -> None:
    """A tool is named like its function; flows, agents and steps are also named by their class."""
    Shop().look_up()
    assert {span.name for span in capture.spans} == {"execute_tool look_up", "Shop.find"}


class Shop:
    @tm.tool
    def look_up(self) -> None:
        self.find()

    @tm.step
    def find(self) -> None: ...


def test_a_step_is_not_measured(capture: Captured) -> None:
    """A step makes a span and no metric."""
    bare_step()
    assert capture.reader.get_metrics_data() is None


async def test_cost_by_team(capture: Captured) -> None:
    """A flow attribute that `configure` names is on the cost counter."""
    use_providers(
        Providers(
            tracer_provider=capture.tracer_provider,
            meter_provider=capture.meter_provider,
            labels=MetricLabels(("team",)),
        )
    )

    async def work() -> None:
        await llm()

    for team in ("search", "search", "ads"):
        await tm.flow(name="work", attributes={"team": team})(work)()
    costs = {
        (p.attributes or {})["team"]: p.value
        for p in capture.points("tracemind.llm.cost")
        if isinstance(p, NumberDataPoint)
    }
    assert costs == {"search": 1.0, "ads": 0.5}


@pytest.mark.parametrize(
    ("decorate", "metric", "named", "bounds"),
    [
        (tm.agent, "gen_ai.invoke_agent.duration", {"gen_ai.agent.name": "work"}, (0.1, 409.6, 13)),
        (
            tm.tool,
            "gen_ai.execute_tool.duration",
            {"gen_ai.tool.name": "work", "gen_ai.tool.type": "function"},
            (0.01, 81.92, 14),
        ),
    ],
)
def test_the_duration_of_agents_and_tools(
    capture: Captured, decorate: Any, metric: str, named: dict[str, str], bounds: tuple[float, float, int]
) -> None:
    """Durations are measured by name, failures by type, in the conventions' buckets."""

    def work(*, fails: bool) -> None:
        if fails:
            raise KeyError

    decorated = decorate(name="work")(work)
    decorated(fails=False)
    with pytest.raises(KeyError):
        decorated(fails=True)
    points = [p for p in capture.points(metric) if isinstance(p, HistogramDataPoint)]
    assert [dict(p.attributes or {}) for p in points] == [named, named | {"error.type": "KeyError"}]
    assert (points[0].explicit_bounds[0], points[0].explicit_bounds[-1], len(points[0].explicit_bounds)) == bounds
    span = attributes(capture.spans[0])
    assert named.items() <= span.items()
    assert span["gen_ai.operation.name"] == metric.split(".")[1]


# --- Blocks ---


async def test_a_block_is_a_flow(capture: Captured) -> None:
    """`with tm.flow(name=...)` and `async with` make a flow without a function."""
    with tm.flow(name="outer", attributes={"team": "search"}):
        await llm()
        async with tm.step(name="inner"):
            await llm()
    assert totals(capture.span("invoke_workflow outer")) == (1.0, 20, 10, 2, 0)
    assert attributes(capture.span("invoke_workflow outer"))["team"] == "search"
    assert parent_of(capture, "inner") == "invoke_workflow outer"


def test_a_block_that_fails(capture: Captured) -> None:
    """A block that raises has a span with an error, and the exception reaches the caller."""
    with pytest.raises(KeyError), tm.tool(name="work"):
        raise KeyError
    assert capture.span("execute_tool work").status.status_code is StatusCode.ERROR


def test_a_block_needs_a_name() -> None:
    """A block without a name is rejected, since it has no function to be named after."""
    with pytest.raises(tm.ConfigError, match="a block has no name of its own; pass name="), tm.flow():
        pass


def test_one_block_at_a_time(capture: Captured) -> None:
    """A block cannot be entered twice at once; entered again later, it works."""
    block = tm.step(name="block")
    for _ in range(2):
        with block:
            pass
    with pytest.raises(RuntimeError, match="in use; make one for each block"), block, block:
        pass
    assert [span.name for span in capture.spans] == ["block"] * 3


# --- What is rejected ---


@pytest.mark.parametrize("decorate", [tm.flow, tm.agent, tm.tool, tm.step])
def test_what_is_no_function(decorate: Any) -> None:
    """A decorator on something else raises at import, with what to write instead."""
    for wrong, said in (
        (Service, "is a class; decorate its methods"),
        (5, "int is not a function"),
        (property(lambda _: 1), "put it below @property, next to the function"),
    ):
        with pytest.raises(TypeError, match=said):
            decorate(wrong)
    for name in ("", 5):
        with pytest.raises(tm.ConfigError, match="it must be a string that is not empty"):
            decorate(name=name)
    with pytest.raises(TypeError, match="has no option 'nmae'; its options are name, attributes, "):
        decorate(nmae="work")
    for given, said in ((["a"], "attributes is list; it must be a mapping"), ({1: "a"}, "has the name 1")):
        with pytest.raises(tm.ConfigError, match=said):
            decorate(attributes=given)


def test_an_option_of_another_decorator() -> None:
    """The error for an unknown option names the decorator that has it."""
    options: Any = {"session_id": "s"}
    with pytest.raises(TypeError, match="@step\\(\\) has no option 'session_id'; only @flow has it"):
        tm.step(**options)


# --- Faults of telemetry ---


class Faulty:
    """Another library's tracer, span or instrument that raises where the test says."""

    def __init__(self, fails_at: str, good: Any) -> None:
        self._fails_at, self._good = fails_at, good

    def __getattr__(self, name: str) -> Any:
        if name == self._fails_at:
            raise RuntimeError(name)
        found = getattr(self._good, name)
        if name in ("start_span", "get_tracer", "get_meter", "create_histogram"):
            return functools.partial(self._make, found)
        return found

    def _make(self, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Faulty:
        return Faulty(self._fails_at, make(*args, **kwargs))


@pytest.mark.parametrize(
    "fails_at", ["get_tracer", "start_span", "is_recording", "set_attributes", "set_attribute", "set_status", "end"]
)
@pytest.mark.parametrize("fails", [True, False])
async def test_a_faulty_tracer_breaks_nothing(capture: Captured, fails_at: str, fails: bool) -> None:
    """The function runs, and its budget and ids hold, though the tracer raises."""
    provider: Any = Faulty(fails_at, capture.tracer_provider)
    use_providers(Providers(tracer_provider=provider, meter_provider=capture.meter_provider))

    @tm.flow(max_llm_calls=1, session_id="s-1", capture_arguments=True, capture_result=True)
    async def work(argument: int) -> list[object]:
        results: list[object] = [(await llm(recorder=Recorder())).get("error_type") for _ in range(2)]
        if fails:
            raise KeyError
        return [*results, current_correlation().session_id]

    if fails:
        with pytest.raises(KeyError):
            await work(1)
    else:
        assert await work(1) == [None, "budget_exceeded", "s-1"]


@pytest.mark.parametrize("fails_at", ["get_meter", "create_histogram", "record"])
def test_a_faulty_meter_breaks_nothing(capture: Captured, fails_at: str) -> None:
    """The function runs though the meter raises."""
    provider: Any = Faulty(fails_at, capture.meter_provider)
    use_providers(Providers(tracer_provider=capture.tracer_provider, meter_provider=provider))
    assert tm.flow(name="work")(lambda: "done")() == "done"


# --- Without OpenTelemetry ---


async def test_without_any_provider() -> None:
    """Without OpenTelemetry, a decorated function works as before, and its sums are counted."""
    use_providers(Providers())
    seen = list[int]()

    @tm.flow
    async def work() -> int:
        await llm()
        scope = current_flow()
        assert scope is not None
        seen.append(scope.totals().llm_calls)
        return 5

    assert (await work(), bare(1), bare_step(), seen) == (5, 3, "done", [1])


def test_decorated_before_configured(capture: Captured) -> None:
    """A function that is decorated before `configure()` uses the provider of the time of its call."""
    use_providers(Providers())
    decorated = tm.step(name="early")(lambda: 1)
    decorated()
    use_providers(Providers(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider))
    decorated()
    assert [span.name for span in capture.spans] == ["early"]


def test_what_a_library_never_detaches_ends_with_the_flow(capture: Captured) -> None:
    """A context that a library forgot to detach in a flow keeps no later flow in its trace."""

    @tm.flow
    def forgets() -> None:
        otel_context.attach(otel_context.set_value("forgotten", 1))

    forgets()
    forgets()

    assert not trace.get_current_span().get_span_context().is_valid
    assert len({span.context.trace_id for span in capture.spans if span.context}) == 2
