"""The application under test: flows of five calls at a steady rate, a quarter of them streamed, with its own ledger.

The ledger has a line for each call that returned, written before the next begins, and one for each span that ended.
Run with a directory for the ledger, the provider's and the Collector's URL, the rate, the seconds and, for a spool on
disk, its directory.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

import tracemind_otel as tm

CALLS = 5
"""Calls of a flow, one after the other."""
SETTLED_S = 3.0
"""Seconds after the start from which stalls of the event loop count."""
PROMPT = "Why does it matter that a sum is right? " * 5


class Ledger:
    """Lines appended to a file; each is in the page cache when `write` returns."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, **line: Any) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


class SpanLedger(SpanProcessor):
    """Notes each span that has ended, after the exporter's processor has had it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None:
            self._ledger.write(span=f"{span.context.span_id:016x}")


class Application:
    """The flows."""

    def __init__(self, ledger: Ledger, provider_url: str) -> None:
        self._ledger = ledger
        self._client = tm.LLMClientFactory.make("openai", api_key="chaos", base_url=f"{provider_url}/v1")
        self._number = 0

    async def run(self, rate: float, seconds: float) -> None:
        """Begin flows at this rate of calls a second, and wait for all of them."""
        watch = asyncio.create_task(self._watch())
        ends_at = time.monotonic() + seconds
        next_at = time.monotonic()
        async with asyncio.TaskGroup() as flows:
            while time.monotonic() < ends_at:
                flows.create_task(self._flow())
                next_at += CALLS / rate
                await asyncio.sleep(max(next_at - time.monotonic(), 0.0))
        watch.cancel()

    async def _watch(self) -> None:
        """Note the longest stall of the event loop."""
        begins_at = time.monotonic() + SETTLED_S
        longest_s = 0.0
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.002)
            stall_s = time.monotonic() - before - 0.002
            if before > begins_at and stall_s > longest_s:
                longest_s = stall_s
                self._ledger.write(stall_s=stall_s)

    @tm.flow(name="chaos")
    async def _flow(self) -> None:
        for _ in range(CALLS):
            self._number += 1
            await self._call(is_streamed=self._number % 4 == 0)

    async def _call(self, *, is_streamed: bool) -> None:
        options: Any = {"client": self._client, "max_tokens": 40, "timeout_ms": 5_000, "max_retries": 4}
        try:
            if is_streamed:
                async with tm.llm_stream("openai/gpt-4o-mini", PROMPT, **options) as stream:
                    async for _ in stream:
                        pass
                cost_usd = None if stream.result is None else stream.result.cost_usd
            else:
                cost_usd = (await tm.llm_call("openai/gpt-4o-mini", PROMPT, **options)).cost_usd
        except tm.LLMError as error:
            cost_usd = (error.result or {}).get("usage", {}).get("cost_usd")
        self._ledger.write(cost_usd=cost_usd)


def main() -> None:
    folder, provider_url, collector_url, rate, seconds, *spool = sys.argv[1:]
    ledger = Ledger(Path(folder) / f"ledger-{os.getpid()}.jsonl")
    options: Any = {"spool": spool[0]} if spool else {}
    telemetry = tm.configure(service_name="chaos", endpoint=collector_url, instrument=False, **options)
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(SpanLedger(ledger))
    asyncio.run(Application(ledger, provider_url).run(float(rate), float(seconds)))
    ledger.write(delivered=telemetry.shutdown(timeout_s=60.0))


if __name__ == "__main__":
    main()
