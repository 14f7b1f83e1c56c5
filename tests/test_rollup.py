"""The sums of a flow equal a ledger that is kept beside it."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

import tracemind_otel as tm
from tests.support import Captured, attributes
from tracemind_otel.ai.llm import LLMRequest, LLMResponse, LLMUsage
from tracemind_otel.errors import LLMConnectionError, LLMRateLimitError
from tracemind_otel.flows.totals import FlowRun, current_flow

FLOWS, CALLS = 200, 20
SUMS = ("cost_usd", "input_tokens", "output_tokens", "llm_calls", "retries")


@dataclass
class Entry:
    """The ledger's entry of a flow: counted by the client, not by the flow."""

    calls: list[tuple[LLMUsage | None, int]] = field(default_factory=list[tuple[LLMUsage | None, int]])
    nested: list[str] = field(default_factory=list[str])


class DeliveryStats:
    """Sums that the caller keeps, under a lock of its own."""

    def __init__(self) -> None:
        self.entries: defaultdict[str, Entry] = defaultdict(Entry)
        self._lock = threading.Lock()

    def note_call(self, flow: str, usage: LLMUsage | None, retries: int) -> None:
        with self._lock:
            self.entries[flow].calls.append((usage, retries))

    def note_nested(self, outer: str, inner: str) -> None:
        with self._lock:
            self.entries[outer].nested.append(inner)

    def own(self, flow: str) -> list[tuple[LLMUsage | None, int]]:
        return self.entries[flow].calls

    def everything(self, flow: str) -> list[tuple[LLMUsage | None, int]]:
        entry = self.entries[flow]
        return [*entry.calls, *(call for inner in entry.nested for call in self.everything(inner))]


class SeededClient(tm.AsyncLLMClient):
    """A client whose prompt decides how often it fails, and which usage it then reports."""

    provider_name = "openai"

    def __init__(self, usage: LLMUsage | None, failures: int) -> None:
        self._usage, self._failures = usage, failures

    async def complete(self, req: LLMRequest) -> LLMResponse:
        await asyncio.sleep(0)
        if self._failures:
            self._failures -= 1
            raise LLMRateLimitError("slow down", status_code=429, retry_after_s=0.0)
        if self._usage is None:
            raise LLMConnectionError("gone", retryable=False)
        return LLMResponse("answer", self._usage)


async def call(ledger: DeliveryStats, flow: str, seed: int, recorder: tm.Recorder) -> None:
    """A call that is priced, unpriced, failed or retried, by its seed."""
    chance = random.Random(seed)
    tokens = chance.randrange(1, 5_000), chance.randrange(1, 2_000)
    cost = None if chance.random() < 0.1 else chance.random() / 7
    usage = None if chance.random() < 0.05 else LLMUsage(*tokens, sum(tokens), cost)
    failures = chance.choice((0, 0, 0, 1, 2))
    config = tm.LLMCallConfig("openai", "no-such-model", prompt=flow)
    result = await tm.run_llm_call(flow, "step", config, recorder, client=SeededClient(usage, failures))
    assert (result["status"] == "ok") == (usage is not None)
    ledger.note_call(flow, usage, result["retries"])


