"""An attempt whose reply was lost has a presumed cost, against a server that keeps a ledger of what it bills."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import ExitStack
from functools import partial
from typing import Any

import openai
import pytest
from opentelemetry.sdk.metrics.export import NumberDataPoint

import tracemind_otel as tm
from tests.servers.billing_server import INPUT_USD, MODEL, OUTPUT_USD, BillingServer, running_billing_server
from tests.servers.fixture import closed_port
from tests.support import Captured, attributes, calls, events
from tracemind_otel.ai.llm.providers import OpenAILLMClient

pytestmark = pytest.mark.usefixtures("no_waits")

PRESUMED = "tracemind.cost.presumed_usd"
OUTPUT = 40


@pytest.fixture
def server() -> Generator[BillingServer]:
    with running_billing_server() as running:
        yield running


@pytest.fixture(autouse=True)
def seen(capture: Captured) -> Generator[None]:
    """Calls, flows and the calls of SDKs are recorded here."""
    with tm.configure(tracer_provider=capture.tracer_provider, meter_provider=capture.meter_provider, instrument=False):
        yield


async def ask(base_url: str, script: str, *, is_streamed: bool = False, **options: Any) -> dict[str, Any]:
    """Make one call, whose attempts the server treats as the script says; returns its result, however it ended."""
    async with OpenAILLMClient("sk-test", base_url) as client:
        options = {"client": client, "timeout_ms": 300, "step": "ask", **options}
        try:
            if not is_streamed:
                return dict((await tm.llm_call(f"openai/{MODEL}", script, **options)).as_dict())
            async with tm.llm_stream(f"openai/{MODEL}", script, **options) as stream:
                async for _ in stream:
                    pass
            assert stream.result is not None
            return dict(stream.result.as_dict())
        except tm.LLMError as error:
            return error.result or {}


def price(script: str, output: int) -> float:
    """What the server bills for an attempt."""
    return -(-len(script) // 4) * INPUT_USD + output * OUTPUT_USD


def presumed_on_spans(capture: Captured) -> list[float]:
    """The presumed costs on the calls' spans and on their retry events."""
    spans = calls(capture.spans)
    on_events = [dict(event.attributes or {}) for span in spans for event in span.events]
    found = [held[PRESUMED] for held in (*(attributes(span) for span in spans), *on_events) if PRESUMED in held]
    return [float(value) for value in found if isinstance(value, float)]


def counted(capture: Captured, name: str) -> float:
    return sum(point.value for point in capture.points(name) if isinstance(point, NumberDataPoint))


# --- The bill


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_the_bill_is_the_cost_and_the_presumed_cost(
    capture: Captured, server: BillingServer, is_streamed: bool
) -> None:
    """The provider's ledger is the sum of costs and presumed costs, where it counts as the estimate does."""
    scripts = ["answer", "hang answer", "reset reset answer", "503 answer", "hang", "garbage"]
    scripts += [] if is_streamed else ["cut answer", "cut"]

    @tm.flow(name="work")
    async def work() -> None:
        for script in scripts:
            await ask(server.base_url(OUTPUT), script, is_streamed=is_streamed, max_retries=2)

    await work()
    costs = [float(attributes(span).get("tracemind.cost_usd", 0.0)) for span in calls(capture.spans)]
    presumed = presumed_on_spans(capture)
    assert sum(costs) + sum(presumed) == pytest.approx(server.billed_usd(), rel=1e-9)
    assert sum(presumed) > 0.0
    assert counted(capture, "tracemind.llm.presumed_cost") == pytest.approx(sum(presumed))
    assert counted(capture, "tracemind.llm.cost") == pytest.approx(sum(costs))
    flow = attributes(capture.span("invoke_workflow work"))
    assert flow["tracemind.flow.presumed_cost_usd"] == pytest.approx(sum(presumed))
    assert flow["tracemind.flow.own.presumed_cost_usd"] == pytest.approx(sum(presumed))


async def test_where_it_is_told(capture: Captured, server: BillingServer) -> None:
    """A repeated attempt has it on its event, the last one on the span, and the result has the sum of both."""
    await ask(server.base_url(OUTPUT), "answer")
    result = await ask(server.base_url(OUTPUT), "hang reset", max_retries=1)
    span = calls(capture.spans)[-1]
    [event] = events(span, "tracemind.retry")
    each = price("hang reset", OUTPUT)
    assert (event[PRESUMED], attributes(span)[PRESUMED]) == (pytest.approx(each), pytest.approx(each))
    assert result["presumed_cost_usd"] == pytest.approx(2 * each)
    assert "tracemind.cost_usd" not in attributes(span)
    assert "usage" not in result


