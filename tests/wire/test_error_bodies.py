"""The error for an error reply has the server's reason, in whatever wrapping, and its code decides the class."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.openai_server import Action
from tests.support import Captured
from tests.wire.canned import read_error
from tracemind_otel.ai.llm.scrub import scrub
from tracemind_otel.ai.llm.types import TextDelta
from tracemind_otel.errors import LLMQuotaError, LLMRateLimitError, LLMStatusError

QUOTA = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}
WITHHELD = "(the message is withheld: it repeats the prompt)"


async def error_of(body: bytes | str | object, status: int = 422, prompt: str = "", **headers: str) -> LLMStatusError:
    """The error that OpenAI's client makes of a reply."""
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return await read_error("openai", raw, status, headers=headers, prompt=prompt, api_key="k-secret")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": [{"loc": ["body", "n"], "msg": "Field required", "type": "missing", "input": "SENT"}]},
         "body.n: Field required"),
        ({"errors": [{"code": 10000, "message": "Authentication error"}]}, "Authentication error"),
        ({"errors": ["one", "two"]}, "one; two"),
        ({"errors": {"model": ["is unknown"], "seed": ["is too large"]}}, "model: is unknown; seed: is too large"),
        ({"message": ["a must be b", "c is missing"]}, "a must be b; c is missing"),
        ({"object": "error", "message": {"detail": [{"loc": ["body", "x"], "msg": "Extra input"}]}},
         "body.x: Extra input"),
        ({"type": "about:blank", "title": "Bad Gateway", "detail": "no upstream"}, "Bad Gateway: no upstream"),
        ({"title": "Too large"}, "Too large"),
        ({"__type": "com.amazon.coral#ThrottlingException", "Message": "Slow down"}, "Slow down"),
        ([{"error": {"code": 400, "message": "Unknown name", "status": "INVALID_ARGUMENT"}}], "Unknown name"),
        ({"error": json.dumps({"error": {"message": "inner words"}})}, "inner words"),
        ({"detail": {"error": {"message": "deep words"}}}, "deep words"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"no GPU"}}'}}},
         "Provider returned error: no GPU"),
        ("upstream connect error\n", "upstream connect error"),
        ("<html><head><title>502 Bad\nGateway</title></head><body>k-secret</body></html>", "502 Bad Gateway"),
        ("<?xml version='1.0'?><Error><Code>X</Code><Message>Denied</Message></Error>", "Denied"),
        ("<html><body>internal address 10.0.0.1</body></html>", "no message"),
        (b"\xef\xbb\xbf" + json.dumps({"message": "marked"}).encode(), "marked"),
        ('{"message": "clé"}'.encode("latin-1"), "clé"),
        (gzip.compress(b'{"message": "packed"}', mtime=0), "packed"),
        ('{"message": "first"}\n{"done": true}\n', "first"),
        ('{"message": "cut he', '{"message": "cut he'),
        ("key k-secret is bad", "key [redacted] is bad"),
        ("", "no message"),
        ("{}", "no message"),
        ("null", "no message"),
        ('"Unauthorized"', "Unauthorized"),
        ('"cut he', '"cut he'),
        ({"a": {"b": 1}}, "no message"),
        ({"Error": {"Code": "X", "Message": "capital words"}}, "capital words"),
        ({"ResponseMetadata": {"Error": {"Code": "X", "Message": "wrapped"}}}, "wrapped"),
        ({"error_code": 336, "error_msg": "no access"}, "no access"),
        ({"fault": {"faultstring": "no such proxy", "detail": {"errorcode": "x.y"}}}, "no such proxy"),
        ({"error": {"description": "described"}}, "described"),
        ({"error-message": "hyphened"}, "hyphened"),
        ({"message": {"model": "is unknown"}}, "model: is unknown"),
        ({"error": {"details": [{"reason": "R", "message": "in the details"}]}}, "in the details"),
        ("event: error\ndata: too many\n\n", "too many"),
        ('error: {"error": {"message": "labelled"}}', "labelled"),
        ('503 from upstream, retries: 2 - {"error": {"message": "far behind"}}', "far behind"),
        ({"message": {"role": "user", "content": "what was sent"}}, "no message"),
        ({"detail": {"input": "what was sent", "msg_id": "x"}}, "no message"),
        ("Oops <html><head><title>Bad</title></head><body>10.0.0.1</body></html>", "Oops Bad"),
        ("""Unexpected token '<', "<!DOCTYPE "... is not valid JSON""", """Unexpected token '<', \""""),
        ({"data": {"error": {"message": "in data"}}}, "in data"),
        ({"code": 30011, "message": "beside data", "data": None}, "beside data"),
        ({"response": {"error": {"message": "in response"}}}, "in response"),
        ({"success": False, "result": [{"message": "in result"}]}, "in result"),
        ({"status": {"code": 3, "message": "in status"}}, "in status"),
        ({"info": "told as info"}, "told as info"),
        ({"info": {"message": "inside info"}}, "inside info"),
        ({"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}, "invalid params"),
        ({"detail": "Not authenticated"}, "Not authenticated"),
        ({"detail": {"why": "no seat"}}, "why: no seat"),
        ({"status": "failed", "response": "half an answer", "data": "more of it"}, "no message"),
        (gzip.compress(b'{"message": "broken off"}' + b" " * 9000, mtime=0)[:-8], "broken off"),
    ],
)  # fmt: skip
async def test_the_reason_is_told(body: object, said: str) -> None:
    """The server's message is in the error, wherever it is in the body."""
    assert str(await error_of(body)) == f"HTTP 422: {said}"


