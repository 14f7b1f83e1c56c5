"""A decorated flow through the real Collector, into the real Jaeger and the real Prometheus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import trace

import tracemind_otel as tm
from tests.e2e.backends import Span, Stack
from tests.servers.fixture import OpenAIServer, running_server
from tracemind_otel.ai.llm.providers import FakeLLMClient

pytestmark = pytest.mark.e2e

SERVICE = "tracemind-e2e"
MODEL = "gpt-4o-mini"
ANSWERED_BY = "gpt-4o-mini-2024-07-18"


@dataclass(frozen=True)
class SpanScope:
    """One run of the flow: the results of its steps, and its spans in Jaeger."""

    results: dict[str, dict[str, Any]]
    spans: list[Span]
    server_port: int

    def flow(self) -> Span:
        return next(span for span in self.spans if span["name"] == "invoke_workflow digest")

    def step(self) -> Span:
        return next(span for span in self.spans if span["name"] == "enrich")

    def call(self, step_id: str) -> Span:
        return next(span for span in self.spans if span["attributes"].get("tracemind.step.id") == step_id)


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    """A server with OpenAI's wire format, in a process of its own."""
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def run(stack: Stack, server: OpenAIServer) -> SpanScope:
    """Five calls: fake and OpenAI format, one with two retries, one that fails."""
    results, trace_id = asyncio.run(run_flow(stack.otlp_http, server))
    return SpanScope(results, stack.wait_for_trace(trace_id, spans=7), server.port)


async def run_flow(endpoint: str, server: OpenAIServer) -> tuple[dict[str, dict[str, Any]], str]:
    async with tm.configure(
        service_name=SERVICE,
        endpoint=endpoint,
        resource={"deployment.environment.name": "test"},
        metric_attributes=["team"],
    ) as telemetry:
        results, trace_id = await digest(telemetry.recorder, server)
        assert await telemetry.aflush(timeout_s=20)
    return results, trace_id


@tm.flow(name="digest", attributes={"team": "search"})
async def digest(recorder: tm.Recorder, server: OpenAIServer) -> tuple[dict[str, dict[str, Any]], str]:
    calls = Calls(recorder, server)
    plain, recovers = await asyncio.gather(calls.openai("plain"), calls.recovers())
    results = {
        "plain": plain,
        "recovers": recovers,
        "fails": await calls.fails(),
        "fake": await calls.fake(),
        "nested": await enrich(calls),
    }
    return results, f"{trace.get_current_span().get_span_context().trace_id:032x}"


@tm.step(name="enrich", attributes={"tracemind.test": True})
async def enrich(calls: Calls) -> dict[str, Any]:
    return await calls.openai("nested")


class Calls:
    """The model calls of the flow."""

    def __init__(self, recorder: tm.Recorder, server: OpenAIServer) -> None:
        self._recorder = recorder
        self._server = server
        self._client = tm.LLMClientFactory.make("openai", api_key="sk-e2e", base_url=server.base_url)

    async def openai(self, step_id: str, model: str = MODEL) -> dict[str, Any]:
        config = tm.LLMCallConfig("openai", model, prompt="Hello there", temperature=0.5, top_p=0.9)
        return await tm.run_llm_call("e2e", step_id, config, self._recorder, client=self._client)

    async def recovers(self) -> dict[str, Any]:
        limited = {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}
        model = self._server.script(
            {"status": 429, "headers": {"retry-after-ms": "40"}, "body": json.dumps(limited)},
            {"status": 503, "headers": {"retry-after-ms": "60"}, "body": "upstream is away"},
            {"do": "echo"},
        )
        return await self.openai("recovers", model)

    async def fails(self) -> dict[str, Any]:
        denied = {"error": {"message": "no such model", "type": "invalid_request_error", "code": "model_not_found"}}
        return await self.openai("fails", self._server.script({"status": 404, "body": json.dumps(denied)}))

    async def fake(self) -> dict[str, Any]:
        config = tm.LLMCallConfig("fake", "toy-1", prompt="one two three")
        return await tm.run_llm_call("e2e", "fake", config, self._recorder, client=FakeLLMClient(latency_ms=1))


