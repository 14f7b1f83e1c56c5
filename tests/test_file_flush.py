"""The file of `configure(file=...)` has a flow as soon as the flow has ended."""

from __future__ import annotations

import asyncio
import textwrap
import threading
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

import tracemind_otel as tm
from tests.programs import run
from tracemind_otel.otel.setup.processors import FlushAtFlowEnd


def test_view_in_another_process_sees_the_flow(tmp_path: Path) -> None:
    """A script may run `tracemind-otel view` on its own file straight after the flow."""
    program = """\
        import subprocess, sys
        import tracemind_otel as tm

        tm.configure(file="trace.jsonl")
        with tm.flow("import"), tm.step("read"):
            tm.llm_call_sync("fake/toy-1", "hi")
        subprocess.run([sys.executable, "-m", "tracemind_otel", "view", "trace.jsonl"], check=True)
    """
    done = run("-c", textwrap.dedent(program), directory=tmp_path)
    assert "import" in done.stdout
    assert "chat toy-1" in done.stdout


def test_view_in_the_same_process_sees_the_flow(tmp_path: Path) -> None:
    """In a notebook the flow ends on the event loop, which does not wait for the file; `view` does."""
    program = """\
        import asyncio
        import tracemind_otel as tm
        from tracemind_otel.cli import main

        tm.configure(file="trace.jsonl")

        @tm.flow("import")
        async def work():
            await tm.llm_call("fake/toy-1", "hi")

        async def notebook():
            await work()
            main(["view", "trace.jsonl", "--by", "model"])

        asyncio.run(notebook())
    """
    done = run("-c", textwrap.dedent(program), directory=tmp_path)
    assert "fake/toy-1" in done.stdout, done.stderr


def test_a_forked_child_writes_its_flows_too(tmp_path: Path) -> None:
    """The thread that writes for an event loop belongs to one process; a child starts its own."""
    program = """\
        import asyncio, os, pathlib
        import tracemind_otel as tm

        tm.configure(file="trace.jsonl")

        @tm.flow
        async def work(name):
            with tm.step(name):
                pass

        async def written(name):
            await work(name)
            while name not in pathlib.Path("trace.jsonl").read_text():
                await asyncio.sleep(0.01)

        asyncio.run(written("of the parent"))
        child = os.fork()
        if child == 0:
            asyncio.run(written("of the child"))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print("both were written")
    """
    done = run("-c", textwrap.dedent(program), directory=tmp_path)
    assert done.stdout == "both were written\n", done.stderr


async def test_the_event_loop_never_waits_for_the_file() -> None:
    """The flow ends while the file cannot be written, and the end of a second flow meanwhile is not forgotten."""
    may_write, writes, written = threading.Event(), list[str](), asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def write() -> None:
        may_write.wait()
        writes.append(threading.current_thread().name)
        loop.call_soon_threadsafe(written.release)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(FlushAtFlowEnd(write))
    with tm.configure(tracer_provider=provider):
        with tm.flow("one"), tm.flow("inside, which writes nothing of its own"):
            pass
        assert writes == []
        may_write.set()
        async with asyncio.timeout(20):
            await written.acquire()
        with tm.flow("two"):
            pass
        async with asyncio.timeout(20):
            await written.acquire()
    assert set(writes) == {"tracemind-file"}


def test_without_an_event_loop_the_flow_waits_for_the_file() -> None:
    """So the next line of a script finds it there, at the end of the outermost flow and not of each."""
    writes = list[str]()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(FlushAtFlowEnd(lambda: writes.append(threading.current_thread().name)))
    with tm.configure(tracer_provider=provider):
        with tm.flow("one"):
            with tm.flow("inside"), tm.step("work"):
                pass
            assert writes == []
        assert writes == [threading.current_thread().name]
        with provider.get_tracer("other").start_as_current_span("invoke_workflow of another library"):
            pass
    assert len(writes) == 1
