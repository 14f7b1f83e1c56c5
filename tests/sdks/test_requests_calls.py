"""Calls that are made with requests, by an SDK or by hand: one span each, however the reply is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest
import requests

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer, usd
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.provider_server import Action
from tests.sdks.replies import OPENAI
from tests.servers.fixture import closed_port
from tests.support import Captured, attributes, events

pytestmark = pytest.mark.slow

WHOLE: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "unmistakable"}]}
STREAM: dict[str, Any] = {**WHOLE, "stream": True, "stream_options": {"include_usage": True}}
SPAN = "chat gpt-4o"


@pytest.fixture
def session() -> Generator[requests.Session]:
    """A session that was made before the calls of requests are seen."""
    with requests.Session() as made:
        made.trust_env = False
        yield made


@pytest.fixture
def seen(session: requests.Session, capture: Captured, provider_server: ProviderServer) -> Generator[Captured]:
    hosts = {f"127.0.0.1:{provider_server.port}": "openai"}
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, hosts=hosts):
        yield capture


def post(session: requests.Session, base: str, document: Any, **options: Any) -> requests.Response:
    return session.post(f"{base}/v1/chat/completions", json=document, **options)


@pytest.mark.parametrize("script", [[], [{"encoding": "gzip"}]], ids=["plain", "gzip"])
def test_a_whole_reply(
    seen: Captured, session: requests.Session, provider_server: ProviderServer, script: list[Action]
) -> None:
    """The caller gets the reply as it is; the call has its tokens and cost in the flow, below its step."""
    base = provider_server.case("openai", *script)
    with tm.flow("work") as run, tm.step("ask"):
        assert post(session, base, WHOLE).json() == OPENAI.whole
    found = attributes(seen.span(SPAN))
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == OPENAI.usage[:2]
    assert found["server.port"] == provider_server.port
    assert run.cost_usd == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)
    assert (run.llm_calls, list(run.by_step)) == (1, ["ask"])
    assert "unmistakable" not in seen.span(SPAN).to_json()


def _sent_events(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


READERS: dict[str, Callable[[requests.Response], bytes]] = {
    "content": lambda reply: reply.content,
    "lines": lambda reply: _sent_events(list(reply.iter_lines())),
    "pieces": lambda reply: b"".join(reply.iter_content(7)),
    "as they come": lambda reply: b"".join(reply.iter_content(None)),
    "raw": lambda reply: bytes(reply.raw.read()),
}


@pytest.mark.parametrize("way", READERS)
def test_a_stream_however_it_is_read(
    seen: Captured, session: requests.Session, provider_server: ProviderServer, way: str
) -> None:
    """A stream is read along; its tokens and cost are on the span when it has been read."""
    base = provider_server.case("openai")
    with tm.flow("work") as run, tm.step("ask"), post(session, base, STREAM, stream=True) as reply:
        assert READERS[way](reply) == OPENAI.stream
    found = attributes(seen.span(SPAN))
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.time_to_first_chunk"] > 0
    assert run.cost_usd == pytest.approx(usd(provider_server.ledger(base)), rel=1e-9)


@pytest.mark.parametrize("document", [WHOLE, STREAM], ids=["whole", "stream"])
def test_repetitions_by_hand_are_attempts(
    seen: Captured, session: requests.Session, provider_server: ProviderServer, document: dict[str, Any]
) -> None:
    """requests says nothing of repetitions: the same request by the same thread after a failure is one."""
    base = provider_server.case("openai", {"status": 429}, {"status": 500}, {})
    with tm.flow("work") as run:
        statuses = [post(session, base, document, stream="stream" in document) for _ in range(3)]
        assert [reply.status_code for reply in statuses] == [429, 500, 200]
        assert statuses[-1].content
    told = [each["tracemind.retry.reason"] for each in events(seen.span(SPAN), "tracemind.retry")]
    assert told == ["rate_limit", "server_error"]
    assert (run.llm_calls, run.retries) == (1, 2)


def test_a_stream_that_is_left_early(
    seen: Captured, session: requests.Session, provider_server: ProviderServer
) -> None:
    """It is no error, and what was not reported has no cost."""
    base = provider_server.case("openai", {"pieces": 3, "waits": True})
    with post(session, base, STREAM, stream=True) as reply:
        assert next(reply.iter_lines())
    found = attributes(seen.span(SPAN))
    assert found["tracemind.stream.closed_early"] is True
    assert "tracemind.cost_usd" not in found


def test_a_stream_that_is_cut(seen: Captured, session: requests.Session, provider_server: ProviderServer) -> None:
    """The caller gets the exception of requests, and the span ends in an error."""
    base = provider_server.case("openai", {"pieces": 3})
    with (
        pytest.raises(requests.exceptions.ChunkedEncodingError),
        post(session, base, STREAM, stream=True) as reply,
    ):
        list(reply.iter_lines())
    assert attributes(seen.span(SPAN))["error.type"] == "LLMConnectionError"


def test_no_connection(seen: Captured, session: requests.Session) -> None:
    """The caller gets the exception of requests; the call waits for a repetition until its flow ends."""
    with tm.flow("work") as run, pytest.raises(requests.exceptions.ConnectionError):
        post(session, f"http://127.0.0.1:{closed_port()}", WHOLE)
    assert attributes(seen.span(SPAN))["error.type"] == "LLMConnectionError"
    assert run.llm_calls == 1


def test_a_client_error_ends_the_call(
    seen: Captured, session: requests.Session, provider_server: ProviderServer
) -> None:
    """A request that is wrong is not repeated, so its span has ended when the caller gets the reply."""
    reply = post(session, provider_server.case("openai", {"status": 400}), WHOLE)
    assert reply.status_code == 400
    assert attributes(seen.span(SPAN))["http.response.status_code"] == 400


def test_a_budget_denies_a_call(seen: Captured, session: requests.Session, provider_server: ProviderServer) -> None:
    """A call over the limit is not sent, and the caller gets the denial."""
    base = provider_server.case("openai")
    with tm.flow("work", max_llm_calls=1):
        post(session, base, WHOLE)
        with pytest.raises(tm.BudgetExceededError):
            post(session, base, {**WHOLE, "temperature": 0.5})
    assert provider_server.ledger(base).statuses == [200]


def test_other_bodies_and_requests(seen: Captured, session: requests.Session, provider_server: ProviderServer) -> None:
    """A body as a string is read as one of bytes is; another path is left alone."""
    base = provider_server.case("openai")
    url, headers = f"{base}/v1/chat/completions", {"content-type": "application/json"}
    session.post(url, data=json.dumps(WHOLE), headers=headers)
    assert attributes(seen.span(SPAN))["gen_ai.usage.input_tokens"] == OPENAI.usage[0]
    session.post(f"{base}/v1/files", data=json.dumps(WHOLE), headers=headers)
    assert len(seen.spans) == 1


def test_uninstrument_puts_send_back(
    capture: Captured, session: requests.Session, provider_server: ProviderServer
) -> None:
    """After it requests is what it was."""
    before = requests.Session.send
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider):
        assert requests.Session.send is not before
        tm.uninstrument()
        assert requests.Session.send is before
        post(session, provider_server.case("openai"), WHOLE)
    assert capture.spans == []
