"""An error reply tells its reason, whatever wraps it, and its code decides what it is."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.support import Captured
from tracemind_otel.ai.llm.providers._error_bodies import error_body, error_from_body, status_error
from tracemind_otel.ai.llm.providers._http import HttpReply
from tracemind_otel.ai.llm.scrub import scrub
from tracemind_otel.errors import LLMQuotaError, LLMRateLimitError, LLMStatusError

QUOTA = {"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}
WITHHELD = "(the message is withheld: it repeats the prompt)"


def error_of(body: bytes | str | object, status: int = 422, prompt: str = "", **headers: str) -> LLMStatusError:
    """The error that a reply becomes."""
    raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return status_error(HttpReply(status, headers, raw), key="k-secret", prompt=prompt)


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
        (gzip.compress(b'{"message": "packed"}'), "packed"),
        ('{"message": "first"}\n{"done": true}\n', "first"),
        ('{"message": "cut he', '{"message": "cut he'),
        ("key k-secret is bad", "key [redacted] is bad"),
        ("", "no message"),
        ("{}", "no message"),
        ("null", "no message"),
        ('"Unauthorized"', "Unauthorized"),
        ('"cut he', '"cut he'),
        ({"a": {"b": 1}}, "no message"),
    ],
)  # fmt: skip
def test_the_reason_is_told(body: object, said: str) -> None:
    """Wherever the server put its words, they are in the error; only a server that gave none has no message."""
    assert str(error_of(body)) == f"HTTP 422: {said}"


def test_a_long_reason_is_cut() -> None:
    """A list of a thousand faults does not flood a span."""
    assert len(str(error_of({"detail": [{"loc": ["body"], "msg": "m" * 300}] * 1000, "x": "y"}))) < 600
    assert len(str(error_of("z" * 100_000))) < 600


def test_a_bottomless_body_ends() -> None:
    """Errors inside errors without end are read so deep and no deeper."""
    assert "no message" in str(error_of('{"error":' * 500 + "1" + "}" * 500))


@pytest.mark.parametrize(
    "body",
    [
        f"event: error\ndata: {json.dumps(QUOTA)}\n\n",
        f"data: {json.dumps(QUOTA)}",
        f": hello\n\ndata: {json.dumps(QUOTA)}\n\ndata: [DONE]\n\n",
        json.dumps(QUOTA) + "\n\n",
        json.dumps({"detail": QUOTA}),
        json.dumps({"error": json.dumps(QUOTA)}),
        json.dumps([QUOTA]),
    ],
)
def test_a_spent_quota_is_known_in_any_wrapping(body: str) -> None:
    """Behind `data:`, in a list or in a string: the code decides, and no waiting mends a spent quota."""
    error = error_of(body, 429)
    assert (type(error), error.code, error.retryable) == (LLMQuotaError, "insufficient_quota", False)
    assert str(error) == "HTTP 429: You exceeded your current quota."


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"type": "exceeded_current_quota_error"}),
        (429, {"code": "1113"}),
        (429, {"type": "insufficient_quota"}),
        (401, {"type": "insufficient_quota"}),
        (400, {"code": "Arrearage"}),
        (403, {"code": "AccountOverdueError"}),
        (400, {"type": "budget_exceeded"}),
        (400, {"code": "blocked_api_access"}),
        (402, {"message": "Insufficient Balance"}),
        (429, {"code": "billing_hard_limit_reached"}),
    ],
)
def test_spent_quotas_by_their_documented_codes(status: int, error: dict[str, Any]) -> None:
    """Whatever a provider calls it, and whatever status and hint it comes with, it is not sent again."""
    seen = error_of({"error": error}, status, **{"x-should-retry": "true" if status == 429 else ""})
    assert (type(seen), seen.retryable) == (LLMQuotaError, False)


def test_an_ordinary_limit_is_repeated() -> None:
    """The word quota alone makes no spent one."""
    error = error_of({"error": {"message": "quota per minute", "type": "requests"}}, 429)
    assert (type(error), error.retryable) == (LLMRateLimitError, True)


@pytest.mark.parametrize(
    ("location", "where"),
    [
        ("https://user:pw@new.example:8443/v1?key=s3cret", "to new.example:8443"),
        ("/v2/chat", "to another path of the same host"),
        ("http://[::1", "to another path of the same host"),
    ],
)
def test_a_redirect_says_where_it_points(location: str, where: str) -> None:
    """The host and what to do, without the rest of the address, which may hold a key."""
    said = str(error_of("<html><title>Moved</title></html>", 308, location=location))
    advice = "requests are not sent on: set base_url to the address it means"
    assert said == f"HTTP 308: the server redirects {where}, and {advice}"


def test_aws_tells_its_type_in_the_body_or_a_header() -> None:
    """`__type` loses its namespace, the header its address."""
    assert error_of({"__type": "com.amazon#ValidationException"}).provider_type == "ValidationException"
    denied = error_of({}, 403, **{"x-amzn-errortype": "AccessDeniedException:http://x"})
    assert denied.provider_type == "AccessDeniedException"


@pytest.mark.parametrize(
    ("document", "error_type", "kind", "retryable"),
    [
        ({"error": {"code": 429, "message": "m"}}, "429", "LLMRateLimitError", True),
        ({"error": {"code": 502, "message": "m"}}, "502", "LLMServerError", True),
        ({"error": {"type": "RESOURCE_EXHAUSTED"}}, "RESOURCE_EXHAUSTED", "LLMRateLimitError", True),
        ({"error": {"code": "rate_limit_exceeded"}}, "rate_limit_exceeded", "LLMRateLimitError", True),
        ({"error": {"code": "insufficient_quota"}}, "insufficient_quota", "LLMQuotaError", False),
        ({"error": {"type": "authentication_error"}}, "authentication_error", "LLMAuthenticationError", False),
    ],
)
def test_an_error_inside_a_success_has_no_http_status(
    document: object, error_type: str, kind: str, retryable: bool
) -> None:
    """Its words choose the class and the retry; HTTP's status said success, and no other is made up."""
    error = error_from_body(HttpReply(200, {}, b""), error_body(document), key=None, prompt="")
    seen = (error.status_code, error.error_type, type(error).__name__, error.retryable)
    assert seen == (None, error_type, kind, retryable)


