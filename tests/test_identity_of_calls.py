"""A call says in which flow and agent it was made, by which prompt, and what a tool's run answers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.trace import Span

import tracemind_otel as tm
from tests.support import Captured, attributes
from tracemind_otel.ai.llm.providers import FakeLLMClient

CALL = "chat m"


def configured(capture: Captured, **options: Any) -> tm.Telemetry:
    return tm.configure(
        tracer_provider=capture.tracer_provider,
        meter_provider=capture.meter_provider,
        **options,
    )


@pytest.fixture
def here(capture: Captured) -> Generator[Captured]:
    with configured(capture):
        yield capture


async def ask(**options: Any) -> None:
    await tm.llm_call("fake/m", "hi", client=FakeLLMClient(), **options)


async def test_a_call_names_its_flow_and_agent(here: Captured) -> None:
    """The innermost ones, so that a backend needs no walk up the tree."""
    with tm.flow("support"), tm.agent("planner"), tm.agent("writer"):
        await ask()
    found = attributes(here.span(CALL))
    assert (found["gen_ai.workflow.name"], found["gen_ai.agent.name"]) == ("support", "writer")


async def test_a_call_outside_has_neither(here: Captured) -> None:
    """Absent is not empty."""
    await ask()
    assert not {"gen_ai.workflow.name", "gen_ai.agent.name"} & set(attributes(here.span(CALL)))


async def test_the_prompt_of_a_call(here: Captured) -> None:
    """Its name and version are on the call."""
    await ask(prompt_name="greeting", prompt_version="7")
    found = attributes(here.span(CALL))
    assert (found["gen_ai.prompt.name"], found["gen_ai.prompt.version"]) == ("greeting", "7")


async def test_the_prompt_of_a_step_is_that_of_its_calls(here: Captured) -> None:
    """The innermost step decides, and a call's own prompt wins; the step's span has neither."""

    @tm.step(prompt_name="outer", prompt_version="1")
    async def outer() -> None:
        await ask()
        with tm.step("inner"):
            await ask()
        await ask(prompt_name="own")

    await outer()
    prompts = [attributes(span).get("gen_ai.prompt.name") for span in here.spans if span.name == CALL]
    versions = [attributes(span).get("gen_ai.prompt.version") for span in here.spans if span.name == CALL]
    assert prompts == ["outer", None, "own"]
    assert versions == ["1", None, None]
    step = here.spans[-1]
    assert not any(name.startswith("gen_ai.") for name in attributes(step))


async def test_the_cost_of_each_version_of_a_prompt(capture: Captured) -> None:
    """Name and version are attributes of the metrics where they are asked for."""
    with configured(capture, metric_attributes=["gen_ai.prompt.name", "gen_ai.prompt.version"]):
        for version in ("1", "2", "2"):
            usage = tm.LLMUsage(10, 5, 15, 0.25)
            client = FakeLLMClient(usage=usage)
            await tm.llm_call("fake/m", "hi", client=client, prompt_name="greeting", prompt_version=version)
    points = capture.points("tracemind.llm.cost")
    costs = {(point.attributes or {})["gen_ai.prompt.version"]: getattr(point, "value") for point in points}  # noqa: B009
    assert costs == {"1": 0.25, "2": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_version": "1"}, "prompt_version needs prompt_name"),
        ({"prompt_name": ""}, "prompt_name has 0 characters"),
        ({"prompt_name": 3}, "prompt_name is int; it must be a string"),
    ],
)
async def test_a_prompt_that_is_wrong(options: Any, message: str) -> None:
    """It is named, in a call and in a step."""
    with pytest.raises(tm.ConfigError, match=message):
        await ask(**options)
    with pytest.raises(tm.ConfigError, match=message):
        tm.step(**options)


def test_a_tool_has_the_id_of_the_call_that_it_answers(here: Captured) -> None:
    """As a value of a block, or as a function of the arguments."""

    def id_of(call: dict[str, str]) -> str:
        return call["id"]

    @tm.tool(call_id=id_of)
    def run(call: dict[str, str]) -> None: ...

    run({"id": "call_1"})
    with tm.tool("look_up", call_id="call_2"):
        pass
    assert [attributes(span)["gen_ai.tool.call.id"] for span in here.spans] == ["call_1", "call_2"]


async def test_an_agent_counts_its_calls_and_tools(here: Captured) -> None:
    """Those of agents below it are counted too; attributes of the span and histograms have the same figures."""
    with tm.agent("planner"):
        await ask()
        with tm.tool("look_up"):
            pass
        with tm.agent("writer"):
            await ask()
            await ask()
    counts = {
        span.name: (
            attributes(span)["gen_ai.invoke_agent.inference_calls"],
            attributes(span)["gen_ai.invoke_agent.tool_calls"],
        )
        for span in here.spans
        if span.name.startswith("invoke_agent")
    }
    assert counts == {"invoke_agent planner": (3, 1), "invoke_agent writer": (2, 0)}
    points = here.points("gen_ai.invoke_agent.inference_calls")
    assert {(point.attributes or {})["gen_ai.agent.name"]: getattr(point, "sum") for point in points} == {  # noqa: B009
        "planner": 3,
        "writer": 2,
    }


async def test_counts_are_told_only_where_all_calls_are_seen(capture: Captured) -> None:
    """Without the calls of other SDKs the figures could be too small."""
    with configured(capture, instrument=False), tm.agent("planner"):
        await ask()
    assert "gen_ai.invoke_agent.inference_calls" not in attributes(capture.span("invoke_agent planner"))


async def test_a_flow_has_the_proposed_counts_where_they_are_asked_for(
    capture: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_workflow` adds the names of an open proposal, nested flows included."""
    names = ("gen_ai.invoke_workflow.inference_calls", "gen_ai.invoke_workflow.tool_calls")
    with configured(capture), tm.flow("before"):
        await ask()
    assert not set(names) & set(attributes(capture.span("invoke_workflow before")))
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_workflow")
    with configured(capture), tm.flow("outer"):
        with tm.flow("inner"), tm.tool("look_up"):
            await ask()
        await ask()
    assert [attributes(capture.span("invoke_workflow outer"))[name] for name in names] == [2, 1]
    assert [attributes(capture.span("invoke_workflow inner"))[name] for name in names] == [1, 1]


