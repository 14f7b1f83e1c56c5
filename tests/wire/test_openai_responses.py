"""OpenAI Responses: requests, replies, errors; through the client, over a real server, and beside the SDK.

Bodies in the shapes of the OpenAI API reference, "Responses", as of 2026-11; the SDK is openai 3.54.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, cast

import openai
import pytest
from hypothesis import settings
from openai.types.responses import Response, ResponseCompletedEvent, ResponseIncompleteEvent

from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.support import Captured, attributes
from tests.wire import canned
from tracemind_otel import LLMCallConfig, LLMRequest, LLMResponse, run_llm_call, stream_llm_call
from tracemind_otel.ai.llm.providers.openai_responses import (
    PRESET,
    errors_of,
    from_payload,
    to_payload,
)
from tracemind_otel.ai.llm.types import (
    Finish,
    FinishReason,
    Image,
    LLMUsage,
    Message,
    ReasoningDelta,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from tracemind_otel.errors import (
    ConfigError,
    LLMAuthenticationError,
    LLMError,
    LLMQuotaError,
    LLMRateLimitError,
    LLMRequestError,
    LLMResponseError,
    LLMServerError,
)

KEY = "sk-test-0123456789abcdef"
MODEL = "gpt-5-mini-2025-08-07"
few = settings(max_examples=40, deadline=None)

Json = dict[str, Any]


# --- Bodies


def message(*parts: Json) -> Json:
    """An output item with a message."""
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": list(parts)}


def text(said: str) -> Json:
    """A part of visible text."""
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


def call(number: int, name: str, arguments: str) -> Json:
    """An output item with a tool call."""
    ids = {"id": f"fc_{number}", "call_id": f"call_{number}"}
    return {**ids, "type": "function_call", "status": "completed", "name": name, "arguments": arguments}


def reasoning(*summary: str) -> Json:
    """An output item with reasoning."""
    parts = [{"type": "summary_text", "text": part} for part in summary]
    return {"id": "rs_1", "type": "reasoning", "summary": parts, "encrypted_content": None}


def usage(given: int, made: int, *, cached: int = 0, thought: int = 0) -> Json:
    """Tokens in the recorded shape."""
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": given + made,
    }


def body(*output: Json, **fields: Any) -> Json:
    """A whole response."""
    return {
        "id": "resp_68af",
        "object": "response",
        "created_at": 1792000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "model": MODEL,
        "output": list(output),
        "parallel_tool_calls": True,
        "service_tier": "default",
        "tool_choice": "auto",
        "tools": [],
        "usage": usage(36, 12),
        **fields,
    }


def expected(said: str = "", **fields: Any) -> LLMResponse:
    """The normal form of `body`, with these changes."""
    plain = LLMResponse(
        said,
        LLMUsage(36, 12, 48, cache_read_tokens=0, cache_write_tokens=0, reasoning_tokens=0),
        finish_reasons=("completed",),
        finish_reason="stop",
        response_id="resp_68af",
        response_model=MODEL,
        service_tier="default",
    )
    return replace(plain, **fields)


@dataclass(frozen=True)
class Case:
    """A body and its expected normal form."""

    name: str
    body: Json
    normal: LLMResponse


WEATHER = ToolCall("call_0", "get_weather", {"city": "Zürich"})
INCOMPLETE: Json = {"status": "incomplete"}
CASES = (
    Case("plain", body(message(text("Grüezi  there"))), expected("Grüezi  there")),
    Case("two parts", body(message(text("one "), text("two"))), expected("one two")),
    Case("structured", body(message(text('{"ok": true}'))), expected('{"ok": true}')),
    Case(
        "tool",
        body(call(0, "get_weather", '{"city":"Zürich"}')),
        expected(tool_calls=(WEATHER,), finish_reason="tool_call"),
    ),
    Case(
        "parallel tools beside text",
        body(message(text("Let me see.")), call(0, "get_weather", '{"city":"Zürich"}'), call(1, "now", "")),
        expected("Let me see.", tool_calls=(WEATHER, ToolCall("call_1", "now", {})), finish_reason="tool_call"),
    ),
    Case(
        "arguments that are no object",
        body(call(0, "get_weather", '{"city":')),
        expected(tool_calls=(ToolCall("call_0", "get_weather", '{"city":'),), finish_reason="tool_call"),
    ),
    Case("refusal", body(message({"type": "refusal", "refusal": "I can't."})), expected(refusal="I can't.")),
    Case(
        "length, all of it reasoning",
        body(
            reasoning(),
            **INCOMPLETE,
            incomplete_details={"reason": "max_output_tokens"},
            usage=usage(36, 16, thought=16),
        ),
        expected(
            finish_reasons=("max_output_tokens",),
            finish_reason="length",
            usage=LLMUsage(36, 16, 52, cache_read_tokens=0, cache_write_tokens=0, reasoning_tokens=16),
        ),
    ),
    Case(
        "content filter",
        body(message(text("I")), **INCOMPLETE, incomplete_details={"reason": "content_filter"}),
        expected("I", finish_reasons=("content_filter",), finish_reason="content_filter"),
    ),
    Case(
        "reasoning and cache",
        body(
            reasoning("**First**", "**Then**"),
            message(text("4")),
            usage=usage(1000, 200, cached=400, thought=128),
        ),
        expected(
            "4",
            reasoning="**First**\n\n**Then**",
            usage=LLMUsage(1000, 200, 1200, cache_read_tokens=400, cache_write_tokens=0, reasoning_tokens=128),
        ),
    ),
)
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def item_events(index: int, item: Json) -> Iterator[Json]:
    """The events of one item, as the API sends them."""
    at = {"output_index": index, "item_id": item["id"]}
    empty: Json = {"content": [], "summary": [], "arguments": ""}
    yield {
        "type": "response.output_item.added",
        "output_index": index,
        "item": {**item, **{name: empty[name] for name in empty if name in item}},
    }
    for number, part in enumerate(item.get("content", [])):
        kind, name = ("output_text", "text") if "text" in part else ("refusal", "refusal")
        here = {**at, "content_index": number}
        yield {"type": "response.content_part.added", **here, "part": {**part, name: ""}}
        for piece in halves(part[name]):
            yield {"type": f"response.{kind}.delta", **here, "delta": piece, "logprobs": []}
        yield {"type": f"response.{kind}.done", **here, name: part[name], "logprobs": []}
    for number, part in enumerate(item.get("summary", [])):
        here = {**at, "summary_index": number}
        for piece in halves(part["text"]):
            yield {"type": "response.reasoning_summary_text.delta", **here, "delta": piece}
    for piece in halves(item.get("arguments", "")):
        yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def halves(whole: str) -> list[str]:
    """A string in two pieces, without empty ones."""
    middle = len(whole) // 2
    return [piece for piece in (whole[:middle], whole[middle:]) if piece]


def events_of(document: Json) -> list[Json]:
    """The events that stream a response."""
    begun: Json = {**document, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    items = [event for index, item in enumerate(document["output"]) for event in item_events(index, item)]
    events: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *items,
        {"type": f"response.{document['status']}", "response": document},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def encoded(events: Sequence[Mapping[str, Any]], newline: str = "\n") -> bytes:
    """Events as server-sent events."""
    return "".join(
        f"event: {event['type']}{newline}data: {json.dumps(event, ensure_ascii=False)}{newline}{newline}"
        for event in events
    ).encode()


async def read(events: Sequence[Mapping[str, Any]]) -> tuple[LLMResponse, Sequence[StreamEvent]]:
    """The reply that these events add up to, and its pieces."""
    seen = await canned.read_stream("openai_responses", encoded(events))
    return seen.response, seen.deltas


def without_raw(response: LLMResponse) -> LLMResponse:
    """A response without `raw` and its request's id."""
    return replace(response, raw={}, request_id=None)


