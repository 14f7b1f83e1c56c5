"""What it costs to encode a span of a model call and to send it, in CPU time of this process.

The same 512 spans, made by the step, go to a receiver in another process: by the official exporter over HTTP, and by
our encoder, request and transport. Slices of the two alternate; the ratio is the median of neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.overhead import step_call
from benchmarks.server import running_server
from benchmarks.sink import running_sink
from tracemind_otel import OTelRecorder
from tracemind_otel.ai.llm.providers import OpenAILLMClient
from tracemind_otel.otel.export.answers import Delivered
from tracemind_otel.otel.export.otlp_options import otlp_options
from tracemind_otel.otel.export.otlp_request import request_body
from tracemind_otel.otel.export.otlp_spans import span_item
from tracemind_otel.otel.export.transports import make_transport

SPANS = 512


async def finished_spans(base_url: str) -> tuple[ReadableSpan, ...]:
    """Spans of calls."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    call = step_call(OpenAILLMClient("benchmark", base_url), OTelRecorder(tracer_provider=provider))
    for _ in range(SPANS):
        await call()
    return exporter.get_finished_spans()


def cpu_us(send: Callable[[], object]) -> float:
    started = time.process_time()
    send()
    return (time.process_time() - started) / SPANS * 1e6


def measure(spans: tuple[ReadableSpan, ...], sink_url: str, rounds: int) -> dict[str, list[float]]:
    official = OTLPSpanExporter(f"{sink_url}/v1/traces")
    url = f"{sink_url}/v1/traces"
    transport = make_transport("traces", "http/protobuf", url, {}, otlp_options("traces", "http/protobuf", url))

    def send() -> None:
        answer = transport.send(request_body([span_item(span) for span in spans]), 10.0)
        assert isinstance(answer, Delivered), answer

    ways: dict[str, Callable[[], object]] = {"official": lambda: official.export(spans), "ours": send}
    gc.collect()
    gc.freeze()
    slices: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            slices[name].append(cpu_us(way))
    transport.close()
    return slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="slices of each way (default 20)")
    options = parser.parse_args()
    with running_server() as base_url, running_sink() as sink_url:
        spans = asyncio.run(finished_spans(base_url))
        slices = measure(spans, sink_url, options.rounds)
    size = len(request_body([span_item(span) for span in spans])) / SPANS
    ratios = (ours / official for ours, official in zip(slices["ours"], slices["official"], strict=True))
    figures = {
        **{f"{name}_us": round(statistics.median(values), 1) for name, values in slices.items()},
        "ratio": round(statistics.median(ratios), 2),
        "bytes": round(size),
        "attributes": len(spans[0].attributes or {}),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
