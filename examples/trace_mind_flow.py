"""A flow of the trace-mind runtime: three runs at once, each a trace with its steps, model calls, retries and cost.

It needs `pip install trace-mind`, but no key: without `OPENAI_API_KEY` a local server answers.
"""

from __future__ import annotations

import asyncio
from typing import Any

from local_model import stand_in

import tracemind_otel
from tracemind_otel.integrations.trace_mind import TraceMindInstrumentor, llm_call_step

try:
    from tm.flow.operations import Operation
    from tm.flow.runtime import FlowRuntime
    from tm.flow.spec import FlowSpec, StepDef
except ImportError as error:
    raise SystemExit(f"{error.name} is not installed: pip install trace-mind") from error

FILE = "trace_mind_flow.otlp.jsonl"
ARTICLES = ("A lamp was sold at the market.", "It rained all day long.", "The train was on time again.")
MODEL = {"provider": "openai", "model": "gpt-4o-mini"}


class Digest:
    """Summarizes an article, and finds a title for the summary."""

    name = "digest"

    def spec(self) -> FlowSpec:
        summarize = {**MODEL, "template": "Summarize in one line: {{ article }}"}
        title = {**MODEL, "template": "A title for: {{ text }}"}
        spec = FlowSpec(name=self.name)
        spec.add_step(StepDef("summarize", Operation.TASK, ("title",), summarize, run=llm_call_step))
        spec.add_step(StepDef("title", Operation.TASK, (), title, run=llm_call_step))
        return spec


async def digest(articles: tuple[str, ...]) -> list[dict[str, Any]]:
    runtime = FlowRuntime({Digest.name: Digest()})
    results = await asyncio.gather(*(runtime.run(Digest.name, inputs={"article": article}) for article in articles))
    await runtime.aclose()
    return [result["output"]["state"] for result in results]


def main() -> int:
    stand_in("openai")
    with tracemind_otel.configure(service_name="digest", file=FILE):
        TraceMindInstrumentor().instrument()
        for state in asyncio.run(digest(ARTICLES)):
            print(f"{state['text']} ({state['total_tokens']} tokens, ${state['cost_usd']:.6f})")
    print(f"See the traces: python -m tracemind_otel view {FILE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