async def run_flow(ledger: DeliveryStats, number: int, recorder: tm.Recorder) -> None:
    """Twenty calls in the flow itself, in tasks, in a nested flow, and in a thread with its own loop."""
    name = f"flow-{number}"
    shape = number % 4

    @tm.flow(name=name)
    async def flat() -> None:
        await asyncio.gather(*(call(ledger, name, number * CALLS + n, recorder) for n in range(CALLS)))

    @tm.flow(name=name)
    async def nested() -> None:
        for n in range(CALLS // 2):
            await call(ledger, name, number * CALLS + n, recorder)
        ledger.note_nested(name, f"{name}-inner")
        await inner()

    @tm.flow(name=f"{name}-inner")
    async def inner() -> None:
        for n in range(CALLS // 2, CALLS):
            await call(ledger, f"{name}-inner", number * CALLS + n, recorder)

    def in_a_thread(numbers: range) -> None:
        async def calls() -> None:
            await asyncio.gather(*(call(ledger, name, number * CALLS + n, recorder) for n in numbers))

        asyncio.run(calls())

    @tm.flow(name=name)
    async def threaded() -> None:
        await asyncio.to_thread(in_a_thread, range(CALLS // 2))
        with ThreadPoolExecutor(1) as pool:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(pool, tm.carry_context(in_a_thread), range(CALLS // 2, CALLS))

    @tm.flow(name=name)
    async def stepped() -> None:
        @tm.step(name="step")
        async def step(n: int) -> None:
            await call(ledger, name, number * CALLS + n, recorder)

        await asyncio.gather(*(step(n) for n in range(CALLS)))

    await (flat, nested, threaded, stepped)[shape]()


def expected(calls: list[tuple[LLMUsage | None, int]]) -> dict[str, float]:
    """The sums by the ledger; no cost where no call was priced."""
    usages = [usage for usage, _ in calls if usage is not None]
    costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    sums: dict[str, float] = {
        "input_tokens": sum(usage.prompt_tokens or 0 for usage in usages),
        "output_tokens": sum(usage.completion_tokens or 0 for usage in usages),
        "llm_calls": len(calls),
        "retries": sum(retries for _, retries in calls),
    }
    return sums | ({"cost_usd": sum(costs)} if costs else {})


def recorded(span: ReadableSpan, prefix: str) -> dict[str, float]:
    found = attributes(span)
    return {name: found[f"{prefix}{name}"] for name in SUMS if f"{prefix}{name}" in found}


def id_of(span: ReadableSpan) -> int:
    assert isinstance(span.context, SpanContext)
    return span.context.span_id


def ancestors(span: ReadableSpan, by_id: dict[int, ReadableSpan]) -> Iterator[ReadableSpan]:
    while span.parent is not None:
        span = by_id[span.parent.span_id]
        yield span


async def test_two_hundred_flows_at_once(capture: Captured) -> None:
    """Every flow's own and inclusive sums equal the ledger to 1e-9, and each call is where it was made."""
    ledger, recorder = DeliveryStats(), tm.OTelRecorder()
    await asyncio.gather(*(run_flow(ledger, number, recorder) for number in range(FLOWS)))
    spans = capture.spans
    flows = {str(attributes(s)["gen_ai.workflow.name"]): s for s in spans if s.name.startswith("invoke_workflow")}
    assert set(flows) == {f"flow-{n}" for n in range(FLOWS)} | {f"flow-{n}-inner" for n in range(1, FLOWS, 4)}
    for name, span in flows.items():
        assert recorded(span, "tracemind.flow.") == pytest.approx(expected(ledger.everything(name)), abs=1e-9)
        assert recorded(span, "tracemind.flow.own.") == pytest.approx(expected(ledger.own(name)), abs=1e-9)
    by_id = {id_of(span): span for span in spans}
    calls = [span for span in spans if span.name == "chat no-such-model"]
    assert len(calls) == FLOWS * CALLS
    for span in calls:
        around = next(a for a in ancestors(span, by_id) if a.name.startswith("invoke_workflow"))
        assert attributes(around)["gen_ai.workflow.name"] == attributes(span)["tracemind.flow.id"]


async def test_own_sums_add_up_to_the_whole(capture: Captured) -> None:
    """The own sums of all flows add up to all calls, however the flows nest."""
    ledger, recorder = DeliveryStats(), tm.OTelRecorder()
    await asyncio.gather(*(run_flow(ledger, number, recorder) for number in range(16)))
    flows = [span for span in capture.spans if span.name.startswith("invoke_workflow")]
    whole = expected([each for entry in ledger.entries.values() for each in entry.calls])
    added = {name: sum(recorded(span, "tracemind.flow.own.").get(name, 0) for span in flows) for name in SUMS}
    assert added == pytest.approx(whole, abs=1e-9)


async def test_a_late_call(capture: Captured) -> None:
    """A call that outlives its flow is in no sum of its span, and does no harm."""
    gate = asyncio.Event()

    async def late() -> None:
        await gate.wait()
        await call(DeliveryStats(), "late", 3, tm.Recorder())

    @tm.flow
    async def leaves_it_behind() -> asyncio.Task[None]:
        return asyncio.create_task(late())

    task = await leaves_it_behind()
    gate.set()
    await task
    assert attributes(capture.span("invoke_workflow leaves_it_behind"))["tracemind.flow.llm_calls"] == 0


@pytest.mark.soak
def test_threads_that_add_at_once() -> None:
    """No call is lost when many threads end calls of one flow at once."""
    outer = FlowRun("outer")
    inner = FlowRun("inner", parent=outer)
    usage = LLMUsage(3, 2, 5, 0.25)

    def add() -> None:
        for _ in range(2_000):
            inner.add_call(usage, retries=1, step="s", model="fake/m")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = outer.totals()
    assert everything == inner.totals() == inner.own_totals()
    assert (everything.llm_calls, everything.retries, everything.input_tokens) == (16_000, 16_000, 48_000)
    assert everything.cost_usd == 4_000.0
    assert outer.own_totals().llm_calls == 0
    assert current_flow() is None


def test_halves_that_are_known_are_summed() -> None:
    """A call that reported one count adds that count and leaves the other as it is."""
    scope = FlowRun("f")
    for usage in (LLMUsage(10, None, None), LLMUsage(None, 3, None), LLMUsage(5, 2, 7), LLMUsage(None, None, None)):
        scope.add_call(usage, retries=0, step="s", model="fake/m")
    totals = scope.totals()
    assert (totals.input_tokens, totals.output_tokens, totals.llm_calls, totals.cost_usd) == (15, 5, 4, None)