async def test_a_long_reason_is_cut() -> None:
    """A message for a thousand faults is cut."""
    assert len(str(await error_of({"detail": [{"loc": ["body"], "msg": "m" * 300}] * 1000, "x": "y"}))) < 600
    assert len(str(await error_of("z" * 100_000))) < 600


async def test_a_bottomless_body_ends() -> None:
    """Errors nested without end are read to a limited depth."""
    assert "no message" in str(await error_of('{"error":' * 500 + "1" + "}" * 500))


@pytest.mark.parametrize(
    "body",
    [
        f"event: error\ndata: {json.dumps(QUOTA)}\n\n",
        f"data: {json.dumps(QUOTA)}",
        f"error: {json.dumps(QUOTA)}",
        json.dumps({"Error": {"Message": QUOTA["error"]["message"], "Code": "insufficient_quota"}}),
        f": hello\n\ndata: {json.dumps(QUOTA)}\n\ndata: [DONE]\n\n",
        json.dumps(QUOTA) + "\n\n",
        json.dumps({"detail": QUOTA}),
        json.dumps({"error": json.dumps(QUOTA)}),
        json.dumps([QUOTA]),
        json.dumps({"type": "error", "data": QUOTA}),
        json.dumps({"response": {"status": "failed", **QUOTA}, "data": {"code": "no_error"}}),
        json.dumps({"status": {**QUOTA["error"], "code": "insufficient_quota"}}),
        json.dumps({"result": None, "errors": [QUOTA["error"]]}),
    ],
)
async def test_a_spent_quota_is_known_in_any_wrapping(body: str) -> None:
    """A spent quota is known by its code behind `data:`, in a list or in a string, and is not retried."""
    error = await error_of(body, 429)
    assert (type(error), error.code, error.retryable) == (LLMQuotaError, "insufficient_quota", False)
    assert str(error) == "HTTP 429: You exceeded your current quota."


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"type": "exceeded_current_quota_error"}),
        (429, {"code": "1113"}),
        (429, {"code": 1113}),
        (429, {"type": "insufficient_quota"}),
        (401, {"type": "insufficient_quota"}),
        (400, {"code": "Arrearage"}),
        (403, {"code": "AccountOverdueError"}),
        (400, {"type": "budget_exceeded"}),
        (400, {"code": "blocked_api_access"}),
        (402, {"message": "Insufficient Balance"}),
        (429, {"code": "billing_hard_limit_reached"}),
        (403, {"code": "AllocationQuota.FreeTierOnly"}),
        (429, {"code": "SetLimitExceeded", "type": "TooManyRequests"}),
        (429, {"code": "1310"}),
        (500, {"type": "api_error", "message": "insufficient balance (1008)"}),
        (429, {"type": "insufficient_balance_error", "http_code": "429"}),
    ],
)
async def test_spent_quotas_by_their_documented_codes(status: int, error: dict[str, Any]) -> None:
    """Every documented code of a spent quota ends the call, whatever its status and headers."""
    seen = await error_of({"error": error}, status, **{"x-should-retry": "true" if status == 429 else ""})
    assert (type(seen), seen.retryable) == (LLMQuotaError, False)