@pytest.mark.parametrize("prompt", ["hi", "1", "model", "load", "over"])
def test_a_short_prompt_withholds_no_unrelated_message(prompt: str) -> None:
    """A prompt of a few letters stands in half of all messages by chance."""
    assert scrub("The model is overloaded: 1 of 12 machines hit", prompt=prompt) != WITHHELD


def test_a_short_prompt_counts_in_whole_words() -> None:
    """As words of its own it is a repetition; inside longer words it is chance."""
    assert scrub("the overloading", prompt="loading") == "the overloading"
    assert scrub("cannot parse: 'Loading'!", prompt="loading") == WITHHELD
    assert scrub("不能解析:我的秘密是", prompt="我的秘密") == WITHHELD


async def test_over_http_a_spent_quota_in_an_event_is_sent_once(openai_server: OpenAIServer, capture: Captured) -> None:
    """A gateway that answers 429 with an event stream is read, and its quota is not asked for again."""
    body = f"event: error\ndata: {json.dumps(QUOTA)}\n\n"
    model = openai_server.script({"status": 429, "headers": {"content-type": "text/event-stream"}, "body": body})
    config = tm.LLMCallConfig("openai", model, prompt="tell me more", max_retries=2)
    client = tm.LLMClientFactory.make("openai", api_key="k", base_url=openai_server.base_url)
    result = await tm.run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert (result["error_type"], result["status_code"]) == ("insufficient_quota", 429)
    assert "You exceeded your current quota." in result["reason"]
    assert len(openai_server.requests(model)) == 1
