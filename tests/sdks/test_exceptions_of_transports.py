"""Attempts that end in an exception which no HTTP library documents: SDKs repeat them too."""

from __future__ import annotations

import anthropic
import httpx2
import pytest

import tracemind_otel as tm
from tests.sdks.provider_fixture import ProviderServer
from tests.sdks.provider_fixture import provider_server as provider_server
from tests.support import Captured, attributes, events

pytestmark = pytest.mark.slow


class FailsOnce(httpx2.HTTPTransport):
    """Raises what a connection of a closed event loop raises, then sends."""

    has_failed = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if not self.has_failed:
            self.has_failed = True
            raise RuntimeError("Event loop is closed")
        return super().handle_request(request)


def test_any_exception_is_repeated_by_the_sdk(
    capture: Captured, provider_server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is used in a second event loop meets such an exception: its repetition is the same call."""
    monkeypatch.setenv("ANTHROPIC_OPEN_TELEMETRY", "false")
    hosts = {f"127.0.0.1:{provider_server.port}": "anthropic"}
    base = provider_server.case("anthropic")
    with (
        tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, hosts=hosts),
        httpx2.Client(transport=FailsOnce(), trust_env=False) as transport,
        anthropic.Anthropic(api_key="k", base_url=base, http_client=transport) as client,
        tm.flow("work") as run,
    ):
        client.messages.create(
            model="claude-sonnet-4-6", max_tokens=100, messages=[{"role": "user", "content": "How much?"}]
        )
    span = capture.span("chat claude-sonnet-4-6")
    (retry,) = events(span, "tracemind.retry")
    assert retry["tracemind.retry.reason"] == "connection"
    assert "error.type" not in attributes(span)
    assert (run.llm_calls, run.retries) == (1, 1)
