"""Model calls by AWS's SDK (botocore, below boto3), whole and streamed, and their repetitions."""

from __future__ import annotations

import base64
import importlib
import json
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import tracemind_otel as tm
from tests.servers.bedrock_server import ACCESS, REGION, SECRET
from tests.servers.fixture import OpenAIServer, closed_port
from tests.servers.fixture import openai_server as openai_server
from tests.support import Captured, attributes, events

REPOSITORY = Path(__file__).parents[2]
CLAUDE = "anthropic.claude-sonnet-4-20250514-v1:0"
COST_USD = 1_000 * 3e-6 + 200 * 15e-6
"""1,000 input tokens and 200 output tokens of Claude Sonnet 4."""
COUNTS = {"inputTokens": 1_000, "outputTokens": 200, "totalTokens": 1_200}
WHOLE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
    "stopReason": "end_turn",
    "usage": COUNTS,
}
FRAMES = [
    ["event", "messageStart", {"role": "assistant"}],
    ["event", "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello"}}],
    ["event", "contentBlockStop", {"contentBlockIndex": 0}],
    ["event", "messageStop", {"stopReason": "end_turn"}],
    ["event", "metadata", {"usage": COUNTS, "metrics": {"latencyMs": 5}}],
]
USAGE = {"input_tokens": 1_000, "output_tokens": 200}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "model": "claude-sonnet-4-20250514",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "usage": USAGE,
}
CLAUDE_EVENTS = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 200}},
    {"type": "message_stop"},
]
NOVA_EVENTS = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hello"}}},
    {"messageStop": {"stopReason": "end_turn"}},
    {"metadata": {"usage": COUNTS}},
]
OTHER_EVENTS = [
    {"generation": "Hel", "stop_reason": None},
    {
        "generation": "lo",
        "stop_reason": "stop",
        "amazon-bedrock-invocationMetrics": {"inputTokenCount": 1_000, "outputTokenCount": 200},
    },
]
FAILURES = [{"status": 429}, {"status": 500}]


def chunks(*documents: Any) -> list[Any]:
    """A model's own events in Bedrock's frames."""
    encoded = (base64.b64encode(json.dumps(document).encode()).decode() for document in documents)
    return [["event", "chunk", {"bytes": piece, "p": "abc"}] for piece in encoded]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that checks signatures, in a process of its own."""
    command = [sys.executable, "-m", "tests.servers.bedrock_server"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        process.communicate()


@pytest.fixture
def seen(capture: Captured, url: str, monkeypatch: pytest.MonkeyPatch) -> Generator[Captured]:
    """Calls to the server are seen, and priced as Bedrock's. The SDK draws the shortest waits."""
    monkeypatch.setattr("random.random", lambda: 0.001)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        tm.instrument(hosts={url.removeprefix("http://"): "bedrock"})
        try:
            yield capture
        finally:
            tm.uninstrument()


def client_at(url: str, **retries: Any) -> Any:
    """A client of `bedrock-runtime`; its `max_attempts` counts the repetitions alone."""
    config = importlib.import_module("botocore.config").Config(retries=retries or None, proxies={})
    return (
        importlib.import_module("botocore.session")
        .get_session()
        .create_client(
            "bedrock-runtime",
            region_name=REGION,
            endpoint_url=url,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            config=config,
        )
    )


@pytest.fixture
def client(seen: Captured, url: str) -> Any:
    return client_at(url, mode="standard", max_attempts=2)


def asked(name: str, *replies: Any) -> dict[str, Any]:
    """The arguments of Converse that make the server answer so; `name` makes the request unlike any other."""
    return {
        "modelId": CLAUDE,
        "messages": [{"role": "user", "content": [{"text": f"unmistakable {name}"}]}],
        "inferenceConfig": {"temperature": 0.5, "maxTokens": 100},
        "additionalModelRequestFields": {"replies": list(replies)},
    }


def body_of(name: str, *replies: Any) -> bytes:
    """The same for InvokeModel."""
    return json.dumps({"name": f"unmistakable {name}", "max_tokens": 100, "replies": list(replies)}).encode()


