"""What a user relies on from every provider: one test a behaviour, over the data of `conforming.py`."""

from __future__ import annotations

import contextlib
import json
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.support import Captured, attributes
from tests.wire.canned import JSON, Bytes, Canned
from tests.wire.conforming import CITY, EVERY, KEY, REASONING, TEXT, Conforming, Json
from tracemind_otel.ai.llm.types import Image, StreamEvent
from tracemind_otel.errors import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMError,
    LLMRateLimitError,
    LLMRequestError,
    LLMResponseError,
    LLMServerError,
    LLMStatusError,
)

every_provider = pytest.mark.parametrize("provider", EVERY, ids=lambda provider: provider.name)
MESSAGES = (
    tm.Message(role="user", content="Sum?"),
    tm.Message(role="assistant", tool_calls=(tm.ToolCall("c0", "add", '{"a": 1}'),)),
    tm.Message(role="tool", content="2", tool_call_id="c0", name="add"),
)
LIMIT = 2**63
"""OTLP carries integers of 64 bits; one that does not fit loses its whole batch."""
counts = st.none() | st.integers(-5, 100) | st.floats() | st.text(max_size=3) | st.sampled_from([2**70, 10**400])


def client_of(provider: Conforming, url: str, **options: Any) -> tm.AsyncLLMClient:
    key = None if "token" in provider.options else KEY
    options = {**provider.options, **options}
    return tm.LLMClientFactory.make(provider.name, api_key=key, base_url=f"{url}{provider.base}", **options)


def ask(provider: Conforming, key: str, **fields: Any) -> tm.LLMRequest:
    """A request that the scripted server identifies by `key`, whatever model its path names."""
    return tm.LLMRequest(provider.name, provider.model, "And?", extra={"model": key}, **fields)


def root(server: OpenAIServer) -> str:
    return server.base_url.removesuffix("/v1")


def streamed(provider: Conforming, data: bytes | None = None, **fields: Any) -> Action:
    """A stream, as the server sends it."""
    body = (provider.stream if data is None else data).decode(errors="surrogateescape")
    action: Action = {"body": body, "headers": {"content-type": provider.content_type}}
    action.update(fields)  # type: ignore[typeddict-item]
    return action


async def complete(provider: Conforming, server: OpenAIServer, *actions: Action, **fields: Any) -> tm.LLMResponse:
    key = server.script(*actions)
    return await client_of(provider, root(server)).complete(ask(provider, key, **fields))


async def collect(client: tm.AsyncLLMClient, request: tm.LLMRequest) -> list[StreamEvent]:
    return [event async for batch in client.stream(request) for event in batch]


async def stream(provider: Conforming, server: OpenAIServer, action: Action) -> list[StreamEvent]:
    return await collect(client_of(provider, root(server)), ask(provider, server.script(action)))


def response_of(events: list[StreamEvent]) -> tm.LLMResponse:
    assert isinstance(events[-1], tm.Finish)
    return events[-1].response


def check(provider: Conforming, seen: tm.LLMResponse) -> None:
    """The reply has the provider's data in every field of the normal form."""
    used = seen.usage
    tokens = (used.prompt_tokens, used.completion_tokens, used.total_tokens)
    assert (seen.text, seen.reasoning, seen.refusal) == (TEXT, REASONING, None)
    assert seen.tool_calls == (tm.ToolCall("call_1", "get_weather", CITY),)
    assert (seen.finish_reasons, seen.finish_reason) == ((provider.reason,), "tool_call")
    assert (*tokens, used.cache_read_tokens, used.reasoning_tokens) == provider.usage
    assert (seen.response_id, seen.response_model) == (provider.response_id, provider.response_model)


async def canned(provider: Conforming, *pieces: bytes, is_cut: bool = False) -> list[StreamEvent]:
    transport = Canned(Bytes(*pieces, is_cut=is_cut), {"content-type": provider.content_type})
    async with httpx.AsyncClient(transport=transport) as http_client:
        return await collect(client_of(provider, "http://x.test", http_client=http_client), ask(provider, "m"))


# --- Request


