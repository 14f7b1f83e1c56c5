"""Ids and tags are set once, and are on every span and log record below, in tasks, threads and other processes."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import operator
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

import tracemind_otel as tm
from tests.programs import run_program
from tests.support import Captured, attributes
from tracemind_otel.ai.llm import LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.flows.correlation import NO_CORRELATION, current_correlation

NAMES = ("session.id", "user.id", "gen_ai.conversation.id", "tracemind.flow.id", "tracemind.tags")
ALL = {
    "session.id": "s-1",
    "user.id": "u-1",
    "gen_ai.conversation.id": "c-1",
    "tracemind.flow.id": "f-1",
    "tracemind.tags": ("a", "b"),
}


@pytest.fixture(autouse=True)
def _no_ids_left() -> Iterator[None]:
    yield
    assert current_correlation() is NO_CORRELATION


def ids_of(capture: Captured, name: str) -> dict[str, Any]:
    found = attributes(capture.span(name))
    return {name: found[name] for name in NAMES if name in found}


def our_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("tracemind_otel")]


def all_ids() -> tm.using_attributes:
    return tm.using_attributes(flow_id="f-1", session_id="s-1", conversation_id="c-1", user_id="u-1", tags=["a", "b"])


@tm.step
def work() -> None: ...


async def call(flow_id: str = "", client: tm.AsyncLLMClient | None = None) -> None:
    config = tm.LLMCallConfig("fake", "toy-1", prompt="hello")
    await tm.run_llm_call(flow_id, "step", config, tm.OTelRecorder(), client=client or FakeLLMClient(0))


# --- Where they are found ---


async def test_on_every_span_below(capture: Captured) -> None:
    """Flows, agents, tools, steps and model calls have all ids."""

    @tm.agent
    async def agent() -> None:
        tm.tool(name="t")(lambda: None)()
        await call()

    @tm.flow
    async def flow() -> None:
        work()
        await agent()

    with all_ids():
        await flow()
    names = ("invoke_workflow flow", "invoke_agent agent", "execute_tool t", "work", "chat toy-1")
    assert [ids_of(capture, name) for name in names] == [ALL] * 5


async def test_without_ids_there_are_none(capture: Captured) -> None:
    """Ids that are not set are absent, not empty, and so is the flow id of a call."""
    work()
    await call()
    assert (ids_of(capture, "work"), ids_of(capture, "chat toy-1")) == ({}, {})


async def test_set_by_a_flow(capture: Captured) -> None:
    """`@flow(session_id=...)` sets ids for itself and everything below, from a string or from the arguments."""

    def user_of(user: str, **_: object) -> str:
        return user

    def chat_of(_: str, chat: str) -> str:
        return chat

    @tm.flow(session_id="fixed", user_id=user_of, conversation_id=chat_of, tags=["x"])
    async def flow(user: str, chat: str) -> None:
        await call()

    await flow("ada", chat="c-9")
    expected = {"session.id": "fixed", "user.id": "ada", "gen_ai.conversation.id": "c-9", "tracemind.tags": ("x",)}
    assert ids_of(capture, "invoke_workflow flow") == ids_of(capture, "chat toy-1") == expected
    assert current_correlation() is NO_CORRELATION


@pytest.mark.parametrize("broken", [lambda: 1 / 0, lambda: 5, lambda: "", lambda: "x" * 300, lambda: "line\nbreak"])
def test_an_id_that_cannot_be_had(
    capture: Captured, caplog: pytest.LogCaptureFixture, broken: Callable[[], str | None]
) -> None:
    """A function for an id that raises leaves out only that id, and never fails the call."""
    flow = tm.flow(name="flow", session_id=broken, user_id="u")(lambda: "done")
    assert flow() == "done"
    assert ids_of(capture, "invoke_workflow flow") == {"user.id": "u"}
    assert "x" * 300 not in caplog.text
    assert "Traceback" not in caplog.text


def test_an_id_of_none_is_not_set(capture: Captured) -> None:
    """A function for an id may return `None`."""

    def nobody() -> str | None:
        return None

    tm.flow(name="flow", session_id=nobody)(work)()
    assert ids_of(capture, "invoke_workflow flow") == {}


async def test_the_flow_id_of_a_call(capture: Captured) -> None:
    """A call's own flow id wins; an empty one takes the enclosing one."""
    with tm.using_attributes(flow_id="around"):
        await call("its own")
        await call("")
    found = [attributes(span)["tracemind.flow.id"] for span in capture.spans]
    assert found == ["its own", "around"]