async def test_its_labels(capture: Captured, server: BillingServer) -> None:
    """The counter has the attributes of the cost counter, and the `error.type` of the attempt."""
    await ask(server.base_url(OUTPUT), "reset answer")
    [presumed], [cost] = capture.points("tracemind.llm.presumed_cost"), capture.points("tracemind.llm.cost")
    labels, usual = dict(presumed.attributes or {}), dict(cost.attributes or {})
    assert labels.pop("error.type") == "LLMConnectionError"
    assert usual.pop("gen_ai.response.model") == MODEL
    assert labels == usual


async def test_a_reply_after_a_lost_one(server: BillingServer) -> None:
    """The result of a call that succeeded in the end has its own cost, and beside it that of the lost reply."""
    async with OpenAILLMClient("sk-test", server.base_url(OUTPUT)) as client:
        ask_again = partial(tm.llm_call, f"openai/{MODEL}", client=client, timeout_ms=300)
        first, again = await ask_again("answer"), await ask_again("hang answer")
    assert (first.presumed_cost_usd, "presumed_cost_usd" in first.as_dict()) == (None, False)
    assert again.cost_usd == pytest.approx(price("hang answer", OUTPUT))
    assert again.presumed_cost_usd == pytest.approx(price("hang answer", OUTPUT))


async def test_a_request_that_is_sent_again_within_an_attempt(capture: Captured, server: BillingServer) -> None:
    """A busy connection that breaks costs no attempt, but its request may be billed: the span tells it."""
    async with OpenAILLMClient("sk-test", server.base_url(OUTPUT)) as client:
        await tm.llm_call(f"openai/{MODEL}", "answer", client=client)
        result = await tm.llm_call(f"openai/{MODEL}", "reset answer", client=client)
    assert result.retries == 0
    assert attributes(calls(capture.spans)[-1])[PRESUMED] == pytest.approx(price("reset answer", OUTPUT))
    assert result.cost_usd == result.presumed_cost_usd
    costs = [attributes(span)["tracemind.cost_usd"] for span in calls(capture.spans)]
    assert sum(costs) + sum(presumed_on_spans(capture)) == pytest.approx(server.billed_usd())


# --- The estimate


async def test_before_any_reply_only_the_input_counts(capture: Captured, server: BillingServer) -> None:
    """Nobody knows the output of the first reply that is lost: `max_tokens` is no expectation."""
    await ask(server.base_url(OUTPUT), "hang answer", max_tokens=4000)
    assert presumed_on_spans(capture) == [pytest.approx(price("hang answer", 0))]


async def test_the_usual_output_counts(capture: Captured, server: BillingServer) -> None:
    """The mean of earlier replies to the same step is expected, up to the limit of the request."""
    for output in (10, 30):
        await ask(server.base_url(output), f"answer {output}", max_tokens=4000)
    await ask(server.base_url(OUTPUT), "answer", step="another", max_tokens=4000)
    await ask(server.base_url(OUTPUT), "hang answer", max_tokens=4000)
    await ask(server.base_url(OUTPUT), "hang  answer", max_tokens=15)
    expected = [price("hang answer", 20), price("hang  answer", 15)]
    assert presumed_on_spans(capture)[:1] == [pytest.approx(expected[0])]
    assert presumed_on_spans(capture)[1] == pytest.approx(expected[1])


async def test_a_model_without_a_price(capture: Captured, server: BillingServer) -> None:
    """Where the price is unknown, nothing is presumed: absent, and not zero."""
    async with OpenAILLMClient("sk-test", server.base_url(OUTPUT)) as client:
        with pytest.raises(tm.LLMError) as caught:
            await tm.llm_call("openai/nobody-knows-1", "reset", client=client, max_retries=1)
    assert presumed_on_spans(capture) == []
    assert "presumed_cost_usd" not in (caught.value.result or {})
    assert capture.points("tracemind.llm.presumed_cost") == []


# --- What was not billed


async def test_what_was_rejected_or_refused_is_free(capture: Captured, server: BillingServer) -> None:
    """A status that is an error, and a connection that is refused, are billed by nobody."""
    await ask(server.base_url(OUTPUT), "503 429 answer")
    await ask(f"http://127.0.0.1:{closed_port()}/v1", "refused", max_retries=1)
    assert presumed_on_spans(capture) == []