def reply_action(
    document: Json, *, status: int = 200, headers: Mapping[str, str] | None = None, gzip: bool = False
) -> Action:
    """A reply of the server."""
    return {"body": json.dumps(document), "status": status, "headers": headers or {}, "gzip": gzip}


def stream_action(content: bytes, *, gzip: bool = False, split_at: Sequence[int] = ()) -> Action:
    """A stream of the server."""
    headers = {"content-type": "text/event-stream"}
    return {"body": content.decode(), "headers": headers, "gzip": gzip, "split_at": list(split_at)}


RICH = body(
    reasoning("**One** é", "**Two**"),
    message(text("Grüezi \u2028 there")),
    call(0, "get_weather", '{"city":"Zürich"}'),
    call(1, "now", "{}"),
    usage=usage(1000, 200, cached=400, thought=128),
)
RICH_STREAM = encoded(events_of(RICH))


# --- Replies


@every_case
def test_whole_reply(case: Case) -> None:
    """A whole body gives the normal form, and `raw` keeps it."""
    response = from_payload(case.body, request_id="req_1")

    assert without_raw(response) == case.normal
    assert response.raw == case.body
    assert response.request_id == "req_1"


@every_case
async def test_streamed_reply(case: Case) -> None:
    """A stream gives the same normal form as the whole body, and its pieces add up to it."""
    response, deltas = await read(events_of(case.body))

    assert without_raw(response) == case.normal
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)) == response.text
    assert "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta)) == (response.reasoning or "")
    calls = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    assert [delta.id for delta in calls if delta.id] == [tool.id for tool in response.tool_calls]


