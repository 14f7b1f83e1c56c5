"""Azure OpenAI: both surfaces, its dialect of Chat Completions, its errors; over a real server, and beside the SDK.

Bodies in the shapes that Azure sends as of 2026-11; the SDK is openai 3.54.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.support import Captured, attributes
from tests.wire.canned import Streamed, read_stream
from tracemind_otel import LLMCallConfig, LLMRequest, LLMResponse, run_llm_call
from tracemind_otel.ai.llm.providers.azure_openai import ENVIRONMENT, azure_client, azure_wire
from tracemind_otel.ai.llm.types import Finish, LLMUsage, Message, StreamEvent, TextDelta, ToolCall
from tracemind_otel.errors import (
    ConfigError,
    LLMAuthenticationError,
    LLMError,
    LLMNotFoundError,
    LLMRateLimitError,
    LLMRequestError,
)

KEY = "0123456789abcdef0123456789abcdef"
TOKEN = "eyJ0eXAi.eyJhdWQi.c2ln"
MODEL = "gpt-5.2-2025-12-11"
VERSION = "2024-10-21"
SAFE = {name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")}
PROMPT_FILTER = [{"prompt_index": 0, "content_filter_results": {**SAFE, "jailbreak": {"filtered": False}}}]
WIRE = azure_wire()

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the machine's Azure variables."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


# --- Bodies


def usage(given_tokens: int = 36, made: int = 12, *, cached: int = 0, thought: int = 0) -> Json:
    """Tokens in the recorded shape."""
    return {
        "prompt_tokens": given_tokens,
        "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": cached},
        "completion_tokens": made,
        "completion_tokens_details": {"audio_tokens": 0, "reasoning_tokens": thought},
        "total_tokens": given_tokens + made,
    }


def body(message: Json | None, finish: str = "stop", **fields: Any) -> Json:
    """A whole reply; without a message where the filter removed it."""
    choice: Json = {"index": 0, "finish_reason": finish, "logprobs": None, "content_filter_results": SAFE}
    if message is not None:
        choice["message"] = {"role": "assistant", "content": None, "refusal": None, "annotations": [], **message}
    return {
        "id": "chatcmpl-CqK1",
        "object": "chat.completion",
        "created": 1792000000,
        "model": MODEL,
        "prompt_filter_results": PROMPT_FILTER,
        "choices": [choice],
        "system_fingerprint": "fp_1",
        "usage": usage(),
        **fields,
    }


NO_AUDIO: Json = {"input_audio_tokens": 0, "output_audio_tokens": 0}
"""Azure reports audio of zero with every reply."""


def outgoing(number: int, name: str, arguments: str) -> Json:
    """A tool call in a message."""
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def expected(text: str = "", **fields: Any) -> LLMResponse:
    """The normal form of `body`, with these changes."""
    plain = LLMResponse(
        text,
        LLMUsage(36, 12, 48, cache_read_tokens=0, reasoning_tokens=0, **NO_AUDIO),
        finish_reasons=("stop",),
        finish_reason="stop",
        response_id="chatcmpl-CqK1",
        response_model=MODEL,
    )
    return replace(plain, **fields)


@dataclass(frozen=True)
class Case:
    """A body and its expected normal form."""

    name: str
    body: Json
    normal: LLMResponse


CASES = (
    Case("plain", body({"content": "Grüezi  there"}), expected("Grüezi  there")),
    Case("structured", body({"content": '{"ok": true}'}), expected('{"ok": true}')),
    Case(
        "parallel tools",
        body(
            {"tool_calls": [outgoing(0, "weather", '{"city":"Zürich"}'), outgoing(1, "now", "{}")]},
            finish="tool_calls",
        ),
        expected(
            tool_calls=(ToolCall("call_0", "weather", {"city": "Zürich"}), ToolCall("call_1", "now", {})),
            finish_reasons=("tool_calls",),
            finish_reason="tool_call",
        ),
    ),
    Case("refusal", body({"refusal": "I can't."}), expected(refusal="I can't.")),
    Case(
        "length, all of it reasoning",
        body({"content": ""}, finish="length", usage=usage(36, 16, thought=16)),
        expected(
            finish_reasons=("length",),
            finish_reason="length",
            usage=LLMUsage(36, 16, 52, cache_read_tokens=0, reasoning_tokens=16, **NO_AUDIO),
        ),
    ),
    Case(
        "filtered, with what came before",
        body({"content": "I"}, finish="content_filter"),
        expected("I", finish_reasons=("content_filter",), finish_reason="content_filter"),
    ),
    Case(
        "filtered, without a message",
        body(None, finish="content_filter"),
        expected(finish_reasons=("content_filter",), finish_reason="content_filter"),
    ),
    Case(
        "cached",
        body({"content": "4"}, usage=usage(1000, 200, cached=400, thought=64)),
        expected("4", usage=LLMUsage(1000, 200, 1200, cache_read_tokens=400, reasoning_tokens=64, **NO_AUDIO)),
    ),
)
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
CACHED = CASES[-1]


def chunk(*choices: Json, **fields: Any) -> Json:
    """A chunk of a stream."""
    head = {"id": "chatcmpl-CqK1", "object": "chat.completion.chunk", "created": 1792000000, "model": MODEL}
    return {**head, "choices": list(choices), "usage": None, **fields}


def chunks_of(document: Json) -> list[Json]:
    """The chunks that stream a reply, as Azure sends them: an empty one first, usage in the last."""
    (whole,) = document["choices"]
    message: Json = whole.get("message", {})
    first = chunk(id="", model="", object="", created=0, prompt_filter_results=PROMPT_FILTER)
    del first["usage"]
    deltas: list[Json] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{name: piece} for name in ("content", "refusal") for piece in halves(message.get(name) or "")]
    for index, call in enumerate(message.get("tool_calls", [])):
        empty = {**call, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": index, **empty}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
            for piece in halves(call["function"]["arguments"])
        ]
    said: list[Json] = [
        {"index": 0, "delta": delta, "finish_reason": None, "content_filter_results": SAFE} for delta in deltas
    ]
    end: Json = {"index": 0, "delta": {}, "finish_reason": whole["finish_reason"], "content_filter_results": {}}
    return [first, *(chunk(choice) for choice in [*said, end]), chunk(usage=document["usage"])]


def halves(whole: str) -> list[str]:
    """A string in two pieces, without empty ones."""
    middle = len(whole) // 2
    return [piece for piece in (whole[:middle], whole[middle:]) if piece]


def encoded(chunks: Sequence[Mapping[str, Any]], newline: str = "\n", end: str = "[DONE]") -> bytes:
    """Chunks as server-sent events."""
    lines = [*(json.dumps(each, ensure_ascii=False) for each in chunks), *([end] if end else [])]
    return "".join(f"data: {line}{newline}{newline}" for line in lines).encode()


async def read(content: bytes) -> Streamed:
    """What Azure's client makes of a stream."""
    return await read_stream("azure_openai", content, base_url=HOST)