def test_the_inner_ids_win_and_tags_are_added(capture: Captured) -> None:
    """An inner session replaces the outer one, the user stays, and tags are added in order."""
    with tm.using_attributes(session_id="outer", user_id="u", tags=["a", "b"]):
        with tm.using_attributes(session_id="inner", tags=["b", "c"]):
            tm.step(name="inner")(lambda: None)()
        tm.step(name="outer")(lambda: None)()
    assert ids_of(capture, "inner") == {"session.id": "inner", "user.id": "u", "tracemind.tags": ("a", "b", "c")}
    assert ids_of(capture, "outer") == {"session.id": "outer", "user.id": "u", "tracemind.tags": ("a", "b")}


KINDS = [
    ({"flow_id": 7}, "flow_id is int"),
    ({"tags": "one"}, "tags is str; it must be a list"),
    ({"tags": ["ok", 3]}, r"tags\[1\] is int"),
    ({"tags": ["ok", None]}, r"tags\[1\] is NoneType"),
]
VALUES = [
    ({"session_id": ""}, "session_id has 0 characters"),
    ({"user_id": "x" * 257}, "user_id has 257 characters; it must have 1 to 256"),
    ({"conversation_id": "a\nb"}, "conversation_id has unprintable characters"),
    ({"flow_id": "a\u202eb"}, "flow_id has unprintable characters"),
    ({"tags": [str(n) for n in range(65)]}, "tags has"),
]


@pytest.mark.parametrize(("options", "said"), KINDS)
def test_an_id_of_the_wrong_kind_is_a_mistake(options: dict[str, Any], said: str) -> None:
    """The ConfigError of a block or a decorator names the field and the allowed types."""
    with pytest.raises(tm.ConfigError, match=said):
        tm.using_attributes(**options)
    with pytest.raises(tm.ConfigError, match=said):
        tm.flow(**options)


@pytest.mark.parametrize(("options", "said"), VALUES)
def test_an_unusable_id_never_breaks_a_request(
    capture: Captured, caplog: pytest.LogCaptureFixture, options: dict[str, Any], said: str
) -> None:
    """An unusable id from a request is left out, and the log says why, once; in a decorator it is rejected."""
    for _ in range(2):
        with tm.using_attributes(**options), tm.using_attributes(session_id="s"):
            work()
    assert [attributes(span).get("session.id") for span in capture.spans] == ["s", "s"]
    (line,) = our_lines(caplog)
    assert line.startswith(f"using_attributes: {said}")
    assert line.endswith("; it is left out")
    with pytest.raises(tm.ConfigError, match=said):
        tm.flow(**options)


def test_one_unusable_tag_does_not_cost_the_others(capture: Captured) -> None:
    """An unusable tag is left out alone."""
    with tm.using_attributes(tags=["beta", "x" * 300, "gamma"]):
        work()
    assert ids_of(capture, "work") == {"tracemind.tags": ("beta", "gamma")}


def test_a_function_for_an_id_sees_the_defaults(capture: Captured) -> None:
    """A function for an id gets the arguments with their defaults, however the caller passed them."""

    def session_of(question: str, session: str) -> str:
        return f"{session}/{question}"

    @tm.flow(name="flow", session_id=session_of)
    def flow(question: str, session: str = "default") -> None: ...

    flow("a")
    flow(question="b", session="s")
    assert [attributes(span)["session.id"] for span in capture.spans] == ["default/a", "s/b"]


def id_of(request: dict[str, str]) -> str:
    return request["id"]


def id_of_any(request: dict[str, str], **_: object) -> str:
    return request["id"]


