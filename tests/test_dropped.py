"""Dropped streams and generators end outside the garbage collector, in processes that must not hang."""

from __future__ import annotations

from pathlib import Path

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
is_stream = sys.argv[1] == "dropped_stream"  # Python itself closes the others, which is no leak
assert warned == ["ResourceWarning"] * 500 * is_stream, (len(warned), set(warned))
"""


@pytest.mark.soak
@pytest.mark.parametrize(
    "kind", ["dropped_stream", "dropped_generator", "dropped_block", "dropped_coroutine", "dropped_call"]
)
def test_what_is_dropped_never_stops_the_process(kind: str) -> None:
    """Five hundred dropped objects of a kind all end, though they are collected during the SDK's own work."""
    done = run_program(PROGRAM, kind)

    assert done.returncode == 0, done.stderr


THREADS = """
import asyncio, faulthandler, gc, random, threading, warnings
import tracemind_otel as tm
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

faulthandler.dump_traceback_later(60, exit=True)
warnings.simplefilter("ignore")
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
telemetry = tm.configure(tracer_provider=provider, meter_provider=MeterProvider([InMemoryMetricReader()]))

class Client(tm.AsyncLLMClient):
    provider_name = "own"
    async def complete(self, req):
        return tm.LLMResponse("reply", tm.LLMUsage(1, 1, 2, 0.1))
    async def stream(self, req):
        for word in ("one ", "two "):
            yield (tm.TextDelta(word),)

async def drop(number):
    config = tm.LLMCallConfig("own", f"stream-{number}", prompt="ping")
    stream = tm.stream_llm_call("f", "s", config, telemetry.recorder, client=Client())
    await anext(stream)
    stream.cycle = stream
    @tm.tool(name=f"generator-{number}")
    def numbers():
        yield 1
    kept = [numbers()]
    kept.append(kept)
    next(kept[0])

def work(thread):
    for number in range(50):
        asyncio.run(drop(f"{thread}-{number}"))

gc.set_threshold(50)
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
while len(exporter.get_finished_spans()) < 400:
    gc.collect()  # does nothing while another thread collects
    telemetry.flush()
names = [span.name for span in exporter.get_finished_spans()]
assert len(set(names)) == len(names) == 400, len(names)
"""


@pytest.mark.soak
def test_what_threads_drop_ends() -> None:
    """Streams and generators that four threads drop, after their loops have closed, have one span each."""
    done = run_program(THREADS)

    assert done.returncode == 0, done.stderr


EXIT = """
import asyncio, gc, sys, warnings
import tracemind_otel as tm

warnings.simplefilter("ignore")
telemetry = tm.configure(service_name="exit", file=sys.argv[1])
kept = []

@tm.tool(name="generator")
def numbers():
    yield 1
    yield 2

@tm.tool(name="later")
async def numbers_later():
    yield 1
    yield 2

@tm.flow(name="closed")
def closed():
    yield 1

async def main():
    stream = tm.stream_llm_call(
        "f", "s", tm.LLMCallConfig("fake", "toy-1", prompt="ping"), telemetry.recorder
    )
    await anext(stream)
    kept.append(stream)

asyncio.run(main())
loop = asyncio.new_event_loop()
kept += [numbers(), numbers_later()]
next(kept[1])
loop.run_until_complete(anext(kept[2]))
loop.close()
broken_off = closed()
next(broken_off)
broken_off.close()
"""


@pytest.mark.soak
def test_what_is_open_at_exit_ends(tmp_path: Path) -> None:
    """A stream and generators that are open or just closed at exit have their spans in the file."""
    file = tmp_path / "trace.otlp.jsonl"

    done = run_program(EXIT, str(file))

    assert (done.returncode, done.stderr) == (0, "")
    written = file.read_text()
    for name in ("chat toy-1", "execute_tool generator", "execute_tool later", "invoke_workflow closed"):
        assert written.count(f'"{name}"') == 1, name


FORKED = """
import asyncio, gc, os, sys, warnings
import tracemind_otel as tm

warnings.simplefilter("ignore")
telemetry = tm.configure(service_name="fork", file=sys.argv[1])

@tm.tool(name="generator")
def numbers():
    yield 1
    yield 2

held = [numbers()]
next(held[0])
if os.fork() == 0:
    held.clear()
    tm.step(name="in the child")(lambda: None)()
    telemetry.flush()
    os._exit(0)
os.wait()
"""


@pytest.mark.soak
def test_a_forked_child_ends_nothing_of_its_parent(tmp_path: Path) -> None:
    """A generator in both parent and child has one span, the parent's."""
    file = tmp_path / "trace.otlp.jsonl"

    done = run_program(FORKED, str(file))

    assert (done.returncode, done.stderr) == (0, "")
    written = "".join(each.read_text() for each in tmp_path.iterdir())
    assert written.count('"execute_tool generator"') == 1
    assert written.count('"in the child"') == 1