def reply_action(
    document: Json, *, status: int = 200, headers: Mapping[str, str] | None = None, gzip: bool = False
) -> Action:
    """A reply of the server."""
    return {"body": json.dumps(document), "status": status, "headers": headers or {}, "gzip": gzip}


def stream_action(content: bytes, *, gzip: bool = False, split_at: Sequence[int] = ()) -> Action:
    """A stream of the server."""
    headers = {"content-type": "text/event-stream"}
    return {"body": content.decode(), "headers": headers, "gzip": gzip, "split_at": list(split_at)}


def without_raw(response: LLMResponse) -> LLMResponse:
    """A response without `raw` and its request's id."""
    return replace(response, raw={}, request_id=None)


def request(model: str = "my-deployment", **fields: Any) -> LLMRequest:
    """A request."""
    return LLMRequest("azure_openai", model, "hi", **fields)


# --- Replies


@every_case
def test_whole_reply(case: Case) -> None:
    """A whole body gives the normal form; filter fields change nothing, and a missing message is an empty text."""
    assert without_raw(WIRE.from_payload(case.body, "req_1")) == case.normal


@every_case
async def test_streamed_reply(case: Case) -> None:
    """A stream whose first chunk has no choices, id and model gives the same normal form."""
    seen = await read(encoded(chunks_of(case.body)))

    assert without_raw(seen.response) == case.normal
    assert "".join(delta.text for delta in seen.deltas if isinstance(delta, TextDelta)) == seen.response.text