@every_provider
async def test_a_request_has_every_part_in_its_place(provider: Conforming, openai_server: OpenAIServer) -> None:
    """Path, key, system text, tool calls, results and sampling options are in the provider's fields."""
    key = openai_server.script({"body": json.dumps(provider.whole)})
    options: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "messages": MESSAGES}
    if "responses" not in provider.name:
        options["stop"] = ("x",)
    request = ask(provider, key, system="Be brief.", **options)
    await client_of(provider, root(openai_server)).complete(request)
    (sent,) = openai_server.requests(key)
    assert (sent["path"], sent.body) == (provider.path, {**provider.body, "model": key})
    assert provider.headers.items() <= sent.headers.items()
    assert [name for name, value in sent.headers.items() if KEY in value] == [next(iter(provider.headers))]


@every_provider
async def test_extra_wins(provider: Conforming, openai_server: OpenAIServer) -> None:
    """A field of `extra` is in the body unchanged."""
    key = openai_server.script({"body": json.dumps(provider.whole)})
    extra = {"model": key, "future": {"a": [1]}, "metadata": None}
    await client_of(provider, root(openai_server)).complete(tm.LLMRequest(provider.name, "m", "hi", extra=extra))
    (sent,) = openai_server.requests(key)
    assert {name: sent.body[name] for name in extra} == extra


@every_provider
@pytest.mark.parametrize(
    "part", [{"name": "Ada"}, {"tool_call_id": "Ada"}, {"tool_calls": (tm.ToolCall("c0", "Ada", {}),)}], ids=str
)
async def test_no_part_of_a_message_is_dropped(
    provider: Conforming, part: dict[str, Any], openai_server: OpenAIServer
) -> None:
    """A part of a user's message is sent, or rejected where the format has no place for it."""
    key = openai_server.script({"body": json.dumps(provider.whole)})
    with contextlib.suppress(tm.ConfigError):
        message = tm.Message(role="user", content="x", **part)
        await client_of(provider, root(openai_server)).complete(ask(provider, key, messages=(message,)))
    assert all("Ada" in json.dumps(sent.body) for sent in openai_server.requests(key))


@every_provider
@pytest.mark.parametrize("image", [Image(), Image(url="https://x.test/y.png", data=b"x")], ids=["nowhere", "twice"])
async def test_an_image_is_in_one_place(provider: Conforming, image: Image) -> None:
    """An image with neither URL nor data, or with both, is rejected before anything is sent."""
    message = tm.Message(role="user", content=(image,))
    with pytest.raises(tm.ConfigError, match="exactly one of url and data"):
        await client_of(provider, "http://x.test").complete(ask(provider, "m", messages=(message,)))


# --- Replies


@every_provider
async def test_a_whole_reply(provider: Conforming, openai_server: OpenAIServer) -> None:
    """A whole reply has its normal form, plain and compressed, and `raw` keeps it."""
    for compress in (False, True):
        seen = await complete(provider, openai_server, {"body": json.dumps(provider.whole), "gzip": compress})
        check(provider, seen)
        assert seen.raw == provider.whole
        assert seen.request_id is not None


@every_provider
async def test_a_stream(provider: Conforming, openai_server: OpenAIServer) -> None:
    """A stream has the same normal form, cut into packets and compressed; its pieces add up to it."""
    for action in (streamed(provider, split_at=[1, 40, 41, 300, 301]), streamed(provider, gzip=True)):
        events = await stream(provider, openai_server, action)
        check(provider, response_of(events))
        assert "".join(event.text for event in events if isinstance(event, tm.TextDelta)) == TEXT
        assert "".join(event.text for event in events if isinstance(event, tm.ReasoningDelta)) == REASONING
        calls = [event for event in events if isinstance(event, tm.ToolCallDelta)]
        assert (calls[0].id, calls[0].name, {call.index for call in calls}) == ("call_1", "get_weather", {0})
        assert json.loads("".join(call.arguments for call in calls)) == CITY


@every_provider
async def test_a_stream_goes_to_its_path(provider: Conforming, openai_server: OpenAIServer) -> None:
    """A stream is requested by the provider's path or field."""
    key = openai_server.script(streamed(provider))
    await collect(client_of(provider, root(openai_server)), ask(provider, key))
    (sent,) = openai_server.requests(key)
    assert sent["path"] == (provider.stream_path or provider.path)
    assert provider.stream_path or sent.body["stream"] is True