async def test_an_ordinary_limit_is_repeated() -> None:
    """A rate limit is retried though its message says quota, as is Alibaba's `insufficient_quota` a minute."""
    error = await error_of({"error": {"message": "quota per minute", "type": "requests"}}, 429)
    assert (type(error), error.retryable) == (LLMRateLimitError, True)
    for code, message in [
        ("Throttling.AllocationQuota", "Allocated quota exceeded"),
        ("insufficient_quota", "see https://help.aliyun.com/zh/model-studio/error-code#token-limit"),
    ]:
        error = await error_of({"error": {"message": message, "code": code, "type": "insufficient_quota"}}, 429)
        assert (type(error), error.retryable) == (LLMRateLimitError, True)


@pytest.mark.parametrize(("period", "kind"), [("Day", LLMQuotaError), ("Minute", LLMRateLimitError)])
async def test_the_quota_of_a_day_is_spent_at_gemini(period: str, kind: type[LLMStatusError]) -> None:
    """Gemini's spent quota of a day is not retried, although Google asks to wait some seconds."""
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure",
         "violations": [{"quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20s"},
    ]  # fmt: skip
    body = {"error": {"code": 429, "message": "m", "status": "RESOURCE_EXHAUSTED", "details": details}}
    for provider in ("gemini", "openai"):  # its own format, and Chat Completions, where the body is a list
        error = await read_error(provider, json.dumps([body]).encode(), 429)
        assert (type(error), error.retryable) == (kind, kind is LLMRateLimitError)
        assert error.error_type == "429"


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("https://user:pw@new.example:8443/v1?key=s3cret", "to new.example:8443"),
        ("/v2/chat", "to another path of the same host"),
        ("http://[::1", "to another path of the same host"),
    ],
)
async def test_a_redirect_says_where_it_points(location: str, where: str, openai_server: OpenAIServer) -> None:
    """The error names the host and says what to do, without the rest of the address, which may hold a key."""
    bodies = ("<html><title>Moved</title></html>", '{"message": "v1 is gone"}')
    moved: list[Action] = [{"status": 308, "body": body, "headers": {"location": location}} for body in bodies]
    model, said = openai_server.script(*moved), list[str]()
    for _ in bodies:
        async with tm.LLMClientFactory.make("openai", api_key="k", base_url=openai_server.base_url) as client:
            with pytest.raises(LLMStatusError) as caught:
                await client.complete(tm.LLMRequest("openai", model, "hi"))
        said.append(str(caught.value))
    advice = "redirects are not followed; set base_url to the address it names"
    reason = f"HTTP 308: the server redirects {where}, and {advice}"
    assert said == [reason, f"{reason}: v1 is gone"]


async def test_aws_tells_its_type_in_the_body_or_a_header() -> None:
    """The type is `__type` without its namespace, or the header without its address."""
    assert (await error_of({"__type": "com.amazon#ValidationException"})).provider_type == "ValidationException"
    denied = await error_of({}, 403, **{"x-amzn-errortype": "AccessDeniedException:http://x"})
    assert denied.provider_type == "AccessDeniedException"