def test_trace_has_the_shape_of_the_flow(run: SpanScope) -> None:
    """Jaeger shows one flow span, the step below it, and each call as a CLIENT span below its caller."""
    flow, step = run.flow(), run.step()
    assert len([span for span in run.spans if not span["name"].startswith("attempt")]) == 7
    assert (flow["kind"], flow["parent_id"], flow["status"]) == ("INTERNAL", None, "UNSET")
    assert (step["kind"], step["parent_id"], step["attributes"]["tracemind.test"]) == (
        "INTERNAL",
        flow["span_id"],
        True,
    )
    for step_id, parent in (("plain", flow), ("recovers", flow), ("fails", flow), ("fake", flow), ("nested", step)):
        call = run.call(step_id)
        assert (call["kind"], call["parent_id"]) == ("CLIENT", parent["span_id"])
        assert call["name"] == f"chat {run.results[step_id]['model']}"
        assert flow["start_ns"] <= call["start_ns"] <= call["end_ns"] <= flow["end_ns"]


def test_a_retried_call_shows_its_attempts(run: SpanScope) -> None:
    """Jaeger has the three attempts below the call that recovers, with status, reason and the waits as gaps."""
    call = run.call("recovers")
    made = sorted((s for s in run.spans if s["parent_id"] == call["span_id"]), key=lambda span: span["start_ns"])
    assert [span["name"] for span in made] == ["attempt 1", "attempt 2", "attempt 3"]
    assert [span["attributes"].get("tracemind.retry.reason") for span in made] == ["rate_limit", "server_error", None]
    assert [span["status"] for span in made] == ["ERROR", "ERROR", "UNSET"]
    assert made[1]["start_ns"] - made[0]["end_ns"] >= 39_000_000
    assert not any(name.startswith("gen_ai.") for span in made for name in span["attributes"])


def test_resource_is_what_was_configured(run: SpanScope) -> None:
    """The service name and resource attributes of `configure` are on every span's resource."""
    for span in run.spans:
        assert span["resource"]["service.name"] == SERVICE
        assert span["resource"]["deployment.environment.name"] == "test"


def test_call_carries_every_attribute(run: SpanScope) -> None:
    """A call in OpenAI's format has exactly the attributes of the design, with the values of its result."""
    result, usage = run.results["plain"], run.results["plain"]["usage"]
    assert run.call("plain")["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "server.address": "127.0.0.1",
        "server.port": run.server_port,
        "tracemind.flow.id": "e2e",
        "tracemind.step.id": "plain",
        "gen_ai.workflow.name": "digest",
        "tracemind.step.type": "ai.llm_call",
        "gen_ai.response.id": result["response_id"],
        "gen_ai.response.model": ANSWERED_BY,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        "gen_ai.usage.cache_read.input_tokens": usage["cache_read_tokens"],
        "gen_ai.usage.reasoning.output_tokens": usage["reasoning_tokens"],
        "gen_ai.usage.cost": usage["cost_usd"],
        "tracemind.cost_usd": usage["cost_usd"],
        "tracemind.cost.source": "local",
        "tracemind.cost.bucket": "lt_0.001",
        "tracemind.cost.input_usd": usage["input_cost_usd"],
        "tracemind.cost.cached_usd": usage["cached_cost_usd"],
        "tracemind.cost.output_usd": usage["output_cost_usd"],
        "tracemind.cost.fees_usd": usage["fees_usd"],
        "tracemind.cost.table": usage["cost_table"],
        "tracemind.usage.audio.input_tokens": usage["input_audio_tokens"],
        "tracemind.usage.audio.output_tokens": usage["output_audio_tokens"],
        "openai.response.service_tier": "default",
        "tracemind.retry.count": 0,
    }
    assert usage["cost_usd"] == pytest.approx((600 * 0.15 + 400 * 0.075 + 200 * 0.60) / 1e6, abs=1e-12)


