"""The OpenAI client and the step, against a real HTTP server in another process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import version
from typing import Any, Literal

import httpx
import pytest
import respx
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from tests.servers.fixture import OpenAIServer, closed_port
from tests.servers.openai_server import REPLY_MODEL, Action, echo
from tests.support import Captured, attributes, calls, events
from tracemind_otel import CompositeRecorder, LLMCallConfig, LLMRequest, LLMTimeoutError, Recorder, run_llm_call
from tracemind_otel.ai.llm.providers import OpenAILLMClient

KEY = "sk-test-0123456789abcdef"
ECHO: Action = {"do": "echo"}
ECHO_COST_USD = (600 * 0.15 + 400 * 0.075 + 200 * 0.60) / 1e6
"""600 fresh and 400 cached input tokens and 200 output tokens, at the price of gpt-4o-mini."""
SOON = {"retry-after-ms": "30"}
Transport = Literal["aiohttp", "httpx"]


def error_reply(status: int, error: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Action:
    """An error in OpenAI's recorded shape."""
    body = {"error": {"message": "scripted", "type": None, "param": None, "code": None, **error}}
    return {"status": status, "headers": dict(headers or {}), "body": json.dumps(body)}


RATE_LIMITED = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
SERVER_ERROR = {"message": "The server had an error while processing your request", "type": "server_error"}


@asynccontextmanager
async def client_of(base_url: str, transport: Transport = "aiohttp") -> AsyncGenerator[OpenAILLMClient]:
    """A client over one of the two transports."""
    if transport == "aiohttp":
        async with OpenAILLMClient(KEY, base_url) as client:
            yield client
    else:
        async with httpx.AsyncClient() as http:
            yield OpenAILLMClient(KEY, base_url, http_client=http)


async def call(base_url: str, capture: Captured, model: str, transport: Transport = "aiohttp", **options: Any) -> Any:
    """Run the step once; returns its result and its one span."""
    config = LLMCallConfig("openai", model, prompt="ping", **options)
    async with client_of(base_url, transport) as client:
        result = await run_llm_call("flow-1", "step-1", config, capture.recorder(), client=client)
    return result, capture.span(f"chat {model}")


def duration_point(capture: Captured) -> HistogramDataPoint:
    """The one data point of the call's duration."""
    (point,) = capture.points("gen_ai.client.operation.duration")
    assert isinstance(point, HistogramDataPoint)
    assert point.count == 1
    return point


def assert_succeeded(capture: Captured, span: ReadableSpan, *, retries: int = 0) -> None:
    """The span of a successful call has no error, however many attempts there were."""
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes(span)
    assert events(span, "exception") == []
    assert attributes(span)["tracemind.retry.count"] == retries
    assert len(events(span, "tracemind.retry")) == retries
    assert capture.total("tracemind.llm.retries") == retries
    assert "error.type" not in (duration_point(capture).attributes or {})


@dataclass(frozen=True)
class Failure:
    """A call that fails, and what its result and span must have."""

    name: str
    actions: tuple[Action, ...]
    error_type: str
    exception: str
    status_code: int | None = None
    code: str | None = None
    reason: str = ""
    attempts: int = 1
    retry_reason: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def assert_failed(capture: Captured, result: Mapping[str, Any], span: ReadableSpan, expected: Failure) -> None:
    """Result, span, events and metrics agree on the failure, and have it once."""
    assert len(calls(capture.spans)) == 1
    assert result["status"] == "error"
    assert expected.reason in result["reason"]
    assert result["error_type"] == expected.error_type
    assert result["status_code"] == expected.status_code
    assert result["code"] == expected.code
    assert result["retries"] == expected.attempts - 1
    assert json.loads(json.dumps(result)) == result
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == result["reason"]
    assert attributes(span)["error.type"] == expected.error_type
    assert attributes(span).get("http.response.status_code") == expected.status_code
    assert attributes(span)["tracemind.retry.count"] == expected.attempts - 1
    assert events(span, "exception") == [{"exception.type": expected.exception, "exception.message": result["reason"]}]
    assert_retry_events(span, expected)
    assert (duration_point(capture).attributes or {})["error.type"] == expected.error_type
    assert capture.total("tracemind.llm.retries") == expected.attempts - 1
    assert capture.points("tracemind.llm.cost") == []
    assert capture.points("tracemind.llm.unpriced_calls") == []