@pytest.mark.parametrize(
    ("document", "error_type", "kind", "retryable"),
    [
        ({"error": {"code": 429, "message": "m"}}, "429", "LLMRateLimitError", True),
        ({"error": {"code": 502, "message": "m"}}, "502", "LLMServerError", True),
        ({"error": {"code": "429", "message": "m"}}, "429", "LLMRateLimitError", True),
        ({"error": {"status_code": 503, "message": "m"}}, "503", "LLMServerError", True),
        ({"statusCode": 401, "message": "m"}, "401", "LLMAuthenticationError", False),
        ({"error": {"type": "RESOURCE_EXHAUSTED"}}, "RESOURCE_EXHAUSTED", "LLMRateLimitError", True),
        ({"error": {"code": "rate_limit_exceeded"}}, "rate_limit_exceeded", "LLMRateLimitError", True),
        ({"error": {"code": "insufficient_quota"}}, "insufficient_quota", "LLMQuotaError", False),
        ({"error": {"type": "authentication_error"}}, "authentication_error", "LLMAuthenticationError", False),
        ({"error": {"code": "1302"}}, "LLMRateLimitError", "LLMRateLimitError", True),
        ({"error": {"code": 87654}}, "LLMStatusError", "LLMStatusError", False),
        ({"base_resp": {"status_code": 1002, "status_msg": "m"}}, "LLMRateLimitError", "LLMRateLimitError", True),
        (
            {"base_resp": {"status_code": 1004, "status_msg": "m"}},
            "LLMAuthenticationError",
            "LLMAuthenticationError",
            False,
        ),
        ({"base_resp": {"status_code": 1008, "status_msg": "m"}}, "LLMQuotaError", "LLMQuotaError", False),
        ({"base_resp": {"status_code": 1024, "status_msg": "m"}}, "LLMServerError", "LLMServerError", True),
    ],
)
async def test_an_error_inside_a_success_has_no_http_status(
    document: object, error_type: str, kind: str, retryable: bool
) -> None:
    """An error in a success has the class of its code, and no HTTP status."""
    error = await read_error("openai", json.dumps(document).encode(), 200)
    seen = (error.status_code, error.error_type, type(error).__name__, error.retryable)
    assert seen == (None, error_type, kind, retryable)


@pytest.mark.parametrize("prompt", ["hi", "1", "model", "load", "over", "1" + " " * 30, "hi\n" * 2 + "\n" * 30])
def test_a_short_prompt_withholds_no_unrelated_message(prompt: str) -> None:
    """A prompt of a few letters, which is in many messages by chance, withholds none."""
    assert scrub("The model is overloaded: 1 of 12 machines hit", prompt=prompt) != WITHHELD


def test_a_short_prompt_counts_in_whole_words() -> None:
    """A short prompt is found as whole words, and not inside longer words."""
    assert scrub("the overloading", prompt="loading") == "the overloading"
    assert scrub("cannot parse: 'Loading'!", prompt="loading") == WITHHELD
    assert scrub("不能解析:我的秘密是", prompt="我的秘密") == WITHHELD


async def test_over_http_a_spent_quota_in_an_event_is_sent_once(openai_server: OpenAIServer, capture: Captured) -> None:
    """A gateway's 429 with an event stream is read, and a spent quota in it is not retried."""
    body = f"event: error\ndata: {json.dumps(QUOTA)}\n\n"
    model = openai_server.script({"status": 429, "headers": {"content-type": "text/event-stream"}, "body": body})
    config = tm.LLMCallConfig("openai", model, prompt="tell me more", max_retries=2)
    client = tm.LLMClientFactory.make("openai", api_key="k", base_url=openai_server.base_url)
    result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert (result["error_type"], result["status_code"]) == ("insufficient_quota", 429)
    assert "You exceeded your current quota." in result["reason"]
    assert len(openai_server.requests(model)) == 1


EMPTY = {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}, "choices": None}
BUSY = {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}, "id": "x"}
OLD = {"detail": "The model is not loaded", "code": "not_loaded"}