@every_provider
async def test_the_raw_reply_of_a_stream_reads_as_the_stream(provider: Conforming, openai_server: OpenAIServer) -> None:
    """`raw` of a stream is a whole reply of the provider, and reads as the stream."""
    seen = response_of(await stream(provider, openai_server, streamed(provider)))
    check(provider, await complete(provider, openai_server, {"body": json.dumps(seen.raw)}))


@every_provider
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_packets_of_any_size(provider: Conforming, size: int) -> None:
    """Packets of any size give the same reply, also when they cut a character, a line ending or a frame."""
    data = provider.stream
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    check(provider, response_of(await canned(provider, *pieces)))


@every_provider
@given(cuts=st.lists(st.integers(0, 10_000), max_size=6))
@settings(max_examples=20, deadline=None)
async def test_packets_cut_anywhere(provider: Conforming, cuts: list[int]) -> None:
    """The same bytes give the same reply, wherever they are cut."""
    data = provider.stream
    ends = sorted({cut % len(data) for cut in cuts})
    pieces = [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]
    check(provider, response_of(await canned(provider, *pieces)))


@every_provider
async def test_any_line_ending(provider: Conforming) -> None:
    """CR and CRLF end a line as LF does."""
    if provider.name == "bedrock":
        pytest.skip("frames have no lines")
    for ending in (b"\r\n", b"\r"):
        if ending == b"\r" and provider.name == "ollama":
            continue  # JSON lines end with LF or CRLF
        check(provider, response_of(await canned(provider, provider.stream.replace(b"\n", ending))))


@every_provider
async def test_what_is_not_known_is_passed_over(provider: Conforming, openai_server: OpenAIServer) -> None:
    """Unknown events and keep-alives change nothing."""
    between = provider.keep_alive + provider.frame(*provider.unknown) + provider.keep_alive
    data = between.join(provider.pieces) + provider.mark
    check(provider, response_of(await stream(provider, openai_server, streamed(provider, data))))


@every_provider
async def test_finish_reasons(provider: Conforming, openai_server: OpenAIServer) -> None:
    """Each finish reason is kept in the provider's word and has its normal form; an unknown word has none."""
    for raw, normal in {**provider.reasons, "quantum": None}.items():
        document = provider.with_((provider.place_of_reason, raw), (provider.place_of_call, {}))
        seen = await complete(provider, openai_server, {"body": json.dumps(document)})
        assert (seen.finish_reasons, seen.finish_reason) == ((raw,), normal)


# --- Usage


@every_provider
async def test_usage_that_is_not_reported_is_none(provider: Conforming, openai_server: OpenAIServer) -> None:
    """Without usage every count is `None`, not zero."""
    document = {name: value for name, value in provider.whole.items() if not name.startswith(("usage", "eval"))}
    document.pop("prompt_eval_count", None)
    used = (await complete(provider, openai_server, {"body": json.dumps(document)})).usage
    assert (used.prompt_tokens, used.completion_tokens, used.total_tokens) == (None, None, None)
    assert (used.cache_read_tokens, used.reasoning_tokens, used.cost_usd) == (None, None, None)


USAGE = ("usage", "usageMetadata", "prompt_eval_count", "eval_count")
"""The fields of the formats that hold usage."""


def scrambled(document: object, draw: st.DataObject, *, is_usage: bool = False) -> Any:
    """The document with random values for its usage."""
    if isinstance(document, list):
        return [scrambled(item, draw, is_usage=is_usage) for item in cast("list[object]", document)]
    if isinstance(document, dict):
        fields = cast("Json", document).items()
        return {name: scrambled(value, draw, is_usage=is_usage or name in USAGE) for name, value in fields}
    return draw.draw(counts) if is_usage else document


async def whole(provider: Conforming, document: object) -> tm.LLMResponse:
    body = Bytes(json.dumps(document).encode())
    async with httpx.AsyncClient(transport=Canned(body, JSON)) as http_client:
        return await client_of(provider, "http://x.test", http_client=http_client).complete(ask(provider, "m"))


