"""Prompts and answers are recorded where they are asked for, redacted, cut to fit, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracemind_otel as tm
from tests.content_schema import assert_messages, assert_parts, assert_tools
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink
from tests.support import Captured, attributes
from tracemind_otel.ai.llm.message_parts import ChatMessage, InputContent
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.otel.content import ContentOptions, shown_content
from tracemind_otel.recording.port import StepEnd, StepStart

NAMES = (
    "gen_ai.system_instructions",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
)
VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
KEY = "sk-proj-Zq81LmmT0x9vB3kE7wYd"
LIMIT = 4096


def configured(capture: Captured, **options: Any) -> tm.Telemetry:
    return tm.configure(
        tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False, **options
    )


@tm.tool
def look_up(city: str) -> str:
    return f"sunny in {city}"


async def converse(*script: str) -> None:
    """One call with everything that a call may have, and one tool."""
    config = tm.LLMCallConfig("fake", "m", prompt="What is it like?", extra={"tools": [{"name": "look_up"}]})
    system = tm.LLMCallConfig("fake", "m", prompt="And tomorrow?", system="Be brief")
    client = FakeLLMClient(script=[*(script or ("ok", "ok"))])
    await tm.run_llm_call("f", "s", config, client=client)
    await tm.run_llm_call("f", "s", system, client=client)
    look_up("Paris")


def recorded(capture: Captured) -> dict[str, list[Any]]:
    """The content on all spans, by name."""
    found: dict[str, list[Any]] = {}
    for span in capture.spans:
        for name in NAMES:
            if name in attributes(span):
                found.setdefault(name, []).append(json.loads(attributes(span)[name]))
    return found


# --- Where it goes ---


@pytest.mark.parametrize("given", [None, False, "NO_CONTENT", "false"])
async def test_nothing_is_recorded_unasked(capture: Captured, given: object) -> None:
    """Neither by default nor where it is declined does any span have content."""
    with configured(capture, capture_content=given):
        await converse()
    assert recorded(capture) == {}
    assert "What is it like?" not in "".join(span.to_json() for span in capture.spans)


@pytest.mark.parametrize("given", [True, "SPAN_ONLY", "span_only", "true", "SPAN_AND_EVENT"])
async def test_content_is_on_spans(capture: Captured, given: object) -> None:
    """Messages, system text, tools, arguments and results stand on their spans as JSON of the conventions."""
    with configured(capture, capture_content=given):
        await converse()
    found = recorded(capture)
    asked, again = found["gen_ai.input.messages"]
    assert asked == [{"role": "user", "parts": [{"type": "text", "content": "What is it like?"}]}]
    assert again[0]["parts"][0]["content"] == "And tomorrow?"
    assert found["gen_ai.system_instructions"] == [[{"type": "text", "content": "Be brief"}]]
    assert found["gen_ai.tool.definitions"] == [[{"type": "function", "name": "look_up"}]]
    assert [message["role"] for [message] in found["gen_ai.output.messages"]] == ["assistant", "assistant"]
    assert found["gen_ai.tool.call.arguments"] == [{"city": "Paris"}]
    assert found["gen_ai.tool.call.result"] == ["sunny in Paris"]


async def test_the_variable_asks_too(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of OpenTelemetry's instrumentations is read, and an argument wins over it."""
    monkeypatch.setenv(VARIABLE, "span_only")
    with configured(capture):
        await converse()
    assert "gen_ai.input.messages" in recorded(capture)
    capture.exporter.clear()
    with configured(capture, capture_content=False):
        await converse()
    assert recorded(capture) == {}