@every_case
async def test_output_left_empty_in_the_last_event(case: Case) -> None:
    """Where a gateway leaves `output` empty in the last event, the pieces are the reply."""
    events = events_of(case.body)
    events[-1]["response"] = {**case.body, "output": []}
    bare = [event for event in events if event["type"] != "response.output_item.done"]

    assert without_raw((await read(events))[0]) == case.normal
    assert without_raw((await read(bare))[0]) == case.normal


async def test_unfinished_item_before_an_empty_last_output() -> None:
    """The text of an unfinished item is kept where the last output is empty."""
    cut = body(message(text("one ")), message(text("two")), status="incomplete")
    events = events_of(cut)
    del events[-2]  # the second item is never reported as done
    events[-1]["response"] = {**cut, "output": []}

    assert (await read(events))[0].text == "one two"


async def test_items_without_pieces_before_an_empty_last_output() -> None:
    """Finished items without pieces are the reply where the last output is empty."""
    document = body(message(text("hi")), call(0, "now", "{}"))
    events = [event for event in events_of(document) if not str(event["type"]).endswith("delta")]
    events[-1]["response"] = {**document, "output": []}

    assert without_raw((await read(events))[0]) == without_raw(from_payload(document))


async def test_pieces_of_parallel_calls_in_turn() -> None:
    """Alternating pieces of two calls stay apart; each call has its index, and its name once."""
    events: list[Json] = [
        {"type": "response.output_item.added", "output_index": 1, "item": call(0, "a", "")},
        {"type": "response.output_item.added", "output_index": 2, "item": call(1, "b", "")},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"x"'},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": '{"y"'},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": ":1}"},
        {"type": "response.function_call_arguments.delta", "output_index": 2, "delta": ":2}"},
        {"type": "response.completed", "response": body()},
    ]
    response, deltas = await read(events)

    assert response.tool_calls == (ToolCall("call_0", "a", {"x": 1}), ToolCall("call_1", "b", {"y": 2}))
    assert deltas == [
        ToolCallDelta(0, "call_0", "a", ""),
        ToolCallDelta(1, "call_1", "b", ""),
        ToolCallDelta(0, None, None, '{"x"'),
        ToolCallDelta(1, None, None, '{"y"'),
        ToolCallDelta(0, None, None, ":1}"),
        ToolCallDelta(1, None, None, ":2}"),
    ]


async def test_call_that_comes_in_one_piece() -> None:
    """A call that comes only as a finished item is one piece."""
    done = {"type": "response.output_item.done", "output_index": 0, "item": call(0, "a", '{"x":1}')}
    _, deltas = await read([done, {"type": "response.completed", "response": body()}])

    assert deltas == [ToolCallDelta(0, "call_0", "a", '{"x":1}')]


def test_unknown_status_passes_through() -> None:
    """An unknown status is kept in the provider's word."""
    response = from_payload(body(message(text("x")), status="a_status_of_2031"))

    assert (response.finish_reasons, response.finish_reason) == (("a_status_of_2031",), None)


@pytest.mark.parametrize(
    ("status", "hint"),
    [("queued", "by its id later"), ("in_progress", "by its id later"), ("cancelled", "was cancelled")],
)
def test_what_is_not_finished_is_no_success(status: str, hint: str) -> None:
    """A background or cancelled response raises an error that is not retried, since a retry would be billed."""
    with pytest.raises(LLMResponseError, match=f"resp_68af is {status}: .*{hint}") as caught:
        from_payload(body(status=status), request_id="req_1")
    assert (caught.value.retryable, caught.value.request_id) == (False, "req_1")


async def test_a_cancelled_stream_is_no_success() -> None:
    """A response that is cancelled while it streams raises an error."""
    with pytest.raises(LLMResponseError, match="cancelled"):
        await read([{"type": "response.cancelled", "response": body(status="cancelled")}])


def test_tools_of_the_provider_are_counted() -> None:
    """Searches of the web and of files are counted, and opening a page is not."""
    output: list[Json] = [
        {"type": "web_search_call", "action": {"type": "search", "query": "a"}},
        {"type": "web_search_call", "action": {"type": "open_page"}},
        {"type": "file_search_call"},
        {"type": "code_interpreter_call"},
        message(text("x")),
    ]
    seen = from_payload(body(*output)).usage
    assert (seen.web_searches, seen.storage_searches, seen.code_executions) == (1, 1, 1)
    assert from_payload(body(message(text("x")))).usage.web_searches is None


def test_modalities_and_other_spellings() -> None:
    """Audio and images have their own counts, and Perplexity's cache reads and searches are read."""
    reported = {
        "input_tokens": 100,
        "output_tokens": 20,
        "input_tokens_details": {"cache_read_input_tokens": 40, "image_tokens": 30},
        "output_tokens_details": {"audio_tokens": 5},
        "tool_calls_details": {"search_web": {"invocation": 3}},
    }
    seen = from_payload(body(usage=reported)).usage
    assert (seen.cache_read_tokens, seen.input_image_tokens, seen.output_audio_tokens) == (40, 30, 5)
    assert (seen.web_searches, seen.total_tokens) == (3, 120)


def test_cache_fields_beside_the_details() -> None:
    """A gateway's cache counts beside the details are read, and the total says whether the input has them."""
    beside = {"input_tokens": 368, "output_tokens": 19, "total_tokens": 10923, "cache_read_input_tokens": 10536}
    seen = from_payload(body(usage=beside)).usage
    assert (seen.prompt_tokens, seen.cache_read_tokens, seen.completion_tokens) == (10904, 10536, 19)

    empty = {"input_tokens": 100, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 0}}
    assert from_payload(body(usage={**empty, "cache_read_input_tokens": 60})).usage.cache_read_tokens == 60


