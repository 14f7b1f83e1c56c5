"""What the step and its telemetry cost, in CPU time of this process with all its threads.

Five ways to make the same request over one httpx client (aiohttp transport) alternate in short slices:

- bare:  the request, its JSON read
- hand:  bare, with hand-written OpenTelemetry: the same attributes and metrics as the step sets
- quiet: the step with a recorder that does nothing
- step:  the step with OTelRecorder on what `configure()` makes
- joined: the step with OTelRecorder on providers that somebody else made

The telemetry ratio is (step - quiet) / (hand - bare); the step alone costs quiet - bare. Spans go through the
SDK's BatchSpanProcessor and metrics through its periodic reader, to exporters that drop them, so that encoding,
which is the same for both, does not blur the comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, use_span

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.server import running_server
from benchmarks.slices import alternating, stay_on_one_core
from tracemind_otel import LLMCallConfig, OTelRecorder, Recorder, run_llm_call
from tracemind_otel.ai.llm.providers import OpenAILLMClient
from tracemind_otel.otel import semconv

Call = Callable[[], Awaitable[None]]

PROMPT = "Why does async I/O matter? " * 40
MODEL = "gpt-4o-mini"
CONFIG = LLMCallConfig("openai", MODEL, prompt=PROMPT, temperature=0.2, top_p=0.9)
INPUT_USD, CACHED_USD, OUTPUT_USD = (800 * 0.15 + 200 * 0.075) / 1e6, 200 * 0.075 / 1e6, 500 * 0.60 / 1e6
COST_USD = INPUT_USD + OUTPUT_USD


class DroppingSpans(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class DroppingMetrics(MetricExporter):
    """Takes metrics and forgets them."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Nothing is held."""


def new_providers() -> tuple[TracerProvider, MeterProvider]:
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(BatchSpanProcessor(DroppingSpans()))
    reader = PeriodicExportingMetricReader(DroppingMetrics(), export_interval_millis=1000)
    return tracer_provider, MeterProvider([reader])


def recorder_of_configure() -> OTelRecorder:
    """The pipeline of `configure()`, piece by piece, but for exporters that drop."""
    # Here, since `against.py` reads this module beside trees that have these elsewhere.
    from tracemind_otel.otel.current import Providers, use_providers
    from tracemind_otel.otel.export.delivery_stats import DeliveryStats, MetricsDeliveryStats
    from tracemind_otel.otel.setup.delivery import WatchedExporter
    from tracemind_otel.otel.setup.exporters import point_count
    from tracemind_otel.otel.setup.metric_reader import OwnReader
    from tracemind_otel.otel.setup.processors import CountingProcessor

    tracer_provider = TracerProvider()
    ledger = DeliveryStats("nowhere")
    tracer_provider.add_span_processor(CountingProcessor(WatchedExporter(DroppingSpans, ledger), ledger))
    exporter = WatchedExporter(DroppingMetrics, MetricsDeliveryStats("nowhere"), count=point_count)
    reader = OwnReader(exporter, tracer_provider.resource, interval_s=1.0, timeout_s=10.0)
    meter_provider = MeterProvider([reader])
    reader.start()
    use_providers(
        Providers(tracer_provider=tracer_provider, meter_provider=meter_provider, instruments=reader.instruments)
    )
    return OTelRecorder()


class BareCall:
    """The request as anybody would write it."""

    def __init__(self, client: httpx.AsyncClient, base_url: str) -> None:
        self._client = client
        self._url = f"{base_url}/chat/completions"
        self._headers = {"authorization": "Bearer benchmark"}

    async def request(self) -> dict[str, object]:
        payload = {
            "model": MODEL,
            "messages": [{"role": "user", "content": PROMPT}],
            "temperature": 0.2,
            "top_p": 0.9,
        }
        response = await self._client.post(self._url, json=payload, headers=self._headers)
        response.raise_for_status()
        document: dict[str, object] = response.json()
        return document

    async def __call__(self) -> None:
        await self.request()