async def test_annotations_of_an_asynchronous_filter() -> None:
    """Chunks of an asynchronous filter, without a delta and with empty ids, change nothing."""
    late: Json = {"index": 0, "finish_reason": None, "content_filter_results": SAFE, "content_filter_offsets": {}}
    chunks = chunks_of(CASES[0].body)
    chunks[3:3] = [chunk(late, id="", model="")]

    assert without_raw((await read(encoded(chunks))).response) == CASES[0].normal


# --- Requests and surfaces


def test_payload() -> None:
    """The payload is that of Chat Completions, with usage asked for in streams."""
    asked = request(max_tokens=5, seed=1, stop=("x",), system="be brief", messages=(Message(role="user", content="a"),))

    assert WIRE.to_payload(asked, True) == {
        "model": "my-deployment",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a"},
            {"role": "user", "content": "hi"},
        ],
        "max_completion_tokens": 5,
        "seed": 1,
        "stop": ["x"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_payload_of_an_old_version() -> None:
    """API versions before 2024-09-01 are sent no `max_completion_tokens` and no `stream_options`."""
    old, new = azure_wire("2024-06-01"), azure_wire("2024-09-01-preview")

    assert {"max_tokens", "stream"} == set(old.to_payload(request(max_tokens=5), True)) - {"model", "messages"}
    assert "max_completion_tokens" in new.to_payload(request(max_tokens=5), False)
    assert "stream_options" in new.to_payload(request(), True)


def test_top_k_is_unsupported() -> None:
    """`top_k` is rejected by name."""
    with pytest.raises(ConfigError, match="top_k: azure_openai"):
        WIRE.to_payload(request(top_k=5), False)


def sent(model: str = "my deployment/1", **options: Any) -> httpx.Request:
    """The request of a client with these options, as httpx sends it."""
    arrived: list[httpx.Request] = []

    def answer(http_request: httpx.Request) -> httpx.Response:
        arrived.append(http_request)
        return httpx.Response(404)

    async def call() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http_client:
            with suppress(LLMNotFoundError):
                await azure_client(http_client=http_client, **options).complete(request(model))

    asyncio.run(call())
    return arrived[0]


def url_of(**options: Any) -> str:
    """The URL to which a client with these options sends a request."""
    return str(sent(**options).url)


HOST = "https://r.openai.azure.com"
V1_URL = f"{HOST}/openai/v1/chat/completions"
OLD_URL = f"{HOST}/openai/deployments/my%20deployment%2F1/chat/completions?api-version={VERSION}"


@pytest.mark.parametrize(
    ("endpoint", "version", "url"),
    [
        (HOST, None, V1_URL),
        (f"{HOST}/", None, V1_URL),
        (f"{HOST}/openai", None, V1_URL),
        (f"{HOST}/openai/v1/", None, V1_URL),
        (HOST, VERSION, OLD_URL),
        (f"{HOST}/openai/", VERSION, OLD_URL),
    ],
)
def test_url(endpoint: str, version: str | None, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint is enough; an API version selects the deployment surface, with the name quoted."""
    assert url_of(api_key=KEY, base_url=endpoint, api_version=version) == url
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", endpoint)
    monkeypatch.setenv("OPENAI_API_VERSION", version or "")
    assert url_of(api_key=KEY) == url


def test_v1_endpoint_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint of the v1 surface ignores the version in the environment, and rejects one as an argument."""
    monkeypatch.setenv("OPENAI_API_VERSION", VERSION)
    assert url_of(api_key=KEY, base_url=f"{HOST}/openai/v1") == V1_URL
    with pytest.raises(ConfigError, match="api_version"):
        azure_client(api_key=KEY, base_url=f"{HOST}/openai/v1", api_version=VERSION)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, "AZURE_OPENAI_ENDPOINT"),
        ({"base_url": "r.openai.azure.com"}, "base_url"),
        ({"base_url": f"{HOST}?api-version=1"}, "query"),
        ({"base_url": f"{HOST}/openai/deployments/x"}, "deployments"),
        ({"base_url": HOST, "ad_token": TOKEN}, "ad_token"),
    ],
)
def test_config_errors(options: Json, names: str) -> None:
    """A wrong option is rejected with a ConfigError that names it."""
    with pytest.raises(ConfigError, match=names):
        azure_client(api_key=KEY, **options)


