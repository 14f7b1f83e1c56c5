"""An OTLP receiver over HTTP that keeps its requests."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Post:
    path: str
    headers: Mapping[str, str]
    body: bytes
    """Uncompressed, if it came as gzip."""
    client: tuple[str, int] = ("", 0)

    @property
    def instance(self) -> str:
        """The `service.instance.id` of the sending process."""
        if self.path == "/v1/traces":
            resource = ExportTraceServiceRequest.FromString(self.body).resource_spans[0].resource
        else:
            resource = ExportMetricsServiceRequest.FromString(self.body).resource_metrics[0].resource
        return str(plain(resource.attributes)["service.instance.id"])


@dataclass
class Sink:
    """An OTLP receiver over HTTP that keeps its requests."""

    status: int = 200
    answer: bytes = b""
    answers: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """What is answered on one path in place of `answer`."""
    answer_headers: Mapping[str, str] = field(default_factory=dict[str, str])
    posts: list[Post] = field(default_factory=list[Post])
    url: str = ""
    hold: Callable[[Post], object] = lambda post: None
    """Runs before an answer, which it may delay."""

    def traces(self) -> list[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(post.body) for post in self.posts if post.path == "/v1/traces"]

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.traces()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def events(self) -> list[LogRecord]:
        """The records of the logs signal."""
        return [
            record
            for post in self.posts
            if post.path == "/v1/logs"
            for resource in ExportLogsServiceRequest.FromString(post.body).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def resource(self) -> dict[str, str]:
        return plain(self.traces()[0].resource_spans[0].resource.attributes)

    def metrics(self) -> dict[str, Metric]:
        """The metrics of the last batch, which has all earlier sums."""
        posts = [post for post in self.posts if post.path == "/v1/metrics"]
        return {
            metric.name: metric
            for resource in ExportMetricsServiceRequest.FromString(posts[-1].body).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def metric_requests(self) -> list[ExportMetricsServiceRequest]:
        """The batches of metrics."""
        return [ExportMetricsServiceRequest.FromString(post.body) for post in self.posts if post.path == "/v1/metrics"]

    def counter(self, name: str) -> float:
        """The sum of a counter over all processes: the last value of each, since the sums are cumulative."""
        return sum(values[-1] for values in self.counters(name).values())

    def counters(self, name: str) -> dict[str, list[float]]:
        """A counter's values by process, in the order of their arrival."""
        values = dict[str, list[float]]()
        for resource, metric in self._all_metrics():
            if metric.name == name:
                value = sum(point.as_double or point.as_int for point in metric.sum.data_points)
                values.setdefault(plain(resource.attributes)["service.instance.id"], []).append(value)
        return values

    def _all_metrics(self) -> Iterator[tuple[Resource, Metric]]:
        for post in [post for post in self.posts if post.path == "/v1/metrics"]:
            for part in ExportMetricsServiceRequest.FromString(post.body).resource_metrics:
                for scope in part.scope_metrics:
                    for metric in scope.metrics:
                        yield part.resource, metric

    @property
    def paths(self) -> set[str]:
        return {post.path for post in self.posts}


def plain(attributes: Any) -> dict[str, Any]:
    def value_of(item: KeyValue) -> Any:
        return getattr(item.value, item.value.WhichOneof("value") or "string_value")

    return {item.key: value_of(item) for item in attributes}


@contextmanager
def listening(
    status: int = 200, protocol: str = "HTTP/1.0", tls: ssl.SSLContext | None = None, port: int = 0
) -> Generator[Sink]:
    """A receiver on this port or a free one; with `tls` it logs no client without TLS."""
    sink = Sink(status)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = protocol

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            post = Post(self.path, {k.lower(): v for k, v in self.headers.items()}, body, self.client_address)
            sink.posts.append(post)
            sink.hold(post)
            if "date" in sink.answer_headers:
                self.send_response_only(sink.status)
            else:
                self.send_response(sink.status)
            for name, value in sink.answer_headers.items():
                self.send_header(name, value)
            answer = sink.answers.get(self.path, sink.answer)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if tls is None:
                super().handle_error(request, client_address)

        def get_request(self) -> tuple[Any, Any]:
            connection, address = super().get_request()
            if tls is None:
                return connection, address
            return tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    with Server(("127.0.0.1", port), Handler) as server:
        sink.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield sink
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """An OTLP receiver."""
    with listening() as found:
        yield found
