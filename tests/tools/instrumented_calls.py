"""A program of somebody who has other instrumentations: makes calls, and prints what each left in spans and metrics.

It reads one JSON document from standard input: `{"makers": ["openinference"], "hosts": {...}, "is_seen": true, "calls":
[["openai_chat", "http://..."]]}`, and prints one line of JSON for each call.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tracemind_otel as tm

Ask = Callable[[str], Any]
MARK = "RESULT "
"""Begins a line of ours: OpenLIT prints telemetry to standard output."""
PROMPT: Any = [{"role": "user", "content": "How much?"}]
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": PROMPT}
CHAT_STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
RESPONSE: dict[str, Any] = {"model": "gpt-5", "input": "How much?"}
MESSAGE: dict[str, Any] = {"model": "claude-sonnet-4-6", "messages": PROMPT, "max_tokens": 100}
GEMINI: dict[str, Any] = {"model": "gemini-2.5-flash", "contents": "How much?"}
MISTRAL: dict[str, Any] = {"model": "mistral-large-latest", "messages": PROMPT}


# --- The calls


def _openai(base: str) -> Any:
    return importlib.import_module("openai").OpenAI(api_key="k", base_url=f"{base}/v1")


def _async_openai(base: str) -> Any:
    return importlib.import_module("openai").AsyncOpenAI(api_key="k", base_url=f"{base}/v1")


def openai_chat(base: str) -> None:
    with _openai(base) as client:
        client.chat.completions.create(**CHAT)


async def openai_chat_async(base: str) -> None:
    async with _async_openai(base) as client:
        await client.chat.completions.create(**CHAT)


def openai_chat_stream(base: str) -> None:
    with _openai(base) as client:
        list(client.chat.completions.create(**CHAT_STREAM))


async def openai_chat_stream_async(base: str) -> None:
    async with _async_openai(base) as client:
        async for _ in await client.chat.completions.create(**CHAT_STREAM):
            pass


def openai_responses(base: str) -> None:
    with _openai(base) as client:
        client.responses.create(**RESPONSE)


async def openai_responses_async(base: str) -> None:
    async with _async_openai(base) as client:
        await client.responses.create(**RESPONSE)


def openai_responses_stream(base: str) -> None:
    with _openai(base) as client:
        list(client.responses.create(**RESPONSE, stream=True))


async def openai_responses_stream_async(base: str) -> None:
    async with _async_openai(base) as client:
        async for _ in await client.responses.create(**RESPONSE, stream=True):
            pass


def _anthropic(base: str) -> Any:
    return importlib.import_module("anthropic").Anthropic(api_key="k", base_url=base)


def _async_anthropic(base: str) -> Any:
    return importlib.import_module("anthropic").AsyncAnthropic(api_key="k", base_url=base)


def anthropic_messages(base: str) -> None:
    with _anthropic(base) as client:
        client.messages.create(**MESSAGE)


async def anthropic_messages_async(base: str) -> None:
    async with _async_anthropic(base) as client:
        await client.messages.create(**MESSAGE)


def anthropic_stream(base: str) -> None:
    with _anthropic(base) as client:
        list(client.messages.create(**MESSAGE, stream=True))


async def anthropic_stream_async(base: str) -> None:
    async with _async_anthropic(base) as client:
        async for _ in await client.messages.create(**MESSAGE, stream=True):
            pass


def anthropic_stream_helper(base: str) -> None:
    with _anthropic(base) as client, client.messages.stream(**MESSAGE) as stream:
        list(stream)


async def anthropic_stream_helper_async(base: str) -> None:
    async with _async_anthropic(base) as client, client.messages.stream(**MESSAGE) as stream:
        async for _ in stream:
            pass


def _google(base: str) -> Any:
    genai, types = (importlib.import_module(name) for name in ("google.genai", "google.genai.types"))
    retries = types.HttpRetryOptions(attempts=3, initial_delay=0.01, max_delay=0.02, jitter=0.0)
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=base, retry_options=retries))


def google_generate(base: str) -> None:
    with _google(base) as client:
        client.models.generate_content(**GEMINI)


async def google_generate_async(base: str) -> None:
    async with _google(base).aio as client:
        await client.models.generate_content(**GEMINI)


def google_stream(base: str) -> None:
    with _google(base) as client:
        list(client.models.generate_content_stream(**GEMINI))


async def google_stream_async(base: str) -> None:
    async with _google(base).aio as client:
        async for _ in await client.models.generate_content_stream(**GEMINI):
            pass


def _mistral(base: str) -> Any:
    utils = importlib.import_module("mistralai.client.utils")
    backoff = utils.BackoffStrategy(1, 10, 1.5, 10_000, jitter_ms=1)
    retries = utils.RetryConfig("backoff", backoff, retry_connection_errors=True)
    mistral = importlib.import_module("mistralai.client").Mistral
    return mistral(api_key="k", server_url=base, retry_config=retries)


def mistral_chat(base: str) -> None:
    with _mistral(base) as client:
        client.chat.complete(**MISTRAL)


async def mistral_chat_async(base: str) -> None:
    async with _mistral(base) as client:
        await client.chat.complete_async(**MISTRAL)


def mistral_stream(base: str) -> None:
    with _mistral(base) as client, client.chat.stream(**MISTRAL) as stream:
        list(stream)


async def mistral_stream_async(base: str) -> None:
    async with _mistral(base) as client, await client.chat.stream_async(**MISTRAL) as stream:
        async for _ in stream:
            pass


def _model(kind: str, base: str) -> Any:
    if kind == "anthropic":
        made = importlib.import_module("pydantic_ai.models.anthropic").AnthropicModel
        provider = importlib.import_module("pydantic_ai.providers.anthropic").AnthropicProvider
        return made(MESSAGE["model"], provider=provider(anthropic_client=_async_anthropic(base)))
    models = importlib.import_module("pydantic_ai.models.openai")
    provider = importlib.import_module("pydantic_ai.providers.openai").OpenAIProvider
    made, name = {
        "openai": (models.OpenAIChatModel, CHAT["model"]),
        "responses": (models.OpenAIResponsesModel, RESPONSE["model"]),
    }[kind]
    return made(name, provider=provider(openai_client=_async_openai(base)))


def _request(kind: str, base: str) -> tuple[Any, Any]:
    message = importlib.import_module("pydantic_ai.messages").ModelRequest
    return _model(kind, base), [message.user_text_prompt("How much?")]


def _pydantic_ai_calls(kind: str) -> dict[str, Ask]:
    def whole(base: str) -> None:
        importlib.import_module("pydantic_ai.direct").model_request_sync(*_request(kind, base))

    async def whole_async(base: str) -> None:
        await importlib.import_module("pydantic_ai.direct").model_request(*_request(kind, base))

    async def stream_async(base: str) -> None:
        made = importlib.import_module("pydantic_ai.direct").model_request_stream(*_request(kind, base))
        async with made as stream:
            async for _ in stream:
                pass

    named = {"": whole, "_async": whole_async, "_stream_async": stream_async}
    return {f"pydantic_ai_{kind}{end}": ask for end, ask in named.items()}


for _kind in ("openai", "responses", "anthropic"):
    globals().update(_pydantic_ai_calls(_kind))


# --- The makers of spans


def _instrument(module: str, name: str, **given: Any) -> None:
    getattr(importlib.import_module(module), name)().instrument(**given)


def genai(providers: dict[str, Any]) -> None:
    _instrument("opentelemetry.instrumentation.genai.openai", "OpenAIInstrumentor", **providers)
    _instrument("opentelemetry.instrumentation.genai.anthropic", "AnthropicInstrumentor", **providers)
    _instrument("opentelemetry.instrumentation.google_genai", "GoogleGenAiSdkInstrumentor", **providers)


def openinference(providers: dict[str, Any]) -> None:
    given = {"tracer_provider": providers["tracer_provider"]}
    _instrument("openinference.instrumentation.openai", "OpenAIInstrumentor", **given)
    _instrument("openinference.instrumentation.anthropic", "AnthropicInstrumentor", **given)


def openllmetry(providers: dict[str, Any]) -> None:
    _instrument("opentelemetry.instrumentation.openai", "OpenAIInstrumentor", **providers)
    _instrument("opentelemetry.instrumentation.anthropic", "AnthropicInstrumentor", **providers)


def logfire(providers: dict[str, Any]) -> None:
    made = importlib.import_module("logfire")
    made.configure(send_to_logfire=False, console=False, metrics=False, inspect_arguments=False)
    made.instrument_openai()
    made.instrument_anthropic()


def pydantic_ai(providers: dict[str, Any]) -> None:
    settings = importlib.import_module("pydantic_ai.models.instrumented").InstrumentationSettings
    importlib.import_module("pydantic_ai").Agent.instrument_all(settings(**providers))


def openlit(providers: dict[str, Any]) -> None:
    importlib.import_module("openlit").init(application_name="app", environment="test")


def none(providers: dict[str, Any]) -> None:
    """Only what an SDK does by itself."""


# --- What came of a call


def _plain(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "scope": span.instrumentation_scope.name,
        "kind": span.kind.name,
        "id": span.context.span_id,
        "parent": None if span.parent is None else span.parent.span_id,
        "attributes": dict(span.attributes or {}),
        "events": [[event.name, dict(event.attributes or {})] for event in span.events],
        "status": span.status.status_code.name,
    }


def _points(reader: InMemoryMetricReader) -> list[dict[str, Any]]:
    found = reader.get_metrics_data()
    return [
        {
            "name": metric.name,
            "scope": scope.scope.name,
            "count": getattr(point, "count", None),
            "sum": getattr(point, "sum", getattr(point, "value", None)),
            "attributes": dict(point.attributes or {}),
        }
        for resource in (found.resource_metrics if found else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


def main() -> None:
    asked = json.loads(sys.stdin.read())
    log = _Kept()
    logging.getLogger().addHandler(log)
    spans = InMemorySpanExporter()
    delta: dict[type, AggregationTemporality] = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
    reader = InMemoryMetricReader(preferred_temporality=delta)
    meters = MeterProvider([reader])
    if "logfire" in asked["makers"]:
        logfire({})
        traces: Any = trace.get_tracer_provider()
        traces.add_span_processor(SimpleSpanProcessor(spans))
    else:
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(spans))
        trace.set_tracer_provider(traces)
        metrics.set_meter_provider(meters)
    if not asked.get("is_late", False):
        _make(asked, traces, meters)
    tm.configure(tracer_provider=traces, meter_provider=meters, hosts=asked["hosts"], instrument=asked["is_seen"])
    if asked.get("is_late", False):
        _make(asked, traces, meters)
    for name, base in asked["calls"]:
        spans.clear()
        reader.get_metrics_data()
        log.lines.clear()
        ask: Ask = globals()[name]
        error = None
        with tm.flow("work", max_cost_usd=100.0) as run, tm.step("ask"):
            try:
                asyncio.run(ask(base)) if inspect.iscoroutinefunction(ask) else ask(base)
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
        found = {
            "name": name,
            "error": error,
            "calls": run.llm_calls,
            "retries": run.retries,
            "tokens": run.tokens,
            "cost": run.cost_usd,
            "spans": [_plain(span) for span in spans.get_finished_spans()],
            "points": _points(reader),
            "log": list(log.lines),
        }
        sys.stdout.write(f"{MARK}{json.dumps(found, default=str)}\n")
        sys.stdout.flush()


def _make(asked: dict[str, Any], traces: Any, meters: MeterProvider) -> None:
    for maker in asked["makers"]:
        if maker != "logfire":
            globals()[maker]({"tracer_provider": traces, "meter_provider": meters})


if __name__ == "__main__":
    main()
