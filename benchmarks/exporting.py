"""What the telemetry of a call costs with its export, in CPU time of this process with all its threads.

As in `overhead`, but nothing is dropped: spans and metrics are encoded and sent to a receiver in another process.

- bare:  the request, its JSON read
- hand:  bare, with hand-written OpenTelemetry and the official exporters over HTTP
- quiet: the step with a recorder that does nothing
- step:  the step on what `configure()` makes

A slice ends with a flush, so that each pays for its own export. The ratio is (step - quiet) / (hand - bare).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from httpx_aiohttp import HttpxAiohttpClient
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tracemind_otel as tm
from benchmarks.overhead import BareCall, Call, assert_same_telemetry, hand_written_call, paired, step_call
from benchmarks.server import running_server
from benchmarks.sink import running_sink
from benchmarks.slices import alternating, stay_on_one_core
from tracemind_otel.ai.llm.providers import OpenAILLMClient

Flush = Callable[[], object]


def hand_written(bare: BareCall, client: OpenAILLMClient, sink_url: str) -> tuple[Call, Flush]:
    """The call with the official exporters, and their flush."""
    tracer_provider = TracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{sink_url}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{sink_url}/v1/metrics"))
    meter_provider = MeterProvider([reader], shutdown_on_exit=False)

    def flush() -> None:
        tracer_provider.force_flush()
        meter_provider.force_flush()

    return hand_written_call(bare, client, tracer_provider, meter_provider), flush


async def cpu_us(call: Call, flush: Flush, calls: int) -> float:
    """CPU microseconds of the process for one call, with its export."""
    started = time.process_time()
    for _ in range(calls):
        await call()
    flush()
    return (time.process_time() - started) / calls * 1e6


async def measure(base_url: str, sink_url: str, rounds: int, calls: int) -> dict[str, list[float]]:
    async with HttpxAiohttpClient(timeout=None) as http_client:
        client = OpenAILLMClient("benchmark", base_url, timeout_s=None)
        telemetry = tm.configure(service_name="benchmark", endpoint=sink_url, instrument=False)
        bare = BareCall(http_client, base_url)
        cases: dict[str, tuple[Call, Flush]] = {
            "bare": (bare, lambda: None),
            "hand": hand_written(bare, client, sink_url),
            "quiet": (step_call(client, tm.Recorder()), lambda: None),
            "step": (step_call(client, telemetry.recorder), telemetry.flush),
        }
        await assert_same_telemetry(client, bare)
        for case in cases.values():
            await cpu_us(*case, calls)
        slices = await alternating({name: partial(cpu_us, *case, calls) for name, case in cases.items()}, rounds)
        await telemetry.ashutdown()
        return slices


def report(slices: dict[str, list[float]]) -> dict[str, float]:
    hand, ours = paired(slices, "hand", "bare"), paired(slices, "step", "quiet")
    return {
        **{f"{name}_us": round(statistics.median(values), 1) for name, values in slices.items()},
        "hand_written_us": round(hand, 1),
        "ours_us": round(ours, 1),
        "ratio": round(ours / hand, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="slices of each way (default 20)")
    parser.add_argument("--calls", type=int, default=256, help="calls in a slice (default 256)")
    options = parser.parse_args()
    with running_server() as base_url, running_sink() as sink_url:
        stay_on_one_core()
        figures = report(asyncio.run(measure(base_url, sink_url, options.rounds, options.calls)))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