def assert_retry_events(span: ReadableSpan, expected: Failure) -> None:
    """One event for each failed attempt that was retried, in order."""
    seen = [dict(event) for event in events(span, "tracemind.retry")]
    delays = [event.pop("tracemind.retry.delay_s") for event in seen]
    status = {} if expected.status_code is None else {"http.response.status_code": expected.status_code}
    assert all(isinstance(delay, float) and delay > 0 for delay in delays)
    assert seen == [
        {
            "tracemind.retry.attempt": attempt,
            "tracemind.retry.max_attempts": expected.attempts,
            "tracemind.retry.reason": expected.retry_reason,
            "error.type": expected.error_type,
            **status,
        }
        for attempt in range(1, expected.attempts)
    ]


async def test_success(openai_server: OpenAIServer, capture: Captured) -> None:
    """A good reply gives text, tokens with their parts, cost and ids, on the result and on one span."""
    model = openai_server.script(ECHO)

    result, span = await call(openai_server.base_url, capture, model, temperature=0.2, top_p=0.9)

    assert result["status"] == "ok"
    assert result["text"] == "echo: ping"
    assert result["usage"]["prompt_tokens"] == 1000
    assert result["usage"]["completion_tokens"] == 200
    assert result["usage"]["total_tokens"] == 1200
    assert result["usage"]["cost_usd"] == pytest.approx(ECHO_COST_USD)
    assert result["usage"]["cost_source"] == "local"
    assert result["request_id"] == "req_00112233445566778899aabbccddeeff"
    assert json.loads(json.dumps(result)) == result
    assert span.kind is SpanKind.CLIENT
    assert dict(attributes(span)) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": model,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.top_p": 0.9,
        "server.address": "127.0.0.1",
        "server.port": openai_server.port,
        "tracemind.flow.id": "flow-1",
        "tracemind.step.id": "step-1",
        "tracemind.step.type": "ai.llm_call",
        "tracemind.retry.count": 0,
        "gen_ai.response.id": "chatcmpl-ping",
        "gen_ai.response.model": REPLY_MODEL,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.reasoning.output_tokens": 50,
        "gen_ai.usage.cost": result["usage"]["cost_usd"],
        "tracemind.cost_usd": result["usage"]["cost_usd"],
        "tracemind.cost.cached_usd": pytest.approx(400 * 0.075 / 1e6),
        "tracemind.cost.source": "local",
        "tracemind.cost.bucket": "lt_0.001",
        "tracemind.cost.input_usd": pytest.approx(0.00012),
        "tracemind.cost.output_usd": pytest.approx(0.00012),
        "tracemind.cost.fees_usd": 0.0,
        "tracemind.cost.table": version("genai-prices"),
        "tracemind.usage.audio.input_tokens": 0,
        "tracemind.usage.audio.output_tokens": 0,
        "openai.response.service_tier": "default",
    }
    assert_succeeded(capture, span)
    assert capture.total("tracemind.llm.cost") == pytest.approx(ECHO_COST_USD)
    assert capture.total("gen_ai.client.token.usage") == 1200


async def test_request_on_the_wire(openai_server: OpenAIServer, capture: Captured) -> None:
    """The request is OpenAI's, with the key as bearer, and the user's extra fields win."""
    model = openai_server.script(ECHO)

    await call(openai_server.base_url, capture, model, temperature=0.9, extra={"temperature": 0.1, "seed": 7})

    (request,) = openai_server.requests(model)
    assert request["path"] == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "model": model,
        "messages": [{"role": "user", "content": "ping"}],
        "temperature": 0.1,
        "seed": 7,
    }