async def test_an_unknown_word_records_nothing(
    capture: Captured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the variable it is logged without its value; as an argument it is an error."""
    monkeypatch.setenv(VARIABLE, "everything")
    with configured(capture):
        await converse()
    assert recorded(capture) == {}
    assert f"{VARIABLE} has a value that is not known" in caplog.text
    with pytest.raises(tm.ConfigError, match="capture_content is 'everything'; it must be NO_CONTENT, SPAN_ONLY"):
        tm.configure(capture_content="everything")
    with pytest.raises(tm.ConfigError, match="content_limit is 10; it must be a whole number of bytes from 256"):
        tm.configure(content_limit=10)


async def test_a_tool_that_declines_is_not_recorded(capture: Captured) -> None:
    """`capture_arguments=False` of a tool wins over what `configure()` asks for."""

    @tm.tool(capture_arguments=False, capture_result=False)
    def pay(card: str) -> str:
        return card

    with configured(capture, capture_content=True):
        pay("4711")
    assert recorded(capture) == {}


async def test_a_call_that_fails_has_what_was_asked(capture: Captured) -> None:
    """No answer is made up for it."""
    with configured(capture, capture_content=True):
        await converse("401", "ok")
    failed = attributes(capture.spans[0])
    assert "gen_ai.input.messages" in failed
    assert "gen_ai.output.messages" not in failed


def test_embeddings_have_no_messages(capture: Captured) -> None:
    """The conventions have no content for them."""
    with configured(capture, capture_content=True):
        start = StepStart(
            flow_id="f",
            step_id="s",
            provider="openai",
            model="m",
            operation="embeddings",
            asked=lambda: InputContent(messages=(message("user", [part("text", "secret plan")]),)),
        )
        tm.OTelRecorder().begin_step(start).end(StepEnd(status="success", payload={}))
    assert recorded(capture) == {}


async def test_a_stream_has_its_answer(capture: Captured) -> None:
    """Also where it is left early: as much as has come."""
    config = tm.LLMCallConfig("fake", "m", prompt="hi")
    with configured(capture, capture_content=True):
        whole = [event async for event in tm.stream_llm_call("f", "s", config, client=FakeLLMClient())]
        async with tm.stream_llm_call("f", "s", config, client=FakeLLMClient()) as stream:
            async for _ in stream:
                break
    said, some = recorded(capture)["gen_ai.output.messages"]
    text = "".join(event.text for event in whole if isinstance(event, tm.TextDelta))
    assert said[0]["parts"] == [{"type": "text", "content": text}]
    assert text.startswith(some[0]["parts"][0]["content"])


@pytest.mark.slow
async def test_content_is_on_events(capture: Captured, sink: Sink) -> None:
    """`EVENT_ONLY` sends one event a call by the logs signal, structured, below its span, and leaves the span empty."""
    telemetry = tm.configure(endpoint=sink.url, capture_content="EVENT_ONLY", instrument=False)
    with telemetry:
        await converse()
    events = sink.events()
    assert [event.event_name for event in events] == ["gen_ai.client.inference.operation.details"] * 2
    calls = [span for span in sink.spans() if span.name.startswith("chat")]
    assert {event.span_id for event in events} == {span.span_id for span in calls}
    first = {item.key: item.value for item in events[0].attributes}
    [message] = first["gen_ai.input.messages"].array_value.values
    fields = {item.key: item.value for item in message.kvlist_value.values}
    assert fields["role"].string_value == "user"
    assert first["gen_ai.request.model"].string_value == "m"
    assert first["gen_ai.usage.input_tokens"].int_value > 0
    assert not any(item.key in NAMES[:4] for span in sink.spans() for item in span.attributes)


# --- Redaction ---


async def test_secrets_are_removed(capture: Captured) -> None:
    """A key in a prompt or in the arguments of a tool is not recorded, and neither is a field named like one."""
    config = tm.LLMCallConfig("fake", "m", prompt=f"My key is {KEY}, use it")
    with configured(capture, capture_content=True):
        await tm.run_llm_call("f", "s", config, client=FakeLLMClient())
        look_up(f"api_key={KEY}")
    everything = "".join(span.to_json() for span in capture.spans)
    assert KEY not in everything
    assert "[redacted]" in everything


async def test_the_users_function_sees_each_part(capture: Captured) -> None:
    """It changes a part or drops it, and what it raises costs that part alone."""
    seen: list[tuple[str, str]] = []

    def redact(part: dict[str, Any], role: str) -> dict[str, Any] | None:
        seen.append((part["type"], role))
        if role == "assistant" and part["type"] == "text":
            return None
        if part.get("content") == "Be brief":
            raise KeyError("mistake")
        return {**part, "content": part["content"].upper()} if part["type"] == "text" else part

    with configured(capture, capture_content=True, redact=redact):
        await converse()
    found = recorded(capture)
    assert found["gen_ai.input.messages"][0][0]["parts"] == [{"type": "text", "content": "WHAT IS IT LIKE?"}]
    assert "gen_ai.system_instructions" not in found
    assert found["gen_ai.output.messages"] == [[{"role": "assistant", "parts": [], "finish_reason": "stop"}]] * 2
    assert ("text", "user") in seen
    assert ("tool_call", "assistant") in seen
    assert ("tool_call_response", "tool") in seen


async def test_a_redact_that_returns_no_part_is_told_what_to_return(
    capture: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    """A string in place of the part is the likely mistake: it is not recorded, and the log says what is needed."""

    def redact(part: dict[str, Any], role: str) -> Any:
        return "Secret"

    with configured(capture, capture_content=True, redact=redact):
        await converse()
    messages = [message for each in recorded(capture)["gen_ai.input.messages"] for message in each]
    assert [message["parts"] for message in messages] == [[]] * len(messages)
    [told] = [record.message for record in caplog.records if "redact" in record.message]
    assert told.startswith("configure.redact returned str, which is not recorded; it must return the part")
    assert "Secret" not in caplog.text


# --- Fitting ---

PLANTED = st.sampled_from(["", "", KEY, f"password: {KEY}", f"https://user:{KEY}@host/", f'{{"api_key": "{KEY}"}}'])


def said(start: str, times: int, secret: str, end: str) -> str:
    return f"{start * times} {secret} {end}"


def part(kind: str, content: str) -> dict[str, Any]:
    return {"type": kind, "content": content}


def call_part(arguments: dict[str, Any], key: str) -> dict[str, Any]:
    return {"type": "tool_call", "id": "c", "name": "n", "arguments": {**arguments, "token": key} if key else arguments}


def result_part(value: Any) -> dict[str, Any]:
    return {"type": "tool_call_response", "id": "c", "response": value}


def message(role: str, parts: list[dict[str, Any]]) -> ChatMessage:
    return ChatMessage(role=role, parts=tuple(parts))


TEXTS = st.builds(
    said,
    st.text(st.characters(), max_size=12) | st.sampled_from(["😀", "\ud800", "\0", "\\", '"', "\n", "words "]),
    st.sampled_from([1, 3, 100, 5_000]),
    PLANTED,
    st.text(max_size=5),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=20,
)
PARTS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(part, st.sampled_from(["text", "reasoning"]), TEXTS),
    st.builds(call_part, st.dictionaries(st.text(max_size=8), JSON, max_size=8), PLANTED),
    st.builds(result_part, JSON),
    st.just({"type": "blob", "modality": "image", "mime_type": "image/png", "content": "", "size": 10**7}),
    st.just({"type": "uri", "modality": "image", "uri": "https://example.com/a.png"}),
)
MESSAGES = st.lists(
    st.builds(message, st.sampled_from(["system", "user", "assistant", "tool"]), st.lists(PARTS, max_size=12)),
    max_size=40,
)


def shown(messages: Any, limit: int = LIMIT, **options: Any) -> Mapping[str, Any]:
    asked = InputContent(
        messages=tuple(messages),
        system_instructions=({"type": "text", "content": "Be brief" * 1000},),
        tool_definitions=({"type": "function", "name": "f", "parameters": {"a": "b" * 9000}},),
    )
    return shown_content(asked, messages[:2], ContentOptions(on_span=True, limit=limit, **options))


@settings(max_examples=200, deadline=None)
@given(MESSAGES)
def test_odd_conversations_fit_and_keep_their_shape(messages: list[ChatMessage]) -> None:
    """Whatever is said, each attribute is JSON of the conventions' schema, within its bytes and without secrets."""
    for name, content in shown(messages).items():
        assert len(content.text.encode()) <= LIMIT
        assert json.loads(content.text) == content.values
        assert KEY not in content.text
        if name.endswith("messages"):
            assert_messages(content.values)
        elif name.endswith("definitions"):
            assert_tools(content.values)
        else:
            assert_parts(content.values)


def test_what_fits_is_whole() -> None:
    """Nothing is cut of a conversation that has room."""
    parts = ({"type": "text", "content": "x" * 1000}, {"type": "tool_call", "name": "n", "arguments": {"a": [1, 2]}})
    content = shown([ChatMessage(role="user", parts=parts)])["gen_ai.input.messages"]
    assert content.values == [{"role": "user", "parts": [*parts]}]


def test_a_long_prompt_is_cut_and_its_neighbours_are_not() -> None:
    """A megabyte of text leaves room for the short question after it."""
    long = ChatMessage(role="user", parts=({"type": "text", "content": "book " * 200_000},))
    question = ChatMessage(role="user", parts=({"type": "text", "content": "Who is the hero?"},))
    first, second = shown([long, question])["gen_ai.input.messages"].values
    assert 1_500 < len(first["parts"][0]["content"]) < LIMIT
    assert first["parts"][0]["content"].endswith("…")
    assert second["parts"] == [{"type": "text", "content": "Who is the hero?"}]


def test_many_messages_leave_the_first_and_the_last() -> None:
    """Where not even their beginnings fit, messages in the middle are left out, and their number is told."""
    messages = [ChatMessage(role="user", parts=({"type": "text", "content": f"message {n}"},)) for n in range(2000)]
    values = shown(messages)["gen_ai.input.messages"].values
    assert values[0]["parts"][0]["content"] == "message 0"
    assert values[-1]["parts"][0]["content"] == "message 1999"
    left_out = int(values[1]["parts"][0]["content"].removeprefix("[").split()[0])
    assert left_out + len(values) - 1 == 2000