def test_fake_call_costs_nothing(run: SpanScope) -> None:
    """The fake provider's cost is zero, not unknown, and it has no server."""
    attributes = run.call("fake")["attributes"]
    assert attributes["tracemind.cost_usd"] == 0.0
    assert attributes["gen_ai.provider.name"] == "fake"
    assert "server.address" not in attributes


def test_recovered_call_tells_its_retries_and_no_error(run: SpanScope) -> None:
    """Two failed attempts are two events with their delays, and the recovered call has no error."""
    call = run.call("recovers")
    assert call["status"] == "UNSET"
    assert call["attributes"]["tracemind.retry.count"] == 2
    assert "error.type" not in call["attributes"]
    assert [(event["name"], event["attributes"]) for event in call["events"]] == [
        (
            "tracemind.retry",
            {
                "tracemind.retry.attempt": 1,
                "tracemind.retry.max_attempts": 3,
                "tracemind.retry.delay_s": 0.04,
                "tracemind.retry.reason": "rate_limit",
                "error.type": "rate_limit_exceeded",
                "http.response.status_code": 429,
            },
        ),
        (
            "tracemind.retry",
            {
                "tracemind.retry.attempt": 2,
                "tracemind.retry.max_attempts": 3,
                "tracemind.retry.delay_s": 0.06,
                "tracemind.retry.reason": "server_error",
                "error.type": "503",
                "http.response.status_code": 503,
            },
        ),
    ]


def test_failed_call_carries_its_error(run: SpanScope) -> None:
    """A failed call has status ERROR, `error.type`, the HTTP status and one exception event, and no cost."""
    call = run.call("fails")
    assert (call["status"], call["status_message"]) == ("ERROR", "HTTP 404: no such model")
    assert call["attributes"]["error.type"] == run.results["fails"]["error_type"] == "model_not_found"
    assert call["attributes"]["http.response.status_code"] == 404
    assert [event["name"] for event in call["events"]] == ["exception"]
    assert not [name for name in call["attributes"] if "cost" in name or "usage" in name]


def test_flow_carries_the_sums(run: SpanScope) -> None:
    """The flow's span has the cost, tokens, calls and retries of all five calls."""
    usages = [result["usage"] for result in run.results.values() if result["status"] == "ok"]
    attributes = run.flow()["attributes"]
    assert attributes["tracemind.flow.cost_usd"] == pytest.approx(sum(u["cost_usd"] for u in usages), abs=1e-12)
    assert attributes["tracemind.flow.input_tokens"] == sum(u["prompt_tokens"] for u in usages)
    assert attributes["tracemind.flow.output_tokens"] == sum(u["completion_tokens"] for u in usages)
    assert attributes["tracemind.flow.llm_calls"] == 5
    assert attributes["tracemind.flow.retries"] == 2
    assert attributes["gen_ai.workflow.name"] == "digest"


def test_trace_is_found_by_search(run: SpanScope, stack: Stack) -> None:
    """Jaeger finds the trace by service and operation."""
    found = stack.search_traces(SERVICE, operation="invoke_workflow digest")
    assert run.flow()["trace_id"] in found


def test_prometheus_has_the_cost_to_the_last_digit(run: SpanScope, stack: Stack) -> None:
    """The scraped cost equals the sum of the results to 1e-9, per team and flow."""
    expected = sum(result["usage"]["cost_usd"] for result in run.results.values() if result["status"] == "ok")
    query = 'sum(tracemind_llm_cost_USD_total{team="search",gen_ai_workflow_name="digest"})'
    [sample] = stack.wait_for_metric(query, until=lambda samples: samples[0]["value"] > 0)
    assert abs(sample["value"] - expected) < 1e-9


def test_prometheus_has_the_retries_and_the_error(run: SpanScope, stack: Stack) -> None:
    """Retries are counted, and failed calls are grouped by `error_type`."""
    [retries] = stack.wait_for_metric('sum(tracemind_llm_retries_total{gen_ai_workflow_name="digest"})')
    assert retries["value"] == 2
    query = 'sum(gen_ai_client_operation_duration_seconds_count{error_type="model_not_found"})'
    [failures] = stack.wait_for_metric(query)
    assert failures["value"] == 1