FAILURES = [
    Failure(
        "400",
        (error_reply(400, {"message": "Unsupported value", "type": "invalid_request_error", "param": "n"}),),
        "400",
        "LLMRequestError",
        400,
        reason="HTTP 400: Unsupported value",
    ),
    Failure(
        "400-with-code",
        (error_reply(400, {"type": "invalid_request_error", "code": "context_length_exceeded"}),),
        "context_length_exceeded",
        "LLMRequestError",
        400,
        code="context_length_exceeded",
    ),
    Failure(
        "401",
        (error_reply(401, {"message": "Incorrect API key provided", "code": "invalid_api_key"}),),
        "invalid_api_key",
        "LLMAuthenticationError",
        401,
        code="invalid_api_key",
        reason="Incorrect API key provided",
    ),
    Failure(
        "404",
        (error_reply(404, {"message": "The model does not exist", "code": "model_not_found"}),),
        "model_not_found",
        "LLMNotFoundError",
        404,
        code="model_not_found",
    ),
    Failure(
        "429-until-the-end",
        (error_reply(429, RATE_LIMITED, SOON),),
        "rate_limit_exceeded",
        "LLMRateLimitError",
        429,
        code="rate_limit_exceeded",
        attempts=3,
        retry_reason="rate_limit",
    ),
    Failure(
        "429-spent-quota",
        (error_reply(429, {"type": "insufficient_quota", "code": "insufficient_quota"}, SOON),),
        "insufficient_quota",
        "LLMQuotaError",
        429,
        code="insufficient_quota",
    ),
    Failure(
        "429-spent-quota-by-type",
        (error_reply(429, {"type": "insufficient_quota", "code": "project_spend_limit_exceeded"}, SOON),),
        "project_spend_limit_exceeded",
        "LLMQuotaError",
        429,
        code="project_spend_limit_exceeded",
    ),
    Failure(
        "500",
        (error_reply(500, SERVER_ERROR, SOON),),
        "500",
        "LLMServerError",
        500,
        attempts=3,
        retry_reason="server_error",
    ),
    Failure(
        "503-html",
        ({"status": 503, "headers": {**SOON, "content-type": "text/html"}, "body": "<html>busy</html>"},),
        "503",
        "LLMServerError",
        503,
        reason="HTTP 503",
        attempts=3,
        retry_reason="server_error",
    ),
    Failure(
        "503-empty",
        ({"status": 503, "headers": SOON, "body": ""},),
        "503",
        "LLMServerError",
        503,
        attempts=3,
        retry_reason="server_error",
    ),
    Failure(
        "500-should-not-retry",
        (error_reply(500, SERVER_ERROR, {**SOON, "x-should-retry": "false"}),),
        "500",
        "LLMServerError",
        500,
    ),
    Failure(
        "400-should-retry",
        (error_reply(400, {}, {**SOON, "x-should-retry": "true"}),),
        "400",
        "LLMRequestError",
        400,
        attempts=3,
        retry_reason="server_error",
    ),
    Failure(
        "200-with-status-in-error-body",
        ({"headers": SOON, "body": '{"error": {"code": 502, "message": "Provider returned error"}, "id": "gen-1"}'},),
        "502",
        "LLMServerError",
        None,
        code="502",
        reason="Provider returned error",
        attempts=3,
        retry_reason="server_error",
    ),
    Failure(
        "200-with-error-body",
        ({"body": '{"error": {"code": "moderation", "message": "Flagged", "metadata": {}}}'},),
        "moderation",
        "LLMStatusError",
        None,
        code="moderation",
        reason="Flagged",
    ),
    Failure(
        "200-without-choices",
        ({"body": '{"id": "chatcmpl-1", "choices": []}'},),
        "LLMResponseError",
        "LLMResponseError",
        reason="choices",
        options={"max_retries": 0},
    ),
    Failure(
        "200-not-json",
        ({"body": "<html>hello</html>"},),
        "LLMResponseError",
        "LLMResponseError",
        reason="is not JSON",
        options={"max_retries": 0},
    ),
    Failure(
        "200-not-utf-8",
        ({"body": '{"id": "\udcff"}'},),
        "LLMResponseError",
        "LLMResponseError",
        options={"max_retries": 0},
    ),
    Failure(
        "200-nested-too-deep",
        ({"body": "[" * 100_000},),
        "LLMResponseError",
        "LLMResponseError",
        reason="is not JSON",
        options={"max_retries": 0},
    ),
    Failure(
        "500-nested-too-deep",
        ({"status": 500, "body": "[" * 100_000},),
        "500",
        "LLMServerError",
        500,
        options={"max_retries": 0},
    ),
    Failure(
        "200-not-an-object",
        ({"body": "[]"},),
        "LLMResponseError",
        "LLMResponseError",
        reason="not a JSON object",
        options={"max_retries": 0},
    ),
    Failure(
        "200-empty",
        ({"status": 200, "body": ""},),
        "LLMResponseError",
        "LLMResponseError",
        reason="is empty",
        options={"max_retries": 0},
    ),
    Failure(
        "200-bad-gzip",
        ({"headers": {"content-encoding": "gzip"}, "body": "not gzip"},),
        "LLMResponseError",
        "LLMResponseError",
        reason="its body is not compressed as its content-encoding says",
    ),
    Failure(
        "reset-mid-body",
        ({"do": "reset"},),
        "LLMConnectionError",
        "LLMConnectionError",
        reason="connection to 127.0.0.1",
        options={"max_retries": 0},
    ),
    Failure(
        "cut-mid-body",
        ({"do": "cut"},),
        "LLMConnectionError",
        "LLMConnectionError",
        reason="connection to 127.0.0.1",
        options={"max_retries": 0},
    ),
    Failure(
        "never-answers",
        ({"do": "hang"},),
        "timeout",
        "LLMTimeoutError",
        reason="timeout after 0.20s",
        options={"max_retries": 0, "timeout_ms": 200},
    ),
    Failure(
        "deadline",
        ({"do": "hang"},),
        "timeout",
        "LLMTimeoutError",
        reason="deadline of 200 ms exceeded",
        options={"deadline_ms": 200},
    ),
]


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
async def test_failure(openai_server: OpenAIServer, capture: Captured, failure: Failure, transport: Transport) -> None:
    """Each failure of a server is returned and recorded once, over either transport."""
    model = openai_server.script(*failure.actions)

    result, span = await call(openai_server.base_url, capture, model, transport, **failure.options)

    assert_failed(capture, result, span, failure)
    assert len(openai_server.requests(model)) == failure.attempts


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_connection_refused(capture: Captured, transport: Transport) -> None:
    """A missing server gives a connection error that names the address, and no time-out."""
    port = closed_port()

    result, span = await call(f"http://127.0.0.1:{port}", capture, "m", transport, max_retries=0)

    reason = f"connection to 127.0.0.1:{port} failed: Connection refused"
    failure = Failure("refused", (), "LLMConnectionError", "LLMConnectionError", reason=reason)
    assert_failed(capture, result, span, failure)
    assert result["retryable"] is True


