"""An OTLP receiver over gRPC, with gRPC's own limit of 4 MiB, that keeps the spans it gets."""

from __future__ import annotations

import importlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

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
def grpc_listening() -> Generator[GrpcSink]:
    """A receiver on a port of its own."""
    sink = GrpcSink()

    def export(request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        sink.requests.append(request)
        sink.metadata.append(dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()

    method = GRPC.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = GRPC.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((GRPC.method_handlers_generic_handler(service, {"Export": method}),))
    sink.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(None).wait()
