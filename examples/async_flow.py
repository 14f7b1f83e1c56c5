"""Decorates an existing async flow, with a session for each run and a shared budget.

Only the decorators were added to the functions of the flow. The example needs no key and no server.
"""

from __future__ import annotations

import argparse
import asyncio
import logging

import tracemind_otel as tm

MODELS = {"fake": "fake/toy-1", "openai": "openai/gpt-4o-mini"}
TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens
DOCUMENTS = {
    "tracing": ["A trace is a tree of spans.", "A span has a start and an end.", "An event is a moment in a span."],
    "metrics": ["A counter only goes up.", "A histogram has buckets."],
}


def session_of(topic: str, session: str, model: Model) -> str:
    return session


class Model:
    """The application's own model client."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def ask(self, prompt: str) -> str:
        try:
            return (await tm.llm_call(self._name, prompt, max_tokens=40)).text
        except tm.BudgetExceededError:
            return "(over budget)"


@tm.tool
def retrieve(topic: str) -> list[str]:
    return DOCUMENTS[topic]


@tm.step
async def summarise(text: str, model: Model) -> str:
    return await model.ask(f"Summarise: {text}")


@tm.agent
async def research(topic: str, model: Model) -> list[str]:
    return await asyncio.gather(*(summarise(text, model) for text in retrieve(topic)))


@tm.flow(session_id=session_of, tags=["example"])
async def report(topic: str, session: str, model: Model) -> str:
    return await model.ask(" ".join(await research(topic, model)))


async def run(model: Model) -> tuple[list[str], tm.budget]:
    with tm.budget(max_llm_calls=6, name="the example") as spending:
        reports = await asyncio.gather(report("tracing", "session-1", model), report("metrics", "session-2", model))
    return list(reports), spending


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=sorted(MODELS), default="fake", help="openai needs OPENAI_API_KEY")
    parser.add_argument("--file", default="async_flow.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
    arguments = parser.parse_args()
    logging.getLogger("tracemind_otel").setLevel(logging.ERROR)  # hides the warning about the denied call
    with tm.configure(service_name="async-flow", file=arguments.file, prices=[TOY_PRICE]):
        reports, spending = asyncio.run(run(Model(MODELS[arguments.provider])))
    for text in reports:
        print(text)
    spent = spending.spent
    print(f"{spent.llm_calls} calls, {spent.tokens} tokens, ${spent.cost_usd:.6f}; the seventh call was not sent")
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