@pytest.mark.parametrize("kind", ["failed", "cancelled"])
async def test_what_an_unfinished_stream_used_is_kept(kind: str) -> None:
    """The error of a stream that ends without success keeps the usage, which is billed."""
    ended = body(status=kind, error={"code": "server_error", "message": "m"} if kind == "failed" else None)
    with pytest.raises(LLMError) as caught:
        await read([{"type": f"response.{kind}", "response": {**ended, "usage": usage(36, 12)}}])
    kept = caught.value.reply
    assert kept is not None
    assert (kept.usage.prompt_tokens, kept.usage.completion_tokens, kept.response_id) == (36, 12, ended["id"])


async def test_a_cost_is_believed_by_its_documented_unit() -> None:
    """xAI's ticks and OpenRouter's dollars are read, and another server's cost is ignored."""
    ticks = {**usage(36, 12), "cost_in_usd_ticks": 5 * 10**9}
    dollars = {**usage(36, 12), "cost": 0.25}
    for url, reported, cost in (
        ("https://api.x.ai/v1", ticks, 0.5),
        ("https://openrouter.ai/api/v1", dollars, 0.25),
        ("https://api.openai.com/v1", dollars, None),
        ("https://api.openai.com/v1", ticks, None),
    ):
        whole = (await canned.read_whole("openai_responses", body(usage=reported), base_url=url)).reported_cost
        assert (None if whole is None else whole.usd) == cost