async def test_over_long_header(openai_server: OpenAIServer, capture: Captured) -> None:
    """A reply with too long headers cannot be read, and is not retried."""
    model = openai_server.script({"do": "echo", "headers": {"x-long": "a" * 200_000}})

    result, span = await call(openai_server.base_url, capture, model)

    failure = Failure("long", (), "LLMResponseError", "LLMResponseError", reason="is not valid HTTP")
    assert_failed(capture, result, span, failure)


@pytest.mark.parametrize(
    ("fault", "retry_reason"),
    [
        ({"do": "reset"}, "connection"),
        ({"do": "cut"}, "connection"),
        ({"do": "hang"}, "timeout"),
        ({"status": 500, "body": ""}, "server_error"),
    ],
    ids=["reset", "cut", "never-answers", "500"],
)
async def test_recovery(
    openai_server: OpenAIServer, capture: Captured, no_waits: None, fault: Action, retry_reason: str
) -> None:
    """A temporary failure is retried after the first wait, and the call succeeds."""
    model = openai_server.script(fault, ECHO)

    result, span = await call(openai_server.base_url, capture, model, timeout_ms=1000)

    assert result["text"] == "echo: ping"
    assert_succeeded(capture, span, retries=1)
    (event,) = events(span, "tracemind.retry")
    assert event["tracemind.retry.reason"] == retry_reason
    assert event["tracemind.retry.max_attempts"] == 3
    assert 0.5 * 0.75 <= event["tracemind.retry.delay_s"] <= 0.5
    assert len(openai_server.requests(model)) == 2


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the step's own waits pass at once; what it would have waited is on the retry event."""
    sleep = asyncio.sleep

    def no_sleep(_delay_s: float) -> Awaitable[None]:
        return sleep(0)

    monkeypatch.setattr("tracemind_otel.call.attempts.asyncio.sleep", no_sleep)