async def test_a_connection_that_is_not_made_in_time_is_free(capture: Captured) -> None:
    """A time-out before there is a connection is billed by nobody: nothing was sent."""
    with ExitStack() as open_:
        listener = open_.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):  # the queue of connections is full: the next one waits
            waiting = open_.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        result = await ask(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", "never sent", max_retries=1)
    assert result["error_type"] == "timeout"
    assert presumed_on_spans(capture) == []


# --- Calls that are given up


async def test_a_cancelled_call(capture: Captured, server: BillingServer) -> None:
    """A call that is cancelled while the model runs has it on its span."""
    await ask(server.base_url(OUTPUT), "answer")
    task = asyncio.create_task(ask(server.base_url(OUTPUT), "hang", timeout_ms=30_000))
    await asyncio.to_thread(server.wait_for_requests, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert presumed_on_spans(capture) == [pytest.approx(price("hang", OUTPUT))]
    assert attributes(calls(capture.spans)[-1])["tracemind.cancelled"] is True


async def test_a_stream_that_breaks_off_has_a_cost(capture: Captured, server: BillingServer) -> None:
    """What came before a stream broke off is its cost, estimated; it is not presumed a second time."""
    await ask(server.base_url(OUTPUT), "answer", is_streamed=True)
    await ask(server.base_url(OUTPUT), "cut", is_streamed=True)
    found = attributes(calls(capture.spans)[-1])
    assert found["tracemind.usage.estimated"] is True
    assert 0 < found["gen_ai.usage.output_tokens"] < OUTPUT
    assert found["tracemind.cost_usd"] == pytest.approx(price("cut", found["gen_ai.usage.output_tokens"]))
    assert presumed_on_spans(capture) == []


async def test_a_budget_holds_the_worst_case(server: BillingServer) -> None:
    """A budget counts a lost reply as all that the request allows, because its limit must hold."""
    with tm.budget(max_cost_usd=1.0) as spending:
        await ask(server.base_url(OUTPUT), "hang answer", max_tokens=4000)
    assert spending.spent.presumed_cost_usd == pytest.approx(price("hang answer", 4000))


# --- Calls of SDKs


def test_calls_of_an_sdk(capture: Captured, server: BillingServer) -> None:
    """The attempts of OpenAI's SDK are told alike, repeated and given up; the bill is cost and presumed cost."""
    tm.instrument(hosts={f"127.0.0.1:{server.port}": "openai"})
    try:
        with openai.OpenAI(api_key="k", base_url=server.base_url(OUTPUT), max_retries=1, timeout=0.5) as client:

            @tm.step(name="ask")
            def ask_sdk(script: str) -> None:
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": script}])

            ask_sdk("answer")
            ask_sdk("hang answer")
            ask_sdk("503 answer")
            with pytest.raises(openai.APIConnectionError):
                ask_sdk("reset")
    finally:
        tm.uninstrument()
    costs = [float(attributes(span).get("tracemind.cost_usd", 0.0)) for span in calls(capture.spans)]
    presumed = presumed_on_spans(capture)
    assert len(presumed) == 3
    assert sum(costs) + sum(presumed) == pytest.approx(server.billed_usd(), rel=1e-9)
    assert counted(capture, "tracemind.llm.presumed_cost") == pytest.approx(sum(presumed))


def test_a_stream_of_an_sdk_that_is_closed_early(capture: Captured, server: BillingServer) -> None:
    """A stream that an SDK's user leaves before its usage has come is presumed, since nothing of it is priced."""
    tm.instrument(hosts={f"127.0.0.1:{server.port}": "openai"})
    try:
        with openai.OpenAI(api_key="k", base_url=server.base_url(OUTPUT), max_retries=0) as client:
            ask: Any = partial(client.chat.completions.create, model=MODEL, stream=True)
            for script, is_read in (("answer", True), ("cut", False)):
                with tm.step(name="ask"), ask(messages=[{"role": "user", "content": script}]) as stream:
                    for _ in stream:
                        if not is_read:
                            break
    finally:
        tm.uninstrument()
    assert presumed_on_spans(capture) == [pytest.approx(price("cut", OUTPUT))]
    assert "tracemind.cost_usd" not in attributes(calls(capture.spans)[-1])
