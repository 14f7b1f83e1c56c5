"""The metrics of a call: names, units, buckets, attributes and sums."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import pytest
from opentelemetry.sdk.metrics.export import Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum

from tests.support import Captured, calls
from tracemind_otel import flow
from tracemind_otel.ai.llm import AsyncLLMClient, LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.errors import LLMError, LLMRateLimitError
from tracemind_otel.otel import semconv
from tracemind_otel.otel.metrics import AttributeCache
from tracemind_otel.otel.recorder import OTelRecorder
from tracemind_otel.steps.ai_llm_call import LLMCallConfig, run_llm_call

P = TypeVar("P", NumberDataPoint, HistogramDataPoint)

OURS = {
    "tracemind.llm.cost": "USD",
    "tracemind.llm.call.cost": "USD",
    "tracemind.llm.retries": "{retry}",
    "tracemind.llm.unpriced_calls": "{call}",
}
TODAY = {
    "gen_ai.client.operation.duration": "s",
    "gen_ai.client.token.usage": "{token}",
    "tracemind.llm.cache.tokens": "{token}",
}
NEWEST = {
    "gen_ai.client.inference.duration": "s",
    "gen_ai.client.inference.usage.input_tokens": "{token}",
    "gen_ai.client.inference.usage.output_tokens": "{token}",
    "gen_ai.client.inference.usage.cache_read.input_tokens": "{token}",
    "gen_ai.client.inference.usage.cache_write.input_tokens": "{token}",
    "gen_ai.client.inference.usage.reasoning.output_tokens": "{token}",
    "gen_ai.client.inference.operation.input_tokens": "{token}",
    "gen_ai.client.inference.operation.output_tokens": "{token}",
}
"""Names and units from semantic-conventions-genai, metrics.yaml and token-metrics.yaml (November 2026)."""

DURATION_S = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
MONEY = [
    *(0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
]
BOUNDARIES = {
    "gen_ai.client.operation.duration": DURATION_S,
    "gen_ai.client.inference.duration": DURATION_S,
    "gen_ai.client.token.usage": TOKENS,
    "gen_ai.client.inference.operation.input_tokens": TOKENS,
    "gen_ai.client.inference.operation.output_tokens": TOKENS,
    "tracemind.llm.call.cost": MONEY,
}

BASE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "server.address": "api.example.com",
    "server.port": 443,
}
USAGE = LLMUsage(1_000, 500, 1_500, cache_read_tokens=800, cache_write_tokens=50, reasoning_tokens=400)
REPLY = LLMResponse("hi", USAGE, response_id="never-an-attribute", response_model="gpt-4o-mini-2024-07-18")
OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"


class Client(AsyncLLMClient):
    """A client that returns or raises the given outcomes in turn; the last one repeats."""

    provider_name = "openai"
    server_address = "api.example.com"
    server_port = 443

    def __init__(self, *outcomes: LLMResponse | LLMError) -> None:
        self._outcomes = list(outcomes)

    async def complete(self, req: LLMRequest) -> LLMResponse:
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, LLMError):
            raise outcome
        return outcome


def rate_limited() -> LLMError:
    return LLMRateLimitError("slow down", status_code=429, retry_after_s=0.001)


async def call(
    capture: Captured, *outcomes: LLMResponse | LLMError, model: str = "gpt-4o-mini", **options: Any
) -> dict[str, Any]:
    cfg = LLMCallConfig("openai", model, "hi")
    return await run_llm_call("flow-1", "step-1", cfg, capture.recorder(**options), client=Client(*outcomes))


def metrics_of(capture: Captured) -> dict[str, Metric]:
    data = capture.reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def point(capture: Captured, metric: str, kind: type[P], **attributes: Any) -> P:
    """The one data point of a metric with these attributes among its own."""
    found = [p for p in capture.points(metric) if attributes.items() <= (p.attributes or {}).items()]
    assert len(found) == 1
    assert isinstance(found[0], kind)
    return found[0]


# --- Names, units, boundaries ---


@pytest.mark.parametrize(
    ("opt_in", "expected"),
    [
        (None, OURS | TODAY),
        ("", OURS | TODAY),
        ("http,database/dup", OURS | TODAY),
        ("gen_ai_latest_experimental", OURS | NEWEST),
        ("http, gen_ai_latest_experimental ,database", OURS | NEWEST),
        ("gen_ai_latest_experimental/dup", OURS | TODAY | NEWEST),
        ("gen_ai_latest_experimental,gen_ai_latest_experimental/dup", OURS | TODAY | NEWEST),
    ],
)
async def test_names_and_units(
    capture: Captured, monkeypatch: pytest.MonkeyPatch, opt_in: str | None, expected: Mapping[str, str]
) -> None:
    """Metrics have today's names by default, the newest on request, both with `/dup`, and the package's own always."""
    if opt_in is not None:
        monkeypatch.setenv(OPT_IN, opt_in)
    await call(capture, rate_limited(), REPLY)
    await call(capture, LLMResponse("hi", LLMUsage(1, 1, 2)), model="no-such-model")
    assert {name: metric.unit for name, metric in metrics_of(capture).items()} == expected


async def test_kinds_and_boundaries(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Histograms have suitable buckets; every other metric is a monotonic sum."""
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental/dup")
    await call(capture, rate_limited(), REPLY)
    metrics = metrics_of(capture)
    histograms = {name for name, metric in metrics.items() if isinstance(metric.data, Histogram)}
    assert histograms == set(BOUNDARIES)
    for name, expected in BOUNDARIES.items():
        found = capture.points(name)[0]
        assert isinstance(found, HistogramDataPoint)
        assert list(found.explicit_bounds) == pytest.approx(expected)
    sums = [metric.data for name, metric in metrics.items() if name not in histograms]
    assert all(isinstance(data, Sum) and data.is_monotonic for data in sums)