def check(seen: Captured, run: tm.FlowRun, *, retries: int = 2) -> dict[str, Any]:
    """One call at the known price, with its retries, below its step."""
    span = seen.span(f"chat {CLAUDE}")
    found = dict(attributes(span))
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (1_000, 200)
    assert found["gen_ai.provider.name"] == "aws.bedrock"
    assert found["tracemind.cost_usd"] == pytest.approx(COST_USD, rel=1e-9)
    told = [each["http.response.status_code"] for each in events(span, "tracemind.retry")]
    assert told == [429, 500][:retries]
    step = seen.span("ask").context
    assert span.parent is not None
    assert step is not None
    assert span.parent.span_id == step.span_id
    assert (run.llm_calls, run.retries) == (1, retries)
    assert run.cost_usd == pytest.approx(COST_USD, rel=1e-9)
    assert "unmistakable" not in span.to_json()
    return found


def test_converse_with_two_repetitions(seen: Captured, client: Any) -> None:
    """Converse is one span with the parameters that were sent, and the reply is the user's."""
    with tm.flow("work") as run, tm.step("ask"):
        reply = client.converse(**asked("whole", *FAILURES, WHOLE))
    assert reply["output"] == WHOLE["output"]
    found = check(seen, run)
    assert (found["gen_ai.request.temperature"], found["gen_ai.request.max_tokens"]) == (0.5, 100)
    assert found["gen_ai.response.finish_reasons"] == ("end_turn",)


def test_converse_stream_with_two_repetitions(seen: Captured, client: Any) -> None:
    """ConverseStream is read along, event by event."""
    with tm.flow("work") as run, tm.step("ask"):
        reply = client.converse_stream(**asked("stream", *FAILURES, FRAMES))
        names = [name for event in reply["stream"] for name in event]
    assert names == [frame[1] for frame in FRAMES]
    found = check(seen, run)
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] > 0


@pytest.mark.parametrize("way", ["read", "chunks", "lines", "readinto", "with"])
def test_invoke_model_however_it_is_read(seen: Captured, client: Any, way: str) -> None:
    """InvokeModel's body is handed on unread; the call ends when it has been read."""
    with tm.flow("work") as run, tm.step("ask"):
        body = client.invoke_model(modelId=CLAUDE, body=body_of(way, *FAILURES, MESSAGE))["body"]
        if way == "read":
            data = body.read()
        elif way == "chunks":
            data = b"".join(body.iter_chunks(50))
        elif way == "lines":
            data = b"".join(body.iter_lines())
        elif way == "readinto":
            buffer = bytearray(10_000)
            data = bytes(buffer[: body.readinto(buffer)])
        else:
            with body as raw:
                data = raw.read()
    assert json.loads(data)["id"] == "msg_1"
    assert check(seen, run)["gen_ai.response.id"] == "msg_1"


@pytest.mark.parametrize(
    "inner", [CLAUDE_EVENTS, NOVA_EVENTS, OTHER_EVENTS], ids=["claude", "nova", "counts-of-bedrock"]
)
def test_invoke_model_with_a_stream(seen: Captured, client: Any, inner: list[Any]) -> None:
    """The model's own events are read, and where they have no counts, Bedrock's are."""
    with tm.flow("work") as run, tm.step("ask"):
        reply = client.invoke_model_with_response_stream(
            modelId=CLAUDE, body=body_of("stream", *FAILURES, chunks(*inner))
        )
        got = [json.loads(event["chunk"]["bytes"]) for event in reply["body"]]
    assert got == inner
    check(seen, run)


def test_counts_in_headers(seen: Captured, client: Any) -> None:
    """A model whose reply has no usage is counted by Bedrock's headers."""
    counts = {"x-amzn-bedrock-input-token-count": "1000", "x-amzn-bedrock-output-token-count": "200"}
    with tm.flow("work") as run, tm.step("ask"):
        sent = body_of("headers", {"headers": counts, "body": {"completion": "Hello"}})
        client.invoke_model(modelId=CLAUDE, body=sent)["body"].read()
    check(seen, run, retries=0)


def test_the_last_attempt_ends_the_call(seen: Captured, client: Any) -> None:
    """The SDK says which attempt is its last, so its failure is not waited upon."""
    with pytest.raises(importlib.import_module("botocore.exceptions").ClientError):
        client.converse(**asked("gives up", {"status": 503}))
    span = seen.span(f"chat {CLAUDE}")
    assert attributes(span)["http.response.status_code"] == 503
    assert len(events(span, "tracemind.retry")) == 2