async def test_raw_of_a_stream_is_never_empty() -> None:
    """Where the last event has no output, `raw` has the streamed one."""
    events: list[Json] = [
        {"type": "response.created", "response": body(status="in_progress")},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"},
        {"type": "response.completed", "response": body()},
    ]
    raw = (await read(events))[0].raw
    assert raw["output"] == [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}
    ]


@pytest.mark.parametrize(
    ("details", "raw", "finish"),
    [(None, "incomplete", None), ({"reason": ""}, "incomplete", None), ({"reason": "new"}, "new", None)],
)
def test_incomplete_without_a_known_reason(details: Any, raw: str, finish: FinishReason | None) -> None:
    """An incomplete reply keeps its reason in the provider's word, and its calls may be cut."""
    response = from_payload(body(call(0, "a", "{"), status="incomplete", incomplete_details=details))

    assert (response.finish_reasons, response.finish_reason) == ((raw,), finish)


def test_items_not_known_here_are_ignored() -> None:
    """Built-in tools and unknown parts add nothing to the text."""
    odd = {"type": "web_search_call", "id": "ws_1", "status": "completed"}

    assert from_payload(body(odd, message({"type": "hologram", "text": "?"}, text("hi")))).text == "hi"


def test_custom_tool_call() -> None:
    """The arguments of a custom tool call are its input, a string."""
    item = {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_9", "name": "sql", "input": "select 1"}

    call = ToolCall("call_9", "sql", "select 1", kind="custom")

    assert from_payload(body(item)).tool_calls == (call,)
    answered = (Message(role="assistant", tool_calls=(call,)), Message(role="tool", content="1", tool_call_id="call_9"))
    assert to_payload(LLMRequest("openai_responses", "gpt-5", "", messages=answered))["input"] == [
        {"type": "custom_tool_call", "call_id": "call_9", "name": "sql", "input": "select 1"},
        {"type": "custom_tool_call_output", "call_id": "call_9", "output": "1"},
    ]


@pytest.mark.parametrize("output", [None, {}, "x"])
def test_no_output(output: Any) -> None:
    """A body without output cannot be read, and the error has the request's id."""
    with pytest.raises(LLMResponseError, match="no output") as caught:
        from_payload({**body(), "output": output}, request_id="req_1")

    assert caught.value.request_id == "req_1"


async def test_failed_without_an_error() -> None:
    """A failed response raises, also without an error in it."""
    with pytest.raises(LLMServerError):
        from_payload(body(status="failed"))
    with pytest.raises(LLMServerError) as caught:
        from_payload(body(status="failed", error=ERROR), request_id="req_1")
    assert (caught.value.code, caught.value.request_id) == ("server_error", "req_1")
    with pytest.raises(LLMServerError):
        await read([{"type": "response.failed", "response": body(status="failed")}])


# --- Streams


async def test_unfinished_stream_has_no_finish_reason() -> None:
    """The error of a cut stream keeps what arrived, without a finish reason."""
    response = await canned.read_cut_stream("openai_responses", encoded(events_of(RICH)[:-1]))

    assert (response.text, response.finish_reasons) == ("Grüezi \u2028 there", ())


ERROR = {"code": "server_error", "message": "The server had an error"}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.failed", "response": body(status="failed", error=ERROR)},
        {"type": "response.completed", "response": body(error=ERROR)},
        {"type": "error", **ERROR, "param": None, "sequence_number": 3},
        {"type": "error", "error": {"type": "server_error", **ERROR}},
        {"error": {"type": "server_error", **ERROR}},
    ],
)
async def test_error_inside_a_stream(event: Json) -> None:
    """An error inside a stream, in any of its forms, is a server error with its code and message."""
    named = {"type": "message", **event}
    with pytest.raises(LLMServerError, match=ERROR["message"]) as caught:
        await read([named])

    assert (caught.value.code, caught.value.retryable) == ("server_error", True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": "rate_limit_exceeded"}, 429),
        ({"code": "invalid_prompt"}, 400),
        ({"code": None, "type": "rate_limit_error"}, 429),
        ({}, 500),
    ],
)
def test_status_of_a_failure(error: Json, status: int) -> None:
    """The code of a failure inside a success decides whether it is retried."""
    assert errors_of({"error": {"message": "x", **error}}).implied_status == status


