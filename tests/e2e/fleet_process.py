"""One process of the fleet: it makes calls of which everything is known, and prints what is true of them as JSON.

    python fleet_process.py ENDPOINT JOB FLOW TEAM

Without a flow (an empty string) its calls have no flow, no team and no budget.
"""

from __future__ import annotations

import json
import sys
import time

import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient
from tracemind_otel.ai.llm.types import LLMUsage

PRICES = [{"provider": "fake", "model": "toy-1", "input": 150, "output": 600}]
PLAIN_CALLS = 24
LIMIT = 40
"""Model calls of a flow; what comes after is denied."""
SPIKE_USD = 2.5
CACHED = LLMUsage(prompt_tokens=100, completion_tokens=10, cache_read_tokens=40, cache_write_tokens=5)
SPIKE = LLMUsage(prompt_tokens=1000, completion_tokens=100, cost_usd=SPIKE_USD)
EMBEDDED = LLMUsage(prompt_tokens=7, cost_usd=0.001)
RETRIED = {
    "rate_limit": "429 retry-after=0.01",
    "server_error": "503 retry-after=0.01",
    "connection": "connection",
    "invalid_response": "invalid",
    "timeout": "timeout",
}
"""Each reason for a retry, and an attempt that fails for it."""


class WithoutPrice(FakeLLMClient):
    """A provider whose models have prices, but not this one."""

    provider_name = "openai"


class Embedder(FakeLLMClient):
    """A provider of embeddings, whose metrics have names of their own under the newest conventions."""

    operation = "embeddings"


class Process:
    """Makes the calls, and keeps what is true of them."""

    def __init__(self, job: str, flow: str, team: str) -> None:
        self.labels = {"job": job, "gen_ai_workflow_name": flow, "team": team}
        self.facts: list[dict[str, object]] = []

    def fact(self, measure: str, value: float, **labels: str) -> None:
        self.facts.append({"measure": measure, "value": value, "labels": {**self.labels, **labels}})

    def ask(
        self,
        client: FakeLLMClient,
        *,
        model: str = "toy-1",
        step: str = "draft",
        error: str = "",
        at_least_ms: float = 1,
        timeout_ms: int = 30_000,
    ) -> None:
        """One call, which fails if an error is given."""
        labels = {"gen_ai_request_model": model, "tracemind_step_id": step}
        self.fact("least_seconds", at_least_ms / 1000, **labels)
        started = time.monotonic()
        try:
            result = tm.llm_call_sync(model, "one two three", client=client, step=step, timeout_ms=timeout_ms)
        except tm.LLMError:
            assert error
            self.ended(started, None, error, labels)
        else:
            assert not error
            self.ended(started, result.usage, "", labels)

    def stream(self, *, model: str, step: str) -> None:
        """One streamed call."""
        labels = {"gen_ai_request_model": model, "tracemind_step_id": step}
        self.fact("least_seconds", 0.02, **labels)
        self.fact("least_first_chunk_seconds", 0.02, **labels)
        started = time.monotonic()
        stream = tm.llm_stream_sync(model, "one two three", client=FakeLLMClient(20), step=step)
        for number, _ in enumerate(stream):
            if number == 0:
                self.fact("first_chunk_seconds", time.monotonic() - started, **labels)
        assert stream.result is not None
        self.ended(started, stream.result.usage, "", labels)

    def ended(self, started: float, usage: LLMUsage | None, error: str, labels: dict[str, str]) -> None:
        self.fact("seconds", time.monotonic() - started, **labels)
        self.fact("calls", 1, error_type=error, **labels)
        if usage is None:
            return
        if usage.cost_usd is None:
            self.fact("unpriced_calls", 1, **labels)
        else:
            self.fact("cost_usd", usage.cost_usd, **labels)
            self.fact("priced_calls", 1, **labels)
        for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if tokens is not None:
                self.fact("tokens", tokens, gen_ai_token_type=kind, **labels)
        for operation, tokens in (("read", usage.cache_read_tokens), ("write", usage.cache_write_tokens)):
            if tokens is not None:
                self.fact("cache_tokens", tokens, tracemind_cache_operation=operation, **labels)

    def retried(self, reason: str) -> None:
        """A call that succeeds at its second attempt."""
        self.fact("retries", 1, tracemind_retry_reason=reason, gen_ai_request_model="toy-1")
        self.ask(FakeLLMClient(1, script=[RETRIED[reason]]), timeout_ms=1000)

    def usual_calls(self) -> None:
        for _ in range(PLAIN_CALLS):
            self.ask(FakeLLMClient(20), at_least_ms=20)
        self.stream(model="toy-1", step="draft")
        self.ask(FakeLLMClient(1, usage=CACHED), step="review")
        self.ask(Embedder(1, usage=EMBEDDED), model="toy-embed", step="search")
        self.ask(FakeLLMClient(1, script=["400"]), error="400")
        self.ask(FakeLLMClient(1, script=["404"]), step="review", error="404")
        self.ask(WithoutPrice(1), model="a-model-of-nobody")
        self.retried("rate_limit")

    def unusual_calls(self) -> None:
        """Further reasons for retries, one call that costs far more than the others, and calls that are denied."""
        for reason in RETRIED:
            self.retried(reason)
        self.ask(FakeLLMClient(1, usage=SPIKE), model="toy-2", step="review")
        self.fact("presumed_usd", self.presumed_usd(), gen_ai_request_model="toy-1")
        name = self.labels["gen_ai_workflow_name"]
        sent = sum(1 for fact in self.facts if fact["measure"] == "calls")
        for _ in range(LIMIT - sent):
            self.ask(FakeLLMClient(1))
        for _ in range(3):
            try:
                tm.llm_call_sync("toy-1", "Hello", client=FakeLLMClient(1))
            except tm.BudgetExceededError:
                self.fact("denied", 1, tracemind_budget_name=name, gen_ai_request_model="toy-1")
        self.budget(name, "llm_calls", LIMIT, LIMIT)

    def presumed_usd(self) -> float:
        run = tm.current_flow()
        assert run is not None
        assert run.presumed_cost_usd is not None
        return run.presumed_cost_usd

    def budget(self, name: str, kind: str, limit: float, spent: float) -> None:
        self.fact("budget_limit", limit, tracemind_budget_name=name, tracemind_budget_kind=kind)
        self.fact("budget_spent", spent, tracemind_budget_name=name, tracemind_budget_kind=kind)

    def in_flow(self) -> None:
        with tm.budget(name="fleet-block", max_cost_usd=100, on_unknown_price="zero") as spending:
            self.usual_calls()
            self.unusual_calls()
        self.budget("fleet-block", "cost_usd", 100, spending.spent.cost_usd)


def main() -> None:
    """Make the calls and print the facts."""
    endpoint, job, flow, team = sys.argv[1:]
    process = Process(job, flow, team)
    with tm.configure(service_name=job, endpoint=endpoint, prices=PRICES, metric_attributes=["team", "step"]):
        if flow:
            started = time.monotonic()
            tm.flow(flow, attributes={"team": team}, max_llm_calls=LIMIT)(process.in_flow)()
            process.fact("flow_seconds", time.monotonic() - started)
        else:
            process.usual_calls()
    print(json.dumps(process.facts))


if __name__ == "__main__":
    main()