@pytest.mark.parametrize(
    ("action", "reason", "status", "sent"),
    [
        ({"body": json.dumps(EMPTY)}, "insufficient balance", None, 1),
        ({"body": f"data: {json.dumps(EMPTY)}\n\ndata: [DONE]\n\n"}, "insufficient balance", None, 1),
        ({"body": json.dumps(BUSY)}, "rate limit", None, 2),
        ({"body": f"data: {json.dumps(BUSY)}\n\n"}, "rate limit", None, 2),
        ({"body": json.dumps(OLD)}, "The model is not loaded", None, 1),
        ({"body": json.dumps({"message": "no worker is free"})}, "no worker is free", None, 1),
        ({"status": 401, "body": json.dumps(QUOTA), "gzip": True}, QUOTA["error"]["message"], 401, 1),
        ({"status": 401, "body": json.dumps(QUOTA), "do": "cut"}, "HTTP 401", 401, 1),
        ({"status": 429, "body": json.dumps(QUOTA), "do": "cut"}, "HTTP 429", 429, 2),
        ({"status": 401, "gzip": True, "do": "cut"}, "HTTP 401", 401, 1),
        ({"status": 401, "body": "no", "headers": {"content-encoding": "gzip"}}, "HTTP 401: no message", 401, 1),
        ({"status": 500, "body": ""}, "HTTP 500: no message", 500, 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_over_http_the_reason_and_the_repetition(
    openai_server: OpenAIServer,
    capture: Captured,
    action: Action,
    reason: str,
    status: int | None,
    sent: int,
    is_streamed: bool,
) -> None:
    """An error in a success, compressed or cut off has the server's message, and is retried where that helps."""
    model = openai_server.script(action)
    config = tm.LLMCallConfig("openai_compatible", model, prompt="tell me more", max_retries=1)
    client = tm.LLMClientFactory.make("openai_compatible", api_key="k", base_url=openai_server.base_url)
    if is_streamed:
        async with tm.stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
            with pytest.raises(LLMStatusError, match=reason):
                await anext(stream)
        result = stream.result
    else:
        result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert result is not None
    assert reason in result["reason"]
    assert (result["status"], result.get("status_code")) == ("error", status)
    assert len(openai_server.requests(model)) == sent


@pytest.mark.parametrize("provider", ["anthropic", "cohere", "ollama", "openai_responses", "openai_compatible"])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_reply_in_no_format_says_why(
    openai_server: OpenAIServer, capture: Captured, provider: str, is_streamed: bool
) -> None:
    """A gateway's error in a list or an event with status 200 is the reason, in every format."""
    listed = [{"error": {"code": 404, "message": "no such route"}}]
    model = openai_server.script({"body": f"data: {json.dumps(OLD)}\n\n"}, {"body": json.dumps(listed)})
    client = tm.LLMClientFactory.make(provider, api_key="k", base_url=openai_server.base_url)
    config = tm.LLMCallConfig(provider, model, prompt="tell me more", max_retries=0)
    for reason in ("The model is not loaded", "no such route"):
        if is_streamed:
            async with tm.stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
                with pytest.raises(LLMStatusError, match=reason):
                    await anext(stream)
        else:
            result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)
            assert reason in result["reason"]


@pytest.mark.parametrize(
    "fault", [EMPTY, QUOTA, {"object": "error", **OLD}, {"code": "x", "message": "it broke"}, "it broke"]
)
async def test_what_was_said_before_an_error_is_delivered(
    openai_server: OpenAIServer, capture: Captured, fault: object
) -> None:
    """Deltas in one packet with an error are delivered before it, and the call is not retried."""
    said = json.dumps({"choices": [{"index": 0, "delta": {"content": "Hel"}}]})
    name = "event: error\n" if isinstance(fault, str) else ""
    body = f"data: {said}\n\n{name}data: {json.dumps(fault)}\n\ndata: [DONE]\n\n"
    model = openai_server.script({"headers": {"content-type": "text/event-stream"}, "body": body})
    config = tm.LLMCallConfig("openai_compatible", model, prompt="tell me more", max_retries=2)
    client = tm.LLMClientFactory.make("openai_compatible", api_key="k", base_url=openai_server.base_url)
    async with tm.stream_llm_call("f", "s", config, capture.recorder(), client=client) as stream:
        deltas = [await anext(stream)]
        with pytest.raises(LLMStatusError, match="the provider reports: "):
            await anext(stream)

    assert deltas == [TextDelta("Hel")]
    assert stream.result is not None
    assert (stream.result["status"], stream.result["text"]) == ("error", "Hel")
    assert len(openai_server.requests(model)) == 1


names = st.sampled_from(["error", "message", "detail", "errors", "data", "status", "code", "base_resp", "info", "x"])
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    body=bodies,
    wrap=st.sampled_from(["{}", "data: {}\n\n", "event: error\ndata: {}", "error: {}"]),
    cut=st.integers(0, 9),
)
async def test_any_body_becomes_an_error(body: object, wrap: str, cut: int) -> None:
    """Any error body, whole or cut off, gives the error of its status, without a secret."""
    text = wrap.replace("{}", json.dumps(body))
    error = await error_of(text[: len(text) - cut], 503)
    assert (type(error).__name__, error.status_code) == ("LLMServerError", 503)
    assert "k-secret" not in str(error)