# --- Requests


def request(prompt: str = "hi", **fields: Any) -> LLMRequest:
    """A request with these fields."""
    return LLMRequest("openai_responses", "gpt-5-mini", prompt, **fields)


def test_parameters_have_their_names_here() -> None:
    """Parameters have the format's names, and extra fields win."""
    asked = request(
        system="be brief",
        max_tokens=50,
        temperature=0.0,
        top_p=0.5,
        reasoning_effort="low",
        extra={"top_p": 1, "store": False},
    )

    assert to_payload(asked) == {
        "model": "gpt-5-mini",
        "input": "hi",
        "instructions": "be brief",
        "max_output_tokens": 50,
        "temperature": 0.0,
        "top_p": 1,
        "reasoning": {"effort": "low"},
        "store": False,
    }


@pytest.mark.parametrize(
    "field", [{"stop": ("x",)}, {"seed": 1}, {"top_k": 5}, {"frequency_penalty": 0.1}, {"presence_penalty": 0.1}]
)
def test_unsupported_parameters(field: Json) -> None:
    """Stop sequences, seed, `top_k` and penalties are rejected by name."""
    with pytest.raises(ConfigError, match=next(iter(field))):
        to_payload(request(**field))


def test_conversation() -> None:
    """Text, images, calls and results become items."""
    conversation = (
        Message(role="system", content="be brief"),
        Message(
            role="user",
            content=(Text("what?"), Image(url="https://x/y.png"), Image(data=b"\x01", media_type="image/gif")),
        ),
        Message(role="assistant", content=(Text("Let me "), Text("see.")), tool_calls=(WEATHER,)),
        Message(role="tool", content="sunny", tool_call_id="call_0", name="get_weather"),
        Message(role="assistant", tool_calls=(ToolCall("call_1", "raw", "{"),)),
    )

    assert to_payload(request(messages=conversation))["input"] == [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "what?"},
                {"type": "input_image", "image_url": "https://x/y.png"},
                {"type": "input_image", "image_url": "data:image/gif;base64,AQ=="},
            ],
        },
        {"role": "assistant", "content": "Let me see."},
        {
            "type": "function_call",
            "call_id": "call_0",
            "name": "get_weather",
            "arguments": json.dumps({"city": "Zürich"}),
        },
        {"type": "function_call_output", "call_id": "call_0", "output": "sunny"},
        {"type": "function_call", "call_id": "call_1", "name": "raw", "arguments": "{"},
        {"role": "user", "content": "hi"},
    ]


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (Message(role="tool", content="x"), "tool_call_id"),
        (Message(role="user", content="x", name="Ada"), "name"),
        (Message(role="user", content="x", tool_calls=(WEATHER,)), "tool_calls"),
        (Message(role="assistant", content=(Image(url="https://x/y.png"),)), "image"),
        (Message(role="user", content=(Image(),)), "image"),
    ],
)
def test_unsupported_messages(said: Message, names: str) -> None:
    """An unsupported message is rejected, not dropped."""
    with pytest.raises(ConfigError, match=names):
        to_payload(request(messages=(said,)))


# --- Over a server


async def finished(server: OpenAIServer, model: str) -> tuple[LLMResponse, list[StreamEvent]]:
    """A streamed reply, and its pieces."""
    async with PRESET.client(KEY, server.base_url) as client:
        batches = [batch async for batch in client.stream(LLMRequest("openai_responses", model, "hi"))]
    *deltas, last = [event for batch in batches for event in batch]
    assert isinstance(last, Finish)
    return last.response, deltas