def auth_of(**options: Any) -> dict[str, str]:
    """The headers with a key or a token."""
    headers = sent(base_url=HOST, **options).headers
    return {name: headers[name] for name in ("api-key", "authorization") if name in headers}


def test_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is sent as `api-key` and a token as bearer; arguments win, then the token, as in the SDK."""
    bearer, key = {"authorization": f"Bearer {TOKEN}"}, {"api-key": KEY}
    with pytest.raises(LLMAuthenticationError, match="AZURE_OPENAI_API_KEY or AZURE_OPENAI_AD_TOKEN"):
        auth_of()
    assert auth_of(api_key=KEY) == key
    assert auth_of(ad_token=TOKEN) == bearer
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    assert auth_of() == key
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", TOKEN)
    assert auth_of() == bearer
    assert auth_of(api_key=KEY) == key


# --- Over a server


def endpoint_of(server: OpenAIServer) -> str:
    """The server as a resource's endpoint."""
    return server.base_url.removesuffix("/v1")


async def finished(server: OpenAIServer, model: str) -> tuple[LLMResponse, list[StreamEvent]]:
    """A streamed reply, and its pieces."""
    async with azure_client(api_key=KEY, base_url=endpoint_of(server)) as client:
        batches = [batch async for batch in client.stream(request(model))]
    *deltas, last = [event for batch in batches for event in batch]
    assert isinstance(last, Finish)
    return last.response, deltas


@pytest.mark.parametrize(
    ("version", "path"),
    [
        (None, "/openai/v1/chat/completions"),
        (VERSION, "/openai/deployments/{model}/chat/completions?api-version=2024-10-21"),
    ],
)
async def test_complete_over_a_server(openai_server: OpenAIServer, version: str | None, path: str) -> None:
    """Both surfaces answer; the key is in its header, and the request's id is read."""
    ids = {"x-request-id": "", "apim-request-id": "3f2a-apim"}
    model = openai_server.script(reply_action(CACHED.body, headers=ids, gzip=True))
    async with azure_client(api_key=KEY, base_url=endpoint_of(openai_server), api_version=version) as client:
        response = await client.complete(request(model))

    (seen,) = openai_server.requests(model)
    assert without_raw(response) == CACHED.normal
    assert response.request_id == "3f2a-apim"
    assert seen["path"] == path.format(model=model)
    assert seen.headers["api-key"] == KEY
    assert "authorization" not in seen.headers


BLOCKED = {
    "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": SAFE},
}
LIMITED = {"code": "RateLimitReached", "message": "Your requests have exceeded the call rate limit."}
ERROR_REPLIES: tuple[tuple[int, Json, type[LLMError], str], ...] = (
    (400, {"error": BLOCKED}, LLMRequestError, "content_filter"),
    (404, {"error": {"code": "DeploymentNotFound", "message": "No."}}, LLMNotFoundError, "DeploymentNotFound"),
    (401, {"error": {"code": "401", "message": "Access denied due to invalid key."}}, LLMAuthenticationError, "401"),
    (401, {"statusCode": 401, "message": "Unauthorized."}, LLMAuthenticationError, "401"),
    (429, {"error": LIMITED}, LLMRateLimitError, "RateLimitReached"),
    (429, {"error": {**LIMITED, "code": "429"}}, LLMRateLimitError, "429"),
)


@pytest.mark.parametrize(("status", "document", "kind", "error_type"), ERROR_REPLIES)
async def test_error_replies(
    openai_server: OpenAIServer, status: int, document: Json, kind: type[LLMError], error_type: str
) -> None:
    """Each error reply has its typed error; a wait of 0 ms is ignored, and the seconds beside it count."""
    headers = {"retry-after-ms": "0", "retry-after": "1", "x-request-id": "", "apim-request-id": "3f2a-apim"}
    model = openai_server.script(reply_action(document, status=status, headers=headers))
    with pytest.raises(kind) as caught:
        await finished(openai_server, model)

    error = caught.value
    assert (error.status_code, error.error_type, error.request_id) == (status, error_type, "3f2a-apim")
    assert error.retry_after_s == 1
    assert error.retryable == (status == 429)
    assert KEY not in str(error)


# --- Through the step

COST = (Decimal(600) * Decimal("1.75") + Decimal(400) * Decimal("0.175") + Decimal(200) * 14) / 10**6
"""600 fresh and 400 cached input tokens and 200 output tokens, at Azure's price of gpt-5.2."""