def test_a_loop_of_the_user_is_as_many_calls(seen: Captured, url: str) -> None:
    """Each call of the SDK has an id of its own, so a repetition by hand is another call."""
    client = client_at(url, mode="legacy", max_attempts=0)
    sent = asked("by hand", {"status": 429}, WHOLE)
    with tm.flow("work") as run:
        with pytest.raises(importlib.import_module("botocore.exceptions").ClientError):
            client.converse(**sent)
        client.converse(**sent)
    assert (run.llm_calls, run.retries) == (2, 0)


def test_an_error_inside_a_stream(seen: Captured, client: Any) -> None:
    """The SDK raises its own exception, and the span has ended in an error by then."""
    failing = [*FRAMES[:2], ["exception", "throttlingException", {"message": "Too many requests"}]]
    reply = client.converse_stream(**asked("inside", failing))
    with pytest.raises(importlib.import_module("botocore.exceptions").EventStreamError):
        list(reply["stream"])
    assert attributes(seen.span(f"chat {CLAUDE}"))["error.type"] == "throttlingException"


def test_a_stream_that_is_closed_early(seen: Captured, client: Any) -> None:
    """It is no error, and what was not reported has no cost."""
    stream = client.converse_stream(**asked("early", FRAMES))["stream"]
    stream.close()
    found = attributes(seen.span(f"chat {CLAUDE}"))
    assert found["tracemind.stream.closed_early"] is True
    assert "tracemind.cost_usd" not in found


def test_no_connection(seen: Captured) -> None:
    """The SDK's exception is the user's, and each attempt without a connection is an event."""
    port = closed_port()
    client = client_at(f"http://127.0.0.1:{port}", mode="standard", max_attempts=1)
    with pytest.raises(importlib.import_module("botocore.exceptions").EndpointConnectionError):
        client.converse(**asked("nobody"))
    span = seen.span(f"chat {CLAUDE}")
    assert [each["tracemind.retry.reason"] for each in events(span, "tracemind.retry")] == ["connection"]
    assert attributes(span)["error.type"] == "LLMConnectionError"


def test_claude_on_bedrock_over_httpx(seen: Captured, url: str) -> None:
    """Anthropic's SDK sends the same request with httpx; the model is in the path, percent-encoded."""
    headers = {"authorization": "Bearer bedrock-key"}
    path = CLAUDE.replace(":", "%3A")
    with tm.flow("work") as run, tm.step("ask"), httpx.Client(trust_env=False, headers=headers) as client:
        sent = body_of("httpx", chunks(*CLAUDE_EVENTS))
        with client.stream("POST", f"{url}/model/{path}/invoke-with-response-stream", content=sent) as response:
            response.read()
    check(seen, run, retries=0)


def test_an_embedding(seen: Captured, client: Any) -> None:
    """The operation is known by the model, since InvokeModel does not tell; the input is the whole of its cost."""
    model = "amazon.titan-embed-text-v2:0"
    with tm.flow("work") as run:
        sent = body_of("embedding", {"embedding": [0.5], "inputTextTokenCount": 1_000})
        client.invoke_model(modelId=model, body=sent)["body"].read()
    found = attributes(seen.span(f"embeddings {model}"))
    assert found["gen_ai.operation.name"] == "embeddings"
    assert run.cost_usd == pytest.approx(1_000 * 0.02e-6, rel=1e-9)


def test_a_budget_denies_a_call(seen: Captured, client: Any) -> None:
    """The SDK passes the denial on, and asks no second time."""
    with tm.flow("work", max_llm_calls=1) as run:
        client.converse(**asked("within", WHOLE))
        with pytest.raises(tm.BudgetExceededError):
            client.converse(**asked("beyond", WHOLE))
    assert run.cost_usd == pytest.approx(COST_USD, rel=1e-9)


def test_other_services_are_left_alone(seen: Captured, openai_server: OpenAIServer) -> None:
    """A path that only ends like a model call's is none, whoever serves it."""
    with httpx.Client(trust_env=False) as client:
        client.post(
            f"{openai_server.base_url}/chains/summary/invoke",
            json={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        )
    assert seen.spans == []
