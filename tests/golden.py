"""A program that prints the telemetry of every kind of span and metric as JSON, the same at each run.

`python tests/golden.py > tests/data/golden_telemetry.json` writes the golden file anew: a change in it is a change of
the telemetry that dashboards read, and belongs into the changelog.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

MODEL = "gpt-4o-mini"
VOLATILE = (
    "duration",
    "time_to_first",
    "time_per_output",
    "time_to_first_chunk",
    "stacktrace",
    "delay_s",
    "cost.table",
)
"""Parts of the names of figures that differ from run to run, or from price table to price table."""


class Priced(FakeLLMClient):
    """A scripted provider whose models have a price."""

    provider_name = "openai"


def config(**options: Any) -> tm.LLMCallConfig:
    return tm.LLMCallConfig("openai", MODEL, prompt="What is 2+2?", **options)


@tm.tool(attributes={"kind": "search"})
def look_up(word: str) -> str:
    return word[::-1]


@tm.agent
async def answer(recorder: tm.Recorder) -> str:
    look_up("four")
    usage = tm.LLMUsage(1200, 300, 1500, cache_read_tokens=1000, reasoning_tokens=100)
    client = Priced(script=["ok"], usage=usage)
    options = {"temperature": 0.2, "top_p": 0.9, "max_tokens": 64, "seed": 7, "top_k": 40, "stop": ("END",)}
    result = await tm.run_llm_call("f-1", "answer", config(**options), recorder, client=client)
    return str(result["text"])


@tm.step
async def recovers(recorder: tm.Recorder) -> None:
    client = Priced(script=["429 retry-after=0.01", "503", "ok"])
    await tm.run_llm_call("f-1", "recovers", config(), recorder, client=client)


@tm.step
async def fails(recorder: tm.Recorder) -> None:
    await tm.run_llm_call("f-1", "fails", config(max_retries=0), recorder, client=Priced(script=["401"]))


@tm.step
async def streams(recorder: tm.Recorder) -> None:
    async with tm.stream_llm_call("f-1", "streams", config(), recorder, client=Priced(script=["ok"])) as stream:
        async for _ in stream:
            pass


@tm.step
async def leaves_a_stream(recorder: tm.Recorder) -> None:
    async with tm.stream_llm_call("f-1", "leaves", config(), recorder, client=Priced(script=["ok"])) as stream:
        await anext(stream)


class Silent(Priced):
    """A provider that never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.was_called = asyncio.Event()

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        self.was_called.set()
        return await asyncio.Future()


@tm.step
async def is_cancelled(recorder: tm.Recorder) -> None:
    client = Silent()
    call = asyncio.create_task(tm.run_llm_call("f-1", "cancelled", config(), recorder, client=client))
    await client.was_called.wait()
    call.cancel()
    await asyncio.wait([call])


@tm.step
async def has_no_price(recorder: tm.Recorder) -> None:
    cfg = tm.LLMCallConfig("openai", "a-model-of-nobody", prompt="hi")
    await tm.run_llm_call("f-1", "unpriced", cfg, recorder, client=Priced(script=["ok"]))


@tm.step
def raises() -> None:
    raise ValueError("what it says is not recorded")


@tm.flow(name="nested", max_llm_calls=1)
async def nested(recorder: tm.Recorder) -> None:
    await tm.run_llm_call("f-2", "allowed", config(), recorder, client=Priced(script=["ok"]))
    await tm.run_llm_call("f-2", "denied", config(), recorder, client=Priced(script=["ok"]))


@tm.flow(name="golden", attributes={"team": "search"}, session_id="s-1", user_id="u-1", tags=["beta"])
async def golden(recorder: tm.Recorder) -> None:
    await answer(recorder)
    await recovers(recorder)
    await fails(recorder)
    await streams(recorder)
    await leaves_a_stream(recorder)
    await is_cancelled(recorder)
    await has_no_price(recorder)
    await nested(recorder)
    try:
        raises()
    except ValueError:
        return


def steady(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes in order; a figure that differs from run to run is replaced by its type."""
    return {
        name: type(value).__name__ if any(part in name for part in VOLATILE) else value
        for name, value in sorted((values or {}).items())
    }


def span_of(span: ReadableSpan, names: Mapping[int, str]) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": span.kind.name,
        "parent": names.get(span.parent.span_id) if span.parent else None,
        "status": [span.status.status_code.name, span.status.description],
        "attributes": steady(span.attributes),
        "events": [{"name": event.name, "attributes": steady(event.attributes)} for event in span.events],
    }


def point_of(metric: str, point: NumberDataPoint | HistogramDataPoint) -> dict[str, Any]:
    value: Any = point.value if isinstance(point, NumberDataPoint) else {"count": point.count}
    if isinstance(point, HistogramDataPoint) and not any(part in metric for part in VOLATILE):
        value = {"count": point.count, "sum": point.sum, "bounds": list(point.explicit_bounds)}
    return {"attributes": steady(point.attributes), "value": value}


def metrics_of(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    assert data is not None
    found = [m for r in data.resource_metrics for scope in r.scope_metrics for m in scope.metrics]
    return {
        metric.name: {
            "unit": metric.unit,
            "points": sorted((point_of(metric.name, point) for point in metric.data.data_points), key=json.dumps),  # type: ignore[arg-type]
        }
        for metric in sorted(found, key=lambda metric: metric.name)
    }


def main() -> None:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider, meter_provider = TracerProvider(), MeterProvider([reader])
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = tm.configure(tracer_provider=tracer_provider, meter_provider=meter_provider, metric_attributes=["team"])
    tm.set_prices([tm.Price(model=MODEL, input=Decimal("0.15"), output=Decimal("0.6"), provider="openai")])
    asyncio.run(golden(telemetry.recorder))
    spans = exporter.get_finished_spans()
    names = {span.context.span_id: span.name for span in spans if span.context is not None}
    telemetry_json = {"spans": [span_of(span, names) for span in spans], "metrics": metrics_of(reader)}
    sys.stdout.write(json.dumps(telemetry_json, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