def _http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "shortest_s", "longest_s"),
    [
        ({"retry-after-ms": "1500"}, 1.5, 1.5),
        ({"retry-after-ms": "30.5", "retry-after": "7"}, 0.0305, 0.0305),
        ({"retry-after": "3"}, 3.0, 3.0),
        ({"retry-after": "0.25"}, 0.25, 0.25),
        ({"retry-after": "date"}, 18.0, 20.0),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0, 1.0),
        ({"retry-after": "60"}, 60.0, 60.0),
        ({}, 0.375, 0.5),
        ({"retry-after": "0"}, 0.375, 0.5),
        ({"retry-after": "-5"}, 0.375, 0.5),
        ({"retry-after": "soon"}, 0.375, 0.5),
        ({"retry-after": "nan"}, 0.375, 0.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.375, 0.5),
    ],
    ids=[
        "milliseconds",
        "milliseconds-win",
        "seconds",
        "fraction",
        "date",
        "zero-milliseconds",
        "a-minute",
        "absent",
        "zero",
        "negative",
        "no-number",
        "nan",
        "date-in-the-past",
    ],
)
async def test_retry_after(
    openai_server: OpenAIServer,
    capture: Captured,
    no_waits: None,
    headers: dict[str, str],
    shortest_s: float,
    longest_s: float,
) -> None:
    """The wait is the one that the server asks for, in any form, and otherwise the policy's."""
    if headers.get("retry-after") == "date":
        headers = {"retry-after": _http_date(20)}
    model = openai_server.script(error_reply(429, RATE_LIMITED, headers), ECHO)

    result, span = await call(openai_server.base_url, capture, model)

    assert result["status"] == "ok"
    assert_succeeded(capture, span, retries=1)
    (event,) = events(span, "tracemind.retry")
    delay_s = event["tracemind.retry.delay_s"]
    assert shortest_s <= delay_s <= longest_s
    assert dict(event) == {
        "tracemind.retry.attempt": 1,
        "tracemind.retry.max_attempts": 3,
        "tracemind.retry.delay_s": delay_s,
        "tracemind.retry.reason": "rate_limit",
        "error.type": "rate_limit_exceeded",
        "http.response.status_code": 429,
    }
    assert capture.total("tracemind.llm.cost") == pytest.approx(ECHO_COST_USD)


async def test_the_wait_is_real(openai_server: OpenAIServer, capture: Captured) -> None:
    """The next attempt comes no sooner than the server asked."""
    model = openai_server.script(error_reply(429, RATE_LIMITED, {"retry-after": "0.4"}), ECHO)

    _, span = await call(openai_server.base_url, capture, model)

    assert span.end_time is not None
    assert span.start_time is not None
    assert (span.end_time - span.start_time) / 1e9 >= 0.4


@pytest.mark.parametrize(
    ("headers", "options", "retry_after_s"),
    [
        ({"retry-after": "61"}, {}, 61.0),
        ({"retry-after": "20"}, {"deadline_ms": 15_000}, 20.0),
    ],
    ids=["over-a-minute", "past-the-deadline"],
)
async def test_too_long_a_wait(
    openai_server: OpenAIServer,
    capture: Captured,
    headers: dict[str, str],
    options: dict[str, Any],
    retry_after_s: float,
) -> None:
    """A server's wait that is too long ends the call at once, and the result has it."""
    model = openai_server.script(error_reply(429, RATE_LIMITED, headers))

    async with asyncio.timeout(10):
        result, span = await call(openai_server.base_url, capture, model, **options)

    failure = Failure("429", (), "rate_limit_exceeded", "LLMRateLimitError", 429, code="rate_limit_exceeded")
    assert_failed(capture, result, span, failure)
    assert result["retry_after_s"] == retry_after_s
    assert len(openai_server.requests(model)) == 1