@every_provider
@given(draw=st.data())
@settings(max_examples=40, deadline=None)
async def test_usage_is_always_sane(provider: Conforming, draw: st.DataObject) -> None:
    """Whatever is reported, each count is an integer that fits, no part exceeds its whole, and no cost is made up."""
    events = [(name, scrambled(document, draw)) for name, document in provider.events]
    by_stream = await canned(provider, *(provider.frame(*event) for event in events), provider.mark)
    for reply in (await whole(provider, scrambled(provider.whole, draw)), response_of(by_stream)):
        used = reply.usage
        read, written, reasoned = used.cache_read_tokens or 0, used.cache_write_tokens or 0, used.reasoning_tokens or 0
        counted: list[object] = [used.prompt_tokens, used.completion_tokens, used.total_tokens, read, written, reasoned]
        for count in counted:
            assert count is None or (isinstance(count, int) and 0 <= count < LIMIT)
        assert used.prompt_tokens is None or read + written <= used.prompt_tokens
        assert used.completion_tokens is None or reasoned <= used.completion_tokens
        assert used.cost_usd is None


def names_in(value: object) -> set[str]:
    """The names of all fields at any depth."""
    fields = cast("Json", value) if isinstance(value, dict) else {}
    items = cast("list[object]", value) if isinstance(value, list) else list(fields.values())
    return {*fields, *(name for item in items for name in names_in(item))}


def anything_of(provider: Conforming) -> st.SearchStrategy[Any]:
    """JSON of any shape, with the provider's fields in any place."""
    names = sorted(names_in([provider.whole, *(document for _, document in provider.events)]))
    return st.recursive(
        st.none() | st.booleans() | st.integers(-3, 99) | st.floats() | st.text(max_size=4) | st.just(10**400),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(names), inner, max_size=4),
        max_leaves=10,
    )


@every_provider
@given(draw=st.data())
@settings(max_examples=40, deadline=None)
async def test_anything_is_a_reply_or_a_typed_error(provider: Conforming, draw: st.DataObject) -> None:
    """Any document and any events are read or raise an `LLMError`."""
    anything = anything_of(provider)
    known = st.fixed_dictionaries({}, optional=dict.fromkeys(provider.whole, anything))
    events: list[tuple[str, Json]] = []
    for name, document in draw.draw(st.lists(st.sampled_from(provider.events), max_size=3)):
        fields = {key: anything | st.just(value) for key, value in document.items()}
        events.append((name, draw.draw(st.fixed_dictionaries({}, optional=fields))))
    for outcome in (
        whole(provider, draw.draw(known | anything)),
        canned(provider, *(provider.frame(*event) for event in events), *provider.pieces, provider.mark),
    ):
        try:
            read = await outcome
        except LLMError:
            continue
        reply = response_of(read) if isinstance(read, list) else read
        assert isinstance(reply.text, str)
        assert all(isinstance(reason, str) for reason in reply.finish_reasons)


# --- Errors


@every_provider
@pytest.mark.parametrize(
    ("status", "kind", "is_retryable"),
    [
        (400, LLMRequestError, False),
        (401, LLMAuthenticationError, False),
        (403, LLMAuthenticationError, False),
        (429, LLMRateLimitError, True),
        (500, LLMServerError, True),
        (503, LLMServerError, True),
    ],
)
async def test_error_bodies(
    provider: Conforming, openai_server: OpenAIServer, status: int, kind: type[LLMStatusError], is_retryable: bool
) -> None:
    """An error has its status's class and the provider's message, and never the prompt or the key."""
    body = json.dumps(provider.error_body).replace("Slow down", f"Slow down, And? {KEY}")
    with pytest.raises(kind) as caught:
        await complete(provider, openai_server, {"status": status, "body": body})
    error = caught.value
    assert (error.status_code, error.retryable, error.provider_type) == (status, is_retryable, provider.error_type)
    assert "Slow down" in str(error)
    assert KEY not in str(error)


@every_provider
async def test_a_rate_limit_says_when_to_come_back(provider: Conforming, openai_server: OpenAIServer) -> None:
    """The error has the wait that the provider asks for, whole and streamed."""
    limited: Action = {"status": 429, "body": json.dumps(provider.error_body), "headers": {"retry-after": "3"}}
    with pytest.raises(LLMRateLimitError) as by_whole:
        await complete(provider, openai_server, limited)
    with pytest.raises(LLMRateLimitError) as by_stream:
        await stream(provider, openai_server, limited)
    assert (by_whole.value.retry_after_s, by_stream.value.retry_after_s) == (3.0, 3.0)


@every_provider
async def test_an_error_inside_a_success(provider: Conforming) -> None:
    """An error body with status 200, as proxies send it, raises a typed error without a status."""
    with pytest.raises(LLMStatusError, match="Slow down") as caught:
        await whole(provider, provider.error_body)
    assert (caught.value.status_code, caught.value.provider_type) == (None, provider.error_type)


