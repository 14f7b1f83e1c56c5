"""Prompts and answers, and what the preset adds, through the real Collector into the real Jaeger."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.content_schema import assert_messages, assert_parts, assert_tools
from tests.e2e.backends import Span, Stack, poll
from tests.programs import run_program

pytestmark = pytest.mark.e2e

PROGRAM = """
import asyncio, sys
from opentelemetry import trace
import tracemind_otel as tm
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.providers import FakeLLMClient

endpoint, protocol, content, preset, times = sys.argv[1:]

@tm.tool
def look_up(city):
    return {"weather": f"sunny in {city}"}

@tm.flow(name="travel")
async def travel():
    tool = {"name": "look_up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    config = tm.LLMCallConfig(
        "fake", "toy-1", system="Be brief", prompt="Wie ist es in Zürich? 🌤" * int(times),
        max_retries=3, timeout_ms=1000, extra={"tools": [tool]},
    )
    client = FakeLLMClient(script=["timeout", "429 retry-after=0.01", "ok"], usage=LLMUsage(100, 50, 150, 0.25))
    await tm.run_llm_call("f", "ask", config, client=client)
    look_up("Zürich")
    return f"{trace.get_current_span().get_span_context().trace_id:032x}"

with tm.configure(
    service_name="content", endpoint=endpoint, protocol=protocol, capture_content=content or None, preset=preset or None
) as telemetry:
    print(asyncio.run(travel()))
    assert telemetry.flush(20)
"""
CONTENT = ("gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions")
QUESTION = "Wie ist es in Zürich? 🌤"


def run(
    stack: Stack, content: str, *, preset: str = "", protocol: str = "http/protobuf", times: int = 1
) -> dict[str, Span]:
    """The spans of one run of the program, as Jaeger has them, by their names."""
    endpoint = stack.otlp_grpc if protocol == "grpc" else stack.otlp_http
    done = run_program(PROGRAM, endpoint, protocol, content, preset, times)
    assert done.returncode == 0, done.stderr
    assert "lost" not in done.stderr
    spans = {span["name"]: span for span in stack.wait_for_trace(done.stdout.split()[0], spans=6)}
    assert len(spans) == 6
    return spans


def content_of(span: Span) -> dict[str, Any]:
    return {name: json.loads(span["attributes"][name]) for name in CONTENT if name in span["attributes"]}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_content_on_spans_is_in_jaeger_in_the_form_that_its_tab_reads(stack: Stack, protocol: str) -> None:
    """Messages are roles and parts as JSON, which Jaeger's tab GenAI shows as a conversation; the tool has its own."""
    spans = run(stack, "SPAN_ONLY", protocol=protocol)
    found = content_of(spans["chat toy-1"])
    assert set(found) == set(CONTENT)
    assert_parts(found["gen_ai.system_instructions"])
    assert_messages(found["gen_ai.input.messages"])
    assert_messages(found["gen_ai.output.messages"])
    assert_tools(found["gen_ai.tool.definitions"])
    assert found["gen_ai.input.messages"] == [{"role": "user", "parts": [{"type": "text", "content": QUESTION}]}]
    [answer] = found["gen_ai.output.messages"]
    assert (answer["role"], answer["parts"][0]["type"], answer["finish_reason"]) == ("assistant", "text", "stop")
    tool = spans["execute_tool look_up"]["attributes"]
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"city": "Zürich"}
    assert json.loads(tool["gen_ai.tool.call.result"]) == {"weather": "sunny in Zürich"}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_prompt_of_a_megabyte_is_in_jaeger_cut_to_fit(stack: Stack, protocol: str) -> None:
    """It is no longer than the limit, still JSON of the right form, and costs no other span."""
    spans = run(stack, "SPAN_ONLY", protocol=protocol, times=40_000)
    raw = spans["chat toy-1"]["attributes"]["gen_ai.input.messages"]
    assert len(raw.encode()) <= 65_536
    [message] = json.loads(raw)
    assert_messages([message])
    [part] = message["parts"]
    assert part["type"] == "text"
    assert part["content"].startswith(QUESTION)


def test_nothing_of_it_is_in_jaeger_unasked(stack: Stack) -> None:
    """Without the setting no span, event or attribute has the question or the answer."""
    spans = run(stack, "")
    assert "Zürich" not in json.dumps(spans, ensure_ascii=False)
    assert not any(content_of(span) for span in spans.values())


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_content_on_events_passes_the_collector(stack: Stack, protocol: str) -> None:
    """The Collector takes one event for the call, below its span, with structured messages; the spans have none."""
    spans = run(stack, "EVENT_ONLY", protocol=protocol)
    call = spans["chat toy-1"]
    assert not any(content_of(span) for span in spans.values())
    event = event_below(stack, call)
    assert "EventName: gen_ai.client.inference.operation.details" in event
    assert f"Trace ID: {call['trace_id']}" in event
    for name in CONTENT:
        assert f"-> {name}: Slice(" in event
    assert QUESTION in event
    assert "-> gen_ai.request.model: Str(toy-1)" in event
    assert "-> gen_ai.usage.input_tokens: Int(100)" in event


def event_below(stack: Stack, span: Span) -> str:
    """The one record that the Collector's log has of a span."""

    def records() -> list[str]:
        log = stack.run("logs", "otelcol", "--state", str(stack.state)).stdout
        return [each for each in re.split(r"LogRecord #\d+", log)[1:] if f"Span ID: {span['span_id']}" in each]

    [record] = poll(records, lambda found: bool(found), 20.0, "an event in the Collector's log")
    return record


def test_the_preset_shows_a_flows_sums_and_reasons_in_jaeger(stack: Stack) -> None:
    """The flow has the figures that Jaeger's tab GenAI shows, and the row of an attempt without a reply its reason."""
    spans = run(stack, "", preset="jaeger")
    flow = spans["invoke_workflow travel"]["attributes"]
    assert (flow["gen_ai.usage.cost"], flow["gen_ai.usage.input_tokens"], flow["gen_ai.usage.output_tokens"]) == (
        0.25,
        100,
        50,
    )
    assert spans["attempt 1: timeout"]["status"] == "ERROR"
    assert spans["attempt 2"]["attributes"]["http.response.status_code"] == 429
    assert spans["attempt 3"]["status"] == "UNSET"


def test_without_the_preset_a_flow_has_nothing_to_be_counted_twice(stack: Stack) -> None:
    """Neither sums under the names of calls, nor names of attempts that say how they ended."""
    spans = run(stack, "")
    assert not [name for name in spans["invoke_workflow travel"]["attributes"] if name.startswith("gen_ai.usage.")]
    assert {"attempt 1", "attempt 2", "attempt 3"} <= set(spans)