async def test_deadline_over_all_attempts(openai_server: OpenAIServer, capture: Captured) -> None:
    """The deadline holds for all attempts together, and earlier failures stay on the span."""
    model = openai_server.script(error_reply(503, {}, SOON), {"do": "hang"})

    result, span = await call(openai_server.base_url, capture, model, deadline_ms=1000)

    assert result["reason"] == "deadline of 1000 ms exceeded"
    assert result["retries"] == 1
    assert attributes(span)["error.type"] == "timeout"
    assert "http.response.status_code" not in attributes(span)
    assert [event["error.type"] for event in events(span, "tracemind.retry")] == ["503"]


async def test_slow_reply_within_the_time(openai_server: OpenAIServer, capture: Captured) -> None:
    """A slow reply within the time-out is waited for."""
    model = openai_server.script({"do": "echo", "delay_s": 0.2})

    result, span = await call(openai_server.base_url, capture, model)

    assert result["status"] == "ok"
    assert_succeeded(capture, span)


async def test_time_out_closes_the_connection(openai_server: OpenAIServer, capture: Captured) -> None:
    """A timed-out attempt closes its connection, so that the server can stop."""
    model = openai_server.script({"do": "hang"})
    config = LLMCallConfig("openai", model, prompt="ping", timeout_ms=200, max_retries=0)

    async with client_of(openai_server.base_url) as client:
        await run_llm_call("flow", "step", config, capture.recorder(), client=client)
        async with asyncio.timeout(20):
            await openai_server.wait_for_abort(model)


def assert_cancelled(capture: Captured, model: str, *, retries: int) -> None:
    """One ended span, marked as cancelled and without an error."""
    assert len(calls(capture.spans)) == 1
    span = capture.span(f"chat {model}")
    assert span.end_time is not None
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)["tracemind.cancelled"] is True
    assert attributes(span)["tracemind.retry.count"] == retries
    assert "error.type" not in attributes(span)
    assert events(span, "exception") == []
    assert len(events(span, "tracemind.retry")) == retries
    assert "error.type" not in (duration_point(capture).attributes or {})


async def test_cancelled_during_the_request(openai_server: OpenAIServer, capture: Captured) -> None:
    """A cancellation closes the connection, ends the span as cancelled, and reaches the caller."""
    model = openai_server.script({"do": "hang"})

    async with client_of(openai_server.base_url) as client:
        config = LLMCallConfig("openai", model, prompt="ping")
        task = asyncio.create_task(run_llm_call("flow", "step", config, capture.recorder(), client=client))
        await openai_server.wait_for_request(model)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(20):
            await openai_server.wait_for_abort(model)

    assert_cancelled(capture, model, retries=0)


class _RetryNoticed(Recorder):
    """Lets a test wait until an attempt has failed."""

    def __init__(self) -> None:
        self.noticed = asyncio.Event()

    def record_step_retry(self, flow_id: str, step_id: str, payload: dict[str, Any] | None = None) -> None:
        self.noticed.set()


async def test_cancelled_during_the_wait(openai_server: OpenAIServer, capture: Captured) -> None:
    """A cancellation between two attempts keeps the retry on the span, and sends no further request."""
    model = openai_server.script(error_reply(429, RATE_LIMITED, {"retry-after": "30"}))
    retried = _RetryNoticed()
    recorder = CompositeRecorder(capture.recorder(), retried)

    async with client_of(openai_server.base_url) as client:
        config = LLMCallConfig("openai", model, prompt="ping")
        task = asyncio.create_task(run_llm_call("flow", "step", config, recorder, client=client))
        await retried.noticed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert_cancelled(capture, model, retries=1)
    assert len(openai_server.requests(model)) == 1


