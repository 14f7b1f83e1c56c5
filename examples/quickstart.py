"""Runs one flow with one model call and prints the answer, the cost and how to view the trace.

The example needs no key and no server.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import tracemind_otel as tm

MODELS = {"fake": "toy-1", "openai": "gpt-4o-mini"}
TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens


@tm.flow
async def greet(name: str, provider: str, recorder: tm.Recorder) -> dict[str, Any]:
    config = tm.LLMCallConfig(provider, MODELS[provider], template="Say hello to {{name}}.", vars={"name": name})
    return await tm.run_llm_call("greet", "say-hello", config, recorder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=sorted(MODELS), default="fake", help="openai needs OPENAI_API_KEY")
    parser.add_argument("--file", default="quickstart.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
    arguments = parser.parse_args()

    with tm.configure(service_name="quickstart", file=arguments.file, prices=[TOY_PRICE]) as telemetry:
        result = asyncio.run(greet("TraceMind", arguments.provider, telemetry.recorder))

    if result["status"] == "error":
        print(f"failed: {result['reason']}")
        return 1
    tokens, cost = result["usage"]["total_tokens"], result["usage"]["cost_usd"]
    print(result["text"])
    print(f"{tokens} tokens, " + ("price unknown" if cost is None else f"${cost:.6f}"))
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
