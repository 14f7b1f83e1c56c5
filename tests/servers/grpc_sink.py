"""An OTLP receiver over gRPC, with gRPC's limit of 4 MiB, that keeps its requests."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

GRPC: Any = importlib.import_module("grpc")
"""Untyped."""


@dataclass
class GrpcSink:
    url: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list[ExportTraceServiceRequest])
    metrics: list[ExportMetricsServiceRequest] = field(default_factory=list[ExportMetricsServiceRequest])
    metadata: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def grpc_listening(code: str | None = None, identity: bytes | None = None) -> Generator[GrpcSink]:
    """A receiver on its own port; a status code makes it reject everything, a key and certificate make it speak TLS."""
    sink = GrpcSink()

    def reject(context: Any) -> None:
        if code is not None:
            context.abort(GRPC.StatusCode[code], "not taken")

    def export(request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        reject(context)
        sink.requests.append(request)
        sink.metadata.append(dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()

    def export_metrics(request: ExportMetricsServiceRequest, context: Any) -> ExportMetricsServiceResponse:
        reject(context)
        sink.metrics.append(request)
        return ExportMetricsServiceResponse()

    server = GRPC.server(ThreadPoolExecutor(2))
    for service, function, request, response in (
        ("trace.v1.TraceService", export, ExportTraceServiceRequest, ExportTraceServiceResponse),
        ("metrics.v1.MetricsService", export_metrics, ExportMetricsServiceRequest, ExportMetricsServiceResponse),
    ):
        method = GRPC.unary_unary_rpc_method_handler(function, request.FromString, response.SerializeToString)
        name = f"opentelemetry.proto.collector.{service}"
        server.add_generic_rpc_handlers((GRPC.method_handlers_generic_handler(name, {"Export": method}),))
    if identity is None:
        sink.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        credentials = GRPC.ssl_server_credentials([(identity, identity)])
        sink.url = f"https://127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(None).wait()