async def test_the_callers_own_time_out(openai_server: OpenAIServer, capture: Captured) -> None:
    """The caller's time-out around the call is recorded as a cancellation, and is a `TimeoutError` to the caller."""
    model = openai_server.script({"do": "hang"})

    async with client_of(openai_server.base_url) as client:
        config = LLMCallConfig("openai", model, prompt="ping")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await run_llm_call("flow", "step", config, capture.recorder(), client=client)

    assert_cancelled(capture, model, retries=0)


def _reply(**changes: Any) -> Action:
    """The echo with these fields changed; `None` removes a field."""
    document = {**echo({"messages": [{"content": "ping"}]}), **changes}
    return {"body": json.dumps({name: value for name, value in document.items() if value is not None})}


async def test_reply_without_usage(openai_server: OpenAIServer, capture: Captured) -> None:
    """Without usage the call succeeds with unknown tokens and cost, and counts as unpriced."""
    model = openai_server.script(_reply(usage=None))

    result, span = await call(openai_server.base_url, capture, model)

    assert result["text"] == "echo: ping"
    assert result["usage"]["cost_usd"] is None
    assert [name for name in attributes(span) if name.startswith(("gen_ai.usage.", "tracemind.cost"))] == []
    assert_succeeded(capture, span)
    assert capture.points("tracemind.llm.cost") == []
    assert capture.points("gen_ai.client.token.usage") == []
    assert capture.total("tracemind.llm.unpriced_calls") == 1


async def test_reply_with_null_content(openai_server: OpenAIServer, capture: Captured) -> None:
    """A reply with a tool call and no text is a good reply."""
    call_of_tool = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call_of_tool], "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    model = openai_server.script(_reply(choices=[choice]))

    result, span = await call(openai_server.base_url, capture, model)

    assert result["text"] == ""
    assert result["finish_reasons"] == ["tool_calls"]
    assert_succeeded(capture, span)


async def test_cost_in_the_reply(openai_server: OpenAIServer, capture: Captured) -> None:
    """A cost without a documented unit is ignored, and the price table holds."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.25}
    model = openai_server.script(_reply(usage=usage))

    result, span = await call(openai_server.base_url, capture, model)

    assert result["usage"]["cost_usd"] == pytest.approx(4.5e-06)
    assert attributes(span)["tracemind.cost.source"] == "local"
    assert capture.total("tracemind.llm.cost") == pytest.approx(4.5e-06)


async def test_base_url_and_key_of_the_environment(
    openai_server: OpenAIServer, capture: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OPENAI_BASE_URL` and `OPENAI_API_KEY` are all the set-up that a call needs."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{openai_server.base_url}/")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    model = openai_server.script(ECHO)

    result = await run_llm_call("f", "s", LLMCallConfig("openai", model, prompt="ping"), capture.recorder())

    assert result["status"] == "ok"
    assert openai_server.requests(model)[0].headers["authorization"] == "Bearer sk-of-the-environment"
    assert attributes(capture.span(f"chat {model}"))["server.port"] == openai_server.port


async def test_server_without_a_key(openai_server: OpenAIServer, capture: Captured) -> None:
    """A user's own server needs no key, and gets no `Authorization` header."""
    model = openai_server.script(ECHO)

    async with OpenAILLMClient(base_url=openai_server.base_url) as client:
        config = LLMCallConfig("openai", model, prompt="ping")
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert result["status"] == "ok"
    assert "authorization" not in openai_server.requests(model)[0].headers


async def test_no_key_for_openai(capture: Captured) -> None:
    """Without a key nothing is sent to OpenAI, and the result names the variable."""
    async with OpenAILLMClient() as client:
        config = LLMCallConfig("openai", "gpt-4o-mini", prompt="ping")
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert "OPENAI_API_KEY" in result["reason"]
    assert result["error_type"] == "LLMAuthenticationError"
    assert result["retries"] == 0
    assert len(capture.spans) == 1