# --- Calls that other instrumentations record

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
NAMES = ("gen_ai.workflow.name", "gen_ai.agent.name")


def names_of(here: Captured, span: str = "theirs") -> tuple[object, ...]:
    """The flow and the agent that a span names."""
    return tuple(attributes(here.span(span)).get(name) for name in NAMES)


def theirs(here: Captured, name: str = "theirs", **options: Any) -> AbstractContextManager[Span]:
    """A span of another instrumentation."""
    return here.tracer_provider.get_tracer("acme.instrumentation").start_as_current_span(name, **options)


@pytest.mark.parametrize(
    "told",
    [CHAT, {"gen_ai.system": "openai", "llm.request.type": "chat"}, {"openinference.span.kind": "LLM"}],
    ids=["newest names", "older names", "OpenInference"],
)
@pytest.mark.parametrize("when", ["at the start", "at the end"])
def test_a_call_of_others_names_its_flow_and_agent(here: Captured, told: dict[str, str], when: str) -> None:
    """As our own calls do, whenever its maker says that it is a call; a span that is none has neither."""
    at_start = told if when == "at the start" else {}
    with (
        tm.flow("support"),
        tm.agent("planner"),
        tm.agent("writer"),
        theirs(here, "chain"),
        theirs(here, attributes=at_start) as span,
    ):
        span.set_attributes(told)
    assert names_of(here) == ("support", "writer")
    assert names_of(here, "chain") == (None, None)


def test_a_call_of_others_keeps_the_names_that_its_maker_gives(here: Captured) -> None:
    """What a span has stays, also if its maker sets it after the start."""
    with tm.flow("support"), tm.agent("planner"), theirs(here, attributes=CHAT) as span:
        span.set_attribute("gen_ai.agent.name", "triage")
    assert names_of(here) == ("support", "triage")


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage"}, "triage"),
        ({"gen_ai.operation.name": "invoke_agent"}, None),
        ({"openinference.span.kind": "AGENT"}, None),
    ],
    ids=["with a name", "without a name", "OpenInference"],
)
def test_an_agent_of_others_is_nearer_than_ours(here: Captured, agent: dict[str, str], name: str | None) -> None:
    """A call below it belongs to it: it never gets the name of an agent farther out."""
    with (
        tm.flow("support"),
        tm.agent("planner"),
        theirs(here, "agent", attributes=agent),
        theirs(here, "chain"),
        theirs(here, attributes=CHAT),
    ):
        pass
    assert names_of(here) == ("support", name)
    assert "gen_ai.workflow.name" not in attributes(here.span("agent"))


async def test_a_call_of_ours_in_an_agent_of_others_names_it(here: Captured) -> None:
    """With an agent of ours farther out or without one: the call belongs to the nearest."""
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage"}
    with tm.flow("support"), tm.agent("planner"), theirs(here, "agent", attributes=agent):
        await ask()
    assert names_of(here, CALL) == ("support", "triage")
    here.exporter.clear()
    with theirs(here, "agent", attributes=agent):
        await ask()
    assert names_of(here, CALL) == (None, "triage")


def test_our_agent_below_one_of_others_is_nearer(here: Captured) -> None:
    """The innermost agent counts, whoever made its span."""
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "triage"}
    with theirs(here, "agent", attributes=agent), tm.agent("writer"), theirs(here, attributes=CHAT):
        pass
    assert names_of(here) == (None, "writer")


def test_a_call_of_others_that_has_another_parent(here: Captured) -> None:
    """An instrumentation may choose the parent of its span itself: the code around it still tells the names."""
    with tm.flow("support"), tm.agent("writer"), theirs(here, attributes=CHAT, context=Context()):
        pass
    assert names_of(here) == ("support", "writer")


def test_a_call_of_others_outside_has_neither(here: Captured) -> None:
    """Absent is not empty."""
    with theirs(here, attributes=CHAT):
        pass
    assert not set(NAMES) & set(attributes(here.span("theirs")))
