"""Faults that new users found stay fixed."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any, cast

import pytest
from opentelemetry.sdk.metrics.export import NumberDataPoint

import tracemind_otel as tm
from tests.support import Captured, attributes
from tests.wire.canned import read_whole
from tracemind_otel.ai.llm.providers._loop import PerLoop
from tracemind_otel.otel.current import Providers, configured_providers, use_providers
from tracemind_otel.otel.setup.aggregation import OwnInstruments
from tracemind_otel.otel.setup.settings import export_config


class Client(tm.AsyncLLMClient):
    """A client that answers with the given usage."""

    provider_name = "MyCorp"

    def __init__(self, usage: Any) -> None:
        self._usage = usage

    async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
        return tm.LLMResponse("text", self._usage)


async def call(client: tm.AsyncLLMClient, recorder: tm.Recorder, **options: Any) -> dict[str, Any]:
    config = tm.LLMCallConfig("mycorp", "m", prompt="p", **options)
    return await tm.run_llm_call("f", "s", config, recorder, client=client)


async def test_a_total_alone_is_not_a_price_of_zero(capture: Captured) -> None:
    """A reply that reports only a total has unknown usage: no cost, no token attributes, one unpriced call."""
    document = {"choices": [{"message": {"content": "x"}}], "usage": {"total_tokens": 1500}}
    usage = (await read_whole("openai", document)).usage
    result = await call(Client(tm.LLMUsage(0, 0, usage.total_tokens)), capture.recorder())
    assert result["usage"]["cost_usd"] is None
    assert capture.total("tracemind.llm.unpriced_calls") == 1
    assert "gen_ai.usage.input_tokens" not in attributes(capture.span("chat m"))


@pytest.mark.parametrize(
    "usage",
    [
        tm.LLMUsage(cast("int", None), cast("int", None), cast("int", None)),
        tm.LLMUsage(10, 5, 15, float("nan")),
        tm.LLMUsage(10, 5, 15, -5.0),
        tm.LLMUsage(-10, 5, -5),
        tm.LLMUsage(cast("int", "10"), 5, 15),
        tm.LLMUsage(10, 5, 15, cast("float", Decimal("0.01"))),
    ],
    ids=["none", "nan", "negative-cost", "negative-tokens", "text", "decimal"],
)
async def test_odd_usage_neither_breaks_the_call_nor_the_sums(capture: Captured, usage: tm.LLMUsage) -> None:
    """Invalid counts and costs are dropped; the call succeeds, its span ends, and the flow's sums stay right."""

    @tm.flow(name="odd")
    async def run() -> dict[str, Any]:
        return await call(Client(usage), capture.recorder())

    assert (await run())["status"] == "ok"
    assert len(capture.spans) == 2
    totals = attributes(capture.span("invoke_workflow odd"))
    assert totals["tracemind.flow.input_tokens"] in (0, 10)
    assert totals.get("tracemind.flow.cost_usd") in (None, 0.01)


async def test_ones_own_price_is_found_whatever_the_case_of_the_provider(capture: Captured) -> None:
    """A user's price is found whatever the case of the provider's name, and may be a float."""
    tm.set_prices([tm.Price(model="m", provider="MyCorp", input=cast("Decimal", 1.0), output=Decimal(2))])
    result = await call(Client(tm.LLMUsage(1_000_000, 1_000_000, 2_000_000)), capture.recorder())
    assert result["usage"]["cost_usd"] == 3.0


async def test_a_recorder_made_before_configure_writes_where_configure_says(capture: Captured) -> None:
    """A recorder that was made before `configure()` uses its providers, so that each counter exists once."""
    before = configured_providers()
    early = tm.OTelRecorder()
    own = OwnInstruments(is_delta=False)
    use_providers(
        Providers(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instruments=own)
    )
    try:
        for recorder in (early, tm.OTelRecorder(), tm.OTelRecorder(meter_provider=capture.meter_provider)):
            await call(Client(tm.LLMUsage(1, 1, 2, 1.0)), recorder)
    finally:
        use_providers(before)
    exported = own.collect()
    assert exported is not None
    [points] = [metric.data.data_points for metric in exported.metrics if metric.name == "tracemind.llm.cost"]
    assert [point.value for point in points if isinstance(point, NumberDataPoint)] == [3.0]
    assert capture.points("tracemind.llm.cost") == []


async def test_a_prompt_in_extra_is_kept_out_of_errors_too(capture: Captured) -> None:
    """Messages in `extra` are kept out of errors as the prompt is."""
    secret = "the patient Ada Lovelace, born 1815, has a broken arm"

    class Repeats(Client):
        async def complete(self, req: tm.LLMRequest) -> tm.LLMResponse:
            raise tm.LLMRequestError(f"invalid input: {secret}", status_code=400)

    extra = {"messages": [{"role": "system", "content": secret}]}
    result = await call(Repeats(None), capture.recorder(), extra=extra)
    assert secret not in result["reason"]
    assert secret not in capture.spans[0].to_json()


def test_a_factory_that_cannot_be_called_is_rejected_at_once() -> None:
    """`register` rejects a factory with the wrong parameters, before the first call."""

    def without_options() -> tm.AsyncLLMClient:
        return Client(None)

    with pytest.raises(tm.ConfigError, match="api_key= and base_url="):
        tm.LLMClientFactory.register("acme", cast("Any", without_options))


async def test_a_client_of_the_wrong_type_is_rejected() -> None:
    """The error for an object that is no client names its type."""
    with pytest.raises(tm.ConfigError, match="client is object; it must be an AsyncLLMClient"):
        await call(cast("tm.AsyncLLMClient", object()), tm.Recorder())


def test_loops_that_were_closed_badly_are_let_go() -> None:
    """The next event loop lets go of the values of loops that were closed without closing their generators."""
    abandoned = list[list[int]]()

    async def nothing(value: list[int]) -> None:
        value.clear()

    held: PerLoop[list[int]] = PerLoop(list, nothing, abandoned.append)
    for _ in range(3):
        loop = asyncio.new_event_loop()

        async def use() -> None:
            held.get()

        loop.run_until_complete(use())
        loop.close()
    assert len(abandoned) == 2


def test_each_signal_has_its_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_EXPORTER_OTLP_TRACES_PROTOCOL` applies to the traces only."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    config = export_config(endpoint=None, protocol=None, headers=None, file=None)
    assert config.protocols == {"traces": "grpc", "metrics": "http/protobuf"}
    assert config.destination("traces") == "http://localhost:4317"
