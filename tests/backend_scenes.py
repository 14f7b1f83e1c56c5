"""A flow that has every kind of span a backend may meet, and what each call used and cost.

In process for the contract tests, and as a program against live servers:
`python -m tests.backend_scenes PRESET URL SERVICE HEADERS`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import tracemind_otel as tm
from tracemind_otel.ai.llm import LLMUsage
from tracemind_otel.ai.llm.pricing import Price
from tracemind_otel.ai.llm.providers import FakeLLMClient

SESSION, USER, TOOL = "session-1", "user-1", "look_up"
PROMPT, ANSWER = "What is in stock?", "[fake:acme-plain] ?kcots ni si tahW"
INPUT_USD, OUTPUT_USD, READ_USD, WRITE_USD = Decimal("2"), Decimal("8"), Decimal("0.2"), Decimal("2.5")
"""USD per million tokens of every model that has a price."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One call."""

    model: str
    usage: LLMUsage | None
    """What the provider reports; `None` where it fails."""
    cost_usd: float | None
    """What the call costs; `None` where nobody knows."""
    script: Sequence[str] = ("ok",)


def _usd(uncached: int, output: int, read: int = 0, written: int = 0) -> float:
    return float((uncached * INPUT_USD + output * OUTPUT_USD + read * READ_USD + written * WRITE_USD) / 1_000_000)


def _usage(**parts: Any) -> LLMUsage:
    return LLMUsage(1_200, 300, 1_500, **parts)


SCENES = {
    "call": Scene(model="acme-plain", usage=_usage(), cost_usd=_usd(1_200, 300)),
    "streamed": Scene(model="acme-streamed", usage=_usage(), cost_usd=_usd(1_200, 300)),
    "retried": Scene(
        model="acme-retried",
        usage=_usage(),
        cost_usd=_usd(1_200, 300),
        script=("429 retry-after=0.01", "503 retry-after=0.01", "ok"),
    ),
    "failed": Scene(model="acme-failed", usage=None, cost_usd=None, script=("401",)),
    "cached": Scene(
        model="acme-cached",
        usage=_usage(cache_read_tokens=900, cache_write_tokens=100, reasoning_tokens=120),
        cost_usd=_usd(200, 300, 900, 100),
    ),
    "free": Scene(model="acme-free", usage=_usage(), cost_usd=0.0),
    "reported": Scene(model="acme-reported", usage=LLMUsage(1_200, 300, 1_500, 0.05), cost_usd=0.05),
    "unpriced": Scene(model="acme-unpriced", usage=_usage(), cost_usd=None),
}
"""The calls, by kind."""
PRICES = [
    Price(model=scene.model, input=INPUT_USD, output=OUTPUT_USD, cache_read=READ_USD, cache_write=WRITE_USD)
    for kind, scene in SCENES.items()
    if kind not in ("free", "reported", "unpriced")
] + [Price(model=SCENES["free"].model, input=Decimal(0), output=Decimal(0))]


class Acme(FakeLLMClient):
    """A provider of models that nobody else has."""

    provider_name = "openai"


@tm.tool(name=TOOL, capture_arguments=True, capture_result=True)
def look_up(word: str) -> dict[str, Any]:
    return {"found": word}


@tm.agent(name="clerk")
async def clerk() -> None:
    look_up("stock")
    await _call("call")


@tm.step(name="prepare")
async def prepare() -> None:
    await _call("retried")


@tm.flow(name="inner")
async def inner() -> None:
    await _call("cached")


@tm.flow(name="shop", tags=["beta"])
async def shop() -> None:
    """Every kind of span."""
    with tm.using_attributes(session_id=SESSION, user_id=USER):
        await clerk()
        await prepare()
        await inner()
        await _stream("streamed")
        for kind in ("failed", "free", "reported", "unpriced"):
            await _call(kind)


def _client(scene: Scene) -> Acme:
    options: dict[str, Any] = {} if scene.usage is None else {"usage": scene.usage}
    return Acme(script=list(scene.script), **options)


async def _call(kind: str) -> None:
    scene = SCENES[kind]
    config = tm.LLMCallConfig("openai", scene.model, prompt=PROMPT)
    await tm.run_llm_call("", kind, config, client=_client(scene))


async def _stream(kind: str) -> None:
    scene = SCENES[kind]
    config = tm.LLMCallConfig("openai", scene.model, prompt=PROMPT)
    async with tm.stream_llm_call("", kind, config, client=_client(scene)) as stream:
        async for _ in stream:
            pass


def main() -> None:
    """Run it against a server; exits with 1 if something did not arrive."""
    _, preset, url, service, headers = sys.argv
    telemetry = tm.configure(
        service_name=service,
        endpoint=url,
        preset=preset,
        prices=PRICES,
        capture_content=True,
        headers=dict(pair.split("=", 1) for pair in headers.split(",") if pair),
    )
    asyncio.run(shop())
    sys.exit(0 if telemetry.shutdown(timeout_s=90) else 1)


if __name__ == "__main__":
    main()
