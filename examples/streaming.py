"""Prints a reply as it is streamed, then its tokens, its cost and the time to its first chunk.

The example needs no key and no server.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import tracemind_otel as tm
from tracemind_otel.ai.llm.providers import FakeLLMClient

MODELS = {"fake": "toy-1", "openai": "gpt-4o-mini"}
TOY_PRICE = tm.Price.from_mapping({"model": "toy-1", "input": 0.15, "output": 0.60})  # USD per million tokens
ANSWER = "A stream delivers the reply while the model writes it, one word at a time."


async def read_aloud(provider: str, model: str, recorder: tm.Recorder) -> int:
    config = tm.LLMCallConfig(provider, model, prompt="Why stream a reply?", max_tokens=100)
    client = FakeLLMClient(30, text=ANSWER, chunk_gap_ms=20) if provider == "fake" else None
    started, first_chunk_s = time.perf_counter(), 0.0
    async with tm.stream_llm_call("read-aloud", "answer", config, recorder, client=client) as stream:
        try:
            async for event in stream:
                first_chunk_s = first_chunk_s or time.perf_counter() - started
                if isinstance(event, tm.TextDelta):
                    print(event.text, end="", flush=True)
                elif isinstance(event, tm.Finish):
                    usage = event.response.usage
                    cost = "price unknown" if usage.cost_usd is None else f"${usage.cost_usd:.6f}"
                    print(f"\n{usage.total_tokens} tokens, {cost}, first chunk after {first_chunk_s * 1000:.0f} ms")
        except tm.LLMError as error:
            print(f"failed: {error}")
            return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=sorted(MODELS), default="fake", help="openai needs OPENAI_API_KEY")
    parser.add_argument("--model", help="the model; each provider has a default")
    parser.add_argument("--file", default="streaming.otlp.jsonl", help="file for the trace, as OTLP JSON lines")
    arguments = parser.parse_args()
    model = arguments.model or MODELS[arguments.provider]
    with tm.configure(service_name="streaming", file=arguments.file, prices=[TOY_PRICE]) as telemetry:
        exit_code = asyncio.run(read_aloud(arguments.provider, model, telemetry.recorder))
    print(f"See the trace: python -m tracemind_otel view {arguments.file}")
    return exit_code


if __name__ == "__main__":
    raise SystemExit(main())