async def test_step(openai_server: OpenAIServer, capture: Captured) -> None:
    """A call is priced by the model that answered, since the deployment's name has no price."""
    model = openai_server.script(reply_action(CACHED.body))
    config = LLMCallConfig("azure_openai", model, prompt="hi")
    async with azure_client(api_key=KEY, base_url=endpoint_of(openai_server)) as client:
        result = await run_llm_call("flow", "step", config, capture.recorder(), client=client)

    assert result["status"] == "ok"
    assert result["usage"]["cost_usd"] == float(COST)
    assert_span(capture, model)


def assert_span(capture: Captured, model: str) -> None:
    """The span of the cached reply."""
    seen = attributes(capture.span(f"chat {model}"))
    assert seen["gen_ai.provider.name"] == "azure.ai.openai"
    assert seen["gen_ai.operation.name"] == "chat"
    assert (seen["gen_ai.request.model"], seen["gen_ai.response.model"]) == (model, MODEL)
    assert (seen["gen_ai.usage.input_tokens"], seen["gen_ai.usage.output_tokens"]) == (1000, 200)
    assert seen["gen_ai.response.finish_reasons"] == ("stop",)
    assert seen["gen_ai.usage.cost"] == float(COST)


# --- Beside the official SDK


def sdk_of(server: OpenAIServer) -> openai.AsyncAzureOpenAI:
    """The SDK's client for the deployment surface, the one that it has for Azure."""
    return openai.AsyncAzureOpenAI(api_key=KEY, azure_endpoint=endpoint_of(server), api_version=VERSION)


def assert_same(ours: LLMResponse, theirs: ChatCompletion) -> None:
    """The SDK has the same text, calls, finish reasons and tokens."""
    (choice,) = theirs.choices
    assert theirs.model == ours.response_model
    assert (choice.finish_reason,) == ours.finish_reasons
    assert theirs.usage is not None
    assert theirs.usage.prompt_tokens == ours.usage.prompt_tokens
    assert theirs.usage.completion_tokens == ours.usage.completion_tokens
    assert theirs.usage.total_tokens == ours.usage.total_tokens
    # Its `message` is None, against its own types, where the filter took it; ours is an empty text.
    if getattr(choice, "message", None) is not None:
        calls = [call for call in choice.message.tool_calls or [] if call.type == "function"]
        assert (choice.message.content or "", choice.message.refusal) == (ours.text, ours.refusal)
        assert [(call.id, call.function.name) for call in calls] == [(call.id, call.name) for call in ours.tool_calls]
        assert [json.loads(call.function.arguments) for call in calls] == [call.arguments for call in ours.tool_calls]


@every_case
async def test_sdk_reads_the_same(openai_server: OpenAIServer, case: Case) -> None:
    """The official SDK sends the same URL, body and key, and reads the same reply."""
    model = openai_server.script(reply_action(case.body))
    endpoint = endpoint_of(openai_server)
    async with sdk_of(openai_server) as sdk, azure_client(api_key=KEY, base_url=endpoint, api_version=VERSION) as ours:
        theirs = await sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
        assert_same(await ours.complete(request(model)), theirs)

    sent = [(seen["path"], seen.body, seen.headers["api-key"]) for seen in openai_server.requests(model)]
    assert sent[0] == sent[1]


@every_case
async def test_sdk_reads_the_same_stream(openai_server: OpenAIServer, case: Case) -> None:
    """The official SDK gets the same text pieces, finish reason and tokens from the same stream."""
    model = openai_server.script(stream_action(encoded(chunks_of(case.body))))
    pieces: list[str] = []
    reasons: list[str] = []
    tokens: list[tuple[int, int]] = []
    async with sdk_of(openai_server) as sdk:
        async for part in await sdk.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hi"}], stream=True
        ):
            pieces += [choice.delta.content for choice in part.choices if choice.delta.content]
            reasons += [choice.finish_reason for choice in part.choices if choice.finish_reason]
            tokens += [(part.usage.prompt_tokens, part.usage.completion_tokens)] if part.usage else []
    response, deltas = await finished(openai_server, model)

    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == pieces
    assert response.finish_reasons == tuple(reasons)
    assert [(response.usage.prompt_tokens, response.usage.completion_tokens)] == tokens