async def test_connections_are_kept(openai_server: OpenAIServer, capture: Captured) -> None:
    """Consecutive calls share a connection, also after an error."""
    model = openai_server.script(ECHO, error_reply(503, {}, SOON), ECHO)
    config = LLMCallConfig("openai", model, prompt="ping")

    async with client_of(openai_server.base_url) as client:
        for _ in range(2):
            await run_llm_call("f", "s", config, capture.recorder(), client=client)

    assert len({request["connection"] for request in openai_server.requests(model)}) == 1


async def test_a_thousand_calls_at_once(openai_server: OpenAIServer, capture: Captured) -> None:
    """A thousand concurrent calls with the same flow and step id each get their own reply and span."""
    model = openai_server.script(ECHO)
    recorder = capture.recorder()

    async def one(client: OpenAILLMClient, number: int) -> dict[str, Any]:
        config = LLMCallConfig("openai", model, prompt=f"call-{number}", timeout_ms=60_000)
        return await run_llm_call("flow", "step", config, recorder, client=client)

    async with client_of(openai_server.base_url) as client:
        results = await asyncio.gather(*(one(client, number) for number in range(1000)))

    assert [result.get("text") for result in results] == [f"echo: call-{number}" for number in range(1000)]
    assert [result["response_id"] for result in results] == [f"chatcmpl-call-{number}" for number in range(1000)]
    assert {attributes(span)["gen_ai.response.id"] for span in capture.spans} == {
        result["response_id"] for result in results
    }
    assert len(capture.spans) == 1000
    assert len({span.context.span_id for span in capture.spans if span.context}) == 1000
    assert capture.total("tracemind.llm.cost") == pytest.approx(1000 * ECHO_COST_USD)


async def test_http_spans_nest_under_the_call(openai_server: OpenAIServer, capture: Captured) -> None:
    """With aiohttp instrumented, each attempt's HTTP span is a child of the call's span."""
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=capture.tracer_provider)
    try:
        model = openai_server.script(error_reply(503, {}, SOON), ECHO)
        _, span = await call(openai_server.base_url, capture, model)
    finally:
        instrumentor.uninstrument()

    http_spans = [each for each in capture.spans if each.name == "POST"]
    assert [each.parent.span_id if each.parent else None for each in http_spans] == [span.context.span_id] * 2


async def test_respx_sees_httpx_own_transport(capture: Captured) -> None:
    """With a user's httpx client, respx can answer for the server."""
    with respx.mock(base_url="https://api.openai.com/v1") as router:
        route = router.post("/chat/completions")
        route.side_effect = [
            httpx.Response(429, headers=SOON, json={"error": RATE_LIMITED}),
            httpx.Response(200, json=echo({"messages": [{"content": "ping"}]})),
        ]
        result, span = await call("https://api.openai.com/v1", capture, "gpt-4o-mini", "httpx")

    assert result["text"] == "echo: ping"
    assert attributes(span)["server.address"] == "api.openai.com"
    assert attributes(span)["server.port"] == 443
    assert_succeeded(capture, span, retries=1)
    assert route.call_count == 2


async def test_time_out_of_ones_own_httpx_client(openai_server: OpenAIServer, capture: Captured) -> None:
    """A time-out of the user's httpx client ends the attempt as a time-out."""
    model = openai_server.script({"do": "hang"})

    async with httpx.AsyncClient(timeout=0.1) as http:
        client = OpenAILLMClient(KEY, openai_server.base_url, http_client=http)
        config = LLMCallConfig("openai", model, prompt="ping", max_retries=0)
        result = await run_llm_call("f", "s", config, capture.recorder(), client=client)

    failure = Failure("hang", (), "timeout", "LLMTimeoutError", reason="no answer from 127.0.0.1")
    assert_failed(capture, result, capture.span(f"chat {model}"), failure)


async def test_time_out_of_the_client(openai_server: OpenAIServer) -> None:
    """A client that is used without the step ends after its `timeout_s`."""
    model = openai_server.script({"do": "hang"})
    async with OpenAILLMClient(KEY, openai_server.base_url, timeout_s=0.1) as client:
        with pytest.raises(LLMTimeoutError, match=r"no whole answer within 0\.1 s"):
            await client.complete(LLMRequest("openai", model, "ping"))