@every_provider
async def test_an_odd_error_body(provider: Conforming, openai_server: OpenAIServer) -> None:
    """An error body that is HTML, empty or a list leaves the error of its status."""
    for body in ("<html>busy</html>", "", "[]", "null", '{"error": 7}'):
        with pytest.raises(LLMServerError) as caught:
            await complete(provider, openai_server, {"status": 502, "body": body})
        assert caught.value.status_code == 502


@every_provider
async def test_a_fault_inside_a_stream(provider: Conforming, openai_server: OpenAIServer) -> None:
    """An error in the middle of a stream is raised as a typed error."""
    said, rest = provider.pieces[:4], provider.pieces[4:]
    data = b"".join([*said, provider.frame(*provider.failure), *rest])
    with pytest.raises(LLMServerError) as caught:
        await stream(provider, openai_server, streamed(provider, data))
    assert "Overloaded" in str(caught.value)
    assert caught.value.retryable


@every_provider
async def test_what_is_no_reply(provider: Conforming, openai_server: OpenAIServer) -> None:
    """A success without a reply is an error, and is not retried."""
    for body in ("{}", '{"future": 1}', "not json", "[1]", ""):
        with pytest.raises(LLMError) as caught:
            await complete(provider, openai_server, {"body": body})
        assert not caught.value.retryable


@every_provider
@pytest.mark.parametrize("data", [b"x", b"[1]", b'{"a": ', b'"text"', b"{}, {}"])
async def test_malformed_json_in_a_stream(provider: Conforming, data: bytes) -> None:
    """An event that is not a JSON object ends the stream with an error, never with a success."""
    event = b"\x00" * 40 if provider.name == "bedrock" else provider.frame("", {}).replace(b"{}", data)
    with pytest.raises(LLMResponseError):
        await canned(provider, provider.pieces[0], event, provider.stream)


@every_provider
async def test_a_cut_stream_is_no_success(provider: Conforming) -> None:
    """A stream that ends after any event before its last is a connection error, though the HTTP reply is whole."""
    for count in range(1, len(provider.pieces) - provider.end + 1):
        with pytest.raises(LLMConnectionError):
            await canned(provider, *provider.pieces[:count])


@every_provider
async def test_a_stream_cut_at_any_byte(provider: Conforming) -> None:
    """A stream that breaks off at any byte before its end is no success."""
    last = len(b"".join(provider.pieces[: -provider.end]))
    for position in range(1, last, 7):
        with pytest.raises(LLMConnectionError):
            await canned(provider, provider.stream[:position], is_cut=True)


@every_provider
async def test_a_server_that_says_nothing(provider: Conforming, openai_server: OpenAIServer, capture: Captured) -> None:
    """A call to a silent server ends within the user's time-out."""
    key = openai_server.script({"do": "hang"})
    config = tm.LLMCallConfig(
        provider.name, provider.model, "And?", extra={"model": key}, timeout_ms=200, max_retries=0
    )
    client = client_of(provider, root(openai_server))
    result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)
    assert (result["status"], result["error_type"]) == ("error", "timeout")


# --- The step


@every_provider
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_the_span_of_a_call(
    provider: Conforming, openai_server: OpenAIServer, capture: Captured, is_streamed: bool
) -> None:
    """A call has one span with provider, finish reason and usage, the same whole and streamed."""
    key = openai_server.script(streamed(provider) if is_streamed else {"body": json.dumps(provider.whole)})
    config = tm.LLMCallConfig(provider.name, provider.model, "And?", extra={"model": key})
    client = client_of(provider, root(openai_server))
    if is_streamed:
        async with tm.stream_llm_call("f", "s", config, capture.recorder(), client=client) as events:
            _ = [event async for event in events]
    else:
        await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)
    (span,) = capture.spans
    seen = attributes(span)
    assert seen["gen_ai.provider.name"] == (client.telemetry_name or provider.name)
    assert seen["gen_ai.response.finish_reasons"] == (provider.reason,)
    assert (seen["gen_ai.usage.input_tokens"], seen["gen_ai.usage.output_tokens"]) == provider.usage[:2]
    assert seen.get("gen_ai.response.model") == provider.response_model
    assert seen.get("gen_ai.response.id") == provider.response_id