# --- Values ---


async def test_todays_values(capture: Captured) -> None:
    """Tokens by type, where input includes the cached part and output the reasoning; duration; cost."""
    await call(capture, REPLY)
    tokens = {(p.attributes or {})["gen_ai.token.type"]: p for p in capture.points("gen_ai.client.token.usage")}
    assert {kind: p.sum for kind, p in tokens.items() if isinstance(p, HistogramDataPoint)} == {
        "input": 1_000,
        "output": 500,
    }
    duration = point(capture, "gen_ai.client.operation.duration", HistogramDataPoint)
    assert (duration.count, duration.sum > 0) == (1, True)
    assert capture.total("tracemind.llm.cost") == capture.total("tracemind.llm.call.cost")


async def test_the_newest_values(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each count of tokens has its own counter, and subsets are not added to the totals."""
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental")
    await call(capture, REPLY)
    prefix = "gen_ai.client.inference."
    assert {name: capture.total(name) for name in NEWEST if name.endswith("tokens")} == {
        f"{prefix}usage.input_tokens": 1_000,
        f"{prefix}usage.output_tokens": 500,
        f"{prefix}usage.cache_read.input_tokens": 800,
        f"{prefix}usage.cache_write.input_tokens": 50,
        f"{prefix}usage.reasoning.output_tokens": 400,
        f"{prefix}operation.input_tokens": 1_000,
        f"{prefix}operation.output_tokens": 500,
    }


async def test_the_duration_is_the_spans(capture: Captured) -> None:
    """The metric and the span have the same duration."""
    await call(capture, rate_limited(), REPLY)
    [span] = calls(capture.spans)
    assert span.end_time is not None
    assert span.start_time is not None
    duration = point(capture, "gen_ai.client.operation.duration", HistogramDataPoint)
    assert duration.sum == pytest.approx((span.end_time - span.start_time) / 1e9)


async def test_sums_equal_the_results(capture: Captured) -> None:
    """The counters equal the sums of the results over many calls and models, to a billionth."""
    models = ("gpt-4o-mini", "gpt-4o", "gpt-3.5-turbo", "no-such-model")
    replies = [
        (models[n % len(models)], LLMResponse("hi", LLMUsage(37 * n + 1, 11 * n + 1, 48 * n + 2))) for n in range(200)
    ]
    results = await asyncio.gather(*(call(capture, rate_limited(), reply, model=model) for model, reply in replies))
    costs = [result["usage"]["cost_usd"] for result in results]
    priced = [cost for cost in costs if cost is not None]
    assert len(priced) == 150
    assert capture.total("tracemind.llm.cost") == pytest.approx(math.fsum(priced), abs=1e-9)
    assert capture.total("tracemind.llm.call.cost") == pytest.approx(math.fsum(priced), abs=1e-9)
    assert capture.total("tracemind.llm.unpriced_calls") == costs.count(None)
    assert capture.total("tracemind.llm.retries") == sum(result["retries"] for result in results)
    assert capture.total("gen_ai.client.token.usage") == sum(reply.usage.total_tokens or 0 for _, reply in replies)


async def test_money_falls_into_different_buckets(capture: Captured) -> None:
    """The boundaries of the cost histogram separate cheap calls from expensive ones."""
    for cost in (0.000002, 0.0003, 0.02, 3.0):
        await call(capture, LLMResponse("hi", LLMUsage(1, 1, 2, cost)))
    counts = point(capture, "tracemind.llm.call.cost", HistogramDataPoint).bucket_counts
    assert sorted(counts)[-5:] == [0, 1, 1, 1, 1]


# --- What is not measured ---


async def test_a_failed_call(capture: Captured) -> None:
    """A failed call has a duration with its `error.type`, and neither cost nor tokens nor an unpriced count.

    What its attempt before presumably cost, which timed out, has a counter of its own.
    """
    await call(capture, LLMError("no", code="bad_request"))
    assert set(metrics_of(capture)) == {
        "gen_ai.client.operation.duration",
        "tracemind.llm.presumed_cost",
        "tracemind.llm.retries",
    }
    duration = point(capture, "gen_ai.client.operation.duration", HistogramDataPoint)
    assert (duration.attributes or {})["error.type"] == "bad_request"


async def test_a_failed_call_by_the_newest_names(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed call counts as zero tokens of unknown modality, as the conventions require."""
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental")
    await call(capture, LLMError("no", code="bad_request"))
    for name in ("gen_ai.client.inference.usage.input_tokens", "gen_ai.client.inference.usage.output_tokens"):
        found = point(capture, name, NumberDataPoint)
        assert (found.value, (found.attributes or {})["gen_ai.token.modality"]) == (0, "unknown")


@pytest.mark.parametrize("usage", [LLMUsage(), LLMUsage(5, 5, 10, estimated=True)])
async def test_tokens_that_were_not_reported(
    capture: Captured, monkeypatch: pytest.MonkeyPatch, usage: LLMUsage
) -> None:
    """The histogram of reported tokens gets no estimates, and no zeros for unknown counts."""
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental/dup")
    await call(capture, LLMResponse("hi", usage))
    assert not [name for name in metrics_of(capture) if "token" in name]


@pytest.mark.parametrize(("usage", "side"), [(LLMUsage(7, None, None), "input"), (LLMUsage(None, 7, None), "output")])
async def test_a_half_that_was_reported_alone(
    capture: Captured, monkeypatch: pytest.MonkeyPatch, usage: LLMUsage, side: str
) -> None:
    """A count that was reported alone is measured; the other is not zero, and the price is unknown."""
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental/dup")
    await call(capture, LLMResponse("hi", usage))
    (tokens,) = capture.points("gen_ai.client.token.usage")
    assert isinstance(tokens, HistogramDataPoint)
    assert (tokens.sum, (tokens.attributes or {})["gen_ai.token.type"]) == (7, side)
    newest = {name for name in metrics_of(capture) if name in NEWEST and name.endswith("tokens")}
    assert newest == {f"gen_ai.client.inference.{kind}.{side}_tokens" for kind in ("usage", "operation")}
    assert capture.total("tracemind.llm.unpriced_calls") == 1


async def test_retries_begin_at_zero(capture: Captured) -> None:
    """The series exists from the first call on, so that `rate()` sees the first retry."""
    await call(capture, REPLY)
    assert point(capture, "tracemind.llm.retries", NumberDataPoint).value == 0


async def test_priced_calls_are_not_counted_as_unpriced(capture: Captured) -> None:
    """An alert on unpriced calls is silent while every price is known."""
    await call(capture, REPLY)
    assert capture.total("tracemind.llm.unpriced_calls") == 0


# --- Attributes ---


@pytest.mark.parametrize(
    ("metric", "more"),
    [
        ("tracemind.llm.cost", {}),
        ("tracemind.llm.call.cost", {}),
        ("gen_ai.client.operation.duration", {}),
        ("gen_ai.client.inference.duration", {}),
        ("gen_ai.client.inference.usage.input_tokens", {"gen_ai.token.modality": "text"}),
        ("gen_ai.client.inference.usage.reasoning.output_tokens", {"gen_ai.token.modality": "text"}),
        ("gen_ai.client.inference.operation.input_tokens", {}),
    ],
)
async def test_attributes(
    capture: Captured, monkeypatch: pytest.MonkeyPatch, metric: str, more: Mapping[str, str]
) -> None:
    """The metrics have exactly these attributes, and no id of a flow, step, reply or request."""
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental/dup")
    await call(capture, rate_limited(), REPLY)
    assert [dict(p.attributes or {}) for p in capture.points(metric)] == [{**BASE, **more}]


async def test_attributes_of_todays_tokens(capture: Captured) -> None:
    """The token histogram has input and output, and no other type."""
    await call(capture, REPLY)
    found = [dict(p.attributes or {}) for p in capture.points("gen_ai.client.token.usage")]
    assert found == [{**BASE, "gen_ai.token.type": kind} for kind in ("input", "output")]


async def test_an_unpriced_call_is_counted_by_model(capture: Captured) -> None:
    """The counter names the model that has no price."""
    await call(capture, LLMResponse("hi", LLMUsage(1, 1, 2)), model="no-such-model")
    found = point(capture, "tracemind.llm.unpriced_calls", NumberDataPoint)
    expected = {**BASE, "gen_ai.request.model": "no-such-model"}
    del expected["gen_ai.response.model"]
    assert (found.value, dict(found.attributes or {})) == (1, expected)


async def test_the_flow_is_an_attribute_by_name(capture: Captured) -> None:
    """The flow's name, never its id, is on every metric of its calls."""

    @flow(name="answer")
    async def answer() -> None:
        await call(capture, REPLY)

    await answer()
    assert dict(point(capture, "tracemind.llm.cost", NumberDataPoint).attributes or {}) == {
        **BASE,
        "gen_ai.workflow.name": "answer",
    }


async def test_what_the_user_names(capture: Captured) -> None:
    """A flow attribute that the user names is on the metrics, from the nearest flow that has it."""

    @flow(name="inner", attributes={"tier": "gold", "ticket": "T-1"})
    async def inner() -> None:
        await call(capture, REPLY, metric_attributes=["team", "tier", "nobody.has.this"])

    @flow(name="outer", attributes={"team": "search", "tier": "none"})
    async def outer() -> None:
        await inner()

    await outer()
    assert dict(point(capture, "tracemind.llm.cost", NumberDataPoint).attributes or {}) == {
        **BASE,
        "gen_ai.workflow.name": "inner",
        "team": "search",
        "tier": "gold",
    }


async def test_what_the_user_names_outside_a_flow(capture: Captured) -> None:
    """Metrics of a call outside any flow lack the flow's attributes."""
    await call(capture, REPLY, metric_attributes=["team"])
    assert dict(point(capture, "tracemind.llm.cost", NumberDataPoint).attributes or {}) == BASE


def test_attributes_that_python_takes_for_equal(capture: Captured) -> None:
    """The flow attributes 1, True and 1.0 make a series each."""
    recorder = capture.recorder(metric_attributes=["team"])
    cfg = LLMCallConfig("openai", "gpt-4o-mini", "hi")
    teams = [1, True, 1.0]
    for team in teams:
        in_flow = flow(name="f", attributes={"team": team})(run_llm_call)
        asyncio.run(in_flow("flow-1", "step-1", cfg, recorder, client=Client(REPLY)))
    found = [(point.attributes or {})["team"] for point in capture.points("tracemind.llm.retries")]
    assert sorted(map(repr, found)) == sorted(map(repr, teams))


def test_the_cache_of_attributes_is_bounded() -> None:
    """Any number of models needs bounded memory, and the attributes stay right."""
    cache = AttributeCache()
    first = cache.get(("model", "absent"), ("m-0", None))
    for n in range(1, 5_000):
        assert cache.get(("model", "absent"), (f"m-{n}", None)).plain == {"model": f"m-{n}"}
    assert cache.get(("model", "absent"), ("m-1", None)) is cache.get(("model", "absent"), ("m-1", None))
    assert cache.get(("model", "absent"), ("m-0", None)) is not first


# --- Exemplars ---


@pytest.mark.parametrize("metric", ["gen_ai.client.operation.duration", "tracemind.llm.call.cost"])
async def test_exemplars_lead_to_the_trace(capture: Captured, metric: str) -> None:
    """The exemplar of an expensive or slow call has its span's ids."""
    await call(capture, REPLY)
    exemplars, context = capture.points(metric)[0].exemplars, capture.spans[0].context
    assert context is not None
    assert [(exemplar.trace_id, exemplar.span_id) for exemplar in exemplars] == [(context.trace_id, context.span_id)]


def test_a_recorder_keeps_the_names_it_began_with(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder keeps the names that were chosen when it was made, so that a process mixes no two sets."""
    recorder = capture.recorder()
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental")
    asyncio.run(run_llm_call("f", "s", LLMCallConfig("openai", "gpt-4o-mini", "hi"), recorder, client=Client(REPLY)))
    assert isinstance(recorder, OTelRecorder)
    assert set(TODAY) <= set(metrics_of(capture))


class Embedder(Client):
    """A client whose calls make embeddings."""

    operation = "embeddings"


async def test_embeddings_have_metrics_of_their_own(capture: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the newest names they are no inference: a duration and the input tokens."""
    monkeypatch.setenv(OPT_IN, "gen_ai_latest_experimental")
    client = Embedder(LLMResponse("", LLMUsage(1_000, None, 1_000)))
    await run_llm_call("f", "s", LLMCallConfig("openai", "m", prompt="hi"), capture.recorder(), client=client)
    names = {name for name in metrics_of(capture) if name.startswith("gen_ai.")}
    assert names == {"gen_ai.client.embeddings.duration", "gen_ai.client.embeddings.operation.input_tokens"}
    tokens = point(capture, "gen_ai.client.embeddings.operation.input_tokens", HistogramDataPoint)
    assert tokens.sum == 1_000


@pytest.mark.parametrize(("opted", "url"), [("", ""), ("gen_ai_latest_experimental", semconv.SCHEMA_URL)])
async def test_a_schema_is_named_only_where_the_names_are_of_it(
    capture: Captured, monkeypatch: pytest.MonkeyPatch, opted: str, url: str
) -> None:
    """Names that the newest schema no longer has are sent under none."""
    monkeypatch.setenv(OPT_IN, opted)
    await call(capture, REPLY)
    data = capture.reader.get_metrics_data()
    assert data is not None
    assert {scope.schema_url or "" for each in data.resource_metrics for scope in each.scope_metrics} == {url}