ERROR_REPLIES = (
    (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, LLMAuthenticationError, "invalid_api_key"),
    (400, {"type": "invalid_request_error", "code": "model_not_found"}, LLMRequestError, "model_not_found"),
    (429, {"type": "requests", "code": "rate_limit_exceeded"}, LLMRateLimitError, "rate_limit_exceeded"),
    (
        429,
        {"type": "insufficient_quota", "code": "credit_balance_exhausted"},
        LLMQuotaError,
        "credit_balance_exhausted",
    ),
    (500, {"type": "server_error", "code": None}, LLMServerError, "500"),
)


@pytest.mark.parametrize(("status", "error", "kind", "error_type"), ERROR_REPLIES)
async def test_error_replies(
    openai_server: OpenAIServer, status: int, error: Json, kind: type[LLMError], error_type: str
) -> None:
    """Each error reply has its typed error and its HTTP status."""
    document = {"error": {"message": "scripted", "param": None, **error}}
    model = openai_server.script(reply_action(document, status=status))
    with pytest.raises(kind) as caught:
        async with PRESET.client(KEY, openai_server.base_url) as client:
            await client.complete(LLMRequest("openai_responses", model, "hi"))

    assert (caught.value.status_code, caught.value.error_type) == (status, error_type)


async def test_failed_response_over_a_server(openai_server: OpenAIServer) -> None:
    """A response with status `failed` raises, whole or streamed, and a server's error is retried."""
    failed = body(status="failed", error=ERROR)
    whole = openai_server.script(reply_action(failed))
    cut_off = openai_server.script(stream_action(encoded(events_of(failed))))
    async with PRESET.client(KEY, openai_server.base_url) as client:
        with pytest.raises(LLMServerError, match="The server had an error") as caught:
            await client.complete(LLMRequest("openai_responses", whole, "hi"))
    with pytest.raises(LLMServerError, match="The server had an error"):
        await finished(openai_server, cut_off)

    assert (caught.value.error_type, caught.value.retryable) == ("server_error", True)


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "failed"])
@pytest.mark.parametrize("form", ["whole", "streamed", "whole-as-events", "streamed-as-document"])
async def test_a_response_that_is_no_success_keeps_what_it_said(
    status: str, form: str, openai_server: OpenAIServer, capture: Captured
) -> None:
    """Result and span of a failed response have its id, model, billed usage and cost."""
    said = body(status=status, error=ERROR if status == "failed" else None, usage=usage(1000, 500), model="gpt-5-mini")
    events: list[Json] = [{"type": f"response.{status}", "response": said}]
    is_document = form in ("whole", "streamed-as-document")
    model = openai_server.script(reply_action(said) if is_document else stream_action(encoded(events)))
    config = LLMCallConfig("openai_responses", model, prompt="hi", max_retries=0)
    async with PRESET.client(KEY, openai_server.base_url) as client:
        if form.startswith("whole"):
            result = await run_llm_call("f", "s", config, capture.recorder(), client=client)
        else:
            stream = stream_llm_call("f", "s", config, capture.recorder(), client=client)
            with pytest.raises(LLMError):
                await anext(stream)
            assert stream.result is not None
            result = stream.result
    assert (result["status"], result["response_id"], result["response_model"]) == ("error", said["id"], "gpt-5-mini")
    assert (result["usage"]["prompt_tokens"], result["usage"]["completion_tokens"]) == (1000, 500)
    found = attributes(capture.span(f"chat {model}"))
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.response.id"]) == (1000, said["id"])
    if form.startswith("whole"):  # a stream that fails with its first event has no time to look for a price
        assert result["usage"]["cost_usd"] == pytest.approx(0.00125)


# --- Through the step

COST = (Decimal(600) * Decimal("0.25") + Decimal(400) * Decimal("0.025") + Decimal(200) * 2) / 10**6
"""600 fresh and 400 cached input tokens and 200 output tokens, at the price of gpt-5-mini."""