class HandWrittenCall:
    """The same request with OpenTelemetry written out by somebody who knows it."""

    def __init__(
        self, bare: BareCall, address: str, port: int, tracer_provider: TracerProvider, meter_provider: MeterProvider
    ) -> None:
        self._bare, self._address, self._port = bare, address, port
        self._tracer = tracer_provider.get_tracer("benchmark")
        meter = meter_provider.get_meter("benchmark")
        self._duration = meter.create_histogram(
            semconv.METRIC_OPERATION_DURATION,
            "s",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BOUNDARIES_S,
        )
        self._tokens = meter.create_histogram(
            semconv.METRIC_TOKEN_USAGE, "{token}", explicit_bucket_boundaries_advisory=semconv.TOKEN_BOUNDARIES
        )
        self._call_cost = meter.create_histogram(
            semconv.METRIC_LLM_CALL_COST, "USD", explicit_bucket_boundaries_advisory=semconv.COST_BOUNDARIES_USD
        )
        self._cost = meter.create_counter(semconv.METRIC_LLM_COST, "USD")
        self._retries = meter.create_counter(semconv.METRIC_LLM_RETRIES, "{retry}")
        self._cached = meter.create_counter(semconv.METRIC_LLM_CACHE_TOKENS, "{token}")

    async def __call__(self) -> None:
        started = time.perf_counter()
        span = self._tracer.start_span(
            f"chat {MODEL}",
            kind=SpanKind.CLIENT,
            attributes={
                semconv.GEN_AI_OPERATION_NAME: "chat",
                semconv.GEN_AI_PROVIDER_NAME: "openai",
                semconv.GEN_AI_REQUEST_MODEL: MODEL,
                semconv.TRACEMIND_FLOW_ID: "flow",
                semconv.TRACEMIND_STEP_ID: "step",
                semconv.TRACEMIND_STEP_TYPE: "ai.llm_call",
                semconv.SERVER_ADDRESS: self._address,
                semconv.SERVER_PORT: self._port,
                semconv.GEN_AI_REQUEST_TEMPERATURE: 0.2,
                semconv.GEN_AI_REQUEST_TOP_P: 0.9,
            },
        )
        with use_span(span, end_on_exit=True):
            await self._bare.request()
            span.set_attributes(
                {
                    semconv.TRACEMIND_RETRY_COUNT: 0,
                    semconv.GEN_AI_RESPONSE_ID: "chatcmpl-benchmark",
                    semconv.GEN_AI_RESPONSE_MODEL: "gpt-4o-mini-2024-07-18",
                    semconv.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
                    semconv.GEN_AI_USAGE_INPUT_TOKENS: 1000,
                    semconv.GEN_AI_USAGE_OUTPUT_TOKENS: 500,
                    semconv.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 200,
                    semconv.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: 0,
                    semconv.GEN_AI_USAGE_COST: COST_USD,
                    semconv.TRACEMIND_COST_USD: COST_USD,
                    semconv.TRACEMIND_COST_SOURCE: "local",
                    semconv.TRACEMIND_COST_BUCKET: "lt_0.001",
                    semconv.OPENAI_RESPONSE_SERVICE_TIER: "default",
                    semconv.USAGE_NAMES["input_audio_tokens"]: 0,
                    semconv.TRACEMIND_COST_INPUT_USD: INPUT_USD,
                    semconv.TRACEMIND_COST_CACHED_USD: CACHED_USD,
                    semconv.TRACEMIND_COST_OUTPUT_USD: OUTPUT_USD,
                    semconv.TRACEMIND_COST_FEES_USD: 0.0,
                    semconv.TRACEMIND_COST_TABLE: "0.2.3",
                }
            )
            self._measure(time.perf_counter() - started)

    def _measure(self, duration_s: float) -> None:
        attributes: dict[str, str | int] = {
            semconv.GEN_AI_OPERATION_NAME: "chat",
            semconv.GEN_AI_PROVIDER_NAME: "openai",
            semconv.GEN_AI_REQUEST_MODEL: MODEL,
            semconv.GEN_AI_RESPONSE_MODEL: "gpt-4o-mini-2024-07-18",
            semconv.SERVER_ADDRESS: self._address,
            semconv.SERVER_PORT: self._port,
        }
        self._duration.record(duration_s, attributes)
        self._tokens.record(1000, {**attributes, semconv.GEN_AI_TOKEN_TYPE: "input"})
        self._tokens.record(500, {**attributes, semconv.GEN_AI_TOKEN_TYPE: "output"})
        self._call_cost.record(COST_USD, attributes)
        self._cost.add(COST_USD, attributes)
        self._retries.add(0, attributes)
        self._cached.add(200, {**attributes, semconv.TRACEMIND_CACHE_OPERATION: "read"})


