"""Two model calls, told to a recorder that prints: one on the fake provider, one to OpenAI.

Run it with `python -m tracemind_otel.recipes.llm_call_example`. The second call needs `OPENAI_API_KEY`
(`OPENAI_BASE_URL` is read too); without a key it is skipped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from tracemind_otel.runtime.recorder import Recorder
from tracemind_otel.steps.ai_llm_call import LLMCallConfig, run_llm_call


class PrintRecorder(Recorder):
    """A recorder of your own overrides as little as this."""

    def record_step_start(self, flow_id: str, step_id: str, payload: Mapping[str, Any] | None = None) -> None:
        print("START:", flow_id, step_id, payload)

    def record_step_end(
        self, flow_id: str, step_id: str, status: str, payload: Mapping[str, Any] | None = None
    ) -> None:
        print("END:", flow_id, step_id, status, payload)


async def main() -> None:
    """The fake call always, the OpenAI call when there is a key."""
    recorder = PrintRecorder()

    fake = LLMCallConfig(
        provider="fake",
        model="toy-1",
        template="Hello, {{name}}! What is 2+2?",
        vars={"name": "TraceMind"},
        timeout_ms=1000,
        max_retries=1,
    )
    await run_llm_call("flow.demo", "step.1", fake, recorder)

    if not os.getenv("OPENAI_API_KEY"):
        print("SKIPPED: flow.demo step.2: OPENAI_API_KEY is not set; set it to call OpenAI")
        return
    real = LLMCallConfig(
        provider="openai",
        model="gpt-4o-mini",
        prompt="Give me one line on why async IO matters.",
        temperature=0.2,
        timeout_ms=15000,
        max_retries=2,
    )
    await run_llm_call("flow.demo", "step.2", real, recorder)


if __name__ == "__main__":
    asyncio.run(main())