async def test_step(openai_server: OpenAIServer, capture: Captured) -> None:
    """A call has one span with provider, tokens, finish reasons and the exact cost."""
    model = openai_server.script(reply_action(RICH))
    config = LLMCallConfig("openai_responses", model, prompt="hi")
    async with PRESET.client(KEY, openai_server.base_url) as client:
        result = await run_llm_call("flow", "step", config, capture.recorder(), client=client)

    assert result["status"] == "ok"
    assert result["usage"]["cost_usd"] == float(COST)
    assert_span(capture, model)


async def test_streamed_step(openai_server: OpenAIServer, capture: Captured) -> None:
    """A streamed call has the same span."""
    model = openai_server.script(stream_action(RICH_STREAM))
    config = LLMCallConfig("openai_responses", model, prompt="hi")
    async with (
        PRESET.client(KEY, openai_server.base_url) as client,
        stream_llm_call("flow", "step", config, capture.recorder(), client=client) as stream,
    ):
        events = [event async for event in stream]

    assert isinstance(events[-1], Finish)
    assert_span(capture, model)


def assert_span(capture: Captured, model: str) -> None:
    """The span of the rich reply."""
    seen = attributes(capture.span(f"chat {model}"))
    assert seen["gen_ai.provider.name"] == "openai"
    assert seen["gen_ai.operation.name"] == "chat"
    assert seen["gen_ai.response.model"] == MODEL
    assert (seen["gen_ai.usage.input_tokens"], seen["gen_ai.usage.output_tokens"]) == (1000, 200)
    assert seen["gen_ai.response.finish_reasons"] == ("completed",)
    assert seen["gen_ai.usage.cost"] == float(COST)


# --- Beside the official SDK


def in_an_object(arguments: str) -> Json | str:
    """The object in a call's arguments, or the string itself where there is none."""
    try:
        parsed: Any = json.loads(arguments or "{}")
    except ValueError:
        return arguments
    return cast("Json", parsed) if isinstance(parsed, dict) else arguments


def assert_same(ours: LLMResponse, theirs: Response) -> None:
    """The SDK has the same text, calls, status and tokens."""
    assert theirs.output_text == ours.text
    calls = [item for item in theirs.output if item.type == "function_call"]
    assert ours.tool_calls == tuple(ToolCall(it.call_id, it.name, in_an_object(it.arguments)) for it in calls)
    reason = theirs.incomplete_details and theirs.incomplete_details.reason
    assert ours.finish_reasons == (reason or theirs.status,)
    assert theirs.usage is not None
    assert theirs.usage.input_tokens == ours.usage.prompt_tokens
    assert theirs.usage.output_tokens == ours.usage.completion_tokens
    assert theirs.usage.total_tokens == ours.usage.total_tokens
    assert theirs.usage.input_tokens_details.cached_tokens == ours.usage.cache_read_tokens
    assert theirs.usage.output_tokens_details.reasoning_tokens == ours.usage.reasoning_tokens


@every_case
async def test_sdk_reads_the_same(openai_server: OpenAIServer, case: Case) -> None:
    """The official SDK reads the same from the same bodies."""
    model = openai_server.script(reply_action(case.body))
    async with (
        openai.AsyncOpenAI(api_key=KEY, base_url=openai_server.base_url) as sdk,
        PRESET.client(KEY, openai_server.base_url) as client,
    ):
        theirs = await sdk.responses.create(model=model, input="hi")
        assert_same(await client.complete(LLMRequest("openai_responses", model, "hi")), theirs)
    assert [seen.body for seen in openai_server.requests(model)] == [{"model": model, "input": "hi"}] * 2


@every_case
async def test_sdk_reads_the_same_stream(openai_server: OpenAIServer, case: Case) -> None:
    """The official SDK gets the same text pieces and the same last response from the same stream."""
    model = openai_server.script(stream_action(encoded(events_of(case.body))))
    pieces: list[str] = []
    last: Response | None = None
    async with openai.AsyncOpenAI(api_key=KEY, base_url=openai_server.base_url) as sdk:
        async for event in await sdk.responses.create(model=model, input="hi", stream=True):
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
            elif isinstance(event, ResponseCompletedEvent | ResponseIncompleteEvent):
                last = event.response
    response, deltas = await finished(openai_server, model)

    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == pieces
    assert last is not None
    assert_same(response, last)
