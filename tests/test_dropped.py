"""What is dropped before its end ends outside of the garbage collector, in a process of its own that must not hang."""

from __future__ import annotations

import pytest

from tests.programs import run_program

PROGRAM = """
import asyncio, contextlib, faulthandler, gc, random, sys, warnings
from collections.abc import Sequence
import tracemind_otel as tm
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tracemind_otel.ai.llm.types import TextDelta

faulthandler.dump_traceback_later(60, exit=True)
warned = []
sys.unraisablehook = lambda hooked: warned.append(hooked.exc_type.__name__)
warnings.simplefilter("error")
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracer_provider, meter_provider = TracerProvider(), MeterProvider([reader])
tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
telemetry = tm.configure(tracer_provider=tracer_provider, meter_provider=meter_provider)

class Client(tm.AsyncLLMClient):
    provider_name = "own"
    async def complete(self, req):
        return tm.LLMResponse("reply", tm.LLMUsage(1, 1, 2, 0.1))
    async def stream(self, req):
        for word in ("one ", "two "):
            yield (TextDelta(word),)

client = Client()

def config(model):
    return tm.LLMCallConfig("own", model, prompt="ping")

async def dropped_stream(number):
    stream = tm.stream_llm_call("f", "s", config(f"dropped-{number}"), telemetry.recorder, client=client)
    await anext(stream)
    stream.cycle = stream

class Cycle:
    pass

async def dropped_generator(number):
    @tm.tool(name=f"dropped-{number}")
    def numbers():
        yield 1
    cycle = Cycle()
    cycle.itself, cycle.kept = cycle, numbers()
    next(cycle.kept)

async def dropped_block(number):
    def numbers():
        with tm.tool(name=f"dropped-{number}"):
            yield 1
    cycle = Cycle()
    cycle.itself, cycle.kept = cycle, numbers()
    next(cycle.kept)

async def dropped_coroutine(number):
    @tm.tool(name=f"dropped-{number}")
    async def waits():
        await asyncio.Event().wait()
    cycle = Cycle()
    cycle.itself, cycle.kept = cycle, waits()
    cycle.kept.send(None)

async def dropped_call(number):
    class Hangs(Client):
        async def complete(self, req):
            await asyncio.Event().wait()
    call = tm.run_llm_call("f", "s", config(f"dropped-{number}"), telemetry.recorder, client=Hangs())
    cycle = Cycle()
    cycle.itself, cycle.kept = cycle, call
    cycle.kept.send(None)

async def main(drop):
    random.seed(7)
    for number in range(500):
        gc.set_threshold(random.randint(5, 900))
        await drop(number)
        await tm.run_llm_call("f", "s", config(f"whole-{number}"), telemetry.recorder, client=client)
    gc.collect()
    await asyncio.sleep(0)

asyncio.run(main(globals()[sys.argv[1]]))
names = [span.name for span in exporter.get_finished_spans()]
assert len(set(names)) == len(names) == 1000, len(names)
assert sum("dropped-" in name for name in names) == 500
assert warned == ["ResourceWarning"] * 500, (len(warned), set(warned))
"""


@pytest.mark.soak
@pytest.mark.parametrize(
    "kind", ["dropped_stream", "dropped_generator", "dropped_block", "dropped_coroutine", "dropped_call"]
)
def test_what_is_dropped_never_stops_the_process(kind: str) -> None:
    """Five hundred of a kind, collected in the middle of the SDK's own work, with new attributes each: all end."""
    done = run_program(PROGRAM, kind)

    assert done.returncode == 0, done.stderr
