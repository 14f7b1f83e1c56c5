"""An SDK that repeats a call itself: each attempt is a span, the last included, whoever made the span of the call."""

from __future__ import annotations

from collections.abc import Generator

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

import tracemind_otel as tm
from tests.servers.fixture import OpenAIServer
from tests.servers.fixture import openai_server as openai_server
from tests.servers.openai_server import Action
from tests.support import Captured, attributes, calls

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there"}]
LIMITED: Action = {"status": 429, "headers": {"retry-after": "0.05"}}
BROKEN: Action = {"status": 503, "headers": {"retry-after": "0.01"}}
OURS = "chat gpt-4o-mini"


@pytest.fixture(autouse=True)
def seen(capture: Captured, openai_server: OpenAIServer) -> Generator[None]:
    """The SDK's calls to the server are seen, and priced as OpenAI's."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={f"127.0.0.1:{openai_server.port}": "openai"})
        try:
            yield
        finally:
            tm.uninstrument()


@pytest.fixture
def client(openai_server: OpenAIServer) -> Generator[OpenAI]:
    with OpenAI(api_key="sk-test", base_url=openai_server.base_url, max_retries=2) as made:
        yield made


def ask(client: OpenAI, model: str) -> None:
    client.chat.completions.create(model=model, messages=MESSAGES)


def attempts(capture: Captured) -> list[ReadableSpan]:
    """The attempts that ended, in order."""
    return sorted((span for span in capture.spans if span.name.startswith("attempt")), key=lambda span: span.name)


def described(capture: Captured) -> list[tuple[str, StatusCode, object]]:
    return [
        (span.name, span.status.status_code, attributes(span).get("http.response.status_code"))
        for span in attempts(capture)
    ]


REPEATED = [
    ("attempt 1", StatusCode.ERROR, 429),
    ("attempt 2", StatusCode.ERROR, 503),
    ("attempt 3", StatusCode.UNSET, None),
]


def test_inside_a_span_of_ours(capture: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """`llm_call_span` around an SDK has the attempt that succeeded too, from the SDK's wait to its reply."""
    with tm.llm_call_span(provider="openai", model="gpt-4o-mini"):
        ask(client, openai_server.script(LIMITED, BROKEN, {"do": "echo"}))
    assert described(capture) == REPEATED
    ours = capture.span(OURS)
    assert ours.context is not None
    assert {span.parent.span_id for span in attempts(capture) if span.parent} == {ours.context.span_id}
    first, second, last = attempts(capture)
    assert (second.start_time or 0) - (first.end_time or 0) >= 45_000_000
    assert (second.end_time or 0) < (last.start_time or 0) < (last.end_time or 0) <= (ours.end_time or 0)
    assert attributes(ours)["tracemind.retry.count"] == 2
    assert "error.type" not in attributes(ours)


def test_inside_a_span_of_ours_that_gives_up(capture: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """The attempt after which the SDK gave up says why, and is there as soon as the block has ended."""
    with pytest.raises(openai.InternalServerError), tm.llm_call_span(provider="openai", model="gpt-4o-mini"):
        ask(client, openai_server.script(BROKEN))
    assert described(capture) == [(f"attempt {number}", StatusCode.ERROR, 503) for number in (1, 2, 3)]
    assert attributes(attempts(capture)[-1])["tracemind.retry.reason"] == "server_error"


def test_inside_a_span_of_ours_around_a_stream(capture: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """The last attempt of a stream ends with its last piece."""
    with tm.llm_call_span(provider="openai", model="gpt-4o-mini"):
        model = openai_server.script(LIMITED, BROKEN, {"do": "echo"})
        for _ in client.chat.completions.create(model=model, messages=MESSAGES, stream=True):
            pass
    assert described(capture) == REPEATED


def test_each_of_two_calls_inside_one_span_has_its_attempts(
    capture: Captured, client: OpenAI, openai_server: OpenAIServer
) -> None:
    """Two calls that were retried once each are four attempts."""
    with tm.llm_call_span(provider="openai", model="gpt-4o-mini"):
        for _ in range(2):
            ask(client, openai_server.script(BROKEN, {"do": "echo"}))
    assert [span.name for span in attempts(capture)] == ["attempt 1", "attempt 1", "attempt 2", "attempt 2"]


def test_a_call_without_a_retry_has_none(capture: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """Neither the span of ours nor what is inside it makes an attempt then."""
    with tm.llm_call_span(provider="openai", model="gpt-4o-mini"):
        ask(client, openai_server.script({"do": "echo"}))
    assert attempts(capture) == []


def test_a_block_that_is_repeated_as_a_whole(capture: Captured, openai_server: OpenAIServer) -> None:
    """A request that failed in one block is not repeated by that of the next one, which has its own tokens and cost."""
    body = {"model": openai_server.script(BROKEN, {"do": "echo"}), "messages": MESSAGES}
    with httpx.Client() as client:
        for _ in range(2):
            with tm.llm_call_span(provider="openai", model="gpt-4o-mini"):
                client.post(f"{openai_server.base_url}/chat/completions", json=body)
    first, second = (attributes(span) for span in calls(capture.spans))
    assert attempts(capture) == []
    assert (first["tracemind.retry.count"], second["tracemind.retry.count"]) == (0, 0)
    assert "gen_ai.usage.input_tokens" not in first
    assert second["gen_ai.usage.input_tokens"] == 1_000


def test_on_a_span_of_others_that_has_ended(capture: Captured, client: OpenAI, openai_server: OpenAIServer) -> None:
    """That the SDK gave up is known after the end of their span, and the last attempt has a span none the less."""
    tracer = capture.tracer_provider.get_tracer("acme.instrumentation")
    with (
        tm.flow("work"),
        pytest.raises(openai.InternalServerError),
        tracer.start_as_current_span("theirs", attributes={"gen_ai.operation.name": "chat"}),
    ):
        ask(client, openai_server.script(BROKEN))
    assert described(capture) == [(f"attempt {number}", StatusCode.ERROR, 503) for number in (1, 2, 3)]
