"""Calls that pass beside a hook, and what others have wrapped around it."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Generator
from functools import partial
from typing import Any

import httpx
import pytest
import respx

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.sdks.replies import EVERY
from tests.support import Captured, attributes

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How much?"}]}
WHOLE: dict[str, Any] = EVERY["openai"].whole


@pytest.fixture
def told(capture: Captured) -> Generator[Captured]:
    """Telemetry is set up, and no call is seen yet."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        try:
            yield capture
        finally:
            tm.uninstrument()


def post(server: ProviderServer) -> httpx.Response:
    return httpx.post(f"{server.case('openai')}/v1/chat/completions", json=BODY)


def test_a_bound_send_that_was_taken_before(told: Captured, provider_server: ProviderServer) -> None:
    """Mistral's telemetry calls such a `send`; the transport sees what it sends, with the tokens of the reply."""
    with httpx.Client() as client:
        send = client.send
        client.send = lambda *args, **options: send(*args, **options)  # type: ignore[method-assign]
        tm.instrument()
        reply = client.post(f"{provider_server.case('openai')}/v1/chat/completions", json=BODY)
    assert reply.json() == WHOLE
    (span,) = told.spans
    assert attributes(span)["gen_ai.usage.output_tokens"] > 0


def test_a_wrapper_that_copies_our_attributes_stays(told: Captured, provider_server: ProviderServer) -> None:
    """Sentry wraps `send` with `functools.wraps`; to uninstrument must not remove what it has put there."""
    original, passed = httpx.Client.send, list[str]()
    tm.instrument()
    ours = httpx.Client.send

    @functools.wraps(ours)
    def theirs(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        passed.append(request.url.path)
        return ours(self, request, **options)

    httpx.Client.send = theirs  # type: ignore[method-assign]
    try:
        tm.uninstrument()
        assert httpx.Client.send is theirs
        post(provider_server)
        assert told.spans == []
        tm.instrument()
        post(provider_server)
    finally:
        httpx.Client.send = ours  # type: ignore[method-assign]
        tm.uninstrument()
    assert (len(passed), len(told.spans)) == (2, 1)
    assert httpx.Client.send is original


@pytest.mark.parametrize("using", ["httpx", "httpcore"])
def test_a_stream_that_a_mock_answers(told: Captured, using: str) -> None:
    """Its body is there at once, so that nothing is read from the wire; the call has its tokens all the same."""
    tm.instrument()
    with respx.mock(using=using) as router, httpx.Client() as client:
        router.post("http://mock/v1/chat/completions").respond(json=WHOLE)
        with client.stream("POST", "http://mock/v1/chat/completions", json=BODY) as reply:
            assert json.loads(reply.read()) == WHOLE
    (span,) = told.spans
    assert attributes(span)["gen_ai.usage.output_tokens"] > 0


def test_a_thread_that_ends_before_others_fail(told: Captured, provider_server: ProviderServer) -> None:
    """A failed call in a plain thread without a flow ends soon after its thread, not after the longest wait."""
    tm.instrument()
    base = provider_server.case("openai", {"status": 503})
    thread = threading.Thread(target=partial(httpx.post, f"{base}/v1/chat/completions", json=BODY))
    thread.start()
    thread.join()
    pause = threading.Event()
    for _ in range(300):
        if told.spans or pause.wait(0.1):
            break
    (span,) = told.spans
    assert attributes(span)["http.response.status_code"] == 503


def test_authentication_is_no_attempt(told: Captured, provider_server: ProviderServer) -> None:
    """A token that is fetched anew after a fault of its server is no retry of the model call."""

    class FetchesToken(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
            for _ in range(2):
                yield httpx.Request("POST", f"{provider_server.case('openai', {'status': 503})}/token", json={})
            yield request

    tm.instrument()
    url = f"{provider_server.case('openai')}/v1/chat/completions"
    with httpx.Client(auth=FetchesToken()) as client:
        assert client.post(url, json=BODY).status_code == 200
    (span,) = told.spans
    assert attributes(span)["tracemind.retry.count"] == 0
