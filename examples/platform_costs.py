"""Cost and retries that a platform team groups by team and by reason, in its own Prometheus.

Without arguments the program prints what its flows cost and the queries to ask. With `--endpoint` it sends the metrics
to an OTLP receiver, such as the Collector of `make stack`, from which Prometheus scrapes them. It needs no key.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections import defaultdict

import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 150, "output": 600})  # USD per million tokens
QUERIES = {
    "cost by team": "sum by (team) (tracemind_llm_cost_USD_total)",
    "retries by reason": "sum by (tracemind_retry_reason) (tracemind_llm_retries_total)",
    "denied calls by budget": "sum by (tracemind_budget_name) (tracemind_llm_denied_calls_total)",
}


def team_of(question: str, team: str) -> str:
    return team


@tm.flow("answer", attributes={"team": team_of})
async def answer(question: str, team: str) -> float | None:
    """One request of a team. The provider is busy at first, and then fails once."""
    busy = FakeLLMClient(1, script=["429 retry-after=0.1", "503 retry-after=0.1"])
    reply = await tm.llm_call("toy-1", question, client=busy)
    return reply.cost_usd


@tm.flow("digest", attributes={"team": "news"}, max_llm_calls=1)
async def digest() -> float | None:
    """A flow whose second call its budget denies."""
    reply = await tm.llm_call("fake/toy-1", "What happened today?")
    try:
        await tm.llm_call("fake/toy-1", "And yesterday?")
    except tm.BudgetExceededError as error:
        print(error)
    return reply.cost_usd


async def run() -> dict[str, float]:
    costs: defaultdict[str, float] = defaultdict(float)
    for team in ("search", "search", "ads"):
        costs[team] += await answer("What does it cost?", team) or 0.0
    costs["news"] += await digest() or 0.0
    return costs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", help="base URL of an OTLP receiver, for instance http://localhost:4318")
    parser.add_argument("--service", default="platform", help="name of the service (`job` in Prometheus)")
    arguments = parser.parse_args()
    logging.getLogger("tracemind_otel").setLevel(logging.ERROR)  # hides the warning about the denied call
    file = None if arguments.endpoint else "platform_costs.otlp.jsonl"
    with tm.configure(
        service_name=arguments.service,
        endpoint=arguments.endpoint,
        file=file,
        prices=[TOY_PRICE],
        metric_attributes=["team"],
    ):
        costs = asyncio.run(run())
    for team, usd in costs.items():
        print(f"{team}: ${usd:.6f}")
    for question, query in QUERIES.items():
        print(f"{question}: {query}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
