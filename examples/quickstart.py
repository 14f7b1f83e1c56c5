"""Runs one flow with one model call and prints the answer, the cost and how to view the trace.

The example needs no key and no server.
"""

from __future__ import annotations

import argparse

import tracemind_otel as tm

MODELS = {"fake": "fake/toy-1", "openai": "openai/gpt-4o-mini"}
TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens


@tm.flow
def greet(name: str, model: str) -> tm.LLMResult:
    return tm.llm_call_sync(model, "Say hello to {{ name }}.", vars={"name": name})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=sorted(MODELS), default="fake", help="openai needs OPENAI_API_KEY")
    parser.add_argument("--file", default="quickstart.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
    arguments = parser.parse_args()

    with tm.configure(service_name="quickstart", file=arguments.file, prices=[TOY_PRICE]):
        try:
            reply = greet("TraceMind", MODELS[arguments.provider])
        except tm.LLMError as error:
            print(f"failed: {error}")
            return 1

    tokens, cost = reply.usage.total_tokens, reply.cost_usd
    print(reply.text)
    print(f"{tokens} tokens, " + ("price unknown" if cost is None else f"${cost:.6f}"))
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