@pytest.mark.parametrize("source", [id_of, id_of_any, operator.itemgetter("id")])
def test_a_function_for_an_id_gets_no_default_that_it_cannot_take(capture: Captured, source: Any) -> None:
    """A function for an id gets only the parameters that it has."""

    @tm.flow(name="flow", session_id=source)
    def flow(request: dict[str, str], retries: int = 3) -> None: ...

    flow({"id": "s-1"})
    assert ids_of(capture, "invoke_workflow flow") == {"session.id": "s-1"}


def test_nobody_is_no_mistake(capture: Captured) -> None:
    """`None` is allowed for an unknown user, as the types say."""
    with tm.using_attributes(user_id=None):
        work()
    assert ids_of(capture, "work") == {}


@pytest.mark.parametrize("user_id", ["سلام\u200cعلیکم", "👩\u200d💻", "Ada L. <ada@example.com>", "ñ"])
def test_ids_of_any_script(capture: Captured, user_id: str) -> None:
    """Ids may be in any script, here and in another process."""
    with tm.using_attributes(user_id=user_id):
        headers = tm.inject_context()
    with tm.continue_trace(headers):
        work()
    assert ids_of(capture, "work") == {"user.id": user_id}


def test_each_flow_says_which_id_it_lacks(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the flow and the id once for each flow, and shows no argument."""

    def of_the_wrong_arguments(nothing: str) -> str:
        return nothing

    def fails(prompt: str, **_: object) -> str:
        raise ValueError(prompt)

    def echo(prompt: str, b: int) -> str:
        return prompt

    for name in ("first", "second"):
        flow = tm.flow(name=name, session_id=of_the_wrong_arguments, user_id=fails, conversation_id=lambda *_, **__: 5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
        run = flow(echo)
        for _ in range(2):
            run("the prompt", b=2)
    assert our_lines(caplog) == [
        line
        for name in ("first", "second")
        for line in (
            f"@flow {name}.session_id failed (TypeError); its value is left out",
            f"@flow {name}.user_id failed (ValueError); its value is left out",
            f"@flow {name}: conversation_id is int; it must be a string; it is left out",
        )
    ]


def test_an_id_cannot_be_waited_for() -> None:
    """A coroutine function for an id is rejected at decoration, not by a warning when it runs."""

    async def session() -> str:
        return "s"

    with pytest.raises(tm.ConfigError, match="session_id is a coroutine function"):
        tm.flow(session_id=session)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def test_every_recorder_gets_the_flow_id() -> None:
    """Every recorder gets the flow id that is set around the call."""
    recorder = tm.InMemoryRecorder()
    config = tm.LLMCallConfig("fake", "toy-1", prompt="hello")
    with all_ids():
        await tm.run_llm_call("", "step", config, recorder, client=FakeLLMClient(0))
    assert recorder.steps[0].start.flow_id == "f-1"


def test_what_was_said_of_one_span_wins(capture: Captured) -> None:
    """An attribute that was given to a span itself wins over the ids around it."""
    with tm.configure(tracer_provider=capture.tracer_provider), all_ids():
        tm.step(name="ours", attributes={"user.id": "own"})(lambda: None)()
        tracer = capture.tracer_provider.get_tracer("another library")
        with tracer.start_as_current_span("theirs", attributes={"user.id": "own"}):
            pass
    assert ids_of(capture, "ours") == ids_of(capture, "theirs") == ALL | {"user.id": "own"}


# --- Where the work goes on ---


async def test_in_tasks_and_threads(capture: Captured) -> None:
    """Tasks and `asyncio.to_thread` have the ids; plain threads and executors have them by `carry_context`."""

    async def in_a_task() -> None:
        tm.step(name="task")(lambda: None)()

    with all_ids():
        await asyncio.create_task(in_a_task())
        await asyncio.to_thread(tm.step(name="to_thread")(lambda: None))
        with ThreadPoolExecutor(2) as pool:
            pool.submit(tm.carry_context(tm.step(name="executor")(lambda: None))).result()
            pool.submit(tm.step(name="bare executor")(lambda: None)).result()
        thread = threading.Thread(target=tm.carry_context(tm.step(name="thread")(work)))
        thread.start()
        thread.join()
    assert [ids_of(capture, name) for name in ("task", "to_thread", "executor", "thread")] == [ALL] * 4
    assert ids_of(capture, "bare executor") == {}


async def test_left_in_another_context(capture: Captured, caplog: pytest.LogCaptureFixture) -> None:
    """A block that is left in another context, as a generator may be, neither raises nor logs."""
    entered = all_ids()
    contextvars.copy_context().run(entered.__enter__)
    entered.__exit__(None, None, None)
    assert caplog.records == []
    async with all_ids():
        work()
    assert ids_of(capture, "work") == ALL


async def test_one_object_in_many_tasks(capture: Captured) -> None:
    """Many tasks can use one object of a module, and each block restores its own ids."""
    shared = all_ids()
    inside, go_on = asyncio.Barrier(10), asyncio.Event()

    async def task(number: int) -> None:
        with shared:
            await inside.wait()
            tm.step(name=f"in {number}")(print)(end="")
            if number:
                await go_on.wait()
        assert current_correlation() is NO_CORRELATION
        go_on.set()

    await asyncio.gather(*map(task, range(10)))
    assert [ids_of(capture, f"in {number}") for number in range(10)] == [ALL] * 10


# --- Spans of other libraries ---


def test_on_spans_of_others(capture: Captured) -> None:
    """After `configure()`, spans of other libraries on its provider have the ids too."""
    provider = capture.tracer_provider
    with tm.configure(tracer_provider=provider, meter_provider=capture.meter_provider):
        tracer = provider.get_tracer("an HTTP client")
        with all_ids(), tracer.start_as_current_span("GET"):
            work()
        with tracer.start_as_current_span("later"):
            pass
    assert (ids_of(capture, "GET"), ids_of(capture, "work"), ids_of(capture, "later")) == (ALL, ALL, {})


def test_a_provider_is_enriched_once() -> None:
    """A second `configure()` adds no span processor twice to the same provider."""
    added = list[object]()

    class Counting(TracerProvider):
        def add_span_processor(self, span_processor: SpanProcessor) -> None:
            added.append(span_processor)
            super().add_span_processor(span_processor)

    provider = Counting(shutdown_on_exit=False)
    for _ in range(2):
        with tm.configure(tracer_provider=provider):
            assert len(added) == len({type(processor) for processor in added}) > 0


# --- Logs ---


@pytest.fixture
def logged() -> Iterator[tuple[logging.Logger, list[logging.LogRecord]]]:
    """A logger, and the records that pass its handler."""
    records = list[logging.LogRecord]()

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = logging.getLogger("the application's"), Keeper()
    handler.addFilter(tm.LogContextFilter())
    logger.addHandler(handler)
    yield logger, records
    logger.removeHandler(handler)


def test_on_every_log_record(capture: Captured, logged: tuple[logging.Logger, list[logging.LogRecord]]) -> None:
    """A log record has the ids and the span of the place where it was logged."""
    logger, records = logged
    with all_ids():
        tm.step(name="logs")(lambda: logger.warning("inside"))()
    logger.warning("outside")
    inside, outside = (vars(record) for record in records)
    assert {name: inside[name] for name in NAMES} == ALL
    context = capture.span("logs").context
    assert context is not None
    assert (inside["trace_id"], inside["span_id"]) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert inside["trace_flags"] in ("01", "03")
    assert {outside[name] for name in (*NAMES, "trace_id", "span_id", "trace_flags")} == {""}


def test_what_was_logged_with_a_record_wins(logged: tuple[logging.Logger, list[logging.LogRecord]]) -> None:
    """Fields in `extra` are not replaced."""
    logger, records = logged
    with all_ids():
        logger.warning("inside", extra={"user.id": "own"})
    assert {name: vars(records[0])[name] for name in NAMES} == ALL | {"user.id": "own"}


def test_in_a_formatted_line() -> None:
    """A formatter finds the ids under the names of the spans' attributes, as empty strings where there are none."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(tm.LogContextFilter())
    handler.setFormatter(logging.Formatter("%(message)s [%(session.id)s]"))
    logger = logging.getLogger("formatted")
    logger.addHandler(handler)
    with tm.using_attributes(session_id="s-7"):
        logger.warning("one")
    logger.warning("two")
    logger.removeHandler(handler)
    assert stream.getvalue() == "one [s-7]\ntwo []\n"


# --- Baggage ---


class LooksAtBaggage(tm.AsyncLLMClient):
    """Keeps the baggage that an instrumented HTTP client would send to the provider."""

    provider_name = "fake"
    seen: dict[str, object]

    async def complete(self, req: LLMRequest) -> LLMResponse:
        with tm.using_attributes(flow_id="set by the client"), tm.continue_trace({"baggage": "session.id=s"}):
            self.seen = dict(baggage.get_all())
        return LLMResponse("ok", LLMUsage(1, 1, 2))


async def test_baggage_when_asked(capture: Captured) -> None:
    """On request, instrumented clients send the ids to the user's own services; by default they send none."""
    with all_ids():
        assert dict(baggage.get_all()) == {}
    with tm.using_attributes(session_id="s", tags=["a", "b"], baggage=True):
        assert dict(baggage.get_all()) == {"session.id": "s", "tracemind.tags": '["a","b"]'}
    assert dict(baggage.get_all()) == {}


@pytest.mark.parametrize("recorder", [tm.OTelRecorder, tm.InMemoryRecorder, tm.Recorder])
async def test_no_id_goes_to_the_provider(recorder: type[tm.Recorder]) -> None:
    """During a model call the ids are not in the baggage, whatever records it; the application's entries stay."""
    client = LooksAtBaggage()
    token = otel_context.attach(baggage.set_baggage("tenant", "t-1"))
    with tm.using_attributes(user_id="u", baggage=True):
        config = tm.LLMCallConfig("fake", "toy-1", prompt="hello")
        await tm.run_llm_call("", "step", config, recorder(), client=client)
        assert baggage.get_baggage("user.id") == "u"
    otel_context.detach(token)
    assert client.seen == {"tenant": "t-1"}


def test_baggage_follows_the_ids(capture: Captured) -> None:
    """On request, the baggage has the current ids: tags are added, and inner ids win."""
    seen = list[object]()

    @tm.flow(session_id="of the flow")
    def flow() -> None:
        seen.append(baggage.get_baggage("session.id"))

    with tm.using_attributes(session_id="outer", tags=["a"], baggage=True):
        with tm.using_attributes(tags=["b"], baggage=True):
            seen.append(baggage.get_baggage("tracemind.tags"))
        with tm.using_attributes(session_id="inner"):
            seen.append(baggage.get_baggage("session.id"))
        flow()
        seen.append(baggage.get_baggage("session.id"))
    assert seen == ['["a","b"]', "inner", "of the flow", "outer"]


NO_HOOK = """
import asyncio
from opentelemetry import baggage, context
import tracemind_otel as tm

class Looks(tm.AsyncLLMClient):
    provider_name = "own"
    async def complete(self, req):
        seen.append(dict(baggage.get_all()))
        return tm.LLMResponse("ok", tm.LLMUsage(1, 1, 2, 0.1))

async def call():
    await tm.run_llm_call("", "s", tm.LLMCallConfig("own", "m", prompt="p"), tm.Recorder(), client=Looks())

seen = []
context.attach(baggage.set_baggage("user.id", "the application's own"))
asyncio.run(call())
import tracemind_otel.otel.attributes
asyncio.run(call())
assert seen[0] == seen[1] == {"user.id": "the application's own"}, seen
"""


@pytest.mark.slow
def test_importing_a_module_changes_no_call() -> None:
    """A call without telemetry sends the same baggage before and after the adapter is imported."""
    done = run_program(NO_HOOK)

    assert (done.returncode, done.stderr) == (0, "")