def step_call(client: OpenAILLMClient, recorder: Recorder) -> Call:
    async def call() -> None:
        result = await run_llm_call("flow", "step", CONFIG, recorder, client=client)
        assert result["status"] == "ok", result

    return call


async def cpu_us(call: Call, calls: int) -> float:
    """CPU microseconds of the process for one call, over a slice of calls."""
    started = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - started) / calls * 1e6


async def assert_same_telemetry(client: OpenAILLMClient, bare: BareCall) -> None:
    """The hand-written side must not be compared with a step that records something else."""
    told = list[tuple[dict[str, object], dict[str, int]]]()
    for is_by_hand in (True, False):
        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracer_provider, meter_provider = TracerProvider(), MeterProvider([reader])
        tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
        recorder = OTelRecorder(tracer_provider=tracer_provider, meter_provider=meter_provider)
        call = (
            hand_written_call(bare, client, tracer_provider, meter_provider)
            if is_by_hand
            else step_call(client, recorder)
        )
        await call()
        told.append((dict(exporter.get_finished_spans()[0].attributes or {}), _points(reader)))
    assert told[0][1] == told[1][1]
    assert told[0][0].keys() == told[1][0].keys()
    values = {name: (value, told[1][0][name]) for name, value in told[0][0].items()}
    assert all(ours == theirs or abs(float(str(ours)) - float(str(theirs))) < 1e-12 for ours, theirs in values.values())


def _points(reader: InMemoryMetricReader) -> dict[str, int]:
    """The number of data points of each metric."""
    data = reader.get_metrics_data()
    assert data is not None
    metrics = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
    return {metric.name: len(metric.data.data_points) for metric in metrics}


def hand_written_call(
    bare: BareCall, client: OpenAILLMClient, tracer_provider: TracerProvider, meter_provider: MeterProvider
) -> HandWrittenCall:
    """The call with hand-written telemetry, to the client's server."""
    assert client.server_address is not None
    assert client.server_port is not None
    return HandWrittenCall(bare, client.server_address, client.server_port, tracer_provider, meter_provider)


async def measure(base_url: str, rounds: int, calls: int) -> dict[str, list[float]]:
    async with HttpxAiohttpClient(timeout=None) as http_client:
        client = OpenAILLMClient("benchmark", base_url, timeout_s=None, http_client=http_client)
        tracer_provider, meter_provider = new_providers()
        joined = OTelRecorder(tracer_provider=tracer_provider, meter_provider=meter_provider)
        bare = BareCall(http_client, base_url)
        cases: dict[str, Call] = {
            "bare": bare,
            "hand": hand_written_call(bare, client, *new_providers()),
            "quiet": step_call(client, Recorder()),
            "step": step_call(client, recorder_of_configure()),
            "joined": step_call(client, joined),
        }
        await assert_same_telemetry(client, bare)
        for call in cases.values():
            await cpu_us(call, 4 * calls)
        return await alternating({name: partial(cpu_us, call, calls) for name, call in cases.items()}, rounds)


def paired(slices: dict[str, list[float]], more: str, less: str) -> float:
    """The median difference of neighbouring slices: what changes in the machine's load hits both alike."""
    return statistics.median(a - b for a, b in zip(slices[more], slices[less], strict=True))


def report(slices: dict[str, list[float]]) -> dict[str, float]:
    hand, telemetry = paired(slices, "hand", "bare"), paired(slices, "step", "quiet")
    return {
        **{f"{name}_us": round(statistics.median(values), 1) for name, values in slices.items()},
        "hand_written_telemetry_us": round(hand, 1),
        "our_telemetry_us": round(telemetry, 1),
        "telemetry_ratio": round(telemetry / hand, 2),
        "joined_telemetry_ratio": round(paired(slices, "joined", "quiet") / hand, 2),
        "step_alone_us": round(paired(slices, "quiet", "bare"), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="slices of each way (default 60)")
    parser.add_argument("--calls", type=int, default=48, help="calls in a slice (default 48)")
    options = parser.parse_args()
    with running_server() as base_url:
        stay_on_one_core()
        figures = report(asyncio.run(measure(base_url, options.rounds, options.calls)))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
