"""The flow of `python -m tracemind_otel demo`: three model calls on the fake provider.

One succeeds, one recovers after a 429 and a time-out, one fails for good. It needs no key, no server and no
network; replies, token counts and prices are scripted.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from opentelemetry import trace

from ..ai.llm.pricing import Price
from ..ai.llm.providers.fake import FakeLLMClient
from ..ai.llm.usage import LLMUsage
from ..call.config import LLMCallConfig
from ..front.configure import configure
from ..front.model_calls import run_llm_call
from ..otel.decorators import flow, step

_MODEL = "demo-small"
_PRICES = (Price(model=_MODEL, provider="fake", input=Decimal("0.15"), output=Decimal("0.60")),)
"""USD per million tokens; the fake provider itself is free and would have no cost to show."""


def run_demo(*, file: str | os.PathLike[str], endpoint: str | None = None) -> tuple[str, bool]:
    """Run the flow; its spans go to a file and to the endpoint if one is set.

    Returns:
        The id of its trace, and whether the file and the endpoint received everything.

    Raises:
        ConfigError: the file cannot be written, or an argument or variable is wrong.
    """
    telemetry = configure(service_name="tracemind-demo", endpoint=endpoint, file=file, prices=_PRICES)
    try:
        trace_id = asyncio.run(answer_ticket())
    except BaseException:
        telemetry.shutdown(0.5)
        raise
    return trace_id, telemetry.shutdown()


@flow
async def answer_ticket() -> str:
    """Make the three calls in turn; returns the id of their trace."""
    await classify()
    await draft_reply()
    await translate_reply()
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)


@step
async def classify() -> dict[str, Any]:
    """Succeed at once."""
    return await _call("classify", "Which team?", LLMUsage(420, 6, 426), script=["ok latency=120"])


@step
async def draft_reply() -> dict[str, Any]:
    """Recover after a 429 and a time-out."""
    usage = LLMUsage(1_000, 500, 1_500, cache_read_tokens=256, reasoning_tokens=128)
    script = ["429 retry-after=0.2", "timeout", "ok latency=180"]
    return await _call("draft_reply", "Write a reply.", usage, script=script)


@step
async def translate_reply() -> dict[str, Any]:
    """Fail for good: the server is down for longer than its one retry."""
    script = ["503 retry-after=0.3", "503"]
    return await _call("translate_reply", "Into French.", LLMUsage(), script=script, max_retries=1)


async def _call(
    step_id: str, prompt: str, usage: LLMUsage, *, script: Sequence[str], max_retries: int = 2
) -> dict[str, Any]:
    config = LLMCallConfig("fake", _MODEL, prompt=prompt, timeout_ms=250, max_retries=max_retries)
    client = FakeLLMClient(latency_ms=40, script=script, usage=usage)
    return await run_llm_call("demo", step_id, config, client=client)
