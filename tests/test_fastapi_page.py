"""The services on the page how-to/fastapi.md run under uvicorn."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.ended import serving
from tests.pages import write_files
from tests.servers.otlp_sink import Sink
from tests.servers.otlp_sink import sink as sink

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("service", ["service", "with_lifespan", "streaming", "continued"])
def test_each_service_sends_a_flow_for_its_request(service: str, tmp_path: Path, sink: Sink) -> None:
    """A request makes one flow and one call, in the caller's trace, which are delivered when the server stops."""
    write_files("docs/how-to/fastapi.md", tmp_path)
    command = ("-m", "uvicorn", f"{service}:app", "--port", "0")
    with serving(tmp_path, *command, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url) as server:
        reply = httpx.post(f"{server.url}/ask", params={"question": "why?"}, headers=HEADERS, trust_env=False)
        assert reply.status_code == 200
        code, log = server.stop(signal.SIGTERM)
    assert (code, "Traceback" in log) == (-signal.SIGTERM, False)
    flow, call = (span_named(sink, name) for name in ("invoke_workflow ask", "chat toy-1"))
    assert call.parent_span_id == flow.span_id
    assert flow.trace_id.hex() == HEADERS["traceparent"].split("-")[1]
    assert attributes_of(flow).get("session.id") == ("s-1" if service == "continued" else None)


HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "session.id=s-1"}
"""The headers of a caller that has a trace and a session."""


def span_named(sink: Sink, name: str) -> Span:
    (found,) = (span for span in sink.spans() if span.name == name)
    return found


def attributes_of(span: Span) -> dict[str, str]:
    return {item.key: item.value.string_value for item in span.attributes}


def test_the_team_of_an_endpoint_is_on_its_flow(tmp_path: Path, sink: Sink) -> None:
    """An attribute that is a function of the request's parameters is found on the span."""
    write_files("docs/how-to/fastapi.md", tmp_path)
    command = ("-m", "uvicorn", "service:app", "--port", "0")
    with serving(tmp_path, *command, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url) as server:
        parameters = {"text": "long", "team": "search"}
        assert httpx.post(f"{server.url}/summary", params=parameters, trust_env=False).status_code == 200
        server.stop(signal.SIGTERM)
    assert attributes_of(span_named(sink, "invoke_workflow summary"))["team"] == "search"
