"""Prints a reply as it is streamed, then its tokens, its cost and the time to its first text.

The example needs no key and no server.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

MODELS = {"fake": "fake/toy-1", "openai": "openai/gpt-4o-mini"}
TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens
ANSWER = "A stream delivers the reply while the model writes it, one word at a time."


async def read_aloud(model: str) -> int:
    client = FakeLLMClient(30, text=ANSWER, chunk_gap_ms=20) if model.startswith("fake/") else None
    started, first_text_s = time.perf_counter(), 0.0
    async with tm.llm_stream(model, "Why stream a reply?", max_tokens=100, client=client) as stream:
        try:
            async for text in stream.text_deltas():
                first_text_s = first_text_s or time.perf_counter() - started
                print(text, end="", flush=True)
        except tm.LLMError as error:
            print(f"failed: {error}")
            return 1
    if reply := stream.result:
        cost = "price unknown" if reply.cost_usd is None else f"${reply.cost_usd:.6f}"
        print(f"\n{reply.usage.total_tokens} tokens, {cost}, first text after {first_text_s * 1000:.0f} ms")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=sorted(MODELS), default="fake", help="openai needs OPENAI_API_KEY")
    parser.add_argument("--model", help="provider and model, such as openai/gpt-4o; each provider has a default")
    parser.add_argument("--file", default="streaming.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
    arguments = parser.parse_args()
    model = arguments.model or MODELS[arguments.provider]
    with tm.configure(service_name="streaming", file=arguments.file, prices=[TOY_PRICE]):
        exit_code = asyncio.run(read_aloud(model))
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return exit_code


if __name__ == "__main__":
    raise SystemExit(main())
